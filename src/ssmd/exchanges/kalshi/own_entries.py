"""What a connector writes on its tape about itself, as the mapper takes it: how a session begins and ends, days, repairs."""

from __future__ import annotations

from typing import Final

from ssmd.domain import capture
from ssmd.errors import Malformed
from ssmd.exchanges.kalshi.clock_offset import ClockOffset
from ssmd.exchanges.kalshi.drift import Finding
from ssmd.exchanges.kalshi.frames import DOLLARS, Wire
from ssmd.exchanges.kalshi.holes import Hole, Holes
from ssmd.exchanges.kalshi.intervals import Intervals
from ssmd.exchanges.kalshi.legacy import CENTS
from ssmd.exchanges.kalshi.output import Findings, Output
from ssmd.exchanges.kalshi.repairs import add_repair
from ssmd.exchanges.kalshi.subscriptions import Subscriptions
from ssmd.schemas.control import ClockStepped, Connected, DayMark, Disconnected, MarketsLeft, Repair, TailCut, decode_fact

WIRES: Final = {wire.name: wire for wire in (DOLLARS, CENTS)}


class OwnEntries:
    """Of one session.

    Attributes:
        wire: the era of the venue's frames, as the session's first entry tells it.
    """

    def __init__(
        self,
        session: int,
        subs: Subscriptions,
        holes: Holes,
        intervals: Intervals,
        findings: Findings,
        offset: ClockOffset,
    ) -> None:
        self.wire: Wire = DOLLARS
        self._session = session
        self._subs = subs
        self._holes = holes
        self._intervals = intervals
        self._findings = findings
        self._offset = offset

    def __getstate__(self) -> dict[str, object]:
        return vars(self) | {"wire": self.wire.name}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state | {"wire": WIRES[str(state["wire"])]})

    def take(self, out: Output, payload: bytes) -> None:
        """Take one entry."""
        try:
            fact = decode_fact(payload)
        except Malformed as error:
            self._findings.tell(out, Finding("malformed", "ctl", "", error.message[:200]))
            return
        if isinstance(fact, Connected):
            self._connected(out, fact)
        elif isinstance(fact, Disconnected):
            self._disconnected(out, fact)
        elif isinstance(fact, DayMark):
            self._holes.tell(out)
            out.facts.append(capture.DayMarked(*out.place, fact.date))
            self._intervals.returned(out)
            self._intervals.cut(out)
        elif isinstance(fact, ClockStepped):
            out.facts.append(capture.ClockStepped(*out.place, fact.step_ns))
            self._offset.stepped(out, fact.step_ns)
        elif isinstance(fact, TailCut):
            out.facts.append(capture.TailCut(*out.place, fact.size_bytes))
        elif isinstance(fact, MarketsLeft):
            evidence = "this connection does not capture them any more"
            hole = Hole(fact.gap_id, fact.cause, fact.start_ns, evidence, channel=fact.channel)
            self._holes.left(out, hole, fact.tickers)
        else:
            self._repair(out, fact)

    def _connected(self, out: Output, fact: Connected) -> None:
        before = fact.previous
        session = before.session if before else 0
        out.facts.append(capture.Connected(*out.place, fact.url, fact.wire, fact.instance, fact.epoch, fact.version, session))
        if fact.wire:
            wire = WIRES.get(fact.wire)
            if wire is None:
                detail = f"{fact.wire[:40]!r} is not one of {', '.join(WIRES)}; read as {self.wire.name}"
                self._findings.tell(out, Finding("unknown-value", "connected", "wire", detail))
            else:
                self.wire = wire
        if before is not None:
            gap_id = f"{before.session}-{before.last_n}"
            # A session without any frame proves nothing since it was made.
            start_ns = before.last_recv_ns or before.session
            self._holes.begin_after(Hole(gap_id, before.cause, start_ns, before.evidence))

    def _disconnected(self, out: Output, fact: Disconnected) -> None:
        subs = self._subs
        # Tickers between an unsubscribe and the subscribe after it are wanted, too.
        wanted = subs.wanted | self._holes.pending()
        self._holes.hand_over(out, subs.wanted, subs.whole_channels)
        self._intervals.finish(out, fact.last_recv_ns)
        out.facts.append(capture.Disconnected(*out.place, fact.cause, fact.code, fact.reason, fact.last_recv_ns, fact.evidence))
        if wanted or subs.whole_channels:
            gap_id = f"{self._session}-{out.n}"
            hole = Hole(gap_id, fact.cause, fact.last_recv_ns or self._session, fact.evidence or fact.reason)
            self._holes.open(out, hole, wanted, channels=subs.whole_channels)

    def _repair(self, out: Output, fact: Repair) -> None:
        facts = len(out.facts)
        wrong = add_repair(out, fact)
        if wrong is not None:
            self._findings.tell(out, wrong)
        for told in out.facts[facts:]:
            if isinstance(told, capture.GapRepaired):
                self._intervals.repaired(out, told)
