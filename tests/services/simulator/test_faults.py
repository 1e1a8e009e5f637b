"""Every fault, over a real client, on a capture whose frames are known one by one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, get_args, get_type_hints

import httpx
import msgspec
import pytest
import websockets

from ssmd.exchanges.kalshi.simulated.market_orders import VenueOrder
from ssmd.services.simulator.config import FaultOrder
from ssmd.services.simulator.connection import Connection

SUBSCRIBE = {"id": 1, "cmd": "subscribe", "params": {"channels": ["trade"]}}
FRAMES = [b'{"type":"trade","sid":1,"seq":%d,"msg":{}}\n' % number for number in range(1, 11)]


@pytest.fixture
def capture(tmp_path: Path) -> str:
    path = tmp_path / "ten.jsonl"
    path.write_bytes(b"".join(b'{"ts_recv_ns":1,"conn":"a","frame":%b}\n' % frame[:-1] for frame in FRAMES))
    return str(path)


async def received_with(running: Any, *faults: dict[str, Any]) -> list[bytes]:
    await running.control("/faults", list(faults))
    async with running.client() as client:
        await client.send(SUBSCRIBE)
        received: list[bytes] = await client.until_closed()
        return received


F = FRAMES
EXPECTED = {
    "drop-frame": F[:3] + F[4:],
    "duplicate-frame": [*F[:4], F[3], *F[4:]],
    "reorder-frames": [*F[:3], F[4], F[3], *F[5:]],
    "bad-json": [*F[:3], b'{"type":"orderbook_delta","sid":1,"seq":\n', *F[3:]],
    "unknown-type": [*F[:3], b'{"type":"simulated_unknown_type","msg":{"note":"made by the simulator"}}\n', *F[3:]],
}


@pytest.mark.parametrize("kind", EXPECTED)
async def test_a_fault_meets_the_frame_after_those_it_waits_for(run_simulator: Any, capture: str, kind: str) -> None:
    async with run_simulator(capture=capture, speed="max") as running:
        assert await received_with(running, {"kind": kind, "after_frames": 3}) == EXPECTED[kind]
        assert (await running.control("/status"))["faults"] == {"armed": [], "fired": {kind: 1}}


async def test_count_hits_as_many_frames_and_faults_add_up(run_simulator: Any, capture: str) -> None:
    async with run_simulator(capture=capture, speed="max") as running:
        received = await received_with(
            running, {"kind": "drop-frame", "after_frames": 2, "count": 3}, {"kind": "duplicate-frame", "after_frames": 8}
        )
        assert received == [*F[:2], *F[5:9], F[8], F[9]]


async def test_a_frame_held_back_at_the_end_still_comes(run_simulator: Any, capture: str) -> None:
    async with run_simulator(capture=capture, speed="max") as running:
        assert await received_with(running, {"kind": "reorder-frames", "after_frames": 9}) == F


async def test_faults_can_stand_in_the_settings(run_simulator: Any, capture: str) -> None:
    async with run_simulator(capture=capture, speed="max", faults=(FaultOrder(kind="drop-frame"),)) as running:
        assert await received_with(running) == F[1:]


@pytest.mark.parametrize(
    ("kind", "code", "text"), [("channel-error", 10, "Channel error"), ("buffer-overflow", 25, "Subscription buffer overflow")]
)
async def test_a_terminal_error_ends_the_connections_frames(
    run_simulator: Any, capture: str, kind: str, code: int, text: str
) -> None:
    async with run_simulator(capture=capture, speed="max") as running:
        await running.control("/faults", {"kind": kind, "after_frames": 3})
        async with running.client() as client:
            await client.send(SUBSCRIBE)
            frames = await client.frames(5)
            assert [frame["seq"] for frame in frames] == [1, 2, 3, 4, 5]
            assert frames[4] == {"type": "error", "sid": 1, "seq": 5, "msg": {"code": code, "msg": text}}
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.socket.recv(), 0.1)
        await running.status_when(lambda page: page["feed"]["connections_playing"] == 0)
        assert await received_with(running) == F[4:]


async def test_a_drop_is_no_close(run_simulator: Any, capture: str) -> None:
    async with run_simulator(capture=capture, speed="max") as running, running.client() as client:
        await running.control("/faults", {"kind": "drop-connection"})
        assert await client.until_closed() == []
        assert client.socket.close_code == 1006
        status = await running.status_when(lambda page: not page["connections"][0]["open"])
        assert status["connections"][0]["cause"] == "fault: drop-connection"


async def test_a_stall_keeps_the_connection_and_then_goes_on(run_simulator: Any, capture: str) -> None:
    async with run_simulator(capture=capture, speed="max") as running:
        await running.control("/faults", {"kind": "stall", "after_frames": 4})
        async with running.client() as client:
            await client.send(SUBSCRIBE)
            assert [frame["seq"] for frame in await client.frames(5)] == [1, 2, 3, 4, 5]
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.socket.recv(), 0.2)
            assert (await running.control("/status"))["connections"][0]["open"] is True
            await running.control("/faults/clear")
            assert await client.until_closed() == F[5:]


async def test_a_stall_can_end_by_itself(run_simulator: Any, capture: str) -> None:
    async with run_simulator(capture=capture, speed="max") as running:
        assert await received_with(running, {"kind": "stall", "after_frames": 4, "stall_ms": 50}) == F


async def test_a_stall_of_the_model_holds_what_it_would_have_sent(run_simulator: Any) -> None:
    async with run_simulator(markets=3, rate=1000) as running, running.client() as client:
        await client.send({"id": 1, "cmd": "subscribe", "params": {"channels": ["trade"]}})
        await client.frames(3)
        await running.control("/faults", {"kind": "stall", "stall_ms": 100})
        seqs = [frame["seq"] for frame in await client.frames(60)]
        assert seqs == list(range(seqs[0], seqs[0] + 60))


async def test_terminal_errors_of_the_model_take_the_next_seq(run_simulator: Any) -> None:
    async with run_simulator(markets=3, rate=1000) as running, running.client() as client:
        await client.send({"id": 1, "cmd": "subscribe", "params": {"channels": ["trade", "ticker"]}})
        await client.frames(2)
        await running.control("/faults", {"kind": "buffer-overflow"})
        last = 0
        while (frame := await client.frame())["type"] != "error":
            last = frame.get("seq", last)
        assert frame == {"type": "error", "sid": 1, "seq": last + 1, "msg": {"code": 25, "msg": "Subscription buffer overflow"}}
        await client.send({"id": 2, "cmd": "list_subscriptions"})
        while (frame := await client.frame())["type"] != "ok":
            assert frame["type"] == "ticker"
        assert frame == {"type": "ok", "id": 2, "msg": [{"channel": "ticker", "sid": 2}]}


async def test_rest_faults(run_simulator: Any) -> None:
    async with run_simulator(markets=3) as running:
        await running.control("/faults", [{"kind": "rest-429", "count": 2}, {"kind": "rest-500"}, {"kind": "rest-503"}])
        answers = [await running.get("/exchange/status") for _ in range(5)]
        assert [status for status, _ in answers] == [429, 429, 500, 503, 200]
        assert answers[0][1] == {"error": "too many requests"}
        assert set(answers[2][1]) == {"code", "message", "details"}
        _, first = await running.get("/markets", limit="1")
        await running.control("/faults", {"kind": "cursor-loop"})
        _, looped = await running.get("/markets", limit="1", cursor=first["cursor"])
        assert looped["cursor"] == first["cursor"]


async def test_handshakes_can_be_refused(run_simulator: Any) -> None:
    async with run_simulator(markets=3) as running:
        await running.control("/faults", [{"kind": "handshake-503", "count": 2}, {"kind": "handshake-401"}])
        assert [(await running.refused())[0] for _ in range(3)] == [503, 503, 401]
        async with running.client() as client:
            await client.send({"id": 1, "cmd": "list_subscriptions"})
            assert (await client.frame())["type"] == "ok"


ALL_FAULTS = [kind for kinds in get_args(get_type_hints(FaultOrder)["kind"]) for kind in get_args(kinds)]


async def test_every_fault_stands_in_the_settings_and_comes_by_control_while_it_runs(run_simulator: Any) -> None:
    assert len(ALL_FAULTS) == len(set(ALL_FAULTS)) > 30
    # So far ahead that none strikes at once.
    wanted = [{"kind": kind, "after_frames": 1_000, "count": 2} for kind in ALL_FAULTS]
    async with run_simulator(markets=3, faults=msgspec.convert(wanted, tuple[FaultOrder, ...])) as running:
        in_settings = (await running.control("/status"))["faults"]["armed"]
        assert sorted(in_settings, key=str) == sorted(wanted, key=str)
        assert (await running.control("/faults/clear"))["armed"] == []
        assert (await running.control("/faults", wanted))["armed"] == in_settings


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"kind": "earthquake"}, "earthquake"),
        ({"kind": "stall", "count": 0}, "count >= 1"),
        ({"kind": "stall", "colour": 1}, "colour"),
        ("text", "Expected"),
    ],
)
async def test_a_bad_order_is_refused_with_its_reason(run_simulator: Any, body: object, message: str) -> None:
    async with run_simulator(markets=3) as running:
        answer = await running.control("/faults", body)
        assert answer["error"]["code"] == "bad_fault"
        assert message in answer["error"]["message"]


async def test_the_rate_limit_is_tokens_a_second(run_simulator: Any) -> None:
    async with run_simulator(markets=3, rest_tokens_s=10) as running:
        answers = [await running.get("/exchange/status") for _ in range(3)]
        assert [status for status, _ in answers] == [200, 200, 429]


async def test_a_client_that_does_not_read_gets_error_25(run_simulator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with run_simulator(markets=3, rate=500) as running, running.client() as client:
        await client.send({"id": 1, "cmd": "subscribe", "params": {"channels": ["trade"]}})
        await client.frames(3)
        # How much a socket takes is the kernel's business; say that it took nothing.
        monkeypatch.setattr(Connection, "buffered", property(lambda _: 8 * 1024 * 1024 + 1))
        last = 2
        while (frame := await client.frame())["type"] != "error":
            last = frame["seq"]
        assert frame == {"type": "error", "sid": 1, "seq": last + 1, "msg": {"code": 25, "msg": "Subscription buffer overflow"}}


async def test_every_broken_answer_has_the_venues_body(run_simulator: Any) -> None:
    kinds = ["rest-401", "rest-expired", "rest-404", "rest-502", "rest-504"]
    async with run_simulator(markets=3) as running:
        await running.control("/faults", [{"kind": kind, "path": "/markets"} for kind in kinds])
        assert (await running.get("/exchange/status"))[0] == 200  # not of that path
        answers = [await running.http.get(running.simulator.rest_url + "/markets") for _ in range(6)]
        assert [answer.status_code for answer in answers] == [401, 401, 404, 502, 504, 200]
        assert answers[1].json() == {"error": {"code": "header_timestamp_expired", "message": "header timestamp expired"}}
        assert answers[3].text.startswith("<html>")


async def test_answers_can_be_late_stale_cut_or_short_of_rows(run_simulator: Any) -> None:
    async with run_simulator(markets=5, start_paused=True) as running:
        _, before = await running.get("/markets")
        await running.control("/orders", {"kind": "list"})
        await running.control("/faults", [{"kind": "rest-stale"}, {"kind": "half-page"}, {"kind": "missing-rows"}])
        assert (await running.get("/markets"))[1] == before
        with pytest.raises(httpx.RemoteProtocolError):
            await running.get("/markets")
        _, short = await running.get("/markets")
        _, whole = await running.get("/markets")
        assert short["markets"] == whole["markets"][::2]
        assert len(whole["markets"]) == 6
        await running.control("/faults", {"kind": "rest-slow", "stall_ms": 150})
        began = asyncio.get_running_loop().time()
        assert (await running.get("/markets"))[1] == whole
        assert asyncio.get_running_loop().time() - began >= 0.149


async def test_commands_can_time_out_be_refused_or_get_lost(run_simulator: Any) -> None:
    async with run_simulator(markets=3) as running, running.client() as client:
        kinds = ("timeout", "refused", "full", "lost")
        await running.control("/faults", [{"kind": f"command-{kind}"} for kind in kinds])
        for number in range(1, 6):
            await client.send({"id": number, "cmd": "list_subscriptions"})
        assert await client.frames(4) == [
            {"type": "error", "id": 1, "msg": {"code": 18, "msg": "Command timeout"}},
            {"type": "error", "id": 2, "msg": {"code": 27, "msg": "Too many requests"}},
            {"type": "error", "id": 3, "msg": {"code": 26, "msg": "Subscription market limit exceeded"}},
            {"type": "ok", "id": 5, "msg": []},
        ]


async def test_more_commands_a_second_than_allowed_get_27(run_simulator: Any) -> None:
    async with run_simulator(markets=3, commands_s=3) as running, running.client() as client:
        for number in range(1, 9):
            await client.send({"id": number, "cmd": "list_subscriptions"})
        types = [frame["type"] for frame in await client.frames(8)]
        assert types[:3] == ["ok", "ok", "ok"]
        assert "error" in types


async def test_handshakes_meet_skew_and_rate_limits_on_demand(run_simulator: Any) -> None:
    async with run_simulator(markets=3) as running:
        await running.control("/faults", [{"kind": f"handshake-{kind}"} for kind in ("expired", "429", "500")])
        assert await running.refused() == (
            401,
            b'{"error":{"code":"header_timestamp_expired","message":"header timestamp expired"}}',
        )
        assert [(await running.refused())[0] for _ in range(2)] == [429, 500]


async def test_orders_stand_in_the_settings_or_come_by_control(run_simulator: Any) -> None:
    orders = (VenueOrder(kind="pause-trading", at_s=1, for_s=1_000),)
    async with run_simulator(markets=3, speed="20x", orders=orders) as running, running.client() as client:
        await client.send({"id": 1, "cmd": "subscribe", "params": {"channels": ["market_lifecycle_v2"]}})
        await client.frame()
        async with asyncio.timeout(60):
            while (await running.get("/exchange/status"))[1]["trading_active"]:
                await asyncio.sleep(0.02)
        await running.control("/orders", {"kind": "pause", "ticker": "KXBTCD-26NOV2517-T73499.99"})
        while (frame := await client.frame())["msg"].get("event_type") != "deactivated":
            assert frame["sid"] == 1
        assert frame["msg"]["market_ticker"] == "KXBTCD-26NOV2517-T73499.99"
        assert (await running.control("/orders", {"kind": "amend"}))["error"]["code"] == "nothing_fits"
        assert (await running.control("/orders", {"kind": "dance"}))["error"]["code"] == "bad_order"


async def test_a_capture_has_no_markets_to_change(run_simulator: Any, capture: str) -> None:
    async with run_simulator(capture=capture) as running:
        assert (await running.control("/orders", {"kind": "list"}))["error"]["code"] == "no_model"


@pytest.mark.parametrize("kind", ["duplicate-frame", "reorder-frames"])
async def test_compressed_frames_are_the_same_frames_whatever_happens_to_them(run_simulator: Any, kind: str) -> None:
    async with run_simulator(markets=3, compression=True, speed="max", seed=2) as running:
        plain: list[Any] = []
        squeezed: list[Any] = []
        for received, compression in ((plain, None), (squeezed, "deflate")):
            await running.control("/faults", {"kind": kind, "after_frames": 5})
            url = running.simulator.websocket_url
            async with websockets.connect(url, compression=compression, proxy=None, close_timeout=0.2) as socket:
                answer = socket.response
                assert answer is not None
                is_agreed = "permessage-deflate" in (answer.headers.get("Sec-WebSocket-Extensions") or "")
                assert is_agreed is (compression is not None)
                await socket.send(
                    msgspec.json.encode({"id": 1, "cmd": "subscribe", "params": {"channels": ["trade"]}}).decode()
                )
                received += [msgspec.json.decode(await asyncio.wait_for(socket.recv(), 60)) for _ in range(40)]
        assert [frame.get("seq") for frame in squeezed] == [frame.get("seq") for frame in plain]
        assert {frame["type"] for frame in squeezed} == {"subscribed", "trade"}
