"""The journal in a SQLite file: other processes, crashes, damage, and the library's own reader."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.utils import Environment

from ssmd.domain.envelope import AggregateId, Envelope, encode_envelope
from ssmd.errors import Malformed, Misconfigured, Unavailable
from ssmd.streams.journal import AppendGroup
from ssmd.streams.journal_sqlite import SqliteJournal

DAY = AggregateId("trading-day", ("2026-05-14",))


def group(after: int, count: int = 1, aggregate: AggregateId = DAY) -> AppendGroup:
    events = [
        Envelope(
            f"e{version}", "test.v1", aggregate.aggregate, aggregate.key, version, 7, "", "", "", "", msgspec.Raw(b'{"a":1}')
        )
        for version in range(after + 1, after + 1 + count)
    ]
    return AppendGroup(aggregate, after, events)


async def versions(journal: SqliteJournal) -> list[int]:
    return [one.envelope.version for one in await journal.load(DAY)]


WRITER = """
import asyncio, sys, pathlib
sys.path.insert(0, sys.argv[2])
from test_journal_sqlite import SqliteJournal, group
async def main():
    journal = await SqliteJournal.open(pathlib.Path(sys.argv[1]), "dev")
    version = 0
    while True:
        size = 1 + version % 5
        await journal.append([group(version, size)], command_id=f"c{version}")
        version += size
        print(version, flush=True)
asyncio.run(main())
"""


async def test_a_killed_writer_loses_nothing_acknowledged_and_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    sizes = {0: 1}
    version = 0
    while version < 100_000:
        sizes[version] = version + 1 + version % 5
        version = sizes[version]
    for _ in range(3):
        path.unlink(missing_ok=True)
        argv = [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parent)]
        writer = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        acknowledged = 0
        async with asyncio.timeout(60):
            while acknowledged < 60:
                acknowledged = int(await writer.stdout.readline())
        writer.kill()
        acknowledged = max([acknowledged, *map(int, (await writer.communicate())[0].split(b"\n")[:-1])])
        async with _open(path) as journal:
            held = await versions(journal)
            assert held == list(range(1, len(held) + 1))
            assert len(held) in {acknowledged, sizes[acknowledged]}
            assert await journal.append([group(len(held))], command_id="next") == len(held) + 1


class _open:  # noqa: N801 - reads as a function
    def __init__(self, path: Path) -> None:
        self._path = path

    async def __aenter__(self) -> SqliteJournal:
        self._journal = await SqliteJournal.open(self._path, "dev")
        return self._journal

    async def __aexit__(self, *_: object) -> None:
        await self._journal.close()


async def test_the_library_reads_the_same_events(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    async with _open(path) as journal:
        await journal.append([group(0, 3)], command_id="c1")
        stored = [one.payload for one in await journal.load(DAY)]
    names = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path), "ORIGINATOR_ID_TYPE": "text"}
    factory = InfrastructureFactory.construct(Environment(env=names))
    recorder = factory.application_recorder()
    assert [(one.originator_version, one.topic, one.state) for one in recorder.select_events("trading-day.2026-05-14")] == [
        (version, "test.v1", state) for version, state in enumerate(stored, 1)
    ]
    assert [one.id for one in recorder.select_notifications(None, 10)] == [1, 2, 3]
    factory.close()


async def test_every_commit_is_synced(tmp_path: Path) -> None:
    async with _open(tmp_path / "journal.sqlite") as journal:

        def pragma() -> tuple[int, str]:
            with journal._recorder.datastore.transaction(commit=False) as c:
                c.execute("PRAGMA synchronous")
                level = c.fetchone()[0]
                c.execute("PRAGMA journal_mode")
                return level, c.fetchone()[0]

        assert await journal._run(pragma) == (2, "wal")


async def test_a_cancelled_append_happened_or_never_will(tmp_path: Path) -> None:
    async with _open(tmp_path / "journal.sqlite") as journal:
        for round_ in range(20):
            before = await versions(journal)
            appending = asyncio.create_task(journal.append([group(len(before))], command_id=f"c{round_}"))
            await asyncio.sleep(0)
            appending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await appending
            found = await versions(journal)
            assert len(found) - len(before) in {0, 1}
            assert await versions(journal) == found


async def test_another_process_that_writes_for_long_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssmd.streams.journal_sqlite.LOCK_TIMEOUT_S", 1)
    path = tmp_path / "journal.sqlite"
    async with _open(path) as journal:
        await journal.append([group(0)], command_id="c1")
        with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable, match="locked"):
                await journal.append([group(1)], command_id="c2")
            assert await versions(journal) == [1]
            stranger.execute("ROLLBACK")
        assert await journal.append([group(1)], command_id="c2") == 2


async def test_a_follower_sees_what_another_handle_writes(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    async with _open(path) as one, _open(path) as two, asyncio.timeout(60), aclosing(cast("Any", one.follow())) as following:
        waiting = asyncio.ensure_future(anext(following))
        await two.append([group(0, 2)], command_id="c1")
        assert [message.position for message in await waiting] == [1, 2]


async def test_a_file_that_is_no_database_is_malformed(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(Malformed, match="is damaged: file is not a database") as raised:
        await SqliteJournal.open(path, "dev")
    assert "journal verify" in raised.value.mend


async def test_a_place_that_cannot_be_written_is_misconfigured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured):
        await SqliteJournal.open(tmp_path / "file" / "journal.sqlite", "dev")


async def test_rows_that_were_removed_stop_a_reading(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    async with _open(path) as journal:
        await journal.append([group(0, 5)], command_id="c1")
        assert encode_envelope(group(0).events[0]) == (await journal.load(DAY))[0].payload
        with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
            stranger.execute("DELETE FROM stored_events WHERE rowid=3")
        with pytest.raises(Malformed, match="position 4 holds version 4, expected 3"):
            await journal.load(DAY)
