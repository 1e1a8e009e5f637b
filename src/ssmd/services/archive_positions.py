"""How far the archive of a feed has come, told by its journal: the last seal is the position."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ssmd.archive.continuity import NOWHERE, Place
from ssmd.domain import archive
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Malformed
from ssmd.streams.journal import Journal, PoisonEvent
from ssmd.streams.transport import StreamName, Transport


class Sealed(NamedTuple):
    """How far a connection is sealed, over all days; `incarnation` "" = nothing is."""

    reached: Place = NOWHERE
    incarnation: str = ""
    last_seq: int = 0


class Positions:
    """Partitions (connection, date) -> state; connections -> how far they are sealed."""

    def __init__(self) -> None:
        self.partitions: dict[tuple[str, str], archive.State] = {}
        self.connections: dict[str, Sealed] = {}

    def apply(self, connection: str, date: str, event: archive.ArchiveEvent) -> None:
        """Fold one event of a partition."""
        key = connection, date
        self.partitions[key] = archive.evolve(self.partitions.get(key, archive.State()), event)
        self.connections.setdefault(connection, Sealed())
        if isinstance(event, archive.SegmentSealed):
            self.sealed(connection, event)

    def sealed(self, connection: str, seal: archive.SegmentSealed | archive.SealSegment) -> None:
        """Take note of how far `connection` is sealed."""
        known = self.connections.get(connection, Sealed())
        reached = max((known.reached, *(Place(one.session, one.last_n) for one in seal.sessions)))
        seq = max(seal.last_seq, known.last_seq if seal.incarnation == known.incarnation else 0)
        self.connections[connection] = Sealed(reached, seal.incarnation, seq)


class Start(NamedTuple):
    """Where to begin reading a stream: behind `after` of `incarnation`. `regressed`: what the stream has lost, in words."""

    after: int
    incarnation: str
    regressed: tuple[str, ...]


async def find_start(
    transport: Transport, stream: StreamName, positions: Positions, closing_subject: Callable[[str], str]
) -> Start:
    """The lowest position of a connection that has messages behind its last seal.

    A connection whose first message was never sealed has been opened in the journal before any later message was read,
    so there is none that `positions` does not know before the highest seal.

    Args:
        closing_subject: connection -> subject of the messages that end its blocks.

    Raises:
        Unavailable: the transport does not answer.
    """
    state = await transport.state(stream)
    behind: list[int] = []
    regressed: list[str] = []
    highest = 0
    for connection, sealed in positions.connections.items():
        last_seq = sealed.last_seq if sealed.incarnation == state.incarnation else 0
        if last_seq > state.last_seq:
            regressed.append(f"{connection} is sealed up to message {last_seq}, stream {stream} ends at {state.last_seq}")
            last_seq = 0
        highest = max(highest, last_seq)
        last = await transport.last(stream, closing_subject(connection))
        if last_seq == 0 or (last is not None and last.seq > last_seq):
            behind.append(last_seq)
    return Start(min(behind, default=highest), state.incarnation, tuple(regressed))


async def load_positions(journal: Journal, feed: str, data_type: str) -> Positions:
    """All partitions of `feed` and `data_type` (raw | normalized), from the journal.

    Raises:
        Malformed: the journal holds something this version cannot read.
        Unavailable: the journal does not answer.
    """
    positions = Positions()
    async for batch in journal.replay(filters=[archive.AGGREGATE]):
        for recorded in batch:
            if isinstance(recorded, PoisonEvent):
                raise Malformed(f"journal position {recorded.position} holds no event: {recorded.reason}")
            of_feed, date, of_type, connection = recorded.envelope.aggregate_key.parts
            if (of_feed, of_type) == (feed, data_type):
                event = CATALOGUE.decode(recorded.envelope.type, recorded.envelope.data)
                if isinstance(event, archive.ArchiveEvent):
                    positions.apply(connection, date, event)
    return positions
