"""Lose every sequenced frame once, one at a time: exactly one hole of exactly that frame, and the book comes back whole.

Here mapper and session talk to a venue: what the session asks for is answered with the true book at that instant, and
what follows is numbered on. Once with the genuine recording of a market's close, once with the simulated venue.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections import deque
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import zstandard

from ssmd.domain import capture
from ssmd.exchanges.adapter import Subscription
from ssmd.exchanges.book import Book
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.exchanges.kalshi.session import KalshiSession
from ssmd.exchanges.kalshi.simulated.order_flow import MarketModel, ModelSettings
from ssmd.exchanges.kalshi.simulated.subscriptions import Subscriptions
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.control import Connected, Disconnected, encode_fact
from ssmd.schemas.records import BookDelta, BookSnapshot, Gap, Record

CLOSE = Path(__file__).resolve().parents[4] / "shared" / "captures" / "kalshi-btc15m-close-2026-05-14.jsonl.zst"
TICKER = "KXBTC15M-26MAY140045-45"
CHANNELS = ("orderbook_delta", "ticker", "trade", "market_lifecycle_v2")
START_NS = 1_795_363_200_000_000_000


class Client:
    """What the connector does with one connection, without sockets: tape numbers, mapper, session, books."""

    def __init__(self, subscription: Subscription) -> None:
        self.mapper = KalshiMapper("kalshi", 7)
        self.session = KalshiSession(subscription)
        self.n = 0
        self.records: list[Record] = []
        self.facts: list[Any] = []
        self.books: dict[str, Book] = {}
        self.entry(EntryKind.CTL, encode_fact(Connected("kalshi", "main", "wss://x", wire="kalshi-dollars")), START_NS)

    def entry(self, kind: EntryKind, payload: bytes, ts_ns: int) -> None:
        self.n += 1
        mapped = self.mapper.map(Entry(kind, self.n, ts_ns, payload))
        self.records += mapped.records
        self.facts += mapped.facts
        for record in mapped.records:
            if isinstance(record, (BookDelta, BookSnapshot)):  # a tuple is twice as quick as a union, and this is all it does
                book = self.books.get(record.ticker)
                if book is None:
                    book = self.books[record.ticker] = Book(record.ticker)
                book.apply(record)

    def say(self, commands: Iterable[bytes], ts_ns: int) -> list[bytes]:
        said = list(commands)
        for command in said:
            self.entry(EntryKind.OUT, command, ts_ns)
        return said

    def hear(self, frame: bytes, ts_ns: int) -> list[bytes]:
        """Take one frame; the commands said because of it."""
        self.entry(EntryKind.IN, frame, ts_ns)
        return self.say(self.session.receive(frame), ts_ns)

    def gaps(self, what: type) -> list[Any]:
        return [fact for fact in self.facts if isinstance(fact, what)]


# The genuine close


def close_frames() -> list[tuple[int, bytes]]:
    if not CLOSE.exists():
        pytest.skip("the genuine capture of a close is not here: it may not be redistributed")
    with CLOSE.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as reader:
        lines = [msgspec.json.decode(line, type=dict[str, msgspec.Raw]) for line in reader.read().splitlines()]
    return [(int(bytes(line["ts_recv_ns"])), bytes(line["frame"]) + b"\n") for line in lines]


class Change(NamedTuple):
    """What a frame does to the venue's own book: (yes, no) levels of a snapshot, or one level's change; else nothing."""

    snapshot: tuple[dict[str, int], dict[str, int]] | None = None
    side: int = 0
    price: str = ""
    size: int = 0


@cache
def change_of(frame: bytes) -> Change:
    """Sizes in 1/100 by the text of their price, independent of the code under test."""
    told = json.loads(frame)
    msg = told["msg"]
    if told["type"] == "orderbook_snapshot":
        yes, no = (
            {price: round(float(size) * 100) for price, size in msg.get(name, [])}
            for name in ("yes_dollars_fp", "no_dollars_fp")
        )
        return Change((yes, no))
    if told["type"] == "orderbook_delta":
        return Change(None, int(msg["side"] != "yes"), msg["price_dollars"], round(float(msg["delta_fp"]) * 100))
    return Change()


def apply_truth(book: tuple[dict[str, int], dict[str, int]], frame: bytes) -> None:
    """The venue's own book: (yes, no) price text -> size in 1/100."""
    change = change_of(frame)
    if change.snapshot is not None:
        for side, levels in zip(book, change.snapshot, strict=True):
            side.clear()
            side.update(levels)
    elif change.price:
        side = book[change.side]
        size = side.pop(change.price, 0) + change.size
        if size:
            side[change.price] = size


def snapshot_frame(book: tuple[dict[str, int], dict[str, int]], seq: int) -> bytes:
    msg: dict[str, Any] = {"market_ticker": TICKER, "market_id": "m"}
    for side, name in zip(book, ("yes_dollars_fp", "no_dollars_fp"), strict=True):
        if side:
            msg[name] = [[price, f"{size // 100}.{size % 100:02d}"] for price, size in sorted(side.items())]
    return json.dumps({"type": "orderbook_snapshot", "id": 1, "sid": 2, "seq": seq, "msg": msg}).encode()


def levels_of(book: Book) -> tuple[dict[int, int], dict[int, int]]:
    bids, asks = book.levels()
    return dict(bids), dict(asks)


def levels_of_truth(book: tuple[dict[str, int], dict[str, int]]) -> tuple[dict[int, int], dict[int, int]]:
    yes, no = ({round(float(price) * 10_000): size for price, size in side.items()} for side in book)
    return yes, {10_000 - price: size for price, size in no.items()}


@cache
def renumbered(frame: bytes, by: int) -> bytes:
    return re.sub(rb'"seq":(\d+)', lambda found: b'"seq":%d' % (int(found.group(1)) + by), frame) if by else frame


def finish(client: Client, frames: Sequence[tuple[int, bytes]], book: tuple[dict[str, int], dict[str, int]]) -> None:
    """Play the rest to the client; the venue answers what it asks with the true book."""
    added = 0
    for ts_ns, frame in frames:
        apply_truth(book, frame)
        sent = renumbered(frame, added)
        commands = client.hear(sent, ts_ns)
        if commands:
            assert [json.loads(command)["params"] for command in commands] == [
                {"sid": 2, "action": "get_snapshot", "market_tickers": [TICKER]}
            ]
            added += 1
            seq = json.loads(sent)["seq"] + 1
            assert client.hear(snapshot_frame(book, seq), ts_ns + 1) == []


def test_each_frame_of_the_genuine_close_lost_alone_is_one_hole_of_it_and_the_book_is_whole_again() -> None:
    frames = close_frames()
    seqs = [json.loads(frame).get("seq", 0) for _, frame in frames]
    assert [seq for seq in seqs if seq] == list(range(1, 637))
    clean = Client(Subscription(("orderbook_delta", "ticker"), (TICKER,)))
    begun, truth = copy.deepcopy(clean), ({}, {})  # type: tuple[Client, tuple[dict[str, int], dict[str, int]]]
    finish(clean, frames, ({}, {}))
    assert not clean.gaps(capture.GapOpened)
    last_good_ns = frames[1][0]
    looked_at = 0
    for place, (ts_ns, frame) in enumerate(frames):
        seq = seqs[place]
        if seq and seq < 636:
            client, book = copy.deepcopy(begun), copy.deepcopy(truth)
            apply_truth(book, frame)
            rest = frames[place + 1 :]
            finish(client, rest, book)
            (opened,), (closed,) = client.gaps(capture.GapOpened), client.gaps(capture.GapClosed)
            told = (opened.cause, opened.sid, opened.channel, opened.seq_expected, opened.seq_found, opened.start_ns)
            assert told == ("sequence-jump", 2, "orderbook_delta", seq, seq + 1, last_good_ns)
            # It ends with the snapshot that was asked for, right behind the frame that showed it; nothing else is amiss.
            next_ns, shows = next((at, one) for at, one in frames[place + 1 :] if b'"seq":' in one)
            # (The frame that shows the last of them is a snapshot itself.)
            end_ns = next_ns if b'"orderbook_snapshot"' in shows else next_ns + 1
            assert (closed.gap_id, closed.end_ns, closed.tickers) == (opened.gap_id, end_ns, (TICKER,))
            in_band = [record.state for record in client.records if isinstance(record, Gap)]
            assert in_band == ["opened", "closed"]
            assert levels_of(client.books[TICKER]) == levels_of_truth(book)
            assert not client.gaps(capture.DriftDetected)
            check_missing(client, opened, closed)
            looked_at += 1
        if seq:
            last_good_ns = ts_ns
        apply_truth(truth, frame)
        begun.hear(frame, ts_ns)
        begun.records.clear()
    assert looked_at == 635
    lost_last = Client(Subscription(("orderbook_delta", "ticker"), (TICKER,)))
    finish(lost_last, frames[:-1], ({}, {}))
    check_tail(lost_last, last_sequenced_ns=max(at for (at, _), seq in zip(frames[:-1], seqs[:-1], strict=True) if seq))


def check_missing(client: Client, opened: capture.GapOpened, closed: capture.GapClosed) -> None:
    """The account of it has exactly the hole; before it all is verified from the book's first snapshot on."""
    told = [one for one in client.gaps(capture.IntervalAssessed) if one.channel == "orderbook_delta"]
    (missing,) = (one for one in told if one.verdict == "missing")
    assert (missing.start_ns, missing.end_ns, missing.gap_id) == (opened.start_ns, closed.end_ns, opened.gap_id)
    assert missing.evidence == opened.evidence
    assert {one.verdict for one in told if one is not missing} <= {"verified"}
    assert all(one.end_ns <= opened.start_ns or one.start_ns >= closed.end_ns for one in told if one is not missing)


def check_tail(client: Client, *, last_sequenced_ns: int) -> None:
    """The last frame lost shows nowhere in the session: what covers it is the hole that its end opens."""
    assert not client.gaps(capture.GapOpened)
    longer = copy.deepcopy(client)
    longer.entry(EntryKind.CTL, encode_fact(Disconnected("connection-lost", last_recv_ns=last_sequenced_ns + 9)), START_NS)
    (tail,) = (one for one in longer.gaps(capture.IntervalAssessed) if one.cause == "tail")
    assert (tail.channel, tail.verdict, tail.start_ns) == ("orderbook_delta", "unverifiable", last_sequenced_ns)
    assert tail.end_ns == last_sequenced_ns + 9
    client.entry(EntryKind.CTL, encode_fact(Disconnected("connection-lost", last_recv_ns=last_sequenced_ns)), START_NS)
    (opened,) = client.gaps(capture.GapOpened)
    assert (opened.cause, opened.start_ns) == ("connection-lost", last_sequenced_ns)
    # Verified ends with the last counted frame, and quotes, which nobody counts, never are.
    told = {(one.channel, one.verdict): one for one in client.gaps(capture.IntervalAssessed)}
    assert told["orderbook_delta", "verified"].end_ns == last_sequenced_ns
    assert {verdict for channel, verdict in told if channel == "ticker"} == {"unverifiable"}
    assert ("orderbook_delta", "missing") not in told


# The simulated venue


class Venue:
    """The simulated venue, deterministic: every run begins the same."""

    def __init__(self, steps: int) -> None:
        self.model = MarketModel(ModelSettings(seed=11, markets=6, rate=50, start_ns=START_NS, roll_s=4, lead_s=2, depth=4))
        self.subscriptions = Subscriptions(self.model)
        self.steps = steps

    def run(self, lost: int = -1) -> tuple[Client, list[bytes], int]:
        """All of it, frame number `lost` not delivered; the client, all frames the venue sent, when they ended."""
        tickers = tuple(self.model.markets)
        client = Client(Subscription(CHANNELS, tickers))
        sent: list[bytes] = []

        wire: deque[bytes] = deque()

        def pump(commands: Iterable[bytes] = ()) -> None:
            for command in commands:
                wire.extend(self.subscriptions.command(command))
            while wire:
                frame = wire.popleft()
                sent.append(frame)
                if len(sent) - 1 != lost:
                    # Frames on their way come before the answers to what they cause.
                    for command in client.hear(frame, self.model.now_ns):
                        wire.extend(self.subscriptions.command(command))

        pump(client.say(client.session.open(), START_NS))
        for _ in range(self.steps):
            for message in self.model.step():
                frame = self.subscriptions.publish(message)
                if frame is not None:
                    wire.append(frame)
            pump()
        return client, sent, self.model.now_ns

    def is_whole(self, client: Client) -> bool:
        """Whether the client's books are the venue's."""
        for ticker in self.subscriptions.by_channel["orderbook_delta"].tickers or ():
            market = self.model.markets[ticker]
            bids = tuple((price, size) for price, size in sorted(market.yes.items(), reverse=True))
            asks = tuple((10_000 - price, size) for price, size in sorted(market.no.items(), reverse=True))
            found = client.books[ticker].levels() if ticker in client.books else ((), ())
            if (tuple(tuple(one) for one in found[0]), tuple(tuple(one) for one in found[1])) != (bids, asks):
                return False
        return True


STEPS = 90


def test_each_frame_of_the_simulated_venue_lost_alone_is_one_hole_of_its_subscription() -> None:
    venue = Venue(STEPS)
    clean, frames, _ = venue.run()
    assert venue.is_whole(clean)
    assert not clean.gaps(capture.GapOpened)
    envelopes = [json.loads(frame) for frame in frames]
    channels = {one["msg"]["sid"]: one["msg"]["channel"] for one in envelopes if one["type"] == "subscribed"}
    last_of_sid = {one["sid"]: number for number, one in enumerate(envelopes) if one.get("seq")}
    kinds: set[tuple[str, str]] = set()
    for number, envelope in enumerate(envelopes):
        venue = Venue(STEPS)
        client, _, _ = venue.run(lost=number)
        opened, closed = client.gaps(capture.GapOpened), client.gaps(capture.GapClosed)
        sid, seq = envelope.get("sid", 0), envelope.get("seq", 0)
        kinds.add((envelope["type"], channels.get(sid, "")))
        if not seq or number == last_of_sid[sid]:
            # Nothing proves it: it is unverifiable, never a hole of something else.
            assert not opened, (number, envelope)
            continue
        (one,) = opened
        assert (one.cause, one.sid, one.channel) == ("sequence-jump", sid, channels[sid])
        assert (one.seq_expected, one.seq_found) == (seq, seq + 1)
        assert {fact.gap_id for fact in closed} == {one.gap_id}
        assert sorted({ticker for fact in closed for ticker in fact.tickers}) == sorted(one.tickers)
        assert venue.is_whole(client), (number, envelope)
    assert {kind for kind, _ in kinds} >= {"orderbook_snapshot", "orderbook_delta", "trade", "ticker", "market_lifecycle_v2"}


def content_digest(records: Iterable[Record]) -> str:
    """Over all records in order, without session, n, index and receive time."""
    state = hashlib.sha256()
    for record in records:
        if not isinstance(record, Gap):
            state.update(repr(msgspec.structs.replace(record, session=0, n=0, index=0, ts_recv_ns=0)).encode())
    return state.hexdigest()


@pytest.mark.parametrize("late", [0, 1, 5, 16])
def test_frames_that_come_twice_at_the_socket_change_no_record(late: int) -> None:
    """Every sequenced frame again, at once or up to 16 frames later; a ticker (no number, conflated) at once."""
    clean, frames, _ = Venue(STEPS).run()
    client = Client(Subscription(CHANNELS, tuple(Venue(STEPS).model.markets)))
    client.say(client.session.open(), START_NS)
    for number, frame in enumerate(frames):
        client.hear(frame, START_NS)
        if number >= late:
            again = frames[number - late]
            is_known = b'"seq":' in again or (late == 0 and b'"ticker"' in again[:18])
            if is_known:
                assert client.hear(again, START_NS) == []
    assert content_digest(client.records) == content_digest(clean.records)
    assert not client.gaps(capture.GapOpened)
    assert {fact.what for fact in client.gaps(capture.DriftDetected)} <= {"duplicate-sequence", "duplicate-quote"}


def test_the_genuine_close_twice_frame_by_frame_gives_the_same_records() -> None:
    frames = close_frames()
    clean, twice = (Client(Subscription(("orderbook_delta", "ticker"), (TICKER,))) for _ in range(2))
    for ts_ns, frame in frames:
        clean.hear(frame, ts_ns)
        twice.hear(frame, ts_ns)
        if b'"subscribed"' not in frame:
            twice.hear(frame, ts_ns + 1)
    assert content_digest(twice.records) == content_digest(clean.records)
