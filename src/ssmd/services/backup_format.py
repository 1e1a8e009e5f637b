"""What a backup is: objects below one prefix, and `backup.json`, written last, that names each with its SHA-256.

    backups/{env}/{id}/journal.jsonl.zst    every event (`application.journal_copy`)
    backups/{env}/{id}/anchors.jsonl        the journal's anchors up to its end, the end's own among them
    backups/{env}/{id}/registry.tar         exchanges/ as it was, committed or not
    backups/{env}/{id}/registry.bundle      its git history, where it has one
    backups/{env}/{id}/objects.jsonl        archive objects that the manifests name: key, sha256, bytes; not the objects
    backups/{env}/{id}/backup.json          this module's `Backup`; a prefix without one is no backup

Keys are in it by name only. An id is the time (to the millisecond) and the last journal position, so ids sort by age.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from ssmd.clock import iso_of
from ssmd.errors import Malformed
from ssmd.identifiers import encode_token

FORMAT: Final = "ssmd-backup.v1"
ROOT: Final = "backups/"
MANIFEST: Final = "backup.json"
JOURNAL: Final = "journal.jsonl.zst"
ANCHORS: Final = "anchors.jsonl"
REGISTRY: Final = "registry.tar"
BUNDLE: Final = "registry.bundle"
OBJECTS: Final = "objects.jsonl"
FILES: Final = frozenset({JOURNAL, ANCHORS, REGISTRY, BUNDLE, OBJECTS})
_ID: Final = re.compile(r"\d{8}T\d{9}Z-\d{20}")


class BackupFile(msgspec.Struct, frozen=True):
    """One object beside backup.json."""

    name: str
    sha256: str
    size_bytes: int


class FoldDigest(msgspec.Struct, frozen=True):
    """What a projection is at the journal's end. `version` of the fold: digests of different versions do not compare."""

    projection: str
    version: int
    digest: str
    rows: int


class KeyToSet(msgspec.Struct, frozen=True):
    """A key that the environment needs and no backup holds."""

    name: str
    source: str
    fields: tuple[str, ...]


class ArchiveObject(msgspec.Struct, frozen=True):
    """A segment that a manifest names."""

    key: str
    sha256: str
    size_bytes: int


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """backup.json.

    Attributes:
        ssmd: version of the program that made it.
        config: commit of the registry, "" = not under git.
        git_prefix: where in its repository the workspace was, "" or with "/" at its end.
        messages: of the journal; `journal_sha256`: its rolling digest behind the last (`streams.journal_anchor`).
        objects, object_bytes: the archive's, as far as manifests name them.
    """

    format: str
    id: str
    env: str
    created_ns: int
    ssmd: str
    config: str
    git_prefix: str
    messages: int
    journal_sha256: str
    projections: tuple[FoldDigest, ...]
    objects: int
    object_bytes: int
    keys: tuple[KeyToSet, ...]
    files: tuple[BackupFile, ...]

    @property
    def prefix(self) -> str:
        """Where its objects are."""
        return prefix_of(self.env, self.id)


def id_of(created_ns: int, messages: int) -> str:
    """The name of a backup ("20261122T203000123Z-00000000000000000030")."""
    time = iso_of(created_ns)[:23].replace("-", "").replace(":", "").replace(".", "")
    return f"{time}Z-{messages:020}"


def prefix_of(env: str, identity: str) -> str:
    """Where the objects of a backup are."""
    return f"{ROOT}{encode_token(env)}/{identity}/"


def encode_backup(backup: Backup) -> bytes:
    """The bytes of backup.json."""
    return msgspec.json.format(msgspec.json.encode(backup)) + b"\n"


def decode_backup(payload: bytes, key: str) -> Backup:
    """What the object `key` says.

    Raises:
        Malformed: it is no backup.json, or one of another place.
    """
    try:
        backup = msgspec.json.decode(payload, type=Backup)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"{key} is no backup.json: {error}") from error
    if backup.format != FORMAT:
        raise Malformed(f"{key}: format {backup.format!r}, expected {FORMAT!r}", mend="restore it with the ssmd that made it")
    names = [file.name for file in backup.files]
    if not _ID.fullmatch(backup.id) or key != backup.prefix + MANIFEST:
        raise Malformed(f"{key} says that it belongs at {backup.prefix + MANIFEST}")
    if len(set(names)) != len(names) or not set(names) <= FILES or not FILES - {BUNDLE} <= set(names):
        raise Malformed(f"{key} names the files {', '.join(names)}, expected {', '.join(sorted(FILES))}")
    return backup
