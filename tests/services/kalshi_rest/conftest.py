"""A simulated venue and an impatient client of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from ssmd.clock import Clock, SystemClock
from ssmd.exchanges.kalshi import signing
from ssmd.services.kalshi_rest.client import KalshiRest, RestSettings
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.simulator.simulator import Simulator

START_NS = 1_795_363_200_000_000_000
KEY = ed25519.Ed25519PrivateKey.generate()
QUICK = RestSettings(timeout_s=5.0, tries_max=8, deadline_s=20.0, pause_first_s=0.005, pause_max_s=0.05)


class Venue:
    """A simulator that serves, its model, and a client."""

    def __init__(self, simulator: Simulator, client: KalshiRest, http: httpx.AsyncClient) -> None:
        self.simulator = simulator
        self.client = client
        self._http = http

    @property
    def model(self) -> Any:
        return self.simulator._feed.model  # type: ignore[union-attr]

    async def control(self, path: str, body: object = None) -> Any:
        content = b"" if body is None else msgspec.json.encode(body)
        return (await self._http.post(self.simulator.control_url + path, content=content)).json()


RunVenue = Callable[..., AbstractAsyncContextManager[Venue]]


def signer(clock: Clock, key: Any = KEY, offset_ms: int = 0) -> Callable[[str, str], dict[str, str]]:
    return lambda method, path: signing.headers("key", key, clock.now_ns() // 1_000_000 + offset_ms, method, path)


@pytest.fixture
def run_venue() -> RunVenue:
    @contextlib.asynccontextmanager
    async def run(
        sign: Any = "yes", settings: RestSettings = QUICK, clock: Clock | None = None, **config: Any
    ) -> AsyncIterator[Venue]:
        held = clock or SystemClock()
        pem = signing.public_pem(KEY).decode()
        defaults = {"public_keys": {"key": pem}, "start_ns": START_NS, "start_paused": True, "rest_tokens_s": 50_000}
        simulator = Simulator(SimulatorConfig(**{**defaults, **config}), held)
        await simulator.start()
        task = asyncio.create_task(simulator.run())
        try:
            signs = signer(held) if sign == "yes" else sign
            client = KalshiRest(simulator.rest_url, signs, held, bytes, settings)
            async with client, httpx.AsyncClient(trust_env=False) as http:
                yield Venue(simulator, client, http)
        finally:
            await simulator.stop()
            await asyncio.wait_for(task, 60)

    return run
