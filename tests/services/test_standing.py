"""What the projector tells of an environment: only what stands, by its schedule and at this time."""

from __future__ import annotations

import pytest

from ssmd.domain.trading_day import Status
from ssmd.projections.days import Day
from ssmd.services.standing import Standing, overdue_ns

S = 1_000_000_000


def day(status: Status, activated_ns: int = 0, start_due_ns: int = 100 * S, end_due_ns: int = 200 * S) -> Day:
    return Day("2026-05-14", status, activated_ns=activated_ns, start_due_ns=start_due_ns, end_due_ns=end_due_ns)


@pytest.mark.parametrize(
    ("found", "now_s", "overdue_s"),
    [
        (day("pending"), 100, 0),
        (day("pending"), 103, 3),
        (day("starting"), 103, 3),
        (day("active", 101 * S), 103, 0),
        (day("active", 101 * S), 207, 7),
        (day("ending", 101 * S), 207, 7),
        (day("complete", 101 * S), 900, 0),
        (day("missed"), 900, 0),
        (day("active", 101 * S, 0, 0), 900, 0),
        (day("pending", 0, 0, 0), 900, 0),
    ],
)
def test_a_day_is_overdue_by_its_schedule(found: Day, now_s: int, overdue_s: int) -> None:
    assert overdue_ns(found, now_s * S) == overdue_s * S


def test_figures_of_yesterday_and_today_and_of_keys() -> None:
    yesterday = Day("2026-05-13", "error")
    standing = Standing(7, "2026-05-14", 2, 1, 0, (yesterday, day("active", 101 * S)), (("kalshi", 500 * S), ("old", 3 * S)))
    assert standing.stats(210 * S) == {
        "gaps_open": 2,
        "dead_letters": 1,
        "diverged": 0,
        "day_failed": 1,
        "day_overdue_ms": 10_000,
        "day_status_active": 1,
        "key_expires_ms_kalshi": 290_000,
        "key_expires_ms_old": -207_000,
    }


def test_what_was_not_read_yet_is_not_told() -> None:
    assert Standing().stats(210 * S) == {}
