"""Records as Cap'n Proto messages and back: the home of pycapnp.

A segment, or a market message, is framed messages one after another, each with the root type Record of `market.capnp`.
Writing and reading go through `record_layout` (fast, pure); pycapnp is what both are tested against, and reads what is
laid out in any other valid way. It is imported at first use: its import is slow and installs an import hook, which is
taken away again.
"""

from __future__ import annotations

import hashlib
import re
import struct
import sys
from collections.abc import Iterable, Iterator
from enum import IntEnum
from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple

from ssmd.errors import Malformed
from ssmd.schemas import record_layout as layout
from ssmd.schemas.record_decoder import read_message
from ssmd.schemas.record_encoder import RecordEncoder, refusal
from ssmd.schemas.records import TYPE_OF_KIND, MarketStatus, Quote, Record, Side, SizeMeaning, Trade

__all__ = [
    "RecordEncoder",
    "Survey",
    "decode_records",
    "definition",
    "definition_sha256",
    "encode_record",
    "encode_reference",
    "find_records",
    "survey",
    "whole_messages",
]

SCHEMA_VERSION: Final = 1
"""`schemaVersion` of the packaged definition."""

MEMBER_OF_KIND: Final = {
    "trade": "trade",
    "book": "bookDelta",
    "snapshot": "bookSnapshot",
    "quote": "quote",
    "status": "marketStatus",
    "gap": "gap",
}
"""Record kind -> its member of the union."""

_SEGMENTS_MAX: Final = 512
_MESSAGE_BYTES_MAX: Final = 1 << 30
_HEADER_FIELDS: Final = tuple(Trade.__struct_fields__[:11])
_PLAIN: Final = bytes(4) + layout.ROOT
"""One segment, and a Record laid out as here."""

_OUTSIDE: Final = struct.Struct("<IIQ8xQ")
"""How a message begins: segments but one, words, root pointer, and tsRecvNs behind tsEventNs."""
_TS_RECV_WORD: Final = 3
_ROOT: Final = int.from_bytes(layout.ROOT, "little")
_ENCODER: Final = RecordEncoder()


def definition() -> bytes:
    """The packaged `market.capnp`, the definition that runs."""
    return resources.files("ssmd.schemas").joinpath("market.capnp").read_bytes()


def definition_sha256() -> str:
    """SHA-256 of `definition()`, hex; the registry's must equal it."""
    return hashlib.sha256(definition()).hexdigest()


def encode_record(record: Record) -> bytes:
    """One framed, unpacked message, root Record; the same bytes for the same record, always.

    Raises:
        Malformed: a number does not fit its field, or is the one that stands for "no value"; or a text is no UTF-8.
    """
    return _ENCODER.encode(record)


@cache
def _capnp() -> Any:
    import capnp  # noqa: PLC0415 - slow, and it installs an import hook

    capnp.remove_import_hook()
    return capnp


@cache
def _schema() -> Any:
    with resources.as_file(resources.files("ssmd.schemas").joinpath("market.capnp")) as path:
        return _capnp().load(str(path)).Record


def _camel(name: str) -> str:
    return re.sub(r"_(.)", lambda match: match.group(1).upper(), name)


_CAMEL: Final = {field: _camel(field) for record_type in TYPE_OF_KIND.values() for field in record_type.__struct_fields__}
_KIND_OF_MEMBER: Final = {member: kind for kind, member in MEMBER_OF_KIND.items()}


def encode_reference(record: Record) -> bytes:
    """As `encode_record`, by pycapnp: what the layout is tested against."""
    kind = str(record.__struct_config__.tag)
    values = [getattr(record, field) for field in record.__struct_fields__]
    try:
        texts = sum(len(value.encode()) + 16 for value in values if isinstance(value, str))
        levels = sum(len(value) for value in values if isinstance(value, tuple))
        message = _schema().new_message(num_first_segment_words=64 + (texts >> 3) + levels * 2)  # one segment holds all
        for field in _HEADER_FIELDS:
            setattr(message, _CAMEL[field], getattr(record, field))
        body = message.init(MEMBER_OF_KIND[kind])
        for field in record.__struct_fields__[11:]:
            value = getattr(record, field)
            if isinstance(value, tuple):
                built = body.init(_CAMEL[field], len(value))
                for at, (price, size) in enumerate(value):
                    built[at].price = price
                    built[at].size = size
            elif isinstance(value, IntEnum):
                setattr(body, _CAMEL[field], value.name.lower())
            else:
                setattr(body, _CAMEL[field], layout.UNDEFINED if value is None else value)
    except (_capnp().KjException, OverflowError, UnicodeEncodeError) as error:
        raise refusal(record, error) from error
    encoded: bytes = message.to_bytes()
    return encoded


def decode_records(data: bytes) -> Iterator[Record]:
    """The records of concatenated messages, in order.

    Raises:
        Malformed: `data` ends inside a message, or bytes are no Record; with the byte offset of the message. Records
            before it have been given.
    """
    at, end = 0, len(data)
    while at < end:
        size = _message_size(data, at)
        try:
            yield read_message(data, at, at + size)
        except (layout.Unusual, struct.error, IndexError):
            yield _read_reference(data, at, at + size)
        except UnicodeDecodeError as error:
            raise Malformed(f"message at byte {at}: a text is no UTF-8: {error}") from error
        at += size


def whole_messages(data: bytes) -> int:
    """How many bytes of `data` are whole messages; what follows is the beginning of one more.

    Raises:
        Malformed: something in it is no message.
    """
    at, end = 0, len(data)
    unpack = layout.FRAME.unpack_from
    if end >= layout.FRAME.size and not unpack(data, 0)[0]:
        size = layout.FRAME.size + (unpack(data, 0)[1] << 3)
        if end % size == 0:
            frames = memoryview(data).cast("Q")[:: size >> 3].tolist()
            if frames.count(frames[0]) == len(frames):  # all of one size, as numbers of one market are
                return end
    while end - at >= layout.FRAME.size:
        more, words = unpack(data, at)
        if more:
            try:
                size = _message_size(data, at)
            except Malformed:
                if more >= _SEGMENTS_MAX:
                    raise
                return at
        else:
            size = layout.FRAME.size + (words << 3)
        if size > end - at:
            if size > _MESSAGE_BYTES_MAX:
                raise Malformed(f"no Cap'n Proto message starts at byte {at}: it would have {size} bytes")
            return at
        at += size
    return at


def find_records(data: bytes, kind: str, feed: str, tickers: Iterable[str]) -> list[Record]:
    """The records of `kind` and `tickers` among concatenated messages, in order, much faster than by decoding all.

    Their names are looked for where `record_layout` writes them, so `data` must have been written by it (as all segments
    are): a message laid out otherwise is not found. No text of a message can be mistaken for a name: names are found
    with their pointers, which hold NULs.

    Raises:
        Malformed: a message that was found cannot be read.
    """
    member = layout.MEMBERS[kind]
    found: list[tuple[int, int]] = []
    for ticker in tickers:
        needle = layout.names_part(feed.encode(), ticker.encode(), member)
        place = data.find(needle)
        while place >= 0:
            at = place - layout.POINTERS_AT
            if at >= 0 and not at & 7 and data[at : at + 4] + data[at + 8 : at + 16] == _PLAIN:
                found.append((at, at + _message_size(data, at)))
            place = data.find(needle, place + len(needle))
    found.sort()
    try:
        return [read_message(data, at, end) for at, end in found]
    except (layout.Unusual, struct.error, IndexError, UnicodeDecodeError) as error:
        raise Malformed(f"a message of {kind} records cannot be read: {error}") from error


class Survey(NamedTuple):
    """What concatenated messages hold, told without decoding them. Times are the least and greatest receive time, 0 = none."""

    records: int
    ts_recv_first_ns: int
    ts_recv_last_ns: int


def survey(data: bytes) -> Survey:
    """Count the messages in `data`; cheap.

    Raises:
        Malformed: as `decode_records`, where that can be seen from the outside.
    """
    size = _message_size(data, 0) if data else 0
    if data and size >= layout.POINTERS_AT and len(data) % size == 0 and data[:4] + data[8:16] == _PLAIN:
        words, step = memoryview(data).cast("Q"), size >> 3
        count = len(data) // size
        if words[::step].tobytes() == data[:8] * count and words[1::step].tobytes() == layout.ROOT * count:
            stamps = words[_TS_RECV_WORD::step]  # all of one size, as numbers of one market are
            times = stamps.tolist() if sys.byteorder == "little" else struct.unpack(f"<{count}Q", stamps.tobytes())
            return Survey(count, min(times), max(times))
    at, end = 0, len(data)
    found: list[int] = []
    unpack, note = _OUTSIDE.unpack_from, found.append
    while at < end:
        if end - at >= _OUTSIDE.size:
            more, words, root, ts_ns = unpack(data, at)
            size = layout.FRAME.size + (words << 3)
            if not more and root == _ROOT and at + size <= end and size >= layout.POINTERS_AT:
                note(ts_ns)
                at += size
                continue
        size = _message_size(data, at)
        note(_read_reference(data, at, at + size).ts_recv_ns)
        at += size
    return Survey(len(found), min(found, default=0), max(found, default=0))


def _message_size(data: bytes, at: int) -> int:
    left = len(data) - at
    if left < layout.FRAME.size:
        raise Malformed(f"message at byte {at} is cut: its frame needs {layout.FRAME.size} bytes, {left} are left")
    more, words = layout.FRAME.unpack_from(data, at)
    size = layout.FRAME.size + (words << 3)
    if more:
        header = 4 + 4 * (more + 1) + 7 & ~7
        if more >= _SEGMENTS_MAX:
            raise Malformed(f"no Cap'n Proto message starts at byte {at}: it would have {more + 1} segments")
        if left < header:
            raise Malformed(f"message at byte {at} is cut: its frame needs {header} bytes, {left} are left")
        size = header + 8 * sum(struct.unpack_from(f"<{more + 1}I", data, at + 4))
    if size > _MESSAGE_BYTES_MAX:
        raise Malformed(f"no Cap'n Proto message starts at byte {at}: it would have {size} bytes")
    if size > left:
        raise Malformed(f"message at byte {at} is cut: it has {size} bytes, {left} are left")
    return int(size)


def _read_reference(data: bytes, at: int, end: int) -> Record:
    """Any valid message, by pycapnp."""
    error_types = (_capnp().KjException, UnicodeDecodeError, ValueError)
    try:
        with _schema().from_bytes(data[at:end]) as message:
            member = message.which()
            kind = _KIND_OF_MEMBER.get(str(member))
            if kind is None:
                raise Malformed(f"message at byte {at}: union member {member} is unknown", mend="upgrade ssmd")
            body = getattr(message, str(member))
            record_type: Any = TYPE_OF_KIND[kind]
            fields = record_type.__struct_fields__
            values = [getattr(message, _CAMEL[field]) for field in _HEADER_FIELDS]
            values += [_value(record_type, field, getattr(body, _CAMEL[field]), at) for field in fields[11:]]
            record: Record = record_type(*values)
            return record
    except error_types as error:
        raise Malformed(f"message at byte {at} is no Record: {error}") from error


_OPTIONAL: Final = {(Quote, field) for field in Quote.__struct_fields__[11:]} | {(MarketStatus, "settlement_price")}
_ENUMS: Final[dict[str, type[Side | SizeMeaning]]] = {"side": Side, "aggressor": Side, "meaning": SizeMeaning}


def _value(record_type: Any, field: str, found: Any, at: int) -> Any:
    if field in _ENUMS:
        return _ENUMS[field](found.raw)
    if field in ("bids", "asks"):
        return tuple((level.price, level.size) for level in found)
    if found == layout.UNDEFINED:
        if (record_type, field) in _OPTIONAL:
            return None
        if field in ("price", "size"):
            raise Malformed(f"message at byte {at}: {field} has no value")
    return found
