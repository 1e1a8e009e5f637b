"""A venue on loopback as a process of its own, for whoever points a bot at it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from ssmd.clock import Clock
from ssmd.errors import Misconfigured
from ssmd.identifiers import RandomBytes
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.settings import Workspace

KEY_NAME = "kalshi"


class OwnKey(NamedTuple):
    """A key made for the simulator's users. `path` holds both fields as JSON, for its owner alone."""

    key_id: str
    public_pem: str
    path: Path


def own_key(workspace: Workspace, random: RandomBytes) -> OwnKey:
    """The workspace's key for `ssmd simulate kalshi`, made when first asked for (.ssmd/simulator/keys)."""
    from ssmd.exchanges.kalshi.signing import load_private_key, public_pem  # noqa: PLC0415 - keeps --help quick
    from ssmd.keys.source import resolve_key  # noqa: PLC0415 - as above
    from ssmd.registry.documents import KeyDefinition  # noqa: PLC0415 - as above

    definition = KeyDefinition(type="kalshi-api-key", fields=("api_key", "private_key"), source="generated")
    directory = workspace.state / "simulator" / "keys"
    fields = resolve_key(KEY_NAME, definition, variables={}, directory=directory, random=random)
    private_key = load_private_key(fields["private_key"].reveal().encode())
    return OwnKey(fields["api_key"].reveal(), public_pem(private_key).decode(), directory / f"{KEY_NAME}.json")


def read_public_keys(pairs: list[str]) -> dict[str, str]:
    """PEM by key id of arguments ID=FILE.

    Raises:
        Misconfigured: not of that form, or the file is no public key.
    """
    from ssmd.errors import Malformed  # noqa: PLC0415 - with what follows
    from ssmd.exchanges.kalshi.signing import load_public_key  # noqa: PLC0415 - keeps --help quick

    keys: dict[str, str] = {}
    for pair in pairs:
        key_id, equals, file = pair.partition("=")
        if not (key_id and equals and file):
            raise Misconfigured(f"--public-key {pair!r} is not ID=FILE", mend="--public-key my-id=public.pem")
        try:
            pem = Path(file).read_bytes()
            load_public_key(pem)
        except OSError as error:
            raise Misconfigured(f"{file} cannot be read: {error.strerror}", mend="check the path") from error
        except Malformed as error:
            raise Misconfigured(f"{file}: {error.message}", mend="openssl pkey -in KEY.pem -pubout -out public.pem") from error
        keys[key_id] = pem.decode()
    return keys


def read_settings(path: Path) -> SimulatorConfig:
    """The settings in a JSON file; what it does not name has its default.

    Raises:
        Misconfigured: it cannot be read, or a setting is unknown or of another type.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=SimulatorConfig)
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}", mend="check the path") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path}: {error}", mend="docs/simulator.md names the settings") from error


def run_simulator(config: SimulatorConfig, clock: Clock, started: Callable[[Mapping[str, str]], None]) -> None:
    """Serve until SIGTERM or SIGINT; blocks.

    Args:
        started: told the urls ("rest", "websocket", "control") once they answer.

    Raises:
        Misconfigured: a setting is wrong, the port is taken, the capture is missing.
        Malformed: the capture has a bad line.
    """
    asyncio.run(_serve(config, clock, started))


async def _serve(config: SimulatorConfig, clock: Clock, started: Callable[[Mapping[str, str]], None]) -> None:
    from ssmd.services.simulator.simulator import Simulator  # noqa: PLC0415 - keeps --help quick

    simulator = Simulator(config, clock)
    await simulator.start()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    started({"rest": simulator.rest_url, "websocket": simulator.websocket_url, "control": simulator.control_url})
    running = asyncio.create_task(simulator.run(), name="simulator")
    told = asyncio.create_task(stopping.wait(), name="told to stop")
    try:
        await asyncio.wait({running, told}, return_when=asyncio.FIRST_COMPLETED)
        await simulator.stop()
        await running
    finally:
        told.cancel()
        running.cancel()
        await asyncio.gather(told, running, return_exceptions=True)
