"""Group commit: when many appends wait at once, those of different aggregates share one atomic batch, and so its fsyncs.

Measured with sync always (benchmarks/journal.py, rows "together"): a batch costs 8 ms however small, single appends side
by side 0.2 ms each; so up to DIRECT_MAX are sent side by side, and only from GROUP_MIN waiting ones on they are grouped.
An append alone is never held up.

One append of a group never fails for another: a group that the server refuses wrote nothing, and its members are sent
one by one, each to its own success or error. After an unclear outcome each member is looked up by itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from ssmd.errors import SsmdError, Unavailable
from ssmd.streams.connection import ApiRefused
from ssmd.streams.journal import EVENTS_PER_APPEND_MAX, AppendGroup
from ssmd.streams.journal_checks import check_append
from ssmd.streams.journal_nats_append import Appender
from ssmd.streams.stream_access import Outgoing

DIRECT_MAX: Final = 40
"""Appends under way side by side; below the 50 open batches a stream takes."""

GROUP_MIN: Final = 100
"""So many waiting appends make a group."""

GROUP_BYTES_MAX: Final = 8 << 20
"""Payload bytes of a group, about; what is beyond goes alone."""


class _Waiting(NamedTuple):
    groups: Sequence[AppendGroup]
    command_id: str
    done: asyncio.Future[int]


class GroupCommit:
    """Stands before an `Appender`. What waits is bounded by the callers, each of which waits for its own."""

    def __init__(self, appender: Appender) -> None:
        self._appender = appender
        self._waiting: deque[_Waiting] = deque()
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.grouped = 0
        """Appends that went in a group so far."""

    async def append(self, groups: Sequence[AppendGroup], command_id: str) -> int:
        """As `Journal.append`."""
        if self._under_way < DIRECT_MAX and not self._waiting:
            self._under_way += 1
            try:
                return await self._appender.append(groups, command_id)
            finally:
                self._under_way -= 1
                self._start_waiting()
        check_append(groups)
        member = _Waiting(groups, command_id, asyncio.get_running_loop().create_future())
        self._waiting.append(member)
        return await member.done

    def _start_waiting(self) -> None:
        while self._waiting and self._under_way < DIRECT_MAX:
            members = self._take_group() if len(self._waiting) >= GROUP_MIN else [self._waiting.popleft()]
            self._under_way += 1
            task = asyncio.create_task(self._commit(members))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _take_group(self) -> list[_Waiting]:
        """The first waiting appends that fit into one batch and share no aggregate; the others keep their order."""
        taken: list[_Waiting] = []
        left: deque[_Waiting] = deque()
        aggregates = set[object]()
        size = 0
        for member in self._waiting:
            own = {group.aggregate for group in member.groups}
            events = sum(len(group.events) for group in member.groups)
            if not aggregates & own and size + events <= EVENTS_PER_APPEND_MAX and not member.done.done():
                taken.append(member)
                size += events
            elif not member.done.done():
                left.append(member)
            # Who comes later for an aggregate that is in the group, or was passed over, does not overtake.
            aggregates |= own
        self._waiting = left
        return taken

    async def _commit(self, members: list[_Waiting]) -> None:
        try:
            rest = await self._together(members) if len(members) > 1 else members
            for start in range(0, len(rest), DIRECT_MAX):
                await asyncio.gather(*(self._alone(member) for member in rest[start : start + DIRECT_MAX]))
        except SsmdError as error:
            for member in members:
                _fail(member, error)
        finally:
            self._under_way -= 1
            for member in members:
                _fail(member, Unavailable("the journal was closed while this append was under way"))
            self._start_waiting()

    async def _together(self, members: list[_Waiting]) -> list[_Waiting]:
        """Try the batch; those that have to go alone."""
        appender = self._appender
        preparing = [appender.prepare(member.groups, member.command_id) for member in members]
        fit: list[tuple[_Waiting, list[Outgoing]]] = []
        alone: list[_Waiting] = []
        size = 0
        for member, prepared in zip(members, await asyncio.gather(*preparing, return_exceptions=True), strict=True):
            if isinstance(prepared, SsmdError):
                _fail(member, prepared)
            elif isinstance(prepared, BaseException):
                raise prepared
            elif prepared is None or size > GROUP_BYTES_MAX:
                alone.append(member)
            else:
                fit.append((member, prepared))
                size += sum(len(payload) for _, payload, _ in prepared)
        if len(fit) < 2:
            return [*(member for member, _ in fit), *alone]
        together = [member for member, _ in fit]
        try:
            position = await appender.send_together([messages for _, messages in fit])
        except ApiRefused:
            return members
        except Unavailable as error:
            await self._settle(together, error)
            return alone
        self.grouped += len(fit)
        position -= sum(len(messages) for _, messages in fit)
        for member, messages in fit:
            appender.remember(member.groups, position)
            position += len(messages)
            if not member.done.done():
                member.done.set_result(position)
        return alone

    async def _settle(self, members: list[_Waiting], cause: Unavailable) -> None:
        await self._appender.abandon()
        for member in members:
            try:
                position = await self._appender.settle(member.groups, cause)
            except SsmdError as error:
                _fail(member, error)
            else:
                if not member.done.done():
                    member.done.set_result(position)

    async def _alone(self, member: _Waiting) -> None:
        if member.done.done():
            return
        try:
            position = await self._appender.append(member.groups, member.command_id)
        except SsmdError as error:
            _fail(member, error)
        else:
            if not member.done.done():
                member.done.set_result(position)

    async def close(self) -> None:
        """Ends what is under way; who waits is told that the outcome is not known."""
        for member in self._waiting:
            _fail(member, Unavailable("the journal was closed before this append was sent"))
        self._waiting.clear()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _fail(member: _Waiting, error: SsmdError) -> None:
    if not member.done.done():
        member.done.set_exception(error)
