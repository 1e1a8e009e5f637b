"""Questions to an environment that does not run: its journal's server runs for the question, and the answer is exact."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ssmd.application.handler import Application
from ssmd.clock import ManualClock
from ssmd.domain import archive, capture, trading_day
from ssmd.domain.archive import OpenPartition, SealSegment, SegmentFile, SessionReached
from ssmd.domain.capture import Connected, Disconnected, GapClosed, GapOpened, IntervalAssessed, RecordFact, TapePlace
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.fact_parts import set_digest
from ssmd.domain.trading_day import ActivateDay, StartDay
from ssmd.identifiers import system_random
from ssmd.services.embedded_servers import start_nats
from ssmd.streams.journal_nats import NatsJournal

Ssmd = Any
ENV = "kalshi-dev"
DATE = "2026-05-14"
T0 = 1_778_760_000_000_000_000  # 2026-05-14T12:00:00Z
SECOND = 1_000_000_000
TICKER = "KXBTC15M-26MAY141445-45"
NAMED = set_digest([TICKER])


def fact(n: int, event: capture.CaptureEvent) -> RecordFact:
    return RecordFact(TapePlace(1, n, 0), event)


def interval(n: int, verdict: Any, cause: str, start_ns: int, end_ns: int, base: str, *tickers: str) -> RecordFact:
    """Of the trades of TICKER, gap g-1."""
    event = IntervalAssessed(
        1, n, 0, T0 + 9 * SECOND, 2, "trade", verdict, cause, "g-1" if cause else "", start_ns, end_ns, 3, 0, 10, NAMED, base,
        tickers, (), "",
    )  # fmt: skip
    return fact(n, event)


FACTS = [
    fact(1, Connected(1, 1, 0, T0, "wss://venue/ws", "kalshi-dollars", "main", 1, "0.1.0", 0)),
    fact(
        7,
        GapOpened(
            1, 7, 0, T0 + 5 * SECOND, "g-1", "sequence-skip", T0 + 4 * SECOND, "trade", 2, 11, 14, (TICKER,), "seq 11..13"
        ),
    ),
    fact(9, GapClosed(1, 9, 0, T0 + 8 * SECOND, "g-1", T0 + 4 * SECOND, T0 + 8 * SECOND, ())),
    fact(12, Disconnected(1, 12, 0, T0 + 9 * SECOND, "closed-by-venue", 1001, "away", T0 + 9 * SECOND, "close frame")),
]
INTERVALS = [
    interval(13, "verified", "", T0, T0 + 4 * SECOND, "", TICKER),
    interval(14, "missing", "sequence-skip", T0 + 4 * SECOND, T0 + 8 * SECOND, NAMED),
]
SEAL = SealSegment(
    epoch=1,
    incarnation="ab",
    first_seq=1,
    last_seq=9,
    last_message_id="m-9",
    files=(SegmentFile("raw/x.jsonl.zst", "raw", 1234, "0" * 64, 5678, "1" * 64, 12, T0, T0 + 9 * SECOND),),
    sessions=(SessionReached(1, 12),),
)


async def write_journal(directory: Path) -> None:
    server = await start_nats(directory, sync_always=True)
    try:
        journal = await NatsJournal.open(server.url, ENV, ensure=True)
        try:
            application = Application(journal, CATALOGUE, ManualClock(T0), system_random, "c0ffee")
            for command in (StartDay(DATE, "test"), ActivateDay()):
                await application.handle(trading_day.DECIDER, (DATE,), command, actor="cli:anna")
            for one in FACTS:
                await application.handle(capture.DECIDER, ("kalshi", "main"), one, actor="connector:main")
            for step in (OpenPartition(1, "raw-archiver-main"), SEAL):
                await application.handle(archive.DECIDER, ("kalshi", DATE, "raw", "main"), step, actor="raw-archiver:main")
        finally:
            await journal.close()
    finally:
        await server.stop()


@pytest.fixture
def stopped(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that ran before: its journal is there, nothing runs."""
    monkeypatch.setenv("SSMD_ENV", ENV)
    directory = workspace / ".ssmd" / ENV / "nats-journal"
    asyncio.run(write_journal(directory))
    return directory


def test_every_question_is_answered_while_the_environment_is_off(ssmd: Ssmd, stopped: Path) -> None:
    called = ssmd("data", "inventory", "--feed", "kalshi", "-o", "json")
    assert (called.status, called.err) == (0, "")
    assert json.loads(called.out) == [
        {
            "feed": "kalshi",
            "date": DATE,
            "type": "raw",
            "kind": "raw",
            "partition": "main",
            "status": "open",
            "segments": 1,
            "records": 12,
            "size_bytes": 1234,
            "content_bytes": 5678,
            "ts_recv_first_ns": T0,
            "ts_recv_last_ns": T0 + 9 * SECOND,
            "sessions": {"1": 12},
            "pruned_segments": 0,
            "pruned_bytes": 0,
            "holds": {},
            "mapper": 0,
        }
    ]
    gaps = ssmd("data", "gaps", "--date", DATE, "--ticker", TICKER)
    assert [re.split(r"  +", line) for line in gaps.out.splitlines()] == [
        ["FROM", "TO", "LENGTH", "CONNECTION", "TICKERS", "REPAIRED", "CAUSE", "EVIDENCE"],
        [
            "2026-05-14 12:00:04.000",
            "2026-05-14 12:00:08.000",
            "4.0 s",
            "main",
            f"{TICKER}, on channel trade",
            "no",
            "sequence-skip",
            "seq 11..13",
        ],
    ]
    assert ssmd("data", "gaps", "--date", "2026-05-15").out == "no known gap of kalshi on 2026-05-15\n"
    assert json.loads(ssmd("data", "gaps", "--ticker", "OTHER", "-o", "json").out) == []
    status = ssmd("day", "status", "--date", DATE).out.splitlines()
    assert status[:3] == [
        f"date             {DATE}",
        "status           active",
        "start requested  2026-05-14 12:00:00.000 by cli:anna: test",
    ]
    history = ssmd("day", "history", "--date", DATE)
    assert history.out.splitlines()[0].split() == ["TIME", "(UTC)", "WHO", "SUBJECT", "WHAT", "WHY"]
    assert len(history.out.splitlines()) == 9
    begun = next(line for line in json.loads(ssmd("day", "history", "--date", DATE, "-o", "json").out)["lines"])
    assert f"request {begun['correlation_id'][-8:]}" in history.out
    session = ssmd("data", "connections").out.splitlines()[1]
    assert "closed-by-venue" in session
    assert [day["date"] for day in json.loads(ssmd("day", "list", "-o", "json").out)] == [DATE]
    # Nothing is left running: the directory can be taken at once.
    asyncio.run(taken(stopped))


async def write_intervals(directory: Path) -> None:
    server = await start_nats(directory, sync_always=True)
    try:
        journal = await NatsJournal.open(server.url, ENV)
        try:
            application = Application(journal, CATALOGUE, ManualClock(T0), system_random, "c0ffee")
            await application.handle_many(capture.DECIDER, ("kalshi", "main"), INTERVALS, actor="connector:main")
        finally:
            await journal.close()
    finally:
        await server.stop()


def test_every_moment_of_a_day_is_accounted_for(ssmd: Ssmd, stopped: Path) -> None:
    asyncio.run(write_intervals(stopped))
    intervals = ssmd("data", "intervals", "--date", DATE, "--ticker", TICKER)
    assert [re.split(r"  +", line) for line in intervals.out.splitlines()] == [
        ["FROM", "TO", "LENGTH", "VERDICT", "CAUSE"],
        ["2026-05-14 12:00:00.000", "2026-05-14 12:00:04.000", "4.0 s", "verified"],
        ["2026-05-14 12:00:04.000", "2026-05-14 12:00:08.000", "4.0 s", "missing", "sequence-skip"],
    ]
    (account,) = json.loads(ssmd("data", "intervals", "--date", DATE, "-o", "json").out)
    assert (account["ticker"], account["channel"]) == (TICKER, "trade")
    assert [account[f"{name}_ns"] // SECOND for name in ("verified", "unverifiable", "missing", "repaired")] == [4, 0, 4, 0]
    assert f"{TICKER}  trade" in ssmd("data", "intervals", "--date", DATE).out
    assert ssmd("data", "intervals", "--date", "2026-05-15").out == "nothing is known of kalshi on 2026-05-15\n"
    # An account is nobody's deed: the day's history does not tell it.
    assert "verified" not in ssmd("day", "history", "--date", DATE).out


async def taken(directory: Path) -> None:
    server = await start_nats(directory, sync_always=True)
    await server.stop()


def test_events_are_shown_as_they_were_written(ssmd: Ssmd, stopped: Path) -> None:
    called = ssmd("journal", "show", "--aggregate", "trading-day", "-o", "json")
    events = json.loads(called.out)
    assert [(event["position"], event["envelope"]["type"], event["envelope"]["data"].get("reason")) for event in events] == [
        (1, "trading-day.start-requested.v1", "test"),
        (2, "trading-day.activated.v1", None),
    ]
    assert events[0]["envelope"]["config"] == "c0ffee"
    typed = ssmd("journal", "show", "--type", "capture.gap-", "--type", "archive.opened").out.splitlines()[1:]
    assert [line.split()[3] for line in typed] == ["capture.gap-opened.v1", "capture.gap-closed.v1", "archive.opened.v1"]
    newest = ssmd("journal", "show", "-n", "1").out.splitlines()[1:]
    assert [line.split()[3] for line in newest] == ["archive.segment-sealed.v1"]
    assert ssmd("journal", "show", "--aggregate", "capture/").err.startswith("error: not a journal filter: 'capture/'")
    assert ssmd("journal", "show", "--type", "nothing").out == "no such event\n"
    assert json.loads(ssmd("journal", "show", "--after", "8", "-o", "json").out) == []
    beyond = ssmd("journal", "show", "--after", "99")
    assert beyond == (1, "", f"error: the journal {ENV}-journal ends at position 8, before position 99\n")


def test_the_past_is_shown_as_it_was_known(ssmd: Ssmd, stopped: Path) -> None:
    del stopped
    statuses = {
        moment: json.loads(ssmd("day", "status", "--date", DATE, "--as-of", moment, "-o", "json").out)["status"]
        for moment in ("0", "1", "2", "2026-05-13", "2026-05-14T12:00:00Z", "2026-05-14T14:00+02:00")
    }
    assert statuses == {
        "0": "pending",
        "1": "starting",
        "2": "active",
        "2026-05-13": "pending",
        "2026-05-14T12:00:00Z": "active",
        "2026-05-14T14:00+02:00": "active",
    }
    assert json.loads(ssmd("data", "gaps", "--as-of", "4", "-o", "json").out)[0]["end_ns"] is None
    assert json.loads(ssmd("data", "inventory", "--as-of", "7", "-o", "json").out)[0]["segments"] == 0
    assert ssmd("day", "list", "--as-of", "99").err == "error: the journal ends at position 8, there is no 99 yet\n"
    wrong = ssmd("data", "connections", "--as-of", "yesterday")
    assert (wrong.status, "'yesterday' is neither a journal position nor a time" in wrong.err) == (2, True)


def test_a_day_is_shown_with_who_when_and_why(ssmd: Ssmd, stopped: Path) -> None:
    del stopped
    shown = json.loads(ssmd("day", "show", "--date", DATE, "-o", "json").out)
    assert shown["day"]["status"] == "active"
    assert shown["took_ns"] == {"start": 0}
    archive = shown["archive"]
    assert {name: archive[name] for name in ("status", "lines", "segments", "gaps", "open_gaps")} == {
        "status": "open",
        "lines": 12,
        "segments": 1,
        "gaps": 1,
        "open_gaps": 0,
    }
    before = json.loads(ssmd("day", "show", "--date", DATE, "--as-of", "3", "-o", "json").out)
    assert (before["archive"], before["day"]["status"]) == (None, "active")
    lines = [one["line"] for one in shown["lines"]]
    assert [(line["position"], line["actor"], line["what"]) for line in lines] == [
        (1, "cli:anna", "start requested (test)"),
        (2, "cli:anna", "active: the day takes data"),
    ]
    assert all(line["correlation_id"] and line["event_id"] for line in lines)
    assert shown["lines"][0]["request"] == f"trading-day/{DATE}: start requested (test)"
    text = ssmd("day", "show", "--date", DATE).out.splitlines()
    assert [" ".join(line.split()) for line in text if line.startswith(("start took", "archive", "holes"))] == [
        "start took 0.0 s",
        "archive open: 12 raw lines, 0 records, 1 segments",
        "holes 1",
    ]
    assert any("start requested (test)" in line for line in text)


def test_a_day_is_not_followed_for_ever_where_nobody_goes_on_with_it(ssmd: Ssmd, stopped: Path) -> None:
    async def begun() -> None:
        server = await start_nats(stopped, sync_always=True)
        try:
            journal = await NatsJournal.open(server.url, ENV)
            try:
                application = Application(journal, CATALOGUE, ManualClock(T0), system_random, "c0ffee")
                await application.handle(trading_day.DECIDER, ("2026-05-15",), StartDay("2026-05-15", "test"), actor="cli:anna")
            finally:
                await journal.close()
        finally:
            await server.stop()

    asyncio.run(begun())
    status, out, err = ssmd("day", "status", "--date", "2026-05-15", "--follow")
    assert (status, [" ".join(line.split()) for line in out.splitlines()[:2]]) == (0, ["date 2026-05-15", "status starting"])
    assert err.splitlines()[-1] == f"{ENV} does not run, the day stays so: ssmd up {ENV}, then ssmd day recover"
    refused = ssmd("day", "status", "--date", DATE, "--follow", "--as-of", "3")
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith("error: Invalid value: --follow tells what is done from now on: not with --as-of\n")


def test_two_questions_at_once_wait_for_each_other(workspace: Path, stopped: Path) -> None:
    del stopped
    command = [str(Path(sys.executable).with_name("ssmd")), "day", "list", "-o", "json"]
    asked = [subprocess.Popen(command, cwd=workspace, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for process in asked:
        out, err = process.communicate(timeout=100)
        assert (process.returncode, err) == (0, b"")
        assert [day["date"] for day in json.loads(out)] == [DATE]


def test_an_environment_that_never_ran_says_so(ssmd: Ssmd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSMD_ENV", ENV)
    for arguments in (("data", "inventory"), ("data", "gaps"), ("day", "status"), ("journal", "show")):
        assert ssmd(*arguments) == (2, "", f"error: {ENV} has no journal yet\n  try: ssmd up {ENV}\n")
    for arguments, server in (
        (("streams", "status"), "journal"),
        (("streams", "apply"), "journal"),
        (("day", "start"), "journal"),
        (("journal", "tail"), "journal"),
    ):
        assert ssmd(*arguments) == (2, "", f"error: {ENV} is not running: it has no {server} server\n  try: ssmd up {ENV}\n")


def test_a_feed_the_environment_does_not_capture_is_refused(ssmd: Ssmd) -> None:
    called = ssmd("data", "gaps", "--feed", "kraken", "-e", ENV)
    assert (called.status, called.err) == (
        2,
        f'error: environment {ENV} captures feed "kalshi", not "kraken"\n  try: --feed kalshi\n',
    )


def test_a_server_that_does_not_answer_is_named_without_its_password(
    ssmd: Ssmd, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workspace / "exchanges/environments/kalshi-dev.yaml"
    path.write_text(
        path.read_text().replace("source: generated", "source: generated\n  nats:\n    type: opaque\n    fields: [url]")
        + "journal: {url: $key:nats.url}\n"
    )
    assert ssmd("validate").status == 0
    called = ssmd("journal", "show", "-e", ENV)
    assert called.err.startswith('error: key "nats" has no value: SSMD_NATS_URL or SSMD_NATS_URL_FILE is not set\n')
    monkeypatch.setenv("SSMD_NATS_URL", "nats://me:hunter2@127.0.0.1:1")
    called = ssmd("journal", "show", "-e", ENV)
    assert called.status == 2
    assert called.err.startswith("error: no NATS server at nats://127.0.0.1:1 ")
    assert "hunter2" not in called.err
