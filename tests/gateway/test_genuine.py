"""Books of a genuine capture, compared with naive ones all along."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path

import msgspec
import zstandard

from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.gateway.market_state import MarketState
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.control import Connected, encode_fact
from ssmd.schemas.decimals import render
from ssmd.schemas.records import BookDelta, BookSnapshot, Record, Side, SizeMeaning

CAPTURE = "kalshi-btc15m-2026-05-14.jsonl.zst"
EVERY = 1_000
Sides = dict[Side, dict[Decimal, Decimal]]


def records_of(path: Path) -> Iterator[Record]:
    """The capture's records, in the order in which its frames came."""
    mappers: dict[str, tuple[KalshiMapper, int]] = {}
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as reader:
        for text in reader.read().decode().splitlines():
            line = msgspec.json.decode(text)
            name, at = line["conn"], line["ts_recv_ns"]
            if name not in mappers:
                mappers[name] = (KalshiMapper("kalshi", len(mappers) + 1), 1)
                fact = encode_fact(Connected("kalshi", name, "wss://capture", wire="kalshi-dollars"))
                yield from mappers[name][0].map(Entry(EntryKind.CTL, 1, at, fact)).records
            mapper, n = mappers[name]
            mappers[name] = (mapper, n + 1)
            frame = text[text.index('"frame":') + 8 : -1].encode() + b"\n"
            yield from mapper.map(Entry(EntryKind.IN, n + 1, at, frame)).records


@cache
def value(mantissa: int, exponent: int) -> Decimal:
    return Decimal(mantissa).scaleb(exponent)


def naive(books: dict[str, Sides], record: BookDelta | BookSnapshot) -> None:
    sides = books.setdefault(record.ticker, {Side.BID: {}, Side.ASK: {}})
    price_exponent, size_exponent = record.price_exponent, record.size_exponent
    if isinstance(record, BookSnapshot):
        for side, levels in ((Side.BID, record.bids), (Side.ASK, record.asks)):
            sides[side] = {value(price, price_exponent): value(size, size_exponent) for price, size in levels}
        return
    levels_there, price = sides[record.side], value(record.price, price_exponent)
    before = levels_there.get(price, Decimal(0)) if record.meaning == SizeMeaning.CHANGE else Decimal(0)
    levels_there[price] = before + value(record.size, size_exponent)
    if not levels_there[price]:
        del levels_there[price]


def held(state: MarketState, ticker: str) -> Sides:
    market = state.find(ticker)
    assert market is not None
    book = market.book
    bids, asks = book.levels()
    return {
        side: {Decimal(render(p, book.price_exponent)): Decimal(render(s, book.size_exponent)) for p, s in levels}
        for side, levels in ((Side.BID, bids), (Side.ASK, asks))
    }


def test_the_books_are_the_naive_ones_at_every_thousandth_message(shared_dir: Path) -> None:
    state, books = MarketState("kalshi"), dict[str, Sides]()
    checked = 0
    for seq, record in enumerate(records_of(shared_dir / "captures" / CAPTURE), 1):
        state.apply(record, seq)
        if isinstance(record, BookDelta | BookSnapshot):
            naive(books, record)
        if seq % EVERY == 0:
            for ticker, sides in books.items():
                expected = {side: {price: size for price, size in levels.items() if size > 0} for side, levels in sides.items()}
                assert held(state, ticker) == expected, (seq, ticker)
            checked += 1
    assert checked > 90
    assert books
