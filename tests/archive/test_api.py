"""`ssmd.open`: the archive for plain Python, and the notebook-style example as it stands in docs."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

import ssmd
from ssmd.api.archive import Archive, price_of, size_of
from ssmd.archive.storage_local import LocalStorage
from ssmd.errors import Misconfigured, Rejected
from ssmd.schemas.records import BookDelta, BookSnapshot, Record, Trade

ROOT = Path(__file__).parents[2]
ENV, DATE = "kalshi-dev", "2026-05-14"


@pytest.fixture
def world(tmp_path: Path, make_world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    shutil.copytree(ROOT / "exchanges", tmp_path / "exchanges")
    monkeypatch.delenv("SSMD_WORKSPACE", raising=False)
    made = make_world(LocalStorage(tmp_path / ".ssmd" / ENV / "archive"), env=ENV)

    async def fill() -> None:
        for _ in range(2):
            await made.session(count=90)
        await made.complete()

    asyncio.run(fill())
    return made


@pytest.fixture
def archive(world: Any, tmp_path: Path) -> Iterator[Archive]:
    with ssmd.open(ENV, workspace=str(tmp_path)) as opened:
        yield opened


def in_order(world: Any) -> list[Record]:
    return sorted(world.records, key=lambda one: (one.ts_recv_ns, one.session, one.n, one.index))


def test_trades_books_and_everything(world: Any, archive: Archive) -> None:
    everything = in_order(world)
    assert list(archive.replay(DATE)) == everything
    trades = list(archive.trades("A-1", DATE))
    assert trades == [one for one in everything if isinstance(one, Trade) and one.ticker == "A-1"]
    assert {(price_of(one, one.price), size_of(one, one.size)) for one in trades} == {(Decimal("0.3000"), Decimal("2.50"))}
    books = [one for one in everything if isinstance(one, BookSnapshot | BookDelta) and one.ticker == "B.2"]
    assert list(archive.books("B.2", DATE)) == books
    start, end = everything[10].ts_recv_ns, everything[90].ts_recv_ns
    part = list(archive.replay(DATE, start_ns=start, end_ns=end))
    assert part == [one for one in everything if start <= one.ts_recv_ns < end]
    assert list(archive.raw(DATE)) == world.lines


def test_an_iterator_may_be_left_in_the_middle(archive: Archive) -> None:
    first = next(archive.replay(DATE))
    assert next(archive.replay(DATE)) == first


def test_book_at_and_gaps(world: Any, archive: Archive) -> None:
    at_ns = world.lines[30].entry.ts_recv_ns
    found = archive.book_at("A-1", at_ns, depth=1)
    assert (found.at_ns, len(found.bids) <= 1, found.session) == (at_ns, True, world.lines[30].session)
    with pytest.raises(Rejected, match="no snapshot"):
        archive.book_at("NOPE", at_ns)
    assert archive.gaps(DATE) == []
    with pytest.raises(Rejected, match="nothing of kalshi is archived for 2020-01-01"):
        archive.gaps("2020-01-01")


def test_tables(world: Any, archive: Archive) -> None:
    table = archive.table("trade", DATE, tickers=["A-1"])
    assert table["n"].to_pylist() == [one.n for one in archive.trades("A-1", DATE)]
    assert table["price"].to_pylist() == [Decimal("0.3")] * table.num_rows
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    assert frame["price"].to_list() == [Decimal("0.3")] * table.num_rows
    assert duckdb.arrow(table).aggregate("sum(size)").fetchall() == [(Decimal("2.5") * table.num_rows,)]


def test_which_environment(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSMD_ENV", ENV)
    with ssmd.open() as archive:
        assert (archive.env, archive.feed) == (ENV, "kalshi")
    archive.close()
    with pytest.raises(Misconfigured, match='no environment "nope"'):
        ssmd.open("nope")


def test_importing_ssmd_is_quick_and_brings_nothing() -> None:
    heavy = ("ssmd.", "msgspec", "asyncio")
    code = f"import sys; import ssmd; print(sorted(name for name in sys.modules if name.startswith({heavy!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_the_example_runs(world: Any, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "archive.md").read_text(encoding="utf-8")
    code = page.split("```python\n", 1)[1].split("```", 1)[0]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        env={"SSMD_ENV": ENV, "TICKER": "A-1", "DATE": DATE, "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "traded at 0.3000" in done.stdout
