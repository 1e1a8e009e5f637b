"""What a check of a journal finds, and what a copy of one keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ssmd.application.journal_copy import Copied, exported, imported
from ssmd.application.journal_verify import Finding, verify
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.envelope import Envelope, encode_envelope
from ssmd.errors import Malformed, Rejected
from ssmd.streams.journal import PoisonEvent, RecordedEvent
from ssmd.streams.journal_anchor import Anchor, RollingDigest
from ssmd.streams.journal_memory import MemoryJournal

DAY = "trading-day.2026-05-14"
NAME = "trading-day/2026-05-14"
Change = Callable[[list[tuple[str, bytes]]], None]


def stored(version: int, type_: str = "trading-day.opened.v1", data: bytes = b'{"type":"trading-day.opened.v1"}') -> bytes:
    return encode_envelope(
        Envelope(f"e{version}", type_, "trading-day", "2026-05-14", version, version, "a", "", "", "", msgspec.Raw(data))
    )


def good(count: int = 6) -> list[tuple[str, bytes]]:
    """A history whose events fit the catalogue."""
    tag = CATALOGUE.deciders["trading-day"].events[0].__struct_config__.tag
    data = sample(str(tag))
    return [(DAY, stored(version, str(tag), data)) for version in range(1, count + 1)]


def sample(tag: str) -> bytes:
    """Data that fits `tag`: the smallest of the type's fields."""
    event = next(one for one in CATALOGUE.deciders["trading-day"].events if one.__struct_config__.tag == tag)
    values: dict[type, Any] = {str: "2026-05-14", int: 0, bool: False}
    fields = {}
    for field in msgspec.structs.fields(event):
        if field.required:
            fields[field.encode_name] = values.get(field.type, [])
    return msgspec.json.encode({"type": tag, **fields})


async def journal_of(messages: list[tuple[str, bytes]]) -> MemoryJournal:
    journal = MemoryJournal("dev")
    if messages:
        await journal.restore(0, messages)
    return journal


async def anchors(messages: list[tuple[str, bytes]], *positions: int) -> list[Anchor]:
    digest = RollingDigest("dev")
    taken = []
    for tail, payload in messages:
        digest.add_raw(f"dev.journal.{tail}", payload)
        if digest.position in positions:
            taken.append(digest.anchor(0))
    return taken


async def test_a_sound_journal_has_no_findings() -> None:
    messages = good()
    found = await verify(await journal_of(messages), "dev", CATALOGUE, await anchors(messages, 2, 4, 6))
    assert (found.head, found.messages, found.aggregates, found.anchors, found.findings) == (6, 6, 1, 3, ())
    assert found.sha256 == (await anchors(messages, 6))[0].sha256


def flip(messages: list[tuple[str, bytes]]) -> None:
    messages[2] = (DAY, messages[2][1].replace(b'"actor":"a"', b'"actor":"b"'))


def tear(messages: list[tuple[str, bytes]]) -> None:
    messages[2] = (DAY, messages[2][1][:-3])


def cut(messages: list[tuple[str, bytes]]) -> None:
    del messages[4:]


def unknown(messages: list[tuple[str, bytes]]) -> None:
    messages.append((DAY, stored(7, "trading-day.danced.v1")))


def newer(messages: list[tuple[str, bytes]]) -> None:
    messages.append((DAY, stored(7, "trading-day.opened.v9")))


def gap(messages: list[tuple[str, bytes]]) -> None:
    messages.append((DAY, stored(9, *_fitting())))


def again(messages: list[tuple[str, bytes]]) -> None:
    messages.append((DAY, stored(6, *_fitting())))


def misfit(messages: list[tuple[str, bytes]]) -> None:
    messages.append((DAY, stored(7, _fitting()[0], b"[]")))


def _fitting() -> tuple[str, bytes]:
    tag = str(CATALOGUE.deciders["trading-day"].events[0].__struct_config__.tag)
    return tag, sample(tag)


@pytest.mark.parametrize(
    ("damage", "position", "problem", "reason"),
    [
        (flip, 3, "changed", "positions 3 to 4 hold other bytes than when the anchor at 4 was taken"),
        (tear, 3, "no-event", "not an event envelope"),
        (cut, 5, "truncated", "the journal ends at position 4; an anchor says that it reached 6"),
        (unknown, 7, "unknown-type", "this ssmd knows no event type 'trading-day.danced.v1'"),
        (newer, 7, "newer-version", "was written by a newer ssmd"),
        (gap, 7, "version", "version 9 follows version 6"),
        (again, 7, "version", "version 6 follows version 6"),
        (misfit, 7, "data", "event data does not fit"),
    ],
)
async def test_damage_is_found_with_position_and_reason(damage: Change, position: int, problem: str, reason: str) -> None:
    messages = good()
    kept = await anchors(messages, 2, 4, 6)
    damage(messages)
    found = await verify(await journal_of(messages), "dev", CATALOGUE, kept)
    fitting = [one for one in found.findings if (one.position, one.problem) == (position, problem)]
    assert fitting, found.findings
    assert reason in fitting[0].reason
    if damage is not tear:
        assert len(found.findings) == 1


async def test_two_changed_ranges_are_told_apart() -> None:
    messages = good(9)
    kept = await anchors(messages, 3, 6, 9)
    for index in (0, 8):
        messages[index] = (DAY, messages[index][1].replace(b'"actor":"a"', b'"actor":"z"'))
    found = await verify(await journal_of(messages), "dev", CATALOGUE, kept)
    assert [(one.position, one.problem) for one in found.findings] == [(1, "changed"), (7, "changed")]


async def test_a_hole_is_found_and_what_is_behind_it_still_judged() -> None:
    messages = good(8)
    kept = await anchors(messages, 4, 6, 8)
    messages[6] = (DAY, messages[6][1].replace(b'"actor":"a"', b'"actor":"z"'))

    class Holed(MemoryJournal):
        async def replay(self, **options: Any) -> Any:
            async for batch in super().replay(**options):
                yield [message for message in batch if message.position not in {2, 3}]

    journal = Holed("dev")
    await journal.restore(0, messages)
    found = await verify(journal, "dev", CATALOGUE, kept)
    assert [(one.position, one.problem) for one in found.findings] == [(2, "missing"), (4, "version"), (7, "changed")]
    assert found.findings[0] == Finding(
        2, "missing", "", "positions 2 to 3 cannot be read: removed, or damaged on the server's disk"
    )


async def lines_of(journal: MemoryJournal) -> list[bytes]:
    data = b"".join([lines async for lines in exported(journal, "dev")])
    return data.splitlines(keepends=True)


MIXED = [*good(3), ("x%20y", b"\xff\x00"), ("x%20y", b""), (DAY, stored(4)), ("z", '"\u2028\\"'.encode())]


async def content(journal: MemoryJournal) -> list[tuple[int, str, bytes]]:
    digest = RollingDigest("dev")
    found: list[RecordedEvent | PoisonEvent] = [message async for batch in journal.replay() for message in batch]
    return [(one.position, digest.subject(one), one.payload) for one in found]


async def test_an_import_makes_the_same_journal() -> None:
    source = await journal_of(MIXED)
    lines = await lines_of(source)
    copy = MemoryJournal("dev")
    copied = await imported(copy, "dev", lambda: lines)
    assert await content(copy) == await content(source)
    assert copied == Copied(7, (await anchors(MIXED, 7))[0].sha256, 7)
    assert (await imported(copy, "dev", lambda: lines)).written == 0
    assert await lines_of(copy) == lines


@pytest.mark.parametrize("held", [1, 3, 6])
async def test_an_interrupted_import_goes_on(held: int) -> None:
    source = await journal_of(MIXED)
    lines = await lines_of(source)
    copy = await journal_of(MIXED[:held])
    assert (await imported(copy, "dev", lambda: lines)).written == 7 - held
    assert await content(copy) == await content(source)


@pytest.mark.parametrize("other", [[("q", b"")], [*MIXED, ("q", b"")]])
async def test_a_journal_that_holds_something_else_is_left_alone(other: list[tuple[str, bytes]]) -> None:
    lines = await lines_of(await journal_of(MIXED))
    copy = await journal_of(other)
    before = await content(copy)
    with pytest.raises(Rejected) as raised:
        await imported(copy, "dev", lambda: lines)
    assert raised.value.rule == "journal-not-empty"
    assert await content(copy) == before


def _drop(lines: list[bytes]) -> None:
    del lines[3]


def _cut_off(lines: list[bytes]) -> None:
    del lines[-1]


def _tear_line(lines: list[bytes]) -> None:
    lines[-1] = lines[-1][:-9]


def _alter(lines: list[bytes]) -> None:
    lines[2] = lines[2].replace(b"trading-day", b"trading-dax", 1)


def _rename(lines: list[bytes]) -> None:
    lines[0] = lines[0].replace(b'"dev"', b'"prod"')


def _more(lines: list[bytes]) -> None:
    lines.append(lines[1])


def _headless(lines: list[bytes]) -> None:
    del lines[0]


def _newer_format(lines: list[bytes]) -> None:
    lines[0] = json.dumps({"type": "head", "format": "ssmd-journal.v2", "env": "dev"}).encode()


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        (_drop, "line 4: position 4 follows 2"),
        (_cut_off, "line 9: the end is missing"),
        (_tear_line, "line 9: "),
        (_alter, "line 9: the messages are"),
        (_rename, "line 1: a journal of environment 'prod', not of 'dev'"),
        (_more, "line 10: something follows the end"),
        (_headless, "line 1: no head"),
        (_newer_format, "line 1: format 'ssmd-journal.v2'"),
        (list.clear, "line 1: the end is missing"),
    ],
)
async def test_a_damaged_file_changes_nothing(damage: Callable[[list[bytes]], None], where: str) -> None:
    lines = await lines_of(await journal_of(MIXED))
    damage(lines)
    copy = MemoryJournal("dev")
    with pytest.raises(Malformed) as raised:
        await imported(copy, "dev", lambda: lines)
    assert raised.value.message.startswith(where)
    assert await copy.head() == 0
