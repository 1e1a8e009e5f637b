"""Aggregate `client . {id}`: who may ask the gateway. What the client shows is never here, only its fingerprint.

A mode says how a client that does not keep up is served: realtime (told what it lost, and closed), conflated (of each market
and kind the newest, at intervals), latest (of each market and kind the newest, whenever it has read what it was sent).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from ssmd.domain.decider import Decider
from ssmd.domain.key import check_public
from ssmd.errors import Rejected

AGGREGATE: Final = "client"

Mode = Literal["realtime", "conflated", "latest"]


# Commands


class CreateClient(msgspec.Struct, frozen=True):
    """`name`: for people; `expires_ns` 0 = it does not expire; `feeds` () = all of the environment's.

    `requests_per_s`, `connections_max`: 0 = as the gateway has it for everybody.
    """

    name: str
    fingerprint: str
    scopes: tuple[str, ...] = ()
    expires_ns: int = 0
    feeds: tuple[str, ...] = ()
    requests_per_s: int = 0
    connections_max: int = 0
    mode: Mode = "realtime"


class RotateClient(msgspec.Struct, frozen=True):
    """Another credential takes the place of the one there is; scopes stay."""

    fingerprint: str
    expires_ns: int = 0


class RecordAccess(msgspec.Struct, frozen=True):
    """The client was let in for the first time since `access_id` began (a gateway's run and day, say)."""

    process: str
    access_id: str


class SetMode(msgspec.Struct, frozen=True):
    """Its connections are served so from now on, unless a subscription says otherwise."""

    mode: Mode


class DisconnectClient(msgspec.Struct, frozen=True):
    """Cut its connections; it may come back. `request_id` identifies the wish."""

    request_id: str
    reason: str


class RevokeClient(msgspec.Struct, frozen=True):
    reason: str


class DeleteClient(msgspec.Struct, frozen=True):
    """It is not even shown in lists any more; its id is never used again."""

    reason: str = ""


# Events


class Created(msgspec.Struct, frozen=True, tag_field="type", tag="client.created.v1"):
    name: str
    fingerprint: str
    scopes: tuple[str, ...]
    expires_ns: int
    feeds: tuple[str, ...] = ()
    requests_per_s: int = 0
    connections_max: int = 0
    mode: Mode = "realtime"


class Rotated(msgspec.Struct, frozen=True, tag_field="type", tag="client.rotated.v1"):
    fingerprint: str
    previous: str
    expires_ns: int


class Accessed(msgspec.Struct, frozen=True, tag_field="type", tag="client.accessed.v1"):
    process: str
    access_id: str


class ModeSet(msgspec.Struct, frozen=True, tag_field="type", tag="client.mode-set.v1"):
    mode: Mode


class DisconnectRequested(msgspec.Struct, frozen=True, tag_field="type", tag="client.disconnect-requested.v1"):
    request_id: str
    reason: str


class Revoked(msgspec.Struct, frozen=True, tag_field="type", tag="client.revoked.v1"):
    reason: str


class Deleted(msgspec.Struct, frozen=True, tag_field="type", tag="client.deleted.v1"):
    reason: str


ClientCommand = CreateClient | RotateClient | RecordAccess | SetMode | DisconnectClient | RevokeClient | DeleteClient
ClientEvent = Created | Rotated | Accessed | ModeSet | DisconnectRequested | Revoked | Deleted
EVENTS = (Created, Rotated, Accessed, ModeSet, DisconnectRequested, Revoked, Deleted)


# State


class State(msgspec.Struct, frozen=True):
    """`created` is as the client is now; None = there never was one. `accesses`: process -> its latest access id.

    `disconnect`: the latest wish to cut it off.
    """

    created: Created | None = None
    is_revoked: bool = False
    is_deleted: bool = False
    accesses: dict[str, str] = {}
    disconnect: str = ""


def decide(state: State, command: ClientCommand) -> tuple[ClientEvent, ...]:
    match command:
        case CreateClient():
            return _create(state, command)
        case RotateClient(fingerprint=fingerprint, expires_ns=expires_ns):
            check_public(fingerprint, ())
            created = _require_usable(state)
            if (fingerprint, expires_ns) == (created.fingerprint, created.expires_ns):
                return ()
            return (Rotated(fingerprint, created.fingerprint, expires_ns),)
        case RecordAccess(process=process, access_id=access_id):
            if state.accesses.get(process) == access_id:
                return ()
            _require_usable(state)
            return (Accessed(process, access_id),)
        case SetMode(mode=mode):
            return () if _require_usable(state).mode == mode else (ModeSet(mode),)
        case DisconnectClient(request_id=request_id, reason=reason):
            _require_known(state)
            return () if state.disconnect == request_id else (DisconnectRequested(request_id, reason),)
        case RevokeClient(reason=reason):
            _require_known(state)
            return () if state.is_revoked or state.is_deleted else (Revoked(reason),)
        case DeleteClient(reason=reason):
            _require_known(state)
            return () if state.is_deleted else (Deleted(reason),)


def _create(state: State, command: CreateClient) -> tuple[ClientEvent, ...]:
    check_public(command.fingerprint, (*command.scopes, *command.feeds))
    wanted = Created(
        command.name,
        command.fingerprint,
        command.scopes,
        command.expires_ns,
        command.feeds,
        command.requests_per_s,
        command.connections_max,
        command.mode,
    )
    if state.created is None:
        return (wanted,)
    if state.created == wanted and not state.is_revoked and not state.is_deleted:
        return ()
    raise Rejected("client-exists", f"client {state.created.name} exists already, with other scopes or another credential")


def _require_known(state: State) -> Created:
    if state.created is None:
        raise Rejected("no-such-client", "there never was such a client", mend="ssmd client create")
    return state.created


def _require_usable(state: State) -> Created:
    created = _require_known(state)
    if state.is_revoked or state.is_deleted:
        raise Rejected("client-revoked", f"client {created.name} was {'deleted' if state.is_deleted else 'revoked'}")
    return created


def evolve(state: State, event: ClientEvent) -> State:
    replace = msgspec.structs.replace
    match event:
        case Created():
            return State(created=event)
        case Rotated(fingerprint=fingerprint, expires_ns=expires_ns):
            created = state.created or Created("", "", (), 0)
            return replace(state, created=replace(created, fingerprint=fingerprint, expires_ns=expires_ns))
        case Accessed(process=process, access_id=access_id):
            return replace(state, accesses=state.accesses | {process: access_id})
        case ModeSet(mode=mode):
            created = state.created or Created("", "", (), 0)
            return replace(state, created=replace(created, mode=mode))
        case DisconnectRequested(request_id=request_id):
            return replace(state, disconnect=request_id)
        case Revoked():
            return replace(state, is_revoked=True)
        case Deleted():
            return replace(state, is_deleted=True)


DECIDER: Decider[ClientCommand, ClientEvent, State] = Decider(AGGREGATE, ("id",), State(), decide, evolve, EVENTS)
