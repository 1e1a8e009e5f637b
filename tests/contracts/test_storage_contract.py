"""What every storage backend promises, run on each."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from ssmd.archive.storage import CHUNK_BYTES, ObjectStat, Storage
from ssmd.archive.storage_local import LocalStorage
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.errors import Conflict, Rejected, Unavailable


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return LocalStorage(tmp_path / "archive") if request.param == "local" else MemoryStorage()


def file_of(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / f"spool-{hashlib.sha256(data).hexdigest()[:8]}"
    path.write_bytes(data)
    return path


async def keys_of(storage: Storage, prefix: str = "") -> list[str]:
    return [key async for key in storage.list(prefix)]


async def test_a_file_is_created_once(storage: Storage, tmp_path: Path) -> None:
    path = file_of(tmp_path, b"one")
    assert await storage.put_file("a/b%2Fc/x-1.zst", path) == "created"
    assert await storage.put_file("a/b%2Fc/x-1.zst", path) == "identical"
    with pytest.raises(Conflict, match="other content"):
        await storage.put_file("a/b%2Fc/x-1.zst", file_of(tmp_path, b"two"))
    assert await storage.get("a/b%2Fc/x-1.zst") == b"one"
    assert path.read_bytes() == b"one"


async def test_of_many_racers_one_creates(storage: Storage, tmp_path: Path) -> None:
    paths = [file_of(tmp_path, b"%d" % at) for at in range(20)]
    results = await asyncio.gather(*(storage.put_file("raced", path) for path in paths), return_exceptions=True)
    assert results.count("created") == 1
    assert sum(isinstance(result, Conflict) for result in results) == 19
    assert await storage.get("raced") == b"%d" % results.index("created")
    assert await keys_of(storage) == ["raced"]


async def test_put_replaces(storage: Storage) -> None:
    await storage.put("day/manifest.json", b"1")
    await storage.put("day/manifest.json", b"22")
    assert await storage.get("day/manifest.json") == b"22"
    assert await keys_of(storage) == ["day/manifest.json"]


async def test_stat_tells_the_bytes(storage: Storage) -> None:
    assert await storage.stat("none") is None
    await storage.put("some", b"abc")
    assert await storage.stat("some") == ObjectStat(hashlib.sha256(b"abc").hexdigest(), 3)


async def test_what_is_not_there(storage: Storage) -> None:
    assert await storage.get("none") is None
    assert await storage.get("none/below") is None
    await storage.delete("none")
    with pytest.raises(Rejected, match="no object 'none'"):
        _ = [piece async for piece in storage.read("none")]


async def test_an_object_is_read_in_pieces(storage: Storage) -> None:
    data = bytes(range(256)) * 10_000
    await storage.put("big", data)
    pieces = [piece async for piece in storage.read("big")]
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= CHUNK_BYTES


async def test_keys_are_listed_by_prefix_in_order(storage: Storage) -> None:
    for key in ("b/2", "a/1", "b/10", "ba", "b/1/x"):
        await storage.put(key, b"")
    assert await keys_of(storage) == ["a/1", "b/1/x", "b/10", "b/2", "ba"]
    assert await keys_of(storage, "b/") == ["b/1/x", "b/10", "b/2"]
    assert await keys_of(storage, "b/1") == ["b/1/x", "b/10"]
    assert await keys_of(storage, "b") == ["b/1/x", "b/10", "b/2", "ba"]
    assert await keys_of(storage, "c/") == []


async def test_delete(storage: Storage) -> None:
    await storage.put("x/y", b"1")
    await storage.delete("x/y")
    assert await storage.get("x/y") is None
    assert await keys_of(storage) == []


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/etc/passwd",
        "../x",
        "a/../x",
        "a/..",
        "a//b",
        "a/",
        "./a",
        ".hidden",
        "a/.partial-1",
        "a\\b",
        "a\0",
        "ü",
        "a b",
    ],
)
async def test_a_key_outside_the_grammar_is_refused(storage: Storage, key: str, tmp_path: Path) -> None:
    path = file_of(tmp_path, b"x")
    for attempt in (
        storage.put(key, b""),
        storage.get(key),
        storage.put_file(key, path),
        storage.stat(key),
        storage.delete(key),
    ):
        with pytest.raises(Rejected, match="not the key of an object"):
            await attempt


class TestLocal:
    async def test_a_symbolic_link_is_not_followed(self, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret").write_bytes(b"s")
        root = tmp_path / "archive"
        root.mkdir()
        (root / "a").symlink_to(outside)
        (root / "b").symlink_to(outside / "secret")
        storage = LocalStorage(root)
        for key in ("a/secret", "b"):
            with pytest.raises(Rejected, match="symbolic link"):
                await storage.get(key)
            with pytest.raises(Rejected, match="symbolic link"):
                await storage.put(key, b"1")
        assert await keys_of(storage) == []
        assert (outside / "secret").read_bytes() == b"s"

    async def test_a_killed_writer_leaves_nothing_under_a_key(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        storage = LocalStorage(tmp_path / "archive")

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("ssmd.archive.storage_local.os.link", killed)
        with pytest.raises(KeyboardInterrupt):
            storage._create("a/b", file_of(tmp_path, b"x"))
        assert await keys_of(storage) == []
        (tmp_path / "archive" / "a" / ".partial-0123").write_bytes(b"half")
        assert await keys_of(storage) == []
        assert await storage.get("a/b") is None

    async def test_what_the_system_refuses_is_unavailable_with_a_mend(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        storage = LocalStorage(tmp_path / "file")
        with pytest.raises(Unavailable, match="Not a directory") as found:
            await storage.put("a", b"1")
        assert "directory this user can write" in found.value.mend
