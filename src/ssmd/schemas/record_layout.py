"""Where the fields of `market.capnp` lie in a message, so that records are packed and unpacked without building one.

A message as written here (and by the reference implementation, with which it is tested byte-equal) has one segment:

    frame header (8 bytes), root pointer, Record (7 words of data, 3 pointers), feed, ticker, the union's struct,
    then the texts and lists of that struct, in the order of its fields

(https://capnproto.org/encoding.html, read 2026-11-22). What is read may be laid out otherwise, by another writer or
with fields added later: `Unusual` is raised then, and `schemas.codecs` reads such a message with the reference.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

UNDEFINED: Final = 0x7FFF_FFFF_FFFF_FFFF
"""`undefinedPrice`: no value in a price or size field."""

HEAD: Final = Struct("<QQQQIIQbbH4x")
"""Record's data: tsEventNs, tsRecvNs, session, n, index, sid, seq, priceExponent, sizeExponent, union member."""
HEAD_FORMAT: Final = "QQQQIIQbbH4x"
HEAD_AT: Final = 16
POINTERS_AT: Final = HEAD_AT + HEAD.size
FRAME: Final = Struct("<II")
ROOT: Final = bytes.fromhex("0000000007000300")
RECORD_WORDS: Final = 11
"""The root pointer and Record."""

TRADE, BOOK, SNAPSHOT, QUOTE, STATUS, GAP = range(6)
"""The union's members."""
MEMBERS: Final = {"trade": TRADE, "book": BOOK, "snapshot": SNAPSHOT, "quote": QUOTE, "status": STATUS, "gap": GAP}
"""By kind of record."""

WORDS: Final = {TRADE: (3, 1), BOOK: (3, 0), SNAPSHOT: (1, 2), QUOTE: (8, 0), STATUS: (3, 4), GAP: (4, 5)}
"""The union's structs: words of data, pointers."""

BOOK_FORMAT: Final = "qqHH4x"
BOOK_BODY: Final = Struct("<" + BOOK_FORMAT)
TRADE_FORMAT: Final = "qqHB5x"
TRADE_BODY: Final = Struct("<" + TRADE_FORMAT)
QUOTE_FORMAT: Final = "8q"
QUOTE_BODY: Final = Struct("<" + QUOTE_FORMAT)
STATUS_BODY: Final = Struct("<QQq")
GAP_BODY: Final = Struct("<QQQQ")
SNAPSHOT_BODY: Final = Struct("<B7x")

_POINTER: Final = Struct("<iI")
_COMPOSITE_TAG: Final = Struct("<II")
_LEVEL_WORDS: Final = 2


class Unusual(Exception):
    """Not the layout written here; the reference implementation has to read it (or refuse it)."""


def padded_words(size: int) -> int:
    """Words that hold a text of `size` bytes and its NUL."""
    return (size >> 3) + 1


def pad_text(text: bytes) -> bytes:
    """The text, its NUL and the padding to a whole word."""
    return text.ljust(padded_words(len(text)) << 3, b"\0")


def text_pointer(distance: int, size: int) -> bytes:
    """A pointer to a text of `size` bytes, `distance` words behind the pointer's end."""
    return _POINTER.pack(distance << 2 | 1, (size + 1) << 3 | 2)


def struct_pointer(distance: int, member: int) -> bytes:
    """A pointer to the struct of union member `member`."""
    data, pointers = WORDS[member]
    return _POINTER.pack(distance << 2, pointers << 16 | data)


def names_part(feed: bytes, ticker: bytes, member: int) -> bytes:
    """Record's three pointers, then the texts of feed and ticker: all between Record's data and the union's struct."""
    feed_words, ticker_words = padded_words(len(feed)), padded_words(len(ticker))
    return b"".join(
        (
            text_pointer(2, len(feed)),
            text_pointer(1 + feed_words, len(ticker)),
            struct_pointer(feed_words + ticker_words, member),
            pad_text(feed),
            pad_text(ticker),
        )
    )


def prefix(words: int) -> bytes:
    """Frame header of one segment of `words` words, and the root pointer."""
    return FRAME.pack(0, words) + ROOT


def texts_part(texts: list[bytes]) -> bytes:
    """The pointers of a struct whose pointers are all texts, and the texts behind them."""
    pointers, bodies, words = [], [], len(texts)
    for at, text in enumerate(texts):
        pointers.append(text_pointer(words - at - 1, len(text)))
        bodies.append(pad_text(text))
        words += padded_words(len(text))
    return b"".join(pointers + bodies)


def levels_part(*sides: tuple[tuple[int, int], ...]) -> bytes:
    """The pointers of a struct whose pointers are all lists of levels, and the lists behind them.

    Raises:
        struct.error: a price or size does not fit Int64.
    """
    pointers, bodies, words = [], [], len(sides)
    for at, levels in enumerate(sides):
        count = len(levels)
        pointers.append(_POINTER.pack((words - at - 1) << 2 | 1, (count * _LEVEL_WORDS) << 3 | 7))
        bodies.append(_COMPOSITE_TAG.pack(count << 2, _LEVEL_WORDS))
        bodies.append(Struct(f"<{count * 2}q").pack(*(number for level in levels for number in level)))
        words += 1 + count * _LEVEL_WORDS
    return b"".join(pointers + bodies)


def read_struct(data: bytes, pointer_at: int, end: int, member: int) -> int:
    """Offset of the struct that the pointer at `pointer_at` means.

    Raises:
        Unusual: another kind of pointer, another size of struct, or out of the segment that ends at `end`.
    """
    low, high = _POINTER.unpack_from(data, pointer_at)
    words, pointers = WORDS[member]
    at = pointer_at + 8 + (low >> 2 << 3)
    if low & 3 or high != pointers << 16 | words or at < 0 or at + (words + pointers << 3) > end:
        raise Unusual
    return int(at)


def read_text(data: bytes, pointer_at: int, start: int, end: int) -> str:
    """The text that the pointer at `pointer_at` means; the null pointer is the empty text.

    Raises:
        Unusual: another kind of pointer, or out of the segment `start`..`end`.
        UnicodeDecodeError: it is no UTF-8.
    """
    low, high = _POINTER.unpack_from(data, pointer_at)
    if low == 0 and high == 0:
        return ""
    at = pointer_at + 8 + (low >> 2 << 3)
    size = high >> 3
    if low & 3 != 1 or high & 7 != 2 or size == 0 or at < start or at + size > end or data[at + size - 1]:
        raise Unusual
    return data[at : at + size - 1].decode()


def read_levels(data: bytes, pointer_at: int, start: int, end: int) -> tuple[tuple[int, int], ...]:
    """The levels that the pointer at `pointer_at` means; the null pointer is the empty list.

    Raises:
        Unusual: another kind of pointer or element, or out of the segment `start`..`end`.
    """
    low, high = _POINTER.unpack_from(data, pointer_at)
    if low == 0 and high == 0:
        return ()
    at = pointer_at + 8 + (low >> 2 << 3)
    words = high >> 3
    if low & 3 != 1 or high & 7 != 7 or at < start or at + 8 + (words << 3) > end:
        raise Unusual
    tag, element = _COMPOSITE_TAG.unpack_from(data, at)
    count = tag >> 2
    if tag & 3 or element != _LEVEL_WORDS or count * _LEVEL_WORDS != words:
        raise Unusual
    numbers = iter(Struct(f"<{words}q").unpack_from(data, at + 8))
    return tuple(zip(numbers, numbers, strict=True))
