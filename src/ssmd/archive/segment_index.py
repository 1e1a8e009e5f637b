"""Sidecars: where in a segment a ticker's records stand, and what its book changes come to.

A sidecar lies beside its segment, under the same name with `.index`, and follows from the segment's bytes alone. Without
one, or with a damaged one, the whole segment is read: slower, with the same answer. It names its segment's SHA-256 and a
digest of each zstd frame, so that what is read with its help is what was sealed.

Frames stand in groups. Of each group a ticker has its first and last record and, for book changes, the sum of the sizes
at each price: a whole group is taken without reading it. Layout, little endian:

    0   8s  magic "SSMDIDX1"
    8   u32 size of the head
    12  16s BLAKE2b-128 of the head
    28      head: MessagePack of `Head`
            body: a block for each ticker, MessagePack of [`Group`, ...]
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec
import zstandard

from ssmd.errors import Malformed
from ssmd.schemas.book_tally import Level, tally
from ssmd.schemas.codecs import decode_records, whole_messages
from ssmd.schemas.record_columns import BookColumns, book_columns

SUFFIX: Final = ".index"
INDEXED_KINDS: Final = ("book", "snapshot", "gap")
BOOK_GROUP_FRAMES: Final = 4
"""Frames of 1 MiB, about 29,000 book changes: at most two such groups are read for a book, and as many sums kept."""
PREFIX_BYTES: Final = 28
_MAGIC: Final = b"SSMDIDX1"
_PREFIX: Final = struct.Struct("<8sI16s")
_FEED_BYTES: Final = 32 << 10
_DIGEST_BYTES: Final = 8

Sum = tuple[int, int, int, int, int]
"""Price exponent, size exponent, side, price, and the sum of the changes there."""


class Place(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A record: when it was received, its identity, and the venue's numbers of it."""

    ts_recv_ns: int
    session: int
    n: int
    index: int
    sid: int
    seq: int


class Group(msgspec.Struct, frozen=True, array_like=True):
    """A ticker's records in one group of frames. `sums` None = the records have to be read."""

    number: int
    records: int
    first: Place
    last: Place
    ts_min_ns: int
    ts_max_ns: int
    sums: list[Sum] | None = None


class Frame(NamedTuple):
    """Where a zstd frame stands among the stored bytes, and a digest of them."""

    offset: int
    size: int
    digest: bytes


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What a sidecar is of. `tickers`: name -> offset of its block in the body, size, CRC-32."""

    sha256: str
    byte_size: int
    group_frames: int
    frames: list[Frame]
    tickers: dict[str, tuple[int, int, int]]

    def frames_of(self, group: Group) -> list[Frame]:
        """The frames of a group."""
        return self.frames[group.number * self.group_frames :][: self.group_frames]


class StoredFrame(NamedTuple):
    frame: Frame
    content: bytes


_head: Final = msgspec.msgpack.Decoder(Head)
_groups: Final = msgspec.msgpack.Decoder(list[Group])


def index_key(segment_key: str) -> str:
    """Key of the sidecar of the segment at `segment_key`."""
    return segment_key.removesuffix(".zst") + SUFFIX


def segment_key_of(key: str) -> str:
    """The other way round; "" = `key` is no sidecar's."""
    return key.removesuffix(SUFFIX) + ".zst" if key.endswith(SUFFIX) else ""


def digest_of(stored: bytes) -> bytes:
    """What `Frame.digest` is of a frame's bytes."""
    return hashlib.blake2b(stored, digest_size=_DIGEST_BYTES).digest()


def stored_frames(pieces: Iterable[bytes]) -> Iterator[StoredFrame]:
    """The frames of a segment, given its stored bytes in pieces.

    Raises:
        Malformed: one is damaged, or the last is cut.
    """
    offset, stored, held = 0, [], []
    stream = zstandard.ZstdDecompressor().decompressobj()
    try:
        for piece in pieces:
            for at in range(0, len(piece), _FEED_BYTES):
                data = piece[at : at + _FEED_BYTES]
                while data:
                    held.append(stream.decompress(data))
                    rest = stream.unused_data if stream.eof else b""
                    stored.append(data[: len(data) - len(rest)])
                    if stream.eof:
                        whole = b"".join(stored)
                        yield StoredFrame(Frame(offset, len(whole), digest_of(whole)), b"".join(held))
                        offset += len(whole)
                        stream, stored, held = zstandard.ZstdDecompressor().decompressobj(), [], []
                    data = rest
    except zstandard.ZstdError as error:
        raise Malformed(f"a segment's zstd frame is damaged: {error}") from error
    if stored:
        raise Malformed("a segment ends inside a zstd frame")


def build(kind: str, sha256: str, pieces: Iterable[bytes]) -> bytes | None:
    """The sidecar of a segment of `kind`, given its stored bytes; None = it can have none.

    Raises:
        Malformed: the bytes are no segment's.
    """
    if kind not in INDEXED_KINDS:
        return None
    builder = IndexBuilder(kind)
    for stored, content in stored_frames(pieces):
        builder.add(stored.size, stored.digest, content)
    return builder.finish(sha256)


class IndexBuilder:
    """Makes the sidecar of a segment of `kind` (one of INDEXED_KINDS) of its frames, one after another."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._size = BOOK_GROUP_FRAMES if kind == "book" else 1
        self._frames: list[Frame] = []
        self._groups: dict[str, list[Group]] = {}
        self._waiting: list[bytes] = []
        self._can_be = True

    def add(self, stored_bytes: int, digest: bytes, content: bytes) -> None:
        """The next frame: how long it is where it is stored, its `digest_of`, and what it holds.

        Raises:
            Malformed: the content is no segment's.
        """
        # A message that goes over frames has no place in a group.
        self._can_be = self._can_be and whole_messages(content) == len(content)
        if not self._can_be:
            return
        offset = self._frames[-1].offset + self._frames[-1].size if self._frames else 0
        self._frames.append(Frame(offset, stored_bytes, digest))
        self._waiting.append(content)
        if len(self._waiting) == self._size:
            self._close_group()

    def _close_group(self) -> None:
        number = (len(self._frames) - 1) // self._size
        found = _book_groups(number, self._waiting) if self._kind == "book" else _other_groups(number, self._waiting)
        for ticker, group in found:
            self._groups.setdefault(ticker, []).append(group)
        self._waiting = []

    def finish(self, sha256: str) -> bytes | None:
        """The sidecar of the segment that has this SHA-256; None = it can have none.

        Raises:
            Malformed: as `add`.
        """
        if not self._can_be:
            return None
        if self._waiting:
            self._close_group()
        return _encode(sha256, self._size, self._frames, self._groups)


def _book_groups(number: int, contents: list[bytes]) -> Iterator[tuple[str, Group]]:
    found = tally(contents)
    if found is None:
        yield from _unlike_book_groups(number, contents)
        return
    is_plain = found.is_summable and found.is_one_subscription
    sums = _sums_by_ticker(found.sums, found.counts) if is_plain else {}
    low, high = (0, 0) if is_plain else found.time_bounds()
    for ticker, count in found.counts.items():
        begin, end = Place(*found.place(found.first[ticker])), Place(*found.place(found.last[ticker]))
        # Within one session times do not fall; else the group's are taken, which hold the ticker's.
        bounds = (begin.ts_recv_ns, end.ts_recv_ns) if is_plain else (low, high)
        yield ticker, Group(number, count, begin, end, *bounds, sums=sums.get(ticker))


def _sums_by_ticker(sums: Mapping[Level, int], tickers: Iterable[str]) -> dict[str, list[Sum]]:
    by_ticker: dict[str, list[Sum]] = {ticker: [] for ticker in tickers}
    seen: set[tuple[str, int, int]] = set()
    for (ticker, price_exponent, size_exponent, side, price), size in sums.items():
        told = ticker, price_exponent, size_exponent
        if size or told not in seen:  # a book takes its exponents from its changes, whatever they come to
            seen.add(told)
            by_ticker[ticker].append((price_exponent, size_exponent, side, price, size))
    return by_ticker


def _unlike_book_groups(number: int, contents: list[bytes]) -> Iterator[tuple[str, Group]]:
    """The same of messages of several sizes, column by column."""
    sums: defaultdict[tuple[str, int, int, int, int], int] = defaultdict(int)
    counts: Counter[str] = Counter()
    first: dict[str, Place] = {}
    last: dict[str, Place] = {}
    subscriptions: set[tuple[int, int]] = set()
    low, high, is_summable = 1 << 64, 0, True
    for columns in map(book_columns, contents):
        is_summable = is_summable and _is_summable(columns)
        keys = zip(columns.ticker, columns.price_exponent, columns.size_exponent, columns.side, columns.price, strict=True)
        for key, size in zip(keys, columns.size, strict=True):
            sums[key] += size
        counts.update(columns.ticker)
        subscriptions.update(zip(columns.session, columns.sid, strict=True))
        places = [getattr(columns, name) for name in Place.__struct_fields__]
        rows = range(len(columns.ticker))
        for ticker, row in dict(zip(reversed(columns.ticker), reversed(rows), strict=True)).items():
            if ticker not in first:
                first[ticker] = Place(*(column[row] for column in places))
        for ticker, row in dict(zip(columns.ticker, rows, strict=True)).items():
            last[ticker] = Place(*(column[row] for column in places))
        low, high = min(low, min(columns.ts_recv_ns, default=low)), max(high, max(columns.ts_recv_ns, default=0))
    is_plain = is_summable and len(subscriptions) == 1
    by_ticker = _sums_by_ticker(sums, counts) if is_plain else {}
    for ticker, count in counts.items():
        begin, end = first[ticker], last[ticker]
        bounds = (begin.ts_recv_ns, end.ts_recv_ns) if is_plain else (low, high)
        yield ticker, Group(number, count, begin, end, *bounds, sums=by_ticker.get(ticker))


def _is_summable(columns: BookColumns) -> bool:
    """Whether all are changes of a known side: totals depend on their order."""
    return not any(columns.meaning) and all(columns.side)


def _other_groups(number: int, contents: list[bytes]) -> Iterator[tuple[str, Group]]:
    places: dict[str, list[Place]] = {}
    for content in contents:
        for one in decode_records(content):
            place = Place(one.ts_recv_ns, one.session, one.n, one.index, one.sid, one.seq)
            places.setdefault(one.ticker, []).append(place)
    for ticker, found in places.items():
        times = [place.ts_recv_ns for place in found]
        yield ticker, Group(number, len(found), min(found), max(found), min(times), max(times))


def _encode(sha256: str, size: int, frames: list[Frame], groups: dict[str, list[Group]]) -> bytes:
    body: list[bytes] = []
    tickers: dict[str, tuple[int, int, int]] = {}
    at = 0
    for ticker, of_ticker in sorted(groups.items()):
        block = msgspec.msgpack.encode(of_ticker)
        tickers[ticker] = at, len(block), zlib.crc32(block)
        body.append(block)
        at += len(block)
    byte_size = frames[-1].offset + frames[-1].size if frames else 0
    head = msgspec.msgpack.encode(Head(sha256, byte_size, size, frames, tickers))
    prefix = _PREFIX.pack(_MAGIC, len(head), hashlib.blake2b(head, digest_size=16).digest())
    return b"".join([prefix, head, *body])


def decode_prefix(data: bytes) -> int:
    """The size of the head that follows.

    Raises:
        Malformed: `data` does not begin a sidecar.
    """
    if len(data) < PREFIX_BYTES:
        raise Malformed("a sidecar is cut")
    magic, size, _ = _PREFIX.unpack_from(data)
    if magic != _MAGIC:
        raise Malformed("not a sidecar")
    return int(size)


def decode_head(data: bytes) -> Head:
    """The head behind its prefix, both in `data`.

    Raises:
        Malformed: it is damaged.
    """
    size = decode_prefix(data)
    head = data[PREFIX_BYTES : PREFIX_BYTES + size]
    if hashlib.blake2b(head, digest_size=16).digest() != _PREFIX.unpack_from(data)[2]:
        raise Malformed("a sidecar's head is damaged")
    try:
        return _head.decode(head)
    except msgspec.DecodeError as error:
        raise Malformed(f"a sidecar's head cannot be read: {error}") from error


def decode_groups(block: bytes, crc: int) -> list[Group]:
    """A ticker's groups.

    Raises:
        Malformed: they are damaged.
    """
    try:
        if zlib.crc32(block) == crc:
            return _groups.decode(block)
    except msgspec.DecodeError as error:
        raise Malformed(f"a sidecar's block cannot be read: {error}") from error
    raise Malformed("a sidecar's block is damaged")
