"""`PATH=VALUE` of the command line -> a place in a document and its value, read by the field's type."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
import yaml
from msgspec import inspect

from ssmd.errors import Misconfigured
from ssmd.registry.conversion import Path

_PART: Final = re.compile(r"([A-Za-z0-9_-]+)((?:\[\d+\])*)")
_INTEGER: Final = re.compile(r"-?\d+")
_DECIMAL: Final = re.compile(r"-?\d+(?:\.\d+)?")


def parse_assignment(text: str, document: type[msgspec.Struct]) -> tuple[Path, Any]:
    """(path, value) of `capture.tickers_max=500` or `versions[1].wire=x`.

    A list is `a,b` or `[a, b]`, a mapping `{a: b}`. What does not fit the field's type stays text: the check of the whole
    registry says what is wrong with it, as for a file.

    Raises:
        Misconfigured: it has not that form.
    """
    left, equals, right = text.partition("=")
    if not equals:
        raise Misconfigured(f'"{text}" is no assignment', mend="write PATH=VALUE, for example capture.tickers_max=500")
    path = parse_path(left)
    return path, _coerced(_kind_at(inspect.type_info(document), path), right)


def parse_path(text: str) -> Path:
    """("versions", 1, "wire") of "versions[1].wire". Raises Misconfigured."""
    path: list[str | int] = []
    for part in text.strip().split("."):
        found = _PART.fullmatch(part)
        if found is None:
            raise Misconfigured(f'"{text}" is no path to a field', mend="write names with dots between: capture.endpoint")
        path.append(found.group(1))
        path += [int(number) for number in re.findall(r"\d+", found.group(2))]
    return tuple(path)


def _kind_at(kind: inspect.Type | None, path: Path) -> inspect.Type | None:
    """The type of the field at `path`; None = there is no such field."""
    kind = _bare(kind)
    for part in path:
        match kind:
            case inspect.StructType(fields=fields):
                kind = next((field.type for field in fields if field.encode_name == part), None)
            case inspect.DictType(value_type=value_type):
                kind = value_type
            case inspect.VarTupleType(item_type=item_type):
                kind = item_type
            case _:
                return None
        kind = _bare(kind)
    return kind


def _bare(kind: inspect.Type | None) -> inspect.Type | None:
    while True:
        if isinstance(kind, inspect.Metadata):
            kind = kind.type
        elif isinstance(kind, inspect.UnionType):
            kind = next((one for one in kind.types if not isinstance(one, inspect.NoneType)), None)
        else:
            return kind


def _coerced(kind: inspect.Type | None, raw: Any) -> Any:
    kind = _bare(kind)
    match kind:
        case inspect.VarTupleType(item_type=item) if isinstance(raw, str):
            items = _flow(raw) if raw.startswith("[") else [part.strip() for part in raw.split(",") if part.strip()]
            return [_coerced(item, one) for one in items] if isinstance(items, list) else items
        case inspect.VarTupleType(item_type=item) if isinstance(raw, list):
            return [_coerced(item, one) for one in raw]
        case inspect.StructType() | inspect.DictType():
            given = _flow(raw) if isinstance(raw, str) else raw
            if not isinstance(given, dict):
                return given
            return {str(name): _coerced(_kind_at(kind, (str(name),)), one) for name, one in given.items()}
        case inspect.IntType() if isinstance(raw, str) and _INTEGER.fullmatch(raw):
            return int(raw)
        case inspect.FloatType() if isinstance(raw, str) and _DECIMAL.fullmatch(raw):
            return float(raw)
        case inspect.BoolType() if raw in ("true", "false"):
            return raw == "true"
    return raw


def _flow(text: str) -> Any:
    """YAML in one line with every scalar left as text."""
    try:
        return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - BaseLoader makes text, lists and dicts only
    except yaml.YAMLError as error:
        raise Misconfigured(f'"{text}" is no YAML value', mend="write a,b or [a, b] or {a: b}") from error
