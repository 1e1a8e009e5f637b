"""The connections of one connector: as many as its markets need, each with a tape of its own.

The first connection carries the channels that have no ticker filter, and as many markets as one may; the others carry the
rest. A market stays with its connection for as long as it is wanted: what comes and goes concerns nobody else. Only where
the venue says that a connection is full (error 26), what it did not take moves to another one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ssmd.errors import Misconfigured, Rejected, Unavailable
from ssmd.exchanges.adapter import Subscription
from ssmd.identifiers import RandomBytes
from ssmd.services.component import Health
from ssmd.services.connector.repair_request import VERB, decode_request
from ssmd.services.connector.service import ConnectorService
from ssmd.services.connector.universe import Universe
from ssmd.services.connector.venue import Venue
from ssmd.services.first_failure import first_failure
from ssmd.streams.backoff import backoff_s
from ssmd.telemetry.structured import structlog

FOLLOW_S: Final = 1.0
"""How often what the venue told of its listing is acted upon."""
REFRESH_S: Final = 300.0
"""How often the listing is read without a reason."""
REFRESH_SOON_S: Final = 5.0
MEMBERS_MAX: Final = 200
"""What the venue allows one account."""

MakeMember = Callable[[str, Venue], ConnectorService]
_SUMMED: Final = frozenset(
    {"frames", "sessions", "entries", "unacked", "tape_bytes", "facts_waiting", "publisher_recoveries", "refills",
     "unplaced", "commands_waiting", "quarantined", "letters_waiting", "letters_dropped",
     "repairs_waiting", "repaired", "repairs_given_up"}
)  # fmt: skip
_WORST: Final = {"connected": min, "frame_age_ms": max, "publish_lag_ms": max, "disk_free_bytes": min}


class ConnectorGroup:
    """`services.component.Component`; see the module.

    Args:
        instance: name of the first connection ("main"); the others are main-2, main-3, ...
        make_member: a connection's service by name and venue.
        channels: what every connection subscribes to; those in `Venue.shared_channels` only the first one does.
        has_shared: whether the first one does: of several processes (shards) one is enough.
        tickers_per_connection: more markets need more connections.
    """

    name = "connector"

    def __init__(
        self,
        venue: Venue,
        universe: Universe,
        make_member: MakeMember,
        random: RandomBytes,
        *,
        instance: str,
        channels: tuple[str, ...],
        has_shared: bool = True,
        tickers_per_connection: int,
        refresh_s: float = REFRESH_S,
    ) -> None:
        self.instance = instance
        self.universe = universe
        self._venue = venue
        self._make_member = make_member
        self._random = random
        self._channels = channels
        self._has_shared = has_shared
        self._room = tickers_per_connection
        self._refresh_s = refresh_s
        self._members: list[ConnectorService] = []
        # Ticker -> the number of its connection; how many each has.
        self._owner: dict[str, int] = {}
        self._owned: Counter[int] = Counter()
        # Connections that the venue gave less room than they were meant to have.
        self._rooms: dict[int, int] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._refreshed_s = 0.0
        self._refreshing = asyncio.Lock()
        self._away = ""
        self._stopping = asyncio.Event()
        self._log = structlog.get_logger("connector").bind(connection=instance)

    async def run(self) -> None:
        """Until stopped, or until one connection cannot go on."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                if not self.universe.is_followed:
                    self._assign()
                if not self._members:
                    self._start_member()
                following = tasks.create_task(self._follow())
                await self._stopping.wait()
                following.cancel()
        except BaseExceptionGroup as group:
            raise first_failure(group) from None
        finally:
            self._tasks = None

    async def stop(self) -> None:
        self._stopping.set()
        await asyncio.gather(*(member.stop() for member in self._members))

    async def flush(self) -> None:
        """As `ConnectorService.flush`, of every connection."""
        await asyncio.gather(*(member.flush() for member in self._members))

    def questions(self) -> Mapping[str, Callable[[bytes], Awaitable[Mapping[str, Any]]]]:
        """`services.component.Questioned`."""
        return {VERB: self._repair}

    async def _repair(self, payload: bytes) -> Mapping[str, Any]:
        wanted = decode_request(payload)
        member = next((one for one in self._members if one.instance == wanted.connection), None)
        if member is None:
            known = ", ".join(one.instance for one in self._members) or "none"
            raise Rejected("no-such-connection", f"there is no connection {wanted.connection!r} now; there are: {known}")
        result = await member.repairs.ask(wanted)
        # What is answered for is in streams and journal, not only on the tape.
        await member.flush()
        return {"ok": True, "reason": "", "result": result}

    def health(self) -> Health:
        """Of all connections: their counts are summed, of what may go wrong the worst; other figures are the first one's."""
        if not self._members:
            return Health(ok=False, reason="not started", stats={})
        found = [member.health() for member in self._members]
        stats = dict(found[0].stats)
        for name in _SUMMED:
            stats[name] = sum(int(one.stats.get(name, 0)) for one in found)
        for name, worst in _WORST.items():
            stats[name] = worst(int(one.stats.get(name, 0)) for one in found)
        stats["connections"] = len(found)
        stats["markets"] = len(self._owner)
        reasons = [f"{member.instance}: {one.reason}" for member, one in zip(self._members, found, strict=True) if not one.ok]
        if len(found) == 1:
            reasons = [found[0].reason] if not found[0].ok else []
        if self._away:
            reasons.append(f"listing: {self._away}")
        if self.universe.left_out:
            reasons.append(f"{self.universe.left_out} markets are beyond capture.tickers_max")
        return Health(not reasons, "; ".join(reasons) or found[0].reason, stats)

    # Connections

    def _start_member(self) -> None:
        number = len(self._members)
        name = self.instance if not number else f"{self.instance}-{number + 1}"
        shared = self._venue.shared_channels if number or not self._has_shared else frozenset[str]()
        channels = tuple(channel for channel in self._channels if channel not in shared)

        async def subscription() -> Subscription:
            if self.universe.is_stale and not self._refreshed_s:
                await self._refresh()
            return Subscription(channels, self._tickers_of(number), self.universe.is_followed)

        member = self._make_member(name, replace(self._venue, subscription=subscription))
        self._members.append(member)
        if self._tasks is not None:
            self._tasks.create_task(self._run_member(member), name=name)

    async def _run_member(self, member: ConnectorService) -> None:
        await member.run()
        # Stopped from outside (its own `stop`), or by ours.
        self._stopping.set()

    def _tickers_of(self, number: int) -> tuple[str, ...]:
        return tuple(ticker for ticker, owner in self._owner.items() if owner == number)

    # Markets

    async def _follow(self) -> None:
        attempt = 0
        again_s = 0.0
        loop = asyncio.get_running_loop()
        while True:
            news = [member.news() for member in self._members]
            changes = [change for one in news for change in one.changes]
            if changes and self.universe.take(changes):
                self._assign()
            self._make_room([one.without_room for one in news])
            wait_s = REFRESH_SOON_S if self.universe.is_stale else self._refresh_s
            now_s = loop.time()
            if self.universe.is_followed and now_s >= again_s and now_s - self._refreshed_s >= wait_s:
                try:
                    await self._refresh()
                    attempt = 0
                except (Unavailable, Misconfigured) as error:
                    # A key that is refused here does not end connections that live: the next handshake judges it.
                    attempt += 1
                    self._away = error.message
                    self._log.warning("listing-not-read", reason=error.message)
                    again_s = now_s + backoff_s(attempt, self._random, first_s=1.0, max_s=60.0)
            await asyncio.sleep(FOLLOW_S)

    async def _refresh(self) -> None:
        """Read the listing, unless somebody else just did."""
        before_s = self._refreshed_s
        async with self._refreshing:
            if self._refreshed_s == before_s:
                await self.universe.refresh()
                self._refreshed_s = asyncio.get_running_loop().time()
        self._away = ""
        self._assign()

    def _make_room(self, without_room: Sequence[frozenset[str]]) -> None:
        """Move markets that the venue does not take on their connection (one set for each) to another one."""
        has_moved = False
        for number, tickers in enumerate(without_room[: MEMBERS_MAX - 1]):
            left = sorted(ticker for ticker in tickers if self._owner.get(ticker) == number)
            if len(left) == self._owned[number]:
                # The venue takes a command whole or not at all: of fewer it may take some.
                left = left[(len(left) + 1) // 2 :]
            if not left:
                continue
            for ticker in left:
                del self._owner[ticker]
            self._owned[number] -= len(left)
            self._rooms[number] = self._owned[number]
            self._log.warning("connection-is-full", number=number + 1, room=self._rooms[number], moved=len(left))
            self._members[number].want(self._tickers_of(number))
            has_moved = True
        if has_moved:
            self._assign()

    def _assign(self) -> None:
        """Give every wanted market a connection, and tell the connections whose markets have changed."""
        wanted = self.universe.tickers
        # What one connection was given, another one will hardly get more of.
        room = max(self._rooms.values(), default=self._room)
        changed: set[int] = set()
        for ticker in self._owner.keys() - set(wanted):
            number = self._owner.pop(ticker)
            self._owned[number] -= 1
            changed.add(number)
        number = 0
        for ticker in wanted:
            if ticker in self._owner:
                continue
            while self._owned[number] >= self._rooms.get(number, room) and number < MEMBERS_MAX - 1:
                number += 1
            self._owner[ticker] = number
            self._owned[number] += 1
            changed.add(number)
        for number in sorted(changed):
            if number < len(self._members):
                self._members[number].want(self._tickers_of(number))
        while len(self._members) <= max(self._owned, default=0):
            self._start_member()
