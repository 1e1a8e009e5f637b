"""Every cause of a gap that the code can give is on the page of the reference, and none besides."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "gaps.md"
CONNECTOR = ROOT / "src" / "ssmd" / "services" / "connector"
CAUSES = ROOT / "src" / "ssmd" / "exchanges" / "kalshi" / "causes.py"
WHERE = {"abort": 0, "close": 0, "Ending": 0, "Disconnected": 0, "PreviousSession": 3, "_hole": 2}
"""At which argument a call names a cause."""


def texts(node: ast.expr) -> Iterator[str]:
    """The texts an expression can give: of a condition its branches, not what it asks."""
    if isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def causes_in(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            at = WHERE.get(name)
            if at is not None and len(node.args) > at:
                yield from texts(node.args[at])
        elif isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                target, value = target.elts[0], value.elts[0]
            if isinstance(target, ast.Name) and target.id == "cause":
                yield from texts(value)


def on_page(section: str) -> set[str]:
    body = PAGE.read_text(encoding="utf-8").partition(f"## {section}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([a-z-]+)` \|", body, re.MULTILINE))


def test_every_end_of_a_session_is_on_the_page() -> None:
    found = {cause for path in CONNECTOR.glob("*.py") for cause in causes_in(path.read_text(encoding="utf-8"))}
    assert found == on_page("Behind a session")


def test_every_hole_within_a_session_is_on_the_page() -> None:
    assert set(causes_in(CAUSES.read_text(encoding="utf-8"))) == on_page("Within a session")


def test_a_new_cause_would_be_noticed() -> None:
    assert list(causes_in('cause = "new" if x == "old" else given')) == ["new"]
    assert list(causes_in('socket.abort("new" if failed else "tape-full", why)')) == ["new", "tape-full"]
    assert list(causes_in('hole = _hole(out, sub, "new", "1", text, 2)')) == ["new"]
