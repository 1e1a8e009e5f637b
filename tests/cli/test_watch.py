"""`ssmd watch`: the picture of a market, and what is said when there is no gateway to ask."""

from __future__ import annotations

import asyncio
import socket
import threading
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from tests.cli.conftest import Ssmd
from tests.gateway.conftest import Gateway, Tape, gateway

from ssmd.cli import watch
from ssmd.cli.watch import Picture, _frames
from ssmd.errors import Rejected
from ssmd.gateway.messages import encode, of_record
from ssmd.schemas.records import Record, Side

__all__ = ["gateway"]


def test_the_picture_is_folded_from_the_gateways_messages() -> None:
    tape, picture = Tape(), Picture("A")
    records: list[Record] = [
        tape.snapshot("A", bids=[(4500, 10000), (4400, 100)], asks=[(4700, 2500)]),
        tape.snapshot("B"),
        tape.delta("A", 4500, -10000),
        tape.delta("A", 4600, 300, Side.ASK),
        tape.trade("A", 4600, 100),
    ]
    for seq, record in enumerate(records, 1):
        picture.take(msgspec.json.decode(encode(of_record(record, seq))))
    assert picture.bids == {Decimal("0.4400"): Decimal("1.00")}
    assert picture.asks == {Decimal("0.4700"): Decimal("25.00"), Decimal("0.4600"): Decimal("3.00")}
    assert picture.lines() == [
        "A   book verified   stream 5",
        "",
        "    bid size        bid | ask        ask size    ",
        "        1.00     0.4400 | 0.4600     3.00",
        "                        | 0.4700     25.00",
        "",
        "     price         size  taker",
        "    0.4600         1.00  bid",
    ]
    picture.take(msgspec.json.decode(encode(of_record(tape.gap("*"), 6))))
    assert picture.lines()[0] == "A   book not verified: gap, disconnected   stream 6"


def test_a_gateway_that_is_not_there_is_told_at_once(ssmd: Ssmd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
    done = ssmd("watch", "A", "--url", f"http://127.0.0.1:{port}", "--count", "1")
    assert done.status == 2
    assert "again in" not in done.err
    assert f"no gateway answers at http://127.0.0.1:{port}" in done.err


def test_a_gateway_that_hangs_up_is_tried_five_times_more(ssmd: Ssmd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_PAUSE_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            for _ in range(6):
                server.accept()[0].close()

        hanging_up = threading.Thread(target=hang_up, daemon=True)
        hanging_up.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = ssmd("watch", "A", "--url", url, "--count", "1")
        hanging_up.join(60)
    assert done.status == 2
    assert done.err.count("connection lost; again in 0.0") == 5
    assert f"no gateway answers at {url}" in done.err


def test_an_environment_that_does_not_run_has_no_gateway_to_watch(ssmd: Ssmd, workspace: Path) -> None:
    document = workspace / "exchanges" / "environments" / "kalshi-dev.yaml"
    document.write_text(document.read_text().replace("port: 8900", "port: 0"))
    done = ssmd("--env", "kalshi-dev", "watch", "A")
    assert done.status == 2
    assert "kalshi-dev does not run on this machine: its gateway has no address" in done.err
    assert "ssmd up kalshi-dev" in done.err


async def test_a_lost_connection_is_taken_up_where_it_was(gateway: Gateway) -> None:
    async with gateway() as running:
        tape, heard = running.tape, list[int]()
        frames = _frames(running.url, "", "A")
        running.put(tape.snapshot("A"))
        async with asyncio.timeout(30):
            async for frame in frames:
                heard += [message["n"] for message in frame if message["type"] in {"trade", "snapshot"}]
                if len(heard) < 3:
                    running.put(tape.trade("A"))
                elif len(heard) == 3 and running.service.hub.clients:
                    # Cut without a word; a trade comes while nobody listens.
                    running.service.hub.abort_all()
                    running.put(tape.trade("A"))
                    running.put(tape.trade("A"))
                if len(heard) == 5:
                    break
        assert heard == [1, 2, 3, 4, 5]


async def test_a_market_that_nobody_knows_is_told_and_not_watched_for_ever(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_KNOWN_POLL_S", 0.01)
    async with gateway() as running, asyncio.timeout(30):
        await running.settled(running.put(running.tape.snapshot("A"), running.tape.trade("B/1")))
        with pytest.raises(Rejected) as refused:
            await anext(_frames(running.url, "", "NOPE"))
        assert (refused.value.rule, refused.value.message) == (
            "market-unknown",
            f"the gateway at {running.url} has had no record of a market NOPE",
        )
        assert refused.value.mend == "ssmd secmaster list, or ssmd secmaster search TEXT"
        # Known, though it has no book; and whoever asks for a beginning means those to come as well.
        for ticker in ("B/1", "NOPE*"):
            assert [message["type"] for message in await anext(_frames(running.url, "", ticker))][:1] == ["ack"]


async def test_a_market_that_begins_a_moment_later_is_watched(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_KNOWN_POLL_S", 0.05)
    monkeypatch.setattr(watch, "_KNOWN_TRIES", 200)
    async with gateway() as running, asyncio.timeout(30):
        await running.settled(running.put(running.tape.snapshot("A")))
        frames = _frames(running.url, "", "LATE")
        first = asyncio.ensure_future(anext(frames))
        while not running.service.hub.clients:
            await asyncio.sleep(0.01)
        running.put(running.tape.snapshot("LATE"))
        heard = [message["type"] for message in await first]
        while "snapshot" not in heard:
            heard += [message["type"] for message in await anext(frames)]
        assert heard[0] == "ack"


async def test_a_gateway_that_has_heard_nothing_cannot_tell_and_waits(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    async with gateway() as running, asyncio.timeout(30):
        frames = _frames(running.url, "", "A")
        assert [message["type"] for message in await anext(frames)][:1] == ["ack"]
        assert capsys.readouterr().err == "nothing of any market has reached the gateway yet: waiting\n"
        running.put(running.tape.snapshot("A"))
        heard: list[str] = []
        while "snapshot" not in heard:
            heard += [message["type"] for message in await anext(frames)]
