"""What every journal backend promises, run on each of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from ssmd.domain.envelope import AggregateId, Envelope, encode_envelope
from ssmd.errors import Conflict, Malformed, Rejected
from ssmd.streams.connection import Connection
from ssmd.streams.journal import EVENTS_PER_APPEND_MAX, AppendGroup, Journal, PoisonEvent, RecordedEvent
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.streams.journal_nats import NatsJournal
from ssmd.streams.journal_sqlite import SqliteJournal

DAY = AggregateId("trading-day", ("2026-05-14",))
MAIN = AggregateId("capture", ("kalshi", "main"))
SPARE = AggregateId("capture", ("kalshi", "spare"))
HOSTILE = ["a.b", "x/y", "*", ">", "a b", "%2E", "é", "日本", "KXBTC15M-26MAY14.5", "-", "a\nb", "\N{PILE OF POO}"]

Message = RecordedEvent | PoisonEvent


@dataclass
class Harness:
    """A journal, a second writer on the same journal, and a way round both.

    `put(tail, payload)` stores bytes as a message of subject "{env}.journal.{tail}".
    """

    journal: Journal
    other: Journal
    put: Callable[[str, bytes], Awaitable[None]]


@pytest.fixture(params=["memory", "sqlite", "nats"])
def backend(request: pytest.FixtureRequest) -> str:
    """ "", "sqlite" or the url of a server; asked for here, where no loop runs, because its fixture starts one."""
    url: str = request.getfixturevalue("journal_url") if request.param == "nats" else request.param.replace("memory", "")
    return url


@pytest.fixture
async def harness(backend: str, fresh_env: str, tmp_path: Path) -> AsyncIterator[Harness]:
    if backend == "sqlite":
        one = await SqliteJournal.open(tmp_path / "journal.sqlite", "dev")
        two = await SqliteJournal.open(tmp_path / "journal.sqlite", "dev")

        async def restore(tail: str, payload: bytes) -> None:
            await two.restore(await two.head(), [(tail, payload)])

        yield Harness(one, two, restore)
        await two.close()
        await one.close()
        return
    if not backend:
        memory = MemoryJournal("dev")

        async def put(tail: str, payload: bytes) -> None:
            memory.put(f"dev.journal.{tail}", payload)

        yield Harness(memory, memory, put)
        await memory.close()
        return
    journal = await NatsJournal.open(backend, fresh_env, ensure=True, duplicate_window_s=0.1)
    other = await NatsJournal.open(backend, fresh_env)
    connection = await Connection.open(backend, name="stranger", timeout_s=30)

    async def publish(tail: str, payload: bytes) -> None:
        await connection.request(f"{fresh_env}.journal.{tail}", payload, timeout_s=30)

    yield Harness(journal, other, publish)
    await connection.close()
    await other.close()
    await journal.close()


_IDS = itertools.count(1)


def envelope(aggregate: AggregateId, version: int, note: str = "") -> Envelope:
    return Envelope(
        id=f"event-{next(_IDS)}",
        type="test.happened.v1",
        aggregate=aggregate.aggregate,
        aggregate_id=aggregate.key,
        version=version,
        ts_ns=1_778_760_000_000_000_000 + version,
        actor="test",
        correlation_id="all-this",
        causation_id="that",
        config="c0ffee",
        data=msgspec.Raw(msgspec.json.encode({"note": note})),
    )


def group(aggregate: AggregateId, after: int, count: int = 1) -> AppendGroup:
    """`count` new events that follow version `after`."""
    return AppendGroup(aggregate, after, [envelope(aggregate, after + 1 + index) for index in range(count)])


def recorded(position: int, one: Envelope) -> RecordedEvent:
    return RecordedEvent(position, one, encode_envelope(one))


async def read(journal: Journal, **options: Any) -> list[Message]:
    return [message async for batch in journal.replay(**options) for message in batch]


async def take(journal: Journal, count: int, *, after: int = 0, filters: Sequence[str] = ()) -> list[Message]:
    """The first `count` messages of a follow."""
    messages: list[Message] = []
    following = cast("Any", journal.follow(after=after, filters=filters))
    async with asyncio.timeout(60), aclosing(following):
        async for batch in following:
            assert batch, "a batch holds at least one message"
            messages += batch
            if len(messages) >= count:
                break
    return messages


async def test_a_new_journal_is_empty(harness: Harness) -> None:
    journal = harness.journal
    assert (await journal.head(), await journal.load(DAY), await read(journal)) == (0, [], [])


async def test_what_was_appended_is_loaded_and_replayed_byte_for_byte(harness: Harness) -> None:
    journal = harness.journal
    first, second, third = group(DAY, 0), group(MAIN, 0, 3), group(DAY, 1, 2)
    assert await journal.append([first], command_id="c1") == 1
    assert await journal.append([second], command_id="c2") == 4
    assert await journal.append([third], command_id="c3") == 6
    everything = [recorded(at, one) for at, one in enumerate([*first.events, *second.events, *third.events], 1)]
    assert await journal.head() == 6
    for reader in (journal, harness.other):
        assert await read(reader) == everything
        assert await reader.load(DAY) == [everything[0], *everything[4:]]
        assert await reader.load(MAIN) == everything[1:4]
        assert await reader.load(SPARE) == []


async def test_load_gives_what_is_behind_a_version(harness: Harness) -> None:
    await harness.journal.append([group(SPARE, 0, 4)], command_id="other")
    wanted = group(MAIN, 0, 5)
    await harness.journal.append([wanted], command_id="c1")
    stored = [recorded(5 + index, one) for index, one in enumerate(wanted.events)]
    for journal in (harness.other, harness.journal):
        for version in (3, 0, 5, 4, 9):
            assert await journal.load(MAIN, after_version=version) == stored[version:]


async def test_a_wrong_version_is_a_conflict_and_writes_nothing(harness: Harness) -> None:
    journal = harness.journal
    await journal.append([group(DAY, 0, 2)], command_id="c1")
    for expected in (0, 1, 3):
        with pytest.raises(Conflict, match=r"trading-day/2026-05-14 is not at version \d: it is at version 2"):
            await journal.append([group(DAY, expected)], command_id=f"c2-{expected}")
    assert await journal.head() == 2
    assert await journal.append([group(DAY, 2)], command_id="c3") == 3


async def test_the_slower_of_two_writers_gets_the_conflict(harness: Harness) -> None:
    await harness.journal.append([group(DAY, 0)], command_id="c1")
    await harness.other.append([group(DAY, 1)], command_id="c2")
    with pytest.raises(Conflict):
        await harness.journal.append([group(DAY, 1)], command_id="c3")
    assert await harness.journal.append([group(DAY, 2)], command_id="c4") == 3
    assert [one.envelope.version for one in await harness.other.load(DAY)] == [1, 2, 3]


async def test_racing_writers_leave_one_unbroken_history(harness: Harness) -> None:
    written: list[str] = []

    async def write(journal: Journal, name: str) -> None:
        done = 0
        while done < 15:
            version = len(await journal.load(DAY))
            wanted = group(DAY, version, 1 + done % 3)
            try:
                await journal.append([wanted], command_id=f"{name}-{done}-{version}")
            except Conflict:
                continue
            written.extend(one.id for one in wanted.events)
            done += 1

    await asyncio.gather(write(harness.journal, "a"), write(harness.other, "b"))
    stored = await harness.journal.load(DAY)
    assert [one.envelope.version for one in stored] == list(range(1, 61))
    assert sorted(one.envelope.id for one in stored) == sorted(written)


async def test_several_aggregates_are_written_together(harness: Harness) -> None:
    groups = [group(DAY, 0, 2), group(MAIN, 0), group(SPARE, 0, 3)]
    assert await harness.journal.append(groups, command_id="c1") == 6
    assert await read(harness.other) == [
        recorded(at, one) for at, one in enumerate([one for each in groups for one in each.events], 1)
    ]
    assert await harness.journal.append([group(SPARE, 3), group(DAY, 2)], command_id="c2") == 8


@pytest.mark.parametrize("moved", [0, 1, 2])
async def test_a_conflict_in_any_group_writes_no_group(harness: Harness, moved: int) -> None:
    journal = harness.journal
    aggregates = [DAY, MAIN, SPARE]
    await journal.append([group(one, 0) for one in aggregates], command_id="c1")
    await harness.other.append([group(aggregates[moved], 1)], command_id="c2")
    with pytest.raises(Conflict, match=str(aggregates[moved])):
        await journal.append([group(one, 1) for one in aggregates], command_id="c3")
    assert await journal.head() == 4
    assert [len(await journal.load(one)) for one in aggregates] == [2 if index == moved else 1 for index in range(3)]


async def test_an_append_holds_a_thousand_events_and_no_more(harness: Harness) -> None:
    journal = harness.journal
    with pytest.raises(Rejected) as raised:
        await journal.append([group(DAY, 0), group(MAIN, 0, EVENTS_PER_APPEND_MAX)], command_id="c1")
    assert raised.value.rule == "append-too-large"
    assert await journal.head() == 0
    full = group(MAIN, 0, EVENTS_PER_APPEND_MAX)
    assert await journal.append([full], command_id="c2") == EVENTS_PER_APPEND_MAX
    assert await harness.other.load(MAIN) == [recorded(at, one) for at, one in enumerate(full.events, 1)]


@pytest.mark.parametrize(
    ("groups", "rule"),
    [
        ([], "append-empty"),
        ([AppendGroup(DAY, 0, [])], "append-empty"),
        ([group(DAY, 0), AppendGroup(MAIN, 0, [])], "append-empty"),
        ([group(DAY, 0), group(DAY, 1)], "append-aggregate-twice"),
        ([AppendGroup(DAY, 0, [envelope(DAY, 2)])], "append-out-of-order"),
        ([AppendGroup(DAY, 0, [envelope(DAY, 1), envelope(DAY, 1)])], "append-out-of-order"),
        ([AppendGroup(DAY, 0, [envelope(MAIN, 1)])], "append-out-of-order"),
        ([group(AggregateId("environment", ()), 0)], "append-no-id"),
    ],
)
async def test_what_makes_no_history_is_refused(harness: Harness, groups: list[AppendGroup], rule: str) -> None:
    with pytest.raises(Rejected) as raised:
        await harness.journal.append(groups, command_id="c1")
    assert raised.value.rule == rule
    assert await harness.journal.head() == 0


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("pause_s", [0.0, 0.3])
async def test_a_command_repeated_is_written_once(harness: Harness, count: int, pause_s: float) -> None:
    """With a pause: after the server has forgotten the command id, and with other events behind."""
    groups = [group(DAY, 0, count), group(MAIN, 0, count)]
    position = await harness.journal.append(groups, command_id="c1")
    await asyncio.sleep(pause_s)  # the window of the server's own duplicate detection is the thing under test
    for journal in (harness.journal, harness.other):
        assert await journal.append(groups, command_id="c1") == position == 2 * count
    await harness.other.append([group(DAY, count, 2)], command_id="c2")
    for journal in (harness.journal, harness.other):
        assert await journal.append(groups, command_id="c1") == position
    assert await harness.journal.head() == position + 2


async def test_a_command_id_does_not_cover_other_events(harness: Harness) -> None:
    await harness.journal.append([group(DAY, 0)], command_id="c1")
    with pytest.raises(Rejected) as single:
        await harness.journal.append([group(MAIN, 0)], command_id="c1")
    with pytest.raises(Rejected) as several:
        await harness.journal.append([group(MAIN, 0, 2)], command_id="c1")
    assert (single.value.rule, several.value.rule) == ("command-id-reused", "command-id-reused")
    assert await harness.journal.head() == 1


async def test_events_without_a_command_id_are_told_apart_too(harness: Harness) -> None:
    same = group(DAY, 0, 2)
    assert await harness.journal.append([same], command_id="") == 2
    assert await harness.other.append([same], command_id="") == 2
    assert await harness.journal.append([group(MAIN, 0)], command_id="") == 3


async def test_hostile_ids_are_aggregates_like_any_other(harness: Harness) -> None:
    aggregates = [AggregateId("thing", (text,)) for text in HOSTILE]
    aggregates += [AggregateId("thing", ("a", "b")), AggregateId("th.ing", ("a",)), AggregateId("*", (">",))]
    stored = []
    for position, aggregate in enumerate(aggregates, 1):
        wanted = group(aggregate, 0)
        assert await harness.journal.append([wanted], command_id=f"c{position}") == position
        stored.append(recorded(position, wanted.events[0]))
    assert await read(harness.other) == stored
    for aggregate, one in zip(aggregates, stored, strict=True):
        assert await harness.other.load(aggregate) == [one]
        assert await read(harness.other, filters=[str(aggregate)]) == [one]
        assert one.envelope.aggregate_key == aggregate


async def test_replay_keeps_to_its_bounds(harness: Harness) -> None:
    wanted = group(MAIN, 0, 7)
    await harness.journal.append([wanted], command_id="c1")
    stored = [recorded(at, one) for at, one in enumerate(wanted.events, 1)]
    assert await read(harness.journal, after=3) == stored[3:]
    assert await read(harness.journal, until=3) == stored[:3]
    assert await read(harness.journal, after=2, until=5) == stored[2:5]
    assert await read(harness.journal, until=100) == stored
    assert await read(harness.journal, after=7) == []
    assert await read(harness.journal, after=5, until=5) == []
    assert await read(harness.journal, after=5, until=2) == []
    with pytest.raises(Conflict, match="ends at position 7, before position 8"):
        await read(harness.journal, after=8)
    with pytest.raises(Conflict, match="ends at position 7, before position 8"):
        await take(harness.journal, 1, after=8)


async def test_filters_choose_kinds_and_aggregates(harness: Harness) -> None:
    groups = [group(DAY, 0), group(MAIN, 0, 2), group(SPARE, 0), group(AggregateId("captures", ("x",)), 0)]
    await harness.journal.append(groups, command_id="c1")
    day, main_1, main_2, spare, captures = [
        recorded(at, one) for at, one in enumerate([one for each in groups for one in each.events], 1)
    ]
    journal = harness.other
    assert await read(journal, filters=["capture"]) == [main_1, main_2, spare]
    assert await read(journal, filters=["capture/kalshi.spare", "trading-day"]) == [day, spare]
    assert await read(journal, filters=["capture/kalshi.main", "capture", "capture"]) == [main_1, main_2, spare]
    assert await read(journal, filters=["capture"], after=2, until=3) == [main_2]
    assert await read(journal, filters=["capture/kalshi"]) == []
    assert await read(journal, filters=["captures"]) == [captures]
    assert await take(journal, 3, filters=["capture"]) == [main_1, main_2, spare]
    for wrong in ("", "/x", "capture/", "capture/a..b", "capture/a b"):
        with pytest.raises(Malformed):
            await read(journal, filters=[wrong])


async def test_many_batches_come_whole_and_in_order(harness: Harness) -> None:
    for index in range(6):
        groups = [group(MAIN, 999 * index, 999), group(SPARE, index)]
        await harness.journal.append(groups, command_id=f"c{index}")
    stored = await read(harness.other)
    assert [one.position for one in stored] == list(range(1, 6001))
    assert [one.position for one in await read(harness.other, filters=["capture/kalshi.spare"])] == [
        1000 * index for index in range(1, 7)
    ]
    loaded = await harness.other.load(MAIN)
    assert [one.envelope.version for one in loaded] == list(range(1, 5995))
    assert [one for one in stored if isinstance(one, RecordedEvent) and one.envelope.aggregate_key == MAIN] == loaded


async def test_follow_goes_on_with_what_comes(harness: Harness) -> None:
    first = group(DAY, 0, 3)
    await harness.journal.append([first], command_id="c1")
    following = asyncio.create_task(take(harness.other, 7, after=1, filters=["trading-day", "capture"]))
    later = [group(MAIN, 0), group(AggregateId("other", ("x",)), 0, 2), group(DAY, 3, 4)]
    for index, one in enumerate(later):
        await harness.journal.append([one], command_id=f"later-{index}")
    expected = [*first.events[1:], *later[0].events, *later[2].events]
    messages = await following
    assert [message.envelope for message in messages if isinstance(message, RecordedEvent)] == expected
    assert [message.position for message in messages] == [2, 3, 4, 7, 8, 9, 10]


async def test_a_follower_that_stops_leaves_the_journal_usable(harness: Harness) -> None:
    await harness.journal.append([group(DAY, 0)], command_id="c1")
    for _ in range(3):
        assert len(await take(harness.journal, 1)) == 1
    waiting = asyncio.create_task(take(harness.journal, 2))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await harness.journal.append([group(DAY, 1)], command_id="c2") == 2


async def test_closing_ends_followers(harness: Harness) -> None:
    await harness.journal.append([group(DAY, 0)], command_id="c1")
    seen = asyncio.Event()

    async def follow() -> list[Message]:
        messages: list[Message] = []
        async for batch in harness.journal.follow():
            messages += batch
            seen.set()
        return messages

    following = asyncio.create_task(follow())
    async with asyncio.timeout(30):
        await seen.wait()
        await harness.journal.close()
        await harness.journal.close()
        assert len(await following) == 1


@pytest.mark.parametrize(
    "payload",
    [b"", b"not json", b'{"id":"\xff"}', b"{}", b"[" * 50_000, b'"' + b"x" * 100_000 + b'"'],
    ids=["empty", "text", "not-utf8", "no-fields", "deep", "long"],
)
async def test_what_is_no_event_is_shown_as_poison_and_stops_nothing(harness: Harness, payload: bytes) -> None:
    before, after = group(DAY, 0, 2), group(DAY, 2, 2)
    await harness.journal.append([before], command_id="c1")
    await harness.put("trading-day.2026-05-14", payload)
    await harness.put("unheard-of", payload)
    assert await harness.journal.append([after], command_id="c2") == 6
    messages = await read(harness.other)
    assert [message.position for message in messages] == [1, 2, 3, 4, 5, 6]
    for position, tail in ((3, "trading-day.2026-05-14"), (4, "unheard-of")):
        poison = messages[position - 1]
        assert isinstance(poison, PoisonEvent)
        assert (poison.payload, poison.subject.partition(".journal.")[2]) == (payload, tail)
        assert poison.reason
    for journal in (harness.other, harness.journal):
        assert [one.envelope for one in await journal.load(DAY)] == [*before.events, *after.events]
        assert [one.envelope for one in await journal.load(DAY, after_version=2)] == [*after.events]
    assert await harness.other.append([group(DAY, 4)], command_id="c3") == 7


async def test_an_event_on_another_aggregates_subject_is_poison(harness: Harness) -> None:
    await harness.put("trading-day.2026-05-14", encode_envelope(envelope(MAIN, 1)))
    (poison,) = await read(harness.journal)
    assert isinstance(poison, PoisonEvent)
    assert poison.reason == "an event of capture/kalshi.main on the subject of another aggregate"
    assert await harness.journal.load(DAY) == []
    assert await harness.journal.append([group(DAY, 0)], command_id="c1") == 2


async def test_an_aggregate_with_a_missing_version_is_not_loaded(harness: Harness) -> None:
    await harness.put("trading-day.2026-05-14", encode_envelope(envelope(DAY, 1)))
    await harness.put("trading-day.2026-05-14", encode_envelope(envelope(DAY, 3)))
    with pytest.raises(Malformed, match="position 2 holds version 3, expected 2"):
        await harness.journal.load(DAY)


async def test_load_takes_a_position_below_as_a_hint(harness: Harness) -> None:
    await harness.journal.append([group(SPARE, 0, 3)], command_id="c0")
    wanted = group(MAIN, 0, 4)
    await harness.journal.append([wanted], command_id="c1")
    await harness.journal.append([group(SPARE, 3, 3)], command_id="c2")
    stored = [recorded(4 + index, one) for index, one in enumerate(wanted.events)]
    for version, position in ((0, 3), (1, 4), (2, 5), (2, 4), (4, 7), (3, 6)):
        assert await harness.other.load(MAIN, after_version=version, after_position=position) == stored[version:]


async def test_a_copy_has_the_same_positions_subjects_and_bytes(harness: Harness) -> None:
    first = [("trading-day.2026-05-14", encode_envelope(envelope(DAY, 1))), ("unheard%20of", b"\xff"), ("x.y", b"")]
    assert await harness.journal.restore(0, first) == 3
    assert await harness.other.restore(3, [("x.y", b"z" * 1000)] * EVENTS_PER_APPEND_MAX) == 3 + EVENTS_PER_APPEND_MAX
    for wrong in (0, 3, 2000):
        with pytest.raises(Conflict):
            await harness.journal.restore(wrong, first)
    messages = await read(harness.journal)
    assert [message.payload for message in messages] == [*[payload for _, payload in first], *[b"z" * 1000] * 1000]
    assert [message.position for message in messages] == list(range(1, 1004))
    assert isinstance(messages[1], PoisonEvent)
    assert messages[1].subject.endswith(".journal.unheard%20of")
    assert await harness.other.append([group(DAY, 1)], command_id="c1") == 1004
    assert [one.envelope.version for one in await harness.journal.load(DAY)] == [1, 2]
