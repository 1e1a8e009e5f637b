from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmd.errors import Malformed
from ssmd.exchanges.kalshi.timestamps import event_ns, rfc3339_ns


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-05-14T04:38:12.188698Z", 1_778_733_492_188_698_000),
        ("2026-05-14T04:38:12.1Z", 1_778_733_492_100_000_000),
        ("2026-05-14T04:38:12.000000001Z", 1_778_733_492_000_000_001),
    ],
)
def test_text_is_read_exactly(text: str, ns: int) -> None:
    assert rfc3339_ns(text) == ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Z",
        "2026-05-14",
        "2026-05-14T04:38:12",
        "2026-05-14T04:38:12.Z",
        "2026-05-14T04:38:12.1",
        "2026-05-14T04:38:12.1_0Z",
        "2026-05-14T04:38:12.+1Z",
        "2026-05-14T04:38:12.\u0661Z",
        "2026-05-14T04:38:12.1234567890Z",
        "2026-05-14T04:38:12+00:00",
        "2026-05-14t04:38:12Z",
        "2026-02-30T00:00:00Z",
        "1969-12-31T23:59:59Z",
    ],
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        rfc3339_ns(text)


@given(st.integers(0, 4_000_000_000_000_000), st.integers(0, 6))
def test_it_agrees_with_the_calendar(micros: int, digits: int) -> None:
    micros -= micros % 10 ** (6 - digits)
    moment = datetime.fromtimestamp(micros // 1_000_000, UTC)
    fraction = f".{micros % 1_000_000:06d}"[: digits + 1] if digits else ""
    assert rfc3339_ns(f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z") == micros * 1000


def test_the_finer_time_is_taken_where_both_agree() -> None:
    text = "2026-05-14T04:38:12.188698Z"
    assert event_ns(text, 1_778_733_492_188) == 1_778_733_492_188_698_000
    assert event_ns(text, 1_778_733_492_189) == 1_778_733_492_189_000_000
    assert event_ns(text, 0) == 1_778_733_492_188_698_000
    assert event_ns("", 5) == 5_000_000
    assert event_ns("", 0) == 0
