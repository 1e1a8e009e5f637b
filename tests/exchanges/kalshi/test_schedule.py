from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from ssmd.errors import Malformed
from ssmd.exchanges.kalshi.schedule import EASTERN, STANDING, Pause, schedule_of

RECORDED = Path(__file__).resolve().parents[4] / "shared/data/kalshi/rest-prod-2026-01-legacy/exchange_schedule_response.json"


def ns(text: str) -> int:
    """Eastern wall-clock time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=EASTERN).timestamp()) * 1_000_000_000


@pytest.mark.parametrize(
    ("at", "pause"),
    [
        ("2026-11-19T02:59:59", None),
        ("2026-11-19T03:00:00", ("2026-11-19T03:00:00", "2026-11-19T05:00:00")),
        ("2026-11-19T04:59:59", ("2026-11-19T03:00:00", "2026-11-19T05:00:00")),
        ("2026-11-19T05:00:00", None),
        ("2026-11-20T03:30:00", None),
        # Summer time: the same wall clock.
        ("2026-07-09T03:30:00", ("2026-07-09T03:00:00", "2026-07-09T05:00:00")),
    ],
)
def test_the_standing_pause_is_thursday_three_to_five_eastern(at: str, pause: tuple[str, str] | None) -> None:
    wanted = None if pause is None else Pause(ns(pause[0]), ns(pause[1]), "weekly pause")
    assert STANDING.pause_at(ns(at)) == wanted


def test_hours_windows_and_the_week_in_force() -> None:
    day = [{"open_time": "00:00", "close_time": "00:00"}]
    week = dict.fromkeys(("monday", "tuesday", "wednesday", "friday", "saturday"), day)
    old = {"start_time": "2025-01-01T00:00:00Z", "end_time": "2026-06-01T00:00:00Z", **week, "thursday": day, "sunday": day}
    thursday = [{"open_time": "06:00", "close_time": "00:00"}, {"open_time": "00:00", "close_time": "03:00"}]
    new = {"start_time": "2026-06-01T00:00:00Z", "end_time": "2027-01-01T00:00:00Z", **week, "thursday": thursday}
    window = {"start_datetime": "2026-11-21T10:00:00Z", "end_datetime": "2026-11-21T11:00:00Z"}
    body = json.dumps({"schedule": {"standard_hours": [old, new], "maintenance_windows": [window]}}).encode()
    schedule = schedule_of(body, ns("2026-11-19T00:00:00"))
    assert schedule.pause_at(ns("2026-11-19T05:30:00")) == Pause(
        ns("2026-11-19T03:00:00"), ns("2026-11-19T06:00:00"), "weekly pause"
    )
    assert schedule.pause_at(ns("2026-11-18T05:30:00")) is None
    # A day without hours is closed from midnight to midnight.
    assert schedule.pause_at(ns("2026-11-22T12:00:00")) == Pause(
        ns("2026-11-22T00:00:00"), ns("2026-11-23T00:00:00"), "weekly pause"
    )
    found = schedule.pause_at(ns("2026-11-21T05:30:00"))
    assert found is not None
    assert found.reason == "maintenance window"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"schedule":{"standard_hours":[{"monday":[{"open_time":"x","close_time":"1"}]}]}}']
)
def test_what_is_no_schedule_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        schedule_of(body, 0)


def test_the_recorded_schedule() -> None:
    if not RECORDED.exists():
        pytest.skip("the recorded schedule is not here: it may not be redistributed")
    body = json.dumps(json.loads(RECORDED.read_text())["response"]).encode()
    schedule = schedule_of(body, ns("2026-01-15T00:00:00"))
    assert schedule.pause_at(ns("2026-01-15T04:00:00")) == Pause(
        ns("2026-01-15T03:00:00"), ns("2026-01-15T05:00:00"), "weekly pause"
    )
    assert schedule.pause_at(ns("2026-01-16T04:00:00")) is None
