"""Which gaps are left to repair, who is asked for them, and what comes of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from ssmd.errors import Rejected, SsmdError, Unavailable
from ssmd.projections.gaps import GapFilling
from ssmd.projections.queries import GapLine
from ssmd.projections.unrepaired import is_repaired
from ssmd.registry.documents import Capture, EnvironmentDocument
from ssmd.services.connector.repair_request import RepairRequest
from ssmd.wiring import gap_repair
from ssmd.wiring.day_steps import ComponentName
from ssmd.wiring.gap_repair import connector_of, repair_of

S = 1_000_000_000
DOCUMENT = EnvironmentDocument(name="dev", feed="kalshi", schema="market:1", capture=Capture(endpoint="simulator"))
SHARDS = [ComponentName("connector", "main-crypto"), ComponentName("connector", "main-rest")]


def filled(*tickers: str) -> GapFilling:
    return GapFilling("kalshi-rest", S, 2 * S, 3, tickers, "")


def gap(*tickers: str, repairs: tuple[GapFilling, ...] = (), connection: str = "main") -> GapLine:
    return GapLine("1-9", "kalshi", connection, 1, "stale", "", "", 0, 0, S, 2 * S, tickers, (), repairs)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (gap("A", "B"), False),
        (gap("A", "B", repairs=(filled("A"),)), False),
        (gap("A", "B", repairs=(filled("A"), filled("B"))), True),
        (gap("A", "*", repairs=(filled("A"),)), True),
        (gap("*"), False),
        (gap(), False),
        (gap(repairs=(filled("A"),)), False),
        (gap(repairs=(filled(),)), True),
        (gap("A", repairs=(filled(),)), True),
    ],
)
def test_a_gap_is_repaired_when_every_ticker_that_is_named_is(line: GapLine, expected: bool) -> None:
    assert is_repaired(line) is expected


@pytest.mark.parametrize(
    ("connection", "instance"),
    [("main-crypto", "main-crypto"), ("main-rest-2", "main-rest"), ("main-crypto-17", "main-crypto")],
)
def test_a_connection_belongs_to_the_process_that_made_it(connection: str, instance: str) -> None:
    assert connector_of(DOCUMENT, connection, SHARDS).instance == instance


@pytest.mark.parametrize("connection", ["main", "main-2", "main-crypto-x", "main-rest-"])
def test_a_connection_that_nobody_has_is_refused(connection: str) -> None:
    with pytest.raises(Rejected) as caught:
        connector_of(DOCUMENT, connection, SHARDS)
    assert (caught.value.rule, caught.value.message) == (
        "no-such-connection",
        f"no connector of dev has the connection {connection!r}; there are: main-crypto, main-rest",
    )


class Connector:
    """Answers in turn; `asked` is what it was told."""

    def __init__(self, *answers: Mapping[str, Any]) -> None:
        self.asked: list[RepairRequest] = []
        self._answers = list(answers)

    async def request(self, component: str, instance: str, verb: str, timeout_s: float, payload: bytes) -> Mapping[str, Any]:
        assert (component, instance, verb) == ("connector", "main", "repair")
        self.asked.append(msgspec.json.decode(payload, type=RepairRequest))
        return self._answers.pop(0)


MAIN = [ComponentName("connector", "main")]


async def test_a_gap_of_many_markets_is_asked_for_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gap_repair, "ticker_parts", lambda tickers: [tickers[:2], tickers[2:]])
    connector = Connector({"ok": True, "result": "already"}, {"ok": True, "result": "repaired"})
    assert await repair_of(DOCUMENT, MAIN, connector)(gap("A", "B", "C")) == "repaired"
    assert [one.tickers for one in connector.asked] == [("A", "B"), ("C",)]
    assert connector.asked[0] == RepairRequest("main", "1-9", S, 2 * S, "", ("A", "B"))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            {"ok": False, "reason": "7 h", "kind": "Rejected", "rule": "gap-too-long", "mend": "ssmd data backfill"},
            Rejected("gap-too-long", "7 h", mend="ssmd data backfill"),
        ),
        ({"ok": False, "reason": "503", "kind": "Unavailable", "rule": "", "mend": ""}, Unavailable("503")),
        ({"ok": False}, Unavailable("it gave no reason")),
    ],
)
async def test_only_what_the_connector_refuses_is_not_asked_again(answer: Mapping[str, Any], expected: SsmdError) -> None:
    with pytest.raises(type(expected)) as caught:
        await repair_of(DOCUMENT, MAIN, Connector(answer))(gap("A"))
    assert (caught.value.message, caught.value.mend) == (expected.message, expected.mend)
    assert getattr(caught.value, "rule", "") == getattr(expected, "rule", "")
