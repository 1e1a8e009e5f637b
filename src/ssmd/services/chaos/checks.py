"""What must hold after any kills: each promise as one check with what was expected and found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from ssmd.application.handler import Application
from ssmd.archive.storage import Storage
from ssmd.clock import iso_of
from ssmd.domain import archive, capture
from ssmd.domain.capture import CaptureEvent, Connected, Disconnected, GapClosed, GapOpened, TapePlace
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.envelope import AggregateId
from ssmd.exchanges.adapter import Mapper
from ssmd.services.chaos.plan import Strike
from ssmd.services.chaos.reference import Content, segment_keys
from ssmd.services.connector.fact_journal import facts_on_tape
from ssmd.streams.journal import Journal, PoisonEvent
from ssmd.streams.tape_summary import TapeSummary


class Check(msgspec.Struct, frozen=True):
    """One line of the verdict. `detail`: what was looked at when it holds, what is wrong when it does not."""

    name: str
    is_ok: bool
    detail: str


def check_hits(strikes: Sequence[Strike], hits: dict[str, list[str]]) -> Check:
    """Every crash point that was armed has killed its process."""
    missed = [
        f"{strike.target}: {strike.point}"
        for strike in strikes
        if strike.point and hits.get(strike.target, []).count(strike.point) < 1
    ]
    hit = sum(1 for strike in strikes if strike.point) - len(missed)
    return Check(
        "every armed crash point was hit", not missed, f"never reached: {', '.join(missed)}" if missed else f"{hit} hit"
    )


def check_tape(summary: TapeSummary) -> Check:
    """The tape is what was written, each session from its first entry on."""
    broken = [f"{damage.file} byte {damage.offset}: {damage.reason}" for damage in summary.damages]
    broken += [f"session {one.session} begins at entry {one.first_n}" for one in summary.sessions[1:] if one.first_n != 1]
    entries = sum(one.frames + one.commands + one.facts for one in summary.sessions)
    return Check(
        "the tape is whole",
        not broken,
        "; ".join(broken[:3]) if broken else f"{entries:,} entries in {len(summary.sessions)} sessions",
    )


def check_archive(expected: Sequence[Content], found: Sequence[Content]) -> list[Check]:
    """Byte for byte what an undisturbed run makes of the same tape: nothing missing, twice or out of order."""
    wanted = {(one.kind, one.date): one for one in expected}
    there = {(one.kind, one.date): one for one in found}
    checks = []
    for key in sorted(wanted.keys() | there.keys()):
        want, have = wanted.get(key), there.get(key)
        size, have_size = (0 if one is None else one.content_bytes for one in (want, have))
        is_equal = want == have
        detail = (
            f"{size:,} bytes" if is_equal else f"an undisturbed run has {size:,} bytes, here are {have_size:,}, not the same"
        )
        checks.append(Check(f"archive of {key[0]}, {key[1]}", is_equal, detail))
    return checks or [Check("archive", is_ok=False, detail="nothing was archived")]


async def check_seals(journal: Journal, storage: Storage) -> Check:
    """Every stored segment is in exactly one seal, with its bytes; every sealed one is stored."""
    sealed: dict[str, str] = {}
    twice: list[str] = []
    async for batch in journal.replay(filters=[archive.AGGREGATE]):
        for recorded in batch:
            if isinstance(recorded, PoisonEvent):
                return Check("every segment is sealed once", is_ok=False, detail=f"no event at {recorded.position}")
            event = CATALOGUE.decode(recorded.envelope.type, recorded.envelope.data)
            if isinstance(event, archive.SegmentSealed):
                twice += [file.key for file in event.files if file.key in sealed]
                sealed.update({file.key: file.sha256 for file in event.files})
    stored = {key async for key in segment_keys(storage)}
    wrong = [f"{key} is sealed twice" for key in twice]
    wrong += [f"{key} is stored and not sealed" for key in sorted(stored - sealed.keys())]
    wrong += [f"{key} is sealed and not stored" for key in sorted(sealed.keys() - stored)]
    for key in sorted(stored & sealed.keys()):
        stat = await storage.stat(key)
        if stat is None or stat.sha256 != sealed[key]:
            wrong.append(f"{key} is not as its seal says")
    return Check("every segment is sealed once", not wrong, "; ".join(wrong[:3]) if wrong else f"{len(sealed)} segments")


async def journaled_facts(journal: Journal, feed: str, connection: str) -> list[CaptureEvent]:
    """The facts the journal has of a connection, in its order."""
    facts = []
    for recorded in await journal.load(AggregateId(capture.AGGREGATE, (feed, connection))):
        event = CATALOGUE.decode(recorded.envelope.type, recorded.envelope.data)
        if isinstance(event, CaptureEvent):
            facts.append(event)
    return facts


def check_facts(directory: Path, make_mapper: Callable[[int], Mapper], journaled: Sequence[CaptureEvent]) -> Check:
    """The journal has the facts the tape tells: all, once, in order."""
    name = "the journal has every fact of the tape once, in order"
    told = [fact for facts in facts_on_tape(directory, make_mapper, TapePlace()) for fact in facts]
    if list(journaled) == told:
        return Check(name, is_ok=True, detail=f"{len(told)} facts")
    at = next((at for at, (want, have) in enumerate(zip(told, journaled, strict=False)) if want != have), None)
    where = f"the first difference is at number {at}" if at is not None else "one is the beginning of the other"
    return Check(name, is_ok=False, detail=f"the tape tells {len(told)}, the journal has {len(journaled)}; {where}")


def check_gaps(facts: Sequence[CaptureEvent]) -> Check:
    """Between two sessions that had subscriptions lies a gap with start, end, cause and evidence."""
    opened = {fact.gap_id: fact for fact in facts if isinstance(fact, GapOpened)}
    ends: dict[str, int] = {}
    for fact in facts:
        if isinstance(fact, GapClosed):
            ends[fact.gap_id] = max(fact.end_ns, ends.get(fact.gap_id, 0))
    subscribed = {fact.session for fact in facts if isinstance(fact, capture.Subscribed)}
    wrong: list[str] = []
    holes = 0
    left = [fact for fact in facts if isinstance(fact, Disconnected) and fact.session in subscribed]
    last_session = max((fact.session for fact in facts if isinstance(fact, Connected)), default=0)
    for fact in left:
        if fact.session == last_session:
            continue
        holes += 1
        named = [gap for gap in opened.values() if gap.start_ns == fact.last_recv_ns]
        where = f"after session {fact.session} ({fact.cause}, last heard {iso_of(fact.last_recv_ns)})"
        if not named:
            wrong.append(f"no gap {where}")
        elif not all(gap.cause and gap.evidence for gap in named):
            wrong.append(f"a gap without cause or evidence {where}")
        elif not all(ends.get(gap.gap_id, 0) > gap.start_ns for gap in named):
            wrong.append(f"a gap that never ends {where}")
    detail = "; ".join(wrong[:3]) if wrong else f"{holes} holes, all named"
    return Check("every hole on the venue's side is a gap with start, end, cause and evidence", not wrong, detail)


async def state_of_day(application: Application, date: str) -> Check:
    """The trading day came to its end."""
    from ssmd.domain import trading_day  # noqa: PLC0415 - only here

    state = await application.state(trading_day.DECIDER, (date,))
    return Check("the trading day is complete", state.status == "complete", f"{date} is {state.status}")
