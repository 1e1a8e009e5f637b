"""Decided events become envelopes: who, when, why, and which registry was in force."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ssmd.clock import Clock
from ssmd.domain.decider import tag_of
from ssmd.domain.envelope import AggregateId, Envelope
from ssmd.identifiers import RandomBytes, uuid7


class Origin(NamedTuple):
    """Who wants it ("cli:anna"), the request it belongs to, and what led to it; "" = the command itself."""

    actor: str
    correlation_id: str = ""
    causation_id: str = ""


class Sealing:
    """Makes envelopes.

    Args:
        config: git commit of the registry in force, "" = not under git.
    """

    def __init__(self, clock: Clock, random: RandomBytes, config: str) -> None:
        self._clock = clock
        self._random = random
        self._config = config

    def seal(
        self, aggregate: AggregateId, version: int, events: Sequence[msgspec.Struct], origin: Origin, command_id: str = ""
    ) -> list[Envelope]:
        """Envelopes of `events`, which follow the aggregate's `version`.

        Args:
            command_id: of the command they were decided for, "" = it has none: then the first event's id stands for it.
        """
        now_ns = self._clock.now_ns()
        ids = [uuid7(now_ns, self._random) for _ in events]
        cause = command_id or ids[0]
        return [
            Envelope(
                id=event_id,
                type=tag_of(event),
                aggregate=aggregate.aggregate,
                aggregate_id=aggregate.key,
                version=version + offset,
                ts_ns=now_ns,
                actor=origin.actor,
                correlation_id=origin.correlation_id or cause,
                causation_id=origin.causation_id or command_id,
                config=self._config,
                data=msgspec.Raw(msgspec.json.encode(event)),
            )
            for offset, (event_id, event) in enumerate(zip(ids, events, strict=True), 1)
        ]
