"""What `ssmd key` does: a value goes to its source, and what happened goes to the journal, in this order.

The journal is opened first, so that nothing is stored whose storing could not be told. A key whose value differs from
the one the journal knows was changed by somebody else, or between the two steps: `state` says "changed".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from ssmd.application.handler import Application
from ssmd.clock import Clock
from ssmd.domain.envelope import Envelope
from ssmd.domain.key import AGGREGATE, DECIDER
from ssmd.errors import Rejected, SsmdError
from ssmd.identifiers import uuid7
from ssmd.keys import journaling
from ssmd.keys.expiry import findings
from ssmd.keys.fingerprint import fingerprint
from ssmd.keys.sealing import SealedName
from ssmd.keys.secret import Secret
from ssmd.keys.store import KeyPlaces, KeyStore, write_sealed
from ssmd.keys.variables import variable_of
from ssmd.keys.verification import expiry_problem, is_due, problems
from ssmd.projections import queries
from ssmd.projections.access import KEYS, KeyRow
from ssmd.projections.views import freshest_views
from ssmd.registry.documents import KeyDefinition
from ssmd.registry.findings import did_you_mean
from ssmd.streams.journal import Journal, RecordedEvent
from ssmd.wiring.environment import ResolvedEnvironment

Status = Literal["not set", "set", "changed", "due", "expired", "bad", "revoked", "deleted", "not defined"]
Ask = Callable[[str, Mapping[str, Secret]], Awaitable[str]]
"""Why the other side refuses a key, "" = it takes it."""


class KeyInfo(msgspec.Struct, frozen=True):
    """What is known of a key: never a value. Times in UTC nanoseconds, 0 = never.

    Attributes:
        status: of what the journal knows; "changed": the value here is not the one it knows.
        is_here: whether the source has a value on this machine; None = that cannot be said (`trouble` says why).
        rotate_by_ns: when it should be another one, by rotation_days.
        sealed_secret: namespace/name of the SealedSecret, "" = none.
    """

    name: str
    status: Status
    type: str
    fields: tuple[str, ...]
    required: bool
    source: str
    where: str
    is_here: bool | None
    fingerprint: str = ""
    set_ns: int = 0
    set_by: str = ""
    age_days: int = 0
    rotate_by_ns: int = 0
    expires_ns: int = 0
    rotations: int = 0
    verified_ns: int = 0
    is_good: bool | None = None
    detail: str = ""
    sealed_secret: str = ""
    trouble: str = ""
    loaded: dict[str, int] = {}


class AuditLine(msgspec.Struct, frozen=True):
    """One event of a key."""

    ts_ns: int
    key: str
    event: str
    actor: str
    fingerprint: str
    detail: str


class Verdict(msgspec.Struct, frozen=True):
    """What a verification found. `problems` () = the key is good; `notes`: what is to be done soon."""

    name: str
    is_good: bool
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    is_online: bool


@dataclass(frozen=True)
class Keys:
    """One environment's keys, with its journal open. Made by `opened_keys`."""

    environment: ResolvedEnvironment
    places: KeyPlaces
    journal: Journal
    application: Application
    clock: Clock
    actor: str

    def definition(self, name: str) -> KeyDefinition:
        """The definition of key `name`. Raises Rejected: the environment defines none of that name."""
        found = self.environment.document.keys.get(name)
        if found is None:
            known = ", ".join(self.environment.document.keys) or "none"
            mend = did_you_mean(name, self.environment.document.keys) or (
                f"define it first: ssmd env add-key {self.environment.name} NAME; known: {known}"
            )
            raise Rejected("key-not-defined", f"{self.environment.name} defines no such key", mend=mend)
        return found

    def store(self, name: str) -> KeyStore:
        """Where key `name` is kept. Raises Rejected: it is not defined."""
        return KeyStore(name, self.definition(name), self.places)

    def mark(self, name: str, fields: Mapping[str, Secret]) -> str:
        """Fingerprint."""
        return fingerprint(self.environment.name, name, fields)

    async def define(self) -> list[str]:
        """Tell the journal every definition; the names."""
        for name, definition in self.environment.document.keys.items():
            await journaling.record_definition(self.application, name, definition, self.actor)
        return list(self.environment.document.keys)

    async def set(self, name: str, fields: Mapping[str, Secret], *, expires_ns: int) -> str:
        """Store a value that is one of its type, then say so; where it went.

        Raises:
            Rejected: not defined, not ours to set, or not a value of its type; nothing changed.
        """
        definition = self.definition(name)
        found = problems(definition, fields)
        if found:
            raise Rejected("key-not-good", f'the value of key "{name}" was not stored: {"; ".join(found)}')
        where = self.store(name).write(fields, self.clock.now_ns())
        mark = self.mark(name, fields)
        await journaling.record_set(self.application, name, definition, mark, self.actor, expires_ns=expires_ns)
        return where

    async def rotate(self, name: str, fields: Mapping[str, Secret], *, expires_ns: int) -> str:
        """As `set`, for a key that has a value; a generated one gets another without being given any.

        Raises:
            Rejected: as `set`; it has no value, or the new one is the old one.
        """
        definition = self.definition(name)
        state = await self.application.state(DECIDER, (name,))
        if state.held is None and not (definition.source == "generated" and self.store(name).read()):
            raise Rejected("key-not-set", f'key "{name}" has no value yet', mend=f"ssmd key set {name}")
        if definition.source == "generated":
            mark = self.mark(name, self.store(name).regenerate())
            await journaling.record_set(self.application, name, definition, mark, self.actor, expires_ns=expires_ns)
            return self.store(name).where
        if self.mark(name, fields) == state.fingerprint:
            raise Rejected("key-unchanged", f'key "{name}" has this value already: it was not rotated')
        return await self.set(name, fields, expires_ns=expires_ns)

    async def delete(self, name: str, reason: str) -> bool:
        """Remove the value, then say so; whether there was one."""
        was_there = self.store(name).delete()
        state = await self.application.state(DECIDER, (name,))
        if state.held is not None:
            await journaling.record_deletion(self.application, name, reason, self.actor)
        return was_there or state.held is not None

    async def verify(self, name: str, *, ask: Ask | None) -> Verdict:
        """Check key `name` and say so in the journal.

        Args:
            ask: asks the other side; None = it is not asked.
        """
        definition, notes = self.definition(name), list[str]()
        try:
            fields = self.store(name).read()
        except SsmdError as error:
            return Verdict(name, False, (error.message,), (), False)
        if not fields:
            found = ("no value, and it is required",) if definition.required else ()
            return Verdict(name, not found, found, () if found else ("not set, and not required",), False)
        found_now = problems(definition, fields)
        state = await self.application.state(DECIDER, (name,))
        mark = self.mark(name, fields)
        if state.held is not None and state.fingerprint == mark:
            now_ns = self.clock.now_ns()
            expired = expiry_problem(state.held.expires_ns, now_ns)
            found_now += [expired] if expired else []
            row = (await self._rows()).get(name)
            if row is not None and is_due(definition, row.set_ns, now_ns):
                notes.append(f"older than {definition.rotation_days} days: rotate it")
            for one in () if row is None else findings(row, definition.rotation_days, now_ns):
                await journaling.record_expiry(self.application, name, one.finding, mark, one.due_ns, self.actor)
            if state.is_revoked:
                found_now.append("revoked")
        is_asked = ask is not None and not found_now
        if ask is not None and is_asked:
            refusal = await ask(name, fields)
            found_now += [refusal] if refusal else []
        check = uuid7(self.clock.now_ns(), self.places.random)
        await journaling.record_check(self.application, name, definition, mark, check=check, found=found_now, actor=self.actor)
        return Verdict(name, not found_now, tuple(found_now), tuple(notes), is_asked)

    async def _rows(self) -> dict[str, KeyRow]:
        return {row.name: row for row in await queries.keys(await freshest_views(None, self.journal, [KEYS]))}

    async def infos(self) -> list[KeyInfo]:
        """Every key that is defined, and those that only the journal knows, by name."""
        rows = await self._rows()
        names = sorted({*self.environment.document.keys, *rows})
        return [self._info(name, rows.get(name) or KeyRow(name)) for name in names]

    async def info(self, name: str) -> KeyInfo:
        """One key. Raises Rejected: nobody knows it."""
        found = next((info for info in await self.infos() if info.name == name), None)
        if found is None:
            self.definition(name)
            raise AssertionError(name)  # what is defined is among the infos
        return found

    def _info(self, name: str, row: KeyRow) -> KeyInfo:
        definition = self.environment.document.keys.get(name)
        if definition is None:
            return KeyInfo(
                name, "not defined", row.type, row.fields, False, "", "", None, row.fingerprint, row.set_ns, row.set_by,
                detail=row.reason, loaded=row.accesses,
            )  # fmt: skip
        now_ns, store = self.clock.now_ns(), KeyStore(name, definition, self.places)
        trouble, here = "", None
        try:
            fields = {} if definition.source == "generated" and not Path(store.where).exists() else store.read()
            here = bool(fields)
        except SsmdError as error:
            fields, trouble = {}, error.message
        is_other = bool(here and row.fingerprint and self.mark(name, fields) != row.fingerprint)
        sealed = definition.sealed_secret
        return KeyInfo(
            name,
            _status(row, definition, now_ns, is_other=is_other),
            definition.type,
            definition.fields,
            definition.required,
            definition.source,
            store.where,
            here,
            row.fingerprint,
            row.set_ns,
            row.set_by,
            (now_ns - row.set_ns) // 86_400_000_000_000 if row.fingerprint and row.set_ns else 0,
            journaling.rotate_by_ns(row.set_ns, definition.rotation_days) if row.fingerprint else 0,
            row.expires_ns,
            row.rotations,
            row.verified_ns,
            row.is_good,
            row.detail or row.reason,
            f"{sealed.namespace}/{sealed.name}" if definition.source == "sealed-secret" else "",
            trouble,
            row.accesses,
        )

    async def audit(self, name: str = "") -> list[AuditLine]:
        """Events of key `name`, or of all keys, oldest first."""
        lines: list[AuditLine] = []
        async for batch in self.journal.replay(filters=[AGGREGATE]):
            for recorded in batch:
                if isinstance(recorded, RecordedEvent):
                    line = _audit_line(recorded.envelope)
                    lines += [line] if name in ("", line.key) else []
        return lines

    async def export_sealed(self, name: str, sealed: SealedName, certificate: Path, target: Path) -> Path:
        """Write key `name` as a SealedSecret; where to. Raises Rejected: it has no value here."""
        fields = await self._taken_out(name)
        return write_sealed(sealed, fields, certificate, target, self.clock.now_ns(), self.places.random)

    async def variable_lines(self, name: str) -> str:
        """Key `name` as lines for a file of variables: secret.

        Raises:
            Rejected: it has no value here.
        """
        fields = await self._taken_out(name)
        return "".join(f"{variable_of(name, field)}={_quoted(value.reveal())}\n" for field, value in sorted(fields.items()))

    async def _taken_out(self, name: str) -> dict[str, Secret]:
        """The value, for a use elsewhere: the journal is told first."""
        definition, fields = self.definition(name), self.store(name).read()
        if not fields:
            raise Rejected("key-not-set", f'key "{name}" has no value here', mend=f"ssmd key set {name}")
        access_id = uuid7(self.clock.now_ns(), self.places.random)
        await journaling.record_load(
            self.application, name, definition, self.mark(name, fields), process=f"{self.actor} export", access_id=access_id
        )
        return fields


def _audit_line(envelope: Envelope) -> AuditLine:
    data = msgspec.json.decode(envelope.data)
    told = ((field, data.get(field)) for field in ("process", "is_good", "finding", "detail", "reason", "previous"))
    words = {True: "yes", False: "no"}
    return AuditLine(
        envelope.ts_ns,
        envelope.aggregate_key.parts[0],
        envelope.type.removeprefix(f"{AGGREGATE}.").rpartition(".v")[0],
        envelope.actor,
        str(data.get("fingerprint", "")),
        "; ".join(f"{field}: {words.get(value, value)}" for field, value in told if value not in (None, "")),
    )


def _quoted(text: str) -> str:
    """For POSIX shells, and for what reads such files as they do."""
    return "'" + text.replace("'", "'\\''") + "'"


def _status(row: KeyRow, definition: KeyDefinition, now_ns: int, *, is_other: bool) -> Status:
    if row.status == "revoked":
        return "revoked"
    if not row.fingerprint:
        return "deleted" if row.status == "deleted" else "not set"
    if is_other:
        return "changed"
    if expiry_problem(row.expires_ns, now_ns):
        return "expired"
    if row.is_good is False:
        return "bad"
    return "due" if is_due(definition, row.set_ns, now_ns) else "set"
