"""`ssmd tape`: a tape shown, verified, and the streams made again from it over a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.schemas.first_blocks import begun_in_first_layout

from ssmd.clock import DayCalendar, ManualClock
from ssmd.errors import Misconfigured
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.identifiers import system_random
from ssmd.schemas.blocks import decode_block
from ssmd.schemas.control import Connected, Disconnected
from ssmd.schemas.market_message import decode_mark, parse_message_id
from ssmd.services.connector.tape_follower import Names
from ssmd.streams import topology
from ssmd.streams.connection import Connection
from ssmd.streams.publisher import NOWHERE, EntryPlace
from ssmd.streams.recorder import Recorder
from ssmd.streams.tape import TapeWriter
from ssmd.streams.tape_files import file_of, indexes, read_file
from ssmd.streams.tape_summary import SessionSummary, TapeDamage, summarize
from ssmd.streams.transport import StreamMessage, StreamName
from ssmd.streams.transport_memory import MemoryTransport
from ssmd.streams.transport_nats import NatsTransport
from ssmd.wiring.tape import held, republish

SECOND = 1_000_000_000
BEGIN = 1_778_760_000 * SECOND
TICKER = "KXBTC15M-26MAY141200-00"


def snapshot(seq: int) -> bytes:
    return (
        b'{"type":"orderbook_snapshot","sid":1,"seq":%d,"msg":{"market_ticker":"%s","market_id":"m",'
        b'"yes_dollars_fp":[["0.1000","5.00"]],"no_dollars_fp":[["0.2000","7.00"]]}}' % (seq, TICKER.encode())
    )


def write_tape(directory: Path, sessions: int = 2, frames: int = 20) -> None:
    clock = ManualClock(BEGIN)
    tape = TapeWriter(directory, file_bytes=4096)
    for _ in range(sessions):
        clock.advance(SECOND)
        recorder = Recorder(
            tape, clock.now_ns(), clock, day_of=DayCalendar().day_of, on_block=lambda _: None, on_begin=lambda: None
        )
        recorder.fact(Connected("kalshi", "main", "wss://venue", wire="kalshi-dollars"))
        recorder.command(b'{"id":1,"cmd":"subscribe"}')
        recorder.flush()
        for seq in range(1, frames + 1):
            clock.advance(1_000_000)
            recorder.frame(snapshot(seq))
            if seq % 5 == 0:
                recorder.flush()
        recorder.fact(Disconnected("stopped"))
        recorder.flush()
    tape.close()


@pytest.fixture
async def transport(transport_url: str, fresh_env: str) -> AsyncIterator[NatsTransport]:
    connection = await Connection.open(transport_url, name="test", timeout_s=30)
    definitions = topology.desired(fresh_env, max_age_s=3600, max_bytes=64 << 20)
    wanted = [one for one in definitions if one.endpoint == "transport"]
    await topology.apply({"transport": connection}, wanted)
    await connection.close()
    transport = await NatsTransport.open(transport_url, fresh_env)
    yield transport
    await transport.close()


async def stored(transport: NatsTransport, stream: StreamName) -> list[StreamMessage]:
    reader = await transport.read(stream)
    found: list[StreamMessage] = []
    last = (await transport.state(stream)).last_seq
    async with asyncio.timeout(60):
        while len(found) < last:
            found += await reader.next(1.0)
    await reader.close()
    return found


def test_a_tape_is_summed_up_by_session(tmp_path: Path) -> None:
    write_tape(tmp_path)
    summary = summarize(tmp_path)
    assert summary.damages == ()
    first, second = summary.sessions
    assert isinstance(first, SessionSummary)
    assert (first.session, first.first_n, first.last_n) == (BEGIN + SECOND, 1, 23)
    assert (first.frames, first.commands, first.facts, first.cause, first.url) == (20, 1, 2, "stopped", "wss://venue")
    assert second.session > first.last_recv_ns
    assert summary.blocks == first.blocks + second.blocks == 12
    assert summary.size_bytes == first.size_bytes + second.size_bytes


def test_damage_is_located(tmp_path: Path) -> None:
    write_tape(tmp_path)
    path = file_of(tmp_path, 1)
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)
    (damage,) = [found for found in summarize(tmp_path).damages if "digest" in found.reason]
    assert isinstance(damage, TapeDamage)
    assert damage.file == "0000000001.tape"
    assert 0 < damage.offset < len(data)


async def test_streams_are_made_again_in_order_and_only_what_they_lack(
    tmp_path: Path, transport: NatsTransport, fresh_env: str
) -> None:
    write_tape(tmp_path)
    names = Names(fresh_env, "kalshi", "main")
    done = await republish(tmp_path, transport, names, lambda session: KalshiMapper("kalshi", session), system_random)
    assert (done.raw_before, done.market_before, done.blocks) == (NOWHERE, NOWHERE, 12)
    assert done.reached == EntryPlace(summarize(tmp_path).sessions[-1].session, 23)
    raw = await stored(transport, "raw")
    blocks = [decode_block(message.payload) for message in raw]
    assert b"".join(message.payload for message in raw) == b"".join(
        file_of(tmp_path, index).read_bytes() for index in range(1, summarize(tmp_path).files + 1)
    )
    marks = [decode_mark(one.payload) for one in await stored(transport, "market") if ".mark." in one.subject]
    assert [(mark.session, mark.first_n) for mark in marks] == [(block.session, block.first_n) for block in blocks]

    again = await republish(tmp_path, transport, names, lambda session: KalshiMapper("kalshi", session), system_random)
    assert (again.blocks, again.raw_before) == (0, done.reached)
    assert len(await stored(transport, "raw")) == 12


async def test_everything_is_published_again_when_asked_to(tmp_path: Path, transport: NatsTransport, fresh_env: str) -> None:
    write_tape(tmp_path, sessions=1)
    names = Names(fresh_env, "kalshi", "main")
    for is_all in (False, True):
        await republish(
            tmp_path, transport, names, lambda session: KalshiMapper("kalshi", session), system_random, is_all=is_all
        )
    market = [parse_message_id(one.message_id) for one in await stored(transport, "market")]
    assert market[: len(market) // 2] == market[len(market) // 2 :]
    assert len(await stored(transport, "raw")) == 12


async def test_a_tape_that_is_written_is_not_republished(tmp_path: Path) -> None:
    tape = TapeWriter(tmp_path)
    with pytest.raises(Misconfigured, match="a connector writes the tape"), held(tmp_path):
        pass
    tape.close()
    with held(tmp_path), pytest.raises(Misconfigured, match="another process writes the tape"):
        TapeWriter(tmp_path)


async def test_damage_ends_a_republishing_behind_what_is_sound(tmp_path: Path) -> None:
    write_tape(tmp_path, sessions=1)
    data = bytearray(file_of(tmp_path, 2).read_bytes())
    data[200] ^= 4
    file_of(tmp_path, 2).write_bytes(data)
    transport = MemoryTransport()
    with pytest.raises(Exception, match="digest does not match"):
        await republish(
            tmp_path, transport, Names("t", "kalshi", "main"), lambda session: KalshiMapper("kalshi", session), system_random
        )
    sound = summarize(tmp_path).damages[0]
    assert sound.file == "0000000002.tape"
    assert b"".join(message.payload for message in transport.stored("raw")) == file_of(tmp_path, 1).read_bytes()


async def test_a_tape_of_both_layouts_gives_the_same_records(tmp_path: Path) -> None:
    made = []
    for first_blocks in (0, 5):
        tape, transport = tmp_path / str(first_blocks), MemoryTransport()
        write_tape(tape)
        files = list(_files(tape))
        blocks = begun_in_first_layout([block for _, of_file in files for block in of_file], first_blocks)
        for path, of_file in files:
            path.write_bytes(b"".join(blocks[: len(of_file)]))
            del blocks[: len(of_file)]
        for published in (12, 0):
            done = await republish(
                tape, transport, Names("t", "kalshi", "main"), lambda session: KalshiMapper("kalshi", session), system_random
            )
            assert done.blocks == published
        assert b"".join(one.payload for one in transport.stored("raw")) == b"".join(path.read_bytes() for path, _ in files)
        made.append((transport.stored("market"), summarize(tape).sessions, summarize(tape).damages))
    assert made[0] == made[1]
    assert made[0][0]


def _files(directory: Path) -> Iterator[tuple[Path, list[bytes]]]:
    for index in indexes(directory):
        path = file_of(directory, index)
        yield path, [block.data for block in read_file(path, index)]
