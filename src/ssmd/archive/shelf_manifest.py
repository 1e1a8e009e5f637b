"""What should be on a shelf, read from the manifest that lies there.

`projections.manifest` writes it; read here is what reading needs, and unknown keys are passed over, so that older
programs read newer manifests.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from ssmd.archive.keys import Shelf
from ssmd.archive.storage import Storage
from ssmd.errors import Malformed, Rejected

SCHEMA: Final = "market-v1"
KINDS: Final = ("trade", "book", "snapshot", "quote", "status", "gap")
FORMAT: Final = 1
_REBUILD: Final = "ssmd data verify tells what is there; the projector writes manifests anew from the journal"


class ArchivedSegment(msgspec.Struct, frozen=True, gc=False):
    """One object, as its seal told it. Times are receive times of its first and last entry.

    `made_at`, `superseded_at`, `superseded_by`: as in `projections.manifests.Segment`; see `archive.versions`.
    """

    name: str
    partition: str
    incarnation: str
    first_seq: int
    last_seq: int
    record_count: int
    byte_size: int
    sha256: str
    content_bytes: int
    content_sha256: str
    ts_recv_first_ns: int
    ts_recv_last_ns: int
    made_at: int = 0
    superseded_at: int = 0
    superseded_by: int = 0


class ArchivedGap(msgspec.Struct, frozen=True):
    """A hole that touches the date. `end_ns` None = open; `tickers` empty = all of the channel (of the session)."""

    gap_id: str
    connection: str
    session: int
    cause: str
    evidence: str
    channel: str
    start_ns: int
    end_ns: int | None
    tickers: tuple[str, ...]

    def concerns(self, ticker: str) -> bool:
        return not self.tickers or ticker in self.tickers


class ShelfManifest(msgspec.Struct, frozen=True):
    """A manifest; see `projections.manifest.Manifest` for the meaning of its fields."""

    manifest_version: int
    feed: str
    date: str
    data_type: str
    kind: str
    mapper_version: int | None
    status: str
    record_count: int
    byte_size: int
    gaps: tuple[ArchivedGap, ...]
    partitions: dict[str, str]
    segments: tuple[ArchivedSegment, ...]
    journal_position: int
    mapper_versions: tuple[int, ...] = ()
    renormalized: dict[str, int] = {}


_decoder: Final = msgspec.json.Decoder(ShelfManifest)


def decode_manifest(data: bytes, key: str) -> ShelfManifest:
    """The manifest in `data`.

    Raises:
        Malformed: it is none, or of a later format.
    """
    try:
        manifest = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"{key} is no manifest: {error}", mend=_REBUILD) from error
    if manifest.manifest_version > FORMAT:
        raise Malformed(f"{key} is of format {manifest.manifest_version}, this ssmd reads up to {FORMAT}", mend="upgrade ssmd")
    return manifest


async def read_manifest(storage: Storage, shelf: Shelf) -> ShelfManifest | None:
    """The shelf's manifest; None = the shelf is empty.

    Raises:
        Malformed: there are objects and no manifest, or it cannot be read.
        Unavailable: the storage is away.
    """
    data = await storage.get(shelf.manifest_key)
    if data is not None:
        return decode_manifest(data, shelf.manifest_key)
    async for key in storage.list(shelf.prefix):
        raise Malformed(f"{shelf.prefix} has objects ({key} is one), but no manifest.json says what they are", mend=_REBUILD)
    return None


def raw_shelf(env: str, feed: str, date: str) -> Shelf:
    """Where the raw segments of a date are."""
    return Shelf("raw", env, feed, date)


def record_shelf(env: str, feed: str, date: str, kind: str, mapper: int, schema: str = SCHEMA) -> Shelf:
    """Where the records of one kind and date are that version `mapper` of the mapper made.

    Raises:
        Rejected: "unknown-kind".
    """
    check_kinds([kind])
    return Shelf("normalized", env, feed, date, schema, kind, mapper)


def check_kinds(kinds: Iterable[str]) -> None:
    """Refuse what is no kind of record.

    Raises:
        Rejected: "unknown-kind".
    """
    for kind in kinds:
        if kind not in KINDS:
            raise Rejected("unknown-kind", f'there is no kind of record "{kind}"', mend=f"one of: {', '.join(KINDS)}")
