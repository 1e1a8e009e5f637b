"""How stored data becomes an event again, and what a catalogue refuses."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import msgspec
import pytest

from ssmd.domain import trading_day
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.decider import Catalogue, Decider, Older, tag_of
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


class SizedV1(msgspec.Struct, frozen=True, tag_field="type", tag="t.sized.v1"):
    size: str


class SizedV2(msgspec.Struct, frozen=True, tag_field="type", tag="t.sized.v2"):
    size_bytes: int


class Sized(msgspec.Struct, frozen=True, tag_field="type", tag="t.sized.v3"):
    size_bytes: int
    is_whole: bool


SIZED: Decider[Any, Sized, int] = Decider("t", ("name",), 0, lambda _, __: (), lambda _, event: event.size_bytes, (Sized,))
OLDER = (
    Older(SizedV1, lambda event: SizedV2(int(event.size))),
    Older(SizedV2, lambda event: Sized(event.size_bytes, is_whole=True)),
)


@pytest.mark.parametrize(
    ("tag", "data", "expected"),
    [
        ("t.sized.v1", b'{"size":"12"}', Sized(12, is_whole=True)),
        ("t.sized.v2", b'{"size_bytes":12}', Sized(12, is_whole=True)),
        ("t.sized.v3", b'{"size_bytes":12,"is_whole":false}', Sized(12, is_whole=False)),
    ],
)
def test_old_versions_bytes_become_the_current_event(tag: str, data: bytes, expected: Sized) -> None:
    catalogue = Catalogue([SIZED], OLDER)
    assert catalogue.decode(tag, data) == expected
    assert catalogue.tags == ("t.sized.v1", "t.sized.v2", "t.sized.v3")


def test_a_version_nobody_upcasts_and_one_with_two_upcasts_are_refused() -> None:
    with pytest.raises(Malformed, match=re.escape("'t.sized.v1' is unknown")):
        Catalogue([SIZED], OLDER[1:]).decode("t.sized.v1", b'{"size":"12"}')
    with pytest.raises(TypeError, match="two"):
        Catalogue([SIZED], (*OLDER, OLDER[0]))
