"""`ssmd secmaster` over a journal that has seen three days of a market's life, and one market that is gone."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from pathlib import Path

import pytest
from tests.cli.conftest import Ssmd
from tests.cli.test_client import ENVIRONMENT

from ssmd.application.listings import Listings
from ssmd.application.sealing import Origin
from ssmd.clock import ManualClock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.listing import Market
from ssmd.domain.observation import Observation
from ssmd.identifiers import system_random
from ssmd.streams.journal_sqlite import SqliteJournal

T0 = 1_778_760_000_000_000_000  # 2026-05-14T12:00:00Z
HOUR = 3_600_000_000_000
BTC = Market(
    "KXBTC-1",
    "KXBTC",
    "Crypto",
    "Bitcoin above 73,500?",
    T0 - HOUR,
    T0 + 2 * HOUR,
    T0 + 3 * HOUR,
    {"rules_primary": "At noon."},
)
RAIN = Market("KXRAIN-1", "KXRAIN", "Weather", "Rain in New York?", T0, T0 + 30 * HOUR, T0 + 31 * HOUR)


async def write(path: Path) -> None:
    journal = await SqliteJournal.open(path, "small")
    clock = ManualClock(T0)
    listings = Listings(journal, CATALOGUE, clock, system_random, "kalshi")
    origin = Origin("workflow:sync", "c-1")
    await listings.observe([Observation("BTC-EV", BTC), Observation("RAIN-EV", RAIN)], origin)  # positions 1, 2
    clock.advance(5 * HOUR)
    await listings.observe([Observation("BTC-EV", BTC, "closed", T0 + 2 * HOUR)], origin)  # 3
    clock.advance(HOUR)
    await listings.observe([Observation("BTC-EV", BTC, "settled", T0 + 6 * HOUR, "yes", "1.0000")], origin)  # 4
    await listings.miss([("RAIN-EV", "KXRAIN-1")], "gone", origin)  # 5
    await journal.close()


@pytest.fixture
def small(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (workspace / "exchanges" / "environments" / "small.yaml").write_text(ENVIRONMENT)
    directory = workspace / ".ssmd" / "small"
    directory.mkdir(parents=True)
    monkeypatch.setenv("SSMD_ENV", "small")
    asyncio.run(write(directory / "journal.sqlite"))
    return workspace


def tickers(ssmd: Ssmd, *arguments: str) -> list[tuple[str, str]]:
    called = ssmd("secmaster", *arguments, "-o", "json")
    return [(row["market"]["ticker"], "delisted" if row["is_delisted"] else row["stage"]) for row in json.loads(called.out)]


def test_markets_are_found_by_what_they_are(ssmd: Ssmd, small: Path) -> None:
    assert small.exists()
    assert tickers(ssmd, "list") == [("KXBTC-1", "settled")]
    assert tickers(ssmd, "list", "--status", "all") == [("KXBTC-1", "settled"), ("KXRAIN-1", "delisted")]
    assert tickers(ssmd, "list", "--status", "listed") == []
    assert tickers(ssmd, "list", "--category", "Weather", "--status", "delisted") == [("KXRAIN-1", "delisted")]
    assert tickers(ssmd, "list", "--series", "KXBTC") == [("KXBTC-1", "settled")]
    assert tickers(ssmd, "search", "BITCOIN noon") == [("KXBTC-1", "settled")]
    assert ssmd("secmaster", "search", "snow").status == 1
    bad = ssmd("secmaster", "list", "--status", "odd")
    assert (bad.status, "'odd' is not one of listed, closed, determined, settled, delisted, all" in bad.err) == (2, True)
    bad = ssmd("secmaster", "list", "--expiring-within", "soon")
    assert (bad.status, "'soon' is no length of time" in bad.err) == (2, True)


def test_what_was_true_then_by_what_was_known_then(ssmd: Ssmd, small: Path) -> None:
    assert small.exists()
    at_noon = ("--as-of", "2026-05-14T12:00Z")
    at_three = ("--as-of", "2026-05-14T15:00Z")
    assert tickers(ssmd, "list", *at_noon) == [("KXBTC-1", "listed"), ("KXRAIN-1", "listed")]
    # It was closed at 14:00; that became known at 17:00 only.
    assert tickers(ssmd, "list", *at_three) == [("KXBTC-1", "closed"), ("KXRAIN-1", "listed")]
    assert tickers(ssmd, "list", *at_three, "--known-at", "2026-05-14T16:00Z") == [
        ("KXBTC-1", "listed"),
        ("KXRAIN-1", "listed"),
    ]
    assert tickers(ssmd, "list", *at_three, "--known-at", "3")[0] == ("KXBTC-1", "closed")
    assert tickers(ssmd, "list", *at_noon, "--expiring-within", "3h") == [("KXBTC-1", "listed")]
    gone = ssmd("secmaster", "show", "KXBTC-1", "--as-of", "2026-05-14T10:00Z")
    assert (gone.status, gone.err) == (1, "no market KXBTC-1 of kalshi was known then\n")
    ahead = ssmd("secmaster", "list", "--known-at", "99")
    assert (ahead.status, "the journal ends at position 5" in ahead.err) == (1, True)


def test_a_market_and_its_history_are_shown(ssmd: Ssmd, small: Path) -> None:
    assert small.exists()
    shown = dict(line.split("  ", 1) for line in ssmd("secmaster", "show", "KXBTC-1").out.splitlines())
    assert {name.strip(): value.strip() for name, value in shown.items()} == {
        "ticker": "KXBTC-1",
        "title": "Bitcoin above 73,500?",
        "event": "BTC-EV",
        "series": "KXBTC",
        "category": "Crypto",
        "status": "settled",
        "result": "yes",
        "settlement value": "1.0000",
        "opens": "2026-05-14 11:00:00.000",
        "closes": "2026-05-14 14:00:00.000",
        "expires": "2026-05-14 15:00:00.000",
        "rules_primary": "At noon.",
        "known since": "2026-05-14 12:00:00.000",
        "changed": "2026-05-14 18:00:00.000 (journal position 4)",
    }
    history = ssmd("secmaster", "history", "KXBTC-1").out.splitlines()
    assert [line.split("  ") for line in history[1:]] == [
        ["2026-05-14 11:00:00.000", "2026-05-14 12:00:00.000", "workflow:sync", "listed in event BTC-EV"],
        ["2026-05-14 14:00:00.000", "2026-05-14 17:00:00.000", "workflow:sync", "closed"],
        ["2026-05-14 18:00:00.000", "2026-05-14 18:00:00.000", "workflow:sync", "settled: yes, pays 1.0000"],
    ]
    assert ssmd("secmaster", "history", "NOBODY").status == 1


def test_everything_is_exported_line_by_line(ssmd: Ssmd, small: Path) -> None:
    assert small.exists()
    rows = list(csv.DictReader(io.StringIO(ssmd("secmaster", "export", "--format", "csv").out)))
    assert [(row["ticker"], row["status"], row["value"], row["close_ns"]) for row in rows] == [
        ("KXBTC-1", "settled", "1.0000", str(T0 + 2 * HOUR)),
        ("KXRAIN-1", "delisted", "", str(T0 + 30 * HOUR)),
    ]
    lines = ssmd("secmaster", "export").out.splitlines()
    assert [json.loads(line)["market"]["ticker"] for line in lines] == ["KXBTC-1", "KXRAIN-1"]
    assert ssmd("secmaster", "export", "--format", "xml").status == 2
