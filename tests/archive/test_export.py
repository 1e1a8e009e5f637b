"""Exports: every format gives back exactly the records, and others read the tables."""

from __future__ import annotations

import csv
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmd.archive.reading import Wanted, Window
from ssmd.errors import Malformed, Misconfigured
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.schemas.codecs import decode_records, encode_record
from ssmd.schemas.record_columns import NO_COLUMNS, book_columns, columns_of
from ssmd.schemas.record_text import COLUMNS, fields_of, to_lines
from ssmd.schemas.records import KIND_OF, BookDelta, MarketStatus, Quote, Record, Side, SizeMeaning, Trade
from ssmd.transforms.export import FORMATS, Request, export
from ssmd.transforms.tables import batch_of, schema_of, table_of

WANTED = Wanted("test", "kalshi", "2026-05-14", KalshiMapper.version)


def by_time(record: Record) -> tuple[int, ...]:
    return record.ts_recv_ns, record.session, record.n, record.index


def plain(table: Any) -> Any:
    """Without dictionaries, whose order is of no account."""
    texts = [pa.field(f.name, pa.string()) if pa.types.is_dictionary(f.type) else f for f in table.schema]
    return table.cast(pa.schema(texts)).combine_chunks()


def sql(query: str) -> list[tuple[Any, ...]]:
    found = duckdb.sql(query)
    assert found is not None
    return found.fetchall()


@pytest.fixture
async def world(make_world: Any) -> Any:
    made = make_world()
    for _ in range(2):
        await made.session(count=150)
    await made.complete()
    return made


def of_kind(world: Any, kind: str) -> list[Record]:
    return [record for record in sorted(world.records, key=by_time) if KIND_OF[type(record)] == kind]


def value_of(record: Record, name: str) -> Decimal:
    exponent = record.price_exponent if name == "price" else record.size_exponent
    return Decimal(getattr(record, name)).scaleb(exponent)


async def test_an_export_is_written_through_no_link(world: Any, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    directory = tmp_path / "out"
    directory.mkdir()
    for format_ in FORMATS:
        name = f"kalshi-2026-05-14-trade.{format_}"
        (directory / name).symlink_to(victim)
        (directory / f".{name}.partial").symlink_to(victim)
        (made,) = await export(world.storage, Request(WANTED._replace(kinds=("trade",)), format_, directory))
        assert made.path == str(directory / name)
        assert not (directory / name).is_symlink()
    assert victim.read_text() == "precious"
    assert len(list(directory.iterdir())) == len(FORMATS)


async def test_every_format_gives_back_the_records(world: Any, tmp_path: Path) -> None:
    for format_ in FORMATS:
        made = await export(world.storage, Request(WANTED, format_, tmp_path / format_))
        assert [one.kind for one in made] == ["trade", "book", "snapshot", "gap"]
        for one in made:
            expected, path = of_kind(world, one.kind), Path(one.path)
            assert (one.records, one.size_bytes) == (len(expected), path.stat().st_size)
            assert path.name == f"kalshi-2026-05-14-{one.kind}.{format_}"
            if format_ == "capnp":
                assert list(decode_records(path.read_bytes())) == expected
            elif format_ == "jsonl":
                assert path.read_bytes() == to_lines(expected)
            elif format_ == "csv":
                with path.open(newline="") as source:
                    rows = list(csv.DictReader(source))
                assert list(rows[0]) == list(COLUMNS[one.kind])
                assert [row["n"] for row in rows] == [str(record.n) for record in expected]
            else:
                assert plain(pq.read_table(path)).equals(plain(table_of(one.kind, [batch_of(one.kind, expected)])))
        assert {path.name for path in (tmp_path / format_).iterdir()} == {Path(one.path).name for one in made}


async def test_parquet_is_exact_for_duckdb_and_polars(world: Any, tmp_path: Path) -> None:
    await export(world.storage, Request(WANTED, "parquet", tmp_path))
    path = tmp_path / "kalshi-2026-05-14-book.parquet"
    expected = of_kind(world, "book")
    found = sql(f"select ticker, price, size, side, meaning, n, epoch_ns(ts_recv) from '{path}'")
    assert found == [
        (
            one.ticker, value_of(one, "price"), value_of(one, "size"), one.side.name.lower(), one.meaning.name.lower(),
            one.n, one.ts_recv_ns,
        )
        for one in expected
        if isinstance(one, BookDelta)
    ]  # fmt: skip
    assert sql(f"select sum(size) from '{path}'") == [(sum(value_of(one, "size") for one in expected),)]
    frame = pl.read_parquet(path)
    assert frame["price"].to_list() == [value_of(one, "price") for one in expected]
    snapshots = sql(f"select bids from '{tmp_path}/kalshi-2026-05-14-snapshot.parquet'")
    assert [[(level["price"], level["size"]) for level in bids] for (bids,) in snapshots] == [
        [(Decimal(price).scaleb(-4), Decimal(size).scaleb(-2)) for price, size in one.bids]  # type: ignore[union-attr]
        for one in of_kind(world, "snapshot")
    ]


async def test_a_part_of_a_day(world: Any, tmp_path: Path) -> None:
    middle = of_kind(world, "book")[100].ts_recv_ns
    wanted = WANTED._replace(kinds=("book",), tickers=frozenset({"A-1"}), window=Window(0, middle))
    (made,) = await export(world.storage, Request(wanted, "parquet", tmp_path))
    expected = [one for one in of_kind(world, "book") if one.ticker == "A-1" and one.ts_recv_ns < middle]
    assert pq.read_table(made.path)["n"].to_pylist() == [one.n for one in expected]
    assert await export(world.storage, Request(WANTED._replace(kinds=("status",)), "parquet", tmp_path)) == []


async def test_a_failed_export_leaves_no_file(world: Any, tmp_path: Path) -> None:
    key = [key async for key in world.storage.list("normalized/test/kalshi/market-v1/book") if "capnp" in key][-1]
    await world.storage.delete(key)
    with pytest.raises(Malformed, match="not in the storage"):
        await export(world.storage, Request(WANTED._replace(kinds=("book",)), "parquet", tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []


async def test_without_pyarrow_it_is_said_what_is_needed(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Misconfigured, match="pyarrow, which is not installed") as told:
        await export(world.storage, Request(WANTED._replace(kinds=("trade",)), "parquet", tmp_path))
    assert "ssmd[export]" in told.value.mend
    assert list(tmp_path.glob("*.parquet*")) == []


INT64 = st.integers(-(2**63), 2**63 - 2)
DELTAS = st.builds(
    BookDelta,
    feed=st.just("kalshi"),
    ticker=st.sampled_from(["A", "B.2", "ünï", "A" * 30]),
    ts_event_ns=st.integers(0, 2**62),
    ts_recv_ns=st.integers(1, 2**62),
    session=st.integers(1, 2**62),
    n=st.integers(1, 2**62),
    index=st.integers(0, 2**31),
    sid=st.integers(0, 2**31),
    seq=st.integers(0, 2**62),
    price_exponent=st.integers(-10, 2),
    size_exponent=st.integers(-10, 2),
    price=INT64,
    size=INT64,
    side=st.sampled_from(Side),
    meaning=st.sampled_from(SizeMeaning),
)


@given(st.lists(DELTAS, max_size=12))
def test_columns_are_the_records(deltas: list[BookDelta]) -> None:
    ordered = sorted(deltas, key=by_time)
    found = book_columns(b"".join(map(encode_record, deltas)))
    assert sorted(zip(*found, strict=True)) == sorted(zip(*columns_of(deltas), strict=True))
    if deltas:
        batch = batch_of("book", ordered)
        assert batch["price"].to_pylist() == [value_of(one, "price") for one in ordered]
        assert batch["size"].to_pylist() == [value_of(one, "size") for one in ordered]
        assert batch["ts_event"].is_null().to_pylist() == [one.ts_event_ns == 0 for one in ordered]
    else:
        assert found == NO_COLUMNS


def test_columns_refuse_what_is_no_book_change() -> None:
    trade = Trade("kalshi", "A", 1, 1, 1, 1, 0, 1, 1, -4, -2, "t", 1, 1, Side.BID, False)
    with pytest.raises(Malformed, match="a Trade stands among book changes"):
        book_columns(encode_record(trade))


def test_more_decimals_than_a_table_holds_are_refused() -> None:
    trade = Trade("kalshi", "A", 1, 1, 1, 1, 0, 1, 1, -11, -2, "t", 1, 1, Side.BID, False)
    with pytest.raises(Malformed, match="has 11 decimals"):
        batch_of("trade", [trade])


def test_values_nobody_told_are_null() -> None:
    quote = Quote("kalshi", "A", 0, 1000, 1, 1, 0, 1, 1, -4, -2, 4000, None, None, 5, None, None, 7, None)
    status = MarketStatus("kalshi", "A", 0, 1000, 1, 1, 0, 1, 1, -4, -2, "created", "open", 5000, 0, "", None, "{}")
    (row,) = table_of("quote", [batch_of("quote", [quote])]).to_pylist()
    assert (row["bid_price"], row["bid_size"], row["ask_size"], row["ts_event"]) == (
        Decimal("0.4"),
        None,
        Decimal("0.05"),
        None,
    )
    (row,) = table_of("status", [batch_of("status", [status])]).to_pylist()
    assert (row["settlement_price"], row["close"], row["change"]) == (None, None, "created")
    assert table_of("gap", []).schema == schema_of("gap")
    assert msgspec.json.decode(to_lines([quote]))["bid_size"] is None
    assert fields_of(status)["open_ns"] == 5000
