"""What the raw and the normalized archiver do differently: how messages become blocks, and blocks pieces of files."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from datetime import date
from typing import Any, Protocol

from ssmd.archive.continuity import Place, Unit
from ssmd.archive.keys import DataType
from ssmd.archive.segment_files import Piece
from ssmd.clock import DayCalendar
from ssmd.services.open_segment import OpenSegment
from ssmd.streams.transport import StreamMessage, StreamName


class ArchiveDays:
    """Which day a block belongs to. Blocks of one day come together, so the last answer nearly always holds."""

    def __init__(self, zone: str) -> None:
        self._calendar = DayCalendar(zone)
        self._date = ""
        self._from_ns = self._until_ns = 0

    def day_of(self, ts_ns: int) -> str:
        """The day of `ts_ns` as YYYY-MM-DD."""
        if not self._from_ns <= ts_ns < self._until_ns:
            self._date, self._until_ns = self._calendar.day_of(ts_ns)
            self._from_ns = self._calendar.start_ns(date.fromisoformat(self._date))
        return self._date


class Intake(Protocol):
    """Pure but for what it remembers of unfinished blocks."""

    @property
    def data_type(self) -> DataType: ...

    @property
    def stream(self) -> StreamName: ...

    @property
    def rewind(self) -> int:
        """Messages read again before the position at a start, for those a publisher stored out of order."""
        ...

    def filters(self) -> Sequence[str]:
        """Subjects to read; none = all of the stream.

        An environment has one feed, so that nothing else is on its streams: a filter that all match takes the server two
        to four times as long a message, of thousands of subjects, and `take` passes over what is of another feed.
        """
        ...

    def closing_subject(self, connection: str) -> str:
        """Subject of the messages that end a connection's blocks."""
        ...

    def link_of(self, reached: Place, /) -> Hashable:
        """The link of the block that ends at `reached`, as far as that can be known; None = it cannot."""
        ...

    def take(self, message: StreamMessage) -> Unit[Any] | None:
        """The block that `message` completes; None = none, or it is another feed's.

        Raises:
            Malformed: it cannot be archived.
        """
        ...

    def begin(self, reached: Mapping[str, Place], /) -> None:
        """Forget all; reading begins anew, and connections are archived up to `reached`."""
        ...

    def archived(self, connection: str, reached: Place, /) -> None:
        """`connection` is written up to `reached`: its messages up to there are not wanted again."""
        ...

    def refused(self, unit: Unit[Any], /) -> None:
        """`unit` was not taken now; its messages will come again."""
        ...

    def encoder(self, unit: Unit[Any]) -> Any:
        """Fresh state for the segment that begins with `unit`."""
        ...

    def fits(self, encoder: Any, unit: Unit[Any], /) -> bool:
        """Whether `unit` may go into the segment of `encoder`; if not, the segment is cut before it."""
        ...

    def pieces(self, encoder: Any, unit: Unit[Any], /) -> Sequence[Piece]:
        """What `unit` adds to the files."""
        ...

    def newline(self, encoder: Any, session: int, /) -> bool:
        """For `SessionReached.newline`."""
        ...

    def key(self, segment: OpenSegment, kind: str, incarnation: str, /) -> str:
        """The key of the segment's file of one kind."""
        ...
