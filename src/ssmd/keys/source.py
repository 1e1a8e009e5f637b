"""Where an environment's keys get their values: variables, files that variables name, or a generated file.

For key `kalshi`, field `private_key`:

    SSMD_KALSHI_PRIVATE_KEY         the value
    SSMD_KALSHI_PRIVATE_KEY_FILE    a file that holds it (one trailing newline is not part of it)

Messages name variables and files, never values.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ssmd.errors import Malformed, Misconfigured
from ssmd.identifiers import RandomBytes
from ssmd.keys.definition import KeyDefinition
from ssmd.keys.generated import generated_fields
from ssmd.keys.secret import Secret

SIZE_MAX = 64 << 10
"""Bytes of a secret file; a larger one is surely the wrong file."""


def variable_of(key: str, field: str) -> str:
    """The variable that gives a field's value; the same with _FILE appended names a file."""
    return f"SSMD_{key}_{field}".upper().replace("-", "_")


def resolve_key(
    name: str, definition: KeyDefinition, *, variables: Mapping[str, str], directory: Path, random: RandomBytes
) -> dict[str, Secret]:
    """The fields of key `name`; {} for a key that is not required when none of its variables is set.

    Args:
        variables: `settings.variables()`.
        directory: where generated keys are kept (`.ssmd/{env}/keys`).

    Raises:
        Misconfigured: a field has no value, two values, an empty one, or one that is no key of its type.
    """
    if definition.source == "generated":
        return {field: Secret(value) for field, value in generated_fields(name, definition, directory, random).items()}
    texts = {field: _value_of(name, field, variables) for field in definition.fields}
    missing = [field for field, text in texts.items() if text is None]
    if missing and len(missing) == len(texts) and not definition.required:
        return {}
    if missing:
        wanted = ", ".join(f"{variable_of(name, field)} or {variable_of(name, field)}_FILE" for field in missing)
        raise Misconfigured(
            f'key "{name}" has no value: {wanted} is not set', mend=f"export {variable_of(name, missing[0])}_FILE=PATH"
        )
    if definition.type == "kalshi-api-key" and texts["private_key"] is not None:
        _check_private_key(name, texts["private_key"])
    return {field: Secret(text) for field, text in texts.items() if text is not None}


def _value_of(key: str, field: str, variables: Mapping[str, str]) -> str | None:
    variable = variable_of(key, field)
    given, file = variables.get(variable), variables.get(f"{variable}_FILE")
    if given is not None and file is not None:
        raise Misconfigured(f"{variable} and {variable}_FILE are both set: which one holds?", mend=f"unset {variable}")
    if given is not None:
        if not given.strip():
            raise Misconfigured(f"{variable} is set, but empty", mend=f"unset {variable}, or give it a value")
        return given
    if file is None:
        return None
    try:
        with Path(file).open("rb") as handle:
            payload = handle.read(SIZE_MAX + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Misconfigured(f"{variable}_FILE names {file}, which cannot be read: {reason}", mend="check the path") from error
    if len(payload) > SIZE_MAX:
        raise Misconfigured(f"{variable}_FILE names {file}, which is larger than {SIZE_MAX} bytes: not a key")
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        # Not chained: the error would carry the bytes.
        raise Misconfigured(f"{variable}_FILE names {file}, which is not text", mend="store the key as PEM text") from None
    if not text.strip():
        raise Misconfigured(f"{variable}_FILE names {file}, which is empty")
    return text.removesuffix("\n")


def _check_private_key(name: str, pem: str) -> None:
    """Raises Misconfigured unless Kalshi's requests can be signed with `pem`."""
    from ssmd.exchanges.kalshi.signing import load_private_key  # noqa: PLC0415 - 50 ms that most commands need not spend

    try:
        load_private_key(pem.encode())
    except Malformed as error:
        # Its message holds nothing of the key.
        variable = variable_of(name, "private_key")
        raise Misconfigured(f"{variable} (or its file): {error.message}", mend=error.mend) from None
