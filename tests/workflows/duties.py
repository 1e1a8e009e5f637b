"""Duties beside the days: a week whose journal has gaps and keys."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
from tests.workflows.week import Week

from ssmd.application.handler import Application
from ssmd.clock import ManualClock
from ssmd.domain import capture, key
from ssmd.domain.capture import GapClosed, GapOpened, RecordFact, TapePlace
from ssmd.domain.catalogue import CATALOGUE
from ssmd.identifiers import system_random
from ssmd.projections.queries import GapLine
from ssmd.registry.documents import KeyDefinition
from ssmd.wiring.day_steps import DayProcedure
from ssmd.workflows.orders import Patience

ENV = "kalshi-test"
S = 1_000_000_000
DAY = 86_400 * S
T0 = 1_778_760_000 * S  # 2026-05-14T12:00:00Z
DATE = "2026-05-14"
PATIENT = Patience(tries=3, try_s=1.0)


class Duties(Week):
    """A week with gaps and keys in its journal; `asked` are the gaps that its connector was asked for."""

    def __init__(self) -> None:
        super().__init__(ENV)
        self.clock = ManualClock(T0)
        self.asked: list[str] = []
        self.troubles: dict[str, list[Exception]] = {}
        self._clock = self.clock

    @property
    def application(self) -> Application:
        return Application(self.journal, CATALOGUE, self.clock, system_random, "c0ffee")

    @asynccontextmanager
    async def _opened(self, actor: str, request: str) -> AsyncGenerator[DayProcedure]:
        async with super()._opened(actor, request) as procedure:
            yield procedure._replace(repair=self._repaired)

    async def _repaired(self, gap: GapLine) -> str:
        self.asked.append(gap.gap_id)
        if self.troubles.get(gap.gap_id):
            raise self.troubles[gap.gap_id].pop(0)
        return "repaired"

    async def gap(self, number: int, *, age_s: int, is_over: bool = True, connection: str = "main") -> None:
        end_ns = T0 - age_s * S
        start_ns = end_ns - 5 * S
        facts: list[capture.CaptureEvent] = [
            GapOpened(1, number, 0, end_ns, f"1-{number}", "stale", start_ns, "", 0, 0, 0, ("A",), "")
        ]
        if is_over:
            facts.append(GapClosed(1, number, 1, end_ns, f"1-{number}", start_ns, end_ns, ("A",)))
        for fact in facts:
            command = RecordFact(TapePlace(fact.session, fact.n, fact.index), fact)
            await self.application.handle(
                capture.DECIDER, ("kalshi", connection), command, actor=f"connector:kalshi-{connection}"
            )

    def wants_key(self) -> None:
        """Its registry defines the key "kalshi", to be rotated every 90 days."""
        keys = {"kalshi": KeyDefinition(type="kalshi-api-key", fields=("api_key",), rotation_days=90)}
        self._document = msgspec.structs.replace(self.document, keys=keys)

    async def keep(self, name: str, mark: str, expires_ns: int) -> None:
        """A value is stored."""
        command = key.SetKey(("api_key",), mark, expires_ns=expires_ns)
        await self.application.handle(key.DECIDER, (name,), command, actor="cli:anna")
