"""How the commands of the registry show documents and changes."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssmd.cli.invocation import Invocation, checked_date
from ssmd.cli.output import print_fields, print_json, say

if TYPE_CHECKING:
    import msgspec

    from ssmd.registry.changes import Edit


class DocumentFormat(StrEnum):
    """Forms of a document."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


DocumentOutput = Annotated[DocumentFormat, typer.Option("--output", "-o", help="Form of the answer.")]
AsOfOption = Annotated[
    str, typer.Option("--as-of", metavar="DATE", help="As it was on this UTC date; default: today.", callback=checked_date)
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check and show what would change, and write nothing.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Set a field (capture.tickers_max=500, shards.a.rest=true); may be repeated."
    ),
]


def change(invocation: Invocation, edit: Edit, *, dry_run: bool) -> int:
    """Apply `edit` to the workspace's registry and tell which files changed, or with `dry_run` how they would."""
    from ssmd.registry.changes import change_registry  # noqa: PLC0415 - keeps --help quick

    workspace = invocation.workspace
    changed = change_registry(workspace.registry, edit, date=invocation.today, is_dry=dry_run)
    if dry_run:
        print_differences(changed)
    for name in changed:
        say(f"{'would write' if dry_run else 'wrote'} {workspace.registry.name}/{name}")
    if not changed:
        say("nothing to change")
    return 0


def print_differences(changed: Mapping[str, tuple[bytes, bytes]]) -> None:
    """Files as they are and would be, as a unified diff."""
    for name, (before, after) in sorted(changed.items()):
        lines = difflib.unified_diff(
            before.decode("utf-8", "replace").splitlines(),
            after.decode("utf-8", "replace").splitlines(),
            f"a/exchanges/{name}" if before else "/dev/null",
            f"b/exchanges/{name}",
            lineterm="",
        )
        sys.stdout.writelines(f"{line}\n" for line in lines)


def print_document(
    invocation: Invocation, document: msgspec.Struct, output: DocumentFormat, more: Iterable[tuple[str, object]] = ()
) -> None:
    """One document with every default (table, json), or as it would be written (yaml)."""
    if output is DocumentFormat.JSON:
        print_json(document)
    elif output is DocumentFormat.YAML:
        from ssmd.registry.rendering import render  # noqa: PLC0415 - keeps --help quick

        sys.stdout.write(render(document))
    else:
        from ssmd.registry.meaning import leaves  # noqa: PLC0415 - keeps --help quick

        print_fields(invocation, [*((name, shown(value)) for name, value in leaves(document)), *more])


def print_yaml(value: Any) -> None:
    """Dicts, lists and scalars as YAML."""
    from ssmd.registry.rendering import block, list_item  # noqa: PLC0415 - keeps --help quick

    if isinstance(value, Mapping):
        sys.stdout.writelines(f"{line}\n" for line in block(value))
    else:
        sys.stdout.writelines(f"{line}\n" for item in value for line in list_item(item, 0))
    if not value:
        sys.stdout.write("[]\n")


def shown(value: object) -> object:
    """A leaf as a cell."""
    return ", ".join(map(str, value)) if isinstance(value, tuple) else "" if value == {} else value


def known(kind: str, name: str, names: Iterable[str]) -> str:
    """`name` if it is among `names`. Raises Misconfigured that names them."""
    from ssmd.errors import Misconfigured  # noqa: PLC0415 - keeps --help quick
    from ssmd.registry.findings import did_you_mean  # noqa: PLC0415

    found = list(names)
    if name not in found:
        there = f"there are {', '.join(found)}" if found else "there are none"
        raise Misconfigured(f'there is no {kind} "{name}"; {there}', mend=did_you_mean(name, found) or f"ssmd {kind} list")
    return name


def assignments(given: Iterable[str], document: type[msgspec.Struct]) -> list[tuple[tuple[str | int, ...], Any]]:
    """--set options as (path, value)."""
    from ssmd.registry.assignments import parse_assignment  # noqa: PLC0415 - keeps --help quick

    return [parse_assignment(text, document) for text in given]
