"""What a sync asks of a venue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from ssmd.domain.observation import Observation


class Scope(NamedTuple):
    """What of the venue a sync covers.

    Attributes:
        since_ns: only what the venue changed since then; 0 = everything that is not settled.
        series: only these; () = all.
    """

    since_ns: int = 0
    series: tuple[str, ...] = ()

    @property
    def is_full(self) -> bool:
        """Whether a market that is not shown may be gone."""
        return self.since_ns == 0

    def __str__(self) -> str:
        what = f"series {','.join(self.series)}" if self.series else ""
        since = f"since {self.since_ns}" if self.since_ns else ""
        return " ".join(part for part in (what, since) if part)


class VenueMarkets(Protocol):
    """The venue's list of markets."""

    @property
    def requests(self) -> int:
        """Requests made so far."""
        ...

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Markets that are there and could not be understood, by ticker, and why."""
        ...

    def pages(self, scope: Scope) -> AsyncIterator[list[Observation]]:
        """The markets within `scope`, page by page; a market may be shown more than once.

        Raises:
            Unavailable: the venue does not answer, after all retries.
            Malformed: its answer cannot be read.
            Rejected: it refuses us.
        """
        ...

    async def ask(self, tickers: Sequence[str]) -> list[Observation]:
        """These very markets, whatever their stage; one the venue does not know is missing. Raises as `pages`."""
        ...
