"""Names for sets of tickers: each set's tickers are told once in a session, later only its name, or how it differs.

A set that is too large for a journal message is told as several, by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from ssmd.domain.fact_parts import TICKERS_BYTES_MAX, set_digest, ticker_parts

KNOWN_MAX: Final = 4096
"""Names remembered; with more than that all sets are told anew."""


class NamedSet(NamedTuple):
    """As in `domain.capture.IntervalAssessed`."""

    ticker_set: str
    base: str
    tickers: tuple[str, ...]
    dropped: tuple[str, ...]


class TickerSets:
    """The sets named in one session."""

    def __init__(self, *, bytes_max: int = TICKERS_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._known: set[str] = set()
        # By part, the large set named last: what comes after it differs from it by the markets that came and went.
        self._large: list[tuple[str, frozenset[str]]] = []

    def name(self, tickers: Iterable[str]) -> Iterator[NamedSet]:
        """The set of `tickers`; several where it is too large, together all of them and none twice."""
        for index, part in enumerate(ticker_parts(sorted(tickers), self._bytes_max)):
            yield self._name(index, part)

    def _name(self, index: int, part: tuple[str, ...]) -> NamedSet:
        digest = set_digest(part)
        if digest in self._known:
            return NamedSet(digest, digest, (), ())
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known.add(digest)
        members = frozenset(part)
        found = NamedSet(digest, "", part, ())
        large = self._large[index] if index < len(self._large) else None
        if large is not None and 2 * len(members ^ large[1]) < len(members):
            found = NamedSet(digest, large[0], tuple(sorted(members - large[1])), tuple(sorted(large[1] - members)))
        if large is None:
            self._large.append((digest, members))
        elif 2 * len(members) >= len(large[1]):
            self._large[index] = digest, members
        return found
