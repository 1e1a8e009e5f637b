"""A fact that names more tickers than one message holds is recorded whole, on a real server."""

from __future__ import annotations

import msgspec

from ssmd.application.handler import Application
from ssmd.clock import ManualClock
from ssmd.domain import capture
from ssmd.domain.capture import RecordFact, TapePlace
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.fact_parts import TICKERS_BYTES_MAX, ticker_parts
from ssmd.identifiers import system_random
from ssmd.projections.gaps import GAPS, GapRow
from ssmd.projections.rebuild import fold_in_memory
from ssmd.projections.working_set import decode_row
from ssmd.streams.journal_nats import NatsJournal

NOON = 1_778_760_000_000_000_000
TICKERS = tuple(f"KXSOMETHINGLONG-26MAY14-T{number:06}" for number in range(60_000))
OPENED = capture.GapOpened(7, 1, 0, NOON, "g", "stale", NOON, "", 0, 0, 0, TICKERS, "silence")
SUBSCRIBED = capture.Subscribed(7, 2, 0, NOON, 1, "trade", TICKERS)
CLOSED = capture.GapClosed(7, 3, 0, NOON + 5, "g", NOON, NOON + 5, TICKERS)


async def only_gap(journal: NatsJournal) -> GapRow:
    store = await fold_in_memory(journal, [GAPS])
    (value,) = (await store.read(GAPS.name, prefixes=["day/", "span/"])).rows.values()
    return decode_row(value, GapRow)


async def test_sixty_thousand_tickers_go_through_the_journal_into_one_gap(journal_url: str, fresh_env: str) -> None:
    journal = await NatsJournal.open(journal_url, fresh_env, ensure=True)
    try:
        application = Application(journal, CATALOGUE, ManualClock(NOON), system_random)
        for fact in (OPENED, SUBSCRIBED, CLOSED):
            command = RecordFact(TapePlace(fact.session, fact.n, fact.index), fact)
            recorded = await application.handle(capture.DECIDER, ("kalshi", "main"), command, actor="t")
            assert len(recorded.events) > 1
            assert tuple(ticker for event in recorded.events for ticker in event.tickers) == TICKERS  # type: ignore[attr-defined]
            again = await application.handle(capture.DECIDER, ("kalshi", "main"), command, actor="t")
            assert again.events == ()
            if fact is OPENED:
                gap = await only_gap(journal)
                assert gap.tickers == dict.fromkeys(TICKERS, 0)
                assert (gap.is_open, gap.opened_position) == (True, 1)
        gap = await only_gap(journal)
        assert gap.tickers == dict.fromkeys(TICKERS, NOON + 5)
        assert (gap.end_ns, gap.is_open, gap.is_whole, gap.opened_position) == (NOON + 5, False, False, 1)
    finally:
        await journal.close()


def test_parts_are_of_the_size_and_what_fits_stays_whole() -> None:
    assert ticker_parts(("a", "b")) == [("a", "b")]
    assert ticker_parts(()) == [()]
    assert ticker_parts(("aaaa", "bb", "c"), 9) == [("aaaa",), ("bb", "c")]
    assert ticker_parts(("longer than all", "b"), 5) == [("longer than all",), ("b",)]
    assert all(len(msgspec.json.encode(part)) <= TICKERS_BYTES_MAX + 2 for part in ticker_parts(TICKERS))
