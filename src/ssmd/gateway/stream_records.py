"""From ready blocks to records: decoded, in tape order, with gaps of our own where the stream itself has holes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec

from ssmd.errors import Malformed
from ssmd.gateway.assembly import ReadyBlock
from ssmd.schemas.codecs import decode_records
from ssmd.schemas.records import Gap, Header, Record
from ssmd.streams import subjects
from ssmd.streams.transport import StreamMessage

HOLE: Final = "stream-hole"
"""Cause of gaps the gateway itself finds between the tape and here."""
UNREADABLE: Final = "unreadable-message"


class BlockRecords(NamedTuple):
    """`unreadable`: messages that hold no records, with what is wrong."""

    records: list[Record]
    unreadable: list[tuple[StreamMessage, str]]


def records_of(
    block: ReadyBlock,
    feed: str,
    tickers_of: Callable[[str], Iterable[str]],
    is_wanted: Callable[[StreamMessage], bool] | None = None,
) -> BlockRecords:
    """The records of one block.

    Args:
        tickers_of: tickers that a hole in this connection's blocks may concern.
        is_wanted: messages whose records are wanted; None = all.
    """
    found: list[Record] = []
    unreadable: list[tuple[StreamMessage, str]] = []
    for part in block.parts:
        if is_wanted is None or is_wanted(part):
            try:
                found.extend(decode_records(part.payload))
            except Malformed as error:
                unreadable.append((part, error.message))
    if len(block.parts) > 1:
        found.sort(key=_tape_place)
    if block.hole:
        gaps = [gap for ticker in tickers_of(block.connection) for gap in _own_gaps(block, feed, ticker, HOLE, block.hole)]
        found = [*gaps, *found]
    for part, _ in unreadable:
        ticker = subjects.parse_market(part.subject).name
        found += _own_gaps(block, feed, ticker, UNREADABLE, "a message of the market stream cannot be read")
    return BlockRecords(found, unreadable)


def reached_ns(block: ReadyBlock) -> int:
    """Receive time up to which the block's connection has been told of."""
    return block.since_ns if block.mark is None else block.mark.ts_recv_ns


def _own_gaps(block: ReadyBlock, feed: str, ticker: str, cause: str, evidence: str) -> tuple[Gap, Gap]:
    """A gap of our own, opened and at once closed: its time is known, and the book waits for the next snapshot."""
    until_ns = reached_ns(block)
    opened = Gap(
        feed=feed,
        ticker=ticker,
        ts_event_ns=0,
        ts_recv_ns=until_ns,
        session=0 if block.mark is None else block.mark.session,
        n=0 if block.mark is None else block.mark.last_n,
        index=0,
        sid=0,
        seq=0,
        price_exponent=0,
        size_exponent=0,
        gap_id=f"gateway-{cause}-{block.stream_seq}",
        state="opened",
        cause=cause,
        start_ns=block.since_ns,
        end_ns=0,
        channel="",
        seq_expected=0,
        seq_found=0,
        evidence=evidence,
    )
    return opened, msgspec.structs.replace(opened, state="closed", end_ns=until_ns)


def _tape_place(record: Header) -> tuple[int, int]:
    return record.n, record.index
