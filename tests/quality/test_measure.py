"""Every planted fault is found and counted exactly; durations are those worked out by hand beside them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ssmd.quality.coverage import Repair, Span, sums
from ssmd.quality.report import QualityReport, Told, assemble

NOON = 1_778_760_000_000_000_000
SECOND = 1_000_000_000
A, B = "A-1", "B.2"


def at(seconds: float) -> int:
    return NOON + round(seconds * SECOND)


def report(day: Any, **told: Any) -> QualityReport:
    return assemble("kalshi", "2026-05-14", [day.measure()], Told(None, "not asked", **told))


def standing(found: QualityReport, name: str) -> tuple[str, str]:
    (measure,) = (one for one in found.measures if one.name == name)
    return measure.standing, measure.value


def quiet_day(day: Any) -> None:
    """A from 1 s to 100 s without a fault, B from 2 s."""
    day.connect(0, (A, B))
    day.grid(0.5, A)
    day.grid(0.5, B)
    day.snapshot(1, A)
    day.snapshot(2, B)
    for second in range(3, 100):
        day.delta(second, A if second % 2 else B, "0.29", "1")
    day.trade(99.5, A, "t1")
    day.delta(100, A, "0.29", "1")


def test_a_day_without_a_fault(day: Any) -> None:
    quiet_day(day)
    found = report(day)
    spans = {one.ticker: one.spans for one in found.tickers}
    assert spans == {A: (Span(at(1), at(100), "verified"),), B: (Span(at(2), at(100), "verified"),)}
    assert (found.verified_ns, found.unverifiable_ns, found.missing_ns, found.repaired_ns) == (197 * SECOND, 0, 0, 0)
    assert (found.first_ns, found.last_ns) == (at(0), at(100))
    assert [(part.name, part.ppm) for part in found.parts] == [
        ("coverage", 1_000_000), ("sequence", 1_000_000), ("records", 1_000_000), ("books", 1_000_000), ("trades", None),
    ]  # fmt: skip
    assert found.score_ppm == 1_000_000
    assert found.reasons == ("trades not run: not asked",)
    assert standing(found, "trade reconciliation") == ("not run", "not run: not asked")
    assert [(one.channel, one.first_seq, one.last_seq, one.is_proven) for one in found.sequences] == [
        ("orderbook_delta", 1, 100, True), ("trade", 1, 1, True), ("market_lifecycle_v2", 1, 2, True),
    ]  # fmt: skip


def test_a_hole_after_a_lost_frame_lasts_until_the_next_snapshot(day: Any) -> None:
    day.connect(0, (A, B))
    day.snapshot(1, A)
    day.snapshot(2, B)
    day.delta(10, A, "0.29", "1")
    day.skip(1, 3)
    day.delta(14, A, "0.28", "1")  # three frames are missing, of A or B: both are suspect since 10 s
    day.snapshot(20, A)
    day.snapshot(25, B)
    day.delta(30, A, "0.27", "1")
    found = report(day)
    assert {one.ticker: one.spans for one in found.tickers} == {
        A: (Span(at(1), at(10), "verified"), Span(at(10), at(20), "missing"), Span(at(20), at(30), "verified")),
        B: (Span(at(2), at(10), "verified"), Span(at(10), at(25), "missing"), Span(at(25), at(30), "verified")),
    }
    assert standing(found, "sequence proof")[1].startswith("1 of 1 counts proven, 7 frames in order, 3 missing")
    # coverage: verified 9+10 + 8+5 = 32 s of 57 s; sequence: 7 of 10
    assert [part.ppm for part in found.parts[:2]] == [32_000_000 // 57, 700_000]


def test_a_reconnect_is_missing_between_last_frame_and_new_snapshot(day: Any) -> None:
    day.connect(0, (A,), ("orderbook_delta",))
    day.snapshot(1, A)
    day.delta(10, A, "0.29", "1")
    day.disconnect(12, 10)
    day.connect(20, (A,), ("orderbook_delta",))
    day.snapshot(21, A)
    day.delta(31, A, "0.28", "1")
    measure = day.measure()
    assert measure.spans()[A] == (
        Span(at(1), at(10), "verified"), Span(at(10), at(21), "missing"), Span(at(21), at(31), "verified"),
    )  # fmt: skip
    (gap_id,) = {claim.gap_id for claim in measure.account.of(A) if claim.verdict == "missing"}
    filled = measure.spans(repairs=[Repair(gap_id, at(12), at(15), frozenset({A}))])[A]
    assert [span.verdict for span in filled] == ["verified", "missing", "repaired", "missing", "verified"]
    assert sums(filled) == {"verified": 19 * SECOND, "unverifiable": 0, "missing": 8 * SECOND, "repaired": 3 * SECOND}
    other = measure.spans(repairs=[Repair(gap_id, at(12), at(15), frozenset({B}))])[A]
    assert sums(other)["repaired"] == 0


def test_a_session_that_nobody_ended_gave_nothing_behind_its_last_frame(day: Any) -> None:
    day.connect(0, (A,), ("orderbook_delta",))
    day.snapshot(1, A)
    day.delta(10, A, "0.29", "1")
    day.connect(40, (B,), ("orderbook_delta",))  # no end of the first is on the tape
    day.snapshot(41, B)
    day.delta(50, B, "0.29", "1")
    assert day.measure().spans() == {A: (Span(at(1), at(10), "verified"),), B: (Span(at(41), at(50), "verified"),)}


def test_without_its_beginning_a_count_proves_nothing(day: Any) -> None:
    day.connect(0, (A,), ())
    day.skip(1, 41)
    day.snapshot(1, A)
    day.delta(5, A, "0.29", "1")
    found = report(day)
    assert [one.spans for one in found.tickers] == [(Span(at(1), at(5), "unverifiable"),)]
    assert found.parts[0].ppm == 500_000
    assert standing(found, "sequence proof")[0] == "attention"


def test_a_channel_that_is_not_counted_is_never_verified(day: Any) -> None:
    day.connect(0, (A,), ("ticker",))
    body = {"market_ticker": A, "price_dollars": "0.3000", "yes_bid_dollars": "0.2900", "yes_ask_dollars": "0.3100"}
    day.frame(2, "ticker", 1, body)
    day.clock_step(10)
    found = report(day)
    assert [(one.channel, one.spans) for one in found.tickers] == [("ticker", (Span(at(0), at(10), "unverifiable"),))]
    assert (found.verified_ns, found.parts[0].ppm, found.parts[1].ppm) == (0, 500_000, None)


PLANTED = (
    "duplicate",
    "late",
    "negative",
    "crossed",
    "crossed-briefly",
    "off-grid",
    "trade-twice",
    "unmapped",
    "silence",
    "clock",
)


def plant(day: Any, faults: list[str], dice: random.Random) -> dict[str, int]:  # noqa: C901 - one case a fault
    """A day of one ticker with `faults` in that order; how many of each there are."""
    counts = dict.fromkeys(PLANTED, 0)
    day.connect(0, (A,))
    day.grid(0.1, A)
    day.snapshot(1, A)
    day.trade(1.5, A, "t0")
    now, trades = 2.0, 0
    for fault in faults:
        counts[fault] += 1
        now = round(now + dice.randrange(1, 5), 3)
        match fault:
            case "duplicate":
                last = day._seq[1]
                day.delta(now, A, "0.11", "9", seq=last)
            case "late":
                day.skip(1, 1)
                missed = day._seq[1]
                day.delta(now, A, "0.12", "1")
                day.delta(now + 0.1, A, "0.12", "1", seq=missed)
            case "negative":
                day.delta(now, A, "0.29", "-1")
            case "crossed":
                day.delta(now, A, "0.45", "1")  # over the ask at 0.40
                day.delta(now + 0.9, A, "0.20", "1")
                now += 1.5
                day.delta(now, A, "0.45", "-1")
            case "crossed-briefly":
                day.delta(now, A, "0.45", "1")
                day.delta(now + 0.25, A, "0.45", "-1")
            case "off-grid":
                day.delta(now, A, "0.2950", "1")
            case "trade-twice":
                trades += 1
                day.trade(now, A, "t0")
            case "unmapped":
                day.delta(now, A, "no price", "1")
            case "silence":
                now += 61.5
                day.trade(now, A, f"u{now}")
            case "clock":
                day.clock_step(now)
        now = round(now + 1, 3)
        day.snapshot(now, A)  # what came before is over
    return counts


@pytest.mark.parametrize("seed", range(12))
def test_every_planted_fault_is_counted_exactly(day: Any, seed: int) -> None:
    dice = random.Random(seed)
    counts = plant(day, [dice.choice(PLANTED) for _ in range(60)], dice)
    measure = day.measure()
    found = assemble("kalshi", "2026-05-14", [measure], Told(None, "not asked"))
    (one,) = found.tickers
    books = next(proof for proof in found.sequences if proof.channel == "orderbook_delta")
    counted = measure.counts
    assert {
        "duplicate": books.duplicates,
        "late": books.late,
        "negative": one.negative,
        "crossed": one.crossed_long,
        "crossed-briefly": one.crossed - one.crossed_long,
        "off-grid": one.off_grid,
        "trade-twice": one.duplicate_trades,
        "unmapped": counted.unmapped,
        "silence": counted.silences,
        "clock": counted.clock_steps,
    } == counts
    assert books.missing == 0
    flagged = {name for name, *_ in ((m.name, m.standing) for m in found.measures if m.standing == "attention")}
    names = {
        "duplicate": "duplicates", "late": "out of order", "negative": "negative levels", "crossed": "crossed books",
        "off-grid": "price grid", "trade-twice": "trades twice", "unmapped": "unmapped frames", "silence": "staleness",
        "clock": "clock",
    }  # fmt: skip
    assert {names[fault] for fault, count in counts.items() if count and fault in names} <= flagged
    assert not {names[fault] for fault, count in counts.items() if not count and fault in names} & flagged


def test_crossed_time_is_measured(day: Any) -> None:
    day.connect(0, (A,), ("orderbook_delta",))
    day.snapshot(1, A)  # bid 0.30, ask 0.40
    day.delta(10, A, "0.40", "1")  # locked counts too
    day.delta(10.25, A, "0.40", "-1")
    day.delta(20, A, "0.41", "1")
    day.delta(20.5, A, "0.41", "-1")
    day.delta(41, A, "0.29", "1")
    found = report(day)
    (one,) = found.tickers
    assert (one.crossed, one.crossed_ns, one.crossed_long) == (2, 750_000_000, 0)
    books = found.parts[3]
    assert (books.ppm, books.how) == (
        1_000_000 * (40_000 - 750) // 40_000,
        "1 - crossed 750000 us / 40000000 us of covered books",
    )


def test_silence_is_what_is_longer_than_the_threshold(day: Any) -> None:
    day.connect(0, (A,), ("orderbook_delta",))
    day.snapshot(1, A)
    day.delta(61, A, "0.29", "1")  # exactly the threshold: no silence
    day.delta(131.5, A, "0.29", "1")
    day.disconnect(140, 131.5)
    day.connect(500, (A,), ("orderbook_delta",))  # not connected is not silent
    day.snapshot(501, A)
    counts = day.measure().counts
    assert (counts.silences, counts.silent_ns, counts.longest_silence_ns) == (1, round(10.5 * SECOND), round(70.5 * SECOND))


def test_what_the_raw_archive_lacks_is_missing_time(day: Any) -> None:
    day.connect(0, (A,), ("orderbook_delta",))
    day.snapshot(1, A)
    day.delta(10, A, "0.29", "1")
    measure = day.measure()
    measure.lost(day.sessions[0][0], 7, at(30))
    measure.counts.last_ns = at(40)
    assert measure.counts.entries_missing == 7
    assert measure.spans()[A] == (Span(at(1), at(10), "verified"), Span(at(10), at(30), "missing"))


def test_a_day_before_is_read_but_not_counted(day: Any) -> None:
    early = -12 * 3600 - 100.0  # the session began 100 s before midnight
    day.connect(early, (A,), ("orderbook_delta",))
    day.snapshot(early + 1, A)
    day.delta(early + 160, A, "0.29", "1")
    day.delta(early + 200, A, "0.28", "1")
    found = report(day)
    (one,) = found.tickers
    midnight = at(early + 100)
    assert (found.first_ns, found.last_ns) == (midnight + 60 * SECOND, midnight + 100 * SECOND)
    assert one.spans == (Span(found.first_ns, found.last_ns, "verified"),)
    assert one.records == 2
