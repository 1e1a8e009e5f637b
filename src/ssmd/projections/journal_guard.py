"""Whether the journal is still the one that was folded: its end against the last anchors in object storage."""

from __future__ import annotations

from typing import Final

import msgspec

from ssmd.errors import Malformed
from ssmd.identifiers import encode_token
from ssmd.projections.reading import closing
from ssmd.streams.journal import Journal
from ssmd.streams.journal_anchor import Anchor, RollingDigest

_MEND: Final = "ssmd journal verify; restore the journal from its second copy"


class Latest(msgspec.Struct, frozen=True):
    """The last two anchors; `older` may be that of the empty journal, None = none was taken yet."""

    older: Anchor | None = None
    newer: Anchor | None = None


_DECODER: Final = msgspec.json.Decoder(Latest)


def latest_key(env: str) -> str:
    """Key of the object that names the last two anchors of `env`."""
    return f"anchors-latest/{encode_token(env)}.json"


def encode_latest(latest: Latest) -> bytes:
    """The stored bytes."""
    return msgspec.json.encode(latest)


def decode_latest(payload: bytes) -> Latest:
    """The last two anchors in stored bytes.

    Raises:
        Malformed: they are none.
    """
    try:
        return _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"not the last anchors of a journal: {error}") from error


async def check_latest(journal: Journal, env: str, latest: Latest) -> None:
    """Check that the journal reaches the last anchor and that what stands between the last two is what stood there.

    Raises:
        Malformed: it is not; the range of positions that is lost or changed is named.
        Unavailable: the journal is away.
    """
    newer = latest.newer
    if newer is None:
        return
    head = await journal.head()
    if head < newer.position:
        raise Malformed(
            f"the journal of {env} ends at position {head}, an anchor was taken at {newer.position}:"
            f" events {head + 1}..{newer.position} are lost",
            mend=_MEND,
        )
    digest = RollingDigest(env, latest.older)
    first = digest.position + 1
    try:
        async with closing(journal.replay(after=digest.position, until=newer.position)) as batches:
            async for batch in batches:
                for message in batch:
                    digest.add(message)
    except Malformed as error:
        raise Malformed(f"{error.message}; events {first}..{newer.position} of {env} are not all there", mend=_MEND) from error
    if (digest.position, digest.sha256) != (newer.position, newer.sha256):
        raise Malformed(
            f"the journal of {env} is off its anchor at {newer.position}:"
            f" events {first}..{newer.position} are not those that were folded",
            mend=_MEND,
        )
