"""Appending to the journal's stream: one event as a request, several as one atomic batch (ADR-50), both all or nothing.

The first message of each aggregate carries the stream sequence of the last one on its subject; the server compares
exact subjects under its own lock. After an unclear outcome (no answer, connection lost) the connection is abandoned, so
that nothing left in this process can be committed later, and a new one looks at the aggregates' ends. The one thing no
client can take back is what a stopped server has in its socket already; there the same command finds out later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ssmd.domain.envelope import encode_envelope
from ssmd.errors import Conflict, Rejected, Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.streams.connection import ApiRefused, Connection
from ssmd.streams.journal import AppendGroup
from ssmd.streams.journal_checks import check_append, command_id_reused, conflict, is_written
from ssmd.streams.journal_nats_access import JournalAccess, Tail
from ssmd.streams.stream_access import DUPLICATE_BATCH, EXPECTED, EXPECTED_LAST, MESSAGE_ID, MOVED, Outgoing

ATTEMPTS_MAX: Final = 3
"""How often an append is sent while foreign messages move its subjects."""

HEADERS_BYTES: Final = 512
"""Room for our headers in the server's limit for one message."""


class Appender:
    """Writes through `access`. `random` names batches."""

    def __init__(self, access: JournalAccess, random: RandomBytes) -> None:
        self._access = access
        self._random = random

    async def prepare(self, groups: Sequence[AppendGroup], command_id: str) -> list[Outgoing] | None:
        """The messages of an append; None = an aggregate is not at its expected version.

        Raises:
            Rejected: an event is larger than the server takes.
            Unavailable: no answer; nothing was written.
        """
        tails = []
        for group in groups:
            tail = await self._expect(group)
            if tail is None:
                return None
            tails.append(tail)
        messages = list(self._messages(groups, tails, command_id))
        self._check_sizes(messages, await self._access.connection())
        return messages

    async def send_together(self, appends: Sequence[list[Outgoing]]) -> int:
        """Several appends that share no aggregate as one batch; position of the last event.

        Raises:
            ApiRefused: nothing was written; one of them stands in the way of all.
            Unavailable: outcome not known.
        """
        messages = [message for append in appends for message in append]
        for subject, _, _ in messages:
            self._access.forget(subject)
        position = await self._access.send(await self._access.connection(), messages, self._random)
        if position is None:
            raise ApiRefused("a batch seen before", code=0, err_code=DUPLICATE_BATCH)
        return position

    async def abandon(self) -> None:
        """Nothing that is still in this process is sent."""
        await self._access.abandon()

    async def append(self, groups: Sequence[AppendGroup], command_id: str) -> int:
        """As `Journal.append`; every request within the access's deadline, most often one in all."""
        total = check_append(groups)
        for _ in range(ATTEMPTS_MAX):
            messages = await self.prepare(groups, command_id)
            if messages is None:
                return await self._written_or(groups, command_id)
            connection = await self._access.connection()
            # Until the answer is here, what is remembered of these aggregates may be wrong.
            self._forget(groups)
            try:
                position = await self._access.send(connection, messages, self._random)
            except ApiRefused as error:
                if error.err_code == DUPLICATE_BATCH:
                    return await self._written_or(groups, command_id, is_reuse=True)
                if error.err_code not in MOVED:
                    raise
                # Not a conflict yet: a message that is no event may have moved the subject, not the aggregate.
                continue
            except Unavailable as error:
                await self.abandon()
                return await self.settle(groups, error)
            if position is None:
                return await self._written_or(groups, command_id, is_reuse=True)
            self.remember(groups, position - total)
            return position
        return await self._written_or(groups, command_id)

    async def restore(self, after: int, messages: Sequence[tuple[str, bytes]]) -> int:
        """As `Journal.restore`."""
        prefix = self._access.reader.prefix
        outgoing: list[Outgoing] = [(prefix + tail, payload, {}) for tail, payload in messages]
        outgoing[0][2][EXPECTED_LAST] = str(after)
        connection = await self._access.connection()
        self._check_sizes(outgoing, connection)
        for subject, _, _ in outgoing:
            self._access.forget(subject)
        try:
            position = await self._access.send(connection, outgoing, self._random)
        except ApiRefused as error:
            if error.err_code in MOVED:
                raise Conflict(f"{self._access.stream} does not end at position {after}; nothing was written") from error
            raise
        except Unavailable:
            # What is left of it in this process is sent no more; the caller looks before it goes on.
            await self._access.abandon()
            raise
        return position if position is not None else after

    async def _expect(self, group: AppendGroup) -> Tail | None:
        """Where the aggregate ends if that is at the expected version, else None."""
        remembered = self._access.remembered(self._access.subject(group.aggregate))
        if remembered is not None and remembered.version >= group.expected_version:
            tail = remembered
        else:
            tail = await self._access.tail(group.aggregate)
        return tail if tail.version == group.expected_version else None

    def _messages(self, groups: Sequence[AppendGroup], tails: Sequence[Tail], command_id: str) -> Iterator[Outgoing]:
        """(subject, payload, headers without those of a batch) in order."""
        is_first = True
        for group, tail in zip(groups, tails, strict=True):
            subject = self._access.subject(group.aggregate)
            headers = {EXPECTED: str(tail.seq)}
            for envelope in group.events:
                if is_first and command_id:
                    headers[MESSAGE_ID] = command_id
                is_first = False
                yield subject, encode_envelope(envelope), headers
                headers = {}

    def _check_sizes(self, messages: Sequence[Outgoing], connection: Connection) -> None:
        limit = connection.max_payload - HEADERS_BYTES
        for subject, payload, _ in messages:
            if len(payload) > limit:
                raise Rejected("event-too-large", f"an event of {len(payload)} bytes on {subject}; the server takes {limit}")

    async def settle(self, groups: Sequence[AppendGroup], cause: Unavailable) -> int:
        """After an unclear outcome on a connection that was abandoned: look behind everything the server had taken of it."""
        try:
            await self._access.fence(self._access.subject(groups[0].aggregate))
            written = await self._written(groups)
        except Unavailable as error:
            raise Unavailable(
                f"not known whether the append to {groups[0].aggregate} happened: {cause.message}; then: {error.message}",
                mend="the same command again finds out",
            ) from error
        if written is None:
            raise Unavailable(f"the append to {groups[0].aggregate} did not happen: {cause.message}") from cause
        return written

    async def _written_or(self, groups: Sequence[AppendGroup], command_id: str, *, is_reuse: bool = False) -> int:
        """Position of the last event if the events are there already, else the error that says why they cannot be."""
        written = await self._written(groups)
        if written is not None:
            return written
        if is_reuse:
            raise command_id_reused(command_id)
        for group in groups:
            tail = await self._access.tail(group.aggregate)
            if tail.version != group.expected_version:
                raise conflict(group, tail.version)
        raise conflict(groups[0], None)

    async def _written(self, groups: Sequence[AppendGroup]) -> int | None:
        """Position of the last event if exactly these events stand where they were to go, else None."""
        position = 0
        for group in groups:
            stored = await self._access.load(group.aggregate, group.expected_version)
            if not is_written(group, stored):
                return None
            position = stored[len(group.events) - 1].position
        return position

    def _forget(self, groups: Sequence[AppendGroup]) -> None:
        for group in groups:
            self._access.forget(self._access.subject(group.aggregate))

    def remember(self, groups: Sequence[AppendGroup], position: int) -> None:
        """These groups stand behind `position` now."""
        for group in groups:
            position += len(group.events)
            version = group.expected_version + len(group.events)
            self._access.remember(self._access.subject(group.aggregate), Tail(position, version))
