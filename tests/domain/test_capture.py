"""Given events, when a fact of the tape, then events: a connection's capture."""

from __future__ import annotations

import pytest

from ssmd.domain.capture import DECIDER, CaptureEvent, Connected, Disconnected, RecordFact, State, TapePlace, place_of
from ssmd.errors import Rejected


def connected(session: int, n: int = 1, *, epoch: int = 1) -> Connected:
    return Connected(
        session=session,
        n=n,
        index=0,
        ts_recv_ns=session,
        url="wss://venue",
        wire="dollars",
        instance="kalshi-0",
        epoch=epoch,
        version="0.1.0",
        previous_session=0,
    )


def disconnected(session: int, n: int, index: int = 0) -> Disconnected:
    return Disconnected(
        session=session, n=n, index=index, ts_recv_ns=session, cause="x", code=0, reason="", last_recv_ns=0, evidence=""
    )


def fact(event: CaptureEvent) -> RecordFact:
    return RecordFact(place_of(event), event)


@pytest.mark.parametrize(
    ("given", "when", "is_new"),
    [
        ([], connected(10), True),
        ([connected(10)], connected(10), False),
        ([connected(10)], disconnected(10, 1, 1), True),
        ([connected(10), disconnected(10, 7)], disconnected(10, 6), False),
        ([connected(10), disconnected(10, 7)], connected(11), True),
        ([connected(10), disconnected(10, 7)], disconnected(9, 99), False),
        ([connected(10, epoch=2)], connected(11, epoch=2), True),
    ],
)
def test_a_fact_is_recorded_once_along_the_tape(given: list[CaptureEvent], when: CaptureEvent, is_new: bool) -> None:
    assert DECIDER.decide(DECIDER.fold(given), fact(when)) == ((when,) if is_new else ())


def test_a_lower_epoch_is_fenced() -> None:
    with pytest.raises(Rejected) as raised:
        DECIDER.decide(DECIDER.fold([connected(10, epoch=3)]), fact(connected(11, epoch=2)))
    assert raised.value.rule == "capture-fenced"


def test_a_fact_says_where_it_was_found() -> None:
    with pytest.raises(Rejected) as raised:
        DECIDER.decide(DECIDER.initial, RecordFact(TapePlace(10, 2, 0), connected(10)))
    assert raised.value.rule == "capture-place-mismatch"


def test_the_state_is_the_furthest_place_and_epoch() -> None:
    assert DECIDER.fold([connected(10, epoch=2), disconnected(10, 7), connected(9)]) == State(TapePlace(10, 7, 0), 2)
