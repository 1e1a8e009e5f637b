"""The NATS streams that an environment's document asks for, and the servers that keep them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from ssmd.streams.connection import Connection
from ssmd.streams.topology import Endpoint, StreamDefinition, desired

if TYPE_CHECKING:
    from ssmd.wiring.environment import ResolvedEnvironment

CONNECT_S: Final = 5.0


def stream_definitions(environment: ResolvedEnvironment) -> list[StreamDefinition]:
    """The streams that NATS keeps for the environment; those of other backends are not among them."""
    document = environment.document
    backends = {"journal": document.journal.backend, "transport": document.transport.backend}
    definitions = desired(
        environment.name,
        max_age_s=document.transport.max_age_hours * 3600,
        max_bytes=document.transport.max_bytes,
        replicas=document.transport.replicas,
        journal_replicas=document.journal.replicas,
    )
    return [definition for definition in definitions if backends[definition.endpoint] == "nats"]


@asynccontextmanager
async def stream_connections(
    environment: ResolvedEnvironment, variables: Mapping[str, str], definitions: Sequence[StreamDefinition]
) -> AsyncGenerator[dict[Endpoint, Connection]]:
    """One connection to each server that keeps some of `definitions`.

    Raises:
        Unavailable: one does not answer. Misconfigured: its url has no value, or it does not let us in.
    """
    opened: dict[Endpoint, Connection] = {}
    try:
        for endpoint in sorted({definition.endpoint for definition in definitions}):
            url = environment.server_url(endpoint, variables)
            opened[endpoint] = await Connection.open(url, name=f"ssmd {environment.name} streams", timeout_s=CONNECT_S)
        yield opened
    finally:
        for connection in opened.values():
            await connection.close()
