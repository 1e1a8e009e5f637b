"""Every aggregate of ssmd: the one list that readers of the journal decode with."""

from __future__ import annotations

from typing import Final

from ssmd.domain import (
    archive,
    capture,
    client,
    dead_letter,
    environment,
    feedback,
    key,
    listing,
    projection,
    secmaster_sync,
    trading_day,
)
from ssmd.domain.decider import Catalogue

CATALOGUE = Catalogue(
    [
        environment.DECIDER,
        trading_day.DECIDER,
        capture.DECIDER,
        listing.DECIDER,
        secmaster_sync.DECIDER,
        archive.DECIDER,
        key.DECIDER,
        client.DECIDER,
        dead_letter.DECIDER,
        feedback.DECIDER,
        projection.DECIDER,
    ]
)

RELEASED: Final = frozenset(
    {
        "archive.completed.v1",
        "archive.damaged.v1",
        "archive.held.v1",
        "archive.hold-released.v1",
        "archive.opened.v1",
        "archive.pruned.v1",
        "archive.quality-assessed.v1",
        "archive.renormalized.v1",
        "archive.reopened.v1",
        "archive.repaired.v1",
        "archive.segment-planned.v1",
        "archive.segment-sealed.v1",
        "archive.verified.v1",
        "capture.clock-offset.v1",
        "capture.clock-stepped.v1",
        "capture.connected.v1",
        "capture.day-marked.v1",
        "capture.disconnected.v1",
        "capture.drift-detected.v1",
        "capture.gap-closed.v1",
        "capture.gap-opened.v1",
        "capture.gap-repaired.v1",
        "capture.interval-assessed.v1",
        "capture.subscribed.v1",
        "capture.tail-cut.v1",
        "client.created.v1",
        "client.disconnect-requested.v1",
        "client.mode-set.v1",
        "client.revoked.v1",
        "dead-letter.recorded.v1",
        "environment.applied.v1",
        "environment.torn-down.v1",
        "key.accessed.v1",
        "key.defined.v1",
        "key.deleted.v1",
        "key.expiry-noticed.v1",
        "key.rotated.v1",
        "key.set.v1",
        "key.verified.v1",
        "listing.market-amended.v1",
        "listing.market-changed.v1",
        "listing.market-closed.v1",
        "listing.market-delisted.v1",
        "listing.market-determined.v1",
        "listing.market-listed.v1",
        "listing.market-relisted.v1",
        "listing.market-settled.v1",
        "projection.diverged.v1",
        "projection.rebuilt.v1",
        "projection.rolled-back.v1",
        "projection.swapped.v1",
        "secmaster-sync.completed.v1",
        "secmaster-sync.failed.v1",
        "secmaster-sync.started.v1",
        "trading-day.activated.v1",
        "trading-day.completed.v1",
        "trading-day.end-requested.v1",
        "trading-day.errored.v1",
        "trading-day.failed.v1",
        "trading-day.force-ended.v1",
        "trading-day.late.v1",
        "trading-day.missed.v1",
        "trading-day.opened.v1",
        "trading-day.recovered.v1",
        "trading-day.start-requested.v1",
        "trading-day.step-completed.v1",
    }
)
"""Event types that something emits: their bytes are frozen in tests/journals. All others are drafts (tests/journals/draft)
and may still change; whoever first emits one moves its file and adds its tag here."""
