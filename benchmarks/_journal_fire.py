"""Writers on a journal whose servers are killed, and what became of every event: for the soaks and their short tests."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from ssmd.domain.envelope import AggregateId, Envelope
from ssmd.errors import Unavailable
from ssmd.services.embedded_servers import find_nats_server
from ssmd.services.probes import nats_ready
from ssmd.streams.connection import Connection
from ssmd.streams.journal import AppendGroup, Journal, RecordedEvent
from ssmd.streams.topology import apply, journal_stream

RESUME_S_MAX = 60.0


@dataclass
class Load:
    """Writers, each on aggregates of its own, that repeat a command until it is answered."""

    is_over: bool = False
    count: int = 0
    acknowledged: dict[str, list[str]] = field(default_factory=dict)
    appends: list[list[str]] = field(default_factory=list)
    """Event ids of each append, acknowledged or not."""
    last_ack_s: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By writer, of the last append answered: when it was last sent, and when answered."""

    async def write(self, journal: Journal, name: str) -> None:
        aggregates = [AggregateId("load", (name, "a")), AggregateId("load", (name, "b"))]
        version = 0
        while not self.is_over:
            size = 1 + version % 7
            groups = [_group(one, version, size) for one in aggregates]
            await self._append(journal, groups, f"{name}-{version}", name)
            # One event alone is no batch.
            await self._append(journal, [_group(AggregateId("load", (name, f"s{version}")), 0, 1)], f"{name}-s{version}", name)
            version += size

    async def _append(self, journal: Journal, groups: list[AppendGroup], command_id: str, name: str) -> None:
        self.appends.append([event.id for group in groups for event in group.events])
        loop = asyncio.get_running_loop()
        while True:
            sent_s = loop.time()
            try:
                await journal.append(groups, command_id=command_id)
                break
            except Unavailable:
                await asyncio.sleep(0.01)
        self.last_ack_s[name] = (sent_s, loop.time())
        for group in groups:
            self.acknowledged.setdefault(str(group.aggregate), []).extend(event.id for event in group.events)
            self.count += len(group.events)


def _group(aggregate: AggregateId, after: int, count: int) -> AppendGroup:
    data = msgspec.Raw(msgspec.json.encode("x" * 60))
    events = [
        Envelope(f"{aggregate.key}-{version}", "t.v1", "load", aggregate.key, version, version, "", "", "", "", data)
        for version in range(after + 1, after + 1 + count)
    ]
    return AppendGroup(aggregate, after, events)


async def resumed(load: Load, killed_s: float, writers: int) -> float:
    """Seconds from the kill until every writer has been answered for something sent after it."""
    back: dict[str, float] = {}
    async with asyncio.timeout(RESUME_S_MAX):
        while len(back) < writers:
            for name, (sent_s, answered_s) in load.last_ack_s.items():
                if sent_s > killed_s:
                    back.setdefault(name, answered_s)
            await asyncio.sleep(0.005)
    return max(back.values()) - killed_s


async def audit(journal: Journal, load: Load) -> dict[str, int]:
    """What is stored against what was acknowledged. Versions without a break are checked by `load`ing."""
    stored: dict[str, list[str]] = {}
    async for batch in journal.replay():
        for message in batch:
            assert isinstance(message, RecordedEvent)
            stored.setdefault(f"load/{message.envelope.aggregate_id}", []).append(message.envelope.id)
    ids = {event for events in stored.values() for event in events}
    return {
        "acknowledged": sum(map(len, load.acknowledged.values())),
        "stored": sum(map(len, stored.values())),
        "lost": sum(event not in ids for events in load.acknowledged.values() for event in events),
        "twice": sum(map(len, stored.values())) - len(ids),
        "partial": sum(0 < sum(event in ids for event in append) < len(append) for append in load.appends),
        "out_of_order": sum(stored.get(name, [])[: len(events)] != events for name, events in load.acknowledged.items()),
    }


@dataclass
class Node:
    name: str
    port: int
    monitor_port: int
    config: Path
    child: subprocess.Popen[bytes] | None = None


class Cluster:
    """Three nats-servers on loopback, every write fsynced. Made by `start`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.nodes: list[Node] = []

    @property
    def url(self) -> str:
        return ",".join(f"nats://127.0.0.1:{node.port}" for node in self.nodes)

    async def start(self, env: str) -> None:
        ports = _free_ports(9)
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports[6:])
        for number in range(3):
            name = f"n{number}-{random.randrange(10**9)}"
            directory = self.directory / f"node-{number}"
            directory.mkdir(parents=True)
            config = directory / "nats.conf"
            config.write_text(
                f'server_name: {name}\nlisten: "127.0.0.1:{ports[number]}"\nhttp: "127.0.0.1:{ports[3 + number]}"\n'
                f'jetstream {{ store_dir: "{directory / "js"}", sync_interval: always }}\n'
                f'cluster {{ name: ssmd, listen: "127.0.0.1:{ports[6 + number]}", routes: [{routes}] }}\n'
            )
            self.nodes.append(Node(name, ports[number], ports[3 + number], config))
        for node in self.nodes:
            self.revive(node)
        async with asyncio.timeout(60):
            for node in self.nodes:
                await self.ready(node)
            await self._make_stream(env)

    async def _make_stream(self, env: str) -> None:
        while True:
            try:
                connection = await Connection.open(self.url, name="maker", timeout_s=5)
                try:
                    await apply({"journal": connection}, [journal_stream(env, replicas=3)])
                    return
                finally:
                    await connection.close()
            except Exception:  # noqa: BLE001 - no leader yet; bounded by the caller's deadline
                await asyncio.sleep(0.1)

    def revive(self, node: Node) -> None:
        with (node.config.parent / "server.log").open("ab") as log:
            node.child = subprocess.Popen([str(find_nats_server()), "-c", str(node.config)], stderr=log, stdout=log)

    async def ready(self, node: Node) -> None:
        while not await nats_ready(node.monitor_port, node.name):  # noqa: ASYNC110 - a server says nothing by itself
            await asyncio.sleep(0.05)

    async def leader(self, env: str) -> Node:
        connection = await Connection.open(self.url, name="asker", timeout_s=5)
        try:
            info: dict[str, Any] = await connection.api(f"STREAM.INFO.{env}-journal", timeout_s=5)
        finally:
            await connection.close()
        return next(node for node in self.nodes if node.name == info["cluster"]["leader"])

    def elected_s(self, env: str, killed_at: float) -> float:
        """Seconds from the wall clock time `killed_at` until a server's log says that the journal has a leader again."""
        told = re.compile(rf"^\[\d+\] (\S+ \S+) .*new stream leader for '.* > {re.escape(env)}-journal'", re.MULTILINE)
        logs = [(node.config.parent / "server.log").read_text(encoding="utf-8", errors="replace") for node in self.nodes]
        times = [datetime.strptime(text, "%Y/%m/%d %H:%M:%S.%f").timestamp() for log in logs for text in told.findall(log)]  # noqa: DTZ007 - both are local
        return min(time for time in times if time > killed_at) - killed_at

    def kill(self, node: Node) -> None:
        assert node.child is not None
        node.child.kill()
        node.child.wait(timeout=10)

    def stop(self) -> None:
        for node in self.nodes:
            with suppress(ProcessLookupError):
                self.kill(node)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def machine() -> dict[str, Any]:
    """As `_measurement.machine`, which is not on the path of tests that load this module."""
    from _measurement import machine as of_measurement  # noqa: PLC0415 - as said

    return of_measurement()


def commit(root: Path) -> str:  # noqa: ARG001 - as it was called
    """As `_measurement.commit`."""
    from _measurement import commit as of_measurement  # noqa: PLC0415 - as above

    return of_measurement()
