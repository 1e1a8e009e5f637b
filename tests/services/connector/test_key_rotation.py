"""A key is rotated while the connector captures, rehearsed with two valid keys at the simulator: no restart, no refusal."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ssmd.application.handler import Application
from ssmd.clock import SystemClock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.exchanges.kalshi.signing import KEY_HEADER, public_pem
from ssmd.identifiers import system_random
from ssmd.keys.fingerprint import fingerprint
from ssmd.keys.mounted import write_mounted
from ssmd.keys.secret import Secret
from ssmd.services.connector.kalshi_venue import KalshiAccess, ask_whether_accepted
from ssmd.services.connector.service import ConnectorService
from ssmd.services.connector.settings import ConnectorSettings
from ssmd.services.key_watch import LOAD_S, SETTLE_S, WATCH_S
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.simulator.simulator import Simulator
from ssmd.settings import Workspace
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.streams.transport_memory import MemoryTransport
from ssmd.wiring.environment import resolve_environment
from ssmd.wiring.key_journal import opened_keys
from ssmd.wiring.key_loads import KeyLoads
from ssmd.wiring.venue_key import venue_key, watched_key

ROOT = Path(__file__).parents[3]
ENVIRONMENT = """
keys:
  kalshi:
    type: kalshi-api-key
    fields: [api_key, private_key]
    source: file
    path: secrets/kalshi
name: rotating
feed: kalshi
schema: market:1
capture:
  endpoint: demo
  key: $key:kalshi
journal:
  backend: sqlite
cache:
  backend: memory
"""
KEYS = {name: Ed25519PrivateKey.generate() for name in ("old", "new")}
DEADLINE_S = 30.0


def fields_of(name: str) -> dict[str, Secret]:
    pem = (
        KEYS[name]
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )
    return {"api_key": Secret(name), "private_key": Secret(pem.strip())}


class Rehearsal:
    """A connector that signs with what stands in a directory, and a venue that says who asked."""

    def __init__(self, root: Path, simulator: Simulator) -> None:
        self.root = root
        self.simulator = simulator
        self.handshakes: list[tuple[str, bool]] = []
        authentication = simulator._authentication
        assert authentication is not None
        self._authentication, refusal = authentication, authentication.refusal

        def noted(headers: Mapping[str, str], method: str, path: str) -> bytes:
            refused = refusal(headers, method, path)
            if path.endswith("/ws/v2"):
                self.handshakes.append((headers.get(KEY_HEADER.lower(), ""), not refused))
            return refused

        authentication.refusal = noted  # type: ignore[method-assign]

    def store(self, name: str) -> None:
        write_mounted(self.root / "secrets" / "kalshi", fields_of(name))

    def revoke(self, name: str) -> None:
        del self._authentication._keys[name]

    async def drop_connection(self) -> None:
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{self.simulator.control_url}/faults", json={"kind": "drop-connection"})
        assert answer.status_code == 200

    async def until_handshake(self, name: str, *, accepted: bool = True, more_than: int = 0) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while self.handshakes.count((name, accepted)) <= more_than:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def rehearsal(tmp_path: Path) -> AsyncIterator[Rehearsal]:
    pems = {name: public_pem(key).decode() for name, key in KEYS.items()}
    simulator = Simulator(SimulatorConfig(public_keys=pems, markets=2, rate=100), SystemClock())
    await simulator.start()
    serving = asyncio.create_task(simulator.run())
    shutil.copytree(ROOT / "exchanges", tmp_path / "exchanges")
    (tmp_path / "exchanges" / "environments" / "rotating.yaml").write_text(ENVIRONMENT)
    try:
        yield Rehearsal(tmp_path, simulator)
    finally:
        await simulator.stop()
        await serving


@asynccontextmanager
async def capturing(rehearsed: Rehearsal) -> AsyncIterator[asyncio.Task[None]]:
    """The connector as its process runs it: key watched, loads journaled."""
    clock, loads = SystemClock(), KeyLoads()
    environment = resolve_environment(Workspace(rehearsed.root), "rotating", "2026-11-22")
    async with AsyncExitStack() as stack:
        watched = dataclasses.replace(environment, on_key=loads.note)
        ask_key = await watched_key(watched, {}, system_random, stack, every_s=0.1, settle_s=0.02)
        await stack.enter_async_context(loads.journaled(environment, {}, clock, system_random, "connector:main"))
        access = KalshiAccess(
            rest_url=rehearsed.simulator.rest_url,
            websocket_url=rehearsed.simulator.websocket_url,
            ask_key=ask_key,
            channels=("market_lifecycle_v2",),
            tickers=("KXNONE-1",),
            tickers_max=10,
            clock=clock,
        )
        connector = ConnectorService(
            access.venue("kalshi", "kalshi-dollars"), "rotating", "main", rehearsed.root / "tape", MemoryTransport(),
            Application(MemoryJournal("rotating"), CATALOGUE, clock, system_random), clock, system_random,
            ConnectorSettings(backoff_first_s=0.02),
        )  # fmt: skip
        running = asyncio.create_task(connector.run())
        try:
            yield running
        finally:
            await connector.stop()
            async with asyncio.timeout(60):
                await asyncio.gather(running, return_exceptions=True)


async def audit(rehearsed: Rehearsal) -> list[tuple[str, str, str]]:
    environment = resolve_environment(Workspace(rehearsed.root), "rotating", "2026-11-22")
    async with opened_keys(environment, {}, SystemClock(), system_random, "test", print) as keys:
        return [(line.event, line.actor, line.fingerprint) for line in await keys.audit("kalshi")]


async def test_a_rotated_key_is_used_without_a_restart(tmp_path: Path) -> None:
    async with rehearsal(tmp_path) as rehearsed:
        rehearsed.store("old")
        async with capturing(rehearsed) as running:
            await rehearsed.until_handshake("old")
            began_s = time.monotonic()
            rehearsed.store("new")
            marks = {name: fingerprint("rotating", "kalshi", fields_of(name)) for name in KEYS}
            async with asyncio.timeout(DEADLINE_S):
                while ("accessed", "connector:main", marks["new"]) not in await audit(rehearsed):
                    await asyncio.sleep(0.05)
            # Both keys are valid: nothing was refused. Now the old one is taken back, and the connection falls.
            rehearsed.revoke("old")
            await rehearsed.drop_connection()
            await rehearsed.until_handshake("new")
            assert time.monotonic() - began_s < DEADLINE_S
            assert not running.done()
            assert rehearsed.handshakes == [("old", True), ("new", True)]
        assert await audit(rehearsed) == [
            ("defined", "connector:main", ""),
            ("set", "connector:main", marks["old"]),
            ("accessed", "connector:main", marks["old"]),
            ("rotated", "connector:main", marks["new"]),
            ("accessed", "connector:main", marks["new"]),
        ]


async def test_a_key_taken_back_too_early_is_waited_for(tmp_path: Path) -> None:
    async with rehearsal(tmp_path) as rehearsed:
        rehearsed.store("old")
        async with capturing(rehearsed) as running:
            await rehearsed.until_handshake("old")
            rehearsed.revoke("old")
            await rehearsed.drop_connection()
            await rehearsed.until_handshake("old", accepted=False, more_than=1)
            assert not running.done()
            rehearsed.store("new")
            await rehearsed.until_handshake("new")
            assert not running.done()


async def test_a_key_that_was_never_accepted_ends_the_connector_at_once(tmp_path: Path) -> None:
    async with rehearsal(tmp_path) as rehearsed:
        rehearsed.store("old")
        rehearsed.revoke("old")
        async with capturing(rehearsed) as running:
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.wait({running})
            with pytest.raises(Exception, match="refused the handshake: 401"):
                running.result()


async def test_the_venue_is_asked_whether_it_takes_a_key(tmp_path: Path) -> None:
    async with rehearsal(tmp_path) as rehearsed:
        url = rehearsed.simulator.rest_url
        assert await ask_whether_accepted(url, venue_key(fields_of("new")), SystemClock()) == ""
        rehearsed.revoke("new")
        answer = await ask_whether_accepted(url, venue_key(fields_of("new")), SystemClock())
        assert answer == "the venue answered 401: it does not take this key"


def test_the_watch_is_quick_enough_for_the_promise() -> None:
    """A look every WATCH_S, one settling, and the load itself quick: 30 s hold."""
    assert WATCH_S + SETTLE_S + 2 <= 30
    assert LOAD_S <= 20
