"""`ssmd data quality|verify --repair|prune|hold|inventory|gaps|renormalize` on a stopped environment, by exit statuses."""

from __future__ import annotations

import asyncio
import fcntl
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec import structs

from ssmd.application.handler import Application
from ssmd.archive.storage_local import LocalStorage
from ssmd.cli.app import main
from ssmd.domain.catalogue import CATALOGUE
from ssmd.exchanges.adapter import Mapped
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.schemas.blocks import Entry
from ssmd.schemas.records import BookDelta
from ssmd.streams.journal_sqlite import SqliteJournal

ROOT = Path(__file__).parents[2]
ENV, DATE = "kalshi-dev", "2026-05-14"


class Called(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def world(tmp_path: Path, make_world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A workspace with one archived day; it is the current directory."""
    root = tmp_path / "workspace"
    shutil.copytree(ROOT / "exchanges", root / "exchanges")
    document = root / "exchanges" / "environments" / f"{ENV}.yaml"
    document.write_text(document.read_text() + "journal:\n  backend: sqlite\nreplicate:\n  path: replica\n")
    directory = root / ".ssmd" / ENV
    directory.mkdir(parents=True)
    for name in ("SSMD_WORKSPACE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSMD_ENV", ENV)
    monkeypatch.chdir(root)

    async def make() -> Any:
        journal = await SqliteJournal.open(directory / "journal.sqlite", ENV)
        made = make_world(LocalStorage(directory / "archive"), env=ENV, journal=journal)
        for _ in range(2):
            await made.session(count=60)
        await made.complete()
        await journal.close()
        shutil.copytree(directory / "archive", directory / "replica")
        return made

    return asyncio.run(make())


@pytest.fixture
def ssmd(world: Any, capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Called]:
    def call(*arguments: str) -> Called:
        capfdbinary.readouterr()
        status = main(arguments)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return Called(status, out.decode(), err.decode())

    return call


Ssmd = Callable[..., Called]


def test_quality_is_told_printed_and_kept(ssmd: Ssmd, tmp_path: Path) -> None:
    page = tmp_path / "q.html"
    called = ssmd("data", "quality", "--date", DATE, "--html", str(page), "--no-reconcile")
    assert called.status == 0, called.err
    assert "formula" in called.out
    assert "score = (60 coverage + 15 sequence" in called.out
    assert "trade reconciliation" in called.out
    assert "not run: it was not asked for" in called.out
    assert page.read_text().startswith("<!doctype html>")
    report = ssmd("data", "quality", "--date", DATE, "--no-reconcile", "-o", "json").json
    assert {one["name"] for one in report["measures"]} >= {"verified", "sequence proof", "drift", "duplicates", "out of order"}
    day = ssmd("data", "inventory", "--by", "day", "-o", "json").json
    assert [(one["date"], one["quality_ppm"]) for one in day] == [(DATE, report["score_ppm"])]
    journaled = ssmd("journal", "show", "-o", "json").out
    assert journaled.count('"type":"archive.quality-assessed.v1","aggregate"') == 1
    called = ssmd("data", "quality", "--date", "2020-01-01")
    assert (called.status, "nothing of kalshi is archived" in called.err) == (1, True)
    called = ssmd("data", "quality", "--date", DATE, "--html", "/dev/null/place.html", "--no-reconcile")
    assert (called.status, "cannot be written" in called.err) == (2, True)


def test_a_venue_that_is_off_is_not_run_and_no_error(ssmd: Ssmd) -> None:
    report = ssmd("data", "quality", "--date", DATE, "-o", "json")
    assert report.status == 0
    assert not report.json["reconciliation"]["is_run"]
    assert report.json["reconciliation"]["why_not"].startswith("the venue could not be asked:")


def test_repair_by_dry_run_and_in_earnest(ssmd: Ssmd, world: Any) -> None:
    root = world.storage._root
    segment = next((root / "raw").rglob("*.jsonl.zst"))
    sound = segment.read_bytes()
    segment.write_bytes(sound[:-3])
    key = str(segment.relative_to(root))
    dry = ssmd("data", "verify", "--repair", "--dry-run", "-o", "json")
    assert dry.status == 1
    assert [(one["key"], one["source"], one["fit"]) for one in dry.json["repairs"]] == [(key, "replica", "same object")]
    assert segment.read_bytes() == sound[:-3]
    done = ssmd("data", "verify", "--repair")
    assert done.status == 0, done.out
    assert "all is as sealed" in done.out
    assert segment.read_bytes() == sound
    history = ssmd("day", "history", "--date", DATE).out
    assert f"damaged: {key}: truncated" in history
    assert f"repaired: {key} from replica" in history
    assert "verified: " in history
    (root.parent / "replica" / key).unlink()
    segment.unlink()
    nothing = ssmd("data", "verify", "--repair")
    assert nothing.status == 1
    assert "nothing left to repair from" in nothing.out
    assert "there is no tape of main" in nothing.out
    (repair,) = ssmd("data", "verify", "--repair", "-o", "json").json["repairs"]
    assert sorted(repair["tried"]) == ["raw", "replica", "stream", "tape"]
    called = ssmd("data", "verify", "--dry-run")
    assert (called.status, "goes with --repair" in called.err) == (2, True)


def test_prune_and_holds(ssmd: Ssmd, world: Any) -> None:
    root = world.storage._root
    segments = sorted(path for path in root.rglob("*.zst"))
    held = ssmd("data", "hold", "add", "audit", "--from", DATE, "--reason", "asked for", "-o", "json")
    assert (held.status, {one["name"] for one in held.json}) == (0, {"audit"})
    assert ssmd("data", "hold", "list").out.count("asked for") == 2
    kept = ssmd("data", "prune", "--older-than", "1d")
    assert (kept.status, kept.out.count('kept: hold "audit": asked for')) == (0, 2)
    assert ssmd("data", "hold", "remove", "audit").status == 0
    assert ssmd("data", "hold", "remove", "audit").status == 1
    dry = ssmd("data", "prune", "--older-than", "1d", "--dry-run", "-o", "json").json
    assert (dry["is_dry_run"], dry["deleted"]) == (True, len(segments))
    assert sorted(root.rglob("*.zst")) == segments
    done = ssmd("data", "prune", "--older-than", "1d")
    assert (done.status, f"pruned: {len(segments)} segments" in done.err) == (0, True)
    assert list(root.rglob("*.zst")) == []
    assert ssmd("data", "verify").status == 0
    (day,) = ssmd("data", "inventory", "--by", "day", "-o", "json").json
    assert (day["status"], day["pruned_segments"], day["size_bytes"]) == ("pruned", len(segments), 0)
    for arguments, said in (
        (("data", "prune"), "keeps everything for ever"),
        (("data", "prune", "--older-than", "90"), "is no age"),
        (("data", "hold", "add", "x", "--from", DATE, "--to", "2020-01-01", "--reason", "y"), "is before --from"),
    ):
        called = ssmd(*arguments)
        assert (called.status, said in called.err) == (2, True), called


def test_a_day_is_renormalized_by_a_later_mapper(ssmd: Ssmd, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def books(*given: str) -> list[Any]:
        out = ssmd("data", "replay", "--date", DATE, "--kind", "records", "--record-kind", "book", *given).out
        return [json.loads(line) for line in out.splitlines()]

    def told(*given: str) -> tuple[int, Any]:
        called = ssmd("data", "renormalize", "--date", DATE, *given, "-o", "json")
        return called.status, called.json

    before = books()
    assert [one["state"] for one in told()[1]["partitions"]] == ["current"]
    called = ssmd("data", "renormalize", "--date", DATE)
    assert (called.status, "nothing to do" in called.out) == (0, True)

    mapped = KalshiMapper.map

    def later(self: KalshiMapper, entry: Entry) -> Mapped:
        made = mapped(self, entry)
        return Mapped([structs.replace(one, size=7) if isinstance(one, BookDelta) else one for one in made.records], made.facts)

    old, new = KalshiMapper.version, KalshiMapper.version + 1
    monkeypatch.setattr(KalshiMapper, "version", new)
    monkeypatch.setattr(KalshiMapper, "map", later)
    status, dry = told("--dry-run")
    assert (status, dry["is_dry_run"], dry["comparison"]["differing"]) == (1, True, len(before))
    assert [(one["state"], one["mappers"]) for one in dry["partitions"]] == [("due", [old])]
    assert books() == before
    called = ssmd("data", "renormalize", "--date", DATE)
    assert (called.status, f"written as m{new}" in called.out, "mapper 2: " in called.out) == (0, True, True), called.err
    assert {one["size"] for one in books()} == {"0.07"}
    assert books("--mapper", str(old)) == before
    assert ssmd("data", "verify").status == 0
    inventory = ssmd("data", "inventory", "--by", "kind", "-o", "json").json
    assert {(one["mapper"], one["status"]) for one in inventory if one["kind"] == "book"} == {
        (new, "complete"), (0, "superseded"),
    }  # fmt: skip
    assert f"renormalized by mapper {new}" in ssmd("day", "history", "--date", DATE).out
    status, again = told()
    assert (status, again["comparison"]["differing"], [one["state"] for one in again["partitions"]]) == (0, 0, ["current"])
    called = ssmd("data", "sample", "--date", DATE, "--mapper", "9")
    assert (called.status, "no records that mapper 9 made" in called.err) == (1, True)
    called = ssmd("data", "replay", "--date", DATE, "--mapper", "1")
    assert (called.status, "belong to --kind records" in called.err) == (2, True)


def test_one_run_at_a_time_and_what_a_killed_one_left_is_removed(ssmd: Ssmd, world: Any) -> None:
    spool = world.storage._root.parent / "spool"
    for name, arguments in (("renormalize", ("--date", DATE)), ("verify --repair", ())):
        directory = spool / name.rpartition("--")[2]
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "left").write_bytes(b"half")
        if "repair" in name:
            next((world.storage._root / "raw").rglob("*.jsonl.zst")).unlink()
        with directory.with_name(f"{directory.name}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            called = ssmd("data", *name.split(), *arguments)
            assert (called.status, f"another process makes files in {directory}" in called.err) == (2, True)
        assert ssmd("data", *name.split(), *arguments).status == 0
        assert list(directory.iterdir()) == []


def test_an_open_day_is_left_as_it_is(ssmd: Ssmd, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go_on() -> None:
        world.journal = await SqliteJournal.open(world.storage._root.parent / "journal.sqlite", ENV)
        world.application = Application(world.journal, CATALOGUE, world.clock, world.random.randbytes)
        await world.session(count=10)
        await world.manifests()
        await world.journal.close()

    asyncio.run(go_on())
    monkeypatch.setattr(KalshiMapper, "version", KalshiMapper.version + 1)
    called = ssmd("data", "renormalize", "--date", DATE)
    assert (called.status, f"left as it is: its day is open: ssmd day end --date {DATE}" in called.out) == (1, True), called.err


def test_inventory_by_day_and_by_kind(ssmd: Ssmd) -> None:
    called = ssmd("data", "inventory", "--feed", "kalshi")
    head, *_ = called.out.splitlines()
    assert head.split() == ["DATE", "STATUS", "RAW", "LINES", "RECORDS", "SEGMENTS", "BYTES", "QUALITY", "GAPS"]
    assert "PARTITION" in called.out
    assert "PARTITION" not in ssmd("data", "inventory", "--by", "day").out
    lines = ssmd("data", "inventory", "-o", "json").json
    assert lines == ssmd("data", "inventory", "--by", "kind", "-o", "json").json
    (day,) = ssmd("data", "inventory", "--by", "day", "--from", DATE, "--to", DATE, "-o", "json").json
    assert day["size_bytes"] == sum(line["size_bytes"] for line in lines)
    assert day["lines"] == sum(line["records"] for line in lines if line["type"] == "raw")
    assert (day["status"], day["quality_ppm"], day["gaps"]) == ("complete", None, 0)
    assert ssmd("data", "inventory", "--by", "day", "--from", "2026-05-15", "-o", "json").json == []
