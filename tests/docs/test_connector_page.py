"""docs/connector.md names commands that are there, and the figures that the code has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.cli.conftest import Ssmd, ssmd, workspace  # noqa: F401 - fixtures

from ssmd.services.connector.group import MEMBERS_MAX
from ssmd.services.connector.letter_spool import FILE_NAME as LETTERS
from ssmd.services.connector.quarantine import HELD_MAX, JOURNALED_AN_HOUR
from ssmd.services.kalshi_rest.repair import GAP_NS_MAX
from ssmd.streams import subjects
from ssmd.wiring.capture import COMMANDS_S

PAGE = (Path(__file__).parents[2] / "docs" / "connector.md").read_text(encoding="utf-8")


def test_every_command_and_option_of_the_page_is_there(ssmd: Ssmd) -> None:  # noqa: F811
    commands = [shlex.split(line, comments=True) for line in re.findall(r"^ {4}ssmd (.*)$", PAGE, re.MULTILINE)]
    assert len(commands) >= 9
    for words in commands:
        path = [word for word in words[:2] if word.replace("-", "").isalpha() and not word.startswith("-")]
        called = ssmd(*path[: 1 if path[0] in {"up", "record"} else 2], *(["kalshi"] if path[0] == "record" else []), "--help")
        assert called.status == 0, (words, called.err)
        for option in (word for word in words if word.startswith("--")):
            assert option in called.out or option == "--env", (words, option)


def test_the_figures_of_the_page_are_those_of_the_code() -> None:
    assert f"{COMMANDS_S} commands a second and connection" in PAGE
    assert f"WebSocket: {MEMBERS_MAX} connections a user" in PAGE
    assert f"`{LETTERS}`), the newest {HELD_MAX:,}" in PAGE
    assert f"{JOURNALED_AN_HOUR} frames an hour and connection" in PAGE
    assert f"longer than {GAP_NS_MAX // 3_600_000_000_000} hours" in PAGE
    assert f"`{subjects.dead_letter('ENV', 'connector').replace('ENV', '{env}')}`" in PAGE
