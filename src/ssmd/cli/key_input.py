"""Where `ssmd key set` gets values from: files, variables, standard input, a prompt that shows nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import typer

from ssmd.errors import Misconfigured

if TYPE_CHECKING:
    from ssmd.keys.secret import Secret

LINES_MAX: Final = 500
_BEGIN: Final = "-----BEGIN "
_END: Final = "-----END "


def given_fields(
    fields: Sequence[str],
    variables: Mapping[str, str],
    *,
    from_file: Sequence[str],
    from_env: Sequence[str],
    stdin_field: str,
    insecure: Sequence[str],
) -> dict[str, Secret]:
    """A value for each of `fields`; those that no option names are asked for at the terminal.

    Args:
        from_file: FIELD=PATH; from_env: FIELD=VARIABLE; insecure: FIELD=VALUE.
        stdin_field: the field that standard input holds, "" = none.

    Raises:
        Misconfigured: a field is given twice, not given and nobody can be asked, or cannot be read.
    """
    from ssmd.keys.secret import Secret  # noqa: PLC0415 - keeps --help quick
    from ssmd.keys.variables import read_given_file  # noqa: PLC0415

    found: dict[str, Secret] = {}

    def take(field: str, text: str) -> None:
        if field in found:
            raise Misconfigured(f"field {field} is given twice")
        found[field] = Secret(text)

    for field, path in _pairs("--from-file", from_file, fields):
        take(field, read_given_file(path, f"--from-file {field} names {path}"))
    for field, variable in _pairs("--from-env", from_env, fields):
        if not variables.get(variable, "").strip():
            raise Misconfigured(f"--from-env {field} names {variable}, which is not set or empty", mend=f"export {variable}")
        take(field, variables[variable])
    for field, value in _pairs("--insecure-argument", insecure, fields):
        take(field, value)
    if stdin_field:
        _known("--stdin", stdin_field, fields)
        take(stdin_field, _read_stdin(stdin_field))
    for field in fields:
        if field not in found:
            found[field] = Secret(_prompt(field))
    return found


def _pairs(option: str, given: Sequence[str], fields: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for one in given:
        field, equals, rest = one.partition("=")
        if not equals or not rest:
            # What was given is not repeated: it may be a secret.
            raise Misconfigured(f"{option} wants FIELD=...", mend=f"fields: {', '.join(fields)}")
        _known(option, field, fields)
        pairs.append((field, rest))
    return pairs


def _known(option: str, field: str, fields: Sequence[str]) -> None:
    if field not in fields:
        raise Misconfigured(f"{option} names a field that the key lacks", mend=f"fields: {', '.join(fields)}")


def _read_stdin(field: str) -> str:
    from ssmd.keys.private_files import SIZE_MAX, text_of  # noqa: PLC0415 - keeps --help quick

    payload = sys.stdin.buffer.read(SIZE_MAX + 1)
    if len(payload) > SIZE_MAX:
        raise Misconfigured(f"standard input holds more than {SIZE_MAX} bytes: not a key")
    return text_of(payload, f"standard input should hold {field}")


def _prompt(field: str) -> str:
    """What is typed or pasted, unseen; a PEM up to its last line."""
    if not sys.stdin.isatty():
        raise Misconfigured(
            f"field {field} is not given, and nobody can be asked for it",
            mend=f"--from-file {field}=PATH, --from-env {field}=VARIABLE or --stdin {field}",
        )
    lines = [str(typer.prompt(f"{field} (not shown)", hide_input=True, err=True))]
    while lines[0].startswith(_BEGIN) and not lines[-1].startswith(_END) and len(lines) < LINES_MAX:
        lines.append(str(typer.prompt("", hide_input=True, err=True, prompt_suffix="")))
    return "\n".join(lines)
