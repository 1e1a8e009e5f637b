"""How stored data becomes an event again, and what a catalogue refuses."""

from __future__ import annotations

import dataclasses

import pytest

from ssmd.domain import trading_day
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.decider import Catalogue, tag_of
from ssmd.errors import Malformed


def test_an_event_is_decoded_by_its_tag() -> None:
    data = b'{"type":"trading-day.errored.v1","status":"active","error":"no disk"}'
    assert CATALOGUE.decode("trading-day.errored.v1", data) == trading_day.Errored("active", "no disk")
    assert tag_of(trading_day.Errored) == "trading-day.errored.v1"


@pytest.mark.parametrize(
    ("tag", "data", "message"),
    [
        ("trading-day.errored.v9", b"{}", "unknown to this version of ssmd"),
        ("trading-day.errored.v1", b"{}", "does not fit"),
        ("trading-day.errored.v1", b'{"type":"trading-day.activated.v1"}', "does not fit"),
        ("trading-day.errored.v1", b'{"type":"trading-day.errored.v1","status":"asleep","error":""}', "does not fit"),
        ("trading-day.errored.v1", b"\xff", "does not fit"),
        ("trading-day.errored.v1", b'{"type":"\xff', "does not fit"),
    ],
)
def test_other_data_is_malformed(tag: str, data: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        CATALOGUE.decode(tag, data)


def test_a_tag_names_one_event() -> None:
    with pytest.raises(TypeError, match="two events are tagged"):
        Catalogue([trading_day.DECIDER, dataclasses.replace(trading_day.DECIDER, aggregate="other")])
