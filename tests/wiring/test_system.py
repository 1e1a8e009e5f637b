"""In which order a system starts, and what one part's failure does to the others; nothing really runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ssmd.clock import SystemClock, date_of
from ssmd.errors import Misconfigured, Unavailable
from ssmd.registry.bootstrap import DEMO_ENVIRONMENT, write_registry
from ssmd.schemas.codecs import definition_sha256
from ssmd.services.supervisor import ChildSpec
from ssmd.settings import Workspace
from ssmd.wiring import system as systems
from ssmd.wiring.environment import resolve_environment
from ssmd.wiring.system import LocalSystem

CONSUMERS = {"simulator", "projector", "raw-archiver", "normalized-archiver", "gateway"}
Start = Callable[[str], Awaitable[None]]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Start], LocalSystem]:
    """A system whose components, and Temporal, are started by a function of the test."""
    text = DEMO_ENVIRONMENT.format(capture="  simulator:\n    seed: 1\n", segment_bytes=1 << 20)
    write_registry(tmp_path, {"demo": text}, definition_sha256())
    environment = resolve_environment(Workspace(tmp_path), "demo", date_of(SystemClock().now_ns()))

    async def nothing(*_: object) -> dict[str, Any]:
        return {}

    def make(start: Start) -> LocalSystem:
        system = LocalSystem(environment, {}, SystemClock(), lambda _: None)
        monkeypatch.setattr(systems, "apply_streams", nothing)
        monkeypatch.setattr(system, "_prepare_servers", nothing)
        monkeypatch.setattr(system, "_start_component", start)
        monkeypatch.setattr(system, "_start_temporal", lambda _: start("temporal"))
        monkeypatch.setattr(system, "_with_temporal", True)
        return system

    return make


async def test_the_connector_comes_last_and_waits_for_no_schedule(made: Callable[[Start], LocalSystem]) -> None:
    started: list[str] = []
    is_connected = asyncio.Event()

    async def start(kind: str) -> None:
        if kind == "temporal":
            await is_connected.wait()
        await asyncio.sleep(0)
        started.append(kind)
        if kind == "connector":
            is_connected.set()

    async with asyncio.timeout(60), made(start):
        assert set(started[:5]) == CONSUMERS
        assert started[5:] == ["connector", "temporal"]


@pytest.mark.parametrize("failing", ["temporal", "gateway", "connector"])
async def test_what_fails_to_start_ends_the_start_of_all_others_and_is_told(
    made: Callable[[Start], LocalSystem], failing: str
) -> None:
    begun: list[str] = []
    ended: list[str] = []

    async def start(kind: str) -> None:
        begun.append(kind)
        try:
            if kind == failing:
                while kind == "temporal" and "connector" not in begun:
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
                raise Misconfigured(f"no {kind}") if kind == "temporal" else Unavailable(f"no {kind}")
            if kind not in CONSUMERS or failing == "gateway":
                await asyncio.Event().wait()
        finally:
            ended.append(kind)

    async with asyncio.timeout(60):
        with pytest.raises((Misconfigured, Unavailable), match=f"no {failing}"):
            await made(start).__aenter__()
    assert sorted(ended) == sorted(begun)
    assert ("connector" in begun) == (failing != "gateway")


async def test_a_name_for_an_archiver_run_alone_is_not_given_to_its_own(
    made: Callable[[Start], LocalSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(_kind: str) -> None: ...

    system, specs = made(start), []

    async def started(spec: ChildSpec) -> None:
        specs.append(spec)

    monkeypatch.setattr(system.supervisor, "start", started)
    await LocalSystem._start_component(system, "raw-archiver")
    assert specs[0].env["SSMD_INSTANCE"] == ""
