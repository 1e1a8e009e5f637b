"""The journal on JetStream when servers die, stall, forget, and answers are lost."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from ssmd.domain.envelope import AggregateId, Envelope
from ssmd.errors import Conflict, Rejected, Unavailable
from ssmd.services.embedded_servers import RunningServer, start_nats
from ssmd.streams.connection import Connection
from ssmd.streams.journal import AppendGroup, Journal
from ssmd.streams.journal_nats import NatsJournal
from ssmd.streams.topology import apply, journal_stream

DAY = AggregateId("trading-day", ("2026-05-14",))
_IDS = itertools.count(1)


def group(aggregate: AggregateId, after: int, count: int = 1, size: int = 4) -> AppendGroup:
    envelopes = [
        Envelope(
            id=f"event-{next(_IDS)}",
            type="test.happened.v1",
            aggregate=aggregate.aggregate,
            aggregate_id=aggregate.key,
            version=version,
            ts_ns=version,
            actor="test",
            correlation_id="",
            causation_id="",
            config="",
            data=msgspec.Raw(msgspec.json.encode("x" * size)),
        )
        for version in range(after + 1, after + 1 + count)
    ]
    return AppendGroup(aggregate, after, envelopes)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    """A journal server of the test's own, to be killed."""
    running = await start_nats(tmp_path / "nats", sync_always=True)
    yield running
    with suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGCONT)
    await running.stop()


@asynccontextmanager
async def opened(url: str, env: str = "dev", **options: Any) -> AsyncIterator[NatsJournal]:
    journal = await NatsJournal.open(url, env, ensure=True, duplicate_window_s=0.1, **options)
    try:
        yield journal
    finally:
        await journal.close()


def hurry(journal: NatsJournal, timeout_s: float) -> None:
    """Let it give up early from now on; what must work beforehand is given the usual time."""
    journal._access.timeout_s = timeout_s


async def positions(journal: Journal) -> list[int]:
    return [message.position for batch in [one async for one in journal.replay()] for message in batch]


async def test_without_a_stream_the_mending_command_is_named(journal_url: str, fresh_env: str) -> None:
    with pytest.raises(Unavailable, match=f"there is no stream {fresh_env}-journal") as raised:
        await NatsJournal.open(journal_url, fresh_env)
    assert raised.value.mend == "ssmd streams apply"


async def test_an_event_too_large_for_the_server_is_refused(journal_url: str, fresh_env: str) -> None:
    async with opened(journal_url, fresh_env) as journal:
        with pytest.raises(Rejected) as raised:
            await journal.append([group(DAY, 0, size=9_000_000)], command_id="c1")
        assert raised.value.rule == "event-too-large"
        wanted = group(DAY, 0, 40, size=1_000_000)
        assert await journal.append([wanted], command_id="c2") == 40
        assert [one.envelope for one in await journal.load(DAY)] == wanted.events
        assert await positions(journal) == list(range(1, 41))


async def test_follow_goes_on_when_the_server_comes_back(server: RunningServer) -> None:
    troubles: list[str] = []
    async with opened(server.url, on_trouble=troubles.append) as journal:
        await journal.append([group(DAY, 0, 3)], command_id="c1")
        async with asyncio.timeout(30), aclosing(cast("Any", journal.follow())) as following:
            seen = [message.position for message in await anext(following)]
            for round_ in range(2):
                server.kill()
                waiting = asyncio.ensure_future(anext(following))
                while not journal.trouble:
                    await asyncio.sleep(0.005)  # until the reading has noticed; bounded by the timeout above
                await server.restart()
                await journal.append([group(DAY, 3 + round_)], command_id=f"c-{round_}")
                seen += [message.position for message in await waiting]
        assert seen == [1, 2, 3, 4, 5]
        assert troubles[0]
        assert troubles[-1] == journal.trouble == ""


async def test_a_follower_with_a_limit_gives_up(server: RunningServer) -> None:
    async with opened(server.url, follow_away_s_max=0.3) as journal:
        await journal.append([group(DAY, 0)], command_id="c1")
        async with asyncio.timeout(60), aclosing(cast("Any", journal.follow())) as following:
            await anext(following)
            server.kill()
            with pytest.raises(Unavailable):
                await anext(following)


async def test_replay_and_append_are_unavailable_without_a_server(server: RunningServer) -> None:
    async with opened(server.url) as journal:
        hurry(journal, 0.5)
        server.kill()
        with pytest.raises(Unavailable):
            await positions(journal)
        with pytest.raises(Unavailable):
            await journal.append([group(DAY, 0)], command_id="c1")
        with pytest.raises(Unavailable):
            await journal.load(DAY)


@pytest.mark.parametrize("count", [1, 50])
async def test_an_append_given_up_is_not_made_up_for_later(server: RunningServer, count: int) -> None:
    async with opened(server.url) as journal:
        await journal.append([group(DAY, 0)], command_id="c1")
        server.kill()
        hurry(journal, 0.5)
        lost = group(DAY, 1, count)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await journal.append([lost], command_id="c2")
        await server.restart()
        hurry(journal, 30)
        other = group(DAY, 1)
        assert await journal.append([other], command_id="c3") == 2
        with pytest.raises(Conflict):
            await journal.append([lost], command_id="c2")
        assert [one.envelope.id for one in await journal.load(DAY)][1:] == [other.events[0].id]


@pytest.mark.parametrize("count", [1, 50])
async def test_a_stalled_server_is_found_out_by_the_same_command(server: RunningServer, count: int) -> None:
    async with opened(server.url) as journal:
        await journal.append([group(DAY, 0)], command_id="c1")
        hurry(journal, 0.3)
        wanted = group(DAY, 1, count)
        os.kill(server.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, server.pid, os.WSTOPPED)
        with pytest.raises(Unavailable, match="not known whether") as raised:
            await journal.append([wanted], command_id="c2")
        assert raised.value.mend == "the same command again finds out"
        os.kill(server.pid, signal.SIGCONT)
        hurry(journal, 30)
        async with asyncio.timeout(40):
            while True:
                try:
                    assert await journal.append([wanted], command_id="c2") == 1 + count
                    break
                except Unavailable:
                    await asyncio.sleep(0.01)
        assert [one.envelope.id for one in await journal.load(DAY)][1:] == [one.id for one in wanted.events]


class MutingProxy:
    """Stands between client and server; muted, it swallows what the server says on the connections there are."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._muted: set[int] = set()
        self._connections = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._served = asyncio.Semaphore(0)

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def mute(self) -> None:
        self._muted.update(range(self._connections))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self._connections
        self._connections += 1
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, upstream]

        async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_answer: bool) -> None:
            with suppress(ConnectionError):
                while data := await source.read(65536):
                    if not (is_answer and number in self._muted):
                        sink.write(data)
                        await sink.drain()
            sink.close()

        await asyncio.gather(pipe(reader, upstream, is_answer=False), pipe(upstream_reader, writer, is_answer=True))
        self._served.release()

    async def stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()
        for writer in self._writers:
            writer.close()
        for _ in range(self._connections):
            await self._served.acquire()
        for writer in self._writers:
            with suppress(ConnectionError):
                await writer.wait_closed()


@pytest.mark.parametrize("count", [1, 50])
async def test_a_lost_answer_is_looked_up(journal_server: RunningServer, fresh_env: str, count: int) -> None:
    proxy = MutingProxy(journal_server.port)
    url = await proxy.start()
    try:
        # Waited for once, by the first append; a busy machine needs it for all that follows.
        async with opened(url, fresh_env, timeout_s=2) as journal:
            await journal.append([group(DAY, 0)], command_id="c1")
            proxy.mute()
            wanted = group(DAY, 1, count)
            assert await journal.append([wanted], command_id="c2") == 1 + count
            assert await journal.append([group(DAY, 1 + count)], command_id="c3") == 2 + count
            assert await positions(journal) == list(range(1, 3 + count))
    finally:
        await proxy.stop()


async def test_a_reading_begins_anew_when_its_consumer_is_deleted(journal_url: str, fresh_env: str) -> None:
    connection = await Connection.open(journal_url, name="stranger", timeout_s=30)
    async with opened(journal_url, fresh_env) as journal:
        for index in range(10):
            await journal.append([group(DAY, 1000 * index, 1000)], command_id=f"c{index}")
        seen: list[int] = []
        deleted = 0
        async with asyncio.timeout(30):
            async for batch in journal.follow():
                seen += [message.position for message in batch]
                if len(seen) >= 10_001:
                    break
                names = await connection.api(f"CONSUMER.NAMES.{fresh_env}-journal", timeout_s=30)
                for name in names["consumers"] or []:
                    await connection.api(f"CONSUMER.DELETE.{fresh_env}-journal.{name}", timeout_s=30)
                    deleted += 1
                if len(seen) == 10_000:
                    await journal.append([group(DAY, 10_000)], command_id="last")
        assert seen == list(range(1, 10_002))
        assert deleted
    await connection.close()


async def test_a_journal_that_lost_events_is_a_conflict_for_its_followers(server: RunningServer) -> None:
    async with opened(server.url) as journal:
        await journal.append([group(DAY, 0, 5)], command_id="c1")
        async with asyncio.timeout(60), aclosing(cast("Any", journal.follow())) as following:
            await anext(following)
            server.kill()
            shutil.rmtree(server.prepared.directory / "jetstream")
            await server.restart()
            connection = await Connection.open(server.url, name="stranger", timeout_s=30)
            await apply({"journal": connection}, [journal_stream("dev")])
            with pytest.raises(Conflict, match="ends at position 0, before position 5"):
                await anext(following)
            await connection.close()


class Load:
    """Writers that repeat a command until it is answered, and what they know to be written."""

    def __init__(self) -> None:
        self.is_over = False
        self.acknowledged: dict[str, list[str]] = {}
        self.killed_at = 0.0
        self.resumed_s: dict[str, float] = {}

    @property
    def count(self) -> int:
        return sum(map(len, self.acknowledged.values()))

    async def write(self, journal: Journal, name: str) -> None:
        aggregates = [AggregateId("load", (name, "a")), AggregateId("load", (name, "b"))]
        version = 0
        while not self.is_over:
            size = 1 + version % 7
            groups = [group(one, version, size) for one in aggregates]
            await self._append(journal, groups, f"{name}-{version}", name)
            for written in groups:
                self.acknowledged.setdefault(str(written.aggregate), []).extend(event.id for event in written.events)
            version += size

    async def _append(self, journal: Journal, groups: list[AppendGroup], command_id: str, name: str) -> None:
        failed = False
        while True:
            try:
                await journal.append(groups, command_id=command_id)
            except Unavailable:
                failed = True
                await asyncio.sleep(0.01)
                continue
            if failed:
                self.resumed_s[name] = asyncio.get_running_loop().time() - self.killed_at
            return


async def test_killing_the_server_under_load_loses_nothing_acknowledged(server: RunningServer) -> None:
    """Every acknowledged event is there once and whole, and nothing else is."""
    load = Load()
    async with opened(server.url, timeout_s=1.0) as one, opened(server.url, timeout_s=1.0) as two, asyncio.timeout(60):
        names = ["w0", "w1", "w2"]
        writers = [asyncio.create_task(load.write(journal, name)) for journal, name in zip([one, two, one], names, strict=True)]
        for _ in range(3):
            before = load.count
            while load.count < before + 200:
                await asyncio.sleep(0.005)
            load.resumed_s.clear()
            load.killed_at = asyncio.get_running_loop().time()
            server.kill()
            await server.restart()
        while len(load.resumed_s) < len(names):
            await asyncio.sleep(0.005)
        load.is_over = True
        await asyncio.gather(*writers)
        stored: dict[str, list[str]] = {}
        async for batch in one.replay():
            for message in batch:
                envelope = cast("Any", message).envelope
                ids = stored.setdefault(f"{envelope.aggregate}/{envelope.aggregate_id}", [])
                ids.append(envelope.id)
                assert envelope.version == len(ids)
        assert stored == load.acknowledged
        assert max(load.resumed_s.values()) < 30
