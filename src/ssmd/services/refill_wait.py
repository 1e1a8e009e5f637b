"""Connections whose stream was truncated, while an archiver waits for the connector to fill it again from its tape."""

from __future__ import annotations

from typing import Any, Final

from ssmd.archive.continuity import Continuity, Unit
from ssmd.clock import Clock
from ssmd.schemas.market_message import REPEATED

REFILL_WAIT_S: Final = 600.0
"""How long the connector may take; past that what is there is archived, and the hole told."""


class RefillWait:
    """What is waited for, and what has been given up. A refill comes in order, behind all else, under repeated ids."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_ns: dict[str, int] = {}
        self._gave_up: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._since_ns)

    def __contains__(self, connection: str) -> bool:
        return connection in self._since_ns

    @property
    def connections(self) -> list[str]:
        return list(self._since_ns)

    def may_begin(self, connection: str) -> bool:
        """Whether a refill has not been waited for in vain before."""
        return connection not in self._gave_up

    def begin(self, connection: str) -> None:
        """Wait for the refill of `connection`."""
        self._since_ns[connection] = self._clock.monotonic_ns()

    def takes(self, unit: Unit[Any], continuity: Continuity[Any]) -> bool:
        """Whether `unit` of a connection that is waited for is wanted now: what does not follow comes again in its place."""
        if continuity.is_next(unit):
            del self._since_ns[unit.connection]
            return True
        if REPEATED in unit.message_id and (unit.session, unit.last_n) > continuity.reached:
            # The refill begins later than here: the tape has lost it too.
            self._give_up(unit.connection)
            return True
        return False

    def overdue(self) -> str:
        """A connection that has been waited for too long, which is given up by this; "" = none."""
        before_ns = self._clock.monotonic_ns() - int(REFILL_WAIT_S * 1e9)
        found = next((connection for connection, since_ns in self._since_ns.items() if since_ns <= before_ns), "")
        if found:
            self._give_up(found)
        return found

    def _give_up(self, connection: str) -> None:
        del self._since_ns[connection]
        self._gave_up.add(connection)

    def clear(self) -> None:
        """Reading begins anew."""
        self._since_ns.clear()
