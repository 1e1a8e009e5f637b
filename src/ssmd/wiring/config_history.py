"""The configurations of an environment, read from its journal."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Final

from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.envelope import Envelope
from ssmd.projections.config_history import AGGREGATES, ConfigSpan, fold_history
from ssmd.streams.journal import RecordedEvent
from ssmd.wiring.backends import reading_journal
from ssmd.wiring.environment import ResolvedEnvironment

_NS_PER_S: Final = 1_000_000_000


async def config_history(
    environment: ResolvedEnvironment, variables: Mapping[str, str], say: Callable[[str], None]
) -> list[ConfigSpan]:
    """All configurations that were applied or used, in order. Raises as `reading_journal`."""
    events: list[tuple[int, Envelope]] = []
    async with reading_journal(environment, variables, say) as journal:
        async for batch in journal.replay(filters=AGGREGATES):
            events += [(one.position, one.envelope) for one in batch if isinstance(one, RecordedEvent)]
    return fold_history(events, CATALOGUE)


def day_bounds(date: str) -> tuple[int, int]:
    """First nanosecond of a UTC date, and of the next."""
    start = dt.datetime.fromisoformat(date).replace(tzinfo=dt.UTC)
    return int(start.timestamp()) * _NS_PER_S, int((start + dt.timedelta(days=1)).timestamp()) * _NS_PER_S
