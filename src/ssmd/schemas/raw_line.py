"""Lines of the raw archive: one tape entry a line, readable with `zstdcat | jq`, restored byte for byte by `read_lines`.

    {"ts_recv_ns":..,"conn":"..","session":..,"n":..[,"dir":"out"|"ctl"][,"newline":true],"frame":<JSON>|"text":".."|"b64":".."}

`frame` is the payload verbatim when it is exactly one JSON value in UTF-8 on one line, nested at most `DEPTH_MAX` deep
and without white space around it; `text` is any other UTF-8 payload, `b64` any other.

Kalshi ends each text frame with a newline: a line with `"newline":true` means the JSON and one newline. Each line says so
for itself: any part of the archive is read without the rest, and the bytes of the whole do not depend on where segments
were cut.

A capture is the same without `session` and `n`: the connections are numbered 1, 2, ... as they come, and their lines too.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final, Literal, NamedTuple

import msgspec

from ssmd.errors import Malformed
from ssmd.schemas.blocks import ENTRY_OVERHEAD_BYTES, Entry, EntryKind, Joined, Surveyed, columns_of, joined_of

DEPTH_MAX: Final = 128
"""A payload nested deeper goes as `text`: JSON readers give up at depths of their own (jq 1.6 at 256)."""

_IN: Final = int(EntryKind.IN)
_DIRECTION: Final = {EntryKind.IN: b"", EntryKind.OUT: b',"dir":"out"', EntryKind.CTL: b',"dir":"ctl"'}
_KIND: Final = {"in": EntryKind.IN, "out": EntryKind.OUT, "ctl": EntryKind.CTL}
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NESTING: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_JSON: Final = msgspec.json.Decoder(msgspec.Raw)


class LineEncoder:
    """Encodes the entries of one connection for one segment, block by block."""

    def __init__(self, connection: str) -> None:
        self._conn = msgspec.json.encode(connection)
        self._newline: dict[int, bool] = {}

    def newline(self, session: int) -> bool:
        """Whether the session's frames in this segment end in a newline each; False before its first frame."""
        return self._newline.get(session, False)

    def encode(self, session: int, entries: Sequence[Entry]) -> bytes:
        """The lines of `entries` (all of one session, in order), each with its newline."""
        if not entries:
            return b""
        kinds, numbers, times, payloads = zip(*entries, strict=True)
        self._note(session, kinds, payloads)
        sizes = [len(payload) for payload in payloads]
        return _encode(self._conn, Joined(session, numbers, bytes(kinds), times, sizes, b"".join(payloads)))

    def gather(self, block: bytes, found: Surveyed) -> BlockLines:
        """What gives the lines of a verified block's entries: much cheaper than its `encode`, which may run elsewhere."""
        header, kinds = found.header, found.kinds
        if header.session not in self._newline and _IN in kinds:
            self._note(header.session, kinds, columns_of(block).payloads)
        newline = self._newline.get(header.session, False)
        count = len(kinds)
        size_bytes = (
            count * (_fixed_bytes(self._conn, header.session, newline) + len(str(found.ts_last_ns)) - newline)
            + _digits(header.first_n, header.last_n)
            + header.entries_bytes
            - count * ENTRY_OVERHEAD_BYTES
        )
        return BlockLines(self._conn, block, size_bytes)

    def _note(self, session: int, kinds: Sequence[int], payloads: Sequence[bytes]) -> None:
        if session not in self._newline and _IN in kinds:
            self._newline[session] = payloads[kinds.index(_IN)].endswith(b"\n")


class BlockLines(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The lines of a verified block, not yet made. A message by itself.

    Attributes:
        conn: the connection as JSON.
        size_bytes: how long they will be when all entries are frames of JSON that end as the session's first does: follows
            from the block and from that alone.
    """

    conn: bytes
    block: bytes
    size_bytes: int

    def encode(self) -> bytes:
        """The lines of the archive."""
        return _encode(self.conn, joined_of(self.block))


def _encode(conn: bytes, block: Joined) -> bytes:
    """The lines of a block's entries."""
    kinds, sizes = block.kinds, block.sizes
    if kinds.count(_IN) == len(kinds):
        ends = block.payloads.endswith(b"\n")
        values = _values(block.payloads if ends else b"\n".join(block.cut()), sizes, ends)
        if values is not None:
            parts: list[object] = [b""] * (len(values) * 3)
            parts[0::3], parts[1::3], parts[2::3] = block.times, block.numbers, values
            # One format for the whole block: three times as fast as one a line.
            return _block_format(conn, block.session, ends, len(values)) % tuple(parts)
    where = _where(conn, block.session)
    entries = zip(kinds, block.numbers, block.times, block.cut(), strict=True)
    return b"".join([_encode_entry(where, kind, n, ts_recv_ns, payload) for kind, n, ts_recv_ns, payload in entries])


def _values(lines: bytes, sizes: Sequence[int], ends: bool) -> list[msgspec.Raw] | None:
    """What stands on `lines`, which are payloads of `sizes` bytes, when each is a frame: checked together.

    Args:
        ends: each payload is to end in a newline, and has that in its size; else they are joined by one.
    """
    # With this, no payload has a newline inside, or one that it should not end in.
    if lines.count(b"\n") != len(sizes) - (not ends) or b"\r" in lines:
        return None
    # To open and close a list takes two bytes, an object five: it needs a name in the one around it.
    longest = (2 if b"[" in lines else 5) * DEPTH_MAX
    if max(sizes) > longest and any(_is_deep(line) for line in lines.split(b"\n") if len(line) > longest):
        return None
    try:
        if not lines.isascii():
            lines.decode()
        values = _JSON.decode_lines(lines)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None
    # Equal when joined again: each line is one value, without white space around it. And each is as long as its payload.
    is_whole = b"\n".join(values) == (lines[:-1] if ends else lines)
    is_each = list(map(len, values)) == [size - ends for size in sizes]
    return values if is_whole and is_each else None


def _digits(first: int, last: int) -> int:
    """How many digits the numbers from `first` to `last` have together."""
    digits, most = len(str(first)), len(str(last))
    return digits * (last + 1 - first) + sum(last + 1 - int(10**more) for more in range(digits, most))


def _where(conn: bytes, session: int) -> bytes:
    return b',"conn":%b,"session":%d,"n":' % (conn, session)


@lru_cache(1024)
def _line(conn: bytes, session: int, newline: bool) -> bytes:
    """A line as a format of receive time, number and frame."""
    flag = b',"newline":true' if newline else b""
    return b'{"ts_recv_ns":%%d%b%%d%b,"frame":%%b}\n' % (_where(conn, session).replace(b"%", b"%%"), flag)


@lru_cache(64)
def _block_format(conn: bytes, session: int, newline: bool, count: int) -> bytes:
    return _line(conn, session, newline) * count


@lru_cache(1024)
def _fixed_bytes(conn: bytes, session: int, newline: bool) -> int:
    """How long a line is but for receive time, number and frame."""
    return len(_line(conn, session, newline) % (0, 0, b"")) - 2


def _encode_entry(where: bytes, kind: int, n: int, ts_recv_ns: int, payload: bytes) -> bytes:
    flag = _DIRECTION[EntryKind(kind)]
    if kind == _IN and payload.endswith(b"\n") and _is_frame(payload[:-1]):
        return b'{"ts_recv_ns":%d%b%d,"newline":true,"frame":%b}\n' % (ts_recv_ns, where, n, payload[:-1])
    return b'{"ts_recv_ns":%d%b%d%b,%b}\n' % (ts_recv_ns, where, n, flag, _content(payload))


def _content(payload: bytes) -> bytes:
    if _is_frame(payload):
        return b'"frame":%b' % payload
    try:
        return b'"text":%b' % msgspec.json.encode(payload.decode())
    except UnicodeDecodeError:
        return b'"b64":"%b"' % base64.b64encode(payload)


def _is_frame(body: bytes) -> bool:
    if b"\n" in body or b"\r" in body or _is_deep(body):
        return False
    try:
        body.decode()  # the JSON decoder lets bytes pass that are no UTF-8
        return len(memoryview(_JSON.decode(body))) == len(body)
    except (UnicodeDecodeError, msgspec.DecodeError):
        return False


def _opened(body: bytes) -> int:
    return body.count(b"{") + body.count(b"[")


def _is_deep(body: bytes) -> bool:
    if _opened(body) <= DEPTH_MAX:
        return False
    depth = 0
    for byte in _STRING.sub(b"", body):
        depth += _NESTING.get(byte, 0)
        if depth > DEPTH_MAX:
            return True
    return False


class RawLine(NamedTuple):
    """One line: an entry of `session` on `connection`."""

    connection: str
    session: int
    entry: Entry


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ts_recv_ns: int
    conn: str
    session: int | None = None
    n: int | None = None
    dir: Literal["in", "out", "ctl"] = "in"
    newline: bool = False
    frame: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | None = None
    b64: str | None = None


_LINE: Final = msgspec.json.Decoder(_Line)


def read_lines(lines: Iterable[bytes]) -> Iterator[RawLine]:
    """The entries of one segment or capture, given its lines in order, with or without their newlines.

    Raises:
        Malformed: with the number (from 1) of the line that is none. Entries before it have been given.
    """
    sessions: dict[str, int] = {}
    counts: dict[tuple[str, int], int] = {}
    for number, text in enumerate(lines, 1):
        try:
            line = _LINE.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Malformed(f"line {number} is no line of the raw archive: {error}") from error
        session = line.session
        if session is None:
            session = sessions.setdefault(line.conn, len(sessions) + 1)
        place = line.conn, session
        n = line.n
        if n is None:
            n = counts[place] = counts.get(place, 0) + 1
        kind = _KIND[line.dir]
        yield RawLine(line.conn, session, Entry(kind, n, line.ts_recv_ns, _payload(line, number)))


def _payload(line: _Line, number: int) -> bytes:
    frame, text, b64 = line.frame, line.text, line.b64
    if (frame is not msgspec.UNSET) + (text is not None) + (b64 is not None) != 1:
        raise Malformed(f"line {number} needs exactly one of frame, text and b64")
    if frame is not msgspec.UNSET:
        return bytes(frame) + b"\n" if line.newline else bytes(frame)
    if text is not None:
        return text.encode()
    try:
        return base64.b64decode(b64 or "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(f"line {number}: b64 is no base64: {error}") from error
