"""Given events, when a command, then events: one walk through every aggregate, and every refusal by its rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from ssmd.domain import (
    archive,
    capture,
    client,
    dead_letter,
    feedback,
    key,
    listing,
    projection,
    secmaster_sync,
    trading_day,
)
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.decider import Decider, tag_of
from ssmd.errors import Rejected

DATE = "2026-05-14"
FP, FP2 = "0123abcd", "89abcdef"
Step = tuple[Any, Sequence[msgspec.Struct] | str]
"""A command, and the events it comes to, or the rule that refuses it."""

MARKET = listing.Market("KX-1", series="KX", title="one", close_ns=9, attributes={"strike": "5"})
LATER = listing.Market("KX-1", series="KX", title="uno", close_ns=10, attributes={"cap": "7"})
MADE = projection.Made("g2", 2, 40, "ab" * 32, 7, 0)
FIRST = projection.Made("g1", 1, 12, "aa", 3, 0)
BEFORE = projection.Made("g1", 1, 40, "cd" * 32, 7, 0)
QUALITY = archive.QualityAssessed(1, 999_000, 3, 10, 0, 1, 0, 77, ("1 gap",))
FILE = archive.SegmentFile("k", "trade", 1, "ab", 2, "cd", 3, 4, 5)
LATE = archive.SealSegment(2, "i", 1, 9, "m", (FILE,), ())
LATE_SEALED = archive.SegmentSealed("i", 1, 9, "m", (FILE,), ())


def place(n: int) -> capture.TapePlace:
    return capture.TapePlace(7, n, 0)


def told(n: int, event: type[capture.CaptureEvent], *fields: Any) -> tuple[capture.RecordFact, list[capture.CaptureEvent]]:
    found = event(7, n, 0, 1000 + n, *fields)
    return capture.RecordFact(place(n), found), [found]


WALKS: list[tuple[Decider[Any, Any, Any], list[Step]]] = [
    (
        trading_day.DECIDER,
        [
            (trading_day.RecordLate("start", 5), "phase-not-begun"),
            (trading_day.ForceEndDay("x"), "day-not-started"),
            (trading_day.RecoverDay(), "day-not-running"),
            (trading_day.OpenDay(DATE, 9, 5), "day-ends-before-it-starts"),
            (trading_day.OpenDay(DATE, 5, 9), [trading_day.Opened(DATE, 5, 9)]),
            (trading_day.OpenDay(DATE, 6, 9), "day-already-open"),
            (trading_day.RecordMissed(DATE, 5, "no worker"), [trading_day.Missed(DATE, 5, "no worker")]),
            (trading_day.EndDay(DATE), "day-not-started"),
            (trading_day.StartDay(DATE, "by hand"), [trading_day.StartRequested(DATE, "by hand")]),
            (trading_day.RecordMissed(DATE, 5), "day-not-missed"),
            (trading_day.RecordLate("start", 5), [trading_day.Late("start", 5)]),
            (trading_day.FailDay("no disk"), [trading_day.Errored("starting", "no disk")]),
            (trading_day.RecoverDay("disk is back"), [trading_day.Recovered("starting", "disk is back")]),
            (trading_day.ActivateDay(), [trading_day.Activated()]),
            (trading_day.FailDay("no disk"), [trading_day.Errored("active", "no disk")]),
            (trading_day.AbandonDay("no disk", 3), [trading_day.Failed("active", "no disk", 3)]),
            (trading_day.FailDay("no disk"), "day-not-running"),
            (trading_day.RecoverDay("disk is back"), [trading_day.Recovered("active", "disk is back")]),
            (trading_day.RecordLate("end", 9), "phase-not-begun"),
            (trading_day.ForceEndDay("maintenance"), [trading_day.ForceEnded("active", "maintenance")]),
            (trading_day.EndDay(DATE), []),
            (trading_day.StartDay(DATE), "day-force-ended"),
        ],
    ),
    (
        capture.DECIDER,
        [
            told(1, capture.Started, "host-1", 2, "0.1"),
            (told(2, capture.Started, "host-0", 1, "0.1")[0], "capture-fenced"),
            told(
                3,
                capture.IntervalAssessed,
                1,
                "trade",
                "verified",
                "",
                "",
                1,
                5,
                1,
                1,
                9,
                "ab" * 32,
                "",
                ("KX-1",),
                (),
                "seq 1 to 9",
            ),
            told(4, capture.GapRepaired, "g1", "rest", 1, 5, 3, (), "3 trades by REST"),
            told(5, capture.Stopped, "host-1", 2, "stop", ""),
            (told(4, capture.GapRepaired, "g1", "rest", 1, 5, 3, (), "")[0], []),
        ],
    ),
    (
        listing.DECIDER,
        [
            (listing.ObserveStage("KX-1", "closed", 3), "market-not-listed"),
            (listing.ObserveMarket(listing.Market("")), "no-ticker"),
            (listing.ObserveAbsence("KX-1", "not in the list"), []),
            (listing.ObserveMarket(MARKET), [listing.MarketListed(MARKET)]),
            (
                listing.ObserveMarket(LATER),
                [
                    listing.MarketChanged(
                        "KX-1",
                        (
                            listing.Change("attributes.cap", None, "7"),
                            listing.Change("attributes.strike", "5", None),
                            listing.Change("close_ns", "9", "10"),
                            listing.Change("title", "one", "uno"),
                        ),
                    )
                ],
            ),
            (listing.ObserveAbsence("KX-1", "gone"), [listing.MarketDelisted("KX-1", "gone")]),
            (listing.ObserveMarket(LATER), [listing.MarketRelisted(LATER)]),
            (listing.ObserveStage("KX-1", "closed", 10), [listing.MarketClosed("KX-1", 10)]),
            (listing.ObserveStage("KX-1", "determined", 11, "yes"), [listing.MarketDetermined("KX-1", 11, "yes")]),
            (
                listing.ObserveStage("KX-1", "determined", 12, "no"),
                [listing.MarketAmended("KX-1", 12, "determined", "no", "")],
            ),
            (listing.ObserveStage("KX-1", "settled", 13, "", "0.00"), [listing.MarketSettled("KX-1", 13, "no", "0.00")]),
            (listing.ObserveStage("KX-1", "closed", 14), [listing.MarketAmended("KX-1", 14, "closed", "", "")]),
        ],
    ),
    (
        secmaster_sync.DECIDER,
        [
            (secmaster_sync.StartSync(""), "no-sync-id"),
            (secmaster_sync.CompleteSync("s1", secmaster_sync.Counts()), "sync-not-running"),
            (secmaster_sync.StartSync("s1", "KX"), [secmaster_sync.Started("s1", "KX")]),
            (secmaster_sync.FailSync("s1", "429"), [secmaster_sync.Failed("s1", "429")]),
            (secmaster_sync.StartSync("s1", "KX"), []),
            (secmaster_sync.StartSync("s2"), [secmaster_sync.Started("s2", "")]),
            (
                secmaster_sync.CompleteSync("s2", secmaster_sync.Counts(1, 2, 2, requests=3)),
                [secmaster_sync.Completed("s2", secmaster_sync.Counts(1, 2, 2, requests=3))],
            ),
        ],
    ),
    (
        archive.DECIDER,
        [
            (archive.OpenPartition(2, "a"), [archive.Opened(2, "a")]),
            (archive.RecordStreamRegressed(1, "i", 9, 3, "m", "refill"), "archive-fenced"),
            (archive.RecordStreamRegressed(2, "i", 9, 3, "m", "refill"), [archive.StreamRegressed("i", 9, 3, "m", "refill")]),
            (archive.RecordStreamTruncated(2, "i", 9, 12, "refill"), [archive.StreamTruncated("i", 9, 12, "refill")]),
            (archive.RecordVerification("c1", 3, 99), [archive.Verified("c1", 3, 99)]),
            (archive.RecordDamage("k", "sha256", "ab", "cd"), [archive.Damaged("k", "sha256", "ab", "cd")]),
            (archive.RecordVerification("c2", 3, 99), "archive-damaged"),
            (archive.RecordRepair("k", "raw", "ab"), [archive.Repaired("k", "raw", "ab")]),
            (archive.RecordRepair("k", "raw", "ab"), []),
            (archive.RecordRenormalization(3, (FILE,), 0, 5), "archive-moved"),
            (archive.CompletePartition("day-mark"), [archive.Completed("day-mark", 0, 0, 0)]),
            (archive.RecordRenormalization(3, (FILE,), 1, 5), "archive-moved"),
            (archive.RecordRenormalization(3, (FILE,), 0, 5), [archive.Renormalized(3, (FILE,), 5)]),
            (archive.RecordRenormalization(3, (FILE,), 0, 5), []),
            (archive.RecordRenormalization(2, (FILE,), 0, 5), "older-mapper"),
            (LATE, [archive.Reopened("late-data"), LATE_SEALED]),
            (archive.RecordRenormalization(3, (FILE,), 1, 5), "archive-moved"),
            (archive.CompletePartition("day-mark"), [archive.Completed("day-mark", 1, FILE.records, FILE.size_bytes)]),
            (archive.RecordRenormalization(3, (FILE,), 1, 5), [archive.Renormalized(3, (FILE,), 5)]),
            (archive.RecordPruning(("k", "l", "k"), 5, "age"), [archive.Pruned(("k", "l"), 5, "age")]),
            (archive.RecordPruning(("l", "m"), 5, "age"), [archive.Pruned(("m",), 5, "age")]),
            (archive.AssessQuality(QUALITY), [QUALITY]),
        ],
    ),
    (
        key.DECIDER,
        [
            (key.RecordAccess("gateway", "a1", ("api_key",)), "key-not-set"),
            (key.RevokeKey("leaked"), []),
            (key.DefineKey("kalshi", ("api_key",)), [key.Defined("kalshi", ("api_key",))]),
            (key.SetKey(("api_key",), "hunter2 is my password"), "not-a-fingerprint"),
            (key.SetKey(("-----BEGIN PRIVATE KEY",), FP), "not-a-name"),
            (key.SetKey(("api_key",), FP, ("read",), 99), [key.Set(("api_key",), FP, ("read",), 99)]),
            (key.RecordAccess("gateway", "a1", ("api_key",)), [key.Accessed("gateway", "a1", ("api_key",), FP)]),
            (key.VerifyKey("v1", is_good=True), [key.Verified("v1", FP, is_good=True, detail="")]),
            (key.NoticeExpiry("expires-soon", FP, 99), [key.ExpiryNoticed("expires-soon", FP, 99)]),
            (key.NoticeExpiry("expires-soon", FP, 99), []),
            (key.NoticeExpiry("expired", FP2, 99), []),
            (key.NoticeExpiry("expired", FP, 99), [key.ExpiryNoticed("expired", FP, 99)]),
            (key.RevokeKey("leaked"), [key.Revoked(FP, "leaked")]),
            (key.NoticeExpiry("rotation-due", FP, 50), []),
            (key.SetKey(("api_key",), FP), "key-revoked"),
            (key.SetKey(("api_key",), FP2), [key.Rotated(("api_key",), FP2, FP, (), 0)]),
            (key.NoticeExpiry("rotation-due", FP2, 50), [key.ExpiryNoticed("rotation-due", FP2, 50)]),
            (key.DeleteKey("moved"), [key.Deleted(FP2, "moved")]),
            (key.SetKey(("api_key",), FP2), [key.Set(("api_key",), FP2, (), 0)]),
        ],
    ),
    (
        client.DECIDER,
        [
            (client.RevokeClient("x"), "no-such-client"),
            (client.CreateClient("bot", FP, ("read",)), [client.Created("bot", FP, ("read",), 0)]),
            (client.CreateClient("bot", FP2, ("read",)), "client-exists"),
            (client.RotateClient("not hex"), "not-a-fingerprint"),
            (client.RotateClient(FP2, 9), [client.Rotated(FP2, FP, 9)]),
            (client.RecordAccess("gateway", "d1"), [client.Accessed("gateway", "d1")]),
            (client.SetMode("conflated"), [client.ModeSet("conflated")]),
            (client.SetMode("conflated"), []),
            (client.DisconnectClient("r1", "noisy"), [client.DisconnectRequested("r1", "noisy")]),
            (client.DisconnectClient("r1", "noisy"), []),
            (client.RevokeClient("left"), [client.Revoked("left")]),
            (client.SetMode("latest"), "client-revoked"),
            (client.RecordAccess("gateway", "d2"), "client-revoked"),
            (client.DeleteClient(), [client.Deleted("")]),
            (client.CreateClient("bot", FP, ("read",)), "client-exists"),
        ],
    ),
    (
        dead_letter.DECIDER,
        [
            (dead_letter.RecordReplay(), "no-such-dead-letter"),
            (
                dead_letter.RecordDeadLetter("projector", "journal", 4, "capture/k.main", "x.v1", "KeyError"),
                [dead_letter.Recorded("projector", "journal", 4, "capture/k.main", "x.v1", "KeyError")],
            ),
            (dead_letter.DiscardDeadLetter("known"), [dead_letter.Discarded("known")]),
            (dead_letter.RecordReplay(), "dead-letter-discarded"),
        ],
    ),
    (
        dead_letter.DECIDER,
        [
            (dead_letter.RecordDeadLetter("a", "b", 1, "", "", ""), [dead_letter.Recorded("a", "b", 1, "", "", "")]),
            (dead_letter.RecordReplay("0.2"), [dead_letter.Replayed("0.2")]),
            (dead_letter.DiscardDeadLetter("known"), "dead-letter-replayed"),
        ],
    ),
    (
        feedback.DECIDER,
        [
            (feedback.Resolve("x"), "no-such-feedback"),
            (
                feedback.Report("kalshi", DATE, "KX-1", "missing-data", "no trades"),
                [feedback.Reported("kalshi", DATE, "KX-1", "missing-data", "no trades")],
            ),
            (feedback.Report("kalshi", DATE, "KX-2", "missing-data", "no trades"), "feedback-exists"),
            (feedback.Triage("high", "anna"), [feedback.Triaged("high", "anna", "")]),
            (feedback.Investigate("looking"), [feedback.Investigating("looking")]),
            (feedback.Resolve("repaired"), [feedback.Resolved("repaired")]),
            (feedback.Invalidate("is right"), "feedback-closed"),
        ],
    ),
    (
        feedback.DECIDER,
        [
            (feedback.Report("kalshi", "", "", "question", "?"), [feedback.Reported("kalshi", "", "", "question", "?")]),
            (feedback.Invalidate("is right"), [feedback.Invalidated("is right")]),
        ],
    ),
    (
        projection.DECIDER,
        [
            # A fresh environment: views that begin to exist, empty, are no news; the first rows are.
            (projection.RecordRebuild(projection.Made("g0", 1, 0, "00", 0, 0), None), []),
            (projection.RecordSwap("g0", 1, 0), []),
            (projection.RecordRebuild(FIRST, None), [projection.Rebuilt(FIRST, None, is_different=False)]),
            (projection.RecordSwap("g1", 1, 12), [projection.Swapped("g1", 1, 12, "")]),
        ],
    ),
    (
        projection.DECIDER,
        [
            (projection.RecordRebuild(MADE, BEFORE), [projection.Rebuilt(MADE, BEFORE, is_different=True)]),
            (projection.RecordSwap("g2", 2, 44), [projection.Swapped("g2", 2, 44, BEFORE.generation)]),
            (projection.RecordDivergence(MADE, BEFORE), [projection.Diverged(MADE, BEFORE)]),
            (
                projection.RecordRollback("g1", 1, 40, "g2", "wrong totals"),
                [projection.RolledBack("g1", 1, 40, "g2", "wrong totals")],
            ),
        ],
    ),
]


@pytest.mark.parametrize(("decider", "steps"), WALKS, ids=[decider.aggregate for decider, _ in WALKS])
def test_a_walk_through_the_rules(decider: Decider[Any, Any, Any], steps: list[Step]) -> None:
    state = decider.initial
    for command, expected in steps:
        if isinstance(expected, str):
            with pytest.raises(Rejected) as refused:
                decider.decide(state, command)
            assert refused.value.rule == expected
            continue
        assert list(decider.decide(state, command)) == list(expected)
        state = decider.fold(expected, state)
        assert tuple(decider.decide(state, command)) == ()


def test_a_market_is_folded_back_to_what_the_venue_showed() -> None:
    state = listing.DECIDER.fold(
        [
            listing.MarketListed(MARKET),
            *listing.decide(listing.DECIDER.fold([listing.MarketListed(MARKET)]), listing.ObserveMarket(LATER)),
        ]
    )
    assert state.markets["KX-1"] == listing.Standing(LATER)


def test_every_new_event_type_is_walked_through() -> None:
    walked = {tag_of(event) for _, steps in WALKS for _, events in steps if not isinstance(events, str) for event in events}
    elsewhere = {"archive", "capture", "trading-day"}
    missing = {tag for tag in CATALOGUE.tags if tag.partition(".")[0] not in elsewhere | {"environment"}} - walked
    assert missing == set()


def test_a_refused_secret_is_not_repeated() -> None:
    with pytest.raises(Rejected) as refused:
        key.decide(key.State(), key.SetKey(("hunter2!",), "0" * 8))
    assert "hunter2" not in str(refused.value)
