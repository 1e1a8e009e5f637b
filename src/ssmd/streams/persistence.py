"""A persistence module for the `eventsourcing` library on NATS JetStream (nats-server >= 2.12, for atomic batches).

    PERSISTENCE_MODULE=ssmd.streams.persistence
    JETSTREAM_URL=nats://127.0.0.1:4222           one server, or several of one cluster separated by commas
    JETSTREAM_STREAM_PREFIX=shop                  default "eventsourcing"
    JETSTREAM_REPLICAS=3                          default 1
    JETSTREAM_TIMEOUT=5                           seconds a request may take, default 5
    CREATE_TABLE=no                               do not make streams

Streams are `{prefix}-{application}-{purpose}` with subjects `{prefix}.{application}.{purpose}.>`; purpose is events,
snapshots or tracking. They are never limited, deleted from or purged. For durability through a power failure the server
needs `sync_interval: always` (one node) or three replicas. An insert of more than 1000 events is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from eventsourcing.persistence import AggregateRecorder, ApplicationRecorder, InfrastructureFactory, ProcessRecorder
from eventsourcing.utils import Environment, EnvType, resolve_topic, strtobool

from ssmd.identifiers import RandomBytes, system_random
from ssmd.streams.journal_nats_read import StreamReader
from ssmd.streams.persistence_loop import LoopThread
from ssmd.streams.persistence_recorders import (
    Backing,
    JetStreamAggregateRecorder,
    JetStreamApplicationRecorder,
    JetStreamProcessRecorder,
    JetStreamTrackingRecorder,
)
from ssmd.streams.persistence_store import EventStore, token_of
from ssmd.streams.stream_access import StreamAccess
from ssmd.streams.topology import StreamDefinition, apply

DEFAULT_PREFIX: Final = "eventsourcing"
DEFAULT_NAME: Final = "default"
TIMEOUT_S: Final = 5.0


class JetStreamFactory(InfrastructureFactory[JetStreamTrackingRecorder]):
    """See the module."""

    JETSTREAM_URL = "JETSTREAM_URL"
    JETSTREAM_STREAM_PREFIX = "JETSTREAM_STREAM_PREFIX"
    JETSTREAM_REPLICAS = "JETSTREAM_REPLICAS"
    JETSTREAM_TIMEOUT = "JETSTREAM_TIMEOUT"
    CREATE_TABLE = "CREATE_TABLE"

    aggregate_recorder_class = JetStreamAggregateRecorder
    application_recorder_class = JetStreamApplicationRecorder
    tracking_recorder_class = JetStreamTrackingRecorder
    process_recorder_class = JetStreamProcessRecorder
    random: RandomBytes = staticmethod(system_random)

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        self._url = self.env.get(self.JETSTREAM_URL, "")
        if not self._url:
            keys = ", ".join(self.env.create_keys(self.JETSTREAM_URL))
            raise OSError(f"no url of a NATS server in the environment; expected in one of: {keys}")
        self._timeout_s = self._number(self.JETSTREAM_TIMEOUT, TIMEOUT_S, float)
        self._replicas = self._number(self.JETSTREAM_REPLICAS, 1, int)
        self._prefix = token_of(self.env.get(self.JETSTREAM_STREAM_PREFIX, "") or DEFAULT_PREFIX)
        self._name = token_of((self.env.name or DEFAULT_NAME).lower())
        self._loop: LoopThread | None = None

    def _number(self, key: str, default: float, kind: Callable[[str], float]) -> float:
        text = (self.env.get(key) or "").strip()
        try:
            return kind(text) if text else default
        except ValueError:
            raise OSError(f"{key} is {text!r}; expected a number") from None

    def _backing(self, purpose: str) -> Backing:
        if self._loop is None or self._loop.is_closed:
            self._loop = LoopThread(f"jetstream-{self._name}")
        token = token_of(purpose)
        stream, base = f"{self._prefix}-{self._name}-{token}", f"{self._prefix}.{self._name}.{token}"
        name = f"eventsourcing {self._name}"
        access = StreamAccess(self._url, stream, timeout_s=self._timeout_s, name=name)
        reader = StreamReader(
            self._url, stream, name=name, timeout_s=self._timeout_s, random=self.random, on_trouble=lambda _trouble: None
        )
        self._loop.on_close(access.close)
        self._loop.on_close(reader.close)
        replicas = int(self._replicas)

        async def ensure() -> None:
            definition = StreamDefinition(
                name=stream,
                role="journal",
                endpoint="journal",
                subjects=(f"{base}.>",),
                discard="new",
                num_replicas=replicas,
                allow_atomic=True,
                deny_delete=True,
                deny_purge=True,
            )
            await apply({"journal": await access.connection()}, [definition])

        return Backing(self._loop, EventStore(access, base, self.random), reader, ensure)

    def _made(self, kind: type[JetStreamAggregateRecorder], purpose: str) -> JetStreamAggregateRecorder:
        recorder = kind(self._backing(purpose))
        if self._creates():
            recorder.create_table()
        return recorder

    def _creates(self) -> bool:
        return strtobool(self.env.get(self.CREATE_TABLE) or "yes")

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        return self._made(self.aggregate_recorder_class, purpose)

    def application_recorder(self) -> ApplicationRecorder:
        topic = self.env.get(self.APPLICATION_RECORDER_TOPIC)
        kind: type[JetStreamApplicationRecorder] = resolve_topic(topic) if topic else self.application_recorder_class
        recorder = self._made(kind, "events")
        assert isinstance(recorder, ApplicationRecorder)  # noqa: S101 - what a topic names is the user's word
        return recorder

    def process_recorder(self) -> ProcessRecorder:
        topic = self.env.get(self.PROCESS_RECORDER_TOPIC)
        kind: type[JetStreamProcessRecorder] = resolve_topic(topic) if topic else self.process_recorder_class
        recorder = self._made(kind, "events")
        assert isinstance(recorder, ProcessRecorder)  # noqa: S101 - what a topic names is the user's word
        return recorder

    def tracking_recorder(
        self, tracking_recorder_class: type[JetStreamTrackingRecorder] | None = None
    ) -> JetStreamTrackingRecorder:
        kind = tracking_recorder_class
        if kind is None:
            topic = self.env.get(self.TRACKING_RECORDER_TOPIC)
            kind = resolve_topic(topic) if topic else self.tracking_recorder_class
        assert issubclass(kind, JetStreamTrackingRecorder)  # noqa: S101 - what a topic names is the user's word
        recorder = kind(self._backing("tracking"))
        if self._creates():
            recorder.create_table()
        return recorder

    def close(self) -> None:
        """Ends the factory's thread and connections; safe to call twice."""
        if self._loop is not None:
            self._loop.close()
