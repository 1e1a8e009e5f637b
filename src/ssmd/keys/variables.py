"""Values in the process's variables, or in files that variables name.

For key `kalshi`, field `private_key`:

    SSMD_KALSHI_PRIVATE_KEY         the value
    SSMD_KALSHI_PRIVATE_KEY_FILE    a file that holds it (one trailing newline is not part of it)

Messages name variables and files, never values.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ssmd.errors import Misconfigured
from ssmd.keys.private_files import SIZE_MAX, text_of
from ssmd.keys.secret import Secret


def variable_of(key: str, field: str) -> str:
    """The variable that gives a field's value; the same with _FILE appended names a file."""
    return f"SSMD_{key}_{field}".upper().replace("-", "_")


def read_variables(key: str, fields: tuple[str, ...], variables: Mapping[str, str]) -> dict[str, Secret]:
    """The fields that are given. Raises Misconfigured: one is given twice, is empty, or its file cannot be read."""
    texts = {field: _value_of(key, field, variables) for field in fields}
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
    return read_given_file(file, f"{variable}_FILE names {file}")


def read_given_file(file: str, where: str) -> str:
    """The text of a file that somebody named, without one trailing newline. Its mode is its owner's business.

    Raises:
        Misconfigured: it cannot be read, is too large, empty or no text; `where` names it.
    """
    try:
        with Path(file).open("rb") as handle:
            payload = handle.read(SIZE_MAX + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a usable path"
        raise Misconfigured(f"{where}, which cannot be read: {reason}", mend="check the path") from None
    if len(payload) > SIZE_MAX:
        raise Misconfigured(f"{where}, which is larger than {SIZE_MAX} bytes: not a key")
    return text_of(payload, where)
