"""The four streams of an environment as data, and how servers are brought and compared to them.

    {env}-raw      {env}.raw.>       tape blocks      transport server
    {env}-market   {env}.md.>        records, marks   transport server
    {env}-dlq      {env}.dlq.>       dead letters     transport server
    {env}-journal  {env}.journal.>   domain events    journal server

The journal is never limited, deleted from or purged; once set, the server itself refuses to take that back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from ssmd.errors import Misconfigured
from ssmd.identifiers import encode_token
from ssmd.streams.connection import ApiRefused, Connection

Endpoint = Literal["journal", "transport"]
Role = Literal["raw", "market", "dlq", "journal"]

NS_PER_S: Final = 1_000_000_000
STREAM_NOT_FOUND: Final = 10059
API_TIMEOUT_S: Final = 5.0
DLQ_MAX_BYTES: Final = 256 << 20
DLQ_MAX_AGE_S: Final = 30 * 86_400


class StreamDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """One stream as it should be. `max_age_ns`, `max_bytes`: 0 and -1 = no limit. The rest is in the server's words."""

    name: str
    role: Role
    endpoint: Endpoint
    subjects: tuple[str, ...]
    discard: Literal["old", "new"] = "old"
    max_age_ns: int = 0
    max_bytes: int = -1
    duplicate_window_ns: int = 120 * NS_PER_S
    num_replicas: int = 1
    allow_atomic: bool = False
    allow_direct: bool = True
    deny_delete: bool = False
    deny_purge: bool = False

    def config(self) -> dict[str, Any]:
        """The body of STREAM.CREATE and STREAM.UPDATE."""
        return {
            "name": self.name,
            "subjects": list(self.subjects),
            "storage": "file",
            "retention": "limits",
            "discard": self.discard,
            "max_age": self.max_age_ns,
            "max_bytes": self.max_bytes,
            "max_msgs": -1,
            "max_msgs_per_subject": -1,
            "max_consumers": -1,
            "duplicate_window": self.duplicate_window_ns,
            "num_replicas": self.num_replicas,
            "allow_atomic": self.allow_atomic,
            "allow_direct": self.allow_direct,
            "deny_delete": self.deny_delete,
            "deny_purge": self.deny_purge,
        }


def stream_name(env: str, role: Role) -> str:
    """Name of one stream of `env`."""
    return f"{encode_token(env)}-{role}"


def journal_stream(env: str, *, replicas: int = 1, duplicate_window_s: float = 120.0) -> StreamDefinition:
    """The journal of `env`. `duplicate_window_s`: how long the server itself knows a command id (>= 0.1)."""
    return StreamDefinition(
        name=stream_name(env, "journal"),
        role="journal",
        endpoint="journal",
        subjects=(f"{encode_token(env)}.journal.>",),
        discard="new",
        duplicate_window_ns=round(duplicate_window_s * NS_PER_S),
        num_replicas=replicas,
        allow_atomic=True,
        deny_delete=True,
        deny_purge=True,
    )


def desired(
    env: str,
    *,
    max_age_s: float,
    max_bytes: int,
    replicas: int = 1,
    journal_replicas: int = 1,
    duplicate_window_s: float = 120.0,
) -> list[StreamDefinition]:
    """All streams of `env`.

    Args:
        max_age_s: how long raw and market keep a message.
        max_bytes: bound of raw and market together, half each; the server reserves it.
        duplicate_window_s: how long a message id is known, in all streams.
    """
    token = encode_token(env)
    window_ns = round(duplicate_window_s * NS_PER_S)
    limits: list[tuple[Role, str, float, int]] = [
        ("raw", f"{token}.raw.>", max_age_s, max_bytes // 2),
        ("market", f"{token}.md.>", max_age_s, max_bytes // 2),
        ("dlq", f"{token}.dlq.>", DLQ_MAX_AGE_S, DLQ_MAX_BYTES),
    ]
    transport = [
        StreamDefinition(
            name=stream_name(env, role),
            role=role,
            endpoint="transport",
            subjects=(subject,),
            max_age_ns=round(age_s * NS_PER_S),
            max_bytes=size,
            # The server refuses a window longer than the age.
            duplicate_window_ns=min(window_ns, round(age_s * NS_PER_S)),
            num_replicas=replicas,
        )
        for role, subject, age_s, size in limits
    ]
    return [*transport, journal_stream(env, replicas=journal_replicas, duplicate_window_s=duplicate_window_s)]


class Difference(NamedTuple):
    """One setting of one stream that is not as desired; `field` "" = the stream does not exist."""

    stream: str
    field: str
    found: str
    wanted: str


class StreamStatus(NamedTuple):
    """What a server says of one stream; all zero where it does not exist."""

    name: str
    endpoint: Endpoint
    exists: bool
    messages: int = 0
    size_bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0
    consumers: int = 0
    replicas: int = 0


Connections = Mapping[Endpoint, Connection]


async def _info(connections: Connections, definition: StreamDefinition) -> dict[str, Any] | None:
    try:
        return await connections[definition.endpoint].api(f"STREAM.INFO.{definition.name}", timeout_s=API_TIMEOUT_S)
    except ApiRefused as error:
        if error.err_code == STREAM_NOT_FOUND:
            return None
        raise


def _differences(definition: StreamDefinition, info: dict[str, Any] | None) -> list[Difference]:
    if info is None:
        return [Difference(definition.name, "", "missing", "present")]
    found = info["config"]
    return [
        Difference(definition.name, field, str(found.get(field, False)), str(wanted))
        for field, wanted in definition.config().items()
        if found.get(field, False) != wanted
    ]


async def diff(connections: Connections, definitions: Sequence[StreamDefinition]) -> list[Difference]:
    """What is not as desired; [] = nothing.

    Raises:
        Unavailable: a server did not answer.
    """
    found: list[Difference] = []
    for definition in definitions:
        found += _differences(definition, await _info(connections, definition))
    return found


async def apply(connections: Connections, definitions: Sequence[StreamDefinition]) -> list[Difference]:
    """Bring the servers to the desired state; returns what was changed. Doing it again changes nothing.

    Raises:
        Misconfigured: a server refuses a setting (a journal's protection cannot be taken back, storage does not suffice).
        Unavailable: a server did not answer.
    """
    changed: list[Difference] = []
    for definition in definitions:
        info = await _info(connections, definition)
        differences = _differences(definition, info)
        if not differences:
            continue
        verb = "CREATE" if info is None else "UPDATE"
        connection = connections[definition.endpoint]
        try:
            await connection.api(f"STREAM.{verb}.{definition.name}", definition.config(), timeout_s=API_TIMEOUT_S)
        except ApiRefused as error:
            raise Misconfigured(
                f"stream {definition.name} at {connection.url} cannot be brought to its definition: {error.message}",
                mend="compare with `ssmd streams diff`; mend the transport section of the environment document",
            ) from error
        changed += differences
    return changed


async def status(connections: Connections, definitions: Sequence[StreamDefinition]) -> list[StreamStatus]:
    """What the servers hold, in the order of `definitions`.

    Raises:
        Unavailable: a server did not answer.
    """
    result = []
    for definition in definitions:
        info = await _info(connections, definition)
        if info is None:
            result.append(StreamStatus(definition.name, definition.endpoint, exists=False))
            continue
        state = info["state"]
        result.append(
            StreamStatus(
                definition.name,
                definition.endpoint,
                exists=True,
                messages=state["messages"],
                size_bytes=state["bytes"],
                first_seq=state["first_seq"],
                last_seq=state["last_seq"],
                consumers=state["consumer_count"],
                replicas=info["config"]["num_replicas"],
            )
        )
    return result


async def remove(connections: Connections, definitions: Sequence[StreamDefinition]) -> list[str]:
    """Delete the streams with all they hold, but never a journal; names of those that were there.

    Raises:
        Misconfigured: a server refuses.
        Unavailable: a server did not answer.
    """
    removed: list[str] = []
    for definition in definitions:
        if definition.role == "journal":
            continue
        connection = connections[definition.endpoint]
        try:
            await connection.api(f"STREAM.DELETE.{definition.name}", timeout_s=API_TIMEOUT_S)
        except ApiRefused as error:
            if error.err_code == STREAM_NOT_FOUND:
                continue
            raise Misconfigured(f"stream {definition.name} at {connection.url} cannot be deleted: {error.message}") from error
        removed.append(definition.name)
    return removed
