"""A journal made again from a backup's files, and the proof that it is the same."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ssmd.application.journal_copy import imported
from ssmd.archive.storage import Storage
from ssmd.errors import Malformed
from ssmd.identifiers import encode_token
from ssmd.projections.journal_guard import Latest, encode_latest, latest_key
from ssmd.services.backup import fold_digests, journal_lines, stored_anchors, stored_objects
from ssmd.services.backup_format import Backup, KeyToSet
from ssmd.streams.journal import Journal
from ssmd.streams.journal_anchor import Anchor, RollingDigest, anchor_key, decode_anchor, encode_anchor

DIFFERENCES_TOLD_MAX = 20


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore came to.

    Attributes:
        workspace: where exchanges/ is; "" = nothing was written (dry run).
        written: of the journal's messages, how many were new to it.
        projections, anchors: how many were compared and are equal.
        differences: each a sentence; none = everything is as when the backup was made.
        objects_missing: archive objects that the backup knows and the storage of the environment lacks.
        keys: to be set again.
    """

    id: str
    env: str
    workspace: str
    messages: int
    written: int = 0
    projections: int = 0
    anchors: int = 0
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    objects: int = 0
    objects_missing: int = 0
    keys: tuple[KeyToSet, ...] = ()

    @property
    def is_equal(self) -> bool:
        return not self.differences


async def restore_journal(backup: Backup, directory: Path, journal: Journal, archive: Storage, workspace: Path) -> Restored:
    """Write the backup in `directory` (`backup.fetch`) into an empty journal, and compare what it is then.

    An interrupted one goes on. Anchors are put into the archive's storage, where they are not there yet.

    Raises:
        Rejected: "journal-not-empty": the journal holds something else; nothing was written.
        Unavailable: no answer; the same command goes on.
    """
    copied = await imported(journal, backup.env, lambda: journal_lines(directory))
    anchors = stored_anchors(directory)
    differences = await _journal_differences(backup, journal, anchors)
    folds = await fold_digests(journal, backup.messages)
    expected = {one.projection: one for one in backup.projections}
    notes = []
    equal = 0
    for fold in folds:
        then = expected.get(fold.projection)
        if then is None or then.version != fold.version:
            was = "did not know it" if then is None else f"folded it at version {then.version}"
            notes.append(f"projection {fold.projection}: not compared, the ssmd that made the backup {was}")
        elif then != fold:
            differences.append(f"projection {fold.projection}: digest {fold.digest}, expected {then.digest}")
        else:
            equal += 1
    differences += await _put_anchors(backup.env, archive, anchors)
    objects = stored_objects(directory)
    missing = await _missing([one.key for one in objects], archive, backup.env)
    return Restored(
        id=backup.id,
        env=backup.env,
        workspace=str(workspace),
        messages=copied.messages,
        written=copied.written,
        projections=equal,
        anchors=len(anchors),
        differences=tuple(differences[:DIFFERENCES_TOLD_MAX]),
        notes=tuple(notes),
        objects=len(objects),
        objects_missing=missing,
        keys=backup.keys,
    )


async def _journal_differences(backup: Backup, journal: Journal, anchors: list[Anchor]) -> list[str]:
    """The journal as it is read back, against the digest and the anchors."""
    digest, at = RollingDigest(backup.env), {one.position: one for one in anchors}
    differences = []
    async for batch in journal.replay(until=backup.messages):
        for message in batch:
            digest.add(message)
            anchor = at.pop(digest.position, None)
            if anchor is not None and anchor.sha256 != digest.sha256:
                differences.append(f"anchor {anchor.position}: digest {digest.sha256}, expected {anchor.sha256}")
    differences += [f"anchor {position}: the journal ends before it" for position in at]
    if (digest.position, digest.sha256) != (backup.messages, backup.journal_sha256):
        found = f"{digest.position} messages, digest {digest.sha256}"
        differences.append(f"journal: {found}, expected {backup.messages}, {backup.journal_sha256}")
    return differences


async def _put_anchors(env: str, archive: Storage, anchors: list[Anchor]) -> list[str]:
    differences = []
    for anchor in anchors:
        key, payload = anchor_key(env, anchor.position), encode_anchor(anchor)
        there = await archive.get(key)
        if there is None:
            await archive.put(key, payload)
        elif not _is_of(there, anchor):
            differences.append(f"{key}: the storage has another anchor than the backup")
    if anchors and await archive.get(latest_key(env)) is None:
        older = anchors[-2] if len(anchors) > 1 else Anchor(0, bytes(32).hex())
        await archive.put(latest_key(env), encode_latest(Latest(older=older, newer=anchors[-1])))
    return differences


def _is_of(payload: bytes, anchor: Anchor) -> bool:
    try:
        return decode_anchor(payload).sha256 == anchor.sha256
    except Malformed:
        return False


async def _missing(keys: list[str], archive: Storage, env: str) -> int:
    """How many of `keys` the archive lacks, by its listing."""
    there: set[str] = set()
    for root in ("raw", "normalized"):
        there.update([key async for key in archive.list(f"{root}/{encode_token(env)}/")])
    return len(set(keys) - there)
