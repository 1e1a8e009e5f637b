"""Who may ask, kept up with the journal: a client that is revoked is out a moment later, on every gateway."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Protocol

from ssmd.clock import Clock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.client import AGGREGATE, DECIDER, DisconnectRequested, State
from ssmd.errors import Rejected, SsmdError, Unavailable
from ssmd.gateway.api_keys import ANYONE, Grant, client_id_of, grant_of
from ssmd.gateway.retry_pause import RetryPause
from ssmd.streams.journal import Journal, RecordedEvent
from ssmd.telemetry.structured import structlog


class Access(Protocol):
    """Decides who is asking."""

    def grant(self, key: str) -> Grant:
        """What `key` grants ("" = none was shown).

        Raises:
            Rejected: key-missing, key-invalid, key-expired, key-revoked.
            Unavailable: who may ask is not known yet.
        """
        ...


class OpenAccess:
    """For one machine: whoever reaches the address may ask everything."""

    def grant(self, key: str) -> Grant:
        del key
        return ANYONE


class ClientDirectory:
    """The clients of the journal; `run` as a task keeps them.

    Args:
        on_change: called with a client's id and state after each of its events but the first reading; `is_cut` = its
            connections are to be closed though it may come back.
    """

    def __init__(self, journal: Journal, clock: Clock, on_change: Callable[[str, State, bool], None]) -> None:
        self._journal = journal
        self._clock = clock
        self._on_change = on_change
        self._states: dict[str, State] = {}
        self._position = 0
        self._pause = RetryPause()
        self._log = structlog.get_logger("ssmd.gateway")
        self.is_ready = False
        self.trouble = ""

    def grant(self, key: str) -> Grant:
        if not self.is_ready:
            raise Unavailable("the gateway does not know yet who may ask: the journal is away", mend="try again in a moment")
        if not key:
            raise Rejected("key-missing", "an API key is needed", mend="send it as the header Authorization: Bearer KEY")
        return grant_of(key, self._states.get(client_id_of(key)), self._clock.now_ns())

    def state(self, client_id: str) -> State | None:
        return self._states.get(client_id)

    async def run(self) -> None:
        """Read for ever. With the journal away those who were known may go on."""
        while True:
            try:
                head = await self._journal.head()
                async with aclosing(self._journal.replay(after=self._position, until=head, filters=[AGGREGATE])) as batches:  # type: ignore[type-var]  # all backends give async generators
                    async for batch in batches:
                        self._take(batch)
                self._position = max(self._position, head)
                self.is_ready, self.trouble = True, ""
                self._pause.answered()
                async with aclosing(self._journal.follow(after=self._position, filters=[AGGREGATE])) as batches:  # type: ignore[type-var]  # as above
                    async for batch in batches:
                        self._take(batch)
            except SsmdError as error:
                if not self.trouble:
                    self._log.warning("cannot read who may ask", error=error.message)
                self.trouble = error.message
                await self._pause.wait()

    def _take(self, batch: list[Any]) -> None:
        for recorded in batch:
            self._position = recorded.position
            if not isinstance(recorded, RecordedEvent):
                self._log.error("a client event that cannot be read", position=recorded.position)
                continue
            envelope = recorded.envelope
            event: Any = CATALOGUE.decode(envelope.type, envelope.data)
            client_id = envelope.aggregate_id
            state = self._states[client_id] = DECIDER.evolve(self._states.get(client_id, DECIDER.initial), event)
            if self.is_ready:
                self._on_change(client_id, state, isinstance(event, DisconnectRequested))
