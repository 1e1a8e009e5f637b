"""What `ssmd status` says of an environment whose components answer, are in trouble, stand by, or are missing."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

from ssmd.application.handler import Application
from ssmd.clock import ManualClock
from ssmd.domain import trading_day
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.trading_day import FailDay, StartDay
from ssmd.errors import Unavailable
from ssmd.identifiers import system_random
from ssmd.services.embedded_servers import RunningServer
from ssmd.services.ended_tasks import end_tasks
from ssmd.services.processes import ProcessMark
from ssmd.services.run_file import RunFile
from ssmd.settings import Workspace
from ssmd.streams.control import ControlClient, ControlServer
from ssmd.wiring.backends import open_journal
from ssmd.wiring.environment import ResolvedEnvironment, resolve_environment
from ssmd.wiring.system_status import ServerLine, ServiceLine, SystemStatus, alerts_of, system_status
from ssmd.wiring.trading_day import connectors_of

T0 = 1_778_760_000_000_000_000  # 2026-05-14T12:00:00Z
ENVIRONMENT = """
keys:
  kalshi:
    type: kalshi-api-key
    fields: [api_key, private_key]
    source: generated
name: {name}
feed: kalshi
schema: market:1
capture:
  endpoint: simulator
  key: $key:kalshi
transport:
  url: {url}
journal:
  backend: sqlite
cache:
  backend: memory
"""


def environment_of(root: Path, name: str, url: str, more: str = "") -> ResolvedEnvironment:
    shutil.copytree(ROOT / "exchanges", root / "exchanges")
    (root / "exchanges" / "environments" / f"{name}.yaml").write_text(ENVIRONMENT.format(name=name, url=url) + more)
    (root / ".ssmd" / name).mkdir(parents=True)
    return resolve_environment(Workspace(root), name, "2026-05-14")


@asynccontextmanager
async def answering(url: str, env: str, answers: Mapping[tuple[str, str], Mapping[str, Any]]) -> AsyncIterator[None]:
    """Components that answer `health` so; left once all are there."""

    def server(component: str, instance: str, answer: Mapping[str, Any]) -> ControlServer:
        async def health() -> Mapping[str, Any]:
            return answer

        return ControlServer(url, env, component, instance, {"health": health}, version="0.9.0", random=system_random)

    tasks = [asyncio.create_task(server(*name, answer).run()) for name, answer in answers.items()]
    try:
        client = await ControlClient.open(url, env)
        async with asyncio.timeout(60):
            while len(await client.roll_call(0.2, len(tasks))) < len(tasks):
                pass
            for component, instance in answers:
                while True:
                    try:
                        await client.request(component, instance, "health", 1.0)
                    except Unavailable:
                        continue
                    break
        await client.close()
        yield
    finally:
        await end_tasks(tasks)


async def test_everybody_is_asked_and_who_is_missing_is_named(tmp_path: Path, transport_url: str) -> None:
    environment = environment_of(tmp_path, "status-a", transport_url)
    journal = await open_journal(environment, {})
    application = Application(journal, CATALOGUE, ManualClock(T0), system_random, "c0ffee")
    for command in (StartDay("2026-05-14", ""), FailDay("the venue is away")):
        await application.handle(trading_day.DECIDER, ("2026-05-14",), command, actor="cli:anna")
    await journal.close()
    answers: dict[tuple[str, str], dict[str, Any]] = {
        ("projector", "main"): {"ok": True, "stats": {"lag": 3}},
        ("raw-archiver", "main"): {"ok": True, "stats": {"stands_by_for": "main-2"}},
        ("raw-archiver", "main-2"): {"ok": True, "stats": {"records": 12}},
        ("normalized-archiver", "main-2"): {"ok": True, "stats": {"records": 12}},
        ("gateway", "main"): {"ok": False, "reason": "catching up", "stats": {}},
    }
    # Somebody of another environment on the same server is nobody of ours.
    async with (
        answering(transport_url, "status-a", answers),
        answering(transport_url, "status-b", {("connector", "main"): {"ok": True}}),
    ):
        found = await system_status(environment, {}, ManualClock(T0))
    assert [(one.component, one.instance, one.state, one.reason, one.version) for one in found.services] == [
        ("projector", "main", "ok", "", "0.9.0"),
        ("raw-archiver", "main", "standby", "", "0.9.0"),
        ("raw-archiver", "main-2", "ok", "", "0.9.0"),
        ("normalized-archiver", "main-2", "ok", "", "0.9.0"),
        ("connector", "main", "missing", "it does not answer", ""),
        ("gateway", "main", "trouble", "catching up", "0.9.0"),
    ]
    assert found.servers == (ServerLine("transport", transport_url, ok=True),)
    assert found.day is not None
    assert (found.day.status, found.day.error) == ("error", "the venue is away")
    assert found.unknown == ()
    assert found.alerts == (
        "connector main is missing: it does not answer",
        "gateway main is in trouble: catching up",
        "trading day 2026-05-14: the venue is away: ssmd day history",
    )


async def test_where_there_is_a_temporal_it_is_asked_and_its_worker_is_needed(
    tmp_path: Path, transport_url: str, temporal_server: RunningServer, fresh_env: str
) -> None:
    environment = environment_of(tmp_path, fresh_env, transport_url, f"temporal:\n  url: {temporal_server.url}\n")
    away = environment_of(tmp_path / "away", f"{fresh_env}-b", transport_url, "temporal:\n  url: 127.0.0.1:9\n")
    well = {"ok": True, "reason": "", "stats": {}}
    # A worker may have any name: several take work from one queue.
    async with answering(transport_url, fresh_env, {("worker", "pod-7"): well}):
        found, without = await asyncio.gather(
            system_status(environment, {}, ManualClock(T0)), system_status(away, {}, ManualClock(T0))
        )
    assert found.servers[1] == ServerLine("temporal", temporal_server.url, ok=True)
    assert [(one.instance, one.state) for one in found.services if one.component == "worker"] == [("pod-7", "ok")]
    (server,) = [one for one in without.servers if one.name == "temporal"]
    assert (server.ok, server.url) == (False, "127.0.0.1:9")
    assert [(one.instance, one.state) for one in without.services if one.component == "worker"] == [("main", "missing")]


async def test_a_shard_each_is_needed_but_where_one_process_has_all(tmp_path: Path, transport_url: str, fresh_env: str) -> None:
    shards = "shards:\n  crypto: {tickers: [KXBTC*]}\n  rest: {rest: true}\n"
    environment = environment_of(tmp_path, fresh_env, transport_url, shards)
    assert [one.instance for one in connectors_of(environment)] == ["main-crypto", "main-rest"]
    up = replace(environment, run=RunFile(fresh_env, ProcessMark(1, ""), T0))
    assert [one.instance for one in connectors_of(up)] == ["main"]


async def test_what_cannot_be_asked_is_said_and_the_rest_still_answers(tmp_path: Path) -> None:
    environment = environment_of(tmp_path, "status-c", "nats://127.0.0.1:9")
    found = await system_status(environment, {}, ManualClock(T0))
    assert {one.state for one in found.services} == {"missing"}
    (server,) = found.servers
    assert (server.ok, server.url) == (False, "nats://127.0.0.1:9")
    assert found.unknown[0].startswith("components were not asked: ")
    assert found.unknown[1] == "the journal was not asked: status-c has no journal yet"
    assert found.day is None


def test_an_environment_that_is_off_is_no_alarm_but_a_lag_is() -> None:
    off = SystemStatus("dev", "kalshi", T0, is_run_here=False, services=(ServiceLine("gateway", "main", "missing"),))
    assert alerts_of(off) == []
    behind = ServiceLine("projector", "main", "ok", stats={"lag": 5_000})
    on = SystemStatus("dev", "kalshi", T0, is_run_here=True, services=(behind,), dead_letters=2)
    assert alerts_of(on) == [
        "projector main is 5000 events behind",
        "2 dead letters wait: ssmd dlq list",
    ]
