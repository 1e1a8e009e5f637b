"""Runs the seeded model in time and hands its messages to every subscriber."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from ssmd.exchanges.kalshi.simulated.listing import SECOND_NS
from ssmd.exchanges.kalshi.simulated.market_orders import NothingFits, VenueOrder, apply
from ssmd.exchanges.kalshi.simulated.order_flow import MarketModel
from ssmd.exchanges.kalshi.simulated.subscriptions import Limits, Subscriptions
from ssmd.exchanges.kalshi.simulated.wire import Message
from ssmd.services.simulator.connection import Connection

_TICK_S = 0.005
_TOO_MANY = 27
_NEVER_NS = 1 << 63
_SLICE = 100  # steps between two turns of the loop: a millisecond or two


class SeededFeed:
    """A `Feed` from a model.

    At a speed N the model makes N seconds of its time in one of ours; a loop that falls behind by a second lets the
    time go. At "max" it steps only while somebody is subscribed, and waits for the slowest reader.

    Args:
        command_fault: told each command; the code of the error it gets whatever it says, -1 = no answer, 0 = a true one.
        orders: changes to come, each at its `at_s`, counted from when it begins to serve.
        history_s: so much model time passes before that.
    """

    def __init__(
        self,
        model: MarketModel,
        speed: int,
        buffer_bytes: int,
        *,
        command_fault: Callable[[], int],
        limits: Limits = Limits(),  # noqa: B008 - immutable
        sending_ts: bool = False,
        orders: Sequence[VenueOrder] = (),
        history_s: int = 0,
    ) -> None:
        self.model = model
        self._speed = speed
        self._buffer_bytes = buffer_bytes
        self._command_fault = command_fault
        self._limits = limits
        self._sending_ms = (lambda: model.now_ns // 1_000_000) if sending_ts else (lambda: 0)
        self._orders = deque(sorted(orders, key=lambda order: order.at_s))
        self._began_ns = model.now_ns + history_s * SECOND_NS
        self._clients: dict[Connection, Subscriptions] = {}
        self._commands: dict[Connection, tuple[int, int]] = {}
        self._running = asyncio.Event()
        self._running.set()
        self._subscribed = asyncio.Event()

    @property
    def done(self) -> bool:
        """A model never ends."""
        return False

    async def prepare(self) -> None:
        """Let the time before the start pass."""
        model = self.model
        while model.next_ns < self._began_ns:
            for _ in range(_SLICE):
                if model.next_ns < self._began_ns:
                    model.step()
            await asyncio.sleep(0)

    def refusal(self) -> bytes:
        """Never refuses."""
        return b""

    def attach(self, connection: Connection) -> None:
        """Begin the connection's subscriptions."""
        self._clients[connection] = Subscriptions(self.model, self._limits, self._sending_ms)

    def detach(self, connection: Connection) -> None:
        """Forget them."""
        self._clients.pop(connection, None)
        self._commands.pop(connection, None)
        self._note_subscribed()

    def command(self, connection: Connection, text: bytes) -> None:
        """Answer a command."""
        code = self._command_fault() or (0 if self._has_room(connection) else _TOO_MANY)
        if code >= 0:
            connection.deliver(self._clients[connection].command(text, code))
        self._note_subscribed()

    def order(self, order: VenueOrder) -> None:
        """Change markets or the exchange at the order's time, at once if that has passed.

        Raises:
            NothingFits: at once, and there is no such market; nothing was changed.
        """
        if self._began_ns + order.at_s * SECOND_NS > self.model.now_ns:
            self._orders = deque(sorted((*self._orders, order), key=lambda held: held.at_s))
            return
        frames: dict[Connection, list[bytes]] = {connection: [] for connection in self._clients}
        self._publish(apply(self.model, order), frames)
        self._deliver(frames)

    def terminal(self, connection: Connection, code: int) -> list[bytes]:
        """End the connection's sequenced subscriptions."""
        frames = self._clients[connection].terminate(code)
        self._note_subscribed()
        return frames

    def pause(self, *, paused: bool) -> None:
        """Stop or go on with the model's time."""
        if paused:
            self._running.clear()
        else:
            self._running.set()

    def status(self) -> dict[str, object]:
        """Figures for the status page."""
        return {
            "mode": "seeded",
            "done": False,
            "seed": self.model.settings.seed,
            "steps": self.model.steps,
            "model_now_ns": self.model.now_ns,
            "markets": len(self.model.markets),
            "paused": not self._running.is_set(),
            "orders_to_come": len(self._orders),
        }

    async def run(self) -> None:
        """Until cancelled."""
        if self._speed:
            await self._paced()
        else:
            await self._unpaced()

    async def _paced(self) -> None:
        loop = asyncio.get_running_loop()
        origin, origin_ns = loop.time(), self.model.now_ns
        while True:
            if not self._running.is_set():
                await self._running.wait()
                origin, origin_ns = loop.time(), self.model.now_ns
            due_ns = origin_ns + int((loop.time() - origin) * 1e9) * self._speed
            if due_ns - self.model.next_ns > self._speed * SECOND_NS:
                origin, origin_ns = loop.time(), self.model.next_ns
                due_ns = origin_ns
            self._advance(due_ns)
            for connection in list(self._clients):
                if connection.buffered > self._buffer_bytes:
                    connection.overflow()
            await asyncio.sleep(0 if self.model.next_ns <= due_ns else _TICK_S)

    async def _unpaced(self) -> None:
        while True:
            await self._running.wait()
            await self._subscribed.wait()
            self._advance()
            for connection in list(self._clients):
                await connection.writable()
            await asyncio.sleep(0)

    def _advance(self, until_ns: int = _NEVER_NS) -> None:
        """Up to a slice of steps, those at or before `until_ns`."""
        frames: dict[Connection, list[bytes]] = {connection: [] for connection in self._clients}
        model = self.model
        for _ in range(_SLICE):
            if model.next_ns > until_ns:
                break
            messages = model.step()
            while self._orders and self._began_ns + self._orders[0].at_s * SECOND_NS <= model.now_ns:
                with suppress(NothingFits):  # a plan for a market that is not there any more
                    messages += apply(model, self._orders.popleft())
            self._publish(messages, frames)
        self._deliver(frames)

    def _publish(self, messages: Sequence[Message], frames: dict[Connection, list[bytes]]) -> None:
        for connection, subscriptions in self._clients.items():
            if subscriptions.by_channel:
                made = frames[connection]
                for message in messages:
                    frame = subscriptions.publish(message)
                    if frame is not None:
                        made.append(frame)

    @staticmethod
    def _deliver(frames: dict[Connection, list[bytes]]) -> None:
        for connection, made in frames.items():
            if made:
                connection.deliver(made)

    def _has_room(self, connection: Connection) -> bool:
        """Count a command against the second it came in."""
        second = int(asyncio.get_running_loop().time())
        since, count = self._commands.get(connection, (second, 0))
        count = count + 1 if since == second else 1
        self._commands[connection] = (second, count)
        return count <= self._limits.commands_s

    def _note_subscribed(self) -> None:
        if any(client.by_channel for client in self._clients.values()):
            self._subscribed.set()
        else:
            self._subscribed.clear()
