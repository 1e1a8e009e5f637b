"""Stream messages as the connector makes them, from a capture: what the archive's benchmarks feed on.

The genuine capture where it is present beside the checkout, else a seeded one of its shape; and 2,000 tickers whose
traffic falls off as Zipf's law has it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from ssmd.archive.segment import read_file, split_lines
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.schemas.blocks import NO_DIGEST, Entry, EntryKind, decode_block, encode_block
from ssmd.schemas.control import Connected, encode_fact
from ssmd.schemas.raw_line import read_lines
from ssmd.services.connector.tape_follower import BlockMapper, Names
from ssmd.services.simulator.seeded_capture import write_seeded_capture
from ssmd.streams.transport import Outgoing

GENUINE = Path(__file__).resolve().parents[2] / "shared" / "captures" / "kalshi-btc15m-2026-05-14.jsonl.zst"
FEED, CONNECTION = "kalshi", "main"
START_NS = 1_778_760_000_000_000_000
FRAMES_PER_BLOCK = 50
"""10 ms at 5,000 frames/s."""
SPACING_NS = 200_000


def capture_frames(directory: Path) -> tuple[str, list[bytes]]:
    """What it is, and the first connection's frames of the genuine capture, or of a seeded one made in `directory`."""
    name, path = "genuine capture", GENUINE
    if not path.exists():
        name, path = "seeded capture", directory / "seeded.jsonl.zst"
        write_seeded_capture(path, seed=1, frames=30_000, connections=1)
    lines = list(read_lines(split_lines(read_file(path))))
    return name, [line.entry.payload + b"\n" for line in lines if line.connection == lines[0].connection]


def zipf_frames(count: int, tickers: int = 2000, seed: int = 1) -> list[bytes]:
    """Snapshots of all tickers, then `count` deltas whose tickers follow Zipf's law."""
    chance = random.Random(seed)
    names = [f"KXZIPF-26NOV22-T{index}.5" for index in range(tickers)]
    frames = ['{"type":"subscribed","id":1,"msg":{"channel":"orderbook_delta","sid":1}}']
    for seq, name in enumerate(names, 1):
        frames.append(
            f'{{"type":"orderbook_snapshot","sid":1,"seq":{seq},"msg":{{"market_ticker":"{name}","market_id":"m",'
            '"yes_dollars_fp":[["0.4000","1000000.00"]],"no_dollars_fp":[["0.5000","1000000.00"]]}}'
        )
    for seq, name in enumerate(chance.choices(names, [1 / (index + 1) for index in range(tickers)], k=count), tickers + 1):
        frames.append(
            f'{{"type":"orderbook_delta","sid":1,"seq":{seq},"msg":{{"market_ticker":"{name}","market_id":'
            f'"{chance.getrandbits(64):016x}","price_dollars":"0.{chance.randint(10, 40):02}00","delta_fp":'
            f'"{chance.randint(1, 900)}.00","side":"yes","ts":"2026-05-14T04:30:01.{chance.randrange(10**6):06}Z"}}}}'
        )
    return [frame.encode() + b"\n" for frame in frames]


def blocks(frames: Sequence[bytes], count: int) -> Iterator[bytes]:
    """Tape blocks of at least `count` entries: sessions of the same frames, one after another."""
    ts, made, digest = START_NS, 0, NO_DIGEST
    while made < count:
        session, first_n = ts + 1, 1
        fact = encode_fact(Connected(FEED, CONNECTION, "wss://capture", wire="kalshi-dollars"))
        entries = [(EntryKind.CTL, fact), *((EntryKind.IN, frame) for frame in frames)]
        for at in range(0, len(entries), FRAMES_PER_BLOCK):
            part = [
                (kind, ts + SPACING_NS * i, payload) for i, (kind, payload) in enumerate(entries[at : at + FRAMES_PER_BLOCK])
            ]
            ts += SPACING_NS * len(part)
            block = encode_block(session, first_n, part, digest)
            digest = decode_block(block).digest
            first_n += len(part)
            made += len(part)
            yield block
            if made >= count:
                return


def messages(env: str, frames: Sequence[bytes], count: int) -> Iterator[Outgoing]:
    """Raw and market messages of `blocks`, in the order the connector publishes them."""
    mapper = BlockMapper(Names(env, FEED, CONNECTION), lambda session: KalshiMapper(FEED, session))
    for data in blocks(frames, count):
        unit, _ = mapper.map(decode_block(data), data, is_wanted=True)
        if unit is not None:
            yield unit.raw
            yield from unit.market


__all__ = ["CONNECTION", "FEED", "START_NS", "Entry", "blocks", "capture_frames", "messages", "zipf_frames"]
