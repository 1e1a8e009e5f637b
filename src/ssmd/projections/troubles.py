"""Views `dead-letters` and `feedback`: what is waiting for a person.

letter/{id}   -> DeadLetter      of view dead-letters
item/{id}     -> FeedbackItem    of view feedback
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from ssmd.domain import dead_letter, feedback
from ssmd.projections.projection import Projection, Rows, id_parts, row_key, row_prefix
from ssmd.streams.journal import RecordedEvent

DEAD_LETTERS_NAME: Final = "dead-letters"
FEEDBACK_NAME: Final = "feedback"
_LETTER: Final = "letter"
_ITEM: Final = "item"
LETTERS_PREFIX: Final = row_prefix(_LETTER)
ITEMS_PREFIX: Final = row_prefix(_ITEM)


class DeadLetter(msgspec.Struct, frozen=True):
    """What a component could not process: the message at `message_position` of `source`."""

    id: str
    status: Literal["open", "replayed", "discarded"] = "open"
    component: str = ""
    source: str = ""
    message_position: int = 0
    subject: str = ""
    what: str = ""
    reason: str = ""
    recorded_ns: int = 0
    closed_ns: int = 0
    closed_by: str = ""
    closed_why: str = ""
    position: int = 0


class FeedbackItem(msgspec.Struct, frozen=True):
    """A complaint. `notes`: what was said of it, oldest first."""

    id: str
    status: feedback.Status = "none"
    feed: str = ""
    date: str = ""
    ticker: str = ""
    kind: str = ""
    text: str = ""
    reported_ns: int = 0
    reported_by: str = ""
    severity: str = ""
    assignee: str = ""
    notes: tuple[str, ...] = ()
    closed_ns: int = 0
    position: int = 0


def letter_key(letter_id: str) -> str:
    """Key of a `DeadLetter`."""
    return row_key(_LETTER, letter_id)


def item_key(feedback_id: str) -> str:
    """Key of a `FeedbackItem`."""
    return row_key(_ITEM, feedback_id)


def _fold_letter(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
    (letter_id,) = id_parts(recorded.envelope)
    row = rows.get(letter_key(letter_id), DeadLetter) or DeadLetter(letter_id)
    ts_ns, actor = recorded.envelope.ts_ns, recorded.envelope.actor
    replace = msgspec.structs.replace
    match event:
        case dead_letter.Recorded():
            row = DeadLetter(
                letter_id,
                component=event.component,
                source=event.source,
                message_position=event.position,
                subject=event.subject,
                what=event.what,
                reason=event.reason,
                recorded_ns=ts_ns,
            )
        case dead_letter.Replayed(detail=detail):
            row = replace(row, status="replayed", closed_ns=ts_ns, closed_by=actor, closed_why=detail)
        case dead_letter.Discarded(reason=reason):
            row = replace(row, status="discarded", closed_ns=ts_ns, closed_by=actor, closed_why=reason)
    rows.put(letter_key(letter_id), replace(row, position=recorded.position))


def _fold_feedback(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
    (feedback_id,) = id_parts(recorded.envelope)
    row = rows.get(item_key(feedback_id), FeedbackItem) or FeedbackItem(feedback_id)
    after = _evolve_item(row, event, recorded.envelope.ts_ns, recorded.envelope.actor)
    rows.put(item_key(feedback_id), msgspec.structs.replace(after, position=recorded.position))


def _evolve_item(row: FeedbackItem, event: msgspec.Struct, ts_ns: int, actor: str) -> FeedbackItem:
    replace = msgspec.structs.replace
    match event:
        case feedback.Reported(feed=feed, date=date, ticker=ticker, kind=kind, text=text):
            return FeedbackItem(row.id, "reported", feed, date, ticker, kind, text, ts_ns, actor)
        case feedback.Triaged(severity=severity, assignee=assignee, note=note):
            status: feedback.Status = row.status if row.status == "investigating" else "triaged"
            notes = (*row.notes, note) if note else row.notes
            return replace(row, status=status, severity=severity, assignee=assignee, notes=notes)
        case feedback.Investigating(note=note):
            return replace(row, status="investigating", notes=(*row.notes, note))
        case feedback.Resolved(resolution=resolution):
            return replace(row, status="resolved", notes=(*row.notes, resolution), closed_ns=ts_ns)
        case feedback.Invalidated(reason=reason):
            return replace(row, status="invalidated", notes=(*row.notes, reason), closed_ns=ts_ns)
        case _:
            return row


DEAD_LETTERS: Final = Projection(DEAD_LETTERS_NAME, 1, frozenset({dead_letter.AGGREGATE}), _fold_letter)
FEEDBACK: Final = Projection(FEEDBACK_NAME, 1, frozenset({feedback.AGGREGATE}), _fold_feedback)
