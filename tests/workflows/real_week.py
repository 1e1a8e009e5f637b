"""A week of trading days with real parts: a simulated venue, connector, archivers, projector and gateway in this process
on a clock that stands still until it is moved; journal, streams, cache and S3 on their servers; the worker a process of its
own (`week_worker`), asked by the schedule of a Temporal server.

Each date: at midnight the turn (the date before is ended, this one started), in some nights the venue closes every connection,
in the evening some hundred frames come. The clock moves only while nothing is under way, so what is recorded is the same
each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from temporalio.client import (
    Client,
    ScheduleActionStartWorkflow,
    ScheduleBackfill,
    ScheduleOverlapPolicy,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from tests.chaos.s3_faults import S3Faults
from tests.s3_server import S3Server
from tests.workflows.shared_clock import SharedClock
from tests.workflows.week_worker import run_worker
from tests.workflows.worker_process import WorkerProcess

from ssmd.application.handler import Application
from ssmd.archive.storage_s3 import S3Access, S3Storage
from ssmd.domain import trading_day
from ssmd.domain.catalogue import CATALOGUE
from ssmd.exchanges.kalshi.signing import load_private_key, public_pem
from ssmd.exchanges.kalshi.simulated import pacing
from ssmd.exchanges.kalshi.simulated.listing import long_market
from ssmd.exchanges.kalshi.simulated.market_orders import VenueOrder
from ssmd.identifiers import system_random
from ssmd.registry.bootstrap import write_registry
from ssmd.schemas.codecs import definition_sha256
from ssmd.services.component import Component
from ssmd.services.embedded_servers import usable_port
from ssmd.services.run_file import Endpoints, RunLock
from ssmd.services.simulator.config import FaultOrder, SimulatorConfig
from ssmd.services.simulator.seeded_feed import SeededFeed
from ssmd.services.simulator.simulator import Simulator
from ssmd.settings import Workspace, variables
from ssmd.streams.journal_nats import NatsJournal
from ssmd.wiring.components import Parts, build
from ssmd.wiring.environment import resolve_environment
from ssmd.wiring.process import answer_control
from ssmd.wiring.schedules import desired
from ssmd.wiring.system import apply_streams
from ssmd.workflows import schedules
from ssmd.workflows.connection import NAMESPACE, connect
from ssmd.workflows.orders import Patience, TurnOrder

KINDS: Final = ("projector", "raw-archiver", "normalized-archiver", "gateway", "connector")
FIRST: Final = date(2026, 5, 11)
HURRIED: Final = Patience(tries=3, try_s=0.05, pause_s=0.2, pause_max_s=0.5, rounds=60, heartbeat_s=4.0)
WITHIN_S: Final = 60.0
POLL_S: Final = 0.1
HOUR_NS: Final = 3_600 * 10**9
RATE: Final = 10
STEPS: Final = 300
"""Of the market model in an evening: so many orders, in 30 seconds of its time."""
AWAY: Final = 1_000_000
MARKETS: Final = 4
SUBSCRIBED: Final = 14
"""Entries of a session that has all it asked for: ours, the venue's words on it, and three books."""
_LONG: Final = (0, 2, 3)

ENVIRONMENT: Final = """\
keys:
  kalshi:
    type: kalshi-api-key
    fields: [api_key, private_key]
    source: generated
  bucket:
    type: opaque
    fields: [access_key, secret_key]
name: {env}
feed: kalshi
schema: market:1
capture:
  endpoint: simulator
  key: $key:kalshi
  tickers: [{tickers}]
schedule:
  days: [monday, tuesday, wednesday, thursday, friday, saturday, sunday]
archive:
  idle_seconds: 1000000000
storage:
  backend: s3
  bucket: {env}
  url: {url}
  key: $key:bucket
gateway:
  port: 0
"""
"""Segments are cut by the days' ends and marks alone."""


class Servers(NamedTuple):
    """Where a week's servers are."""

    journal_url: str
    transport_url: str
    cache_url: str
    temporal_url: str
    s3: S3Server


def dates(count: int) -> list[str]:
    """The first `count` dates of the week."""
    return [(FIRST + timedelta(days=number)).isoformat() for number in range(count)]


def ns_of(day: str, hour: int = 0) -> int:
    """An hour of a date, UTC."""
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 10**9 + hour * HOUR_NS


class RealWeek:
    """See the module; a context manager. Its parts stand where the last call left them.

    Args:
        env: the environment's name; also the bucket's.
        directory: made; the workspace, the clock and the places to kill the worker at are in it.
        workers: processes that are kept running; 0 = this process does the worker's part, and nothing kills it.

    Attributes:
        seed: of the market; patience: of the days' workflows. Both to be set before it is entered.
    """

    seed = 9
    patience = HURRIED

    def __init__(self, env: str, directory: Path, servers: Servers, *, workers: int = 1) -> None:
        self.env = env
        self.servers = servers
        self.directory = directory
        directory.mkdir(parents=True)
        self.clock = SharedClock(directory / "clock")
        self.clock.move(ns_of(FIRST.isoformat()))
        self.components: dict[str, Component] = {}
        self._workers = workers
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(AttributeError):
            await self.worker.stop()
        await asyncio.gather(*(one.stop() for one in self.components.values()), return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    async def _start(self) -> None:
        servers, root = self.servers, self.directory / "workspace"
        self.s3 = await self._stack.enter_async_context(S3Faults(int(servers.s3.url.rpartition(":")[2])))
        tickers = [long_market(slot, self.clock.now_ns() - 3 * HOUR_NS).ticker for slot in _LONG]
        text = ENVIRONMENT.format(env=self.env, tickers=", ".join(tickers), url=self.s3.url)
        write_registry(root, {self.env: text}, definition_sha256())
        keys = {"SSMD_BUCKET_ACCESS_KEY": servers.s3.access_key, "SSMD_BUCKET_SECRET_KEY": servers.s3.secret_key}
        given = {**variables(), **keys}
        self.storage = S3Storage(S3Access(self.env, servers.s3.access_key, servers.s3.secret_key, servers.s3.url))
        self._stack.push_async_callback(self.storage.close)
        await self.storage.put("made", b"")
        resolved = resolve_environment(Workspace(root), self.env, FIRST.isoformat())
        await self._start_venue(resolved.capture_key(given, system_random), tickers)
        lock = self._stack.enter_context(RunLock(resolved.directory, self.env))
        endpoints = Endpoints(
            transport_url=servers.transport_url,
            journal_url=servers.journal_url,
            cache_url=servers.cache_url,
            temporal_url=servers.temporal_url,
            simulator_rest=self.simulator.rest_url,
            simulator_websocket=self.simulator.websocket_url,
            gateway_url=f"http://127.0.0.1:{usable_port(0)}",
        )
        lock.publish(self.clock.now_ns(), endpoints, {})
        self.environment = resolve_environment(Workspace(root), self.env, FIRST.isoformat())
        await apply_streams(self.environment, given)
        self.journal = await NatsJournal.open(servers.journal_url, self.env)
        self._stack.push_async_callback(self.journal.close)
        self._application = Application(self.journal, CATALOGUE, self.clock, system_random)
        for kind in KINDS:
            component = await build(kind, Parts(self.environment, given, self.clock, system_random, self._stack))
            self.components[kind] = component
            self._go(component.run())
            self._go(answer_control(self.environment, given, component, asyncio.Event()))
        await self._schedule()
        self.worker = WorkerProcess(self.env, self.directory, keys, self._workers)
        self.worker.start()
        if not self._workers:
            self._go(run_worker(self.environment, given, self.clock, self.directory / "kills", self._stack))
        await self.connected(1)
        await self.quiet()

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _until(
        self, what: str, is_so: Callable[[], Awaitable[bool]], told: Callable[[], str] = str, within_s: float = WITHIN_S
    ) -> None:
        """Wait until it is so; `told`: more on why it is not."""
        try:
            async with asyncio.timeout(within_s):
                while not await is_so():
                    for task in (*self._tasks, *self.worker.tasks):
                        assert not task.done(), f"it ended: {task}"
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise AssertionError(f"{self.env}: {what}: not within {within_s:g} s. {told()}") from None

    # The venue

    async def _start_venue(self, key: Any, tickers: Sequence[str]) -> None:
        pem = public_pem(load_private_key(key["private_key"].reveal().encode())).decode()
        config = SimulatorConfig(
            seed=self.seed,
            markets=MARKETS,
            rate=RATE,
            roll_s=86_400,
            # One market of a series closes each evening, that of the day before is determined, that of the day before settled.
            determine_s=40_000,
            settle_s=40_000,
            start_ns=self.clock.now_ns() - 3 * HOUR_NS,
            rest_tokens_s=0,
            start_paused=True,
            public_keys={key["api_key"].reveal(): pem},
        )
        self.simulator = Simulator(config, self.clock)
        await self.simulator.start()
        self._go(self.simulator.run())
        for ticker in tickers:
            # None of those captured closes within the week.
            self._feed.order(VenueOrder(kind="extend", ticker=ticker, for_s=30 * 86_400))

    @property
    def _feed(self) -> SeededFeed:
        feed = self.simulator._feed
        assert isinstance(feed, SeededFeed)
        return feed

    def trade(self) -> None:
        """Let the time of the market model go on to the clock's, and STEPS orders come then."""
        feed, model = self._feed, self._feed.model
        model._times = pacing.even(self.clock.now_ns() - 60 * 10**9, RATE)
        model.next_ns = next(model._times)
        frames: dict[Any, list[bytes]] = {connection: [] for connection in feed._clients}
        for _ in range(STEPS):
            feed._publish(model.step(), frames)
        feed._deliver(frames)

    def close_connections(self) -> None:
        """As a venue does that is restarted."""
        for connection in list(self.simulator._live):
            connection.close(1001, "restart")

    def venue_away(self) -> None:
        """Every connection is dropped; until `venue_back` handshakes and calls are answered 503."""
        faults = self.simulator._faults
        faults.arm(FaultOrder(kind="handshake-503", count=AWAY))
        faults.arm(FaultOrder(kind="rest-503", count=AWAY))
        for connection in list(self.simulator._live):
            connection.drop("the venue is away")

    def venue_back(self) -> None:
        self.simulator._faults.clear()

    async def connected(self, sessions: int) -> None:
        """Wait until the `sessions`-th connection since the start has all it asked for."""
        connector = self.components["connector"]

        async def is_connected() -> bool:
            health = connector.health()
            return health.ok and self.sessions >= sessions and int(health.stats["entries"]) >= SUBSCRIBED

        await self._until("is connected", is_connected)

    async def quiet(self) -> None:
        """Wait until nothing is under way but what waits for the clock: all that came is handed on."""
        connector = self.components["connector"]

        async def is_quiet() -> bool:
            health = connector.health()
            found = {name: int(value) for name, value in health.stats.items() if not isinstance(value, str)}
            busy = ("unacked", "facts_waiting", "repairs_waiting", "commands_waiting", "unplaced")
            return (
                health.ok
                and found["frames"] == self.simulator.health().stats["frames_sent"]
                and not any(found[name] for name in busy)
            )

        await self._until("is quiet", is_quiet, lambda: f"{connector.health()}; {self.simulator.status()}")

    @property
    def sessions(self) -> int:
        """Connections made so far."""
        return int(self.components["connector"].health().stats["sessions"])

    # The days

    async def _schedule(self) -> None:
        """As `ssmd env apply` makes it, but with less patience. It is paused: the test says which times pass."""
        self.client: Client = await connect(self.servers.temporal_url, NAMESPACE)
        wanted = [one for one in desired(self.environment.document) if one.kind == "days"]
        await schedules.apply(self.client, self.env, wanted)

        def hurried(given: ScheduleUpdateInput) -> ScheduleUpdate:
            schedule = given.description.schedule
            assert isinstance(schedule.action, ScheduleActionStartWorkflow)
            schedule.action.args = [TurnOrder(self.env, patience=self.patience)]
            schedule.state.paused = True
            return ScheduleUpdate(schedule)

        await self.client.get_schedule_handle(f"{self.env}/days").update(hurried)

    async def due(self, first: str, last: str) -> None:
        """Let the scheduled midnights from that which begins `first` to that which begins `last` fall due, at once."""
        second = timedelta(seconds=1)
        start, end = (datetime.fromtimestamp(ns_of(day) / 1e9, tz=UTC) for day in (first, last))
        await self.client.get_schedule_handle(f"{self.env}/days").backfill(
            ScheduleBackfill(start - second, end + second, overlap=ScheduleOverlapPolicy.BUFFER_ALL)
        )

    async def status(self, day: str) -> str:
        return (await self._application.state(trading_day.DECIDER, (day,))).status

    async def until_status(self, day: str, wanted: str, within_s: float = WITHIN_S) -> None:
        async def is_so() -> bool:
            return await self.status(day) == wanted

        await self._until(f"trading day {day} is {wanted}", is_so, within_s=within_s)

    async def midnight(self, day: str) -> None:
        """The clock comes to the beginning of `day`; the date before is marked, and sealed where S3 is there."""
        if self.clock.now_ns() == ns_of(day):
            return  # the first one
        self.clock.move(ns_of(day))
        tick_s = 1.2  # a quiet session marks its day within a second
        await asyncio.sleep(tick_s)
        await self.quiet()

    async def night(self, day: str) -> None:
        """At three the venue closes every connection, and they are made again."""
        sessions = self.sessions
        self.clock.move(ns_of(day, 3))
        self.close_connections()
        await self.connected(sessions + 1)
        # The venue is asked for what was missed, and its answer must be of a time behind the gap.
        self.clock.move(ns_of(day, 3) + 60 * 10**9)
        await self.quiet()

    async def evening(self, day: str) -> None:
        """At ten the market trades; a market that closes in between is followed by the next one of its series."""

        async def is_followed() -> bool:
            return self.worker.is_ready

        await self._until("the worker follows the stream", is_followed)
        listed = await self._listed()
        self.clock.move(ns_of(day, 22))
        closes = any(market.spec.close_ns <= self.clock.now_ns() for market in self._feed.model._slots)
        self.trade()
        await self.quiet()
        if closes:
            # The worker hears of it on the stream, and asks the venue.
            async def is_listed() -> bool:
                return await self._listed() > listed

            await self._until("lists the next market", is_listed)

    async def _listed(self) -> int:
        return len([one async for batch in self.journal.replay(filters=["listing"]) for one in batch])

    async def outage(self, day: str) -> None:
        """The venue goes away with the day's turn, is away while it is started, and comes back after five minutes."""
        sessions = self.sessions
        self.venue_away()
        await self.due(day, day)
        await self.until_status(day, "error")
        self.clock.move(ns_of(day) + 300 * 10**9)
        self.venue_back()
        await self.connected(sessions + 1)
        self.clock.move(ns_of(day) + 360 * 10**9)
        await self.until_status(day, "active")
        await self.quiet()

    async def without_s3(self, before: str, day: str) -> None:
        """S3 is away (set before midnight) while `before` is ended; it comes back once that is an error."""
        await self.due(day, day)
        await self.until_status(before, "error")
        self.s3.fault = ""
        await self.until_status(day, "active")
