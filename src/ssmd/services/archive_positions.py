"""How far the archive of a feed has come, told by its journal: the last seal is the position."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from ssmd.archive.backfilled import is_backfill
from ssmd.archive.continuity import NOWHERE, Place
from ssmd.domain import archive
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Malformed
from ssmd.services.archive_intake import Intake
from ssmd.streams.journal import Journal, PoisonEvent
from ssmd.streams.transport import StreamName, StreamState, Transport


class Sealed(NamedTuple):
    """How far a connection is sealed, over all days; `incarnation` "" = nothing is.

    Attributes:
        incarnation: what the stream is called since its last life or regression.
        last_seq, message_id: the last message sealed under that name; 0 and "" = none.
        date: of the last seal.
        regressions: how often the stream was found to have lost what was sealed.
        truncated_at: journal position where retention was told to have overtaken the archiver since the last seal; 0 = not.
    """

    reached: Place = NOWHERE
    incarnation: str = ""
    last_seq: int = 0
    message_id: str = ""
    date: str = ""
    regressions: int = 0
    truncated_at: int = 0


class Positions:
    """Partitions (connection, date) -> state; connections -> how far they are sealed; journal position they include."""

    def __init__(self) -> None:
        self.partitions: dict[tuple[str, str], archive.State] = {}
        self.connections: dict[str, Sealed] = {}
        self.position = 0

    def apply(self, connection: str, date: str, event: archive.ArchiveEvent) -> None:
        """Fold one event of a partition."""
        key = connection, date
        self.partitions[key] = archive.evolve(self.partitions.get(key, archive.State()), event)
        self.connections.setdefault(connection, Sealed())
        match event:
            case archive.SegmentSealed():
                self.sealed(connection, date, event)
            case archive.StreamRegressed():
                self.regressed(connection, event.incarnation)
            case archive.StreamTruncated():
                self.connections[connection] = self.connections[connection]._replace(truncated_at=self.position)
            case _:
                pass

    def sealed(self, connection: str, date: str, seal: archive.SegmentSealed | archive.SealSegment) -> None:
        """Take note of how far `connection` is sealed."""
        known = self.connections.get(connection, Sealed())
        reached = max((known.reached, *(Place(one.session, one.last_n) for one in seal.sessions)))
        seq, message_id = seal.last_seq, seal.last_message_id
        if seal.incarnation == known.incarnation and known.last_seq > seq:
            seq, message_id = known.last_seq, known.message_id
        self.connections[connection] = known._replace(
            reached=reached,
            incarnation=seal.incarnation,
            last_seq=seq,
            message_id=message_id,
            date=date,
            truncated_at=0,
        )

    def regressed(self, connection: str, incarnation: str) -> None:
        """Sequences sealed so far mean nothing any more."""
        known = self.connections.get(connection, Sealed())
        self.connections[connection] = known._replace(
            incarnation=incarnation, last_seq=0, message_id="", regressions=known.regressions + 1
        )


class Regressed(NamedTuple):
    """A stream has lost what was sealed of a connection. `incarnation`: what it is to be called from now on."""

    connection: str
    incarnation: str
    position: int
    found_last: int
    found_message_id: str
    reason: str


class Start(NamedTuple):
    """Where to begin reading a stream: behind `after` of `incarnation`; and what it has lost meanwhile."""

    after: int
    incarnation: str
    regressed: tuple[Regressed, ...] = ()


REGRESSION_DIGITS: Final = 4
"""Hex digits behind an incarnation that count the regressions within it: names of one life sort in order of time."""


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
    regressed: list[Regressed] = []
    highest = 0
    for connection, sealed in positions.connections.items():
        found = await _regression(transport, stream, state, connection, sealed)
        last_seq = sealed.last_seq
        if found is not None:
            regressed.append(found)
            last_seq = 0
        highest = max(highest, last_seq)
        last = await transport.last(stream, closing_subject(connection))
        if last_seq == 0 or (last is not None and last.seq > last_seq):
            behind.append(last_seq)
    return Start(min(behind, default=highest), state.incarnation, tuple(regressed))


async def _regression(
    transport: Transport, stream: StreamName, state: StreamState, connection: str, sealed: Sealed
) -> Regressed | None:
    if not sealed.incarnation:
        return None
    where = f"{connection} is sealed up to message {sealed.last_seq} of stream {stream} {sealed.incarnation}"
    is_same = sealed.incarnation[: len(state.incarnation)] == state.incarnation and len(sealed.incarnation) in (
        len(state.incarnation),
        len(state.incarnation) + REGRESSION_DIGITS,
    )
    if not is_same:
        return Regressed(
            connection, state.incarnation, sealed.last_seq, state.last_seq, "", f"{where}, which is {state.incarnation} now"
        )
    incarnation = f"{state.incarnation}{sealed.regressions + 1:0{REGRESSION_DIGITS}x}"
    if sealed.last_seq > state.last_seq:
        reason = f"{where}, which ends at {state.last_seq}"
        return Regressed(connection, incarnation, sealed.last_seq, state.last_seq, "", reason)
    if sealed.last_seq and sealed.message_id:
        found = await transport.get(stream, sealed.last_seq)
        # None: too old to be kept, which is no regression.
        if found is not None and found.message_id != sealed.message_id:
            reason = f"{where}: {sealed.message_id!r}, where {found.message_id!r} is now"
            return Regressed(connection, incarnation, sealed.last_seq, state.last_seq, found.message_id, reason)
    return None


async def load_positions(journal: Journal, feed: str, data_type: str, positions: Positions | None = None) -> Positions:
    """All partitions of `feed` and `data_type` (raw | normalized), from the journal.

    Args:
        positions: what an earlier call gave, to be brought up to date; None = from the journal's beginning.

    Raises:
        Malformed: the journal holds something this version cannot read.
        Unavailable: the journal does not answer.
    """
    positions = Positions() if positions is None else positions
    async for batch in journal.replay(after=positions.position, filters=[archive.AGGREGATE]):
        for recorded in batch:
            positions.position = recorded.position
            if isinstance(recorded, PoisonEvent):
                raise Malformed(f"journal position {recorded.position} holds no event: {recorded.reason}")
            of_feed, date, of_type, connection = recorded.envelope.aggregate_key.parts
            if (of_feed, of_type) == (feed, data_type) and not is_backfill(connection):
                event = CATALOGUE.decode(recorded.envelope.type, recorded.envelope.data)
                if isinstance(event, archive.ArchiveEvent):
                    positions.apply(connection, date, event)
    return positions


class StreamEnd:
    """Tells whether a reader has read all that the stream holds for it.

    The stream's last message may be another feed's, and is never read then. So it is enough to have read the last one of
    each connection known, when for a while nothing of an unknown one has come either (`is_quiet`).
    """

    def __init__(self, transport: Transport, intake: Intake) -> None:
        self._transport = transport
        self._intake = intake
        self._last_seq = 0

    async def is_read(self, connections: Iterable[str], seq: int, *, is_quiet: bool) -> bool:
        """Whether a reader at `seq` has. The stream is asked only once that may be so: it answers slowly when busy.

        Raises:
            Unavailable: the transport does not answer.
        """
        if seq < self._last_seq and not is_quiet:
            return False
        self._last_seq = (await self._transport.state(self._intake.stream)).last_seq
        if seq >= self._last_seq:
            return True
        if not is_quiet:
            return False
        for connection in connections:
            last = await self._transport.last(self._intake.stream, self._intake.closing_subject(connection))
            if last is not None and last.seq > seq:
                return False
        return True

    def forget(self) -> None:
        """The stream may be another one now."""
        self._last_seq = 0
