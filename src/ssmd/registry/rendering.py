"""Documents as YAML text: fields in the order of their type, defaults left out, text quoted only where it must be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import yaml

from ssmd.registry.conversion import is_date

_PLAIN: Final = re.compile(r"[A-Za-z0-9$/_.][A-Za-z0-9 _./:@+$=*-]*")
_RESOLVER: Final[Any] = yaml.SafeLoader("")
_TEXT_TAG: Final = "tag:yaml.org,2002:str"
_INLINE_MAX: Final = 100
_DATE_FIELDS: Final = frozenset({"effective_from", "effective_to"})
"""Their values stand unquoted, since nobody quotes dates."""


def scalar(value: object) -> str:
    """One value on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return format(value, "f").rstrip("0").rstrip(".")
    text = str(value)
    is_safe = _PLAIN.fullmatch(text) and not re.search(r": |:$| $|^\.\.\.", text)
    if is_safe and _RESOLVER.resolve(yaml.ScalarNode, text, (True, False)) == _TEXT_TAG and not _is_time(text):
        return text
    return quoted(text)


def quoted(text: str) -> str:
    """`text` in double quotes, whatever it holds."""
    return f'"{"".join(_escaped(char) for char in text)}"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _is_time(text: str) -> bool:
    return re.fullmatch(r"\d+(?::\d+)+", text) is not None


def plain(value: Any) -> Any:
    """A document or a part of it as dicts, lists and scalars; fields that have their default value are left out."""
    if isinstance(value, msgspec.Struct):
        given: dict[str, Any] = {}
        for field in msgspec.structs.fields(value):
            found = getattr(value, field.name)
            default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
            if field.required or found != default:
                given[field.encode_name] = plain(found)
        return given
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(part) for part in value]
    return value


def inline(value: Any, name: str = "") -> str:
    """`value` (dicts, lists, scalars) in flow style, on one line. `name`: of the field it is for."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {inline(part, key)}" for key, part in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(inline(part) for part in value) + "]"
    if isinstance(value, str) and name in _DATE_FIELDS and is_date(value):
        return value
    return scalar(value)  # what `_PLAIN` allows means nothing inside brackets either


def block(value: Mapping[str, Any], indent: int = 0) -> Iterator[str]:
    """Lines of a mapping in block style, `indent` spaces before each."""
    space = " " * indent
    for key, part in value.items():
        name = f"{space}{scalar(key)}:"
        if isinstance(part, Mapping) and part:
            yield name
            yield from block(part, indent + 2)
        elif isinstance(part, list) and part and _is_long(part, len(name)):
            yield name
            for item in part:
                yield from list_item(item, indent + 2)
        else:
            yield f"{name} {inline(part, key)}"


def list_item(item: Any, indent: int) -> Iterator[str]:
    """Lines of one item of a list in block style."""
    space = " " * indent
    if isinstance(item, Mapping) and item:
        for number, line in enumerate(block(item, indent + 2)):
            yield f"{space}- {line[indent + 2 :]}" if number == 0 else line
    else:
        yield f"{space}- {inline(item)}"


def _is_long(items: list[Any], before: int) -> bool:
    return any(isinstance(item, Mapping) for item in items) or before + len(inline(items)) > _INLINE_MAX


def render(document: msgspec.Struct, heading: str = "") -> str:
    """The YAML text of a document. Reading it gives an equal document.

    Args:
        heading: comment lines before it, each with its newline.
    """
    return heading + "".join(f"{line}\n" for line in block(plain(document)))
