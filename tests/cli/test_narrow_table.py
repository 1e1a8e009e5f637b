import pytest
from tests.cli.test_output import be_a_terminal

from ssmd.cli.invocation import Invocation
from ssmd.cli.narrow_table import narrow_table, natural_widths
from ssmd.cli.output import print_table

TIME = "2026-11-22 17:28:30.764"
WHAT = "connected to ws://127.0.0.1:40585/trade-api/ws/v2 as session 1795368510764635111 (main, epoch 0)"


def test_widths_count_terminal_cells_not_characters() -> None:
    assert natural_widths([["a", "bcd"], ["日本", ""]]) == [4, 3]


def test_a_row_goes_on_in_further_lines_and_only_prose_is_broken() -> None:
    shown = narrow_table(["time", "subject", "what"], [False] * 3, [[TIME, "capture/kalshi.main", WHAT]], 50)
    assert shown == [
        ["TIME                     SUBJECT", "    WHAT"],
        [
            "2026-11-22 17:28:30.764  capture/kalshi.main",
            "    connected to",
            "    ws://127.0.0.1:40585/trade-api/ws/v2 as",
            "    session 1795368510764635111 (main, epoch 0)",
        ],
    ]


def test_numbers_stay_under_their_heading() -> None:
    rows = [["book", "3,835", "93,372"], ["gap", "39", "970"]]
    assert narrow_table(["kind", "records", "bytes"], [False, True, True], rows, 14) == [
        ["KIND  RECORDS", "     BYTES"],
        ["book    3,835", "    93,372"],
        ["gap        39", "       970"],
    ]


def test_a_value_wider_than_the_terminal_stays_whole() -> None:
    ticker = "KXBTC15M-26NOV22122908-29"
    assert narrow_table(["ticker", "what"], [False, False], [[ticker, "closed"]], 10)[1] == [ticker, "    closed"]


def test_no_line_is_lost_where_prose_is_empty() -> None:
    assert narrow_table(["time", "what"], [False, False], [[TIME, ""]], 20)[1] == [TIME]


@pytest.mark.parametrize(("columns", "is_narrow"), [("80", True), ("200", False)])
def test_a_terminal_gets_whole_values_at_any_width(
    columns: str, is_narrow: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    be_a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", columns)
    subject = "archive/kalshi.2026-11-22.normalized.main"
    print_table(Invocation(color=False), ["time", "who", "subject", "what"], [(TIME, "raw-archiver:main", subject, WHAT)])
    shown = capsys.readouterr().out
    for value in (TIME, "raw-archiver:main", subject, "1795368510764635111"):
        assert value in shown
    assert ("TIME" in shown) is is_narrow
    assert max(len(line) for line in shown.splitlines()) <= int(columns)
