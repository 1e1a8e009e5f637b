"""Making a backup, finding and checking one. What is in it: `services.backup_format`."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import zstandard

from ssmd.application.journal_copy import checked, differing_anchors, exported
from ssmd.archive.storage import Storage, hash_file
from ssmd.errors import Malformed, Rejected
from ssmd.identifiers import encode_token
from ssmd.projections.reading import AsOf
from ssmd.projections.rebuild import fold_in_memory
from ssmd.projections.views import PROJECTIONS
from ssmd.services import backup_format
from ssmd.services.backup_format import ArchiveObject, Backup, BackupFile, FoldDigest, KeyToSet
from ssmd.streams.journal import Journal
from ssmd.streams.journal_anchor import Anchor, anchor_prefix, decode_anchor

_SEGMENTS_OF: Final = msgspec.json.Decoder(dict[str, Any])


class Origin(NamedTuple):
    """What a backup is made of, beside the journal and the archive. `bundle`: a file of git's, None = no git."""

    env: str
    registry: Path
    config: str
    git_prefix: str
    bundle: Path | None
    keys: tuple[KeyToSet, ...]
    ssmd: str


async def create(
    origin: Origin, journal: Journal, archive: Storage, target: Storage, directory: Path, created_ns: int
) -> Backup:
    """Make a backup in `target`; until its last object is written there is none.

    Args:
        archive: whose anchors and manifests are read.
        directory: empty, for drafts.

    Raises:
        Malformed: the journal has a hole, or is not what its anchors say: nothing was written.
        Unavailable: journal or storage is away.
    """
    end = await _export(journal, origin.env, directory / backup_format.JOURNAL)
    anchors = [one for one in await anchors_in(archive, origin.env) if one.position <= end.position]
    differing = await asyncio.to_thread(differing_anchors, journal_lines(directory), origin.env, anchors)
    if differing:
        positions = ", ".join(str(one.position) for one in differing[:5])
        raise Malformed(
            f"the journal is not what its anchors at {positions} say; no backup was made", mend="ssmd journal verify"
        )
    if end.position and all(one.position != end.position for one in anchors):
        anchors.append(end.anchor(created_ns))
    objects = [one async for one in archive_objects(archive, origin.env)]
    anchors.sort(key=lambda one: one.position)
    _write_lines(directory / backup_format.ANCHORS, anchors)
    _write_lines(directory / backup_format.OBJECTS, objects)
    await asyncio.to_thread(_pack, origin.registry, directory / backup_format.REGISTRY)
    if origin.bundle is not None:
        origin.bundle.rename(directory / backup_format.BUNDLE)
    files = await asyncio.to_thread(_files, directory)
    backup = Backup(
        format=backup_format.FORMAT,
        id=backup_format.id_of(created_ns, end.position),
        env=origin.env,
        created_ns=created_ns,
        ssmd=origin.ssmd,
        config=origin.config,
        git_prefix=origin.git_prefix,
        messages=end.position,
        journal_sha256=end.sha256,
        projections=await fold_digests(journal, end.position),
        objects=len(objects),
        object_bytes=sum(one.size_bytes for one in objects),
        keys=origin.keys,
        files=tuple(files),
    )
    for file in files:
        await target.put_file(backup.prefix + file.name, directory / file.name)
    manifest = directory / backup_format.MANIFEST
    manifest.write_bytes(backup_format.encode_backup(backup))
    await target.put_file(backup.prefix + backup_format.MANIFEST, manifest)
    return backup


def _files(directory: Path) -> list[BackupFile]:
    return [BackupFile(path.name, *hash_file(path)) for path in sorted(directory.iterdir())]


class _JournalEnd(NamedTuple):
    position: int
    sha256: str

    def anchor(self, ts_ns: int) -> Anchor:
        return Anchor(self.position, self.sha256, ts_ns)


async def _export(journal: Journal, env: str, path: Path) -> _JournalEnd:
    lines = b""
    with path.open("xb") as file, zstandard.ZstdCompressor(level=6).stream_writer(file) as packed:
        async for lines in exported(journal, env):
            packed.write(lines)
    end = msgspec.json.decode(lines, type=dict[str, Any])
    return _JournalEnd(end["messages"], end["sha256"])


def journal_lines(directory: Path) -> Iterable[bytes]:
    """The lines of the journal's file in `directory`. Raises Malformed for one that is no zstd."""
    return _Lines(directory / backup_format.JOURNAL)


class _Lines:
    """May be read again and again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            try:
                yield from io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file))
            except zstandard.ZstdError as error:
                raise Malformed(f"{backup_format.JOURNAL} is not zstd: {error}") from error


async def fold_digests(journal: Journal, until: int) -> tuple[FoldDigest, ...]:
    """Every projection folded from the journal's first `until` messages. Raises Unavailable."""
    store = await fold_in_memory(journal, PROJECTIONS, as_of=AsOf(position=until))
    found = []
    for projection in PROJECTIONS:
        stamp = await store.current(projection.name)
        if stamp is not None:
            found.append(FoldDigest(projection.name, stamp.version, stamp.digest, stamp.rows))
    return tuple(found)


async def anchors_in(archive: Storage, env: str) -> list[Anchor]:
    """The anchors stored of the environment's journal, by position. Raises Malformed for an object that is none."""
    return [decode_anchor(await archive.get(key) or b"") async for key in archive.list(anchor_prefix(env))]


async def archive_objects(archive: Storage, env: str) -> AsyncIterator[ArchiveObject]:
    """The segments that manifests name. Raises Malformed for a manifest that cannot be read."""
    for root in ("raw", "normalized"):
        keys = [key async for key in archive.list(f"{root}/{encode_token(env)}/") if key.endswith("/manifest.json")]
        for key in keys:
            try:
                segments = _SEGMENTS_OF.decode(await archive.get(key) or b"")["segments"]
                for one in segments:
                    yield ArchiveObject(key.removesuffix("manifest.json") + one["name"], one["sha256"], one["byte_size"])
            except (msgspec.DecodeError, KeyError, TypeError) as error:
                raise Malformed(f"{key} is no manifest: {error}", mend="ssmd projection rebuild --all") from error


def _write_lines(path: Path, values: Sequence[object]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(value) + b"\n" for value in values))


def _pack(registry: Path, path: Path) -> None:
    """exchanges/ as a tar that is the same for the same files."""
    with tarfile.open(path, "x", format=tarfile.PAX_FORMAT) as tar:
        for file in sorted(registry.rglob("*")):
            if file.is_file() and not file.is_symlink():
                payload = file.read_bytes()
                member = tarfile.TarInfo(f"exchanges/{file.relative_to(registry).as_posix()}")
                member.size, member.mode = len(payload), 0o644
                tar.addfile(member, io.BytesIO(payload))


async def listed(source: Storage, env: str = "") -> list[Backup]:
    """The backups in `source` (of `env`, or of any environment), the oldest first. Raises Malformed."""
    prefix = f"{backup_format.ROOT}{encode_token(env)}/" if env else backup_format.ROOT
    keys = [key async for key in source.list(prefix) if key.endswith(f"/{backup_format.MANIFEST}")]
    found = [backup_format.decode_backup(await source.get(key) or b"", key) for key in keys]
    return sorted(found, key=lambda one: (one.id, one.env))


async def chosen(source: Storage, where: str, *, env: str = "", identity: str = "") -> Backup:
    """One backup: the one with this id, else the newest.

    Raises:
        Rejected: there is none, or there are some of several environments and none is said.
    """
    found = [one for one in await listed(source, env) if identity in ("", one.id)]
    envs = sorted({one.env for one in found})
    if not found:
        what = f"no backup {identity}" if identity else "no backup"
        raise Rejected("no-such-backup", f"there is {what}{f' of {env}' if env else ''} in {where}", mend="ssmd backup list")
    if len(envs) > 1:
        raise Rejected("which-environment", f"{where} has backups of {', '.join(envs)}", mend=f"--env {envs[0]}")
    return found[-1]


async def fetch(source: Storage, backup: Backup, directory: Path) -> None:
    """Bring a backup's files into `directory`, each checked, then the journal against itself, its anchors and backup.json.

    Raises:
        Malformed: something is missing or damaged; what is named.
    """
    for file in backup.files:
        with (directory / file.name).open("xb") as target:
            try:
                async for piece in source.read(backup.prefix + file.name):
                    target.write(piece)
            except Rejected as error:
                raise Malformed(f"backup {backup.id}: {file.name} is missing", mend="ssmd backup verify") from error
        found = hash_file(directory / file.name)
        if found != (file.sha256, file.size_bytes):
            raise Malformed(
                f"backup {backup.id}: {file.name} has {found.size_bytes} bytes, sha256 {found.sha256},"
                f" expected {file.size_bytes}, {file.sha256}",
                mend="use another backup: ssmd backup list",
            )
    await asyncio.to_thread(_check_journal, backup, directory)


def _check_journal(backup: Backup, directory: Path) -> None:
    end = checked(journal_lines(directory), backup.env)
    if (end.messages, end.sha256) != (backup.messages, backup.journal_sha256):
        raise Malformed(f"backup {backup.id}: the journal is {end}, expected {backup.messages}, {backup.journal_sha256}")
    differing = differing_anchors(journal_lines(directory), backup.env, stored_anchors(directory))
    if differing:
        raise Malformed(f"backup {backup.id}: the journal is not what its anchor at {differing[0].position} says")


def stored_anchors(directory: Path) -> list[Anchor]:
    """The anchors in a backup's files. Raises Malformed."""
    return [decode_anchor(line) for line in (directory / backup_format.ANCHORS).read_bytes().splitlines()]


def stored_objects(directory: Path) -> list[ArchiveObject]:
    """The archive's objects in a backup's files. Raises Malformed."""
    lines = (directory / backup_format.OBJECTS).read_bytes().splitlines()
    try:
        return [msgspec.json.decode(line, type=ArchiveObject) for line in lines]
    except msgspec.DecodeError as error:
        raise Malformed(f"{backup_format.OBJECTS}: {error}") from error


def registry_files(directory: Path) -> dict[str, bytes]:
    """Path (exchanges/...) -> bytes of the registry in a backup's files.

    Raises:
        Malformed: it is no such tar, or holds what is no plain file below exchanges/.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(directory / backup_format.REGISTRY, "r:") as tar:
            for member in tar:
                parts = member.name.split("/")
                source = tar.extractfile(member) if member.isfile() else None
                if source is None or parts[0] != "exchanges" or len(parts) < 2 or {"", ".", ".."} & set(parts):
                    raise Malformed(f"{backup_format.REGISTRY}: {member.name!r} is no plain file below exchanges/")
                found[member.name] = source.read()
    except tarfile.TarError as error:
        raise Malformed(f"{backup_format.REGISTRY} is no tar: {error}") from error
    return found
