"""The storage port on a local directory: one file an object, at its key.

An object is written beside its place under a name that is no key, fsynced, and then linked (create) or renamed
(replace) into place, and the directory fsynced: a kill or a power failure leaves the whole object or none. Such
names are left behind by a kill only, and never listed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from ssmd.archive.storage import CHUNK_BYTES, LIST_KEYS, ObjectStat, PutResult, check_key, hash_file, no_such_object
from ssmd.errors import Conflict, Misconfigured, Rejected, Unavailable

_PARTIAL: Final = ".partial-"
_MAY_PASS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT})

Answer = TypeVar("Answer")


class LocalStorage:
    """Objects under the directory `root`, which is made when the first is written.

    Nothing outside of it is read or written: a symbolic link on the way to an object is refused (`root` itself may be one).
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put_file(self, key: str, path: Path) -> PutResult:
        return await self._run(key, lambda: self._create(key, path))

    async def put(self, key: str, data: bytes) -> None:
        await self._run(key, lambda: self._replace(key, data))

    async def get(self, key: str) -> bytes | None:
        return await self._run(key, lambda: self._get(key))

    async def read(self, key: str) -> AsyncIterator[bytes]:
        source = await self._run(key, lambda: self._open(key))
        if source is None:
            raise no_such_object(key)
        with source:
            while piece := await self._run(key, lambda: source.read(CHUNK_BYTES)):
                yield piece

    async def read_range(self, key: str, start: int, size: int) -> bytes | None:
        return await self._run(key, lambda: self._range(key, start, size))

    async def stat(self, key: str) -> ObjectStat | None:
        return await self._run(key, lambda: self._stat(key))

    async def list(self, prefix: str = "") -> AsyncIterator[str]:
        names = self._names(prefix)
        while batch := await self._run(None, lambda: list(islice(names, LIST_KEYS))):
            for key in batch:
                yield key

    async def delete(self, key: str) -> None:
        await self._run(key, lambda: self._delete(key))

    async def check(self) -> None:
        await asyncio.to_thread(self._check)

    async def close(self) -> None:
        return

    async def _run(self, key: str | None, work: Callable[[], Answer]) -> Answer:
        if key is not None:
            check_key(key)
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise Unavailable(
                f"archive directory {self._root}: {key or 'listing'}: {error.strerror or error}",
                mend=f"make {self._root} a directory this user can write, with room",
            ) from error

    def _check(self) -> None:
        """Do once what `_create` does, under names that are never listed."""
        mend = f"make {self._root} a directory this user can write, on a filesystem with hard links"
        partial = linked = self._root
        try:
            partial = self._partial(self._root / "probe")
            linked = partial.with_suffix(".linked")
            with partial.open("xb") as target:
                _sync(target)
            os.link(partial, linked)
        except OSError as error:
            message = f"archive directory {self._root}: {error.strerror or error}"
            if error.errno in _MAY_PASS:
                raise Unavailable(message, mend="make room") from error
            raise Misconfigured(message, mend=mend) from error
        finally:
            for leftover in {partial, linked} - {self._root}:
                with suppress(OSError):
                    leftover.unlink(missing_ok=True)

    def _place(self, key: str) -> Path:
        path = self._root
        for name in key.split("/"):
            path /= name
            with suppress(FileNotFoundError):
                if stat.S_ISLNK(path.lstat().st_mode):
                    raise Rejected("bad-key", f"{path} is a symbolic link; objects are kept under {self._root} only")
        return path

    def _create(self, key: str, source: Path) -> PutResult:
        place = self._place(key)
        partial = self._partial(place)
        try:
            with source.open("rb") as content, partial.open("xb") as target:
                while piece := content.read(CHUNK_BYTES):
                    target.write(piece)
                _sync(target)
            try:
                os.link(partial, place)
            except FileExistsError:
                if hash_file(place) != hash_file(partial):
                    raise Conflict(f"object {key!r} has other content than {source}") from None
                _sync_directory(place.parent)  # whoever wrote it may have been killed before this
                return "identical"
        finally:
            partial.unlink(missing_ok=True)
        _sync_directory(place.parent)
        return "created"

    def _replace(self, key: str, data: bytes) -> None:
        place = self._place(key)
        partial = self._partial(place)
        try:
            with partial.open("xb") as target:
                target.write(data)
                _sync(target)
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)
        _sync_directory(place.parent)

    def _partial(self, place: Path) -> Path:
        """A fresh name beside `place`, in a directory that is there for good."""
        missing = [directory for directory in place.parents if not directory.exists()]
        place.parent.mkdir(parents=True, exist_ok=True)
        for directory in reversed(missing):
            _sync_directory(directory.parent)
        return place.parent / f"{_PARTIAL}{secrets.token_hex(8)}"

    def _get(self, key: str) -> bytes | None:
        source = self._open(key)
        if source is None:
            return None
        with source:
            return source.read()

    def _range(self, key: str, start: int, size: int) -> bytes | None:
        source = self._open(key)
        if source is None:
            return None
        with source:
            source.seek(start)
            return source.read(size)

    def _open(self, key: str) -> BinaryIO | None:
        place = self._place(key)
        try:
            return place.open("rb") if place.is_file() else None
        except FileNotFoundError:
            return None

    def _stat(self, key: str) -> ObjectStat | None:
        place = self._place(key)
        return hash_file(place) if place.is_file() else None

    def _names(self, prefix: str) -> Iterator[str]:
        """Keys in sorted order."""
        folder, _, _ = prefix.rpartition("/")
        if folder:
            check_key(folder)
            self._place(folder)
        keys = sorted(_walk(self._root / folder, f"{folder}/" if folder else ""))
        return (key for key in keys if key.startswith(prefix))

    def _delete(self, key: str) -> None:
        place = self._place(key)
        place.unlink(missing_ok=True)
        if place.parent.is_dir():
            _sync_directory(place.parent)


def _walk(directory: Path, prefix: str) -> Iterator[str]:
    if not directory.is_dir():
        return
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.is_symlink():
                continue
            if entry.is_dir():
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
            else:
                yield f"{prefix}{entry.name}"


def _sync(target: BinaryIO) -> None:
    target.flush()
    os.fsync(target.fileno())


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
