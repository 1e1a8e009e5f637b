"""Backup and restore on real servers: an empty directory, the backup alone, the same digests."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.archive.conftest import ArchiveWorld
from tests.cli.conftest import Ssmd, ssmd, workspace  # noqa: F401 - fixtures

from ssmd.archive.storage_local import LocalStorage
from ssmd.domain import trading_day
from ssmd.domain.trading_day import StartDay
from ssmd.errors import Malformed
from ssmd.services.backup import registry_files
from ssmd.services.embedded_servers import start_nats
from ssmd.streams.journal import Journal
from ssmd.streams.journal_anchor import RollingDigest, anchor_key, encode_anchor
from ssmd.streams.journal_nats import NatsJournal
from ssmd.streams.journal_sqlite import SqliteJournal

ENV = "kalshi-dev"


async def fill(journal: Journal, directory: Path, seed: int) -> None:
    """Days, a capture and sealed segments in the journal; anchors and segments in the archive."""
    storage = LocalStorage(directory / "archive")
    world = ArchiveWorld(storage, directory / "spool", seed, env=ENV, journal=journal)
    for day in range(1, 9):
        await world.application.handle(
            trading_day.DECIDER, (f"2026-05-0{day}",), StartDay(f"2026-05-0{day}", "test"), actor="t"
        )
    await world.session(100)
    await world.complete()
    digest = RollingDigest(ENV)
    async for batch in journal.replay():
        for message in batch:
            digest.add(message)
            if message.position % 3 == 0:
                await storage.put(anchor_key(ENV, digest.position), encode_anchor(digest.anchor(world.clock.now_ns())))
    await storage.close()


async def on_server(directory: Path, seed: int = 7) -> None:
    server = await start_nats(directory / "nats-journal", sync_always=True)
    try:
        journal = await NatsJournal.open(server.url, ENV, ensure=True)
        await fill(journal, directory, seed)
        await journal.close()
    finally:
        await server.stop()


async def in_file(directory: Path, seed: int = 7) -> None:
    journal = await SqliteJournal.open(directory / "journal.sqlite", ENV)
    await fill(journal, directory, seed)
    await journal.close()


@pytest.fixture(params=["nats", "sqlite"])
def filled(request: pytest.FixtureRequest, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    monkeypatch.setenv("SSMD_ENV", ENV)
    directory = workspace / ".ssmd" / ENV
    directory.mkdir(parents=True)
    if request.param == "sqlite":
        document = workspace / "exchanges" / "environments" / f"{ENV}.yaml"
        document.write_text(document.read_text() + "\njournal:\n  backend: sqlite\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in (["init", "-q"], ["add", "exchanges"], ["commit", "-q", "-m", "registry"]):
        subprocess.run([*git, *command], cwd=workspace, check=True, capture_output=True)
    asyncio.run(on_server(directory) if request.param == "nats" else in_file(directory))
    return workspace


def answer(called: Any) -> Any:
    assert called.status == 0, called
    return json.loads(called.out)


def test_restore_drill(ssmd: Ssmd, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    place = tmp_path / "elsewhere"
    backup = answer(ssmd("backup", "create", "--to", str(place), "-o", "json"))
    shown = ssmd("journal", "show", "-o", "json").out
    history = ssmd("config", "history", "-o", "json").out
    keeper = tmp_path / "kept"
    filled.rename(keeper)  # the machine is gone
    filled.mkdir()
    assert answer(ssmd("backup", "list", "--from", str(place), "-o", "json")) == [backup]
    monkeypatch.delenv("SSMD_ENV")
    new = tmp_path / "new"
    dry = answer(ssmd("backup", "restore", "--from", str(place), "--into", str(new), "--dry-run", "-o", "json"))
    assert (dry["verdict"], new.exists()) == ("not written", False)
    restored = answer(ssmd("backup", "restore", "--from", str(place), "--into", str(new), "-o", "json"))
    found = restored["restored"]
    assert (restored["verdict"], found["written"], found["differences"]) == ("equal", backup["messages"], [])
    assert found["projections"] == len(backup["projections"]) >= 10
    assert found["anchors"] >= backup["messages"] // 3
    assert found["objects"] == found["objects_missing"] == backup["objects"] >= 6
    # Interrupted after everything was written but before it was told: the same command goes on, with nothing to write.
    assert ssmd("backup", "restore", "--from", str(place), "--into", str(new)).status == 1  # it is not empty
    (new / ".ssmd" / "restoring").write_text(backup["id"])
    again = answer(ssmd("backup", "restore", "--from", str(place), "--into", str(new), "-o", "json"))
    assert (again["verdict"], again["restored"]["written"]) == ("equal", 0)
    # What anybody can see of it is the same too, and may be backed up again with the same digests.
    monkeypatch.setenv("SSMD_WORKSPACE", str(new))
    monkeypatch.setenv("SSMD_ENV", ENV)
    assert ssmd("journal", "show", "-o", "json").out == shown
    assert ssmd("config", "history", "-o", "json").out == history
    assert ssmd("journal", "verify").status == 0
    again = answer(ssmd("backup", "create", "--to", str(place), "-o", "json"))
    same = ("journal_sha256", "messages", "projections", "config")
    assert {name: again[name] for name in same} == {name: backup[name] for name in same}


def test_a_journal_that_holds_anything_else_is_refused(ssmd: Ssmd, filled: Path, tmp_path: Path) -> None:  # noqa: F811
    place = str(tmp_path / "elsewhere")
    assert ssmd("backup", "create", "--to", place).status == 0
    shown = ssmd("journal", "show", "-o", "json").out
    shutil.rmtree(filled / ".ssmd" / ENV)
    other = in_file if "sqlite" in (filled / "exchanges" / "environments" / f"{ENV}.yaml").read_text() else on_server
    asyncio.run(other(filled / ".ssmd" / ENV, seed=8))
    before = ssmd("journal", "show", "-o", "json").out
    called = ssmd("backup", "restore", "--from", place)
    assert called.status == 1
    assert "another message at position 1 than the file; nothing was written" in called.err
    assert ssmd("journal", "show", "-o", "json").out == before != shown
    shutil.rmtree(filled / ".ssmd" / ENV)
    called = ssmd("backup", "restore", "--from", place)
    assert (called.status, "equal: " in called.out) == (0, True), called
    # Once more: nothing to do.
    called = ssmd("backup", "restore", "--from", place)
    assert (called.status, "  0 of " in called.out) == (0, True), called
    assert ssmd("journal", "show", "-o", "json").out == shown
    assert ssmd("backup", "restore", "--from", place, "--into", str(filled)).status == 1


@pytest.mark.parametrize("filled", ["sqlite"], indirect=True)
def test_damage_and_absence_are_told_and_nothing_is_written(ssmd: Ssmd, filled: Path, tmp_path: Path) -> None:  # noqa: F811
    place = tmp_path / "elsewhere"
    backup = answer(ssmd("backup", "create", "--to", str(place), "-o", "json"))
    assert ssmd("backup", "verify", "--from", str(place)).status == 0
    directory = place / "backups" / ENV / backup["id"]
    for name in sorted(path.name for path in directory.iterdir()):
        whole = (directory / name).read_bytes()
        if not whole:
            continue
        middle = len(whole) // 2
        for changed in (whole[:middle], whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]):
            (directory / name).write_bytes(changed)
            called = ssmd("backup", "restore", "--from", str(place), "--into", str(tmp_path / "new"))
            told = called.status == 2 and ("backup" in called.err) and "unforeseen" not in called.err
            # backup.json has parts that nothing depends on (its version of ssmd): those may change.
            assert told or name == "backup.json", (name, called)
            if told:
                assert not (tmp_path / "new").exists()
            else:
                shutil.rmtree(tmp_path / "new", ignore_errors=True)
        (directory / name).write_bytes(whole)
    (directory / "journal.jsonl.zst").unlink()
    called = ssmd("backup", "verify", "--from", str(place))
    assert (called.status, "journal.jsonl.zst is missing" in called.err) == (2, True)
    # Without its last object it is no backup.
    (directory / "backup.json").unlink()
    assert ssmd("backup", "list", "--from", str(place)).out == f"no backup in {place}\n"
    assert ssmd("backup", "restore", "--from", str(place)).status == 1
    called = ssmd("backup", "list", "--from", "s3://bucket/x")
    assert (called.status, "AWS_ACCESS_KEY_ID" in called.err) == (2, True)


@pytest.mark.parametrize("name", ["../evil", "exchanges/../../evil", "/evil", "other/file", "exchanges"])
def test_a_tar_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "registry.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(Malformed, match="no plain file below exchanges"):
        registry_files(tmp_path)


def test_a_link_in_a_tar_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "registry.tar", "w") as tar:
        link = tarfile.TarInfo("exchanges/feeds")
        link.type, link.linkname = tarfile.SYMTYPE, "/"
        tar.addfile(link)
    with pytest.raises(Malformed, match="no plain file below exchanges"):
        registry_files(tmp_path)


@pytest.mark.parametrize("filled", ["nats"], indirect=True)
def test_to_s3_and_back(
    ssmd: Ssmd,  # noqa: F811
    filled: Path,
    tmp_path: Path,
    s3_server: Any,
    monkeypatch: pytest.MonkeyPatch,
    fresh_env: str,
) -> None:
    bucket = fresh_env
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    place = f"s3://{bucket}/some/where"
    answer(ssmd("backup", "create", "--to", place, "-o", "json"))
    monkeypatch.chdir(tmp_path)
    restored = answer(ssmd("backup", "restore", "--from", place, "--into", str(tmp_path / "new"), "-o", "json"))
    assert restored["verdict"] == "equal"
    assert s3_server.secret_key not in json.dumps(restored)
