"""Waiting until what is on the tape is everywhere it belongs."""

from __future__ import annotations

import asyncio
from typing import Final

from ssmd.errors import Unavailable
from ssmd.services.connector.fact_journal import FactJournal
from ssmd.services.connector.tape_follower import TapeFollower
from ssmd.streams.publisher import EntryPlace, OrderedPublisher

FLUSH_TIMEOUT_S: Final = 60.0
"""How long a flush may take: the connector may come back from an outage of its servers, with much to publish."""
POLL_S: Final = 0.01


async def until_handed_on(written: EntryPlace, publisher: OrderedPublisher, follower: TapeFollower, facts: FactJournal) -> None:
    """Wait until the streams have acknowledged the tape up to `written`, and the journal has its facts.

    Raises:
        Unavailable: they have not, within FLUSH_TIMEOUT_S.
    """
    try:
        async with asyncio.timeout(FLUSH_TIMEOUT_S):
            while min(publisher.acked, facts.done(follower.published)) < written:
                follower.wake()
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        acked, journaled = publisher.acked, facts.done(follower.published)
        raise Unavailable(
            f"of the tape up to {written.session}/{written.n} the streams have {acked.session}/{acked.n}"
            f"{publisher.away and f' ({publisher.away})'}, the journal {journaled.session}/{journaled.n}"
            f"{facts.away and f' ({facts.away})'} after {FLUSH_TIMEOUT_S:g} s"
        ) from None
