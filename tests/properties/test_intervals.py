"""Every moment of every ticker, as the journal's intervals account for it, against a venue and a tape played by hand.

The model knows what was really lost: it sends numbered frames for two books and their trades, drops some, lets markets come
and go, ends sessions and days, and marks each moment of each ticker by what happened and nothing else.
"""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ssmd.domain import capture
from ssmd.domain.envelope import Envelope
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.projections.gaps import fold_gap
from ssmd.projections.intervals import fold_interval
from ssmd.projections.store import Page
from ssmd.projections.ticker_days import TickerDay, ticker_day, ticker_days
from ssmd.projections.views import Views
from ssmd.quality.coverage import Verdict
from ssmd.quality.coverage import verdict_at as span_verdict_at
from ssmd.quality.measure import ConnectionMeasure
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.control import AnyFact, Connected, DayMark, Disconnected, PreviousSession, encode_fact
from ssmd.services.quality_assessor import READER
from ssmd.streams.journal import RecordedEvent

Answer = TypeVar("Answer")
DAY: Final = 86_400 * 10**9
START: Final = 20_587 * DAY
SECOND: Final = 10**9
TICKERS: Final = ("A", "B", "C")
BOOK, TRADE = "orderbook_delta", "trade"
STEPS: Final = (1_000_000, 400_000_000, 2 * SECOND, 1_000 * SECOND, 7 * 3600 * SECOND)


class Rows:
    """Rows of one view in a dictionary."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}

    def get(self, key: str, row: type[Any]) -> Any:
        return self.rows.get(key)

    def put(self, key: str, value: msgspec.Struct) -> None:
        self.rows[key] = value

    def add(self, key: str, value: msgspec.Struct) -> None:
        assert key not in self.rows
        self.rows[key] = value

    def delete(self, key: str) -> None:
        self.rows.pop(key, None)


class Folded:
    """The views quality and gaps of one connection's facts, as `Views.rows`."""

    def __init__(self, facts: Sequence[capture.CaptureEvent]) -> None:
        self.views = {"quality": Rows(), "gaps": Rows()}
        for position, fact in enumerate(facts, 1):
            envelope = Envelope(
                "", "", capture.AGGREGATE, "kalshi.main", position, fact.ts_recv_ns, "", "", "", "", msgspec.Raw(b"{}")
            )
            recorded = RecordedEvent(position, envelope, b"")
            if isinstance(fact, capture.IntervalAssessed):
                fold_interval(self.views["quality"], recorded, fact)
            fold_gap(self.views["gaps"], recorded, fact)

    async def read(self, projection: str, *, keys: Sequence[str] = (), prefixes: Sequence[str] = ()) -> Page:
        rows = self.views[projection].rows
        found = {key for key in rows if key in keys or key.startswith(tuple(prefixes))}
        return Page(None, {key: msgspec.json.encode(rows[key]) for key in sorted(found)})  # type: ignore[arg-type] # no stamp here


class World:
    """Venue, tape and the truth. `marks`: (channel, ticker, moment) -> what holds from there to the next moment."""

    def __init__(self) -> None:
        self.now = START + 10 * 3600 * SECOND
        self.facts: list[capture.CaptureEvent] = []
        self.measure = ConnectionMeasure("main", START, START + DAY, READER)
        self.moments: list[int] = []
        self.truth: list[tuple[str, str, int, int, Verdict]] = []
        self.eased: list[tuple[str, str, int, int]] = []
        self.had: set[str] = set()
        self.before: PreviousSession | None = None
        self.missing: dict[tuple[str, str], int] = {}
        self.connect()

    # The tape

    def entry(self, kind: EntryKind, payload: bytes) -> None:
        self.n += 1
        entry = Entry(kind, self.n, self.now, payload)
        mapped = self.mapper.map(entry)
        self.facts += mapped.facts
        self.measure.take(self.mapper._session, entry, mapped)
        self.moments.append(self.now)

    def ctl(self, fact: AnyFact) -> None:
        self.entry(EntryKind.CTL, encode_fact(fact))

    def out(self, cmd: str, **params: Any) -> None:
        self.ids += 1
        self.entry(EntryKind.OUT, json.dumps({"id": self.ids, "cmd": cmd, "params": params}).encode())

    def frame(self, frame: dict[str, Any]) -> None:
        self.entry(EntryKind.IN, json.dumps(frame).encode() + b"\n")
        self.last_frame = self.now

    def counted(self, sid: int, frame: dict[str, Any]) -> None:
        """A frame with the next number; it proves what came before it on the sid, or shows that something is gone."""
        self.seq[sid] += 1
        if self.lost[sid]:
            self.jump(sid)
        self.frame(frame | {"sid": sid, "seq": self.seq[sid]})
        self.good[sid] = self.now

    # The truth

    def whole(self, channel: str, ticker: str) -> None:
        key = channel, ticker
        since = self.missing.pop(key, None)
        if since is not None:
            self.truth.append((channel, ticker, since, self.now, "missing"))
        if key not in self.since:
            self.since[key] = self.now
            # Those that come back within a second count from the last of them on.
            self.eased.append((channel, ticker, since or self.now, self.now + SECOND))

    def lose(self, channel: str, ticker: str, sid: int, until: int) -> None:
        """Nothing more is received of it; what was proven is proven, up to `until` the rest is not."""
        since = self.since.pop((channel, ticker), None)
        if since is None:
            return
        good = max(since, min(self.good[sid], until))
        self.truth.append((channel, ticker, since, good, "verified"))
        self.truth.append((channel, ticker, good, until, "unverifiable"))

    def jump(self, sid: int) -> None:
        self.lost[sid] = 0
        if sid == 1:
            self.awaited |= self.on
        for channel, ticker in list(self.since):
            if (channel == BOOK) == (sid == 1):
                self.lose(channel, ticker, sid, self.good[sid])
                if sid == 1:
                    self.missing[BOOK, ticker] = self.good[1]
                else:
                    self.truth.append((TRADE, ticker, self.good[2], self.now, "missing"))
                    self.since[TRADE, ticker] = self.now

    # What may happen

    def connect(self) -> None:
        self.mapper = KalshiMapper("kalshi", self.now)
        self.n = self.ids = self.last_frame = 0
        self.seq, self.lost, self.good = {1: 0, 2: 0}, {1: 0, 2: 0}, {1: 0, 2: 0}
        self.since: dict[tuple[str, str], int] = {}
        self.on: set[str] = {"A", "B"}
        self.awaited: set[str] = set()
        self.ctl(Connected("kalshi", "main", "wss://x", "kalshi-dollars", "i", 1, "1", "", self.before))
        self.out("subscribe", channels=[BOOK], market_tickers=["A", "B"], use_yes_price=False)
        self.frame({"type": "subscribed", "id": self.ids, "msg": {"channel": BOOK, "sid": 1}})
        self.out("subscribe", channels=[TRADE], market_tickers=["A", "B"])
        self.frame({"type": "subscribed", "id": self.ids, "msg": {"channel": TRADE, "sid": 2}})
        self.good = {1: self.now, 2: self.now}
        for ticker in ("A", "B"):
            self.since[TRADE, ticker] = self.now
            self.eased.append((TRADE, ticker, self.now, self.now + SECOND))

    def snapshot(self, ticker: str) -> None:
        if ticker in self.on:
            self.counted(1, {"type": "orderbook_snapshot", "msg": {"market_ticker": ticker, "market_id": "m"}})
            self.whole(BOOK, ticker)
            self.awaited.discard(ticker)
            # What a hole between sessions is for the whole of, ends with the book's snapshot.
            if (TRADE, ticker) in self.missing:
                self.truth.append((TRADE, ticker, self.missing.pop((TRADE, ticker)), self.now, "missing"))
                self.eased.append((TRADE, ticker, 0, self.now + SECOND))

    def delta(self, ticker: str) -> None:
        if (BOOK, ticker) in self.since:
            msg = {"market_ticker": ticker, "market_id": "m", "price_dollars": "0.4000", "delta_fp": "5.00", "side": "yes"}
            self.counted(1, {"type": "orderbook_delta", "msg": msg})

    def trade(self, ticker: str) -> None:
        if ticker in self.on:
            msg = {"trade_id": "t", "market_ticker": ticker, "yes_price_dollars": "0.3000", "count_fp": "2.50"}
            self.counted(2, {"type": "trade", "msg": msg})

    def lose_book(self, _: str) -> None:
        self.seq[1] += 1
        self.lost[1] += 1

    def lose_trade(self, _: str) -> None:
        self.seq[2] += 1
        self.lost[2] += 1

    def update(self, sid: int, action: str, ticker: str) -> None:
        self.out("update_subscription", sid=sid, action=action, market_tickers=[ticker])
        self.counted(sid, {"type": "ok", "id": self.ids})

    def add(self, ticker: str) -> None:
        if ticker not in self.on:
            self.update(1, "add_markets", ticker)
            self.update(2, "add_markets", ticker)
            self.on.add(ticker)
            self.since[TRADE, ticker] = self.now
            self.eased.append((TRADE, ticker, 0, self.now + SECOND))

    def drop(self, ticker: str) -> None:
        # One that is missing when it is dropped stays wanted: `MarketsLeft` ends that, and is the connector's.
        is_missing = ticker in self.awaited or (TRADE, ticker) in self.missing or self.lost[1]
        if ticker in self.on and len(self.on) > 1 and not is_missing:
            for sid, channel in ((1, BOOK), (2, TRADE)):
                self.update(sid, "delete_markets", ticker)
                self.lose(channel, ticker, sid, self.now)
                self.missing.pop((channel, ticker), None)
            self.on.discard(ticker)

    def day(self, _: str) -> None:
        self.ctl(DayMark("2026-05-14"))

    def pickle(self, _: str) -> None:
        self.mapper = pickle.loads(pickle.dumps(self.mapper))

    def session(self, _: str) -> None:
        self.end()
        self.now += SECOND
        self.connect()

    def is_eased(self, channel: str, ticker: str, at: int) -> bool:
        return any(one[:2] == (channel, ticker) and one[2] <= at < one[3] for one in self.eased)

    def end(self) -> None:
        last = self.last_frame
        for channel, ticker in list(self.since):
            self.lose(channel, ticker, 1 if channel == BOOK else 2, last)
        for (channel, ticker), since in self.missing.items():
            self.truth.append((channel, ticker, since, self.now, "missing"))
        self.missing = {(channel, ticker): last for ticker in self.on for channel in (BOOK, TRADE)}
        self.ctl(Disconnected("connection-lost", last_recv_ns=last))
        self.measure.end(self.mapper, is_last=False)
        self.before = PreviousSession(self.mapper._session, self.n, last, "connection-lost", "")


def verdict_at(day: TickerDay | None, at: int) -> str:
    return next((one.verdict for one in (day.intervals if day else ()) if one.start_ns <= at < one.end_ns), "")


WHAT: Final = (
    World.snapshot, World.snapshot, World.snapshot, World.delta, World.delta, World.delta, World.trade, World.lose_book,
    World.lose_trade, World.add, World.drop, World.day, World.pickle, World.session,
)  # fmt: skip
_step = st.tuples(st.sampled_from(STEPS[:4]), st.sampled_from(WHAT), st.sampled_from(TICKERS))


@given(st.lists(_step, max_size=40))
def test_every_moment_is_accounted_for_as_it_was(steps: list[tuple[int, Callable[[World, str], None], str]]) -> None:
    world = World()
    for pause, what, ticker in steps:
        world.now += pause
        what(world, ticker)
    world.now += SECOND
    world.end()
    views, date = Views(Folded(world.facts), 0, "journal", {}), "2026-05-14"
    edges = sorted({START, *world.moments, *(edge for one in world.truth for edge in one[2:4])})
    world.measure.close()
    for channel in (BOOK, TRADE):
        measured = world.measure.spans(channel)
        everybody = {
            day.ticker: day for day in at_once(ticker_days(views, "kalshi", date, channel=channel, known_ns=world.now))
        }
        for ticker in TICKERS:
            day = at_once(ticker_day(views, "kalshi", date, ticker, channel=channel, known_ns=world.now))
            assert everybody.get(ticker) == day
            check_sums(day)
            for at in edges:
                found = verdict_at(day, at)
                check(world, channel, ticker, at, found)
                # The day's quality, which is measured from the raw lines, is of the same mind.
                quality = span_verdict_at(measured.get(ticker, ()), at) or ""
                # (It shows only those of whom there was anything on the channel.)
                is_shown = ticker in measured and at < world.measure.counts.last_ns
                agrees = found == quality or world.is_eased(channel, ticker, at)
                agrees |= not is_shown and found in {"", "missing"}
                assert agrees, (channel, ticker, (at - START) / SECOND, found, quality)


def at_once(question: Coroutine[Any, Any, Answer]) -> Answer:
    """The answer of a coroutine that waits for nothing."""
    try:
        question.send(None)
    except StopIteration as done:
        answer: Answer = done.value
        return answer
    raise AssertionError("it waits")


def check_sums(day: TickerDay | None) -> None:
    """None overlaps, equal neighbours are one, and the sums are those of the list."""
    if day is None:
        return
    assert all(one.start_ns < one.end_ns for one in day.intervals)
    for one, after in itertools.pairwise(day.intervals):
        assert one.end_ns < after.start_ns or (
            one.end_ns == after.start_ns and (one.verdict, one.cause) != (after.verdict, after.cause)
        )
    total = day.verified_ns + day.unverifiable_ns + day.missing_ns + day.repaired_ns
    assert total == sum(one.end_ns - one.start_ns for one in day.intervals)


def check(world: World, channel: str, ticker: str, at: int, found: str) -> None:
    held = {one[4] for one in world.truth if one[:2] == (channel, ticker) and one[2] <= at < one[3]}
    wanted = next((one for one in ("missing", "unverifiable", "verified") if one in held), "")
    told = (channel, ticker, (at - START) / SECOND, found, wanted)
    if found == "verified":
        assert wanted == "verified", told
    elif wanted == "missing":
        assert found == "missing", told
    elif wanted and not world.is_eased(channel, ticker, at):
        assert found == wanted, told
