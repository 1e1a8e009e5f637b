"""Runs the seeded model in time and hands its messages to every subscriber."""

from __future__ import annotations

import asyncio

from ssmd.exchanges.kalshi.simulated.order_flow import MarketModel
from ssmd.exchanges.kalshi.simulated.subscriptions import Subscriptions
from ssmd.services.simulator.connection import Connection

_TICK_S = 0.005
_SLICE = 100  # steps between two turns of the loop: a millisecond or two


class SeededFeed:
    """A `Feed` from a model.

    At a speed N the model makes N seconds of its time in one of ours; a loop that falls behind by a second lets the
    time go. At "max" it steps only while somebody is subscribed, and waits for the slowest reader.
    """

    def __init__(self, model: MarketModel, speed: int, buffer_bytes: int) -> None:
        self.model = model
        self._speed = speed
        self._buffer_bytes = buffer_bytes
        self._clients: dict[Connection, Subscriptions] = {}
        self._running = asyncio.Event()
        self._running.set()
        self._subscribed = asyncio.Event()

    @property
    def done(self) -> bool:
        """A model never ends."""
        return False

    async def prepare(self) -> None:
        """Nothing to do."""

    def refusal(self) -> bytes:
        """Never refuses."""
        return b""

    def attach(self, connection: Connection) -> None:
        """Begin the connection's subscriptions."""
        self._clients[connection] = Subscriptions(self.model)

    def detach(self, connection: Connection) -> None:
        """Forget them."""
        self._clients.pop(connection, None)
        self._note_subscribed()

    def command(self, connection: Connection, text: bytes) -> None:
        """Answer a command."""
        connection.deliver(self._clients[connection].command(text))
        self._note_subscribed()

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
        }

    async def run(self) -> None:
        """Until cancelled."""
        if self._speed:
            await self._paced()
        else:
            await self._unpaced()

    async def _paced(self) -> None:
        loop = asyncio.get_running_loop()
        rate = self.model.settings.rate * self._speed
        origin, made = loop.time(), 0
        while True:
            if not self._running.is_set():
                await self._running.wait()
                origin, made = loop.time(), 0
            target = int((loop.time() - origin) * rate)
            if target - made > rate:
                origin, made, target = loop.time(), 0, 1
            steps = min(target - made, _SLICE)
            self._advance(steps)
            made += steps
            for connection in list(self._clients):
                if connection.buffered > self._buffer_bytes:
                    connection.overflow()
            await asyncio.sleep(0 if made < target else _TICK_S)

    async def _unpaced(self) -> None:
        while True:
            await self._running.wait()
            await self._subscribed.wait()
            self._advance(_SLICE)
            for connection in list(self._clients):
                await connection.writable()
            await asyncio.sleep(0)

    def _advance(self, steps: int) -> None:
        frames: dict[Connection, list[bytes]] = {connection: [] for connection in self._clients}
        for _ in range(steps):
            messages = self.model.step()
            for connection, subscriptions in self._clients.items():
                if subscriptions.by_channel:
                    made = frames[connection]
                    for message in messages:
                        frame = subscriptions.publish(message)
                        if frame is not None:
                            made.append(frame)
        for connection, made in frames.items():
            if made:
                connection.deliver(made)

    def _note_subscribed(self) -> None:
        if any(client.by_channel for client in self._clients.values()):
            self._subscribed.set()
        else:
            self._subscribed.clear()
