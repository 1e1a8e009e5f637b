"""What the journal says of this connection's archive and owner: how much of the tape may go, what has to come again."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from ssmd.application.handler import Application
from ssmd.archive.continuity import NOWHERE, Place
from ssmd.domain import capture
from ssmd.errors import Unavailable
from ssmd.services.archive_positions import Positions, load_positions
from ssmd.streams.publisher import EntryPlace

EPOCH_S: Final = 0.5
"""How long a start waits for the journal to tell the last epoch; without it, time decides (`sessions.next_epoch`)."""


class Seen(NamedTuple):
    """How the archive stands.

    Attributes:
        sealed: raw and normalized are both sealed up to here.
        missed: an archiver waits for everything behind this place (its stream was truncated); None = nobody does.
        epoch: the highest of this connection's connectors.
    """

    sealed: EntryPlace
    missed: EntryPlace | None
    epoch: int


class ArchiveWatch:
    """Reads the archive's events of one feed as they grow; each look asks only for what is new."""

    def __init__(self, application: Application, feed: str, connection: str) -> None:
        self._application = application
        self._feed = feed
        self._connection = connection
        self._positions = {"raw": Positions(), "normalized": Positions()}
        self._told: dict[str, int] = {}

    async def epoch(self) -> int:
        """The highest epoch of this connection's connectors; 0 while the journal does not answer quickly."""
        try:
            async with asyncio.timeout(EPOCH_S):
                return (await self._application.state(capture.DECIDER, (self._feed, self._connection))).epoch
        except (Unavailable, TimeoutError):
            return 0

    async def look(self) -> Seen:
        """How it stands now; what is missed is told once for each time it was journaled.

        Raises:
            Unavailable: the journal does not answer.
            Malformed: the journal holds what this version cannot read.
        """
        missed: list[Place] = []
        reached: list[Place] = []
        for data_type, positions in self._positions.items():
            await load_positions(self._application.journal, self._feed, data_type, positions)
            sealed = positions.connections.get(self._connection)
            reached.append(NOWHERE if sealed is None else sealed.reached)
            if sealed is not None and sealed.truncated_at > self._told.get(data_type, 0):
                self._told[data_type] = sealed.truncated_at
                missed.append(sealed.reached)
        state = await self._application.state(capture.DECIDER, (self._feed, self._connection))
        return Seen(EntryPlace(*min(reached)), EntryPlace(*min(missed)) if missed else None, state.epoch)
