"""What the intakes pass over, and which day a block belongs to."""

from __future__ import annotations

import pytest

from ssmd.clock import DayCalendar
from ssmd.schemas.blocks import NO_DIGEST, EntryKind, encode_block
from ssmd.schemas.market_message import MARK_PART, Mark, Place, encode_mark, message_id, raw_message_id
from ssmd.services.archive_intake import ArchiveDays
from ssmd.services.normalized_archiver import MarketIntake
from ssmd.services.raw_archiver import RawIntake
from ssmd.streams import subjects
from ssmd.streams.transport import StreamMessage

ENV, SESSION = "test", 1_778_760_000_000_000_000
HOUR_NS = 3_600_000_000_000


def raw(feed: str, first_n: int) -> StreamMessage:
    block = encode_block(SESSION, first_n, [(EntryKind.IN, SESSION + first_n, b'{"a":1}\n')], NO_DIGEST)
    return StreamMessage(first_n, subjects.raw(ENV, feed, "main"), block, raw_message_id("main", SESSION, first_n))


def mark(feed: str, first_n: int) -> StreamMessage:
    body = encode_mark(Mark("main", SESSION, first_n, first_n, 0, {}, 0, 0, SESSION + first_n, 1))
    place = message_id(Place("main", SESSION, first_n, MARK_PART))
    return StreamMessage(first_n, subjects.mark(ENV, feed, "main"), body, place)


def part(feed: str, first_n: int, number: int) -> StreamMessage:
    place = message_id(Place("main", SESSION, first_n, number))
    return StreamMessage(first_n, subjects.market(ENV, feed, "book", "T"), b"", place)


def test_the_whole_stream_is_read_and_blocks_of_another_feed_are_passed_over() -> None:
    intake = RawIntake(ENV, "kalshi")
    units = [intake.take(raw(feed, n)) for n, feed in enumerate(("other", "kalshi", "other"), 1)]
    assert intake.filters() == ()
    assert [unit and (unit.first_n, unit.first_seq) for unit in units] == [None, (2, 2), None]


def test_messages_of_another_feed_are_no_parts_of_a_block() -> None:
    intake = MarketIntake(ENV, "kalshi")
    intake.begin({})
    assert intake.filters() == ()
    assert [intake.take(one) for one in (part("other", 2, 0), mark("other", 1))] == [None, None]
    unit = intake.take(mark("kalshi", 2))
    assert unit is not None
    # With the other feed's part it would have begun at a message before its mark.
    assert (unit.first_n, unit.first_seq, unit.last_seq, unit.content.kinds) == (2, 2, 2, {})


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_days_are_those_of_the_calendar_whatever_came_before(zone: str) -> None:
    days, calendar = ArchiveDays(zone), DayCalendar(zone)
    # Over the two changes of the clocks in New York, to and fro.
    times = [SESSION + step * 7 * HOUR_NS for step in range(-400, 800)] + [SESSION, SESSION - 400 * HOUR_NS]
    assert [days.day_of(ts_ns) for ts_ns in times] == [calendar.day_of(ts_ns)[0] for ts_ns in times]
    midnight = calendar.day_of(SESSION)[1]
    assert [days.day_of(midnight + step) for step in (-1, 0)] == [calendar.day_of(midnight + step)[0] for step in (-1, 0)]
