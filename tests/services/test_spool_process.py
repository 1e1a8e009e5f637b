"""The process beside an archiver: the same files as a thread's, and what is lost with it is lost as a whole."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.services.test_archivers import Feeder, World, seed_day

from ssmd.archive.segment import read_file
from ssmd.archive.segment_files import FinishedFile, Piece, SegmentFiles
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.errors import Unavailable
from ssmd.schemas.blocks import NO_DIGEST, EntryKind, encode_block, survey_block
from ssmd.schemas.codecs import encode_record
from ssmd.schemas.raw_line import LineEncoder
from ssmd.schemas.records import BookDelta, Side, SizeMeaning
from ssmd.services import open_segment, spool_process
from ssmd.services.processes import mark_of
from ssmd.services.spool_process import RemoteFiles, SpoolProcess


@pytest.fixture
async def process() -> AsyncIterator[SpoolProcess]:
    made = SpoolProcess()
    yield made
    await made.close()


def pid_of(process: SpoolProcess) -> int:
    assert process._child is not None
    return process._child.pid


def rounds() -> list[list[Piece]]:
    """Raw lines, JSON and not, and book changes, in three rounds."""
    encoder = LineEncoder("main")
    made: list[list[Piece]] = [[], [], []]
    for at in range(30):
        payloads = [b'{"at":%d,"pad":"%s"}\n' % (at * 50 + i, b"x" * 900) for i in range(50)]
        if at % 10 == 3:
            payloads[7] = b'{"no json\n'
        numbers = range(at * 50 + 1, at * 50 + 51)
        entries = [(EntryKind.IN, 10**18 + n, payload) for n, payload in zip(numbers, payloads, strict=True)]
        block = encode_block(9, numbers[0], entries, NO_DIGEST)
        lines = encoder.gather(block, survey_block(block))
        made[at // 10].append(Piece("raw", lines, 50, 10**18 + numbers[0], 10**18 + numbers[-1]))
        changes = [
            BookDelta("kalshi", f"T-{n % 7}", n, n, 9, n, 0, 1, n, -4, -2, n % 99, n % 13, Side(1 + n % 2), SizeMeaning.CHANGE)
            for n in numbers
        ]
        made[at // 10].append(Piece("book", b"".join(map(encode_record, changes)), 50, numbers[0], numbers[-1]))
    return made


async def write(files: RemoteFiles) -> list[FinishedFile]:
    for pieces in rounds():
        await files.write(pieces)
    return await files.finish()


async def _write_all(files: RemoteFiles, *those: list[Piece]) -> None:
    for pieces in those:
        await files.write(pieces)
    await files.finish()


def write_here(files: SegmentFiles) -> list[FinishedFile]:
    for pieces in rounds():
        files.write(pieces)
    return files.finish()


async def test_the_files_are_those_of_a_thread(process: SpoolProcess, tmp_path: Path) -> None:
    expected, found = write_here(SegmentFiles(tmp_path / "a", 3)), await write(process.open(tmp_path / "b", 3))
    assert [(file.kind, file.facts, file.sidecar, file.no_sidecar) for file in found] == [
        (file.kind, file.facts, file.sidecar, file.no_sidecar) for file in expected
    ]
    assert [file.kind for file in found] == ["book", "raw"]
    for one, other in zip(expected, found, strict=True):
        assert Path(one.path).read_bytes() == Path(other.path).read_bytes()
    lines = b"".join(read_file(tmp_path / "b.raw")).splitlines()
    assert sum(b'"text":' in line for line in lines) == 3
    told = sum(piece.size_bytes for pieces in rounds() for piece in pieces if piece.kind == "raw")
    # Where all is JSON, the size told beforehand is the size.
    as_frame, as_text = b',"newline":true,"frame":{"no json', b',"text":"{\\"no json\\n"'
    assert found[1].facts.content_bytes - told == 3 * (len(as_text) - len(as_frame))


async def test_several_segments_are_written_at_once_and_discarded_alone(process: SpoolProcess, tmp_path: Path) -> None:
    one, other, unused = (process.open(tmp_path / name, 3) for name in ("one", "other", "unused"))
    first, second, third = rounds()
    await one.write(first)
    await other.write(first)
    await one.write(second)
    await other.write(second)
    await one.discard()
    await unused.discard()
    await other.write(third)
    await other.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.book", "other.raw"]
    await other.discard()
    await other.discard()
    assert list(tmp_path.iterdir()) == []


async def test_what_a_lost_process_had_is_lost_and_the_next_one_begins_anew(process: SpoolProcess, tmp_path: Path) -> None:
    first, second, _ = rounds()
    files, begun = process.open(tmp_path / "a", 3), process.open(tmp_path / "b", 3)
    await files.write(first)
    await begun.write(first)
    os.kill(pid_of(process), signal.SIGKILL)
    with pytest.raises(Unavailable, match="the process that writes the spool is gone"):
        await _write_all(files, second)
    other = process.open(tmp_path / "c", 3)
    assert (await write(other))[0].facts.records == 1500  # by a new process
    # The other segment's beginning was lost too; it does not go on without, whether that had been answered or not.
    with pytest.raises((OSError, Unavailable), match=r"is gone|not begun by this process"):
        await begun.finish()
    await files.discard()
    await begun.discard()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.book", "c.raw"]


async def test_a_spool_that_cannot_be_written_is_told_and_ends_nothing(process: SpoolProcess, tmp_path: Path) -> None:
    files = process.open(tmp_path / "absent" / "a", 3)
    with pytest.raises(OSError, match="No such file or directory"):
        await write(files)
    await files.discard()
    before = pid_of(process)
    await write(process.open(tmp_path / "b", 3))
    assert pid_of(process) == before


async def test_a_segment_that_could_not_be_written_does_not_go_on_without_what_failed(
    process: SpoolProcess, tmp_path: Path
) -> None:
    first, second, third = rounds()
    other, files = process.open(tmp_path / "other", 3), process.open(tmp_path / "absent" / "a", 3)
    await other.write(first)
    await files.write(first + second + third)  # fails; that is said in its answer, and to no other segment
    await other.discard()
    (tmp_path / "absent").mkdir()
    with pytest.raises(OSError, match="No such file or directory"):
        await files.write(second)
    with pytest.raises(OSError, match="could not be written before"):
        await files.finish()
    await files.discard()
    assert list((tmp_path / "absent").iterdir()) == []


async def test_a_segment_waits_where_too_much_is_on_its_way(
    process: SpoolProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_process, "ANSWER_S", 0.01)
    monkeypatch.setattr(spool_process, "END_S", 0.01)
    files, (first, *_) = process.open(tmp_path / "a", 3), rounds()
    await files.write(first)
    os.kill(pid_of(process), signal.SIGSTOP)
    try:
        for _ in range(spool_process.ROUNDS_MAX // 2):
            await files.write(first)
        with pytest.raises(Unavailable, match=r"is gone: no answer within 0\.01 s"):
            await _write_all(files, *[first] * (spool_process.ROUNDS_MAX + 1))
    finally:
        await files.discard()
    assert process._child is None  # ended, and none is started to forget what it had
    assert list(tmp_path.iterdir()) == []


def is_behind(process: SpoolProcess) -> bool:
    """Whether it owes answers that it will not give."""
    return process._channel is not None and len(process._channel._owed) >= spool_process.ROUNDS_MAX // 2


class _Few(socket.socket):
    """Gives three bytes at most, as a socket may whose process was stopped and goes on."""

    def recv_into(self, buffer: Any, _size: int = 0, flags: int = 0) -> int:
        return super().recv_into(buffer, min(3, len(buffer)), flags)


def test_a_message_that_comes_in_pieces_is_one_message() -> None:
    ours, theirs = socket.socketpair()
    room = bytearray(4)
    with ours, _Few(fileno=theirs.detach()) as few:
        for text in (b"abcdefgh", b"", b"abc"):
            spool_process._send(ours, text)
        for text in (b"abcdefgh", b"", b"abc"):
            assert bytes(spool_process._receive(few, room) or b"") == text
        ours.sendall(spool_process._LENGTH.pack(8) + b"abc")
        ours.shutdown(socket.SHUT_WR)
        assert spool_process._receive(few, room) is None


async def test_what_lies_in_the_current_directory_is_not_imported(
    process: SpoolProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "struct.py").write_text("raise SystemExit('a strategy of somebody')")
    monkeypatch.chdir(tmp_path)
    assert len(await write(process.open(tmp_path / "a", 3))) == 2


async def test_a_process_that_cannot_be_started_is_told(
    process: SpoolProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = process.open(tmp_path / "a", 3)
    with monkeypatch.context() as without:
        without.setattr(sys, "executable", str(tmp_path / "absent"))
        with pytest.raises(Unavailable, match="cannot be started: No such file"):
            await files.write(rounds()[0])
    assert len(await write(files)) == 2


async def test_it_ends_with_its_archiver_and_not_before(tmp_path: Path) -> None:
    process = SpoolProcess()
    await write(process.open(tmp_path / "a", 3))  # it runs now, and does not only start
    pid = pid_of(process)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    await write(process.open(tmp_path / "b", 3))
    assert pid_of(process) == pid
    assert process._channel is not None
    process._channel.lose("killed")  # the kernel closes the socket of a killed archiver
    ends_at = time.monotonic() + 30
    while mark_of(pid) is not None and time.monotonic() < ends_at:
        await asyncio.sleep(0.01)
    assert mark_of(pid) is None
    await process.close()
    await process.close()


@pytest.mark.parametrize("kind", ["raw", "normalized"])
async def test_an_archiver_whose_process_is_killed_archives_the_same(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def archived(world: World) -> dict[str, bytes | None]:
        return {key: await world.storage.get(key) async for key in world.storage.list(f"{kind}/")}

    def fill(world: World) -> None:
        feeder = Feeder()
        seed_day(world, feeder)
        world.publish(feeder.block([(EntryKind.IN, b'no json "%d"\n' % at) for at in range(400)]))  # longer than told before
        world.publish(feeder.frames(300))

    undisturbed = World(MemoryStorage(), tmp_path / "undisturbed")
    fill(undisturbed)
    await undisturbed.archive(kind)
    for name in ("SPILL_BYTES", "ROUND_BYTES"):
        monkeypatch.setattr(open_segment, name, 1)  # every block by the process
    world = World(MemoryStorage(), tmp_path / "spool")
    fill(world)
    archiver = world.archiver(kind)
    killed: list[int] = []
    monkeypatch.setattr(SpoolProcess, "send", _signalling(killed, signal.SIGKILL, at=20))
    monkeypatch.setattr("ssmd.services.stream_archiver.backoff_s", lambda _n, _random: 0.01)
    running = asyncio.create_task(archiver.run())
    await asyncio.sleep(0)
    await archiver.flush()
    await archiver.stop()
    await running
    assert len(killed) == 1
    assert mark_of(killed[0]) is None
    assert archiver._sealer._process._child is None
    assert await archived(world) == await archived(undisturbed)  # cut at the same places
    assert len(await world.check_seals(kind)) > 1
    assert [path for path in (tmp_path / "spool").rglob("*") if path.is_file()] == []


async def test_an_archiver_that_is_cancelled_does_not_wait_for_a_process_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SPILL_BYTES", "ROUND_BYTES"):
        monkeypatch.setattr(open_segment, name, 1)
    world, stopped = World(MemoryStorage(), tmp_path / "spool"), list[int]()
    seed_day(world, Feeder())
    archiver = world.archiver("raw")
    monkeypatch.setattr(SpoolProcess, "send", _signalling(stopped, signal.SIGSTOP, at=5))
    monkeypatch.setattr(spool_process, "END_S", 0.01)
    running = asyncio.create_task(archiver.run())
    async with asyncio.timeout(60):
        while not is_behind(archiver._sealer._process):
            await asyncio.sleep(0.001)
    running.cancel()
    assert await asyncio.wait([running], timeout=60) == ({running}, set())
    assert mark_of(stopped[0]) is None
    assert [path for path in (tmp_path / "spool").rglob("*") if path.is_file()] == []


def _signalling(told: list[int], number: int, *, at: int) -> Callable[..., object]:
    asked, send = 0, SpoolProcess.send

    def instead(self: SpoolProcess, request: object) -> object:
        nonlocal asked
        asked += 1
        if asked == at:
            told.append(pid_of(self))
            os.kill(told[0], number)
        return send(self, request)  # type: ignore[arg-type]  # what it was given

    return instead
