"""Edits of YAML text that touch nothing but what they are for: comments, order, quotes and spacing of the rest stay.

Text is cut and spliced where the parser says that values stand; nothing is ever written anew from a parsed tree. The
texts given here have been read without a finding, so there are no anchors, tags or duplicate keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ssmd.registry.conversion import Path
from ssmd.registry.rendering import block, inline, list_item, scalar


def set_value(text: str, path: Path, value: Any, order: Sequence[str] = ()) -> str:
    """`text` with `value` (dicts, lists, scalars) at `path`, in place of what stands there, or added.

    Args:
        order: names of the fields of the mapping in which a new last part of `path` is put: it goes behind the nearest of
            those before it; a name that is not among them goes to the end.

    Raises:
        KeyError: `path` leads through a value that is no mapping, or past the end of a list.
    """
    root = _compose(text)
    node: yaml.Node = root
    for depth, part in enumerate(path):
        found = _child(node, part)
        if found is None:
            if isinstance(part, int):
                raise KeyError(path[: depth + 1])
            for name in reversed(path[depth + 1 :]):
                value = {str(name): value}
            return _add_key(text, node, part, value, order, path[:depth])
        if _is_nothing(found) and depth < len(path) - 1:  # `capture:` with nothing behind it
            for name in reversed(path[depth + 1 :]):
                value = {str(name): value}
            return _replace(text, found, value, _name_of(part))
        node = found
    return _replace(text, node, value, _name_of(path[-1]) if path else "")


def append_item(text: str, path: Path, item: Any) -> str:
    """`text` with `item` at the end of the list at `path`, which must be there and hold something."""
    node: yaml.Node | None = _compose(text)
    for part in path:
        node = _child(node, part) if node is not None else None
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise KeyError(path)
    end = _end(node.value[-1])
    if node.flow_style:
        return f"{text[:end]}, {inline(item)}{text[end:]}"
    newline = _newline(text)
    lines = newline.join(list_item(item, node.start_mark.column))
    return _insert_line(text, end, lines, newline)


def _compose(text: str) -> yaml.Node:
    # The Python scanner: its marks count characters, as slices do.
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        raise KeyError(())
    return root


def _name_of(part: str | int) -> str:
    return part if isinstance(part, str) else ""


def _child(node: yaml.Node, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        return node.value[part] if part < len(node.value) else None
    if not isinstance(node, yaml.MappingNode):
        raise KeyError(part)
    return next((value for key, value in node.value if key.value == part), None)


def _is_nothing(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.start_mark.index == node.end_mark.index


def _end(node: yaml.Node) -> int:
    """Where the node's last character is past; a block's own mark would lie behind the comments that follow it."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _replace(text: str, node: yaml.Node, value: Any, name: str) -> str:
    start, end = int(node.start_mark.index), _end(node)
    is_block = isinstance(value, Mapping) and bool(value) and not (isinstance(node, yaml.CollectionNode) and node.flow_style)
    before = text[:start]
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        end = start + len(text[start:end].rstrip())
    if is_block and not isinstance(node, yaml.CollectionNode):
        newline = _newline(text)
        column = _column_of_line(text, start) + 2
        return before.rstrip(" ") + newline + newline.join(block(value, column)) + text[end:]
    if is_block or (isinstance(value, list) and isinstance(node, yaml.SequenceNode) and not node.flow_style and value):
        newline = _newline(text)
        column = node.start_mark.column
        lines = (
            list(block(value, column))
            if isinstance(value, Mapping)
            else [line for item in value for line in list_item(item, column)]
        )
        return before + newline.join(lines)[column:] + text[end:]
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:  # a block becomes one line
        before = before.rstrip()
    shown = inline(value, name)
    glue = "" if before.endswith((" ", "[", "{", "-\t")) or not before else " "
    return before + glue + shown + text[end:]


def _column_of_line(text: str, index: int) -> int:
    """The indent of the line at `index`, list dashes counted as indent."""
    line = text[text.rfind("\n", 0, index) + 1 : index]
    return len(line) - len(line.lstrip(" -"))


def _add_key(text: str, node: yaml.Node, key: str, value: Any, order: Sequence[str], path: Path) -> str:
    if not isinstance(node, yaml.MappingNode):
        raise KeyError((*path, key))
    if node.flow_style:
        entry = f"{scalar(key)}: {inline(value, key)}"
        if not node.value:
            return f"{text[: node.start_mark.index]}{{{entry}}}{text[node.end_mark.index :]}"
        end = _end(node.value[-1][1])
        return f"{text[:end]}, {entry}{text[end:]}"
    newline = _newline(text)
    column = int(node.value[0][0].start_mark.column)
    lines = newline.join(block({key: value}, column))
    after = _predecessor(node, key, order)
    if after is None:
        start = int(node.value[0][0].start_mark.index)
        return text[:start] + lines[column:] + newline + " " * column + text[start:]
    return _insert_line(text, _end(after), lines, newline)


def _predecessor(node: yaml.MappingNode, key: str, order: Sequence[str]) -> yaml.Node | None:
    """The value behind which `key` goes; None = it goes first."""
    if key not in order:
        last: yaml.Node = node.value[-1][1]
        return last
    before = set(order[: order.index(key)])
    found = [value for name, value in node.value if name.value in before]
    return found[-1] if found else None


def _insert_line(text: str, index: int, lines: str, newline: str) -> str:
    """`lines` as lines of their own behind the line that holds what ends at `index`."""
    if index and text[index - 1] == "\n":  # behind a block scalar
        return text[:index] + lines + newline + text[index:]
    end = text.find("\n", index)
    if end < 0:
        return text + newline + lines + newline
    return text[: end + 1] + lines + newline + text[end + 1 :]


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
