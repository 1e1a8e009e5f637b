"""Aggregate `key . {name}`: what is known of a secret that is kept elsewhere: never a value, only that there is one.

A fingerprint is a slow, salted digest in hex (`keys.fingerprint`), so that trying values costs too much; whoever sends
anything else is refused, which also keeps a value that was put in the wrong place out of the journal.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from ssmd.domain.decider import Decider
from ssmd.errors import Rejected

AGGREGATE: Final = "key"

Finding = Literal["expires-soon", "expired", "rotation-due"]
"""Why a value should be replaced."""

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{8,64}")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}")


def check_public(fingerprint: str, names: tuple[str, ...]) -> None:
    """Refuse a fingerprint that is no digest, and a field or scope whose name is no name.

    Raises:
        Rejected: what was given is not repeated: it may be a secret.
    """
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise Rejected(
            "not-a-fingerprint", f"a fingerprint has 8 to 64 hex digits, what was given has {len(fingerprint)} characters"
        )
    if not all(_NAME.fullmatch(name) for name in names):
        raise Rejected("not-a-name", "fields and scopes are named by letters, digits and _.:- only, at most 64")


# Commands


class DefineKey(msgspec.Struct, frozen=True):
    """The registry wants a key of `type` with these fields."""

    type: str
    fields: tuple[str, ...]


class SetKey(msgspec.Struct, frozen=True):
    """A value was stored: at first, or in place of another. `expires_ns` 0 = it does not expire."""

    fields: tuple[str, ...]
    fingerprint: str
    scopes: tuple[str, ...] = ()
    expires_ns: int = 0


class RecordAccess(msgspec.Struct, frozen=True):
    """A process loaded it; `access_id` identifies the loading."""

    process: str
    access_id: str
    fields: tuple[str, ...]


class VerifyKey(msgspec.Struct, frozen=True):
    """The other side was asked whether it takes the key; `check` identifies the question."""

    check: str
    is_good: bool
    detail: str = ""


class NoticeExpiry(msgspec.Struct, frozen=True):
    """The value with `fingerprint` was found so, at or from `due_ns`; once per value, finding and time."""

    finding: Finding
    fingerprint: str
    due_ns: int


class RevokeKey(msgspec.Struct, frozen=True):
    """It must not be used any more."""

    reason: str


class DeleteKey(msgspec.Struct, frozen=True):
    """The stored value is gone."""

    reason: str = ""


# Events


class Defined(msgspec.Struct, frozen=True, tag_field="type", tag="key.defined.v1"):
    key_type: str
    fields: tuple[str, ...]


class Set(msgspec.Struct, frozen=True, tag_field="type", tag="key.set.v1"):
    """There is a value where there was none."""

    fields: tuple[str, ...]
    fingerprint: str
    scopes: tuple[str, ...]
    expires_ns: int


class Rotated(msgspec.Struct, frozen=True, tag_field="type", tag="key.rotated.v1"):
    """Another value took the place of the one with `previous`."""

    fields: tuple[str, ...]
    fingerprint: str
    previous: str
    scopes: tuple[str, ...]
    expires_ns: int


class Accessed(msgspec.Struct, frozen=True, tag_field="type", tag="key.accessed.v1"):
    process: str
    access_id: str
    fields: tuple[str, ...]
    fingerprint: str


class Verified(msgspec.Struct, frozen=True, tag_field="type", tag="key.verified.v1"):
    check: str
    fingerprint: str
    is_good: bool
    detail: str


class ExpiryNoticed(msgspec.Struct, frozen=True, tag_field="type", tag="key.expiry-noticed.v1"):
    """The value should be replaced. `due_ns`: when it expires or has expired; for rotation-due: since when it is due."""

    finding: Finding
    fingerprint: str
    due_ns: int


class Revoked(msgspec.Struct, frozen=True, tag_field="type", tag="key.revoked.v1"):
    fingerprint: str
    reason: str


class Deleted(msgspec.Struct, frozen=True, tag_field="type", tag="key.deleted.v1"):
    fingerprint: str
    reason: str


KeyCommand = DefineKey | SetKey | RecordAccess | VerifyKey | NoticeExpiry | RevokeKey | DeleteKey
KeyEvent = Defined | Set | Rotated | Accessed | Verified | ExpiryNoticed | Revoked | Deleted
EVENTS = (Defined, Set, Rotated, Accessed, Verified, ExpiryNoticed, Revoked, Deleted)


# State


class State(msgspec.Struct, frozen=True):
    """`fingerprint` "" = there is no value; `accesses`: process -> its latest access id; `noticed`: of this value."""

    key_type: str = ""
    defined: tuple[str, ...] = ()
    held: Set | None = None
    is_revoked: bool = False
    check: str = ""
    accesses: dict[str, str] = {}
    noticed: tuple[tuple[Finding, int], ...] = ()

    @property
    def fingerprint(self) -> str:
        return "" if self.held is None else self.held.fingerprint


def decide(state: State, command: KeyCommand) -> tuple[KeyEvent, ...]:
    match command:
        case DefineKey(type=type_, fields=fields):
            check_public("0" * 8, fields)
            return () if (type_, fields) == (state.key_type, state.defined) else (Defined(type_, fields),)
        case SetKey():
            return _set(state, command)
        case RecordAccess():
            return _access(state, command)
        case VerifyKey(check=check, is_good=is_good, detail=detail):
            if check == state.check:
                return ()
            _require_value(state)
            return (Verified(check, state.fingerprint, is_good, detail),)
        case NoticeExpiry():
            return _notice(state, command)
        case RevokeKey(reason=reason):
            if state.held is None or state.is_revoked:
                return ()
            return (Revoked(state.fingerprint, reason),)
        case DeleteKey(reason=reason):
            return () if state.held is None else (Deleted(state.fingerprint, reason),)


def _set(state: State, command: SetKey) -> tuple[KeyEvent, ...]:
    check_public(command.fingerprint, (*command.fields, *command.scopes))
    held = Set(command.fields, command.fingerprint, command.scopes, command.expires_ns)
    if state.held is None:
        return (held,)
    if state.held == held:
        return ()
    if state.is_revoked and command.fingerprint == state.fingerprint:
        raise Rejected("key-revoked", f"the value with fingerprint {command.fingerprint} was revoked")
    return (Rotated(held.fields, held.fingerprint, state.fingerprint, held.scopes, held.expires_ns),)


def _access(state: State, command: RecordAccess) -> tuple[KeyEvent, ...]:
    if state.accesses.get(command.process) == command.access_id:
        return ()
    _require_value(state)
    check_public(state.fingerprint, command.fields)
    return (Accessed(command.process, command.access_id, command.fields, state.fingerprint),)


def _notice(state: State, command: NoticeExpiry) -> tuple[KeyEvent, ...]:
    if state.held is None or state.is_revoked or command.fingerprint != state.fingerprint:
        return ()  # replaced, revoked or deleted since somebody looked: there is nothing to notice any more
    if (command.finding, command.due_ns) in state.noticed:
        return ()
    return (ExpiryNoticed(command.finding, command.fingerprint, command.due_ns),)


def _require_value(state: State) -> None:
    if state.held is None:
        raise Rejected("key-not-set", "the key has no value")


def evolve(state: State, event: KeyEvent) -> State:
    replace = msgspec.structs.replace
    match event:
        case Defined(key_type=key_type, fields=fields):
            return replace(state, key_type=key_type, defined=fields)
        case Set():
            return replace(state, held=event, is_revoked=False, check="", noticed=())
        case Rotated():
            held = Set(event.fields, event.fingerprint, event.scopes, event.expires_ns)
            return replace(state, held=held, is_revoked=False, check="", noticed=())
        case Accessed(process=process, access_id=access_id):
            return replace(state, accesses=state.accesses | {process: access_id})
        case Verified(check=check):
            return replace(state, check=check)
        case ExpiryNoticed(finding=finding, due_ns=due_ns):
            return replace(state, noticed=(*state.noticed, (finding, due_ns)))
        case Revoked():
            return replace(state, is_revoked=True)
        case Deleted():
            return replace(state, held=None, is_revoked=False, check="", noticed=())


DECIDER: Decider[KeyCommand, KeyEvent, State] = Decider(AGGREGATE, ("name",), State(), decide, evolve, EVENTS)
