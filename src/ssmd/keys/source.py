"""What a process that needs a key gets: its fields from its source, whole and of their type, or a reason why not.

Messages name variables, files and fields, never values.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ssmd.errors import Misconfigured
from ssmd.identifiers import RandomBytes
from ssmd.keys.definition import KeyDefinition
from ssmd.keys.secret import Secret
from ssmd.keys.store import KeyPlaces, KeyStore
from ssmd.keys.variables import variable_of
from ssmd.keys.verification import problems


def resolve_key(
    name: str,
    definition: KeyDefinition,
    *,
    variables: Mapping[str, str],
    directory: Path,
    random: RandomBytes,
    env: str = "",
    root: Path = Path(),
) -> dict[str, Secret]:
    """The fields of key `name`; {} for a key that is not required when it has no value at all.

    Args:
        variables: `settings.variables()`.
        directory: where ssmd keeps the environment's keys (`.ssmd/{env}/keys`).
        root: the workspace, below which relative paths of definitions are.

    Raises:
        Misconfigured: a field has no value, two values, an empty one, or one that is no key of its type.
        Unavailable: Vault did not answer.
    """
    places = KeyPlaces(env, root, directory.parent.parent, directory, variables, random)
    store = KeyStore(name, definition, places)
    fields = store.read()
    if not fields and not definition.required:
        return {}
    missing = [field for field in definition.fields if field not in fields]
    if missing:
        raise _without_value(name, definition, missing, store)
    found = problems(definition, fields)
    if found:
        by = f"{variable_of(name, 'private_key')} (or its file)" if definition.source == "env" else store.where
        raise Misconfigured(f'key "{name}" of {by}: {"; ".join(found)}', mend=f"ssmd key verify {name}")
    return {field: fields[field] for field in definition.fields}


def _without_value(name: str, definition: KeyDefinition, missing: list[str], store: KeyStore) -> Misconfigured:
    if definition.source == "env":
        wanted = ", ".join(f"{variable_of(name, field)} or {variable_of(name, field)}_FILE" for field in missing)
        return Misconfigured(
            f'key "{name}" has no value: {wanted} is not set', mend=f"export {variable_of(name, missing[0])}_FILE=PATH"
        )
    return Misconfigured(f'key "{name}" has no value: {store.where} lacks {", ".join(missing)}', mend=f"ssmd key set {name}")
