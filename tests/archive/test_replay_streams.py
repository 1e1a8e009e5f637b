"""A replay onto streams of its own, on a real server: what is there is what is archived, in order; live names are refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ssmd.archive.reading import Wanted
from ssmd.clock import SystemClock, date_of
from ssmd.errors import Misconfigured
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.schemas.blocks import decode_block
from ssmd.schemas.codecs import decode_records
from ssmd.schemas.raw_line import RawLine
from ssmd.services.replayer import Replayer
from ssmd.settings import Workspace
from ssmd.streams import subjects
from ssmd.streams.transport import StreamMessage, StreamName
from ssmd.streams.transport_nats import NatsTransport
from ssmd.wiring.environment import resolve_environment
from ssmd.wiring.replay import replay_to_streams

ROOT = Path(__file__).parents[2]
ENV, DATE = "kalshi-dev", "2026-05-14"


class Stage:
    """A world, an environment whose transport is the tests' server, and a name for the streams."""

    def __init__(self, world: Any, root: Path, url: str, prefix: str) -> None:
        self.world = world
        self.url = url
        self.prefix = prefix
        document = root / "exchanges" / "environments" / f"{ENV}.yaml"
        document.write_text(document.read_text() + f"transport:\n  url: {url}\n")
        self.environment = resolve_environment(Workspace(root), ENV, date_of(SystemClock().now_ns()))

    async def replay(self, *, is_raw: bool, prefix: str = "") -> int:
        async def no_sleep(_: float) -> None:
            return

        player = Replayer(self.world.storage, "test", "kalshi", clock=SystemClock(), sleep=no_sleep)
        wanted = Wanted("test", "kalshi", DATE, KalshiMapper.version)
        return await replay_to_streams(
            self.environment, {}, prefix or self.prefix, player, wanted, is_raw=is_raw, ticker="", speed=0
        )

    async def stored(self, stream: StreamName, count: int) -> list[StreamMessage]:
        transport = await NatsTransport.open(self.url, self.prefix)
        reader = await transport.read(stream)
        found: list[StreamMessage] = []
        while len(found) < count:
            found += await reader.next(5.0)
        await reader.close()
        await transport.close()
        return found


@pytest.fixture
async def stage(make_world: Any, tmp_path: Path, transport_url: str, fresh_env: str) -> Stage:
    shutil.copytree(ROOT / "exchanges", tmp_path / "exchanges")
    world = make_world()
    for connection in ("east", "west", "east"):
        await world.session(count=120, connection=connection)
    await world.complete()
    return Stage(world, tmp_path, transport_url, fresh_env)


async def test_raw_lines_come_as_blocks_in_the_order_of_time(stage: Stage) -> None:
    count = await stage.replay(is_raw=True)
    found: list[RawLine] = []
    for message in await stage.stored("raw", count):
        block = decode_block(message.payload)
        connection = message.subject.rpartition(".")[2]
        found += [RawLine(connection, block.session, entry) for entry in block.entries]
    order = sorted(stage.world.lines, key=lambda line: (line.entry.ts_recv_ns, line.session, line.entry.n))
    assert found == order
    with pytest.raises(Misconfigured, match="holds a replay already"):
        await stage.replay(is_raw=True)


async def test_records_come_in_order_gaps_among_them(stage: Stage) -> None:
    count = await stage.replay(is_raw=False)
    messages = await stage.stored("market", count)
    found = [record for message in messages for record in decode_records(message.payload)]
    assert found == sorted(stage.world.records, key=lambda one: (one.ts_recv_ns, one.session, one.n, one.index))
    assert any(message.subject.startswith(f"{stage.prefix}.md.kalshi.gap.") for message in messages)
    assert {message.subject for message in messages if ".trade." in message.subject} == {
        subjects.market(stage.prefix, "kalshi", "trade", ticker) for ticker in ("A-1", "B.2")
    }


@pytest.mark.parametrize(("prefix", "told"), [(ENV, "is an environment"), ("Bad.Name", "no name of streams")])
async def test_a_live_environments_name_is_refused(stage: Stage, prefix: str, told: str) -> None:
    with pytest.raises(Misconfigured, match=told):
        await stage.replay(is_raw=True, prefix=prefix)
