"""The laws of every decider, on random histories and random events."""

from __future__ import annotations

import json
import types
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.domain import (
    archive,
    capture,
    client,
    dead_letter,
    environment,
    feedback,
    key,
    listing,
    projection,
    secmaster_sync,
    trading_day,
)
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.decider import Decider, tag_of
from ssmd.domain.envelope import AggregateId, Envelope, decode_envelope, encode_envelope
from ssmd.errors import Malformed, Rejected

SOME = settings(max_examples=30, deadline=None)
MANY = settings(max_examples=150, deadline=None)
AnyDecider = Decider[Any, Any, Any]

# Few values, so that commands meet.
SMALL = st.integers(0, 3)
WORD = st.sampled_from(["", "a", "b"])
DATES = st.sampled_from(["2026-05-14", "2026-05-15", "2026-02-30", "20260514", "yesterday", ""])

st.register_type_strategy(
    trading_day.Totals,
    st.builds(
        trading_day.Totals,
        messages=SMALL,
        records=st.dictionaries(st.sampled_from(["trade", "book", "gap"]), SMALL),
        segments=SMALL,
        size_bytes=SMALL,
        gaps=SMALL,
    ),
)


def _capture_commands() -> st.SearchStrategy[Any]:
    places = st.builds(capture.TapePlace, SMALL, SMALL, SMALL)
    events = st.one_of([st.builds(event) for event in capture.EVENTS])

    def placed(event: Any, place: capture.TapePlace) -> capture.RecordFact:
        moved = msgspec.structs.replace(event, session=place.session, n=place.n, index=place.index)
        return capture.RecordFact(place, moved)

    return st.one_of(st.builds(placed, events, places), st.builds(capture.RecordFact, places, events))


FINGERPRINTS = st.sampled_from(["0123abcd", "f" * 64, "hunter2", ""])


def _few(annotation: Any, name: str = "") -> st.SearchStrategy[Any]:
    """Values of a field's type, few enough that commands meet."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if name == "fingerprint":
        return FINGERPRINTS
    if name == "date":
        return DATES
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(_few(arguments[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(_few(arguments[0]), _few(arguments[1]), max_size=2)
    if origin in (types.UnionType, typing.Union):
        return st.one_of([_few(one) for one in arguments])
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return few(annotation)
    plain: dict[Any, st.SearchStrategy[Any]] = {str: WORD, int: SMALL, bool: st.booleans(), type(None): st.none()}
    return plain[annotation]


def few(struct: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    fields = msgspec.structs.fields(struct)
    return st.builds(struct, **{field.name: _few(field.type, field.name) for field in fields})


st.register_type_strategy(listing.Market, few(listing.Market))


def _commands(union: Any) -> st.SearchStrategy[Any]:
    return st.one_of([few(command) for command in typing.get_args(union)])


COMMANDS: dict[str, st.SearchStrategy[Any]] = {
    "environment": _commands(environment.EnvironmentCommand),
    "trading-day": _commands(trading_day.DayCommand),
    "capture": _capture_commands(),
    "listing": _commands(listing.ListingCommand),
    "secmaster-sync": _commands(secmaster_sync.SyncCommand),
    "archive": _commands(archive.ArchiveCommand),
    "key": _commands(key.KeyCommand),
    "client": _commands(client.ClientCommand),
    "dead-letter": _commands(dead_letter.DeadLetterCommand),
    "feedback": _commands(feedback.FeedbackCommand),
    "projection": _commands(projection.ProjectionCommand),
}

DECIDERS = sorted(CATALOGUE.deciders)


def test_every_aggregate_is_under_the_laws() -> None:
    assert sorted(COMMANDS) == DECIDERS


@pytest.mark.parametrize("kind", DECIDERS)
def test_no_field_is_named_for_a_secret(kind: str) -> None:
    for event in CATALOGUE.deciders[kind].events:
        names = {field.name for field in msgspec.structs.fields(event)}
        assert names.isdisjoint({"secret", "token", "password", "private_key", "credential", "api_key"}), event
        if kind in {"key", "client"}:
            assert "value" not in names


def _decide(decider: AnyDecider, state: Any, command: Any) -> Any:
    """Its events, or the rule that refused; any other error fails the test."""
    try:
        return tuple(decider.decide(state, command))
    except Rejected as error:
        return f"{error.rule}: {error.message}"


@pytest.mark.parametrize("kind", DECIDERS)
@SOME
@given(data=st.data())
def test_deciding_is_deterministic_and_deciding_again_is_quiet(kind: str, data: st.DataObject) -> None:
    decider = CATALOGUE.deciders[kind]
    state = decider.initial
    history: list[Any] = []
    for command in data.draw(st.lists(COMMANDS[kind], max_size=12)):
        events = _decide(decider, state, command)
        assert _decide(decider, state, command) == events
        if isinstance(events, str):
            continue
        history += events
        state = decider.fold(events, state)
        assert _decide(decider, state, command) == ()
    assert decider.fold(history) == state


@pytest.mark.parametrize("kind", DECIDERS)
@SOME
@given(data=st.data())
def test_evolve_takes_any_event_in_any_order(kind: str, data: st.DataObject) -> None:
    decider = CATALOGUE.deciders[kind]
    events = data.draw(st.lists(st.one_of([st.builds(event) for event in decider.events]), max_size=8))
    state = decider.fold(events)
    assert type(state) is type(decider.initial)
    assert decider.fold(events) == state
    for command in data.draw(st.lists(COMMANDS[kind], max_size=3)):
        _decide(decider, state, command)


@pytest.mark.parametrize("kind", DECIDERS)
@SOME
@given(data=st.data())
def test_events_come_back_byte_for_byte(kind: str, data: st.DataObject) -> None:
    event = data.draw(st.one_of([st.builds(one) for one in CATALOGUE.deciders[kind].events]))
    encoded = msgspec.json.encode(event)
    again = CATALOGUE.decode(tag_of(event), encoded)
    assert (again, msgspec.json.encode(again)) == (event, encoded)


@SOME
@given(parts=st.lists(st.text(min_size=1), min_size=1, max_size=3).map(tuple), version=st.integers(1, 1 << 62), actor=st.text())
def test_envelopes_come_back_byte_for_byte(parts: tuple[str, ...], version: int, actor: str) -> None:
    try:
        aggregate = AggregateId("thing", parts)
        key = aggregate.key
    except UnicodeEncodeError:  # a lone surrogate is no text that could be stored
        return
    envelope = Envelope("id", "thing.done.v1", "thing", key, version, -version, actor, "", "", "", msgspec.Raw(b"[1]"))
    payload = encode_envelope(envelope)
    assert decode_envelope(payload) == envelope
    assert encode_envelope(decode_envelope(payload)) == payload
    assert decode_envelope(payload).aggregate_key == aggregate


ENVELOPE = b'{"id":"i","type":"t.v1","aggregate":"a","aggregate_id":"b","version":1,"ts_ns":2,"actor":"c","correlation_id":"d",'
ENVELOPE += b'"causation_id":"e","config":"f","data":{"date":"2026-05-14"}}'


OPENED = msgspec.json.encode(trading_day.Opened("2026-05-14", 1, 2))


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` with some bytes replaced, or something else altogether."""
    begin = draw(st.integers(0, len(whole)))
    end = draw(st.integers(begin, len(whole)))
    return draw(st.one_of(st.binary(max_size=64), st.binary(max_size=8).map(lambda odd: whole[:begin] + odd + whole[end:])))


def told_by(payload: bytes) -> Any:
    """What a lenient reader finds in it: what msgspec skips (unknown names, the raw `data`) it does not look at."""
    return json.loads(payload.decode("utf-8", "replace"), strict=False)


@MANY
@given(payload=damaged(ENVELOPE))
def test_other_bytes_are_no_envelope_or_mean_what_they_say(payload: bytes) -> None:
    try:
        envelope = decode_envelope(payload)
    except Malformed as error:
        refused = error.message
    else:
        # Taken: then it has all the fields, each as it stands there, and it can be stored again.
        told = told_by(payload)
        plain = {name: getattr(envelope, name) for name in Envelope.__struct_fields__ if name != "data"}
        assert plain == {name: told[name] for name in plain}
        assert "data" in told
        assert decode_envelope(encode_envelope(envelope)) == envelope
        return
    assert refused.startswith("not an event envelope: ")
    assert payload != ENVELOPE


@MANY
@given(payload=damaged(OPENED))
def test_other_bytes_are_no_event_or_mean_what_they_say(payload: bytes) -> None:
    tag = "trading-day.opened.v1"
    try:
        event = CATALOGUE.decode(tag, payload)
    except Malformed as error:
        refused = error.message
    else:
        told = told_by(payload)
        fields = msgspec.to_builtins(event)
        assert tag_of(event) == tag
        assert {name: value for name, value in fields.items() if name in told} == {
            name: told[name] for name in fields if name in told
        }
        assert CATALOGUE.decode(tag, msgspec.json.encode(event)) == event
        return
    assert tag in refused
    assert payload != OPENED
