"""What every venue adapter provides: a mapper from tape entries to records and findings, and a session protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from ssmd.domain.capture import CaptureEvent
from ssmd.schemas.blocks import Entry
from ssmd.schemas.records import Record


class Mapped(NamedTuple):
    """What one tape entry means.

    Attributes:
        records: in order; their `index` counts from 0.
        facts: events for the capture aggregate; their `index` counts from 0.
        unmapped: why a frame of the venue yields no record although it may carry data, "" = it does not, or it does.
    """

    records: Sequence[Record]
    facts: Sequence[CaptureEvent]
    unmapped: str = ""


NOTHING = Mapped((), ())


class Mapper(Protocol):
    """Turns the entries of ONE session, from its first (n = 1), into records and facts.

    A pure function of the entries: the same session and `version` give equal results. It never raises for what a venue
    sent: what it cannot understand is a `DriftDetected` fact, and the frame stays on the tape.
    """

    @property
    def version(self) -> int:
        """Rises whenever the same tape would give other records."""
        ...

    @property
    def clock_offset_ns(self) -> int:
        """Our clock less the venue's, plus the shortest time a frame took of late; 0 = not known."""
        ...

    def map(self, entry: Entry) -> Mapped:
        """What `entry` means; entries come in order of n without holes."""
        ...


class Subscription(NamedTuple):
    """What a connection wants.

    Attributes:
        tickers: for channels that take a filter; empty = no filter.
        is_followed: tickers come and go (`Session.want`); empty = none yet.
    """

    channels: tuple[str, ...]
    tickers: tuple[str, ...]
    is_followed: bool = False


class ListingChange(NamedTuple):
    """The venue says that a market or an event changed.

    Attributes:
        change: the venue's word ("created", "activated", "settled"); "event" = an event is there.
        ticker: of the market, "" for an event.
        event: the event's ticker, "" = not told.
        series: the event's series, "" = not told.
    """

    change: str
    ticker: str
    event: str
    series: str


class Session(Protocol):
    """What to send on one connection and how it stands; no networking inside.

    The caller feeds every received frame to `receive` after it is on the tape, and sends (and tapes) what is returned.
    """

    def open(self) -> list[bytes]:
        """Commands to send once connected."""
        ...

    def receive(self, frame: bytes) -> list[bytes]:
        """Take one frame; commands to send because of it."""
        ...

    def want(self, tickers: Iterable[str]) -> list[bytes]:
        """From now on these tickers, all of them; commands that add and take away one by one."""
        ...

    def repair(self, tickers: Iterable[str]) -> list[bytes]:
        """Their books cannot be right: commands that bring them anew."""
        ...

    def tick(self, now_s: float) -> list[bytes]:
        """Called about once a second (`now_s` never decreases): commands that were refused or not answered, again."""
        ...

    def take_changes(self) -> Sequence[ListingChange]:
        """What the venue told of markets that come and go since the last call."""
        ...

    @property
    def unplaced(self) -> int:
        """Markets wanted that are not subscribed (yet)."""
        ...

    @property
    def without_room(self) -> frozenset[str]:
        """Those of them that the venue will not take on this connection."""
        ...

    @property
    def failure(self) -> str:
        """Why the connection is of no more use ("channel-error: 25 Subscription buffer overflow"), "" while it is."""
        ...


class GapToRepair(NamedTuple):
    """A gap that is over, of which something may be had elsewhere.

    Attributes:
        gap_id: as in its events.
        start_ns, end_ns: by our clock, last moment proven good and first one again.
        channel: "" = all of the session's.
        tickers: whom it concerned, () = every market of the channel.
    """

    gap_id: str
    start_ns: int
    end_ns: int
    channel: str
    tickers: tuple[str, ...]
