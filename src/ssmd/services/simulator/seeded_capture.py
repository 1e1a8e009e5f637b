"""Writes a capture of the genuine ones' shape from a seed, so that whoever needs a capture has one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import zstandard

from ssmd.errors import Misconfigured
from ssmd.exchanges.kalshi.simulated.order_flow import MarketModel, ModelSettings
from ssmd.exchanges.kalshi.simulated.subscriptions import Subscriptions

_START_NS = 1_778_733_000_000_000_000  # 2026-05-14T04:30:00Z, in the days of the genuine ones
_WIRE_DELAY_NS = 12_345_678
_PAUSE_NS = 1_500_000_000
_CHANNELS = ("ticker", "orderbook_delta")


def write_seeded_capture(path: Path, seed: int, frames: int = 3_000, markets: int = 2, connections: int = 3) -> int:
    """Write a capture to `path` (.jsonl or .jsonl.zst); the same arguments give the same bytes.

    Each recorded connection ("1", "2", ..) subscribes to `ticker` (sid 1) and `orderbook_delta` (sid 2) of the markets
    that trade when it begins, as the genuine captures do: acks, snapshots, then deltas with contiguous seq and tickers.
    The second one (the only one, where there is one) lives through the close of a market: deltas drain its book, a
    ticker says 0.0000/1.0000, an empty snapshot follows some seconds later.

    Args:
        path: the file to make; an existing one is replaced.
        seed: decides every byte.
        frames: at least this many frames; the connection with the close goes on until its empty snapshot.
        markets: at least 2; one of them is the one that closes.
        connections: at least 1.

    Returns:
        How many frames were written.

    Raises:
        Misconfigured: the file cannot be written.
    """
    if markets < 2 or connections < 1 or frames < connections:
        raise ValueError("expected markets >= 2, connections >= 1 and frames >= connections")
    lines = _lines(seed, frames, markets, connections)
    data = b"".join(lines)
    if path.suffix == ".zst":
        data = zstandard.ZstdCompressor(level=3, write_content_size=False).compress(data)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise Misconfigured(f"capture {path} cannot be written: {error.strerror}") from error
    return len(lines)


def _lines(seed: int, frames: int, markets: int, connections: int) -> list[bytes]:
    """The lines, in arrival order."""
    share = frames // connections
    closing = min(2, connections)
    # The first rolling market closes one roll after the start: long enough for the connections before the closing one.
    rate = 100
    roll_s = max(share * (closing - 1) // rate + 2 * closing + share // rate // 2, 3)
    model = MarketModel(
        ModelSettings(
            seed=seed, markets=markets, rate=rate, start_ns=_START_NS, roll_s=roll_s, lead_s=1, empty_snapshot_ms=3_000
        )
    )
    lines: list[bytes] = []
    for number in range(1, connections + 1):
        wanted = share if number < connections else max(share, frames - len(lines))
        lines += _one_connection(model, number, wanted, until_close=number == closing)
        _pass(model, _PAUSE_NS)
    return lines


def _one_connection(model: MarketModel, number: int, wanted: int, *, until_close: bool) -> list[bytes]:
    tickers = [ticker for ticker, market in model.markets.items() if market.phase == "active"]
    subscriptions = Subscriptions(model)
    command = {"id": 1, "cmd": "subscribe", "params": {"channels": list(_CHANNELS), "market_tickers": tickers}}
    ts_ns = model.now_ns + _WIRE_DELAY_NS
    lines = []
    for offset, frame in enumerate(subscriptions.command(msgspec.json.encode(command))):
        lines.append(_line(ts_ns + offset * 1_000, number, frame))
    emptied = not until_close
    while len(lines) < wanted or not emptied:
        messages = model.step()
        ts_ns = model.now_ns + _WIRE_DELAY_NS
        for offset, message in enumerate(messages):
            published = subscriptions.publish(message)
            if published is not None:
                lines.append(_line(ts_ns + offset * 1_000, number, published))
                emptied = emptied or message.kind == "orderbook_snapshot"
    return lines


def _pass(model: MarketModel, span_ns: int) -> None:
    until_ns = model.now_ns + span_ns
    while model.now_ns < until_ns:
        model.step()


def _line(ts_ns: int, number: int, frame: bytes) -> bytes:
    return b'{"ts_recv_ns":%d,"conn":"%d","frame":%b}\n' % (ts_ns, number, frame.rstrip(b"\n"))
