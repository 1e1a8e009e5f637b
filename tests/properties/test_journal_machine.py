"""Journals against a plain list: appends, conflicts, repeated commands, lost answers, crashes, in any order.

JetStream, SQLite and memory are given the same steps and must give the same answers, and hold what the list holds.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ssmd.domain.envelope import AggregateId, Envelope, encode_envelope
from ssmd.errors import Conflict, Rejected, Unavailable
from ssmd.services.embedded_servers import RunningServer
from ssmd.streams.connection import Connection
from ssmd.streams.journal import AppendGroup, Journal, RecordedEvent
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.streams.journal_nats import NatsJournal
from ssmd.streams.journal_sqlite import SqliteJournal

AGGREGATES = [AggregateId("thing", (name,)) for name in ("a", "b.c", "*")]
Outcome = tuple[str, Any]


class Fault:
    """Loses the next answer, or the next request, of one journal."""

    def __init__(self) -> None:
        self.armed = ""

    def take(self) -> str:
        armed, self.armed = self.armed, ""
        return armed


class LossyNats(NatsJournal):
    """Its connection's next write is not sent, or its answer not heard."""

    fault: Fault

    async def append(self, groups: Any, *, command_id: str) -> int:
        connection = await self._access.connection()
        kind = self.fault.take()
        genuine = connection.request

        async def lossy(subject: str, payload: bytes, **options: Any) -> Any:
            if not options.get("headers"):
                return await genuine(subject, payload, **options)  # a question
            if kind == "answer":
                await genuine(subject, payload, **options)
            raise Unavailable("lost on the way")

        if kind:
            connection.request = lossy  # type: ignore[method-assign]  # the fault
        try:
            return await super().append(groups, command_id=command_id)
        finally:
            connection.request = genuine  # type: ignore[method-assign]  # the fault is over


class LossySqlite(SqliteJournal):
    fault: Fault

    async def append(self, groups: Any, *, command_id: str) -> int:
        return await _lossy(self.fault, super().append, groups, command_id)


class LossyMemory(MemoryJournal):
    fault: Fault

    async def append(self, groups: Any, *, command_id: str) -> int:
        return await _lossy(self.fault, super().append, groups, command_id)


async def _lossy(fault: Fault, append: Callable[..., Awaitable[int]], groups: Any, command_id: str) -> int:
    kind = fault.take()
    if kind == "answer":
        try:
            await append(groups, command_id=command_id)
        except Exception as error:
            raise Unavailable("lost on the way") from error
    if kind:
        raise Unavailable("lost on the way")
    return await append(groups, command_id=command_id)


class Model:
    """The plain list."""

    def __init__(self) -> None:
        self.events: list[Envelope] = []
        self.commands: dict[str, tuple[list[AppendGroup], int]] = {}

    def version(self, aggregate: AggregateId) -> int:
        return sum(one.aggregate_id == aggregate.key for one in self.events)

    def would(self, groups: list[AppendGroup], command_id: str) -> Outcome:
        """What the append would come to."""
        before = list(self.events), dict(self.commands)
        outcome = self.append(groups, command_id)
        self.events, self.commands = before
        return outcome

    def append(self, groups: list[AppendGroup], command_id: str) -> Outcome:
        written = self.commands.get(command_id)
        if written is not None:
            return ("written", written[1]) if written[0] == groups else ("rejected", "command-id-reused")
        if any(self.version(one.aggregate) != one.expected_version for one in groups):
            return ("conflict", None)
        for one in groups:
            self.events += one.events
        self.commands[command_id] = (groups, len(self.events))
        return ("written", len(self.events))


class JournalMachine(RuleBasedStateMachine):
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp(prefix="journal-machine-"))
        self.env = f"m-{secrets.token_hex(6)}"
        self.model = Model()
        self.memory = LossyMemory(self.env)
        self.fault = {name: Fault() for name in ("memory", "sqlite", "nats")}
        self.memory.fault = self.fault["memory"]
        self.journals: dict[str, Journal] = {}
        self.sent: list[tuple[list[AppendGroup], str]] = []
        self.count = 0

    @initialize()
    def start(self) -> None:
        self.runner.run(self._open())

    async def _open(self) -> None:
        sqlite = await LossySqlite.open(self.directory / "journal.sqlite", self.env)
        assert isinstance(sqlite, LossySqlite)
        nats = await LossyNats.open(self.url, self.env, ensure=True)
        assert isinstance(nats, LossyNats)
        sqlite.fault, nats.fault = self.fault["sqlite"], self.fault["nats"]
        self.journals = {"memory": self.memory, "sqlite": sqlite, "nats": nats}

    def _groups(self, picks: list[tuple[int, int, int]]) -> list[AppendGroup]:
        """(aggregate, versions off, events) each."""
        groups = {}
        for index, off, size in picks:
            aggregate = AGGREGATES[index]
            after = max(0, self.model.version(aggregate) + off)
            events = []
            for version in range(after + 1, after + 1 + size):
                self.count += 1
                data = msgspec.Raw(b'{"n":%d}' % self.count)
                events.append(Envelope(f"e{self.count}", "t.v1", "thing", aggregate.key, version, 0, "", "", "", "", data))
            groups[aggregate] = AppendGroup(aggregate, after, events)
        return list(groups.values())

    def _all(self, groups: list[AppendGroup], command_id: str) -> None:
        expected = self.model.append(groups, command_id)
        for name, journal in self.journals.items():
            assert self.runner.run(_outcome(journal, groups, command_id)) == expected, name

    picks = st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([0, 0, 0, 0, -1, 1]), st.integers(1, 3)), min_size=1, max_size=3
    )

    @rule(picks=picks)
    def append(self, picks: list[tuple[int, int, int]]) -> None:
        groups = self._groups(picks)
        self.sent.append((groups, f"c{len(self.sent)}"))
        self._all(*self.sent[-1])

    @rule(which=st.integers(0, 50))
    def redeliver(self, which: int) -> None:
        if self.sent:
            self._all(*self.sent[which % len(self.sent)])

    @rule(picks=picks, which=st.integers(0, 50))
    def reuse_a_command_id(self, picks: list[tuple[int, int, int]], which: int) -> None:
        done = list(self.model.commands)
        if done:
            self._all(self._groups([(index, 0, size) for index, _, size in picks]), done[which % len(done)])

    @rule(picks=picks, lost=st.sampled_from(["request", "answer"]), gives_up=st.booleans())
    def lose(self, picks: list[tuple[int, int, int]], lost: str, *, gives_up: bool) -> None:
        """Request or answer is lost. The writer asks again, or never does: a lost request must then not come later."""
        self.count += 1
        groups, command_id = self._groups(picks), f"lost-{self.count}"
        outcome = self.model.would(groups, command_id)
        if lost == "answer" or not gives_up:
            self.model.append(groups, command_id)
            self.sent.append((groups, command_id))
        for name, journal in self.journals.items():
            self.fault[name].armed = lost
            first = self.runner.run(_outcome(journal, groups, command_id))
            # JetStream looks by itself, on a new connection, and may know at once what became of it.
            is_known = first == outcome and (lost == "answer" or outcome[0] != "written")
            assert first == ("unavailable", None) or is_known, (name, first)
            if not gives_up:
                assert self.runner.run(_outcome(journal, groups, command_id)) == outcome, name

    @rule()
    def crash(self) -> None:
        """The process ends without a word and comes back; only memory is its own storage."""

        async def reopen() -> None:
            nats, sqlite = self.journals["nats"], self.journals["sqlite"]
            assert isinstance(nats, NatsJournal)
            await nats._access.abandon()
            await nats.close()
            await sqlite.close()
            await self._open()

        self.runner.run(reopen())

    @invariant()
    def all_hold_what_the_list_holds(self) -> None:
        expected = [(position, encode_envelope(one)) for position, one in enumerate(self.model.events, 1)]
        for name, journal in self.journals.items():
            assert self.runner.run(_content(journal)) == expected, name
            for aggregate in AGGREGATES:
                loaded = self.runner.run(journal.load(aggregate))
                wanted = [one for one in self.model.events if one.aggregate_id == aggregate.key]
                assert [one.envelope for one in loaded] == wanted, name

    def teardown(self) -> None:
        async def close() -> None:
            for journal in self.journals.values():
                await journal.close()
            connection = await Connection.open(self.url, name="cleaner", timeout_s=30)
            await connection.api(f"STREAM.DELETE.{self.env}-journal", timeout_s=30)
            await connection.close()

        self.runner.run(close())
        self.runner.close()
        shutil.rmtree(self.directory)


async def _outcome(journal: Journal, groups: list[AppendGroup], command_id: str) -> Outcome:
    try:
        return ("written", await journal.append(groups, command_id=command_id))
    except Conflict:
        return ("conflict", None)
    except Rejected as error:
        return ("rejected", error.rule)
    except Unavailable:
        return ("unavailable", None)


async def _content(journal: Journal) -> list[tuple[int, bytes]]:
    found = [message async for batch in journal.replay() for message in batch]
    assert all(isinstance(one, RecordedEvent) for one in found)
    return [(one.position, one.payload) for one in found]


@pytest.mark.timeout(180)
def test_journals_are_lists(journal_server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JournalMachine, "url", journal_server.url)
    run_state_machine_as_test(
        JournalMachine,
        settings=settings(
            max_examples=25,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
