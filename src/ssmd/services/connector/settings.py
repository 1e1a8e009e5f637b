"""Settings of a connector."""

from __future__ import annotations

from typing import NamedTuple


class ConnectorSettings(NamedTuple):
    """How the tape is written; meanings and bounds as in `registry.documents.TapeSettings`.

    `backoff_first_s`, `backoff_max_s`: between two attempts to connect.
    """

    block_ms: int = 10
    block_bytes: int = 256 << 10
    fsync_ms: int = 20
    file_bytes: int = 64 << 20
    bytes_max: int = 16 << 30
    backoff_first_s: float = 0.25
    backoff_max_s: float = 30.0
    watch_s: float = 10.0
    zone: str = "UTC"
    config: str = ""
