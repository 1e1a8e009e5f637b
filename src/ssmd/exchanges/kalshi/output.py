"""What the mapper says about one tape entry, while it is being put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from ssmd.domain.capture import CaptureEvent, DriftDetected, IntervalAssessed
from ssmd.exchanges.adapter import Mapped
from ssmd.exchanges.kalshi.drift import Finding
from ssmd.exchanges.kalshi.frames import Frame
from ssmd.schemas.records import Record

if TYPE_CHECKING:
    from ssmd.exchanges.kalshi.holes import Hole

FINDINGS_MAX: Final = 256
"""Distinct findings told per session; a venue that invents field names cannot flood the journal."""


class Closed(NamedTuple):
    """A hole was told as closed for `tickers` (sorted) of `channel` ("" = of all) at `end_ns`."""

    hole: Hole
    channel: str
    tickers: tuple[str, ...]
    end_ns: int


class Output:
    """Records and facts of one entry; both are numbered from 0 in the order they are added.

    Attributes:
        sid, seq: of the frame in the entry, 0 = none.
        unmapped: as in `Mapped`.
        closed: what was told as closed and not assessed yet.
        assessed: intervals; they follow the other facts.
    """

    __slots__ = ("assessed", "closed", "facts", "feed", "n", "records", "seq", "session", "sid", "ts_ns", "unmapped")

    def __init__(self, feed: str, session: int, n: int, ts_ns: int) -> None:
        self.feed = feed
        self.session = session
        self.n = n
        self.ts_ns = ts_ns
        self.sid = 0
        self.seq = 0
        self.unmapped = ""
        self.records: list[Record] = []
        self.facts: list[CaptureEvent] = []
        self.closed: list[Closed] = []
        self.assessed: list[IntervalAssessed] = []

    @property
    def place(self) -> tuple[int, int, int, int]:
        """The first four fields of the next fact: session, n, index, ts_recv_ns."""
        return self.session, self.n, len(self.facts), self.ts_ns

    def mapped(self) -> Mapped:
        for interval in self.assessed:
            self.facts.append(msgspec.structs.replace(interval, index=len(self.facts)))
        return Mapped(tuple(self.records), tuple(self.facts), self.unmapped)


class Findings:
    """Tells each finding once per session, by (what, frame type, field)."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str, str]] = set()

    def tell(self, out: Output, *findings: Finding) -> None:
        """Add to the entry's facts each whose like was not told, as long as FINDINGS_MAX are not."""
        for finding in findings:
            key = finding[:3]
            if key in self._told or len(self._told) >= FINDINGS_MAX:
                continue
            self._told.add(key)
            detail = finding.detail
            if len(self._told) == FINDINGS_MAX:
                detail = f"{detail} (no further findings are told in this session)"
            out.facts.append(DriftDetected(*out.place, finding.what, finding.frame_type, finding.field, detail))


def type_of(frame: Frame) -> str:
    """The frame's `type` on the wire."""
    return str(frame.__struct_config__.tag)
