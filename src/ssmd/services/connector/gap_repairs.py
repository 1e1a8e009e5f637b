"""Gaps that are over, waiting to be repaired: a task of their own, one gap after another, never in the capture's way.

What waits is kept beside the tape, so that a kill forgets none:

    {tape}/repairs.json   the gaps that wait, as a list of `GapToRepair`

That is the first line. The second asks from outside (`ask`, control verb `repair`), for gaps of which the journal knows no
repair: the list was lost, or given up.

It is an intention and no record. Whether a gap was repaired, and with which trades, the tape itself tells; asking again
after a kill writes nothing twice (`Repairer`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from ssmd.clock import iso_of
from ssmd.domain.capture import CaptureEvent, GapClosed, GapOpened
from ssmd.errors import Rejected, SsmdError, Unavailable
from ssmd.exchanges.adapter import GapToRepair, Subscription
from ssmd.identifiers import RandomBytes
from ssmd.schemas.control import Repair
from ssmd.schemas.records import WHOLE_CHANNEL
from ssmd.services.connector.conversation import Conversation
from ssmd.services.connector.repair_request import RepairRequest, Result
from ssmd.services.connector.venue import Repairer
from ssmd.streams.backoff import backoff_s
from ssmd.streams.tape_files import file_of, first_header, indexes

SETTLE_S: Final = 4.0
"""A gap is repaired so long after it closed for the last ticker so far: by then all frames of its time are on the tape."""
WAITING_MAX: Final = 256
OPENED_MAX: Final = 4_096
"""Opened gaps whose channel is remembered."""
TRIES_MAX: Final = 6
RETRY_FIRST_S: Final = 5.0
RETRY_MAX_S: Final = 120.0
SLICE: Final = 100
"""Entries written without letting the socket have its turn."""
BOOK: Final = "orderbook_delta"
TRADE: Final = "trade"


class _Waiting(NamedTuple):
    gap: GapToRepair
    due_s: float
    tries: int = 0


class GapRepairs:
    """See the module. `offer` from the follower, `run` as a task.

    Args:
        repairer: None = of this venue nothing can be had again.
        talk: the connection that is open now, None = none is.
        settle_s: None = SETTLE_S.

    Attributes:
        repaired, given_up: gaps so far.
    """

    def __init__(
        self,
        directory: Path,
        repairer: Repairer | None,
        talk: Callable[[], Conversation | None],
        random: RandomBytes,
        log: Any,
        settle_s: float | None = None,
    ) -> None:
        self.repaired = 0
        self.given_up = 0
        self._directory = directory
        self._path = directory / "repairs.json"
        self._repairer = repairer
        self._talk = talk
        self._random = random
        self._log = log
        self._settle_s = SETTLE_S if settle_s is None else settle_s
        self._subscription = Subscription((), ())
        self._channels: OrderedDict[str, str] = OrderedDict()
        self._waiting: dict[str, _Waiting] = {}
        self._running: GapToRepair | None = None
        self._offered = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Gaps that are still to be repaired."""
        return len(self._waiting) + (self._running is not None)

    def stats(self) -> dict[str, int | str]:
        """For `Health.stats`."""
        return {"repairs_waiting": self.waiting, "repaired": self.repaired, "repairs_given_up": self.given_up}

    def captures(self, subscription: Subscription) -> None:
        """What is captured now: of other channels nothing was missed."""
        self._subscription = subscription

    def offer(self, facts: Iterable[CaptureEvent]) -> None:
        """Take facts, in tape order; never waits."""
        if self._repairer is None:
            return
        is_new = False
        for fact in facts:
            if isinstance(fact, GapOpened):
                self._channels[fact.gap_id] = fact.channel
                if len(self._channels) > OPENED_MAX:
                    self._channels.popitem(last=False)
            elif isinstance(fact, GapClosed) and (gap := self._gap_of(fact)) is not None:
                self._add(gap)
                is_new = True
        if is_new:
            self._keep()
            self._offered.set()

    def _gap_of(self, fact: GapClosed) -> GapToRepair | None:
        """What of the gap can be had again; None = nothing can."""
        # A gap whose opening is not known any more is taken for one of all channels: too much is asked, nothing is lost.
        channel = self._channels.get(fact.gap_id, "")
        return self._repairable(GapToRepair(fact.gap_id, fact.start_ns, fact.end_ns, channel, fact.tickers))

    def _repairable(self, gap: GapToRepair) -> GapToRepair | None:
        """What of `gap`, as it was told, can be had again; None = nothing can."""
        captured, channel = self._subscription.channels, gap.channel
        if not channel and TRADE not in captured:
            channel = BOOK
        if channel not in {"", BOOK, TRADE} or (channel and channel not in captured):
            return None
        is_filtered = bool(self._subscription.tickers) or self._subscription.is_followed
        named = tuple(ticker for ticker in gap.tickers if ticker != WHOLE_CHANNEL)
        if not named and gap.tickers and is_filtered:
            return None  # it concerned channels without a ticker filter alone
        return gap._replace(channel=channel, tickers=named)

    def _add(self, gap: GapToRepair, tries: int = 0, after_s: float = 0.0) -> None:
        before = self._waiting.pop(gap.gap_id, None)
        if before is not None:
            known = before.gap
            tickers = tuple(sorted({*known.tickers, *gap.tickers})) if known.tickers and gap.tickers else ()
            gap = gap._replace(
                start_ns=min(known.start_ns, gap.start_ns), end_ns=max(known.end_ns, gap.end_ns), tickers=tickers
            )
            tries = max(tries, before.tries)
        due_s = asyncio.get_running_loop().time() + max(after_s, self._settle_s)
        self._waiting[gap.gap_id] = _Waiting(gap, due_s, tries)
        if len(self._waiting) > WAITING_MAX:
            self._give_up(self._waiting.pop(next(iter(self._waiting))).gap, f"more than {WAITING_MAX} gaps wait")

    async def ask(self, wanted: RepairRequest) -> Result:
        """Repair a gap now, on somebody's word; what comes of it is on the tape when this returns.

        Raises:
            Rejected: for good; nothing was written.
            Unavailable: not now: no session is open, or the venue does not answer.
        """
        if self._repairer is None:
            raise Rejected("no-repairer", "of this venue nothing can be had again")
        if self._talk() is None:
            raise Unavailable("no session is open to write a repair to", mend="ssmd connector status")
        gap = self._repairable(GapToRepair(wanted.gap_id, wanted.start_ns, wanted.end_ns, wanted.channel, wanted.tickers))
        if gap is None:
            return "nothing"
        since_ns = await asyncio.to_thread(_tape_since_ns, self._directory)
        if gap.start_ns < since_ns:
            # What was received then cannot be told from what was missed any more: trades would come twice.
            raise Rejected(
                "gap-before-tape",
                f"gap {gap.gap_id} began at {iso_of(gap.start_ns)}, the tape reaches back to {iso_of(since_ns)}",
                mend="ssmd data backfill",
            )
        written = await self._repairer.repair(gap, self._directory, self._write)
        self.repaired += written > 0
        self._log.info("gap-repair-asked", gap=gap.gap_id, entries=written)
        return "repaired" if written else "already"

    # The task

    async def run(self) -> None:
        """Repair what is offered, and what waited when the process before this one ended, until cancelled."""
        repairer = self._repairer
        if repairer is None:
            return
        for gap in self._kept():
            self._add(gap)
        while True:
            self._offered.clear()
            loop_s = asyncio.get_running_loop().time()
            due = next((one for one in self._waiting.values() if one.due_s <= loop_s), None)
            if due is None:
                wait_s = min((one.due_s - loop_s for one in self._waiting.values()), default=None)
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._offered.wait()
                continue
            del self._waiting[due.gap.gap_id]
            self._running = due.gap
            await self._repair(repairer, due)
            self._running = None
            self._keep()

    async def _repair(self, repairer: Repairer, due: _Waiting) -> None:
        gap, tries = due.gap, due.tries + 1
        try:
            written = await repairer.repair(gap, self._directory, self._write)
        except Unavailable as error:
            if tries >= TRIES_MAX:
                self._give_up(gap, f"{tries} tries: {error.message}")
                return
            self._log.warning("gap-repair-waits", gap=gap.gap_id, tries=tries, reason=error.message)
            self._add(gap, tries, backoff_s(tries, self._random, first_s=RETRY_FIRST_S, max_s=RETRY_MAX_S))
        except SsmdError as error:
            # Refused for good: the key, a gap too long; or a tape that cannot be read there. The capture goes on.
            self._give_up(gap, error.message)
        else:
            self.repaired += written > 0
            self._log.info("gap-repaired", gap=gap.gap_id, entries=written)

    def _give_up(self, gap: GapToRepair, reason: str) -> None:
        self.given_up += 1
        self._log.error("gap-not-repaired", gap=gap.gap_id, reason=reason, mend="ssmd data backfill")

    async def _write(self, entries: Sequence[Repair]) -> None:
        """`Repairer`'s way to the tape.

        Raises:
            Unavailable: no session is open, or the tape is full.
        """
        for start in range(0, max(1, len(entries)), SLICE):
            talk = self._talk()
            if talk is None:
                raise Unavailable("no session is open to write a repair to")
            for entry in entries[start : start + SLICE]:
                talk.recorder.fact(entry)
            talk.recorder.flush()
            await asyncio.sleep(0)

    # What is kept

    def _keep(self) -> None:
        gaps = [one.gap for one in self._waiting.values()]
        if self._running is not None:
            gaps.append(self._running)
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_bytes(msgspec.json.encode(gaps))
            fresh.replace(self._path)
        except OSError as error:
            self._log.warning("repairs-not-kept", reason=str(error))

    def _kept(self) -> list[GapToRepair]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[GapToRepair])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError) as error:
            self._log.warning("repairs-not-known", reason=str(error))
            return []


def _tape_since_ns(directory: Path) -> int:
    """Receive time of the first entry the tape still has; 0 = it has none."""
    headers = (first_header(file_of(directory, index)) for index in indexes(directory))
    return next((header.first_ts_ns for header in headers if header is not None), 0)
