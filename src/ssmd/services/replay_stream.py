"""A replay onto streams of its own: raw lines as tape blocks, records as market messages, in the order of the archive.

Message ids follow from the content, so what is sent again after trouble is stored once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import groupby
from typing import Final

from ssmd.errors import Unavailable
from ssmd.schemas.blocks import NO_DIGEST, decode_header, encode_block
from ssmd.schemas.codecs import encode_record
from ssmd.schemas.market_message import raw_message_id
from ssmd.schemas.raw_line import RawLine
from ssmd.schemas.records import KIND_OF, Record
from ssmd.streams import subjects
from ssmd.streams.transport import Outgoing, StreamName, Transport

BLOCK_ENTRIES_MAX: Final = 500
BLOCK_BYTES_MAX: Final = 256 << 10
MESSAGE_RECORDS_MAX: Final = 500
WINDOW_MESSAGES: Final = 512
"""So many are on their way unacknowledged at most."""
ACK_TIMEOUT_S: Final = 10.0


class LineMessages:
    """Raw lines as blocks. What was left out (a filter) leaves a hole between two blocks, as on any stream."""

    def __init__(self, prefix: str, feed: str) -> None:
        self._prefix = prefix
        self._feed = feed
        self._digests: dict[str, bytes] = {}

    def of(self, lines: Sequence[RawLine]) -> Iterator[Outgoing]:
        """The messages of `lines`, in order."""
        run: list[RawLine] = []
        size = 0
        for line in lines:
            if run and (
                line[:2] != run[0][:2]
                or line.entry.n != run[-1].entry.n + 1
                or len(run) == BLOCK_ENTRIES_MAX
                or size + len(line.entry.payload) > BLOCK_BYTES_MAX
            ):
                yield self._block(run)
                run, size = [], 0
            run.append(line)
            size += len(line.entry.payload)
        if run:
            yield self._block(run)

    def _block(self, run: Sequence[RawLine]) -> Outgoing:
        connection, session, first = run[0]
        packed = [(line.entry.kind, line.entry.ts_recv_ns, line.entry.payload) for line in run]
        block = encode_block(session, first.n, packed, self._digests.get(connection, NO_DIGEST))
        self._digests[connection] = decode_header(block).digest
        subject = subjects.raw(self._prefix, self._feed, connection)
        return Outgoing(subject, block, raw_message_id(connection, session, first.n))


def record_messages(prefix: str, feed: str, records: Sequence[Record]) -> Iterator[Outgoing]:
    """Records as market messages, in order: a message holds what follows each other of one kind and ticker."""
    for (kind, ticker), found in groupby(records, key=lambda one: (KIND_OF[type(one)], one.ticker)):
        run = list(found)
        for start in range(0, len(run), MESSAGE_RECORDS_MAX):
            part = run[start : start + MESSAGE_RECORDS_MAX]
            first = part[0]
            message_id = f"replay.{kind}.{ticker}.{first.session}.{first.n}.{first.index}"
            yield Outgoing(subjects.market(prefix, feed, kind, ticker), b"".join(map(encode_record, part)), message_id)


async def publish_all(transport: Transport, stream: StreamName, batches: AsyncIterator[list[Outgoing]]) -> int:
    """Publish everything in order, each acknowledged; how many messages that were.

    Raises:
        Unavailable: the server went away or refuses; what was stored before stays.
    """
    publisher = await transport.publisher()
    sent = 0

    async def acknowledged(at_least: int) -> None:
        while publisher.acks(stream) < at_least:
            await publisher.progress(ACK_TIMEOUT_S)

    try:
        async for batch in batches:
            for start in range(0, len(batch), WINDOW_MESSAGES):
                part = batch[start : start + WINDOW_MESSAGES]
                await acknowledged(sent + len(part) - WINDOW_MESSAGES)
                await publisher.publish(part)
                sent += len(part)
        await acknowledged(sent)
    except Unavailable as error:
        raise Unavailable(
            f"{publisher.acks(stream)} messages of the replay are stored, then: {error.message}",
            mend="replay again onto another prefix",
        ) from error
    finally:
        await publisher.close()
    return sent
