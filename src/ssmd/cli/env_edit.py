"""`ssmd env create|update|add-key`: environments as documents."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ssmd.cli.completion import complete_environment
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of
from ssmd.cli.registry_output import DryRunOption, SetOption, assignments, change

app = typer.Typer(add_completion=False, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(help="Environment.", autocompletion=complete_environment)]
KeyOption = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="NAME=TYPE:FIELD,FIELD", help="A key it needs (kalshi=kalshi-api-key:api_key,private_key)."),
]


def _key(text: str) -> tuple[str, dict[str, Any]]:
    name, equals, rest = text.partition("=")
    kind, colon, fields = rest.partition(":")
    if not (equals and colon):
        raise typer.BadParameter(f"{text!r} is not NAME=TYPE:FIELD,FIELD", param_hint="--key")
    return name, {"type": kind, "fields": [field.strip() for field in fields.split(",") if field.strip()]}


@app.command(
    "create",
    epilog=examples(
        "ssmd env create kalshi-two --feed kalshi --schema market:1 --endpoint demo"
        " --key kalshi=kalshi-api-key:api_key,private_key --capture-key kalshi --set capture.tickers_max=50"
    ),
)
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the new environment.")],
    feed: Annotated[str, typer.Option("--feed", metavar="NAME", help="Feed it captures.")],
    schema: Annotated[str, typer.Option("--schema", metavar="NAME:VERSION", help="Schema of its records.")],
    endpoint: Annotated[str, typer.Option("--endpoint", metavar="NAME", help="Endpoint of the feed.")],
    key: KeyOption = None,
    capture_key: Annotated[str, typer.Option("--capture-key", metavar="NAME", help="The key that the feed asks for.")] = "",
    set_: SetOption = None,
    dry_run: DryRunOption = False,
) -> int:
    """Create an environment. What is not said has its default: embedded servers, local storage, every open market."""
    from ssmd.registry.documents import EnvironmentDocument  # noqa: PLC0415 - keeps --help quick
    from ssmd.registry.edits import create_document  # noqa: PLC0415

    keys = dict(_key(text) for text in key or [])
    fields: dict[str, Any] = {"keys": keys} if keys else {}
    fields |= {"name": name, "feed": feed, "schema": schema, "capture": {"endpoint": endpoint}}
    if capture_key:
        fields["capture"]["key"] = f"$key:{capture_key}"
    for path, value in assignments(set_ or [], EnvironmentDocument):
        _put(fields, path, value)
    return change(invocation_of(ctx), create_document("environment", name, fields), dry_run=dry_run)


def _put(fields: dict[str, Any], path: tuple[str | int, ...], value: Any) -> None:
    for depth, part in enumerate(path[:-1]):
        inner = fields.setdefault(str(part), {})
        if not isinstance(inner, dict):
            raise typer.BadParameter(f"{'.'.join(map(str, path[: depth + 1]))} holds no fields", param_hint="--set")
        fields = inner
    fields[str(path[-1])] = value


@app.command(
    "update", epilog=examples("ssmd env update kalshi-dev --set capture.simulator.markets=50 --set retention.raw_days=30")
)
def update(
    ctx: typer.Context,
    name: NameArgument,
    status: Annotated[str, typer.Option("--status", metavar="STATUS", help="draft, active or deprecated.")] = "",
    set_: SetOption = None,
    dry_run: DryRunOption = False,
) -> int:
    """Change fields of an environment; comments, order and style of the file stay."""
    from ssmd.registry.documents import EnvironmentDocument  # noqa: PLC0415 - keeps --help quick
    from ssmd.registry.edits import set_fields  # noqa: PLC0415

    given: list[tuple[tuple[str | int, ...], Any]] = [(("status",), status)] if status else []
    edit = set_fields("environment", name, [*given, *assignments(set_ or [], EnvironmentDocument)])
    return change(invocation_of(ctx), edit, dry_run=dry_run)


@app.command("add-key", epilog=examples("ssmd env add-key kalshi-prod nats --type opaque --field url"))
def add_key(
    ctx: typer.Context,
    name: NameArgument,
    key: Annotated[str, typer.Argument(help="Name of the key.")],
    key_type: Annotated[str, typer.Option("--type", metavar="TYPE", help="kalshi-api-key or opaque.")] = "opaque",
    field: Annotated[list[str] | None, typer.Option("--field", metavar="NAME", help="A field of it; may be repeated.")] = None,
    optional: Annotated[bool, typer.Option("--optional", help="The environment works without it.")] = False,
    dry_run: DryRunOption = False,
) -> int:
    """Say that an environment needs a key. Its value never stands here: it is read from variables when a process starts."""
    from ssmd.registry import edits  # noqa: PLC0415 - keeps --help quick

    fields = field or (["api_key", "private_key"] if key_type == "kalshi-api-key" else [])
    if not fields:
        raise typer.BadParameter("name at least one field", param_hint="--field")
    definition: dict[str, Any] = {"type": key_type, "fields": list(fields)}
    if optional:
        definition["required"] = False
    return change(invocation_of(ctx), edits.add_key(name, key, definition), dry_run=dry_run)
