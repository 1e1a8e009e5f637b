"""Genuine captures through the mapper. The recordings may not be redistributed, so they are read where they are.

Source: kalshi-btc15m-2026-05-14 (production, 102,555 frames), -close (its second connection, a market's close) and
kalshi-btc-hourly-2026-04-18 (production, 8 markets on one sid); provenance in the README beside them.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from ssmd.domain import capture
from ssmd.exchanges.adapter import Mapped, Subscription
from ssmd.exchanges.book import Book
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.exchanges.kalshi.session import KalshiSession
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.control import Connected, Disconnected, encode_fact
from ssmd.schemas.decimals import render
from ssmd.schemas.records import BookDelta, BookSnapshot, Gap, MarketStatus, Quote, Record, Side, SizeMeaning, Trade

SHARED = Path(__file__).resolve().parents[4] / "shared"
BIG = "kalshi-btc15m-2026-05-14"
CLOSE = "kalshi-btc15m-close-2026-05-14"
HOURLY = "kalshi-btc-hourly-2026-04-18"
CLOSED_TICKER = "KXBTC15M-26MAY140045-45"

Levels = dict[Decimal, Decimal]


class Line(msgspec.Struct):
    ts_recv_ns: int
    conn: str
    frame: msgspec.Raw


@cache
def connections(name: str) -> tuple[tuple[tuple[int, bytes], ...], ...]:
    """(ts_recv_ns, frame) of each connection of a capture; the venue's newline is put back."""
    path = SHARED / "captures" / f"{name}.jsonl.zst"
    if not path.exists():
        pytest.skip(f"the genuine capture {name} is not here: it may not be redistributed")
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as reader:
        lines = [msgspec.json.decode(text, type=Line) for text in reader.read().splitlines()]
    grouped: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
    for line in lines:
        grouped[line.conn].append((line.ts_recv_ns, bytes(line.frame) + b"\n"))
    return tuple(tuple(frames) for frames in grouped.values())


def entries_of(frames: Sequence[tuple[int, bytes]], *, wire: str = "kalshi-dollars") -> Iterator[Entry]:
    yield Entry(EntryKind.CTL, 1, frames[0][0], encode_fact(Connected("kalshi", "main", "wss://x", wire=wire)))
    for n, (ts_ns, frame) in enumerate(frames, 2):
        yield Entry(EntryKind.IN, n, ts_ns, frame)


def run(frames: Sequence[tuple[int, bytes]], session: int = 7) -> list[Mapped]:
    return list(run_each(frames, session))


def run_each(frames: Sequence[tuple[int, bytes]], session: int = 7) -> Iterator[Mapped]:
    """One after the other: 100,000 results at once are much for the garbage collector."""
    mapper = KalshiMapper("kalshi", session)
    return (mapper.map(entry) for entry in entries_of(frames))


def naive_apply(books: dict[str, tuple[Levels, Levels]], frame: dict[str, Any]) -> None:
    """An independent reading of the raw frame, on Decimals: (bids, asks) by ticker, all in YES prices."""
    msg = frame["msg"]
    if frame["type"] == "orderbook_snapshot":
        books[msg["market_ticker"]] = (
            {decimal(price): decimal(size) for price, size in msg.get("yes_dollars_fp", [])},
            {complement(price): decimal(size) for price, size in msg.get("no_dollars_fp", [])},
        )
    elif frame["type"] == "orderbook_delta":
        bids, asks = books[msg["market_ticker"]]
        side, price = (
            (bids, decimal(msg["price_dollars"])) if msg["side"] == "yes" else (asks, complement(msg["price_dollars"]))
        )
        size = side.get(price, Decimal(0)) + decimal(msg["delta_fp"])
        assert size >= 0
        if size:
            side[price] = size
        else:
            del side[price]


@cache
def decimal(text: str) -> Decimal:
    return Decimal(text)


@cache
def complement(price: str) -> Decimal:
    return 1 - Decimal(price)


@cache
def rendered(mantissa: int, exponent: int) -> Decimal:
    return Decimal(render(mantissa, exponent))


def as_decimals(book: Book) -> tuple[list[tuple[Decimal, Decimal]], list[tuple[Decimal, Decimal]]]:
    bids, asks = book.levels()
    scale = [[(rendered(p, book.price_exponent), rendered(s, book.size_exponent)) for p, s in side] for side in (bids, asks)]
    return scale[0], scale[1]


RECORD_OF_TYPE = {
    "subscribed": (),
    "error": (),
    "orderbook_snapshot": (BookSnapshot,),
    "orderbook_delta": (BookDelta,),
    "ticker": (Quote,),
}


@pytest.mark.parametrize(
    ("name", "frames", "records"),
    [
        (BIG, [42_375, 641, 59_539], {"BookSnapshot": 4, "BookDelta": 101_703, "Quote": 842}),
        (CLOSE, [641], {"BookSnapshot": 2, "BookDelta": 634, "Quote": 3}),
        (HOURLY, [74], {"BookSnapshot": 8, "BookDelta": 61}),
    ],
)
def test_every_frame_that_carries_data_yields_its_record(name: str, frames: list[int], records: dict[str, int]) -> None:
    assert [len(connection) for connection in connections(name)] == frames
    found: Counter[str] = Counter()
    for session, connection in enumerate(connections(name), 1):
        seqs: dict[int, list[int]] = defaultdict(list)
        for (ts_ns, payload), mapped in zip(connection, itertools.islice(run_each(connection, session), 1, None), strict=True):
            frame = msgspec.json.decode(payload)
            assert tuple(type(record) for record in mapped.records) == RECORD_OF_TYPE[frame["type"]]
            for record in mapped.records:
                found[type(record).__name__] += 1
                assert (record.feed, record.session, record.index, record.ts_recv_ns) == ("kalshi", session, 0, ts_ns)
                assert (record.ticker, record.sid) == (frame["msg"]["market_ticker"], frame["sid"])
                assert record.seq == frame.get("seq", 0)
                if record.seq:
                    seqs[record.sid].append(record.seq)
            facts = [fact for fact in mapped.facts if not isinstance(fact, capture.Subscribed)]
            assert facts == []
        for numbers in seqs.values():
            assert numbers == list(range(1, len(numbers) + 1))
    assert found == records


@pytest.mark.parametrize("name", [BIG, CLOSE, HOURLY])
def test_books_from_records_equal_books_from_raw_frames_at_sampled_points(name: str) -> None:
    total = sum(len(connection) for connection in connections(name))
    every = max(total // 1000, 1)
    compared = 0
    for connection in connections(name):
        naive: dict[str, tuple[Levels, Levels]] = {}
        books: dict[str, Book] = {}
        for number, ((_, payload), mapped) in enumerate(
            zip(connection, itertools.islice(run_each(connection), 1, None), strict=True)
        ):
            naive_apply(naive, msgspec.json.decode(payload))
            for record in mapped.records:
                if isinstance(record, (BookSnapshot, BookDelta)):
                    if record.ticker not in books:
                        books[record.ticker] = Book(record.ticker)
                    found = books[record.ticker].apply(record)
                    assert not found or not [finding for finding in found if finding.what == "negative-level"]
            if number % every == 0 or number == len(connection) - 1:
                compared += 1
                for ticker, (bids, asks) in naive.items():
                    want = (sorted(bids.items(), reverse=True), sorted(asks.items()))
                    assert as_decimals(books[ticker]) == want, (name, number, ticker)
    assert compared >= min(total, 1000)


def test_event_times_have_microseconds() -> None:
    delta = next(record for mapped in run(connections(CLOSE)[0]) for record in mapped.records if isinstance(record, BookDelta))
    # ts 2026-05-14T04:44:52.862234Z, ts_ms 1778733892862.
    assert delta.ts_event_ns == 1_778_733_892_862_234_000


def test_a_close_empties_the_book_and_the_quote() -> None:
    mapped = run(connections(CLOSE)[0])
    book = Book(CLOSED_TICKER)
    for one in mapped:
        for record in one.records:
            if isinstance(record, BookSnapshot | BookDelta):
                book.apply(record)
                last_delta_or_snapshot = record
    assert book.levels() == ((), ())
    assert last_delta_or_snapshot == BookSnapshot(
        "kalshi", CLOSED_TICKER, 0, 1778733906018636032, 7, 642, 0, 2, 636, -4, -2, (), (), False
    )
    quotes = [record for one in mapped for record in one.records if isinstance(record, Quote)]
    assert quotes[-1] == Quote(
        "kalshi",
        CLOSED_TICKER,
        1778733900833263000,
        1778733901239706880,
        7,
        641,
        0,
        1,
        0,
        -4,
        -2,
        None,
        None,
        None,
        None,
        9990,
        100,
        81276100,
        34388302,
    )


def test_the_last_message_lost_is_covered_by_the_hole_after_the_session() -> None:
    frames = connections(CLOSE)[0][:-1]
    mapper = KalshiMapper("kalshi", 7)
    for entry in entries_of(frames):
        mapper.map(entry)
    end = encode_fact(Disconnected("connection-lost", last_recv_ns=frames[-1][0]))
    mapped = mapper.map(Entry(EntryKind.CTL, len(frames) + 2, frames[-1][0] + 5, end))
    (gap,) = mapped.records
    assert isinstance(gap, Gap)
    assert (gap.ticker, gap.state, gap.gap_id, gap.start_ns) == (CLOSED_TICKER, "opened", f"7-{len(frames) + 2}", frames[-1][0])


def test_each_repeated_message_changes_nothing() -> None:
    frames = connections(CLOSE)[0]
    once = [record for mapped in run(frames) for record in mapped.records]
    for place in range(2, len(frames), 40):
        if "seq" not in json.loads(frames[place][1]):
            continue
        mapped = run((*frames[: place + 1], frames[place], *frames[place + 1 :]))
        records = [record for one in mapped for record in one.records]
        assert [msgspec.structs.replace(record, n=0) for record in records] == [
            msgspec.structs.replace(record, n=0) for record in once
        ]
        drift = [fact for one in mapped for fact in one.facts if isinstance(fact, capture.DriftDetected)]
        assert [(fact.what, fact.n) for fact in drift] == [("duplicate-sequence", place + 3)]


def test_a_session_takes_replayed_frames_of_commands_it_never_sent() -> None:
    for name in (BIG, CLOSE, HOURLY):
        session = KalshiSession(Subscription(("orderbook_delta", "ticker", "trade", "market_lifecycle_v2"), ("OTHER",)))
        session.open()
        sent = [session.receive(frame) for connection in connections(name) for _, frame in connection]
        assert list(itertools.chain(*sent)) == []
        assert session.failure == ""


# Quoted single frames and the recorded demo pair (data/kalshi/ws).


def quoted() -> list[dict[str, Any]]:
    path = SHARED / "data" / "kalshi" / "ws" / "quoted-frames.jsonl"
    if not path.exists():
        pytest.skip("the quoted frames are not here: they may not be redistributed")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_quoted_frames_of_every_type_are_understood() -> None:
    kinds: Counter[str] = Counter()
    for row in quoted():
        wire = "kalshi-cents" if row["captured"] < "2026-03-12" else "kalshi-dollars"
        payload = json.dumps(row["frame"], separators=(",", ":")).encode()
        mapper = KalshiMapper("kalshi", 1)
        mapped = [mapper.map(entry) for entry in entries_of([(9, payload)], wire=wire)][1]
        assert not [fact for fact in mapped.facts if isinstance(fact, capture.DriftDetected)], row
        for record in mapped.records:
            kinds[type(record).__name__] += 1
            assert record.ticker == row["frame"]["msg"].get("market_ticker", row["frame"]["msg"].get("event_ticker"))
            if isinstance(record, MarketStatus):
                assert json.loads(record.detail) == row["frame"]["msg"]
    assert kinds == {"MarketStatus": 5, "Trade": 4, "Quote": 2, "BookSnapshot": 2, "BookDelta": 2}


def test_a_frame_of_the_cents_era_gives_exact_prices_and_whole_sizes() -> None:
    (row,) = [row for row in quoted() if row["captured"] < "2026-03-12" and row["frame"]["type"] == "ticker"]
    assert (row["frame"]["msg"]["yes_bid"], row["frame"]["msg"]["volume"]) == (11, 351_970)
    mapper = KalshiMapper("kalshi", 1)
    payload = json.dumps(row["frame"]).encode()
    (quote,) = [mapper.map(entry).records for entry in entries_of([(9, payload)], wire="kalshi-cents")][1]
    assert isinstance(quote, Quote)
    assert (quote.ticker, quote.ts_event_ns) == ("KXRANKLISTGOOGLESEARCH-26JAN-BIA", 1_732_579_880_000_000_000)
    assert (quote.price_exponent, quote.bid_price, quote.ask_price, quote.last_price) == (-4, 1100, 1200, 1200)
    assert (quote.size_exponent, quote.bid_size, quote.volume, quote.open_interest) == (-2, None, 35_197_000, 18_264_600)


def test_quoted_frames_give_these_records() -> None:
    frames = [row["frame"] for row in quoted()]
    mapper = KalshiMapper("kalshi", 1)
    records: list[Record] = []
    for n, frame in enumerate(frames, 1):
        if frame["type"] in {"trade", "market_lifecycle_v2"}:
            # Each its own subscription: they are single frames of different streams.
            alone = {**frame, "sid": 100 + n}
            records.extend(mapper.map(Entry(EntryKind.IN, n, 9, json.dumps(alone).encode())).records)
    trades = [record for record in records if isinstance(record, Trade)]
    assert trades[2] == Trade(
        "kalshi",
        "KXCRYPTOLEAD15M-26SEP210115-HYPE",
        1789966900609000000,
        9,
        1,
        6,
        0,
        106,
        674041,
        -4,
        -2,
        "0723cb08",
        1400,
        8212,
        Side.ASK,
        False,
    )
    determined = next(record for record in records if isinstance(record, MarketStatus))
    assert (determined.change, determined.status, determined.result, determined.settlement_price, determined.ts_event_ns) == (
        "determined",
        "determined",
        "no",
        0,
        1_784_501_722_000_000_000,
    )


def demo(which: str) -> tuple[bytes, list[bytes]]:
    folder = SHARED / "data" / "kalshi" / "ws"
    path = folder / f"demo-tennis-2026-06-11.{which}.raw.jsonl"
    if not path.exists():
        pytest.skip("the demo recordings are not here: they may not be redistributed")
    meta = json.loads((folder / f"demo-tennis-2026-06-11.{which}.meta.json").read_text())
    frames = [line.encode() for line in path.read_text().splitlines() if line]
    return json.dumps(meta["subscribe_cmd"]).encode(), frames


def test_a_book_in_yes_prices_is_the_book_in_no_prices() -> None:
    books = []
    for which in ("noleg", "yes"):
        command, frames = demo(which)
        mapper = KalshiMapper("kalshi", 1)
        mapper.map(Entry(EntryKind.OUT, 1, 1, command))
        records = [
            record for n, frame in enumerate(frames, 2) for record in mapper.map(Entry(EntryKind.IN, n, n, frame)).records
        ]
        books.append([record for record in records if isinstance(record, BookSnapshot | BookDelta)])
    noleg, yes = books
    # The NO bid of 0.4800 in one is the NO level of 0.5200 in the other: a YES ask at 0.5200.
    assert isinstance(noleg[0], BookSnapshot)
    assert isinstance(yes[0], BookSnapshot)
    assert (noleg[0].bids, noleg[0].asks) == (((4700, 300),), ((5200, 200),))
    assert (yes[0].bids, yes[0].asks) == (((4700, 300),), ((5200, 100),))
    # -3.00 YES at 0.4700, -2.00 NO at 0.4800; and -1.00, +2.00 NO at 0.5200.
    assert [(d.price, d.size, d.side, d.meaning) for d in noleg[1:3] if isinstance(d, BookDelta)] == [
        (4700, -300, Side.BID, SizeMeaning.CHANGE),
        (5200, -200, Side.ASK, SizeMeaning.CHANGE),
    ]
    assert [(d.price, d.size, d.side) for d in yes[1:] if isinstance(d, BookDelta)] == [
        (5200, -100, Side.ASK),
        (5200, 200, Side.ASK),
    ]
    # The second recording ended 101 s before the first began, with 2 contracts at the same ask: the same book.
    later, earlier = Book("t"), Book("t")
    later.apply(noleg[0])
    for record in yes:
        earlier.apply(record)
    assert earlier.levels() == later.levels()
    assert earlier.digest == later.digest
