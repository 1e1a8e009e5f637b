"""A day's records as files for other programs: Parquet, CSV, lines of JSON, Cap'n Proto; one file a kind, in order.

A file is written beside its place and put there when it is whole. Prices and sizes are exact in all of them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NamedTuple, Protocol

import msgspec

from ssmd.archive.reading import ALL_DAY, Wanted, chains, record_contents, records
from ssmd.archive.storage import Storage
from ssmd.archive.versions import record_segments, resolved
from ssmd.errors import Unavailable
from ssmd.schemas.codecs import RecordEncoder
from ssmd.schemas.record_columns import book_columns
from ssmd.schemas.record_text import COLUMNS, fields_of, to_lines
from ssmd.schemas.records import Record
from ssmd.transforms.tables import ParquetFile, batch_of, book_batch, in_order

Format = Literal["parquet", "csv", "jsonl", "capnp"]
FORMATS: Final[tuple[Format, ...]] = ("parquet", "csv", "jsonl", "capnp")


class Exported(msgspec.Struct, frozen=True):
    """One file made."""

    kind: str
    path: str
    records: int
    size_bytes: int


class _Target(Protocol):
    """A file being written."""

    def write(self, kind: str, found: Sequence[Record]) -> None: ...

    def close(self) -> None: ...


class _Parquet:
    def __init__(self, path: Path, kind: str) -> None:
        self.file = ParquetFile(path, kind)

    def write(self, kind: str, found: Sequence[Record]) -> None:
        if found:
            self.file.write(batch_of(kind, found))

    def close(self) -> None:
        self.file.close()


class _Bytes:
    """Of the formats that are bytes one after another."""

    def __init__(self, path: Path, format_: Format, kind: str) -> None:
        self.file: BinaryIO = path.open("xb")
        self._format = format_
        self._encoder = RecordEncoder()
        if format_ == "csv":
            self.file.write((",".join(COLUMNS[kind]) + "\r\n").encode())

    def write(self, kind: str, found: Sequence[Record]) -> None:
        match self._format:
            case "capnp":
                self.file.write(b"".join(map(self._encoder.encode, found)))
            case "jsonl":
                self.file.write(to_lines(found))
            case _:
                self.file.write(_csv(kind, found))

    def close(self) -> None:
        self.file.close()


def _csv(kind: str, found: Sequence[Record]) -> bytes:
    """Rows as RFC 4180 has them; levels as JSON in a field, a value nobody told as an empty one."""
    text = io.StringIO()
    writer = csv.writer(text)
    names = COLUMNS[kind]
    for record in found:
        fields = fields_of(record)
        writer.writerow([_cell(fields[name]) for name in names])
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list():
            return msgspec.json.encode(value).decode()
        case _:
            return str(value)


class Request(NamedTuple):
    """What to export, how, and the directory it goes to."""

    wanted: Wanted
    format: Format
    directory: Path


async def export(storage: Storage, request: Request) -> list[Exported]:
    """Write the files; kinds without a record make none.

    Raises:
        Malformed, Unavailable: as `reading.records`; Unavailable also when the directory cannot be written.
        Misconfigured: Parquet is wanted and pyarrow is not installed.
    """
    try:
        request.directory.mkdir(parents=True, exist_ok=True)
        made = []
        request = request._replace(wanted=await resolved(storage, request.wanted))
        for kind in request.wanted.kinds:
            one = await _export_kind(storage, request, kind)
            if one is not None:
                made.append(one)
    except OSError as error:
        raise Unavailable(
            f"{request.directory}: {error.strerror or error}", mend="name a directory this user can write, with room"
        ) from error
    return made


async def _export_kind(storage: Storage, request: Request, kind: str) -> Exported | None:
    wanted = request.wanted._replace(kinds=(kind,))
    suffix = f"{kind}.{request.format}"
    path = request.directory / f"{wanted.feed}-{wanted.date}-{suffix}"
    partial = path.with_name(f".{path.name}.partial")
    try:
        # What another run left; and nothing is written through a link that somebody laid there.
        partial.unlink(missing_ok=True)
        count = await _write(storage, wanted, kind, request.format, partial)
        if not count:
            return None
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Exported(kind, str(path), count, path.stat().st_size)


async def _write(storage: Storage, wanted: Wanted, kind: str, format_: Format, path: Path) -> int:
    target: _Target = _Parquet(path, kind) if format_ == "parquet" else _Bytes(path, format_, kind)
    count = 0
    try:
        if isinstance(target, _Parquet) and kind == "book" and await _is_plain(storage, wanted):
            async for batch in _book_batches(storage, wanted):
                target.file.write(batch)
                count += batch.num_rows
        else:
            async for found in records(storage, wanted):
                target.write(kind, found)
                count += len(found)
    finally:
        target.close()
    return count


async def _is_plain(storage: Storage, wanted: Wanted) -> bool:
    """Whether all of a kind is wanted, and it is in order as it lies."""
    if wanted.tickers or wanted.window != ALL_DAY:
        return False
    return len(chains(await record_segments(storage, wanted, "book"))) == 1


async def _book_batches(storage: Storage, wanted: Wanted) -> AsyncIterator[Any]:
    async for _, content in record_contents(storage, wanted):
        yield in_order(book_batch(book_columns(content)))
