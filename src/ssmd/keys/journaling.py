"""What happens to keys, told to the journal: that there is a value, which one, who loaded it, whether it is good.

Only names, fingerprints and times are written. The aggregate refuses what looks like a value.
"""

from __future__ import annotations

from typing import Final

from ssmd.application.handler import Application
from ssmd.domain.key import DECIDER, DefineKey, DeleteKey, Finding, NoticeExpiry, RecordAccess, SetKey, State, VerifyKey
from ssmd.keys.definition import KeyDefinition
from ssmd.keys.verification import DAY_NS

DETAIL_MAX: Final = 500


async def record_definition(application: Application, name: str, definition: KeyDefinition, actor: str) -> State:
    """The registry defines key `name` so."""
    command = DefineKey(definition.type, tuple(definition.fields))
    return (await application.handle(DECIDER, (name,), command, actor=actor)).state


async def record_set(
    application: Application, name: str, definition: KeyDefinition, mark: str, actor: str, *, expires_ns: int = 0
) -> State:
    """A value with fingerprint `mark` was stored: at first, or in place of another."""
    await record_definition(application, name, definition, actor)
    command = SetKey(tuple(definition.fields), mark, expires_ns=expires_ns)
    return (await application.handle(DECIDER, (name,), command, actor=actor)).state


async def record_found(application: Application, name: str, definition: KeyDefinition, mark: str, actor: str) -> State:
    """A value with fingerprint `mark` is there, whoever put it there: new to the journal only if it is another one.

    Somebody may set keys without ssmd (variables, a cluster, Vault); then this is how the journal comes to know.
    """
    state = await application.state(DECIDER, (name,))
    if state.fingerprint == mark:
        return state
    return await record_set(application, name, definition, mark, actor)


async def record_load(
    application: Application, name: str, definition: KeyDefinition, mark: str, *, process: str, access_id: str
) -> State:
    """Process `process` loaded the value with fingerprint `mark`; `access_id` identifies the loading."""
    await record_found(application, name, definition, mark, process)
    command = RecordAccess(process, access_id, tuple(definition.fields))
    return (await application.handle(DECIDER, (name,), command, actor=process)).state


async def record_check(
    application: Application, name: str, definition: KeyDefinition, mark: str, *, check: str, found: list[str], actor: str
) -> State:
    """Key `name` was verified: `found` is what is wrong with it. `check` identifies the verification."""
    await record_found(application, name, definition, mark, actor)
    command = VerifyKey(check, is_good=not found, detail="; ".join(found)[:DETAIL_MAX])
    return (await application.handle(DECIDER, (name,), command, actor=actor)).state


async def record_expiry(application: Application, name: str, finding: Finding, mark: str, due_ns: int, actor: str) -> bool:
    """The value with fingerprint `mark` should be replaced; False = that was told before, or it was replaced since."""
    handled = await application.handle(DECIDER, (name,), NoticeExpiry(finding, mark, due_ns), actor=actor)
    return bool(handled.events)


async def record_deletion(application: Application, name: str, reason: str, actor: str) -> State:
    """The stored value is gone."""
    return (await application.handle(DECIDER, (name,), DeleteKey(reason), actor=actor)).state


def rotate_by_ns(set_ns: int, rotation_days: int) -> int:
    """When a key set at `set_ns` should be rotated at the latest; 0 = never, or it is not set."""
    return set_ns + rotation_days * DAY_NS if set_ns and rotation_days else 0
