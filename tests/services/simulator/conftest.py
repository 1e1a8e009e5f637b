"""A running simulator, clients for it, and keys of both kinds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import websockets
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from ssmd.clock import Clock, SystemClock
from ssmd.exchanges.kalshi import signing
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.simulator.simulator import Simulator

START_NS = 1_795_363_200_000_000_000
CAPTURES = Path(__file__).resolve().parents[4] / "shared" / "captures"


class Client:
    """One WebSocket client that keeps what it read."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket

    async def send(self, command: object) -> None:
        await self.socket.send(command if isinstance(command, str) else msgspec.json.encode(command).decode())

    async def text(self) -> str:
        received = await asyncio.wait_for(self.socket.recv(), 60)
        assert isinstance(received, str)
        return received

    async def frame(self) -> dict[str, Any]:
        decoded: dict[str, Any] = msgspec.json.decode(await self.text())
        return decoded

    async def frames(self, count: int) -> list[dict[str, Any]]:
        return [await self.frame() for _ in range(count)]

    async def until_closed(self) -> list[bytes]:
        """Everything to the end, as the bytes of each message."""
        received = []
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                message = await asyncio.wait_for(self.socket.recv(), 60)
                received.append(message.encode() if isinstance(message, str) else message)
        return received


class Running:
    """A simulator that serves, with an HTTP client."""

    def __init__(self, simulator: Simulator, http: httpx.AsyncClient, task: asyncio.Task[None]) -> None:
        self.simulator = simulator
        self.http = http
        self.task = task

    @contextlib.asynccontextmanager
    async def client(self, headers: dict[str, str] | None = None) -> AsyncIterator[Client]:
        async with websockets.connect(
            self.simulator.websocket_url,
            additional_headers=headers,
            compression=None,
            max_size=None,
            proxy=None,
            ping_interval=None,
            close_timeout=0.2,
        ) as socket:
            yield Client(socket)

    async def refused(self, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body of a handshake that must not succeed."""
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with self.client(headers):
                pass
        return caught.value.response.status_code, bytes(caught.value.response.body or b"")

    async def get(self, path: str, **query: str) -> tuple[int, Any]:
        response = await self.http.get(self.simulator.rest_url + path, params=query)
        return response.status_code, response.json()

    async def control(self, path: str, body: object = None) -> Any:
        url = self.simulator.control_url + path
        if body is None and path == "/status":
            return (await self.http.get(url)).json()
        return (await self.http.post(url, content=b"" if body is None else msgspec.json.encode(body))).json()

    async def status_when(self, reached: Callable[[Any], bool]) -> Any:
        """The status page, once it says what is waited for."""
        async with asyncio.timeout(60):
            while True:
                status = await self.control("/status")
                if reached(status):
                    return status
                await asyncio.sleep(0.01)


RunSimulator = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def run_simulator() -> RunSimulator:
    """`async with run_simulator(markets=3) as running:`; no signatures unless asked for."""

    @contextlib.asynccontextmanager
    async def run(clock: Clock | None = None, **settings: Any) -> AsyncIterator[Running]:
        config = SimulatorConfig(**{"require_auth": False, "start_ns": START_NS, **settings})
        simulator = Simulator(config, clock or SystemClock())
        await simulator.start()
        task = asyncio.create_task(simulator.run())
        try:
            async with httpx.AsyncClient(trust_env=False) as http:
                yield Running(simulator, http, task)
        finally:
            await simulator.stop()
            await asyncio.wait_for(task, 60)

    return run


@pytest.fixture(scope="session")
def keys() -> dict[str, signing.PrivateKey]:
    return {"key-rsa": rsa.generate_private_key(65537, 2048), "key-ed": ed25519.Ed25519PrivateKey.generate()}


@pytest.fixture(scope="session")
def genuine() -> Path:
    path = CAPTURES / "kalshi-btc15m-close-2026-05-14.jsonl.zst"
    if not path.exists():
        pytest.skip(f"the genuine captures ({CAPTURES}) are not here: they may not be redistributed")
    return path
