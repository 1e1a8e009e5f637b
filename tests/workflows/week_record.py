"""What a `real_week` came to, in a form that two weeks can be compared in."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from tests.workflows.real_week import RealWeek

from ssmd.archive.keys import parse_segment
from ssmd.archive.segment import read_content
from ssmd.archive.storage import Storage
from ssmd.clock import date_of
from ssmd.schemas.codecs import decode_records, encode_record
from ssmd.services.chaos.reference import segment_keys
from ssmd.streams.journal import RecordedEvent

TELLING: Final = frozenset(
    {"trading-day.errored.v1", "trading-day.recovered.v1", "trading-day.late.v1", "secmaster-sync.failed.v1"}
)
"""Types of events that tell of trouble; what an outage of the venue leaves in the capture's history is looked at by itself."""
CLOSED: Final = "listing.market-closed.v1"
_PLACED: Final = frozenset(
    {"first_seq", "last_seq", "last_message_id", "incarnation", "key", "sha256", "content_sha256", "size_bytes", "sync_id"}
)
"""Fields that name a place on a stream, an object or an attempt, or follow from how frames fell into blocks."""
_GAPS: Final = re.compile(r',"gaps":\d+')
_PORT: Final = re.compile(r"127\.0\.0\.1:\d+")


class Told(NamedTuple):
    """An event: its aggregate's id, its type and what it says but for `_PLACED`; `date` of its tape entry, "" = it has none."""

    id: str
    type: str
    says: str
    date: str


class Shelf(NamedTuple):
    """All that is archived of a kind ("raw": frames and commands, "facts": our own lines between them) and date.

    By session: records, bytes, and a digest in which the order of records does not count, for it follows from the blocks.
    """

    sessions: Mapping[int, tuple[int, int, str]]


class WeekRecord(NamedTuple):
    """`told` by aggregate, in journal order; `archived` by (kind, date)."""

    told: Mapping[str, list[Told]]
    archived: Mapping[tuple[str, str], Shelf]

    def days(self) -> list[tuple[str, str, str]]:
        """The history of the trading days."""
        return [one[:3] for one in self.told["trading-day"]]

    def sessions(self) -> set[int]:
        """Of the capture."""
        return {session for shelf in self.archived.values() for session in shelf.sessions}


async def record_of(week: RealWeek) -> WeekRecord:
    """What is in journal and archive now."""
    told: dict[str, list[Told]] = {}
    async for batch in week.journal.replay():
        for one in batch:
            assert isinstance(one, RecordedEvent)
            envelope = one.envelope
            text = _PORT.sub("VENUE", bytes(envelope.data).decode().replace(week.env, "ENV"))
            data = msgspec.json.decode(text)
            says = msgspec.json.encode(_plain(data)).decode()
            date = date_of(data["ts_recv_ns"]) if "ts_recv_ns" in data else ""
            told.setdefault(envelope.aggregate, []).append(Told(envelope.aggregate_id, envelope.type, says, date))
    return WeekRecord(told, await _archived(week.storage))


def _plain(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _plain(value) for name, value in data.items() if name not in _PLACED}
    return [_plain(one) for one in data] if isinstance(data, list) else data


async def _archived(storage: Storage) -> dict[tuple[str, str], Shelf]:
    found: dict[tuple[str, str], dict[int, list[bytes]]] = {}
    keys = [key async for key in segment_keys(storage)]
    for segment in sorted((parse_segment(key) for key in keys), key=lambda one: one.first_seq):
        content = b"".join(read_content([piece async for piece in storage.read(segment.key)]))
        kind, date = segment.shelf.kind, segment.shelf.date
        if not kind or kind == "raw":
            for line in content.splitlines():
                entry = msgspec.json.decode(line)
                place = "facts" if entry.get("dir") == "ctl" else "raw", date
                plain = _PORT.sub("VENUE", line.decode()).encode()
                found.setdefault(place, {}).setdefault(entry["session"], []).append(plain)
        else:
            for record in decode_records(content):
                found.setdefault((kind, date), {}).setdefault(record.session, []).append(encode_record(record))
    return {
        place: Shelf({session: _summary(place[0], pieces) for session, pieces in shelf.items()})
        for place, shelf in found.items()
    }


def _summary(kind: str, pieces: list[bytes]) -> tuple[int, int, str]:
    ordered = pieces if kind in {"raw", "facts"} else sorted(pieces)
    return len(pieces), sum(map(len, pieces)), hashlib.sha256(b"".join(ordered)).hexdigest()


class Comparison(NamedTuple):
    """How a troubled week differs from a calm one.

    Attributes:
        telling: events of types that tell of trouble: (aggregate's id, type).
        outage: capture events of the outage's date that a calm week does not have, by type.
        gaps: by date, how many more its totals count.
        differing: what should be equal and is not, in words.
        twice: steps of days journaled more than once.
    """

    telling: list[tuple[str, str]]
    outage: dict[str, int]
    gaps: dict[str, int]
    differing: list[str]
    twice: list[tuple[str, str, str]]


def compare(
    calm: WeekRecord, troubled: WeekRecord, outage: str, synced_twice: Collection[str] = (), is_unsynced: bool = False
) -> Comparison:
    """What a troubled week has that a calm one has not.

    Args:
        outage: date with whose beginning the venue went away: the capture has a session more, and what is counted says so.
        synced_twice: dates whose sync found more or less to do: it was done before and not journaled, or came late.
        is_unsynced: a sync came late; a market that was closed and determined before it is told as determined only.
    """
    if is_unsynced:
        calm, troubled = (_without_closings(week) for week in (calm, troubled))
    differing = [*_journals(calm, troubled, outage, synced_twice), *_archives(calm, troubled, outage)]
    counts = [Counter(one.type for one in week.told["capture"] if one.date == outage) for week in (calm, troubled)]
    steps = Counter(one for one in troubled.days() if one[1] == "trading-day.step-completed.v1")
    return Comparison(
        [(one.id, one.type) for events in troubled.told.values() for one in events if one.type in TELLING],
        dict(sorted((counts[1] - counts[0]).items())),
        dict(sorted((_gaps(troubled) - _gaps(calm)).items())),
        differing,
        [one for one, count in steps.items() if count > 1],
    )


def _without_closings(week: WeekRecord) -> WeekRecord:
    listing = [one for one in week.told["listing"] if one.type != CLOSED]
    return week._replace(told={**week.told, "listing": listing})


def _journals(calm: WeekRecord, troubled: WeekRecord, outage: str, synced_twice: Collection[str]) -> list[str]:
    differing: list[str] = []
    for aggregate in sorted(calm.told.keys() | troubled.told.keys()):
        wanted, found = (_comparable(week.told.get(aggregate, []), outage, synced_twice) for week in (calm, troubled))
        for ident in sorted(wanted.keys() | found.keys()):
            want, have = wanted.get(ident, []), found.get(ident, [])
            if want != have:
                at = next((n for n, pair in enumerate(zip(want, have, strict=False)) if pair[0] != pair[1]), None)
                pair = f"{len(want)} and {len(have)} events" if at is None else f"{want[at]} and {have[at]}"
                differing.append(f"{aggregate} {ident}: {pair}")
    order, found_order = ([one[:2] for one in week.days() if one[1] not in TELLING] for week in (calm, troubled))
    if order != found_order:
        differing.append("the days' events came in another order")
    synced, found_synced = (_synced(week) for week in (calm, troubled))
    if synced != found_synced:
        differing.append(f"synced {synced} and {found_synced}")
    return differing


def _comparable(events: list[Told], outage: str, synced_twice: Collection[str]) -> dict[str, list[tuple[str, str]]]:
    """By aggregate's id: what must be equal in both weeks."""
    found: dict[str, list[tuple[str, str]]] = {}
    for one in events:
        is_archived = f".{outage}." in one.id  # by more segments; what is in them is compared
        if one.type in TELLING or one.date == outage or is_archived or one.type.startswith("secmaster-sync."):
            continue
        is_counted = one.id == outage and ("the archive holds" in one.says or one.type == "trading-day.completed.v1")
        is_synced = one.id in synced_twice and "the security master" in one.says
        says = _GAPS.sub("", one.says) if one.type == "trading-day.completed.v1" else one.says
        found.setdefault(one.id, []).append((one.type, "" if is_counted or is_synced else says))
    return found


def _gaps(week: WeekRecord) -> Counter[str]:
    """What the days' totals count."""
    completed = [one for one in week.told["trading-day"] if one.type == "trading-day.completed.v1"]
    return Counter({one.id: msgspec.json.decode(one.says)["totals"]["gaps"] for one in completed})


def _synced(week: WeekRecord) -> Counter[str]:
    """What all syncs changed."""
    found: Counter[str] = Counter()
    for one in week.told["secmaster-sync"]:
        if one.type == "secmaster-sync.completed.v1":
            counts = msgspec.json.decode(one.says)["counts"]
            found.update({name: counts[name] for name in ("listed", "changed", "delisted")})
    return found


def _archives(calm: WeekRecord, troubled: WeekRecord, outage: str) -> list[str]:
    differing: list[str] = []
    extra = troubled.sessions() - calm.sessions()
    for place in sorted(calm.archived.keys() | troubled.archived.keys()):
        if place[1] == outage and place[0] in {"gap", "facts"}:
            continue  # that night's gap begins where the outage's session ended, and both sessions say so
        want, have = (week.archived.get(place, Shelf({})).sessions for week in (calm, troubled))
        have = {session: told for session, told in have.items() if session not in extra}
        if want != have:
            differing.append(f"archive of {place[0]}, {place[1]}: {dict(want)} and {have}")
    return differing
