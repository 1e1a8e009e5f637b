"""`ssmd data verify|replay|sample|book` and `ssmd simulate kalshi --date` on the archive of a stopped environment."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from ssmd.archive.storage_local import LocalStorage
from ssmd.cli.app import main
from ssmd.clock import SystemClock
from ssmd.errors import Unavailable
from ssmd.exchanges.kalshi.signing import headers, load_private_key
from ssmd.streams.journal_sqlite import SqliteJournal

ROOT = Path(__file__).parents[2]
ENV, DATE = "kalshi-dev", "2026-05-14"


class Called(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def world(tmp_path: Path, make_world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A workspace with one archived day; it is the current directory."""
    root = tmp_path / "workspace"
    shutil.copytree(ROOT / "exchanges", root / "exchanges")
    document = root / "exchanges" / "environments" / f"{ENV}.yaml"
    document.write_text(document.read_text() + "journal:\n  backend: sqlite\n")
    directory = root / ".ssmd" / ENV
    directory.mkdir(parents=True)
    for name in ("SSMD_WORKSPACE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSMD_ENV", ENV)
    monkeypatch.chdir(root)

    async def make() -> Any:
        journal = await SqliteJournal.open(directory / "journal.sqlite", ENV)
        made = make_world(LocalStorage(directory / "archive"), env=ENV, journal=journal)
        for _ in range(2):
            await made.session(count=60)
        await made.complete()
        await journal.close()
        return made

    return asyncio.run(make())


@pytest.fixture
def ssmd(world: Any, capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Called]:
    def call(*arguments: str) -> Called:
        capfdbinary.readouterr()
        status = main(arguments)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return Called(status, out.decode(), err.decode())

    return call


def test_verify_tells_damage_by_its_status(ssmd: Callable[..., Called], world: Any) -> None:
    called = ssmd("data", "verify")
    assert (called.status, called.err) == (0, "")
    assert called.out.startswith("all is as sealed: ")
    segment = next((world.storage._root / "raw").rglob("*.jsonl.zst"))
    segment.write_bytes(segment.read_bytes()[:-3])
    called = ssmd("data", "verify", "--date", DATE, "-o", "json")
    assert called.status == 1
    answer = json.loads(called.out)
    key = str(segment.relative_to(world.storage._root))
    assert [(finding["key"], finding["problem"]) for finding in answer["findings"]] == [(key, "truncated")]
    called = ssmd("data", "replay", "--date", DATE)
    assert called.status == 2
    assert f"{key} is not what was sealed" in called.err
    assert "try: ssmd data verify" in called.err


def test_verify_says_when_it_could_not_tell(ssmd: Callable[..., Called], world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that the storage cannot give is no damage, and no clean bill."""
    read = LocalStorage.read

    async def failing(self: LocalStorage, key: str) -> AsyncIterator[bytes]:
        if key.startswith("raw/"):
            raise Unavailable("the disk does not answer")
        async for piece in read(self, key):
            yield piece

    monkeypatch.setattr(LocalStorage, "read", failing)
    called = ssmd("data", "verify", "-o", "json")
    assert (called.status, {one["problem"] for one in json.loads(called.out)["findings"]}) == (2, {"unreadable"})


def test_replay_and_sample(ssmd: Callable[..., Called], world: Any) -> None:
    called = ssmd("data", "replay", "--date", DATE)
    assert called.status == 0
    assert [json.loads(line)["n"] for line in called.out.splitlines()] == [line.entry.n for line in world.lines]
    called = ssmd("data", "replay", "--date", DATE, "--kind", "records", "--record-kind", "trade")
    trades = [json.loads(line) for line in called.out.splitlines()]
    assert [trade["trade_id"] for trade in trades] == [one.trade_id for one in world.records if type(one).__name__ == "Trade"]
    called = ssmd("data", "sample", "--date", DATE, "-n", "3", "--ticker", "B.2")
    assert [json.loads(line)["ticker"] for line in called.out.splitlines()] == ["B.2"] * 3
    called = ssmd("data", "replay", "--date", DATE, "--record-kind", "trade")
    assert (called.status, "belong to --kind records" in called.err) == (2, True)
    called = ssmd("data", "replay", "--date", DATE, "--from", "13:00", "--to", "12:00")
    assert (called.status, "is not before" in called.err) == (2, True)
    called = ssmd("data", "replay", "--date", DATE, "--from", "25:00")
    assert (called.status, "is no time" in called.err) == (2, True)


def test_replay_and_sample_say_when_nothing_is_archived(ssmd: Callable[..., Called], world: Any) -> None:
    def told(*arguments: str) -> tuple[int, str, str]:
        called = ssmd("data", *arguments)
        return called.status, called.out, called.err.strip()

    no_line, no_record = (f"no such {what} is archived for" for what in ("line", "record"))
    assert told("replay", "--date", "2020-02-03") == (0, "", f"{no_line} 2020-02-03")
    assert told("replay", "--date", "2020-02-03", "--ticker", "A-1") == (0, "", f"{no_line} 2020-02-03")
    assert told("replay", "--date", "2020-02-03", "--kind", "records") == (0, "", f"{no_record} 2020-02-03")
    assert told("sample", "--date", "2020-02-03") == (0, "", f"{no_record} 2020-02-03")
    assert told("sample", "--date", DATE, "--ticker", "NOBODY") == (0, "", f"{no_record} {DATE}")
    assert told("sample", "--date", DATE, "-n", "1")[2] == ""


def test_book(ssmd: Callable[..., Called], world: Any) -> None:
    at = str(world.lines[40].entry.ts_recv_ns)
    answer = json.loads(ssmd("data", "book", "--ticker", "A-1", "--at", at, "-o", "json").out)
    assert (answer["ticker"], answer["at_ns"], len(answer["digest"])) == ("A-1", int(at), 64)
    called = ssmd("data", "book", "--ticker", "A-1", "--at", f"{DATE}T12:01:00Z")
    assert called.status == 0
    assert "BID SIZE" in called.out
    called = ssmd("data", "book", "--ticker", "NOPE", "--at", f"{DATE}T12:01:00Z")
    assert (called.status, "no snapshot of the book of NOPE" in called.err) == (1, True)


def test_a_question_of_the_archive_starts_without_what_only_services_need(world: Any) -> None:
    """Importing these would double what a short command takes."""
    heavy = ("structlog", "rich", "nats", "redis", "pyarrow", "temporalio", "starlette", "opentelemetry", "capnp")
    given = ["data", "book", "--ticker", "A-1", "--at", str(world.lines[40].entry.ts_recv_ns), "-o", "json"]
    code = (
        f"import sys; from ssmd.cli.app import main; status = main({given!r}); "
        f"found = sorted({set(heavy)!r} & set(sys.modules)); print(status, found, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.strip() == "0 []"


def test_a_bot_plays_an_archived_day_over_the_venues_protocol(world: Any) -> None:
    command = [sys.executable, "-m", "ssmd", "simulate", "kalshi", "--date", DATE, "--no-auth", "--speed", "max", "-o", "json"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        urls = json.loads(child.stdout.readline())
        assert httpx.get(f"{urls['rest']}/exchange/status").status_code == 200
        assert played_through(urls, 2, {}) == [line.entry.payload for line in world.lines if line.entry.kind == 1]
    finally:
        child.terminate()
        _, err = child.communicate(timeout=30)
    assert child.returncode == 0, err
    assert list((Path.cwd() / ".ssmd" / ENV / "captures").iterdir()) == []


def played_through(urls: dict[str, str], sessions: int, headers: dict[str, str]) -> list[bytes]:
    """What a bot that subscribes gets, over so many connections."""
    played: list[bytes] = []
    for _ in range(sessions):
        with connect(urls["websocket"], max_size=None, additional_headers=headers) as bot:
            params = {"channels": ["orderbook_delta"], "market_tickers": ["A-1"]}
            bot.send(json.dumps({"id": 1, "cmd": "subscribe", "params": params}))
            played += [frame.encode() if isinstance(frame, str) else frame for frame in bot]
    return played


def test_a_part_of_a_day_is_served_as_the_venue_would(world: Any) -> None:
    """Only one ticker's frames, over the venue's protocol, the bot's key checked as the venue does."""
    command = ["data", "replay", "--date", DATE, "--sink", "websocket", "--ticker", "B.2"]
    child = subprocess.Popen(
        [sys.executable, "-m", "ssmd", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert child.stderr is not None
        urls = {}
        while "stops it" not in (line := child.stderr.readline()):
            assert line
            urls[line.split()[0]] = line.split()[-1]
        with pytest.raises(InvalidStatus, match="401"):
            played_through(urls, 1, {})
        stored = json.loads((Path.cwd() / ".ssmd" / "simulator" / "keys" / "kalshi.json").read_text())
        key = load_private_key(stored["private_key"].encode())
        signed = headers(stored["api_key"], key, SystemClock().now_ns() // 10**6, "GET", urlsplit(urls["websocket"]).path)
        assert played_through(urls, 2, dict(signed)) == [
            line.entry.payload for line in world.lines if line.entry.kind == 1 and b'"B.2"' in line.entry.payload
        ]
    finally:
        child.terminate()
        _, err = child.communicate(timeout=30)
    assert child.returncode == 0, err


def test_records_are_served_to_every_client_from_the_beginning(world: Any, ssmd: Callable[..., Called]) -> None:
    expected = ssmd("data", "replay", "--date", DATE, "--kind", "records", "--record-kind", "book").out.splitlines()
    command = ["data", "replay", "--date", DATE, "--kind", "records", "--record-kind", "book", "--sink", "websocket"]
    child = subprocess.Popen(
        [sys.executable, "-m", "ssmd", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert child.stderr is not None
        url = child.stderr.readline().strip()
        for _ in range(2):
            with connect(url, max_size=None) as client:
                assert list(client) == expected
    finally:
        child.terminate()
        _, err = child.communicate(timeout=30)
    assert child.returncode == 0, err


def test_a_sink_and_its_options_belong_together(ssmd: Callable[..., Called]) -> None:
    for arguments in (["--sink", "nats"], ["--prefix", "x"], ["--port", "9700"]):
        called = ssmd("data", "replay", "--date", DATE, *arguments)
        assert called.status == 2
        assert re.search("belongs? to", called.err) is not None


def test_nothing_archived_cannot_be_simulated(ssmd: Callable[..., Called]) -> None:
    called = ssmd("simulate", "kalshi", "--date", "2026-05-15", "--no-auth")
    assert (called.status, "nothing of kalshi is archived for 2026-05-15" in called.err) == (1, True)
