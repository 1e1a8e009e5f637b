import json
import sys
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from ssmd.cli.invocation import Invocation
from ssmd.cli.output import cell_of, duration_of, has_color, print_fields, print_json, print_table, time_of

ROWS = [("KXBTC15M-26MAY141445-45", 1_234, True), ("[red]A[/red]\x1b[2J\nB", 7, None)]
COLUMNS = ["ticker", ">records", "open"]


def be_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on stdout says that it is one; to be called in the test's body, where stdout is the one it prints to."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_a_pipe_gets_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(Invocation(), COLUMNS, ROWS)
    assert capsys.readouterr().out == (
        "TICKER                   RECORDS  OPEN\n"
        "KXBTC15M-26MAY141445-45     1234  yes\n"
        "[red]A[/red]\N{REPLACEMENT CHARACTER}[2J B             7\n"
    )


def test_a_terminal_gets_a_table_in_which_what_a_venue_sent_is_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    be_a_terminal(monkeypatch)
    print_table(Invocation(color=False), COLUMNS, ROWS, title="held")
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "[red]A[/red]" in shown
    assert "KXBTC15M-26MAY141445-45" in shown
    assert shown.splitlines()[0].strip() == "held"


def test_no_row_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(Invocation(), COLUMNS, [], empty="no known gap")
    assert capsys.readouterr().out == "no known gap\n"


class _With(Invocation):
    """An invocation with variables of its own."""

    @property
    def variables(self) -> Any:
        return MappingProxyType({"TERM": "xterm", **self.given})

    given: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed


@pytest.mark.parametrize(
    ("variables", "color", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], color: bool, expected: bool
) -> None:
    be_a_terminal(monkeypatch)
    monkeypatch.setattr(_With, "given", variables)
    assert has_color(_With(color=color)) is expected


def test_fields_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields(Invocation(), [("status", "active"), ("error", "")])
    assert capsys.readouterr().out == "status  active\nerror\n"


def test_json_keeps_every_digit(capsys: pytest.CaptureFixture[str]) -> None:
    class Row(msgspec.Struct):
        price: str
        ts_recv_ns: int

    print_json([Row("0.4700", 1_778_760_000_123_456_789)])
    assert json.loads(capsys.readouterr().out) == [{"price": "0.4700", "ts_recv_ns": 1_778_760_000_123_456_789}]


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0.0 s"), (4_099_999_999, "4.0 s"), (65_000_000_000, "1 m 05 s"), (11_220_000_000_000, "3 h 07 m")],
)
def test_durations_are_short(nanoseconds: int, text: str) -> None:
    assert duration_of(nanoseconds) == text


def test_times_are_utc_to_the_millisecond() -> None:
    assert time_of(1_778_760_000_123_999_999) == "2026-05-14 12:00:00.123"
    assert time_of(0) == ""
    assert cell_of(None) == ""
