"""Trades held against the venue's own list of them: matched, differing, missing, extra.

Held are eight bytes for a trade's id and eight for its content (BLAKE2b of both), so that millions fit into memory; two
of a ticker's n trades share eight bytes with a probability below n * n / 2**65.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from ssmd.quality.coverage import Span, verdict_at
from ssmd.schemas.records import Side

EDGE_NS: Final = 2_000_000_000
"""The venue's time of a trade and our time of receiving it differ; so near an interval's edge absence proves nothing."""
NAMED_MAX: Final = 20


class VenueTrade(NamedTuple):
    """A trade as the venue lists it. `ts_ns`: the venue's time."""

    trade_id: str
    price: int
    price_exponent: int
    size: int
    size_exponent: int
    aggressor: Side
    ts_ns: int


class TradeMatch(msgspec.Struct, frozen=True):
    """One ticker's trades against the venue's list.

    Attributes:
        held: different trades that are archived; told: trades the venue lists while the ticker was captured.
        matched: held with equal price, size and side; differing: held, but otherwise.
        missing: listed while covered and not held; missing_in_gaps: listed within a known hole and not held.
        at_edges: listed within EDGE_NS of an interval's edge and not held: proves nothing.
        extra: held and not listed.
        examples: ids of missing and differing ones, the first NAMED_MAX.
    """

    ticker: str
    held: int
    told: int
    matched: int
    differing: int
    missing: int
    missing_in_gaps: int
    at_edges: int
    extra: int
    examples: tuple[str, ...]


class HeldTrades:
    """The trades of one ticker, as they come."""

    __slots__ = ("_contents", "_ids")

    def __init__(self) -> None:
        self._ids = array("Q")
        self._contents = array("Q")

    def add(self, trade: VenueTrade) -> None:
        self._ids.append(_eight(trade.trade_id))
        self._contents.append(_content(trade))

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def duplicates(self) -> int:
        """Trades whose id came before."""
        return len(self._ids) - len(set(self._ids))

    def match(self, ticker: str, told: Iterable[VenueTrade], spans: Sequence[Span]) -> TradeMatch:
        """Hold them against `told`, the venue's complete list for a time that includes all of `spans`.

        Args:
            spans: how the ticker's trades were covered.
        """
        held = dict(zip(self._ids, self._contents, strict=True))
        seen: set[int] = set()
        examples: list[str] = []
        counts = dict.fromkeys(("told", "matched", "differing", "missing", "missing_in_gaps", "at_edges"), 0)
        for trade in told:
            key = _eight(trade.trade_id)
            if key in seen:
                continue
            seen.add(key)
            if key in held:
                verdict = "matched" if held[key] == _content(trade) else "differing"
            else:
                verdict = _absence(spans, trade.ts_ns)
                if not verdict:
                    continue
            counts["told"] += 1
            counts[verdict] += 1
            if verdict in {"missing", "differing"} and len(examples) < NAMED_MAX:
                examples.append(trade.trade_id)
        extra = len(held.keys() - seen)
        return TradeMatch(ticker=ticker, held=len(held), extra=extra, examples=tuple(examples), **counts)


def _absence(spans: Sequence[Span], ts_ns: int) -> str:
    """What it means that a trade of `ts_ns` is not held; "" = nothing, the ticker was not captured."""
    around = {verdict_at(spans, ts_ns + shift) for shift in (-EDGE_NS, 0, EDGE_NS)}
    if around == {None}:
        return ""
    if around & {"missing", "repaired"}:
        return "missing_in_gaps"
    return "at_edges" if None in around else "missing"


def _eight(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _content(trade: VenueTrade) -> int:
    price, size = _plain(trade.price, trade.price_exponent), _plain(trade.size, trade.size_exponent)
    return _eight(f"{price} {size} {int(trade.aggressor)}")


def _plain(mantissa: int, exponent: int) -> str:
    """One text for equal values."""
    while mantissa and mantissa % 10 == 0:
        mantissa, exponent = mantissa // 10, exponent + 1
    return f"{mantissa}e{exponent if mantissa else 0}"
