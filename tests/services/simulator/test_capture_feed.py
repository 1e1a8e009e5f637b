"""Captures come out as they went in, connection by connection."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from ssmd.errors import Malformed, Misconfigured
from ssmd.services.simulator.seeded_capture import write_seeded_capture

SUBSCRIBE = {"id": 7, "cmd": "subscribe", "params": {"channels": ["ticker"]}}


def recorded(path: Path) -> dict[str, list[bytes]]:
    """Payloads by connection, cut out of the lines by hand."""
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    found: dict[str, list[bytes]] = {}
    for line in data.splitlines():
        conn = line.split(b'"conn":"', 1)[1].split(b'"', 1)[0].decode()
        found.setdefault(conn, []).append(line.split(b'"frame":', 1)[1][:-1] + b"\n")
    return found


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "seeded.jsonl.zst"
    write_seeded_capture(path, seed=11, frames=900)
    return path


async def played(running: Any) -> list[bytes]:
    async with running.client() as client:
        await client.send({"id": 1, "cmd": "list_subscriptions"})  # not what starts it
        await client.send(SUBSCRIBE)
        received: list[bytes] = await client.until_closed()
        assert client.socket.close_code == 1000
        return received


@pytest.mark.parametrize("speed", ["max", "100x"])
async def test_each_connection_is_verbatim_and_the_end_is_told(run_simulator: Any, capture: Path, speed: str) -> None:
    expected = recorded(capture)
    assert list(expected) == ["1", "2", "3"]
    async with run_simulator(capture=str(capture), speed=speed) as running:
        for payloads in expected.values():
            assert await played(running) == payloads
        status, body = await running.refused()
        assert (status, msgspec.json.decode(body)["error"]["code"]) == (503, "capture_exhausted")
        status_page = await running.status_when(lambda page: page["done"])
        assert status_page["frames_sent"] == sum(map(len, expected.values()))
        assert [held["frames_sent"] for held in status_page["connections"]] == [len(held) for held in expected.values()]
        assert status_page["feed"]["connections_played"] == [
            {"conn": conn, "session": "", "frames": len(held)} for conn, held in expected.items()
        ]
        assert running.simulator.done


async def test_the_genuine_close_is_verbatim(run_simulator: Any, genuine: Path) -> None:
    expected = recorded(genuine)
    async with run_simulator(capture=str(genuine), speed="max") as running:
        assert {"2": await played(running)} == expected
        _, body = await running.get("/markets")
        assert [(held["ticker"], held["status"], held["volume_fp"]) for held in body["markets"]] == [
            ("KXBTC15M-26MAY140045-45", "closed", "812761.00")
        ]


async def test_frames_are_spaced_as_recorded_divided_by_the_speed(run_simulator: Any, tmp_path: Path) -> None:
    path = tmp_path / "two.jsonl"
    path.write_bytes(
        b'{"ts_recv_ns":1000000000,"conn":"a","frame":{"n":1}}\n{"ts_recv_ns":5000000000,"conn":"a","frame":{"n":2}}\n'
    )
    async with run_simulator(capture=str(path), speed="10x") as running, running.client() as client:
        await client.send(SUBSCRIBE)
        loop_time = asyncio.get_running_loop().time
        assert await client.text() == '{"n":1}\n'
        before = loop_time()
        assert await client.text() == '{"n":2}\n'
        assert 0.3 < loop_time() - before < 5


@pytest.mark.parametrize("on_drop", ["resume", "restart", "next"])
async def test_a_client_that_leaves_is_followed_as_the_setting_says(run_simulator: Any, capture: Path, on_drop: str) -> None:
    expected = list(recorded(capture).values())
    fault = {"kind": "drop-connection", "after_frames": 99}
    async with run_simulator(capture=str(capture), speed="max", on_drop=on_drop) as running:
        await running.control("/faults", fault)
        async with running.client() as client:
            await client.send(SUBSCRIBE)
            first = await client.until_closed()
            assert client.socket.close_code == 1006
        assert first == expected[0][: len(first)]
        await running.status_when(lambda page: page["feed"]["connections_playing"] == 0)
        second = await played(running)
        wanted = {"resume": expected[0][100:], "restart": expected[0], "next": expected[1]}
        assert second == wanted[on_drop]


async def test_a_client_that_never_subscribed_takes_nothing(run_simulator: Any, capture: Path) -> None:
    expected = list(recorded(capture).values())
    async with run_simulator(capture=str(capture), speed="max", on_drop="next") as running:
        async with running.client():
            pass
        await running.status_when(lambda page: page["feed"]["connections_playing"] == 0)
        assert await played(running) == expected[0]


async def test_a_capture_all_taken_is_busy_not_exhausted(run_simulator: Any, tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_bytes(b'{"ts_recv_ns":1,"conn":"a","frame":{}}\n')
    async with run_simulator(capture=str(path)) as running, running.client():
        status, body = await running.refused()
        assert (status, msgspec.json.decode(body)["error"]["code"]) == (503, "capture_busy")


async def test_interleaved_connections_text_and_binary_are_kept_apart(run_simulator: Any, tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_text(
        '{"ts_recv_ns":1,"conn":"a","session":"s1","n":1,"frame":{"a" : 1}}\n'
        '{"ts_recv_ns":2,"conn":"a","session":"s2","n":1,"frame":{"b":1}}\n'
        '{"ts_recv_ns":3,"conn":"a","session":"s1","n":2,"dir":"out","frame":{"sent":"by us"}}\n'
        '{"ts_recv_ns":4,"conn":"a","session":"s1","n":3,"text":"two\\nlines\\u00e9"}\n'
        '{"ts_recv_ns":5,"conn":"a","session":"s2","n":2,"b64":"/wD+"}\n',
        encoding="utf-8",
    )
    async with run_simulator(capture=str(path), speed="max") as running:
        assert await played(running) == [b'{"a" : 1}\n', "two\nlinesé".encode()]
        assert await played(running) == [b'{"b":1}\n', b"\xff\x00\xfe"]


BAD_LINES = {
    "no json": b"{oops}\n",
    "no conn": b'{"ts_recv_ns":1,"frame":{}}\n',
    "two payloads": b'{"ts_recv_ns":1,"conn":"a","frame":{},"text":""}\n',
    "no payload": b'{"ts_recv_ns":1,"conn":"a"}\n',
    "a negative time": b'{"ts_recv_ns":-1,"conn":"a","frame":{}}\n',
    "a broken frame": b'{"ts_recv_ns":1,"conn":"a","frame":{"x":}}\n',
    "no base64": b'{"ts_recv_ns":1,"conn":"a","b64":"%%"}\n',
    "an empty line": b"\n",
    "a cut line": b'{"ts_recv_ns":1,"co',
}


@pytest.mark.parametrize("bad", BAD_LINES.values(), ids=BAD_LINES)
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.zst"])
async def test_a_bad_line_is_named_before_anything_is_served(
    run_simulator: Any, tmp_path: Path, bad: bytes, suffix: str
) -> None:
    path = tmp_path / f"bad{suffix}"
    data = b'{"ts_recv_ns":1,"conn":"a","frame":{}}\n' * 4 + bad
    path.write_bytes(zstandard.compress(data) if suffix.endswith("zst") else data)
    with pytest.raises(Malformed, match=f"capture {path} line 5: "):
        async with run_simulator(capture=str(path)):
            pass


async def test_what_is_no_capture_at_all_is_told(run_simulator: Any, tmp_path: Path, capture: Path) -> None:
    cut = tmp_path / "cut.jsonl.zst"
    cut.write_bytes(capture.read_bytes()[:2_000])
    not_zstd = tmp_path / "gzip.jsonl.zst"
    not_zstd.write_bytes(gzip.compress(b"{}"))
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"")
    for path, error, message in (
        (cut, Malformed, "line"),
        (not_zstd, Malformed, "line 1: not zstd"),
        (empty, Malformed, "holds no frame"),
        (tmp_path / "absent.jsonl", Misconfigured, "cannot be read: No such file"),
        (tmp_path, Misconfigured, "cannot be read: Is a directory"),
    ):
        with pytest.raises(error, match=message):
            async with run_simulator(capture=str(path)):
                pass


async def test_rest_lists_what_the_capture_holds(run_simulator: Any, capture: Path) -> None:
    last: dict[str, dict[str, dict[str, int]]] = {}
    for payloads in recorded(capture).values():
        for payload in payloads:
            frame = msgspec.json.decode(payload)
            msg = frame.get("msg", {})
            if frame["type"] == "orderbook_snapshot":
                last[msg["market_ticker"]] = {
                    side: {price: round(float(size) * 100) for price, size in msg.get(f"{side}_dollars_fp", [])}
                    for side in ("yes", "no")
                }
            elif frame["type"] == "orderbook_delta":
                levels = last[msg["market_ticker"]][msg["side"]]
                levels[msg["price_dollars"]] = levels.get(msg["price_dollars"], 0) + round(float(msg["delta_fp"]) * 100)
    async with run_simulator(capture=str(capture)) as running:
        _, body = await running.get("/markets")
        assert {held["ticker"] for held in body["markets"]} == set(last)
        for ticker, sides in last.items():
            _, body = await running.get(f"/markets/{ticker}/orderbook")
            for side in ("yes", "no"):
                shown = {price: round(float(size) * 100) for price, size in body["orderbook_fp"][f"{side}_dollars"]}
                assert shown == {price: size for price, size in sides[side].items() if size}


def test_a_seeded_capture_is_the_same_bytes_for_the_same_seed(tmp_path: Path) -> None:
    one, same, other = tmp_path / "1.jsonl.zst", tmp_path / "2.jsonl.zst", tmp_path / "3.jsonl.zst"
    assert write_seeded_capture(one, 5, 600) == write_seeded_capture(same, 5, 600)
    write_seeded_capture(other, 6, 600)
    assert one.read_bytes() == same.read_bytes()
    assert one.read_bytes() != other.read_bytes()


@pytest.mark.parametrize("frames", [50, 900, 3_000])
def test_a_seeded_capture_has_the_shape_of_the_genuine_ones(tmp_path: Path, frames: int) -> None:
    path = tmp_path / "seeded.jsonl"
    assert write_seeded_capture(path, 5, frames) == sum(len(held) for held in recorded(path).values()) >= frames
    lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    assert [line["ts_recv_ns"] for line in lines] == sorted(line["ts_recv_ns"] for line in lines)
    for conn, payloads in recorded(path).items():
        decoded = [msgspec.json.decode(payload) for payload in payloads]
        assert [held["msg"]["channel"] for held in decoded[:2]] == ["ticker", "orderbook_delta"]
        seqs = [held["seq"] for held in decoded if "seq" in held]
        assert seqs == list(range(1, len(seqs) + 1))
        assert {held["type"] for held in decoded} <= {"subscribed", "orderbook_snapshot", "orderbook_delta", "ticker"}
        if conn == "2":
            empty = [held["msg"] for held in decoded[4:] if held["type"] == "orderbook_snapshot"]
            ticker = empty[0]["market_ticker"]
            assert empty[0] == {"market_ticker": ticker, "market_id": empty[0]["market_id"]}
            tickers = [held["msg"] for held in decoded if held["type"] == "ticker" and held["msg"]["market_ticker"] == ticker]
            assert (tickers[-1]["yes_bid_dollars"], tickers[-1]["yes_ask_dollars"]) == ("0.0000", "1.0000")
