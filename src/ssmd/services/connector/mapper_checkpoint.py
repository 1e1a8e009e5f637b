"""The mapper's state at the beginning of a tape file, kept beside it: a restart maps from there, not from the session's
first entry, which may be days ago and pruned.

    {tape}/{index:010}.mapper   digest (32 bytes), then the pickled checkpoint before the first block of that file

It is a shortcut and no record: one that is absent, torn or of another version is passed over.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from ssmd.exchanges.adapter import Mapper
from ssmd.streams.publisher import NOWHERE, EntryPlace
from ssmd.streams.tape_cursor import BEGINNING
from ssmd.streams.tape_files import TapePosition, file_of, first_header, indexes

_DIGEST_BYTES: Final = 32


class Checkpoint(NamedTuple):
    """A mapper in the middle of `session`; `previous` is the last entry mapped, `version` the mapper's."""

    session: int
    previous: EntryPlace
    version: int
    mapper: Mapper


class MapStart(NamedTuple):
    """Where to begin reading a tape, and with which mapper (None = with a new session's)."""

    position: TapePosition
    checkpoint: Checkpoint | None = None


def path_of(directory: Path, index: int) -> Path:
    """The checkpoint of the tape file `index`."""
    return file_of(directory, index).with_suffix(".mapper")


def save(directory: Path, index: int, checkpoint: Checkpoint) -> None:
    """Keep the state before the first block of file `index`. Without room for it a restart only takes longer."""
    body = pickle.dumps(checkpoint, protocol=5)
    path = path_of(directory, index)
    fresh = path.with_suffix(".new")
    try:
        fresh.write_bytes(hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() + body)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)


def load(directory: Path, index: int, version: int) -> Checkpoint | None:
    """The checkpoint of file `index`; None = there is none of use to mapper `version`."""
    try:
        data = path_of(directory, index).read_bytes()
    except OSError:
        return None
    digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() != digest:
        return None
    try:
        found = pickle.loads(body)  # noqa: S301 - our own file beside our own tape, whole by its digest
    except Exception:  # noqa: BLE001 - whatever an older class left there, it is passed over
        return None
    return found if isinstance(found, Checkpoint) and found.version == version else None


def start_behind(directory: Path, place: EntryPlace, make_mapper: Callable[[int], Mapper]) -> MapStart:
    """Where to begin so that everything behind `place` is mapped as from its session's first entry.

    That is the newest file that begins at or before `place` and has a checkpoint or begins with a session. A tape whose
    beginning was pruned without either is read from what there is.
    """
    start = MapStart(BEGINNING)
    for index in reversed(indexes(directory)):
        header = first_header(file_of(directory, index))
        if header is None:
            continue
        here = TapePosition(index, 0)
        is_before = place != NOWHERE and EntryPlace(header.session, header.first_n) <= EntryPlace(place.session, place.n + 1)
        if header.first_n == 1:
            start = MapStart(here)
            if is_before:
                return start
            continue
        checkpoint = load(directory, index, make_mapper(header.session).version)
        if checkpoint is not None and checkpoint.session == header.session:
            start = MapStart(here, checkpoint)
            if is_before:
                return start
        else:
            start = MapStart(here)
    return start


def prune(directory: Path, before: int) -> None:
    """Remove the checkpoints of files before index `before`."""
    for path in directory.glob("*.mapper"):
        if path.stem.isdigit() and int(path.stem) < before:
            path.unlink(missing_ok=True)


def prunable_before(directory: Path, done: EntryPlace, make_mapper: Callable[[int], Mapper]) -> TapePosition:
    """The position before which nothing is needed any more, when everything up to `done` is safe elsewhere."""
    return start_behind(directory, done, make_mapper).position if done != NOWHERE else BEGINNING
