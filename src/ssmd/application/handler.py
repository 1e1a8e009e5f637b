"""The one door for writes: load an aggregate, decide a command, append its events.

A state once folded is kept and folded on with what is appended, so a connector with thousands of facts on one aggregate
loads it once. A kept state may be behind the journal; an append proves that it was not (expected version), and an answer
that writes nothing (quiet, or Rejected) is given only after what came since has been loaded.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from ssmd.application import appended
from ssmd.application.sealing import Origin, Sealing
from ssmd.application.snapshotting import Folded, Snapshotting
from ssmd.clock import Clock
from ssmd.domain.decider import Catalogue, Decider
from ssmd.domain.envelope import AggregateId, Envelope
from ssmd.errors import Conflict, Rejected
from ssmd.identifiers import RandomBytes
from ssmd.streams.backoff import backoff_s
from ssmd.streams.journal import EVENTS_PER_APPEND_MAX, AppendGroup, Journal
from ssmd.streams.journal_snapshots import Snapshots
from ssmd.telemetry import request, tracing

Command = TypeVar("Command")
Event = TypeVar("Event", bound=msgspec.Struct)
State = TypeVar("State")

ATTEMPTS_MAX: Final = 10
"""How often a command is decided when others keep writing the same aggregate."""

KEPT_MAX: Final = 10_000
"""States kept, the longest unused dropped first."""


class Handled(NamedTuple, Generic[Event, State]):
    """What commands came to. `events` and `envelopes` are what was written, () = nothing was left to do.

    `position` is the journal position of the aggregate's last event, `state` and `version` are those behind it.
    """

    events: tuple[Event, ...]
    envelopes: tuple[Envelope, ...]
    position: int
    version: int
    state: State


class Application:
    """See the module. One per process and journal; not thread-safe.

    Args:
        config: git commit of the registry in force, written into each envelope; "" = not under git.
        snapshots: where long histories are abbreviated; None = nowhere.
    """

    def __init__(
        self,
        journal: Journal,
        catalogue: Catalogue,
        clock: Clock,
        random: RandomBytes,
        config: str = "",
        snapshots: Snapshots | None = None,
    ) -> None:
        self.journal = journal
        self._snapshotting = None if snapshots is None else Snapshotting(snapshots, journal, catalogue)
        self._catalogue = catalogue
        self._random = random
        self._sealing = Sealing(clock, random, config)
        self._kept: OrderedDict[AggregateId, Folded] = OrderedDict()

    async def state(self, decider: Decider[Command, Event, State], id_parts: tuple[str, ...]) -> State:
        """The aggregate's state as of now, read from the journal."""
        aggregate = AggregateId(decider.aggregate, id_parts)
        state: State = (await self._refresh(decider, aggregate, self._kept.get(aggregate))).state
        return state

    async def handle(
        self,
        decider: Decider[Command, Event, State],
        id_parts: tuple[str, ...],
        command: Command,
        *,
        actor: str,
        correlation_id: str = "",
        causation_id: str = "",
        command_id: str = "",
    ) -> Handled[Event, State]:
        """Decide `command` and append its events, atomically. Calling again with the same command writes nothing more.

        Args:
            actor: who wants it ("cli:anna").
            command_id: identifies the command towards the journal; default: made anew.
            correlation_id: default: the request at hand (`telemetry.request`), else the command id.
            causation_id: default: the command id.

        Raises:
            Rejected: a rule says no; nothing was written.
            Conflict: others kept writing this aggregate through ATTEMPTS_MAX attempts; nothing was written.
            Unavailable: the journal did not answer; the events may have been written: call again to find out.
            Malformed: the aggregate's history cannot be read by this version.
        """
        origin = Origin(actor, correlation_id or request.current(), causation_id)
        with (
            request.begun(correlation_id, causation_id=causation_id),
            tracing.span(f"command {type(command).__name__}", aggregate=decider.aggregate, id=".".join(id_parts), actor=actor),
        ):
            return await self._run(decider, id_parts, [command], origin, command_id=command_id)

    async def handle_many(
        self,
        decider: Decider[Command, Event, State],
        id_parts: tuple[str, ...],
        commands: Sequence[Command],
        *,
        actor: str,
        correlation_id: str = "",
        causation_id: str = "",
    ) -> Handled[Event, State]:
        """Decide `commands` in order and append their events in as few atomic appends as they fit in.

        The events of one command are never split. All are decided before the first append, so Rejected means that none
        was written, unless another writer came in between two appends.

        Raises:
            as `handle`; after Conflict and Unavailable some of the commands may be written, the earlier ones first.
        """
        origin = Origin(actor, correlation_id or request.current(), causation_id)
        with (
            request.begun(correlation_id, causation_id=causation_id),
            tracing.span("commands", aggregate=decider.aggregate, id=".".join(id_parts), actor=actor, commands=len(commands)),
        ):
            return await self._run(decider, id_parts, commands, origin)

    async def _run(
        self,
        decider: Decider[Command, Event, State],
        id_parts: tuple[str, ...],
        commands: Sequence[Command],
        origin: Origin,
        *,
        command_id: str = "",
    ) -> Handled[Event, State]:
        aggregate = AggregateId(decider.aggregate, id_parts)
        events: list[Event] = []
        envelopes: list[Envelope] = []
        attempt = 0
        while True:
            kept, decided = await self._decide(decider, aggregate, commands)
            try:
                for count, chunk in _chunks(decided):
                    sealed = self._sealing.seal(aggregate, kept.version, chunk, origin, command_id)
                    position = await self._append(aggregate, kept.version, sealed, command_id)
                    state = decider.fold(chunk, kept.state)
                    kept = Folded(kept.version + len(chunk), position, state, kept.snapshot_version)
                    kept = await self._keep(decider, aggregate, kept, sealed[-1].id)
                    commands = commands[count:]
                    events += chunk
                    envelopes += sealed
            except Conflict:
                attempt += 1
                if attempt >= ATTEMPTS_MAX:
                    raise
                await asyncio.sleep(backoff_s(attempt, self._random, first_s=0.005, max_s=0.5))
                continue
            return Handled(tuple(events), tuple(envelopes), kept.position, kept.version, kept.state)

    async def _decide(
        self, decider: Decider[Command, Event, State], aggregate: AggregateId, commands: Sequence[Command]
    ) -> tuple[Folded, list[Sequence[Event]]]:
        kept = self._kept.get(aggregate)
        if kept is not None:
            try:
                decided = _decide_all(decider, kept.state, commands)
            except Rejected:
                decided = []
            if any(decided):
                return kept, decided
        kept = await self._refresh(decider, aggregate, kept)
        return kept, _decide_all(decider, kept.state, commands)

    async def _refresh(self, decider: Decider[Command, Event, State], aggregate: AggregateId, kept: Folded | None) -> Folded:
        if kept is None and self._snapshotting is not None:
            kept = await self._snapshotting.load(decider, aggregate)
            if kept is not None:
                return await self._keep(decider, aggregate, kept, "")
        kept = kept or Folded(0, 0, decider.initial, 0)
        recorded = await self.journal.load(aggregate, after_version=kept.version, after_position=kept.position)
        event_id = ""
        if recorded:
            events: list[Any] = [self._catalogue.decode(one.envelope.type, one.envelope.data) for one in recorded]
            last = recorded[-1]
            event_id = last.envelope.id
            kept = Folded(last.envelope.version, last.position, decider.fold(events, kept.state), kept.snapshot_version)
        return await self._keep(decider, aggregate, kept, event_id)

    async def _keep(
        self, decider: Decider[Command, Event, State], aggregate: AggregateId, kept: Folded, event_id: str
    ) -> Folded:
        """Remember the state; `event_id` = the event it stands behind, "" = a snapshot cannot be taken here."""
        if event_id and self._snapshotting is not None:
            kept = kept._replace(snapshot_version=await self._snapshotting.keep(decider, aggregate, kept, event_id))
        self._kept[aggregate] = kept
        self._kept.move_to_end(aggregate)
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return kept

    async def _append(self, aggregate: AggregateId, version: int, envelopes: list[Envelope], command_id: str) -> int:
        group = AppendGroup(aggregate, version, envelopes)
        try:
            with appended.appending(envelopes):
                position = await self.journal.append([group], command_id=command_id or envelopes[0].id)
        except BaseException:
            # Not written, or unknown: what is kept may be behind.
            self._kept.pop(aggregate, None)
            raise
        appended.tell(envelopes, position)
        return position


def _decide_all(decider: Decider[Command, Event, State], state: State, commands: Sequence[Command]) -> list[Sequence[Event]]:
    decided = []
    for command in commands:
        events = decider.decide(state, command)
        state = decider.fold(events, state)
        decided.append(events)
    return decided


def _chunks(decided: Sequence[Sequence[Event]]) -> list[tuple[int, list[Event]]]:
    """(number of commands, their events) per append; commands that came to nothing ride along, none at all gives []."""
    chunks: list[tuple[int, list[Event]]] = []
    count, chunk = 0, list[Event]()
    for events in decided:
        if chunk and len(chunk) + len(events) > EVENTS_PER_APPEND_MAX:
            chunks.append((count, chunk))
            count, chunk = 0, []
        count += 1
        chunk.extend(events)
    return [*chunks, (count, chunk)] if chunk else chunks
