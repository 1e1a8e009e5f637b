"""Snapshots of aggregates: a state, and the place in the journal it stands at.

A snapshot is a copy to be thrown away at will: whoever reads one checks that the journal still holds the very event it
stands behind, and that it was made by the same rules (`shape`). It carries the stream sequence because that is what makes
loading cheap: the server searches for an aggregate's next event from there, not from the stream's start.

On JetStream: stream `{env}-snapshot` beside the journal, subject `{env}.snapshot.{aggregate}.{id...}`, the last one kept.
Beside the SQLite journal they are kept in memory only: it serves single processes and tests, and finds an aggregate's events
by an index, so that a process pays for the whole history of an aggregate once, at its first command.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

import msgspec

from ssmd.domain.envelope import AggregateId
from ssmd.errors import Unavailable
from ssmd.identifiers import encode_token
from ssmd.streams.connection import checked
from ssmd.streams.stream_access import StreamAccess

HELD_MAX: Final = 10_000
"""Snapshots a `MemorySnapshots` holds, the oldest dropped first."""


class Snapshot(NamedTuple):
    """The state behind the event `event_id`, version `version`, at `position`; `shape` names the rules that made it."""

    position: int
    version: int
    event_id: str
    shape: str
    state: bytes


class Snapshots(Protocol):
    """What every backend promises: the last snapshot put, an older one, or none; never half of one."""

    async def get(self, aggregate: AggregateId) -> Snapshot | None:
        """The aggregate's snapshot.

        Raises:
            Unavailable: no answer.
        """
        ...

    async def put(self, aggregate: AggregateId, snapshot: Snapshot) -> None:
        """Keep it in place of the one before.

        Raises:
            Unavailable: no answer; it may be kept.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection. Safe to call twice."""
        ...


class MemorySnapshots:
    """In this process."""

    def __init__(self) -> None:
        self._held: dict[AggregateId, Snapshot] = {}

    async def get(self, aggregate: AggregateId) -> Snapshot | None:
        return self._held.get(aggregate)

    async def put(self, aggregate: AggregateId, snapshot: Snapshot) -> None:
        self._held.pop(aggregate, None)
        self._held[aggregate] = snapshot
        if len(self._held) > HELD_MAX:
            del self._held[next(iter(self._held))]

    async def close(self) -> None:
        return None


_DECODER: Final = msgspec.msgpack.Decoder(Snapshot)


class NatsSnapshots:
    """On the journal's server; the stream is made when the first snapshot is put."""

    def __init__(self, url: str, env: str, *, name: str = "ssmd-snapshots", timeout_s: float = 5.0, replicas: int = 1) -> None:
        self._env = encode_token(env)
        self._access = StreamAccess(url, f"{self._env}-snapshot", timeout_s=timeout_s, name=name)
        self._replicas = replicas
        self._is_made = False

    def _subject(self, aggregate: AggregateId) -> str:
        return f"{self._env}.snapshot.{encode_token(aggregate.aggregate)}.{aggregate.key}"

    async def get(self, aggregate: AggregateId) -> Snapshot | None:
        connection = await self._access.connection()
        subject = self._subject(aggregate)
        request = f"$JS.API.DIRECT.GET.{self._access.stream}.{subject}"
        try:
            reply = await connection.request(request, b"", timeout_s=self._access.timeout_s)
        except Unavailable:
            if connection.is_open:
                return None  # nobody listens: there is no such stream yet
            raise
        if (reply.headers or {}).get("Nats-Subject") != subject:
            return None
        try:
            return _DECODER.decode(reply.data)
        except msgspec.DecodeError:
            return None  # of another version; the next one takes its place

    async def put(self, aggregate: AggregateId, snapshot: Snapshot) -> None:
        connection = await self._access.connection()
        if not self._is_made:
            await self._make()
        payload = msgspec.msgpack.encode(snapshot)
        if len(payload) > connection.max_payload:
            return
        reply = await connection.request(self._subject(aggregate), payload, timeout_s=self._access.timeout_s)
        checked(reply.data, f"snapshot on {self._access.stream}")

    async def _make(self) -> None:
        config: dict[str, Any] = {
            "name": self._access.stream,
            "subjects": [f"{self._env}.snapshot.>"],
            "storage": "file",
            "discard": "old",
            "max_msgs_per_subject": 1,
            "allow_direct": True,
            "num_replicas": self._replicas,
        }
        connection = await self._access.connection()
        await connection.api(f"STREAM.CREATE.{self._access.stream}", config, timeout_s=self._access.timeout_s)
        self._is_made = True

    async def close(self) -> None:
        await self._access.close()
