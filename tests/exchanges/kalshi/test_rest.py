"""What an answer means, how old it is, how long to wait."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmd.errors import Malformed
from ssmd.exchanges.kalshi.rest import BASIC, SECOND_NS, Limits, TokenBucket, age_s, limits_of, verdict
from ssmd.exchanges.kalshi.rest_pages import PageWalk

RECORDED = Path(__file__).resolve().parents[4] / "shared" / "data" / "kalshi"


@pytest.mark.parametrize(
    ("status", "body", "advice", "words"),
    [
        (200, b'{"a":1}\n', "read", ""),
        (200, b"<html>hello</html>", "try-again", "200 with what is no JSON object: <html>hello</html>"),
        (200, b'{"markets":[{"tick', "try-again", '200 with what is no JSON object: {"markets":[{"tick'),
        (429, b'{"error":"too many requests"}', "slow-down", "429: too many requests"),
        (400, b'{"msg":"Parameter validation failed"}', "bad-request", "400: Parameter validation failed"),
        (
            400,
            b'{"code":"invalid_parameters","message":"invalid parameters","details":"depth"}',
            "bad-request",
            "400: invalid_parameters, invalid parameters, depth",
        ),
        (404, b'{"error":{"code":"not_found","message":"not found"}}', "not-found", "404: not_found, not found"),
        (
            401,
            b'{"error":{"code":"authentication_error","message":"authentication_error","details":"NOT_FOUND"}}',
            "bad-key",
            "401: authentication_error, NOT_FOUND",
        ),
        (
            401,
            b'{"error":{"code":"header_timestamp_expired","message":"header timestamp expired"}}',
            "sign-again",
            "401: header_timestamp_expired, header timestamp expired",
        ),
        (502, b"<html>Bad Gateway</html>", "try-again", "502: <html>Bad Gateway</html>"),
        (503, b"", "try-again", "503: "),
        (500, b"[1]", "try-again", "500: [1]"),
        (408, b"{}", "try-again", "408: {}"),
        (418, b"\xff\xfe", "bad-request", "418: \ufffd\ufffd"),
    ],
)
def test_each_answer_is_sorted_by_what_to_do(status: int, body: bytes, advice: str, words: str) -> None:
    assert verdict(status, body) == (advice, words)


@given(status=st.integers(100, 599), body=st.binary(max_size=200))
def test_any_answer_has_a_verdict(status: int, body: bytes) -> None:
    assert verdict(status, body).advice in {
        "read", "slow-down", "try-again", "sign-again", "bad-key", "bad-request", "not-found"
    }  # fmt: skip


def test_recorded_errors_are_sorted_right() -> None:
    if not RECORDED.exists():
        pytest.skip(f"the recordings ({RECORDED}) are not here: they may not be redistributed")
    found = {}
    for path in sorted((RECORDED / "rest-demo-2026-06").glob("*.json")):
        meta = path.with_name(path.name.replace(".json", ".meta.json"))
        if path.name.endswith(".meta.json") or not meta.exists():
            continue
        status = msgspec.json.decode(meta.read_bytes())["status"]
        if status != 200:
            found[path.stem] = verdict(status, path.read_bytes()).advice
    assert found == {
        "auth__bad_signature": "bad-key",
        "auth__missing_signature_header": "bad-key",
        "auth__skew_minus30s": "sign-again",
        "auth__skew_minus5min": "sign-again",
        "auth__skew_plus5min": "sign-again",
        "auth__unknown_key_id": "bad-key",
        "markets__limit_over_max": "bad-request",
    }
    limits = (RECORDED / "rest-demo-2026-06" / "account__limits.json").read_bytes()
    assert limits_of(limits) == Limits(200, 200)


@pytest.mark.parametrize(
    ("headers", "age"),
    [
        ({}, 0),
        ({"age": "0", "cache-control": "public, max-age=15"}, 1),
        ({"age": "7"}, 8),
        ({"cache-control": "public, max-age=15"}, 15),
        ({"cache-control": "private, max-age=15"}, 0),
        ({"age": "old", "cache-control": "public"}, 0),
    ],
)
def test_age_is_the_most_it_can_be(headers: dict[str, str], age: int) -> None:
    assert age_s(headers) == age


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"read":{"refill_rate":0,"bucket_capacity":9}}', b'{"read":{"refill_rate":"x"}}']
)
def test_limits_that_make_no_sense_are_the_lowest_tiers(body: bytes) -> None:
    assert limits_of(body) == BASIC


@given(
    limits=st.builds(Limits, st.integers(10, 5_000), st.integers(10, 10_000)),
    pauses=st.lists(st.integers(0, 3 * SECOND_NS), min_size=1, max_size=60),
)
def test_calls_that_wait_as_told_never_overdraw_the_venues_bucket(limits: Limits, pauses: list[int]) -> None:
    now_ns = 0
    bucket = TokenBucket(limits, now_ns)
    level, filled_ns = limits.capacity * SECOND_NS, 0  # the venue's own, full
    for pause in pauses:
        now_ns += pause
        wait_ns = bucket.take(now_ns)
        now_ns += wait_ns
        level = min(level + (now_ns - filled_ns) * limits.refill_rate, limits.capacity * SECOND_NS)
        filled_ns = now_ns
        level -= 10 * SECOND_NS
        assert level > -limits.refill_rate  # not by a nanosecond's worth


def test_after_a_429_it_begins_from_none() -> None:
    bucket = TokenBucket(Limits(200, 400), 0)
    assert bucket.take(0) == 0
    bucket.refused(0)
    assert bucket.take(0) == 10 * SECOND_NS // 200


def page(*names: str, cursor: str = "") -> bytes:
    return msgspec.json.encode({"markets": [{"ticker": name} for name in names], "cursor": cursor})


def names(rows: list[msgspec.Raw]) -> list[str]:
    return [msgspec.json.decode(row)["ticker"] for row in rows]


def test_a_walk_gives_each_row_once_and_follows_no_cursor_twice() -> None:
    walk = PageWalk("markets", "ticker")
    steps = []
    for body in (
        page("A", "B", cursor="1"),
        page("C", cursor="1"),  # its own cursor again
        page("C", "D", cursor="2"),
        page("A", "B", cursor="1"),  # page one again: the venue forgot the cursor
        page("A", "B", cursor="1"),
        page("C", "D", cursor="2"),
        page("E"),
    ):
        step, fresh = walk.take(body)
        steps.append((step, names(fresh), walk.cursor))
    assert steps == [
        ("next", ["A", "B"], "1"),
        ("again", ["C"], "1"),
        ("next", ["D"], "2"),
        ("restart", [], ""),
        ("next", [], "1"),
        ("next", [], "2"),
        ("done", ["E"], "2"),
    ]
    assert walk.circles == 0  # there were new rows at last


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"markets":{}}', b'{"markets":[{"x":1}]}', b'{"markets":[{"ticker":""}]}', b"\xff"]
)
def test_what_is_no_page_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        PageWalk("markets", "ticker").take(body)


def test_rows_may_be_null_and_the_cursor_absent() -> None:
    assert PageWalk("markets", "ticker").take(b'{"markets":null}') == ("done", [])
