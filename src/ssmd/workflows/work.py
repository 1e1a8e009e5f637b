"""What the activities do, said so that workflows need not know how: the wiring gives it, tests script it."""

from __future__ import annotations

from typing import Protocol

from ssmd.workflows.orders import Begun, DayOrder, GapName, RepairOrder, Turn, Unrepaired


class Work(Protocol):
    """Every method may be called again after any failure, also one whose answer was lost: what is done stays done.

    `request` is the correlation id of what is journaled: the workflow's name.

    All raise Unavailable (it may be tried again), or Rejected, Malformed, Misconfigured, Conflict as `errors` has them.
    """

    async def turn(self, env: str, scheduled_ns: int) -> Turn:
        """What is due at `scheduled_ns` by the environment's schedule; days that were missed before it are journaled."""
        ...

    async def begin(self, order: DayOrder, request: str) -> Begun: ...

    async def step(self, order: DayOrder, step: str, request: str) -> None: ...

    async def finish(self, order: DayOrder, request: str) -> str:
        """The day's status."""
        ...

    async def fail(self, order: DayOrder, error: str, request: str) -> None: ...

    async def recover(self, order: DayOrder, detail: str, request: str) -> None: ...

    async def abandon(self, order: DayOrder, error: str, rounds: int, request: str) -> None:
        """Nobody tries again: let the components hand on what they hold, and journal that the day failed."""
        ...

    async def sync(self, env: str, *, is_full: bool) -> str:
        """What the comparison came to, in words."""
        ...

    async def expiring_keys(self, env: str, request: str) -> list[str]:
        """Keys that should be replaced, in words; each finding is journaled once for a value."""
        ...

    async def unrepaired(self, order: RepairOrder, request: str) -> Unrepaired:
        """Gaps that are over and were not repaired, the latest first."""
        ...

    async def repair(self, order: RepairOrder, gap: GapName, request: str) -> str:
        """Have the connector repair one; "repaired", "already" or "nothing"."""
        ...
