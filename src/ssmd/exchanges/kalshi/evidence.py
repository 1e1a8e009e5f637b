"""What a Kalshi frame proves, beside what it says: its place in a subscription's count, and a market's price grid."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from ssmd.errors import Malformed
from ssmd.exchanges.kalshi.frames import TERMINAL_ERRORS, UNREADABLE
from ssmd.schemas.decimals import parse_fitting, rescale

UNCOUNTED: Final = frozenset({"ticker"})
"""Frame types whose `seq`, if there is one, counts nothing (protocol notes of 2026-11)."""


class FramePlace(NamedTuple):
    """Where a frame stands in its subscription's count. `seq` 0 = it has no place in one."""

    sid: int
    seq: int
    begins: bool = False
    ends: bool = False


class _Inner(msgspec.Struct):
    sid: int = 0
    code: int = 0


class _Frame(msgspec.Struct):
    type: str = ""
    sid: int = 0
    seq: int = 0
    msg: msgspec.Raw = msgspec.Raw()


_FRAME: Final = msgspec.json.Decoder(_Frame)
_INNER: Final = msgspec.json.Decoder(_Inner)


def frame_place(payload: bytes) -> FramePlace | None:
    """The place of the frame in `payload`; None = it cannot be read."""
    try:
        frame = _FRAME.decode(payload)
        match frame.type:
            case "subscribed":
                return FramePlace(_INNER.decode(frame.msg).sid, 0, begins=True)
            case "unsubscribed":
                return FramePlace(frame.sid, frame.seq, ends=True)
            case "error":
                ends = bool(frame.sid) and _INNER.decode(frame.msg).code in TERMINAL_ERRORS
                return FramePlace(frame.sid, frame.seq, ends=ends)
            case kind:
                return FramePlace(frame.sid, 0 if kind in UNCOUNTED else frame.seq)
    except UNREADABLE:
        return None


class _Range(msgspec.Struct):
    start: str
    end: str
    step: str


class _Grid(msgspec.Struct):
    price_ranges: list[_Range] = []


_GRID: Final = msgspec.json.Decoder(_Grid)


def price_ranges(body: bytes | str) -> tuple[tuple[int, int, int, int], ...]:
    """(start, end, step, exponent) of each range in a market's `price_ranges`, mantissas at one exponent; () = not told.

    Raises:
        Malformed: it tells what is no grid.
    """
    try:
        ranges = _GRID.decode(body).price_ranges
    except UNREADABLE as error:
        raise Malformed(f"price_ranges cannot be read: {error}") from error
    found = []
    for one in ranges:
        values = [parse_fitting(text, -4) for text in (one.start, one.end, one.step)]
        finest = min(exponent for _, exponent in values)
        start, end, step = (rescale(mantissa, exponent, finest) for mantissa, exponent in values)
        if step <= 0 or end < start:
            raise Malformed(f"a price range from {one.start} to {one.end} by {one.step} is none")
        found.append((start, end, step, finest))
    return tuple(found)
