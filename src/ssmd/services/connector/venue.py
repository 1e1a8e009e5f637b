"""All that the connector must be told about a venue, so that the connector itself knows none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ssmd.exchanges.adapter import GapToRepair, Mapper, Session, Subscription
from ssmd.schemas.control import Repair


class Repairer(Protocol):
    """Brings back what a venue still has of a gap."""

    async def repair(self, gap: GapToRepair, tape: Path, write: Callable[[Sequence[Repair]], Awaitable[None]]) -> int:
        """Write the missed data as entries, unless the tape in the directory `tape` holds them; how many were written.

        Raises:
            Unavailable: not now.
            SsmdError: never.
        """
        ...


def _never(_ts_ns: int) -> str:
    return ""


async def _nothing() -> None:
    return


@dataclass(frozen=True)
class Venue:
    """One venue as one environment reaches it.

    Attributes:
        feed: the registry's name.
        websocket_url: without credentials.
        wire: wire era of its frames.
        headers: signs a handshake afresh; called for every connection made.
        subscription: what to ask for now (may read the venue's listing); raises Unavailable.
        new_session: the protocol of one connection.
        new_mapper: the mapper of one session, by the session's number.
        is_fatal: whether a refused handshake (status, body) cannot succeed later with the same key.
        pause_at: the planned silence a time lies in, as text for people ("weekly pause until 09:00 UTC"), "" = none.
        prepare: called before each connection is made; looks after `pause_at`, never raises.
        shared_channels: channels without a ticker filter, which one connection of several takes for all.
        commands_s: commands a second one connection may send.
        repairer: None = nothing can be had again.
        read_limit_bytes: the largest frame taken; a larger one ends the connection.
        stale_s: without frame or ping for this long the connection is taken for dead.
    """

    feed: str
    websocket_url: str
    wire: str
    headers: Callable[[], dict[str, str]]
    subscription: Callable[[], Awaitable[Subscription]]
    new_session: Callable[[Subscription], Session]
    new_mapper: Callable[[int], Mapper]
    is_fatal: Callable[[int, bytes], bool]
    pause_at: Callable[[int], str] = _never
    prepare: Callable[[], Awaitable[None]] = _nothing
    shared_channels: frozenset[str] = frozenset()
    repairer: Repairer | None = None
    commands_s: float = 200.0
    read_limit_bytes: int = 64 << 20
    stale_s: float = 25.0
