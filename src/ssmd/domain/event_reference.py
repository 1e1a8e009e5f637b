"""The event catalogue as a page of the reference (docs/reference/events.md), made from the types themselves.

python -m ssmd.domain.event_reference > docs/reference/events.md
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from ssmd.domain.catalogue import CATALOGUE, RELEASED
from ssmd.domain.decider import Decider, tag_of
from ssmd.domain.envelope import Envelope

_HEAD: Final = """\
# Events

Every change of state is one of these events in the journal of its environment. This page is made from the types
(`python -m ssmd.domain.event_reference`); a test keeps it so.

A **released** type is emitted by this version: its bytes are frozen and never change meaning. A **draft** is agreed on but
not emitted yet, and may still change. Times are UTC nanoseconds, sequences and sizes are integers, prices and sizes of the
market are decimal text. No field ever holds a secret.
"""


def render() -> str:
    """The whole page."""
    parts = [_HEAD, "## Envelope\n", "Around every event, as JSON with the keys in this order.\n", _table(Envelope)]
    shown: dict[str, type[msgspec.Struct]] = {}
    for decider in CATALOGUE.deciders.values():
        parts += _aggregate(decider)
        for event in decider.events:
            for struct in _structs_of(event):
                shown.setdefault(struct.__qualname__, struct)
    parts.append("## Parts of events\n")
    for name in sorted(shown):
        parts += [f"### `{name}`\n", *_doc(shown[name]), _table(shown[name])]
    return "\n".join(parts).rstrip("\n") + "\n"


def _aggregate(decider: Decider[Any, Any, Any]) -> Iterator[str]:
    name = " . ".join((decider.aggregate, *(f"{{{part}}}" for part in decider.id_parts)))
    yield f"## `{name}`\n"
    about = (inspect.getmodule(decider.decide).__doc__ or "").partition("\n\n")[0].partition(": ")[2].replace("\n", " ")
    yield about[:1].upper() + about[1:] + "\n"
    for event in decider.events:
        tag = tag_of(event)
        yield f"### `{tag}`\n"
        yield "released\n" if tag in RELEASED else "draft\n"
        yield from _doc(event)
        yield _table(event)


def _doc(struct: type[msgspec.Struct]) -> Iterator[str]:
    if struct.__doc__ and struct.__doc__ != msgspec.Struct.__doc__:
        yield inspect.cleandoc(struct.__doc__) + "\n"


def _table(struct: type[msgspec.Struct]) -> str:
    fields = msgspec.structs.fields(struct)
    if not fields:
        return "No fields.\n"
    rows = [f"| `{field.encode_name}` | {_type(field.type)} |" for field in fields]
    return "\n".join(["| field | type |", "|---|---|", *rows, ""])


def _type(annotation: Any) -> str:
    """A field's type in words a reader of JSON knows."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_type(one) for one in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"object: {_type(arguments[0])} to {_type(arguments[1])}"
    plain = {str: "text", int: "integer", bool: "boolean", type(None): "null", msgspec.Raw: "the event's own fields"}
    return plain.get(annotation) or f"[`{annotation.__qualname__}`](#{annotation.__qualname__.lower()})"


def _structs_of(struct: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for field in msgspec.structs.fields(struct):
        waiting = [field.type]
        while waiting:
            annotation = waiting.pop()
            waiting += typing.get_args(annotation) if typing.get_origin(annotation) is not typing.Literal else ()
            if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
                yield annotation
                yield from _structs_of(annotation)


if __name__ == "__main__":
    sys.stdout.write(render())
