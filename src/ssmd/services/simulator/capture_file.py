"""Reading captures: `.jsonl` or `.jsonl.zst`, lines in the raw archive's format.

A line is `{"ts_recv_ns": int, "conn": str, "frame"|"text"|"b64": ...}`, with `session` too in an archived segment.
`frame` is the venue's JSON text verbatim but for its trailing newline, which is restored; `text` and `b64` hold a
payload that is not one line of JSON, whole. Lines with `dir` other than "in" (what we sent) are passed over.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import zstandard

from ssmd.errors import Malformed, Misconfigured

_CHUNK = 1 << 16


class _Line(msgspec.Struct, frozen=True):
    ts_recv_ns: int
    conn: str
    frame: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    b64: str | msgspec.UnsetType = msgspec.UNSET
    session: str | int = ""
    dir: str = "in"


class CapturedFrame(NamedTuple):
    """One recorded payload as the venue sent it, newline and all.

    Attributes:
        line: its line in the file, from 1.
        connection: what tells one recorded connection from the other.
    """

    line: int
    ts_recv_ns: int
    connection: tuple[str, str]
    payload: bytes
    binary: bool


class Span(NamedTuple):
    """The lines [first, last] of one recorded connection, others may stand between; `frames` of them are its own."""

    connection: tuple[str, str]
    first: int
    last: int
    frames: int


_decoder = msgspec.json.Decoder(_Line)


def frames(path: Path, first: int = 1) -> Iterator[CapturedFrame]:
    """The received frames of `path` from line `first` on.

    Raises:
        Malformed: a line does not fit; names file and line.
        Misconfigured: the file cannot be read.
    """
    number = 0
    try:
        with path.open("rb") as raw:
            for number, line in enumerate(_zstd_lines(raw) if path.suffix == ".zst" else raw, 1):
                if number >= first:
                    frame = _frame(path, number, line)
                    if frame is not None:
                        yield frame
    except zstandard.ZstdError as error:
        raise Malformed(f"capture {path} line {number + 1}: not zstd from here on ({error})", mend=f"zstd -t {path}") from error
    except OSError as error:
        raise Misconfigured(
            f"capture {path} cannot be read: {error.strerror}", mend="name an existing .jsonl or .jsonl.zst"
        ) from error


def spans(path: Path) -> Iterator[CapturedFrame | list[Span]]:
    """Every frame of `path`, then the list of its connections in the order they begin.

    Raises:
        Malformed: as `frames`; also a capture without a frame.
        Misconfigured: as `frames`.
    """
    found: dict[tuple[str, str], list[int]] = {}
    for frame in frames(path):
        span = found.setdefault(frame.connection, [frame.line, 0, 0])
        span[1] = frame.line
        span[2] += 1
        yield frame
    if not found:
        raise Malformed(f"capture {path} holds no frame", mend='expected lines {"ts_recv_ns": ..., "conn": ..., "frame": ...}')
    yield [Span(connection, *numbers) for connection, numbers in found.items()]


def _zstd_lines(raw: BinaryIO) -> Iterator[bytes]:
    """Lines of a zstd file of one or more frames, without their newlines; a file cut short is an error, not an end."""
    decompressor = None
    rest = b""
    while data := raw.read(_CHUNK):
        while data:
            if decompressor is None or decompressor.eof:
                decompressor = zstandard.ZstdDecompressor().decompressobj()
            *lines, rest = (rest + decompressor.decompress(data)).split(b"\n")
            yield from lines
            data = decompressor.unused_data if decompressor.eof else b""
    if rest:
        yield rest
    if decompressor is not None and not decompressor.eof:
        raise zstandard.ZstdError("the file ends in the middle of a zstd frame")


def _frame(path: Path, number: int, text: bytes) -> CapturedFrame | None:
    try:
        line = _decoder.decode(text)
        given = [value for value in (line.frame, line.text, line.b64) if not isinstance(value, msgspec.UnsetType)]
        if len(given) != 1:
            raise msgspec.ValidationError(f"has {len(given)} of frame, text and b64, expected one")
        if line.ts_recv_ns < 0:
            raise msgspec.ValidationError(f"ts_recv_ns is {line.ts_recv_ns}, expected >= 0")
        if line.dir != "in":
            return None
        connection = (line.conn, str(line.session))
        if isinstance(line.frame, msgspec.Raw):
            return CapturedFrame(number, line.ts_recv_ns, connection, bytes(line.frame) + b"\n", binary=False)
        if isinstance(line.text, str):
            return CapturedFrame(number, line.ts_recv_ns, connection, line.text.encode(), binary=False)
        payload = base64.b64decode(given[0] if isinstance(given[0], str) else "", validate=True)
        return CapturedFrame(number, line.ts_recv_ns, connection, payload, binary=True)
    except (msgspec.DecodeError, UnicodeError, binascii.Error) as error:
        mend = 'a line is {"ts_recv_ns": int, "conn": str, "frame"|"text"|"b64": ...}'
        raise Malformed(f"capture {path} line {number}: {error}", mend=mend) from error
