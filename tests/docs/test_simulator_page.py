"""docs/simulator.md names every fault, order and setting there is, and tests that are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from ssmd.exchanges.kalshi.simulated.market_orders import VenueOrder
from ssmd.services.simulator.config import FaultOrder, SimulatorConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "simulator.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")][1:]
WHERE_IT_SERVES = {"host", "port", "faults", "orders"}
"""Settings that are told in the text."""


def named(column: int) -> set[str]:
    return {word for row in ROWS for word in re.findall(r"`([^`]+)`", row[column])}


def kinds(form: Any) -> set[str]:
    return {kind for one in get_args(get_type_hints(form)["kind"]) for kind in get_args(one)}


def test_every_fault_order_and_setting_stands_in_the_table_and_nothing_else() -> None:
    settings = {field.name for field in msgspec.structs.fields(SimulatorConfig)}
    assert named(1) == kinds(FaultOrder) | kinds(VenueOrder) | settings - WHERE_IT_SERVES
    assert all(f"`{name}`" in PAGE for name in ("faults", "orders"))


def test_every_rule_has_a_test_that_is_there_and_knows_what_the_row_names() -> None:
    for rule, makes, tests in ROWS:
        paths = [ROOT / "tests" / name for name in re.findall(r"`([^`]+)`", tests)]
        assert paths, rule
        texts = [path.read_text(encoding="utf-8") for path in paths]
        for kind in set(re.findall(r"`([^`]+)`", makes)) & (kinds(FaultOrder) | kinds(VenueOrder)):
            assert any(_knows(text, kind) for text in texts), (rule, kind)


def _knows(text: str, kind: str) -> bool:
    group, _, rest = kind.partition("-")
    # Some tests put the words together.
    return f'"{kind}"' in text or (group in {"handshake", "command"} and f'"{rest}"' in text)
