"""`ssmd schema`: the record definitions of the registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssmd.cli.exit_status import NO, OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, checked_date, invocation_of
from ssmd.cli.output import print_json, print_table, say
from ssmd.cli.registry_output import (
    AsOfOption,
    DocumentFormat,
    DocumentOutput,
    DryRunOption,
    change,
    known,
    print_document,
    print_yaml,
)

if TYPE_CHECKING:
    from ssmd.registry.documents import SchemaDocument

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Register, change and show record definitions."
)

NameArgument = Annotated[str, typer.Argument(help="Schema.")]
FileOption = Annotated[Path, typer.Option("--file", "-f", metavar="FILE", help="The Cap'n Proto definition.")]
StatusOption = Annotated[str, typer.Option("--status", metavar="STATUS", help="draft, active or deprecated.")]
FromOption = Annotated[
    str,
    typer.Option("--effective-from", metavar="DATE", help="First day of the version; default: today.", callback=checked_date),
]
_NEXT = {"draft": ("active", "deprecated"), "active": ("deprecated",), "deprecated": ()}


def _read(path: Path) -> bytes:
    from ssmd.errors import Misconfigured  # noqa: PLC0415 - keeps --help quick

    try:
        return path.read_bytes()
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror or error}") from error


@app.command("register", epilog=examples("ssmd schema register market --file market.capnp --root Record"))
def register(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the new schema.")],
    file: FileOption,
    root: Annotated[str, typer.Option("--root", metavar="STRUCT", help="The struct a message holds.")] = "Record",
    kind: Annotated[
        list[str] | None, typer.Option("--kind", metavar="KIND", help="A kind of record it defines; may be repeated.")
    ] = None,
    status: StatusOption = "draft",
    effective_from: FromOption = "",
    dry_run: DryRunOption = False,
) -> int:
    """Register a schema: the definition is copied beside the document, and its sha256 recorded."""
    from ssmd.errors import Rejected  # noqa: PLC0415 - keeps --help quick
    from ssmd.registry.definition_check import read_definitions  # noqa: PLC0415
    from ssmd.registry.edits import create_document  # noqa: PLC0415
    from ssmd.registry.findings import did_you_mean  # noqa: PLC0415

    invocation = invocation_of(ctx)
    payload = _read(file)
    (definition,) = read_definitions([payload])
    if root not in definition.structs:
        raise Rejected("no-root", f'{file} has no struct "{root}"', mend=did_you_mean(root, definition.structs))
    fields: dict[str, Any] = {"name": name, "format": "capnp", "root": root}
    if kind:
        fields["kinds"] = list(kind)
    fields["versions"] = [_version(1, status, f"{name}.capnp", payload, effective_from or invocation.today)]
    edit = create_document("schema", name, fields, {f"schemas/{name}.capnp": payload})
    return change(invocation, edit, dry_run=dry_run)


def _version(number: int, status: str, file: str, payload: bytes, effective_from: str) -> dict[str, Any]:
    from ssmd.registry.integrity import definition_sha256  # noqa: PLC0415 - keeps --help quick

    return {
        "version": number,
        "status": status,
        "definition": file,
        "sha256": definition_sha256(payload),
        "effective_from": effective_from,
    }


@app.command("add-version", epilog=examples("ssmd schema add-version market --file market.capnp"))
def add_version(
    ctx: typer.Context,
    name: NameArgument,
    file: FileOption,
    status: StatusOption = "draft",
    effective_from: FromOption = "",
    breaking: Annotated[
        bool, typer.Option("--breaking", help="Add it though it breaks readers of the newest version.")
    ] = False,
    dry_run: DryRunOption = False,
) -> int:
    """Add a version. It is compared with every older one: what breaks readers is named, and refused without --breaking."""
    from ssmd.errors import Rejected  # noqa: PLC0415 - keeps --help quick
    from ssmd.registry.definition_check import read_definitions  # noqa: PLC0415
    from ssmd.registry.edits import add_item  # noqa: PLC0415
    from ssmd.schemas.definitions import compare  # noqa: PLC0415

    invocation = invocation_of(ctx)
    document = _schema(invocation, name)
    payload = _read(file)
    folder = invocation.workspace.registry / "schemas"
    new, *olds = read_definitions([payload, *(_read(folder / version.definition) for version in document.versions)])
    compatible: list[int] = []
    for version, old in zip(document.versions, olds, strict=True):
        found = compare(old, new)
        for note in found.notes:
            say(f"version {version.version}: {note}")
        for one in found.breaks:
            say(f"version {version.version}: breaks readers: {one}")
        if not found.breaks:
            compatible.append(version.version)
    newest = document.versions[-1].version
    if newest not in compatible and not breaking:
        message = f"{file} breaks readers of {name}:{newest}, as named above"
        raise Rejected("breaks-readers", message, mend="the same command with --breaking, if that is meant")
    number = max(version.version for version in document.versions) + 1
    file_name = f"{name}-v{number}.capnp"
    item = _version(number, status, file_name, payload, effective_from or invocation.today)
    if compatible:
        item["compatible_with"] = compatible
    edit = add_item("schema", name, ("versions",), item, {f"schemas/{file_name}": payload})
    return change(invocation, edit, dry_run=dry_run)


@app.command("set-status", epilog=examples("ssmd schema set-status market 1 active"))
def set_status(
    ctx: typer.Context,
    name: NameArgument,
    version: Annotated[int, typer.Argument(help="Version.", min=1)],
    status: Annotated[str, typer.Argument(help="draft, active or deprecated.")],
    dry_run: DryRunOption = False,
) -> int:
    """Move a version on: draft, then active, then deprecated. There is no way back."""
    from ssmd.errors import Rejected  # noqa: PLC0415 - keeps --help quick
    from ssmd.registry.edits import set_fields  # noqa: PLC0415

    invocation = invocation_of(ctx)
    versions = _schema(invocation, name).versions
    index = next((place for place, one in enumerate(versions) if one.version == version), None)
    if index is None:
        there = ", ".join(str(one.version) for one in versions)
        raise Rejected("no-such-version", f'schema "{name}" has no version {version}; there are {there}')
    found = versions[index].status
    if status in _NEXT and status != found and status not in _NEXT[found]:
        raise Rejected("status-goes-on", f"{name}:{version} is {found}; it cannot become {status} again", mend="add a version")
    return change(invocation, set_fields("schema", name, [(("versions", index, "status"), status)]), dry_run=dry_run)


@app.command("hash", epilog=examples("ssmd schema hash market.capnp", "ssmd schema hash market"))
def hash_(ctx: typer.Context, what: Annotated[str, typer.Argument(help="A definition file, or the name of a schema.")]) -> int:
    """Show the sha256 of a definition; of a schema, beside what is recorded. Exit status 1: they are not the same."""
    from ssmd.registry.integrity import definition_sha256  # noqa: PLC0415 - keeps --help quick
    from ssmd.registry.sources import read_sources  # noqa: PLC0415
    from ssmd.registry.tree import read_tree  # noqa: PLC0415

    invocation = invocation_of(ctx)
    path = Path(what)
    if path.is_file():
        print_table(invocation, ["sha256", "file"], [(definition_sha256(_read(path)), what)])
        return OK
    tree = read_tree(invocation.workspace.registry)
    schemas = read_sources(tree)[0].schemas
    document = schemas[known("schema", what, schemas)].document
    rows = []
    for version in document.versions:
        payload = tree.files.get(f"schemas/{version.definition}")
        found = definition_sha256(payload) if payload is not None else "missing"
        rows.append((f"{what}:{version.version}", version.definition, found, found == version.sha256))
    print_table(invocation, ["schema", "file", "sha256", "as recorded"], rows)
    return OK if all(row[3] for row in rows) else NO


@app.command("list", epilog=examples("ssmd schema list", "ssmd schema list -o json"))
def list_schemas(ctx: typer.Context, output: DocumentOutput = DocumentFormat.TABLE) -> None:
    """List the versions of every schema."""
    from ssmd.registry.loader import load_registry  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    rows = [
        {
            "name": name,
            "version": version.version,
            "status": version.status,
            "effective_from": version.effective_from,
            "definition": version.definition,
            "sha256": version.sha256,
            "compatible_with": list(version.compatible_with),
        }
        for name, schema in load_registry(invocation.workspace.registry, date=invocation.today).schemas.items()
        for version in schema.versions
    ]
    if output is DocumentFormat.JSON:
        print_json(rows)
    elif output is DocumentFormat.YAML:
        print_yaml(rows)
    else:
        print_table(
            invocation,
            ["name", ">version", "status", "from", "definition", "sha256", "compatible with"],
            [
                [*list(row.values())[:5], str(row["sha256"])[:12], ", ".join(map(str, list(row.values())[6]))]  # type: ignore[call-overload]
                for row in rows
            ],
            empty="the registry holds no schema",
        )


@app.command("show", epilog=examples("ssmd schema show market", "ssmd schema show market -o yaml"))
def show(ctx: typer.Context, name: NameArgument, as_of: AsOfOption = "", output: DocumentOutput = DocumentFormat.TABLE) -> int:
    """Show a schema; with --as-of only the versions that were in effect by that day. Exit status 1: none was."""
    import msgspec  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    document = _schema(invocation, name)
    if as_of:
        versions = tuple(version for version in document.versions if version.effective_from <= as_of)
        if not versions:
            say(f'schema "{name}" had no version on {as_of}')
            return NO
        document = msgspec.structs.replace(document, versions=versions)
    print_document(invocation, document, output)
    return OK


def _schema(invocation: Invocation, name: str) -> SchemaDocument:
    from ssmd.registry.loader import load_registry  # noqa: PLC0415 - keeps --help quick

    schemas = load_registry(invocation.workspace.registry, date=invocation.today).schemas
    return schemas[known("schema", name, schemas)]
