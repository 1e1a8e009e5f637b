"""Cap'n Proto definitions as data, and what a change of one does to readers of the other.

Rules: https://capnproto.org/language.html#evolving-your-protocol (read 2026-11-22). Stricter than it in one place: moving
a field into or out of a union or group counts as a break, since a reader of the old definition would not ask which member
is set. It is the second home of pycapnp, beside `codecs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from ssmd.errors import Malformed

_NO_MEMBER: Final = 0xFFFF
"""`discriminantValue` of a field outside of unions."""


class Slot(NamedTuple):
    """A field that holds a value. `name`: with the groups it stands in ("size.total"); `union`: (group, member) or None."""

    name: str
    type: str
    offset: int
    default: str
    union: tuple[str, int] | None


class StructShape(NamedTuple):
    """Slots by ordinal (unique in a struct with all its groups), and where each union's tag is kept, by group."""

    slots: Mapping[int, Slot]
    tags: Mapping[str, int]


class Definition(NamedTuple):
    """One file. Names are dotted from the file's top; constants are compared as text."""

    ids: Mapping[str, int]
    structs: Mapping[str, StructShape]
    enums: Mapping[str, tuple[str, ...]]
    constants: Mapping[str, str]


class Comparison(NamedTuple):
    """`breaks`: what keeps readers of one definition from data of the other; `notes`: what changes besides."""

    breaks: tuple[str, ...]
    notes: tuple[str, ...]


@cache
def _capnp() -> Any:
    import capnp  # noqa: PLC0415 - slow, and it installs an import hook

    capnp.remove_import_hook()
    return capnp


def read_definition(path: str) -> Definition:
    """The definition in the file `path`.

    The compiler in pycapnp ends the whole process for some mistakes (a name that is not defined): call it in a process of
    its own, as `registry.definition_check` does.

    Raises:
        Malformed: it is no Cap'n Proto definition; with the compiler's words.
    """
    capnp = _capnp()
    try:
        # A parser of its own: two versions of one file have the same ids. It must outlive every look at its schemas.
        parser = capnp.SchemaParser()
        module = parser.load(path)
    except (capnp.KjException, OSError, ValueError) as error:
        words = str(error).strip().splitlines()[0] if str(error).strip() else "unreadable"
        file = path.rpartition("/")[2]
        at = words.rfind(f"{file}:")
        raise Malformed(f"not a Cap'n Proto definition: {words[at:] if at >= 0 else words}") from error
    found = Definition({"": int(module.schema.node.id)}, {}, {}, {})
    for name, schema in _nested(module.schema, ""):
        _add(found, name, schema)
    del module, parser
    return found


def _nested(schema: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for node in schema.node.nestedNodes:
        name = f"{prefix}{node.name}"
        inner = schema.get_nested(str(node.name))
        yield name, inner
        yield from _nested(inner, f"{name}.")


def _add(found: Definition, name: str, schema: Any) -> None:
    """Put one declaration into the maps of `found`."""
    ids: Any = found.ids
    ids[name] = int(schema.node.id)
    kinds: Any = (found.structs, found.enums, found.constants)
    match str(schema.node.which()):
        case "struct":
            slots: dict[int, Slot] = {}
            tags: dict[str, int] = {}
            _walk(schema.as_struct(), "", None, slots, tags)
            kinds[0][name] = StructShape(slots, tags)
        case "enum":
            kinds[1][name] = tuple(str(one.name) for one in schema.node.enum.enumerants)
        case "const":
            kinds[2][name] = str(schema.node.const.value.to_dict())


def _walk(schema: Any, group: str, union: tuple[str, int] | None, slots: dict[int, Slot], tags: dict[str, int]) -> None:
    """Add the slots of a struct, or of one of its groups. `union`: the membership of the group itself."""
    node = schema.node.struct
    if node.discriminantCount:
        tags[group] = int(node.discriminantOffset)
    for field in node.fields:
        name = f"{group}{field.name}"
        member = union if field.discriminantValue == _NO_MEMBER else (group, int(field.discriminantValue))
        if str(field.which()) == "group":
            _walk(schema.fields[str(field.name)].schema, f"{name}.", member, slots, tags)
        else:
            slot = field.slot
            default = str(slot.defaultValue.to_dict()) if slot.hadExplicitDefault else ""
            slots[int(field.ordinal.explicit)] = Slot(name, _type(slot.type.to_dict()), int(slot.offset), default, member)


def _type(found: Mapping[str, Any]) -> str:
    """A type in words; types of one's own are told apart by their id."""
    ((kind, detail),) = found.items()
    if kind == "list":
        return f"List({_type(detail['elementType'])})"
    if isinstance(detail, Mapping) and "typeId" in detail:
        return f"{kind} {detail['typeId']:#x}"
    return str(kind)


def compare(old: Definition, new: Definition) -> Comparison:
    """What the step from `old` to `new` does, `old` being released: data of both must stay readable by both."""
    breaks: list[str] = []
    notes: list[str] = []
    _compare_ids(old, new, breaks, notes)
    names = _names(old, new)
    for name, shape in old.structs.items():
        if name in new.structs:
            _compare_structs(name, shape, new.structs[name], names, breaks, notes)
        elif name in new.ids:
            breaks.append(f"{name} is no struct any more")
    for name, values in old.enums.items():
        if name in new.enums:
            _compare_enums(name, values, new.enums[name], breaks, notes)
        elif name in new.ids:
            breaks.append(f"{name} is no enum any more")
    notes += [
        f"constant {name} changed from {value} to {new.constants[name]}"
        for name, value in old.constants.items()
        if new.constants.get(name, value) != value
    ]
    notes += [f"{name} is new" for name in new.ids if name not in old.ids]
    return Comparison(tuple(breaks), tuple(notes))


def _compare_ids(old: Definition, new: Definition, breaks: list[str], notes: list[str]) -> None:
    for name, number in old.ids.items():
        what = name or "the file"
        if name not in new.ids:
            if name in old.structs or name in old.enums:
                breaks.append(f"{what} was removed")
            else:
                notes.append(f"constant {what} was removed")
        elif new.ids[name] != number and (not name or new.ids[""] == old.ids[""]):  # the ids of a file follow from its own
            breaks.append(f"{what} changed its id from {number:#x} to {new.ids[name]:#x}")


def _names(*definitions: Definition) -> dict[str, str]:
    return {f"{number:#x}": name for definition in definitions for name, number in definition.ids.items()}


def _named(type_: str, names: Mapping[str, str]) -> str:
    """A type as its definition writes it."""
    if type_.startswith("List("):
        return f"List({_named(type_[5:-1], names)})"
    kind, _, number = type_.partition(" ")
    return names.get(number, type_) if number else kind.capitalize().replace("Uint", "UInt")


def _compare_structs(
    name: str, old: StructShape, new: StructShape, names: Mapping[str, str], breaks: list[str], notes: list[str]
) -> None:
    ordinal_of = {slot.name: ordinal for ordinal, slot in new.slots.items()}
    for ordinal, was in sorted(old.slots.items()):
        here = f"{name}.{was.name} @{ordinal}"
        elsewhere = ordinal_of.get(was.name, ordinal)
        if elsewhere != ordinal:
            breaks.append(f"{here} was renumbered to @{elsewhere}")
        elif ordinal not in new.slots:
            breaks.append(f"{here} was removed")
        else:
            _compare_slots(here, was, new.slots[ordinal], names, breaks, notes)
    for group, offset in old.tags.items():
        where = f"{name}.{group.rstrip('.')}".rstrip(".")
        if group not in new.tags:
            breaks.append(f"{where} has no union any more")
        elif new.tags[group] != offset:
            breaks.append(f"the union of {where} keeps its tag at {new.tags[group]} instead of {offset}")
    for ordinal, slot in sorted(new.slots.items()):
        if ordinal not in old.slots:
            also = ": readers of the old definition meet a member they do not know" if slot.union in _members(old, slot) else ""
            notes.append(f"{name}.{slot.name} @{ordinal} is new{also}")


def _compare_slots(here: str, was: Slot, now: Slot, names: Mapping[str, str], breaks: list[str], notes: list[str]) -> None:
    before, after = _named(was.type, names), _named(now.type, names)
    if before != after:
        breaks.append(f"{here} was retyped from {before} to {after}")
        return
    if now.default != was.default:
        breaks.append(f"{here} changed its default from {was.default or 'none'} to {now.default or 'none'}")
    if now.union != was.union or now.name.rpartition(".")[0] != was.name.rpartition(".")[0]:
        breaks.append(f"{here} was moved {_place(was)} to {_place(now)}")
    elif now.offset != was.offset:
        breaks.append(f"{here} was moved from offset {was.offset} to {now.offset}")
    if now.name.rpartition(".")[2] != was.name.rpartition(".")[2]:
        notes.append(f"{here} was renamed to {now.name}")


def _members(old: StructShape, slot: Slot) -> tuple[tuple[str, int] | None, ...]:
    """The slot's own membership, if its union was there before."""
    return (slot.union,) if slot.union is not None and slot.union[0] in old.tags else ()


def _place(slot: Slot) -> str:
    group = slot.name.rpartition(".")[0]
    inside = f"member {slot.union[1]} of the union" if slot.union else "outside of unions"
    return f"({inside}{f' in {group}' if group else ''})"


def _compare_enums(name: str, old: tuple[str, ...], new: tuple[str, ...], breaks: list[str], notes: list[str]) -> None:
    for number, value in enumerate(old):
        if number < len(new) and new[number] == value:
            continue
        if value in new:
            breaks.append(f"{name}.{value} was renumbered from @{number} to @{new.index(value)}")
        elif number >= len(new):
            breaks.append(f"{name}.{value} @{number} was removed")
        elif new[number] in old:
            breaks.append(f"{name}.{value} @{number} was removed, {new[number]} stands there")
        else:
            notes.append(f"{name}.{value} @{number} was renamed to {new[number]}")
    notes += [f"{name}.{value} @{number} is new" for number, value in enumerate(new) if number >= len(old) and value not in old]
