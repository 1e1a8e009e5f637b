"""Views `keys` and `clients`: which secrets there are and who may ask. Fingerprints and names, never a value.

key/{name}     -> KeyRow        of view keys
client/{id}    -> ClientRow     of view clients
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from ssmd.domain import client, key
from ssmd.projections.projection import Projection, Rows, id_parts, row_key, row_prefix
from ssmd.streams.journal import RecordedEvent

KEYS_NAME: Final = "keys"
CLIENTS_NAME: Final = "clients"
_KEY: Final = "key"
_CLIENT: Final = "client"
KEYS_PREFIX: Final = row_prefix(_KEY)
CLIENTS_PREFIX: Final = row_prefix(_CLIENT)


class KeyRow(msgspec.Struct, frozen=True):
    """One key. Times are those of events, 0 = never; `expires_ns` 0 = it does not expire.

    `is_good`: what the other side said when it was last asked about this value, None = it was not. `accesses`: process
    -> when it last loaded it.
    """

    name: str
    status: Literal["defined", "set", "revoked", "deleted"] = "defined"
    type: str = ""
    fields: tuple[str, ...] = ()
    fingerprint: str = ""
    scopes: tuple[str, ...] = ()
    set_ns: int = 0
    set_by: str = ""
    expires_ns: int = 0
    rotations: int = 0
    verified_ns: int = 0
    is_good: bool | None = None
    detail: str = ""
    reason: str = ""
    accesses: dict[str, int] = {}
    position: int = 0


class ClientRow(msgspec.Struct, frozen=True):
    """One client. Times as in `KeyRow`; `accessed_ns`: when it was last let in, as far as that is journaled."""

    id: str
    status: Literal["active", "revoked", "deleted"] = "active"
    name: str = ""
    fingerprint: str = ""
    scopes: tuple[str, ...] = ()
    created_ns: int = 0
    created_by: str = ""
    expires_ns: int = 0
    rotations: int = 0
    accessed_ns: int = 0
    reason: str = ""
    position: int = 0


def key_key(name: str) -> str:
    """Key of a `KeyRow`."""
    return row_key(_KEY, name)


def client_key(client_id: str) -> str:
    """Key of a `ClientRow`."""
    return row_key(_CLIENT, client_id)


def _fold_key(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
    (name,) = id_parts(recorded.envelope)
    row = rows.get(key_key(name), KeyRow) or KeyRow(name)
    after = _evolve_key(row, event, recorded.envelope.ts_ns, recorded.envelope.actor)
    rows.put(key_key(name), msgspec.structs.replace(after, position=recorded.position))


def _evolve_key(row: KeyRow, event: msgspec.Struct, ts_ns: int, actor: str) -> KeyRow:
    replace = msgspec.structs.replace
    match event:
        case key.Defined(key_type=key_type, fields=fields):
            return replace(row, type=key_type, fields=row.fields if row.fingerprint else fields)
        case key.Set() | key.Rotated():
            return replace(
                row,
                status="set",
                fields=event.fields,
                fingerprint=event.fingerprint,
                scopes=event.scopes,
                expires_ns=event.expires_ns,
                set_ns=ts_ns,
                set_by=actor,
                rotations=row.rotations + isinstance(event, key.Rotated),
                verified_ns=0,
                is_good=None,
                detail="",
                reason="",
            )
        case key.Accessed(process=process):
            return replace(row, accesses=dict(sorted((row.accesses | {process: ts_ns}).items())))
        case key.Verified(is_good=is_good, detail=detail):
            return replace(row, verified_ns=ts_ns, is_good=is_good, detail=detail)
        case key.Revoked(reason=reason):
            return replace(row, status="revoked", reason=reason)
        case key.Deleted(reason=reason):
            return replace(row, status="deleted", reason=reason, fingerprint="", expires_ns=0)
        case _:
            return row


def _fold_client(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
    (client_id,) = id_parts(recorded.envelope)
    row = rows.get(client_key(client_id), ClientRow) or ClientRow(client_id)
    after = _evolve_client(row, event, recorded.envelope.ts_ns, recorded.envelope.actor)
    rows.put(client_key(client_id), msgspec.structs.replace(after, position=recorded.position))


def _evolve_client(row: ClientRow, event: msgspec.Struct, ts_ns: int, actor: str) -> ClientRow:
    replace = msgspec.structs.replace
    match event:
        case client.Created(name=name, fingerprint=fingerprint, scopes=scopes, expires_ns=expires_ns):
            return ClientRow(
                row.id,
                name=name,
                fingerprint=fingerprint,
                scopes=scopes,
                created_ns=ts_ns,
                created_by=actor,
                expires_ns=expires_ns,
            )
        case client.Rotated(fingerprint=fingerprint, expires_ns=expires_ns):
            return replace(row, fingerprint=fingerprint, expires_ns=expires_ns, rotations=row.rotations + 1)
        case client.Accessed():
            return replace(row, accessed_ns=ts_ns)
        case client.Revoked(reason=reason):
            return replace(row, status="revoked", reason=reason)
        case client.Deleted(reason=reason):
            return replace(row, status="deleted", reason=reason)
        case _:
            return row


KEYS: Final = Projection(KEYS_NAME, 1, frozenset({key.AGGREGATE}), _fold_key)
CLIENTS: Final = Projection(CLIENTS_NAME, 1, frozenset({client.AGGREGATE}), _fold_client)
