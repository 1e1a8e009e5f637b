"""What every storage backend promises, run on each."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import secrets
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import pytest

from ssmd.archive.storage import CHUNK_BYTES, ObjectStat, Storage
from ssmd.archive.storage_local import LocalStorage
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.archive.storage_s3 import S3Access, S3Storage
from ssmd.errors import Conflict, Misconfigured, Rejected, Unavailable

MIB = 1 << 20


def access_to(server: Any, url: str = "") -> S3Access:
    """A bucket of its own, below a prefix, on the server or at the url of something between."""
    bucket = f"t-{secrets.token_hex(6)}"
    return S3Access(bucket, server.access_key, server.secret_key, url or server.url, prefix="some/where/")


@pytest.fixture(params=["local", "memory", "s3"])
def unopened(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "s3":
        return S3Storage(access_to(request.getfixturevalue("s3_server")))
    return LocalStorage(tmp_path / "archive") if request.param == "local" else MemoryStorage()


@pytest.fixture
async def storage(unopened: Storage) -> AsyncIterator[Storage]:
    await unopened.put("made", b"")
    await unopened.delete("made")  # the bucket stays
    yield unopened
    await unopened.close()


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


async def test_a_listing_of_many_pages_has_every_key(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in ("local", "s3"):
        monkeypatch.setattr(f"ssmd.archive.storage_{backend}.LIST_KEYS", 5)
    keys = [f"many/{at:02}" for at in range(16)]
    await asyncio.gather(*(storage.put(key, b"") for key in keys))
    assert await keys_of(storage) == keys
    assert await keys_of(storage, "many/0") == keys[:10]


async def test_of_many_racers_one_creates(storage: Storage, tmp_path: Path) -> None:
    paths = [file_of(tmp_path, b"%d" % at) for at in range(8)]
    results = await asyncio.gather(*(storage.put_file("raced", path) for path in paths), return_exceptions=True)
    assert results.count("created") == 1
    assert sum(isinstance(result, Conflict) for result in results) == 7
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


async def test_a_range_is_read_alone(storage: Storage) -> None:
    await storage.put("big", bytes(range(256)) * 10)
    assert await storage.read_range("big", 0, 4) == bytes([0, 1, 2, 3])
    assert await storage.read_range("big", 300, 2) == bytes([44, 45])
    assert await storage.read_range("big", 2558, 100) == bytes([254, 255])
    assert await storage.read_range("none", 0, 4) is None


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


async def test_what_can_be_used_passes_its_check_and_shows_no_trace(storage: Storage) -> None:
    await storage.check()
    await storage.check()
    assert [key for key in await keys_of(storage) if not key.startswith("ssmd-probe/")] == []


class TestLocal:
    async def test_a_directory_that_cannot_be_used_is_misconfigured(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(Misconfigured, match=r"Not a directory|File exists") as found:
            await LocalStorage(tmp_path / "file").check()
        assert "this user can write" in found.value.mend

    async def test_a_full_disk_is_not_a_wrong_setting(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("ssmd.archive.storage_local.os.link", full)
        with pytest.raises(Unavailable, match="No space left"):
            await LocalStorage(tmp_path / "archive").check()
        assert list((tmp_path / "archive").iterdir()) == []

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


class Troubled:
    """Stands between a client and its server, and cuts connections.

    Attributes:
        cuts: of the next connections, how many bytes pass to the server and back before each is cut; then all pass.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.cuts: list[tuple[int, int]] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        there, back = self.cuts.pop(0) if self.cuts else (1 << 60, 1 << 60)
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._port)
        ways = [asyncio.create_task(pump(reader, to_writer, there)), asyncio.create_task(pump(to_reader, writer, back))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for one in (writer, to_writer):
                one.transport.abort()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, allowed: int) -> None:
    while allowed > 0 and (data := await reader.read(min(65_536, allowed))):
        allowed -= len(data)
        writer.write(data)
        await writer.drain()


class TestS3:
    async def test_a_large_file_goes_in_parts_and_is_created_once(self, s3_server: Any, tmp_path: Path) -> None:
        data = secrets.token_bytes(12 * MIB + 5)
        path = file_of(tmp_path, data)
        storage = S3Storage(access_to(s3_server), part_bytes=5 * MIB)
        assert await storage.put_file("big", path) == "created"
        assert await storage.stat("big") == ObjectStat(hashlib.sha256(data).hexdigest(), len(data))
        assert await storage.put_file("big", path) == "identical"
        with pytest.raises(Conflict, match="other content"):
            await storage.put_file("big", file_of(tmp_path, data[:-1] + b"x"))
        assert await storage.stat("big") == ObjectStat(hashlib.sha256(data).hexdigest(), len(data))
        await storage.close()

    async def test_of_many_uploads_in_parts_one_creates(self, s3_server: Any, tmp_path: Path) -> None:
        paths = [file_of(tmp_path, bytes([at]) * (5 * MIB + 1)) for at in range(4)]
        storage = S3Storage(access_to(s3_server), part_bytes=5 * MIB)
        await storage.put("there", b"")
        results = await asyncio.gather(*(storage.put_file("raced", path) for path in paths), return_exceptions=True)
        assert results.count("created") == 1
        assert sum(isinstance(result, Conflict) for result in results) == 3
        assert await storage.get("raced") == bytes([results.index("created")]) * (5 * MIB + 1)
        await storage.close()

    async def test_an_upload_that_is_cut_is_sent_again_or_leaves_nothing(self, s3_server: Any, tmp_path: Path) -> None:
        data = secrets.token_bytes(11 * MIB)
        path = file_of(tmp_path, data)
        async with Troubled(int(s3_server.url.rpartition(":")[2])) as trouble:
            storage = S3Storage(access_to(s3_server, trouble.url), part_bytes=5 * MIB)
            await storage.put("there", b"")
            await storage.close()
            trouble.cuts = [(3 * MIB, 1 << 60), (6 * MIB, 1 << 60), (1 << 60, 10)]
            assert await storage.put_file("cut", path) in {"created", "identical"}
            assert await storage.stat("cut") == ObjectStat(hashlib.sha256(data).hexdigest(), len(data))
            await storage.close()
            trouble.cuts = [(3 * MIB, 1 << 60)] * 40
            with pytest.raises(Unavailable, match="bucket t-"):
                await storage.put_file("never", path)
            trouble.cuts = []
            assert await keys_of(storage) == ["cut", "there"]
            await storage.close()

    async def test_a_download_that_is_cut_goes_on_where_it_was(self, s3_server: Any) -> None:
        data = secrets.token_bytes(6 * MIB)
        async with Troubled(int(s3_server.url.rpartition(":")[2])) as trouble:
            storage = S3Storage(access_to(s3_server, trouble.url))
            await storage.put("big", data)
            await storage.close()
            trouble.cuts = [(1 << 60, 2 * MIB), (1 << 60, MIB)]
            assert await storage.get("big") == data
            assert trouble.connections == 4
            await storage.close()

    async def test_what_came_damaged_is_refused_by_the_server(self, s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        storage = S3Storage(access_to(s3_server))
        await storage.put("x", b"1")
        monkeypatch.setattr("ssmd.archive.storage_s3._digest", lambda _: "A" * 43 + "=")
        with pytest.raises(Unavailable, match="BadDigest"):
            await storage.put("x", b"2")
        assert await storage.get("x") == b"1"
        await storage.close()

    async def test_a_wrong_secret_is_told_without_it(self, s3_server: Any, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        secret = "not-the-secret-1234"
        access = access_to(s3_server)._replace(secret_key=secret)
        storage = S3Storage(access)
        with pytest.raises(Unavailable, match="SignatureDoesNotMatch") as found:
            await storage.put("x", b"1")
        assert "storage.key" in found.value.mend
        told = "".join(traceback.format_exception(found.value)) + caplog.text + repr(access) + str(access)
        assert secret not in told
        await storage.close()

    async def test_nobody_there_is_unavailable_after_a_few_attempts(self) -> None:
        storage = S3Storage(S3Access("nowhere", "a", "b", "http://127.0.0.1:9"), attempts_max=2)
        with pytest.raises(Unavailable, match=r"bucket nowhere at http://127\.0\.0\.1:9"):
            await storage.get("x")
        await storage.close()

    async def test_the_users_own_aws_settings_play_no_part(
        self, s3_server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "config").write_text("[profile other]\nregion = mars-1\nendpoint_url = http://127.0.0.1:9\n")
        for name, value in {
            "AWS_PROFILE": "no-such-profile",
            "AWS_CONFIG_FILE": str(tmp_path / "config"),
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
            "AWS_ACCESS_KEY_ID": "wrong",
            "AWS_CA_BUNDLE": str(tmp_path / "none"),
        }.items():
            monkeypatch.setitem(os.environ, name, value)  # noqa: TID251 - what a user may have set
        storage = S3Storage(access_to(s3_server))
        await storage.put("x", b"1")
        assert await storage.get("x") == b"1"
        await storage.close()

    async def test_check_proves_that_conditions_hold(self, s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        storage = S3Storage(access_to(s3_server))
        await storage.put("made", b"")

        async def overwrites(*_: object) -> bool:
            return True

        monkeypatch.setattr(storage, "_put_if_absent", overwrites)
        with pytest.raises(Misconfigured, match="If-None-Match"):
            await storage.check()
        await storage.close()

    @pytest.mark.parametrize(
        ("change", "told", "mend"),
        [
            ({}, "NoSuchBucket", "make the bucket t-"),
            ({"secret_key": "other"}, "SignatureDoesNotMatch", "storage.key"),
            ({"access_key": "other"}, "InvalidAccessKeyId", "storage.key"),
            ({"url": "localhost:1"}, "Invalid endpoint: localhost:1", "http://HOST:PORT"),
        ],
        ids=["bucket", "secret", "key", "url"],
    )
    async def test_what_is_set_wrong_is_told_by_the_check(
        self, s3_server: Any, change: dict[str, str], told: str, mend: str
    ) -> None:
        storage = S3Storage(access_to(s3_server)._replace(**change))
        with pytest.raises(Misconfigured, match=told) as found:
            await storage.check()
        assert mend in found.value.mend
        await storage.close()

    async def test_a_server_that_is_away_is_no_wrong_setting(self) -> None:
        storage = S3Storage(S3Access("nowhere", "a", "b", "http://127.0.0.1:9"), attempts_max=2)
        with pytest.raises(Unavailable, match="nowhere") as found:
            await storage.check()
        assert "that the server runs" in found.value.mend
        await storage.close()
