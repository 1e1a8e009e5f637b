"""Every command gets an answer of its own; nothing a client sends raises."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.gateway.commands import COMMAND_BYTES_MAX, Ping, Subscribe, Unsubscribe, parse_command
from ssmd.gateway.messages import Refusal, encode


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ('{"id":1,"cmd":"subscribe","tickers":["A","*"],"kinds":["book"]}', Subscribe(1, ("A", "*"), ("book",))),
        ('{"cmd":"subscribe","tickers":["BTC/USD"],"id":0}', Subscribe(0, ("BTC/USD",), ())),
        ('{"id":2,"cmd":"unsubscribe","tickers":["A"]}', Unsubscribe(2, ("A",), ())),
        ('{"id":9007199254740991,"cmd":"ping"}', Ping(9007199254740991)),
    ],
)
def test_commands(text: str, command: object) -> None:
    assert parse_command(text) == command


@pytest.mark.parametrize(
    ("text", "command_id", "code", "part"),
    [
        ("", None, "malformed-json", "not JSON"),
        ("{", None, "malformed-json", "not JSON"),
        ("[" * 50_000, None, "malformed-json", "not JSON"),
        ('"\\ud800"', None, "malformed-json", "not JSON"),
        ("x" * (COMMAND_BYTES_MAX + 1), None, "too-large", "65536 bytes"),
        ('"' + "é" * COMMAND_BYTES_MAX + '"', None, "too-large", "65536 bytes"),
        ("[]", None, "bad-command", "this is list"),
        ("7", None, "bad-command", "this is int"),
        ('{"id":4}', 4, "bad-command", '"cmd" is missing'),
        ('{"id":4,"cmd":7}', 4, "bad-command", '"cmd" is missing'),
        ('{"id":4,"cmd":"destroy"}', 4, "unknown-command", "'destroy'"),
        ('{"cmd":"ping"}', None, "bad-command", "`id`"),
        ('{"id":"4","cmd":"ping"}', None, "bad-command", "$.id"),
        ('{"id":true,"cmd":"ping"}', None, "bad-command", "$.id"),
        ('{"id":-1,"cmd":"ping"}', None, "bad-command", "$.id"),
        ('{"id":4,"cmd":"ping","tickers":[]}', 4, "bad-command", "tickers"),
        ('{"id":4,"cmd":"subscribe"}', 4, "bad-command", "tickers"),
        ('{"id":4,"cmd":"subscribe","tickers":[]}', 4, "bad-command", "tickers"),
        ('{"id":4,"cmd":"subscribe","tickers":[""]}', 4, "bad-command", "tickers"),
        ('{"id":4,"cmd":"subscribe","tickers":"A"}', 4, "bad-command", "tickers"),
        ('{"id":4,"cmd":"subscribe","tickers":["A"],"kinds":["book","smell"]}', 4, "unknown-kind", "'smell'"),
        ('{"id":4,"cmd":"subscribe","tickers":["A"],"kinds":[["book"]]}', 4, "bad-command", "kinds"),
    ],
)
def test_refusals(text: str, command_id: int | None, code: str, part: str) -> None:
    refusal = parse_command(text)
    assert isinstance(refusal, Refusal)
    assert (refusal.id, refusal.code) == (command_id, code)
    assert part in refusal.message
    assert len(refusal.message) <= 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
COMMANDS = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "cmd": st.sampled_from(["subscribe", "unsubscribe", "ping"]) | JSON,
        "tickers": st.lists(st.text(max_size=5)) | JSON,
        "kinds": st.lists(st.sampled_from(["book", "trade", "x"])) | JSON,
    },
)


@given(
    st.text()
    | COMMANDS.map(lambda value: msgspec.json.encode(value).decode())
    | JSON.map(lambda v: msgspec.json.encode(v).decode())
)
@settings(max_examples=200, deadline=None)
def test_whatever_is_sent_is_a_command_or_a_refusal_that_can_be_told(text: str) -> None:
    found = parse_command(text)
    assert isinstance(found, Subscribe | Unsubscribe | Ping | Refusal)
    if isinstance(found, Refusal):
        assert msgspec.json.decode(encode(found))["code"] == found.code
