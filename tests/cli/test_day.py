"""Trading days by command, from two machines: real servers, a real venue (the simulator), components that only answer."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import structlog

from ssmd.application.handler import Application
from ssmd.clock import SystemClock, date_of
from ssmd.domain import capture
from ssmd.domain.capture import GapClosed, GapOpened, RecordFact, TapePlace
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Rejected
from ssmd.identifiers import system_random
from ssmd.services.connector.repair_request import RepairRequest
from ssmd.services.embedded_servers import RunningServer
from ssmd.services.ended_tasks import end_tasks
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.simulator.simulator import Simulator
from ssmd.settings import Workspace
from ssmd.streams.control import ControlClient, ControlServer
from ssmd.streams.journal import RecordedEvent
from ssmd.streams.journal_nats import NatsJournal
from ssmd.wiring.environment import resolve_environment
from ssmd.wiring.worker import worker_service
from ssmd.workflows.service import WorkerService

Ssmd = Any
Answer = TypeVar("Answer")
ROOT = Path(__file__).parents[2]
COMPONENTS = ("projector", "raw-archiver", "normalized-archiver", "connector", "gateway")
S = 1_000_000_000
ENVIRONMENT = """
keys:
  kalshi:
    type: kalshi-api-key
    fields: [api_key, private_key]
    source: generated
name: {env}
feed: kalshi
schema: market:1
timezone: {zone}
capture:
  endpoint: demo
  key: $key:kalshi
transport:
  url: {transport}
journal:
  url: {journal}
cache:
  backend: memory
temporal:
  url: "{temporal}"
"""


def noon_zone() -> tuple[str, dt.date]:
    """A zone in which it is about noon, so that no date ends while a test runs; and the date there."""
    now = dt.datetime.fromtimestamp(SystemClock().now_ns() // S, tz=dt.UTC)
    behind = now.hour - 12
    return f"Etc/GMT{behind:+d}" if behind else "UTC", (now - dt.timedelta(hours=behind)).date()


class World:
    """The servers' side of one environment, in a thread of its own: components that answer, the venue, and maybe a worker."""

    def __init__(self, env: str, journal_url: str, transport_url: str, temporal_url: str = "") -> None:
        self.env = env
        self.temporal_url = temporal_url
        self.journal_url = journal_url
        self.transport_url = transport_url
        self.zone, self.today = noon_zone()
        self.is_well = threading.Event()
        self.is_well.set()
        self.repairs: list[RepairRequest] = []
        self.simulator = Simulator(SimulatorConfig(seed=2, markets=3, require_auth=False), SystemClock())
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._tasks: list[asyncio.Task[None]] = []
        self._worker: WorkerService | None = None

    def do(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)

    def start(self) -> None:
        self._thread.start()
        self.do(self._start())

    def stop(self) -> None:
        self.do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=20)
        self._loop.close()

    async def _start(self) -> None:
        await self.simulator.start()
        self._tasks.append(asyncio.create_task(self.simulator.run()))
        journal = await NatsJournal.open(self.journal_url, self.env, ensure=True)
        await journal.close()
        for component in COMPONENTS:
            verbs = {"health": self._health, "flush": self._done, "drain": self._done}
            questions = {"repair": self._repair} if component == "connector" else {}
            server = ControlServer(
                self.transport_url, self.env, component, "main", verbs, version="0.9.0", random=system_random,
                questions=questions,
            )  # fmt: skip
            self._tasks.append(asyncio.create_task(server.run()))
        client = await ControlClient.open(self.transport_url, self.env)
        async with asyncio.timeout(30):
            while len(await client.roll_call(0.2, len(COMPONENTS))) < len(COMPONENTS):
                pass
        await client.close()

    def work(self, machine: Path) -> None:
        """Let a worker of that machine take work from Temporal."""
        environment = resolve_environment(Workspace(machine), self.env, date_of(SystemClock().now_ns()))
        self._worker = worker_service(environment, {}, SystemClock(), system_random)
        self.do(self._run_worker(self._worker))

    async def _run_worker(self, worker: WorkerService) -> None:
        self._working = asyncio.create_task(worker.run())

    async def _stop(self) -> None:
        if self._worker is not None:
            await self._worker.stop()
            async with asyncio.timeout(30):
                await self._working
        await self.simulator.stop()
        await end_tasks(self._tasks)

    async def _health(self) -> Mapping[str, Any]:
        return {"ok": self.is_well.is_set(), "reason": "" if self.is_well.is_set() else "told to wait"}

    async def _done(self) -> Mapping[str, Any]:
        return {"ok": True, "reason": ""}

    async def _repair(self, payload: bytes) -> Mapping[str, Any]:
        wanted = msgspec.json.decode(payload, type=RepairRequest)
        self.repairs.append(wanted)
        if wanted.gap_id == "1-2":
            raise Rejected("gap-too-long", "gap 1-2 lasts 7 h; at most 6 h are repaired", mend="ssmd data backfill")
        return {"ok": True, "reason": "", "result": "repaired"}

    def machine(self, root: Path) -> Path:
        """A workspace as another machine would have it."""
        shutil.copytree(ROOT / "exchanges", root / "exchanges", dirs_exist_ok=True)
        document = ENVIRONMENT.format(
            env=self.env,
            zone=self.zone,
            transport=self.transport_url,
            journal=self.journal_url,
            temporal=self.temporal_url,
        )
        (root / "exchanges" / "environments" / f"{self.env}.yaml").write_text(document)
        feed = root / "exchanges" / "feeds" / "kalshi.yaml"
        text = feed.read_text().replace("https://external-api.demo.kalshi.co/trade-api/v2", self.simulator.rest_url)
        feed.write_text(text)
        return root

    async def _told(self) -> list[tuple[str, str]]:
        journal = await NatsJournal.open(self.journal_url, self.env)
        try:
            return [
                (one.envelope.type.removeprefix("trading-day."), one.envelope.actor)
                async for batch in journal.replay(filters=["trading-day"])
                for one in batch
                if isinstance(one, RecordedEvent)
            ]
        finally:
            await journal.close()

    def told(self) -> list[tuple[str, str]]:
        """(type, actor) of every event of a day."""
        return self.do(self._told())

    async def gap(self, number: int, start_ns: int) -> None:
        journal = await NatsJournal.open(self.journal_url, self.env)
        try:
            application = Application(journal, CATALOGUE, SystemClock(), system_random, "c0ffee")
            end_ns, name = start_ns + 5 * S, f"1-{number}"
            for index, fact in enumerate(
                (
                    GapOpened(1, number, 0, end_ns, name, "stale", start_ns, "", 0, 0, 0, ("A",), ""),
                    GapClosed(1, number, 1, end_ns, name, start_ns, end_ns, ("A",)),
                )
            ):
                command = RecordFact(TapePlace(1, number, index), fact)
                await application.handle(capture.DECIDER, ("kalshi", "main"), command, actor="connector:kalshi-main")
        finally:
            await journal.close()


@contextmanager
def living(made: World, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # The command line's answers are on stdout; what this process's own components log is not.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(io.StringIO()))
    for name in ("USER", "LOGNAME"):
        monkeypatch.setenv(name, "anna")
    monkeypatch.setenv("SSMD_ENV", made.env)
    made.start()
    try:
        made.machine(workspace)
        yield made
    finally:
        made.stop()


@pytest.fixture
def worked(
    fresh_env: str,
    journal_url: str,
    transport_url: str,
    temporal_server: RunningServer,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """With a Temporal, and a worker."""
    with living(World(fresh_env, journal_url, transport_url, temporal_server.url), workspace, monkeypatch) as made:
        made.work(workspace)
        yield made


@pytest.fixture
def world(
    fresh_env: str, journal_url: str, transport_url: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """Without a Temporal."""
    with living(World(fresh_env, journal_url, transport_url), workspace, monkeypatch) as made:
        yield made


def asked(machine: Path, user: str) -> subprocess.Popen[str]:
    """`ssmd day start` by somebody on a machine."""
    command = [str(Path(sys.executable).with_name("ssmd")), "day", "start", "-o", "json"]
    variables = {**os.environ, "USER": user, "LOGNAME": user}  # noqa: TID251 - of another process
    return subprocess.Popen(command, cwd=machine, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_of_two_starts_from_two_machines_one_starts_and_the_other_says_who_did(
    world: World, workspace: Path, tmp_path: Path
) -> None:
    world.is_well.clear()  # whoever starts the day waits, until the other has been told
    machines = {"anna": workspace, "bob": world.machine(tmp_path / "other")}
    running = {user: asked(machine, user) for user, machine in machines.items()}
    try:
        second = wait_for(lambda: next((user for user, one in running.items() if one.poll() is not None), ""))
        world.is_well.set()
        first = next(user for user in running if user != second)
        out, err = running[second].communicate(timeout=30)
        assert (running[second].returncode, out) == (1, ""), err
        assert f"error: trading day {world.today} is starting already: cli:{first} asked for it at " in err
        assert f"  try: ssmd day status --date {world.today} --follow\n" in err
        out, err = running[first].communicate(timeout=60)
        assert running[first].returncode == 0, err
        assert json.loads(out)["status"] == "active"
        assert "markets 3" in err
    finally:
        for one in running.values():
            one.kill()
            one.communicate()
    types = [type_ for type_, _ in world.told()]
    assert types == ["start-requested.v1", *["step-completed.v1"] * 6, "activated.v1"]
    assert {actor for _, actor in world.told()} == {f"cli:{first}"}


def wait_for(condition: Callable[[], str]) -> str:
    """What it says once it says something."""
    done = threading.Event()
    for _ in range(600):
        if found := condition():
            return found
        done.wait(0.1)
    pytest.fail("not within 60 s")


def test_what_a_rule_refuses_is_said_with_the_rule_and_changes_nothing(ssmd: Ssmd, world: World) -> None:
    today, day = world.today.isoformat(), dt.timedelta(days=1)
    yesterday, tomorrow, long_ago = (str(world.today + count * day) for count in (-1, 1, -9))
    refused = {
        ("end",): f"error: trading day {today} was never started\n  try: ssmd day start --date {today}\n",
        ("start", "--date", tomorrow): (
            f"error: trading day {tomorrow} has not come: today is {today}\n  try: ssmd day start\n"
        ),
        ("end", "--date", tomorrow): f"error: trading day {tomorrow} has not come: today is {today}\n  try: ssmd day end\n",
        ("start", "--date", yesterday): (
            f"error: trading day {yesterday} is over: today is {today}; what may be started by hand is {today}, "
            f"with --force and a reason {yesterday}\n  try: ssmd day show --date {yesterday}\n"
        ),
        ("start", "--date", long_ago, "--force", "--reason", "x"): (
            f"error: trading day {long_ago} is over: today is {today}; what may be started by hand is {yesterday}\n"
            f"  try: ssmd day show --date {long_ago}\n"
        ),
        ("end", "--date", long_ago): (
            f"error: trading day {long_ago} is over: today is {today}; what may be ended by hand is {yesterday}, "
            f"with --force and a reason any past day\n  try: ssmd day show --date {long_ago}\n"
        ),
        ("end", "--force"): "error: force needs a reason, for the history\n  try: --reason TEXT\n",
    }
    assert {arguments: tuple(ssmd("day", *arguments)) for arguments in refused} == {
        arguments: (1, "", err) for arguments, err in refused.items()
    }
    assert world.told() == []
    for arguments in (("start",), ("start",), ("end",)):
        called = ssmd("day", *arguments)
        assert called.status == 0, called.err
    told = world.told()
    assert [type_ for type_, _ in told if type_ != "step-completed.v1"] == [
        "start-requested.v1", "activated.v1", "end-requested.v1", "completed.v1",
    ]  # fmt: skip
    again = ssmd("day", "start")
    complete = f"error: trading day {today} is complete; a day starts once\n  try: ssmd day history --date {today}\n"
    assert again == (1, "", complete)
    assert world.told() == told


def test_gaps_are_repaired_by_hand(ssmd: Ssmd, world: World) -> None:
    now_ns = SystemClock().now_ns()
    for number in (1, 2):
        world.do(world.gap(number, now_ns - (60 - number) * S))
    dry = json.loads(ssmd("data", "repair-gaps", "--dry-run", "-o", "json").out)
    assert [(one["gap_id"], one["result"]) for one in dry] == [("1-2", "to-do"), ("1-1", "to-do")]
    assert world.repairs == []
    called = ssmd("data", "repair-gaps", "-o", "json")
    assert called.status == 1
    found = json.loads(called.out)
    assert [(one["gap_id"], one["result"], one["detail"]) for one in found] == [
        ("1-2", "refused", "gap 1-2 lasts 7 h; at most 6 h are repaired"),
        ("1-1", "repaired", ""),
    ]
    assert called.err.splitlines() == [
        "1 of 2: gap 1-2 refused: gap 1-2 lasts 7 h; at most 6 h are repaired",
        "2 of 2: gap 1-1 repaired",
    ]
    assert [(one.connection, one.gap_id, one.tickers) for one in world.repairs] == [
        ("main", "1-2", ("A",)),
        ("main", "1-1", ("A",)),
    ]
    one = ssmd("data", "repair-gaps", "--gap", "1-1")
    assert (one.status, "repaired" in one.out) == (0, True)
    none = ssmd("data", "repair-gaps", "--gap", "1-9")
    assert none == (1, "", "error: no gap 1-9 of the last 7 days is known\n  try: ssmd data gaps\n")
    calm = ssmd("data", "repair-gaps", "--date", "2026-01-01")
    assert calm == (0, "no gap of 2026-01-01 is left to repair\n", "")


def test_where_there_is_a_temporal_a_workflow_does_it_and_who_asks_second_is_told(
    ssmd: Ssmd, worked: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    today, request = worked.today.isoformat(), f"{worked.env}/day-start/{worked.today}"
    worked.is_well.clear()
    assert ssmd("day", "start", "--no-follow", "--reason", "routine") == (0, "", f"workflow {request}\n")
    for name in ("USER", "LOGNAME"):
        monkeypatch.setenv(name, "bob")
    second = ssmd("day", "start")
    assert (second.status, second.out) == (1, "")
    at_work = f"error: the start of trading day {today} is at work already: cli:anna asked for it at "
    assert second.err.startswith(at_work)
    assert second.err.endswith(f" (request {request})\n  try: ssmd day status --date {today} --follow\n")
    worked.is_well.set()
    wait_for(lambda: "active" if ("activated.v1", "cli:anna") in worked.told() else "")
    third = ssmd("day", "start")
    assert third == (0, "", f"workflow {request}\ntrading day {today} is active\n")
    ended = ssmd("day", "end", "-o", "json")
    assert (ended.status, json.loads(ended.out)["status"]) == (0, "complete")
    assert f"workflow {worked.env}/day-end/{today}\n" in ended.err
    again = ssmd("day", "start")
    told = f"workflow {request}\nerror: trading day {today} is complete; a day starts once\n"
    assert again == (1, "", f"{told}  try: ssmd day history --date {today}\n")
    shown = json.loads(ssmd("day", "show", "-o", "json").out)
    requests = {(one["line"]["actor"], one["line"]["correlation_id"]) for one in shown["lines"]}
    assert requests == {("cli:anna", request), ("cli:bob", f"{worked.env}/day-end/{today}")}
    monkeypatch.setenv("COLUMNS", "300")
    assert f"  request {request}\n" in ssmd("day", "history").out


def test_schedules_are_applied_with_the_environment_and_torn_down_with_it(ssmd: Ssmd, worked: World) -> None:
    def scheduled(*arguments: str) -> list[tuple[str, str]]:
        called = ssmd("env", *arguments, "-o", "json")
        assert called.status == 0, called.err
        return [(one["name"], one["action"]) for one in json.loads(called.out) if one["kind"] == "schedule"]

    names = [f"{worked.env}/{kind}" for kind in ("sync", "sync-full", "keys", "gaps")]
    assert scheduled("apply", "--allow-dirty", "--dry-run") == [(name, "create") for name in names]
    assert scheduled("apply", "--allow-dirty") == [(name, "create") for name in names]
    assert scheduled("apply", "--allow-dirty") == []
    changed = ssmd("env", "update", worked.env, "--set", "schedule.repair_minutes=30", "--set", "schedule.sync_minutes=0")
    assert changed.status == 0, changed.err
    assert scheduled("apply", "--allow-dirty") == [
        (f"{worked.env}/sync", "remove"),
        (f"{worked.env}/sync-full", "remove"),
        (f"{worked.env}/gaps", "change"),
    ]
    assert scheduled("teardown", "--yes") == [(f"{worked.env}/{kind}", "remove") for kind in ("keys", "gaps")]
