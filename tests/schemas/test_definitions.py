"""What a changed Cap'n Proto definition does to readers, by the real compiler."""

from __future__ import annotations

from importlib import resources

import pytest

from ssmd.errors import Malformed
from ssmd.registry.definition_check import compare_definitions, read_definitions

BASE = """\
@0xb1b2b3b4b5b6b7b8;
enum Side { unknown @0; bid @1; ask @2; }
struct Level { price @0 :Int64; size @1 :Int64; }
struct Record {
  ticker @0 :Text;
  at @1 :UInt64 = 7;
  side @2 :Side;
  levels @3 :List(Level);
  detail :group { note @4 :Text; }
  union {
    trade @5 :Level;
    quote @6 :Level;
  }
}
"""

LEVEL = "struct Level { price @0 :Int64; size @1 :Int64; }\n"

CASES: list[tuple[str, list[tuple[str, str]], tuple[str, ...], tuple[str, ...]]] = [
    ("nothing", [], (), ()),
    ("comment", [("struct Level", "# a level\nstruct Level")], (), ()),
    ("field added", [("size @1 :Int64;", "size @1 :Int64; count @2 :UInt32;")], (), ("Level.count @2 is new",)),
    ("field removed", [(" size @1 :Int64;", "")], ("Level.size @1 was removed",), ()),
    (
        "fields renumbered",
        [("price @0 :Int64; size @1", "price @1 :Int64; size @0")],
        ("Level.size @1 was renumbered to @0", "Level.price @0 was renumbered to @1"),
        (),
    ),
    ("retyped", [("ticker @0 :Text", "ticker @0 :Data")], ("Record.ticker @0 was retyped from Text to Data",), ()),
    (
        "list retyped",
        [("List(Level)", "List(Int64)")],
        ("Record.levels @3 was retyped from List(Level) to List(Int64)",),
        (),
    ),
    ("renamed", [("price @0", "cost @0")], (), ("Level.price @0 was renamed to cost",)),
    (
        "default",
        [("= 7", "= 8")],
        ("Record.at @1 changed its default from {'uint64': 7} to {'uint64': 8}",),
        (),
    ),
    (
        "enum reordered",
        [("bid @1; ask @2", "ask @1; bid @2")],
        ("Side.bid was renumbered from @1 to @2", "Side.ask was renumbered from @2 to @1"),
        (),
    ),
    ("enum value added", [("ask @2;", "ask @2; both @3;")], (), ("Side.both @3 is new",)),
    ("enum value removed", [(" ask @2;", "")], ("Side.ask @2 was removed",), ()),
    (
        "id changed",
        [("0xb1b2b3b4b5b6b7b8", "0xb1b2b3b4b5b6b7b9")],
        ("the file changed its id from 0xb1b2b3b4b5b6b7b8 to 0xb1b2b3b4b5b6b7b9",),
        (),
    ),
    (
        "member added",
        [("quote @6 :Level;", "quote @6 :Level; gap @7 :Text;")],
        (),
        ("Record.gap @7 is new: readers of the old definition meet a member they do not know",),
    ),
    (
        "moved into the union",
        [("  side @2 :Side;\n", ""), ("quote @6 :Level;", "quote @6 :Level; side @2 :Side;")],
        (
            "Record.side @2 was moved (outside of unions) to (member 0 of the union)",
            "Record.trade @5 was moved (member 0 of the union) to (member 1 of the union)",
            "Record.quote @6 was moved (member 1 of the union) to (member 2 of the union)",
        ),
        (),
    ),
    (
        "moved into a group",
        [("  side @2 :Side;\n", ""), ("note @4 :Text;", "note @4 :Text; side @2 :Side;")],
        ("Record.side @2 was moved (outside of unions) to (outside of unions in detail)",),
        (),
    ),
    (
        "struct removed",
        [(LEVEL, ""), ("List(Level)", "Text"), ("@5 :Level", "@5 :Text"), ("@6 :Level", "@6 :Text")],
        (
            "Level was removed",
            "Record.levels @3 was retyped from List(Level) to Text",
            "Record.trade @5 was retyped from Level to Text",
            "Record.quote @6 was retyped from Level to Text",
        ),
        (),
    ),
]


def changed(edits: list[tuple[str, str]]) -> bytes:
    text = BASE
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return text.encode()


def test_each_kind_of_change_is_named() -> None:
    for name, edits, breaks, notes in CASES:
        found = compare_definitions(BASE.encode(), changed(edits))
        tags = tuple(line for line in found.breaks if "keeps its tag" not in line and "from offset" not in line)
        assert (name, sorted(tags), sorted(found.notes)) == (name, sorted(breaks), sorted(notes))


def test_the_packaged_definition_is_read_whole() -> None:
    (found,) = read_definitions([resources.files("ssmd.schemas").joinpath("market.capnp").read_bytes()])
    assert set(found.enums) == {"Side", "SizeMeaning"}
    assert found.structs["Record"].slots[11].union == ("", 0)
    assert found.structs["Trade"].slots[3].name == "aggressor"


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "File does not declare an ID"),
        (b"@0xb1b2b3b4b5b6b7b8;\n\nstruct A { x @1 :Text; }\n", "line 3: Skipped ordinal"),
        (b"@0xb1b2b3b4b5b6b7b8;\nstruct A { x @0 :Nothing; }\n", "line 2: Not defined: Nothing"),
        (b"\x00\xff", ""),
    ],
)
def test_what_is_no_definition_is_refused_and_does_not_end_the_process(payload: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=f"not a Cap'n Proto definition: .*{words}"):
        read_definitions([payload])
