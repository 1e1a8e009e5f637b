"""Edits of YAML text: only what is meant changes, and it reads back as meant."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from ssmd.registry.yaml_edits import append_item, set_value

REPOSITORY = Path(__file__).parents[2]
TEXTS = {path.stem: path.read_text() for path in sorted((REPOSITORY / "exchanges").glob("*/*.yaml"))}

ODD = """\
# head
name:    spaced   # why
quoted: 'single'
flow: {a: 1, b: [x, y]}   # flow comment
nothing:
empty: {}
items:
- one   # first

# between
- two
block: |
  line 1
  # no comment
nested:
    deep:   # four spaces
        leaf: 1
    # after deep
last: end"""


def comments(text: str) -> list[str]:
    """Comment tokens as ruamel, another reader, finds them."""
    found: list[str] = []
    for token in YAML().scan(io.StringIO(text)):
        for comment in getattr(token, "comment", None) or []:
            for one in comment if isinstance(comment, list) else [comment]:
                if one is not None:
                    found += [line.strip() for line in one.value.split("\n") if line.strip()]
    return sorted(found)


def plain(text: str) -> Any:
    return yaml.load(text, Loader=yaml.BaseLoader)


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (("name",), "x", "name:    x   # why"),
        (("quoted",), "it: is", 'quoted: "it: is"'),
        (("flow", "a"), 2, "flow: {a: 2, b: [x, y]}   # flow comment"),
        (("flow", "c"), "new", "flow: {a: 1, b: [x, y], c: new}   # flow comment"),
        (("flow", "b"), ["z"], "flow: {a: 1, b: [z]}   # flow comment"),
        (("nothing",), 5, "nothing: 5"),
        (("nothing", "x"), 5, "nothing:\n  x: 5"),
        (("empty", "x"), 5, "empty: {x: 5}"),
        (("items", 0), "1st", "- 1st   # first"),
        (("nested", "deep", "leaf"), 2, "        leaf: 2"),
        (("nested", "deep", "more"), 2, "        leaf: 1\n        more: 2\n    # after deep"),
        (("nested", "other"), {"a": {"b": "c"}}, "        leaf: 1\n    other:\n      a:\n        b: c\n    # after deep"),
        (("last",), "END", "last: END"),
        (("fresh",), [1, 2], "last: end\nfresh: [1, 2]\n"),
    ],
)
def test_one_place_changes_and_nothing_else(path: tuple[str | int, ...], value: Any, line: str) -> None:
    edited = set_value(ODD, path, value)
    assert line in edited
    assert comments(edited) == comments(ODD)
    found = plain(edited)
    for part in path:
        found = found[part]
    assert found == plain(yaml.safe_dump(value))
    before, after = ODD.splitlines(), edited.splitlines()
    assert len([one for one in before if one not in after]) <= 1


@given(name=st.sampled_from(sorted(TEXTS)), data=st.data())
@settings(max_examples=40, deadline=None)
def test_comments_and_all_other_lines_survive_any_edit_of_a_shipped_file(name: str, data: st.DataObject) -> None:
    text = TEXTS[name]
    tree = plain(text)
    path: tuple[str | int, ...] = ()
    while isinstance(tree, dict | list) and tree:
        part = data.draw(st.sampled_from(sorted(tree)) if isinstance(tree, dict) else st.integers(0, len(tree) - 1))
        path, tree = (*path, part), tree[part]
    value = data.draw(st.one_of(st.text(max_size=12), st.integers(), st.booleans(), st.lists(st.text(max_size=5), max_size=3)))
    if data.draw(st.booleans()) and isinstance(path[-1], str):
        path = (*path[:-1], "a-new-key")
    ends = data.draw(st.sampled_from(["\n", "\r\n"]))
    written = text.replace("\n", ends)
    edited = set_value(written, path, value)
    assert comments(edited) == comments(text)
    found = yaml.safe_load(edited)
    for part in path:
        found = found[part]
    assert found == value or str(found) == str(value)
    assert edited.count("\r\n") == (edited.count("\n") if ends == "\r\n" else 0)
    kept = [line for line in written.splitlines() if line in edited.splitlines()]
    assert len(kept) >= len(written.splitlines()) - 1
    assert set_value(edited, path, value) == edited


def test_items_are_appended_in_the_style_of_the_list() -> None:
    assert append_item("a:\n- x  # one\nb: 1\n", ("a",), "y") == "a:\n- x  # one\n- y\nb: 1\n"
    assert append_item("a: [x]  # one\n", ("a",), "y: z") == 'a: [x, "y: z"]  # one\n'
    assert (
        append_item("a:\n    - k: 1\n", ("a",), {"k": 2, "m": {"n": 3}})
        == "a:\n    - k: 1\n    - k: 2\n      m:\n        n: 3\n"
    )
    assert append_item("a:\r\n- x", ("a",), "y") == "a:\r\n- x\r\n- y\r\n"
    for text in ("a: 1\n", "a: []\n", "b: 1\n"):
        with pytest.raises(KeyError):
            append_item(text, ("a",), "y")


def test_a_place_that_cannot_be_is_refused() -> None:
    for path in (("name", "x"), ("items", 7), ("items", "x")):
        with pytest.raises(KeyError):
            set_value(ODD, path, 1)


def test_a_new_key_stands_where_its_type_says() -> None:
    order = ("keys", "name", "status", "feed")
    assert set_value("name: a\nfeed: b\n", ("status",), "draft", order) == "name: a\nstatus: draft\nfeed: b\n"
    assert set_value("# top\nname: a\n", ("keys", "k"), {"x": 1}, order) == "# top\nkeys:\n  k:\n    x: 1\nname: a\n"
