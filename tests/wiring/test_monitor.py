"""A component's own word over HTTP, where SSMD_MONITOR says."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack

import httpx
import pytest

from ssmd.errors import Misconfigured
from ssmd.services.component import Health
from ssmd.wiring.process import _monitored


class Component:
    name = "connector"
    instance = "main"

    def __init__(self) -> None:
        self.now = Health(True, "", {})

    async def run(self) -> None: ...

    async def stop(self) -> None: ...

    async def flush(self) -> None: ...

    def health(self) -> Health:
        return self.now


async def test_health_and_metrics_are_served() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    component = Component()
    async with AsyncExitStack() as stack, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        await _monitored("connector", component, {"SSMD_MONITOR": f"127.0.0.1:{port}"}, stack)
        assert (await client.get("/healthz")).json() == {"ok": True, "reason": ""}
        component.now = Health(False, "the venue is away", {})
        answer = await client.get("/healthz")
        assert (answer.status_code, answer.json()) == (503, {"ok": False, "reason": "the venue is away"})
        # Whether it lives is another question: a restart does not bring a venue back.
        assert (await client.get("/metrics")).status_code == 200


@pytest.mark.parametrize("address", ["9090", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000"])
async def test_an_address_that_is_none_is_refused(address: str) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(Misconfigured, match="expected HOST:PORT"):
            await _monitored("connector", Component(), {"SSMD_MONITOR": address}, stack)
