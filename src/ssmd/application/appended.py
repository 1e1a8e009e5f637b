"""Appends, as logs and traces have them: which events, at which position, for which request."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final

from ssmd.domain.envelope import Envelope
from ssmd.telemetry import tracing
from ssmd.telemetry.structured import structlog

IDS_SHOWN_MAX: Final = 16


def appending(envelopes: Sequence[Envelope]) -> AbstractContextManager[None]:
    """A span around one append."""
    first = envelopes[0]
    return tracing.span("journal append", aggregate=first.aggregate, type=first.type, events=len(envelopes))


def tell(envelopes: Sequence[Envelope], position: int) -> None:
    """Log events that are in the journal now, the last of them at `position`; nothing where no logs are kept."""
    if not structlog.is_configured():
        return
    first = envelopes[0]
    structlog.get_logger("journal").info(
        "appended",
        aggregate=f"{first.aggregate}/{first.aggregate_id}",
        types=list(dict.fromkeys(one.type for one in envelopes))[:IDS_SHOWN_MAX],
        events=len(envelopes),
        event_ids=[one.id for one in envelopes[:IDS_SHOWN_MAX]],
        position=position,
        actor=first.actor,
        correlation_id=first.correlation_id,
        causation_id=first.causation_id,
    )
