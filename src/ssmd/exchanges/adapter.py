"""What every venue adapter provides: a mapper from tape entries to records and findings, and a session protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ssmd.domain.capture import CaptureEvent
from ssmd.schemas.blocks import Entry
from ssmd.schemas.records import Record


class Mapped(NamedTuple):
    """What one tape entry means.

    Attributes:
        records: in order; their `index` counts from 0.
        facts: events for the capture aggregate; their `index` counts from 0.
    """

    records: Sequence[Record]
    facts: Sequence[CaptureEvent]


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

    def map(self, entry: Entry) -> Mapped:
        """What `entry` means; entries come in order of n without holes."""
        ...


class Subscription(NamedTuple):
    """What a connection wants: channels, and the tickers for channels that take a filter (empty = no filter)."""

    channels: tuple[str, ...]
    tickers: tuple[str, ...]


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

    @property
    def failure(self) -> str:
        """Why the connection is of no more use ("channel-error: 25 Subscription buffer overflow"), "" while it is."""
        ...
