"""The one module that reads the process's environment variables, and where a workspace keeps its files.

SSMD_ENV          which environment a command means
SSMD_WORKSPACE    the directory that holds exchanges/ and .ssmd/ (default: the nearest one upwards)
SSMD_LOG_LEVEL    debug | info | warning | error; components log from info on, commands only where it is set (to stderr)
SSMD_INSTANCE     which archiver of several this one is (default: the first free of main, main-2, ...); others stand by
SSMD_CRASH_POINTS a directory: processes pass their crash points under its orders (`services.armed_crash`); for tests
SSMD_MONITOR      HOST:PORT where a component serves /metrics and /healthz (default: a free port of 127.0.0.1)
SSMD_NATS_NKEY_FILE   the file of this process's NATS key; or SSMD_NATS_NKEYS, a directory with one {role}.nk a role
SSMD_KEYS_PASSPHRASE, SSMD_KEYS_PASSPHRASE_FILE   of the encrypted key store (default: .ssmd/keys.passphrase)
SSMD_VAULT_TOKEN, SSMD_VAULT_TOKEN_FILE           for keys in HashiCorp Vault
SSMD_<KEY>_<FIELD>, SSMD_<KEY>_<FIELD>_FILE   secrets, read by `keys` through `variables()`
OTEL_EXPORTER_OTLP_ENDPOINT and its like          where traces go (`telemetry.tracing`); not set = there are none
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


def variables() -> Mapping[str, str]:
    """The process's environment variables, as they are now."""
    return os.environ  # noqa: TID251 - this module is their one reader


class Workspace(NamedTuple):
    """One checkout: `root` holds exchanges/ (the registry) and .ssmd/ (local state, not in git)."""

    root: Path

    @property
    def registry(self) -> Path:
        return self.root / "exchanges"

    @property
    def state(self) -> Path:
        return self.root / ".ssmd"

    def environment(self, env: str) -> Path:
        """State of one environment: run.json, tape/, archive/, nats-journal/, nats-transport/, cache/, logs/, spool/."""
        return self.state / env


def find_workspace(start: Path, given: str = "") -> Workspace:
    """`given` if set, else the nearest directory from `start` upwards that holds exchanges/, else `start`."""
    if given:
        return Workspace(Path(given).resolve())
    here = start.resolve()
    for directory in (here, *here.parents):
        if (directory / "exchanges" / "environments").is_dir():
            return Workspace(directory)
    return Workspace(here)
