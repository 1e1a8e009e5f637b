"""Anchors of a backup, put where the archive lacks them."""

from __future__ import annotations

from ssmd.archive.storage_memory import MemoryStorage
from ssmd.services.restoring import _put_anchors
from ssmd.streams.journal_anchor import Anchor, anchor_key, encode_anchor


async def test_an_anchor_that_is_another_or_none_is_a_difference_and_stays() -> None:
    archive = MemoryStorage()
    anchors = [Anchor(position, f"{position:064x}", 1) for position in (1, 2, 3)]
    other = encode_anchor(Anchor(1, f"{7:064x}", 1))
    await archive.put(anchor_key("dev", 1), other)
    await archive.put(anchor_key("dev", 2), b"torn")
    assert await _put_anchors("dev", archive, anchors) == [
        f"{anchor_key('dev', at)}: the storage has another anchor than the backup" for at in (1, 2)
    ]
    stored = [await archive.get(anchor_key("dev", at)) for at in (1, 2, 3)]
    assert stored == [other, b"torn", encode_anchor(anchors[2])]
