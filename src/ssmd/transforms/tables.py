"""Records as Arrow tables, one shape a kind, and as Parquet: the home of pyarrow (`pip install 'ssmd[export]'`).

Prices and sizes are decimal128(38, 10): exact, compared and summed as numbers by whatever reads them. A number that
needs more than ten decimals is refused, never rounded. Times are UTC nanoseconds; `ts_event` is null where the venue
told none. Levels of a snapshot are lists of (price, size).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from ssmd.errors import Malformed, Misconfigured
from ssmd.schemas.record_columns import BookColumns, columns_of
from ssmd.schemas.records import KIND_OF, TYPE_OF_KIND, Record, Side, SizeMeaning

SCALE: Final = 10
"""Decimals of every price and size."""
_PRICES: Final = frozenset({"price", "bid_price", "ask_price", "last_price", "settlement_price"})
_SIZES: Final = frozenset({"size", "bid_size", "ask_size", "last_size", "volume", "open_interest"})
_ENUMS: Final = frozenset({"side", "aggressor", "meaning"})
_LEVELS: Final = frozenset({"bids", "asks"})
_TIMES: Final = frozenset({"open_ns", "close_ns", "start_ns", "end_ns"})
_HEAD: Final = ("feed", "ticker", "ts_event_ns", "ts_recv_ns", "session", "n", "index", "sid", "seq")
_INT64: Final = (-(1 << 63), (1 << 63) - 1)


def _arrow() -> Any:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise Misconfigured(
            "tables and Parquet need pyarrow, which is not installed",
            mend="pip install 'ssmd[export]' (in a checkout: make setup)",
        ) from error
    return pa


def schema_of(kind: str) -> Any:
    """The `pyarrow.Schema` of a kind's table."""
    pa = _arrow()
    texts = pa.dictionary(pa.int32(), pa.string())
    time, number = pa.timestamp("ns", tz="UTC"), pa.decimal128(38, SCALE)
    head = [("feed", texts), ("ticker", texts), ("ts_event", time), ("ts_recv", time)]
    head += [("session", pa.uint64()), ("n", pa.uint64()), ("index", pa.uint32()), ("sid", pa.uint32()), ("seq", pa.uint64())]
    for name in TYPE_OF_KIND[kind].__struct_fields__[11:]:
        if name in _PRICES | _SIZES:
            head.append((name, number))
        elif name in _ENUMS:
            head.append((name, texts))
        elif name in _LEVELS:
            head.append((name, pa.list_(pa.struct([("price", number), ("size", number)]))))
        elif name in _TIMES:
            head.append((name.removesuffix("_ns"), time))
        elif name.startswith("is_"):
            head.append((name, pa.bool_()))
        else:
            head.append((name, pa.uint64() if name.startswith("seq_") else pa.string()))
    return pa.schema(head)


def book_batch(columns: BookColumns) -> Any:
    """A `pyarrow.RecordBatch` of book changes."""
    pa, schema = _arrow(), schema_of("book")
    c = columns
    arrays = [
        _names(c.feed), _names(c.ticker), _times(c.ts_event_ns), _times(c.ts_recv_ns),
        _unsigned("Q", c.session), _unsigned("Q", c.n), _unsigned("I", c.index), _unsigned("I", c.sid), _unsigned("Q", c.seq),
        _decimals(c.price, c.price_exponent), _decimals(c.size, c.size_exponent),
        _words(c.side, [side.name.lower() for side in Side]), _words(c.meaning, [one.name.lower() for one in SizeMeaning]),
    ]  # fmt: skip
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def in_order(batch: Any) -> Any:
    """The rows of a record batch by receive time, session, n and index."""
    import pyarrow.compute as pc  # noqa: PLC0415 - an extra, and slow to import

    keys = [(name, "ascending") for name in ("ts_recv", "session", "n", "index")]
    return batch.take(pc.sort_indices(batch, sort_keys=keys))


def batch_of(kind: str, records: Sequence[Record]) -> Any:
    """A `pyarrow.RecordBatch` of records that are all of `kind`.

    Raises:
        Malformed: a number needs more than ten decimals.
    """
    if kind == "book":
        return book_batch(columns_of(records))  # type: ignore[arg-type]  # all of this kind
    pa, schema = _arrow(), schema_of(kind)
    arrays: list[Any] = []
    for field in schema:
        name = field.name
        source = name if name not in {"ts_event", "ts_recv", "open", "close", "start", "end"} else f"{name}_ns"
        values = [getattr(record, source) for record in records]
        if name in _PRICES or name in _SIZES:
            exponents = [record.price_exponent if name in _PRICES else record.size_exponent for record in records]
            arrays.append(_nullable(values, exponents))
        elif name in _ENUMS:
            arrays.append(_names([value.name.lower() for value in values]))
        elif name in _LEVELS:
            arrays.append(pa.array([_levels(record, value) for record, value in zip(records, values, strict=True)], field.type))
        elif source.endswith("_ns"):
            arrays.append(_times(values))
        elif name in {"feed", "ticker"}:
            arrays.append(_names(values))
        else:
            arrays.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def table_of(kind: str, batches: Iterable[Any]) -> Any:
    """One `pyarrow.Table` of `batches`, which may be none."""
    table = _arrow().Table.from_batches(list(batches), schema=schema_of(kind))
    return table.unify_dictionaries()


class ParquetFile:
    """A Parquet file being written, a row group of at least `ROWS` rows at a time. Close it in any case."""

    ROWS: Final = 131_072

    def __init__(self, path: Path, kind: str) -> None:
        schema = schema_of(kind)  # says so where pyarrow is not installed
        import pyarrow.parquet as pq  # noqa: PLC0415 - an extra, and slow to import

        self._kind = kind
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", compression_level=1)
        self._held: list[Any] = []
        self._rows = 0

    def write(self, batch: Any) -> None:
        """Add a record batch of the kind."""
        self._held.append(batch)
        self._rows += batch.num_rows
        if self._rows >= self.ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(table_of(self._kind, self._held))
        self._held, self._rows = [], 0

    def close(self) -> None:
        """Write what is held, and the footer."""
        self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """Close it unfinished."""
        self._held = []
        self._writer.close()


def _names(values: Sequence[str]) -> Any:
    pa = _arrow()
    numbers: dict[str, int] = {}
    indices = array("i", [numbers.setdefault(value, len(numbers)) for value in values])
    made = pa.Array.from_buffers(pa.int32(), len(values), [None, pa.py_buffer(indices)])
    return pa.DictionaryArray.from_arrays(made, pa.array(list(numbers), pa.string()))


def _words(values: Sequence[int], words: Sequence[str]) -> Any:
    pa = _arrow()
    made = pa.Array.from_buffers(pa.int32(), len(values), [None, pa.py_buffer(array("i", values))])
    return pa.DictionaryArray.from_arrays(made, pa.array(words, pa.string()))


def _unsigned(code: str, values: Sequence[int]) -> Any:
    pa = _arrow()
    kind = pa.uint64() if code == "Q" else pa.uint32()
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(array(code, values))])


def _times(values: Sequence[int]) -> Any:
    pa = _arrow()
    time = pa.timestamp("ns", tz="UTC")
    if 0 in values:
        return pa.array([value or None for value in values], pa.int64()).cast(time)
    return pa.Array.from_buffers(time, len(values), [None, pa.py_buffer(array("q", values))])


def _nullable(values: Sequence[int | None], exponents: Sequence[int]) -> Any:
    if None not in values:
        return _decimals(values, exponents)  # type: ignore[arg-type]  # none is None
    return _slowly(values, exponents)


def _slowly(values: Sequence[int | None], exponents: Sequence[int]) -> Any:
    pa = _arrow()
    made = [None if value is None else _decimal(value, at) for value, at in zip(values, exponents, strict=True)]
    return pa.array(made, pa.decimal128(38, SCALE))


def _decimal(value: int, exponent: int) -> Decimal:
    _check(exponent)
    return Decimal(value).scaleb(exponent)


def _check(exponent: int) -> None:
    if exponent < -SCALE:
        raise Malformed(
            f"a number has {-exponent} decimals, tables hold {SCALE}", mend="ssmd data export --format jsonl keeps all of them"
        )


def _decimals(values: Sequence[int], exponents: Sequence[int]) -> Any:
    """Exact: mantissas are multiplied to the table's scale, and laid down as the 128-bit numbers that Arrow holds."""
    pa = _arrow()
    kinds = set(exponents)
    for exponent in kinds:
        _check(exponent)
    if len(kinds) > 1:
        scaled = [value * 10 ** (SCALE + exponent) for value, exponent in zip(values, exponents, strict=True)]
    else:
        factor = int(10 ** (SCALE + kinds.pop())) if kinds else 1
        scaled = [value * factor for value in values]
    if scaled and (min(scaled) < _INT64[0] or max(scaled) > _INT64[1]):
        return _slowly(values, exponents)
    numbers = array("q", bytes(16 * len(scaled)))
    numbers[0::2] = array("q", scaled)
    numbers[1::2] = array("q", [value >> 63 for value in scaled])
    return pa.Array.from_buffers(pa.decimal128(38, SCALE), len(scaled), [None, pa.py_buffer(numbers)])


def _levels(record: Record, levels: Sequence[tuple[int, int]]) -> list[dict[str, Decimal]]:
    return [
        {"price": _decimal(price, record.price_exponent), "size": _decimal(size, record.size_exponent)}
        for price, size in levels
    ]


def kind_of(record: Record) -> str:
    """The kind token of a record."""
    return KIND_OF[type(record)]
