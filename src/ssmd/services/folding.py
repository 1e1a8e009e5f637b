"""What the projector folds, as logs and traces have it: one line and one span a commit, never one an event."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from ssmd.projections.reading import Batch
from ssmd.streams.journal import RecordedEvent
from ssmd.telemetry import request, tracing
from ssmd.telemetry.structured import structlog

IDS_SHOWN_MAX: Final = 16


@contextmanager
def folding(batch: Batch) -> Generator[None]:
    """The commit of a batch. Where one request led to all of it, it belongs to that request; else it names the first few."""
    envelopes = [one.envelope for one in batch if isinstance(one, RecordedEvent)]
    asked = list(dict.fromkeys(one.correlation_id for one in envelopes))[:IDS_SHOWN_MAX]
    caused = {one.causation_id for one in envelopes}
    first, last = batch[0].position, batch[-1].position
    alone = asked[0] if len(asked) == 1 else ""
    with (
        request.begun(alone, causation_id=caused.pop() if len(caused) == 1 else ""),
        tracing.span("projection batch", first=first, last=last, events=len(batch), correlation_ids=tuple(asked)),
    ):
        yield
        if not structlog.is_configured():
            return
        structlog.get_logger("projector").info(
            "folded",
            events=len(batch),
            first=first,
            position=last,
            event_ids=[one.id for one in envelopes[:IDS_SHOWN_MAX]],
            **({} if alone else {"correlation_ids": asked}),
        )
