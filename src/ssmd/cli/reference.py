"""Pages of the reference made from the code: commands, settings, subjects, records, errors.

python -m ssmd.cli.reference docs/reference
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
import typer

import ssmd.settings
from ssmd import errors
from ssmd.cli import exit_status
from ssmd.cli.app import app
from ssmd.registry.documents import EnvironmentDocument, FeedDocument, SchemaDocument
from ssmd.streams import subjects, topology

MADE: Final = "Made from the code: `python -m ssmd.cli.reference docs/reference`\n"
WIDTH: Final = 100


def pages() -> dict[str, str]:
    """File name -> text."""
    return {
        "cli.md": cli_page(),
        "settings.md": settings_page(),
        "subjects.md": subjects_page(),
        "records.md": records_page(),
        "errors.md": errors_page(),
    }


def commands() -> Iterator[tuple[str, Any]]:
    """Every command and group by its full name, as `ssmd --help` lists them."""
    yield from _below("ssmd", typer.main.get_command(app))


def _below(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield path, command
    if hasattr(command, "list_commands"):
        context = typer.Context(command)
        for name in command.list_commands(context):
            yield from _below(f"{path} {name}", command.get_command(context, name))


def cli_page() -> str:
    """What `--help` of every command says."""
    parts = [
        "# Commands\n",
        MADE,
        "Global options may stand anywhere on the line. Exit statuses: [errors](errors.md).\n",
    ]
    for path, command in commands():
        context = typer.Context(command, info_name=path, terminal_width=WIDTH, max_content_width=WIDTH)
        text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines()).strip()
        parts += [f"{'##' if path.count(' ') < 2 else '###'} `{path}`\n", f"```text\n{text}\n```\n"]
    return "\n".join(parts)


def settings_page() -> str:
    """Environment variables, and every field of the registry's documents."""
    parts = ["# Settings\n", MADE, "## Environment variables\n", "```text"]
    parts += [(ssmd.settings.__doc__ or "").partition("\n\n")[2].strip(), "```\n"]
    parts += [
        "## Documents\n",
        "YAML files below `exchanges/`. A field without a default must be given; unknown fields are refused.",
        "With dots it is one of a part: `tape.bytes_max` is `bytes_max` under `tape:`. `[]` is each of a list,",
        "`{}` each of a mapping.\n",
    ]
    for document, where in (
        (EnvironmentDocument, "exchanges/environments/NAME.yaml"),
        (FeedDocument, "exchanges/feeds/NAME.yaml"),
        (SchemaDocument, "exchanges/schemas/NAME.yaml"),
    ):
        parts += [f"### {document.__name__}: `{where}`\n"]
        notes: dict[str, str] = {}
        rows = list(_fields(document, "", notes))
        parts += ["| field | type | default |", "|---|---|---|", *rows, ""]
        parts += [f"`{name}`: {text}\n" if name else f"{text}\n" for name, text in notes.items()]
    return "\n".join(parts)


def _fields(struct: type[msgspec.Struct], path: str, notes: dict[str, str]) -> Iterator[str]:
    about = inspect.cleandoc(struct.__doc__ or "").replace("|", "\\|")
    if about and "__doc__" in struct.__dict__:
        notes[path.rstrip(".")] = about
    for field in msgspec.structs.fields(struct):
        name = f"{path}{field.encode_name}"
        yield f"| `{name}` | {_type(field.type)} | {_default(field)} |"
        for below, mark in _parts(field.type):
            yield from _fields(below, f"{name}{mark}.", notes)


def _parts(annotation: Any) -> Iterator[tuple[type[msgspec.Struct], str]]:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        yield annotation, ""
    origin = getattr(annotation, "__origin__", None)
    mark = {tuple: "[]", list: "[]", dict: "{}"}.get(origin, "") if origin is not None else ""
    for argument in get_args(annotation):
        for struct, deeper in _parts(argument):
            yield struct, mark + deeper


def _type(annotation: Any) -> str:
    """The type as the document's JSON schema says it."""
    schema = msgspec.json.schema(annotation)
    return _schema_words(schema, schema.get("$defs", {}))


def _schema_words(schema: dict[str, Any], parts: dict[str, Any]) -> str:
    if "$ref" in schema:
        return "part"
    if "anyOf" in schema:
        return " or ".join(_schema_words(one, parts) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_schema_words(schema.get('items') or {}, parts)}"
    if kind == "object":
        return f"mapping to {_schema_words(schema.get('additionalProperties') or {}, parts)}"
    bounds = [f"{word} {schema[key]}" for key, word in (("minimum", ">="), ("maximum", "<=")) if key in schema]
    if "pattern" in schema:
        bounds.append(f"like `{schema['pattern']}`".replace("|", "\\|"))
    return " ".join([{"string": "text", "null": "nothing"}.get(kind, kind), *bounds])


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, msgspec.Struct):
        return "its fields' defaults"
    return f"`{msgspec.json.encode(value).decode()}`".replace("|", "\\|")


def subjects_page() -> str:
    """Subjects by the functions that make them, and the streams that keep them."""
    parts = ["# Subjects and streams\n", MADE, inspect.cleandoc(subjects.__doc__ or "").replace("{env}", "ENV") + "\n"]
    rows = []
    for name, given in (
        ("raw", ("ENV", "FEED", "CONNECTION")),
        ("market", ("ENV", "FEED", "KIND", "TICKER")),
        ("mark", ("ENV", "FEED", "CONNECTION")),
        ("journal", ("ENV", "AGGREGATE", ("ID", "..."))),
        ("dead_letter", ("ENV", "COMPONENT")),
        ("service", ("ENV", "COMPONENT", "INSTANCE", "VERB")),
    ):
        function = getattr(subjects, name)
        subject = str(function(*given)).replace("%2E%2E%2E", "...")
        rows.append(f"| `{subject}` | {' '.join((function.__doc__ or '').split())} |")
    parts += ["| subject | what |", "|---|---|", *rows, "", "## Streams\n"]
    parts += ["`ssmd streams apply` makes them so, `ssmd streams diff` compares.\n"]
    parts += ["| stream | server | subjects | when full | may be deleted from | atomic batches |", "|---|---|---|---|---|---|"]
    for one in topology.desired("ENV", max_age_s=1, max_bytes=1):
        what = ", ".join(f"`{subject}`" for subject in one.subjects)
        full = f"discard {one.discard}" if one.max_bytes > 0 or one.max_age_ns else "no limit"
        may = "no" if one.deny_delete and one.deny_purge else "yes"
        parts.append(f"| `{one.name}` | {one.endpoint} | {what} | {full} | {may} | {'yes' if one.allow_atomic else 'no'} |")
    return "\n".join(parts) + "\n"


def records_page() -> str:
    """The definition of the normalized records: its structs as tables, and the whole of it."""
    text = resources.files("ssmd.schemas").joinpath("market.capnp").read_text(encoding="utf-8")
    parts = ["# Records\n", MADE, "Read them without ssmd: `zstdcat SEGMENT | capnp decode market.capnp Record`.\n"]
    for name, body in re.findall(r"^struct (\w+) \{([^\n]+(?=\}$)|[\s\S]*?(?=^\}$))", text, re.MULTILINE):
        fields = re.findall(r"(\w+) @(\d+) :([\w()]+);[ \t]*(?:#[ ]*(.*))?", body)
        parts += [f"## {name}\n", "| field | number | type | what |", "|---|---|---|---|"]
        parts += [f"| `{field}` | {number} | `{kind}` | {about} |" for field, number, kind, about in fields]
        parts.append("")
    return "\n".join([*parts, "## market.capnp\n", "```text", text.rstrip(), "```", ""])


def errors_page() -> str:
    """Kinds of errors and exit statuses."""
    parts = ["# Errors and exit statuses\n", MADE, inspect.cleandoc(errors.__doc__ or "") + "\n"]
    parts += ["## Exit statuses\n", inspect.cleandoc(exit_status.__doc__ or "") + "\n"]
    parts += ["| error | exit status | what |", "|---|---|---|"]
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.SsmdError) and kind is not errors.SsmdError:
            error = kind("rule", "") if kind is errors.Rejected else kind("")
            about = " ".join((kind.__doc__ or "").partition("\n\n")[0].split())
            parts.append(f"| `{name}` | {exit_status.status_of(error)} | {about} |")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    for file, page in pages().items():
        (Path(sys.argv[1]) / file).write_text(page, encoding="utf-8")
