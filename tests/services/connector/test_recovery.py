"""What a connector does after the worst: lost power, streams that come back older, another connector, a tape grown long."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any, Self

import pytest
from tests.services.connector.test_connector import ENV, QUICK, Bench, bench, is_all_acked, kill, running, until

from ssmd.application.handler import Application
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.clock import ManualClock, SystemClock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Rejected, Unavailable
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.identifiers import system_random
from ssmd.registry.documents import ArchiveSettings
from ssmd.schemas.blocks import EntryKind
from ssmd.schemas.control import Connected, Disconnected, decode_fact
from ssmd.services.chaos.reference import Content, contents, reference
from ssmd.services.connector.service import ConnectorService
from ssmd.services.connector.sessions import next_epoch
from ssmd.services.connector.tape_follower import Names
from ssmd.services.normalized_archiver import NormalizedArchiver
from ssmd.services.raw_archiver import RawArchiver
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.stream_archiver import StreamArchiver
from ssmd.streams.publisher import WINDOW_BYTES, WINDOW_MESSAGES
from ssmd.streams.tape_files import file_of, indexes, read_file
from ssmd.streams.tape_summary import summarize

LIVE = SimulatorConfig(seed=4, markets=3, rate=1000, require_auth=False)
SMALL = ArchiveSettings(segment_bytes=65_536, idle_seconds=0.2, zstd_level=1)


class Archive:
    """Both archivers over a bench's streams."""

    def __init__(self, system: Bench, directory: Path, hold_seconds: float = 5.0) -> None:
        self.storage = MemoryStorage()
        given: dict[str, Any] = {
            "instance": "main",
            "transport": system.transport,
            "storage": self.storage,
            "application": Application(system.journal, CATALOGUE, system.clock, system_random),
            "clock": system.clock,
            "random": system_random,
            "settings": SMALL,
            "hold_seconds": hold_seconds,
        }
        self.archivers: list[StreamArchiver] = [
            RawArchiver(ENV, "kalshi", spool=directory / "raw", **given),
            NormalizedArchiver(ENV, "kalshi", spool=directory / "normalized", **given),
        ]

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(archiver.run()) for archiver in self.archivers]
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        for archiver in self.archivers:
            await archiver.stop()
        await asyncio.gather(*self._tasks)

    def problems(self) -> list[str]:
        return [archiver.health().reason for archiver in self.archivers if not archiver.health().ok]


async def undisturbed(system: Bench, directory: Path, tape: Path | None = None) -> list[Content]:
    return await reference(
        tape or system.directory / "tape",
        Names(ENV, "kalshi", "main"),
        lambda session: KalshiMapper("kalshi", session),
        clock=system.clock,
        random=system_random,
        spool=directory / "reference",
        settings=SMALL,
    )


async def captures(system: Bench, connector: ConnectorService, frames: int, task: asyncio.Task[None]) -> None:
    await until(lambda: int(connector.health().stats["frames"]) > frames and is_all_acked(connector), "frames", task)


async def test_power_lost_the_tape_loses_its_unsynced_tail_and_says_so_and_nothing_is_archived_twice(tmp_path: Path) -> None:
    async with bench(tmp_path, LIVE) as system, Archive(system, tmp_path) as archive:
        first = system.connector()
        task = asyncio.create_task(first.run())
        # However few blocks a busy machine makes of so many frames.
        await until(lambda: len(system.transport.stored("raw")) > 20, "blocks", task)
        await captures(system, first, 300, task)
        await kill(task, first)
        published = system.entries()[-1][:2]
        # The power goes: of the tape's last file only what was synced is left, here all but the last 8 blocks.
        tape = system.directory / "tape"
        blocks = list(read_file(file_of(tape, indexes(tape)[-1]), indexes(tape)[-1]))
        with file_of(tape, indexes(tape)[-1]).open("r+b") as file:
            file.truncate(blocks[-8].position.offset)
        (tape / "boot").write_text("another run of the machine\n")
        kept = blocks[-9].header
        assert published > (kept.session, kept.last_n)

        second = system.connector()
        async with running(second) as again:
            await captures(system, second, 200, again)
        facts = [(session, n, decode_fact(payload)) for session, n, kind, payload in system.entries() if kind == EntryKind.CTL]
        connected = [fact for _, _, fact in facts if isinstance(fact, Connected)]
        assert len(connected) == 2
        previous = connected[1].previous
        assert previous is not None
        assert (previous.session, previous.last_n) == (kept.session, kept.last_n)
        assert "the machine was restarted: what was written after the last fsync is lost" in previous.evidence
        assert previous.last_recv_ns == kept.last_ts_ns
        assert [fact for session, _, fact in facts if session == kept.session and isinstance(fact, Disconnected)] == []
        gaps = [record for record in system.records() if getattr(record, "start_ns", None) == previous.last_recv_ns]
        assert gaps
        for archiver in archive.archivers:
            await archiver.flush()
        assert archive.problems() == []  # what the streams had more than the tape is archived, and what follows goes on
        assert [archiver.health().stats["holes"] for archiver in archive.archivers] == [0, 0]


async def test_streams_replaced_by_an_older_copy_are_filled_again_under_a_running_system(tmp_path: Path) -> None:
    async with bench(tmp_path, LIVE) as system, Archive(system, tmp_path) as archive:
        connector = system.connector()
        async with running(connector) as task:
            await captures(system, connector, 400, task)
            for archiver in archive.archivers:
                await archiver.flush()
            system.transport.is_away = True
            await until(lambda: "transport: " in connector.health().reason, "the streams are away", task)
            system.transport.reset("raw", keep=len(system.transport.stored("raw")) // 3)
            system.transport.reset("market", keep=len(system.transport.stored("market")) // 2)
            system.transport.is_away = False
            await until(lambda: connector.health().stats["refills"] == 1, "the loss is noticed", task)
            await captures(system, connector, 800, task)
        for archiver in archive.archivers:
            await archiver.flush()
        assert await contents(archive.storage) == await undisturbed(system, tmp_path)
        entries = [entry[:2] for entry in system.entries()]
        assert list(dict.fromkeys(entries)) == sorted(set(entries))


async def test_streams_made_anew_behind_a_living_connection_are_noticed_and_filled_again(tmp_path: Path) -> None:
    async with bench(tmp_path, LIVE) as system, Archive(system, tmp_path) as archive:
        connector = system.connector()
        async with running(connector) as task:
            await captures(system, connector, 300, task)
            system.transport.reset("raw")
            system.transport.reset("market")
            await until(lambda: connector.health().stats["refills"] == 1, "the loss is noticed", task)
            await captures(system, connector, 600, task)
        for archiver in archive.archivers:
            await archiver.flush()
        assert await contents(archive.storage) == await undisturbed(system, tmp_path)


async def test_what_retention_took_before_it_was_archived_comes_again_from_the_tape(tmp_path: Path) -> None:
    async with bench(tmp_path, LIVE) as system:
        archive = Archive(system, tmp_path, 0.3)
        connector = system.connector(QUICK._replace(watch_s=0.05))
        async with running(connector) as task:
            async with archive:
                await captures(system, connector, 200, task)
                for archiver in archive.archivers:
                    await archiver.flush()
            await captures(system, connector, 500, task)
            for stream in ("raw", "market"):
                state = await system.transport.state(stream)
                system.transport.truncate(stream, state.last_seq - 2)
            again = Archive(system, tmp_path, 0.3)
            again.storage = archive.storage
            for archiver in again.archivers:
                archiver._sealer._storage = archive.storage
            async with again:
                await until(lambda: int(connector.health().stats["refills"]) >= 1, "the refill was asked for", task)
                await captures(system, connector, 800, task)
                await connector.stop()
                await task
                for archiver in again.archivers:
                    await archiver.flush()
        assert await contents(archive.storage) == await undisturbed(system, tmp_path)


async def test_the_tape_is_pruned_behind_the_archive_and_a_restart_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    async with bench(tmp_path, LIVE) as system, Archive(system, tmp_path) as archive:
        settings = QUICK._replace(file_bytes=30_000, watch_s=0.05)
        first = system.connector(settings)
        task = asyncio.create_task(first.run())
        tape = system.directory / "tape"
        await until(lambda: bool(indexes(tape)) and indexes(tape)[0] > 5, "files are pruned", task)
        frames = int(first.health().stats["frames"])
        await captures(system, first, frames + 200, task)
        await kill(task, first)
        second = system.connector(settings)
        async with running(second) as again:
            await captures(system, second, 300, again)
        for archiver in archive.archivers:
            await archiver.flush()
        assert archive.problems() == []
        # The raw stream has every block of the tape as it was written.
        saved = tmp_path / "saved"
        saved.mkdir()
        file_of(saved, 1).write_bytes(b"".join(message.payload for message in system.transport.stored("raw")))
        summary = summarize(saved)
        assert summary.damages == ()
        assert [one.cause for one in summary.sessions] == ["killed", "stopped"]
        assert await contents(archive.storage) == await undisturbed(system, tmp_path, saved)
        assert summarize(tape).blocks < summary.blocks


async def test_of_two_connectors_the_later_goes_on_and_the_earlier_says_why_it_stops(tmp_path: Path) -> None:
    async with bench(tmp_path, LIVE) as system:
        first = system.connector(QUICK._replace(watch_s=0.05))
        task = asyncio.create_task(first.run())
        await captures(system, first, 50, task)
        elsewhere = Bench(tmp_path / "elsewhere", system.simulator)
        elsewhere.transport, elsewhere.journal = system.transport, system.journal
        second = elsewhere.connector()
        async with running(second) as other:
            async with asyncio.timeout(60):
                with pytest.raises(Rejected, match="another connector took over"):
                    await task
            await captures(elsewhere, second, 50, other)
            assert second.health().ok
        closing = summarize(system.directory / "tape").sessions[-1]
        assert closing.cause == "fenced"


def test_two_that_begin_in_the_same_second_on_two_machines_have_epochs_that_differ(tmp_path: Path) -> None:
    now_ns = SystemClock().now_ns()
    epochs = []
    for number, machine in enumerate((tmp_path / "a", tmp_path / "b")):
        machine.mkdir()
        epochs.append(next_epoch(machine, now_ns + number * 1_000, 100))
    assert epochs[0] < epochs[1] < 1 << 53  # equal ones fence nobody; beyond that JSON numbers are not exact everywhere


def test_epochs_rise_without_the_journal_and_over_clock_steps(tmp_path: Path) -> None:
    clock = ManualClock(1_700_000_000 * 10**9)
    first = next_epoch(tmp_path, clock.now_ns(), 0)
    assert first == 1_700_000_000 * 10**6
    assert next_epoch(tmp_path, clock.now_ns(), 0) == first + 1
    clock.step(5 * 10**9)
    assert next_epoch(tmp_path, clock.now_ns(), 0) == first + 2
    assert next_epoch(tmp_path, clock.now_ns(), first + 100) == first + 101
    (tmp_path / "epoch").write_text("nonsense")
    assert next_epoch(tmp_path, SystemClock().now_ns(), 0) > first + 101
    with pytest.raises(Unavailable, match="cannot write"):
        next_epoch(tmp_path / "nowhere", clock.now_ns(), 0)


async def test_streams_away_under_load_cost_no_more_than_the_window_and_lose_nothing(tmp_path: Path) -> None:
    config = SimulatorConfig(seed=4, markets=5, rate=5000, require_auth=False)
    async with bench(tmp_path, config) as system:
        connector = system.connector()
        async with running(connector) as task:
            await captures(system, connector, 500, task)
            system.transport.is_away = True
            frames = int(connector.health().stats["frames"])
            held: list[int] = []

            def is_over() -> bool:
                publisher = connector._publisher
                held.append(publisher._held_messages)
                assert publisher._held_bytes <= WINDOW_BYTES
                return int(connector.health().stats["frames"]) > frames + 10_000

            await until(is_over, "10,000 frames while the streams are away", task)
            assert max(held) <= WINDOW_MESSAGES + 500  # the last block goes over it
            assert connector.health().stats["unacked"] == 1
            system.transport.is_away = False
            await until(lambda: not connector.health().reason, "the streams are back", task)
        entries = [entry[:2] for entry in system.entries()]
        assert len(summarize(system.directory / "tape").sessions) == 1
        assert entries == [(entries[0][0], n) for n in range(1, len(entries) + 1)]
        assert len(entries) == summarize(system.directory / "tape").sessions[0].last_n
        assert len(entries) > 10_500


async def test_a_full_disk_stops_the_capture_says_so_loses_nothing_recorded_and_resumes_by_itself(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    tape.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(tape)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    # Without the right to mount, the tape's own bound stands for the disk's.
    settings = QUICK._replace(bytes_max=300_000 if mounted.returncode else 1 << 30)
    filler = tape / "filler"
    try:
        if not mounted.returncode:
            filler.write_bytes(bytes(200_000))
        async with bench(tmp_path, LIVE) as system:
            connector = system.connector(settings)
            async with running(connector) as task:
                wanted = "No space left on device" if not mounted.returncode else "has reached its bound"
                await until(lambda: wanted in connector.health().reason, "the disk is full", task)
                frames = int(connector.health().stats["frames"])
                if mounted.returncode:
                    assert connector._tape is not None
                    connector._tape._bytes_max = 1 << 30
                else:
                    filler.unlink()
                await until(lambda: int(connector.health().stats["frames"]) > frames + 50, "captures again", task)
            summary = summarize(tape)
            assert summary.damages == ()
            assert summary.sessions[0].cause == "tape-full"
            for one in summary.sessions:
                numbers = [n for session, n, _, _ in system.entries() if session == one.session]
                assert numbers == list(range(1, one.last_n + 1))
            opened = [fact for fact in await system.facts() if fact == "capture.gap-opened.v1"]
            assert opened
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", "-l", str(tape)], check=True)
