"""A component's own word over HTTP: at the address SSMD_MONITOR names, or at one that its health tells."""

from __future__ import annotations

from contextlib import AsyncExitStack

import httpx
import pytest

from ssmd.errors import Misconfigured
from ssmd.services.component import Health
from ssmd.wiring.monitoring import address_of, monitored


class Component:
    name = "connector"
    instance = "main"

    def __init__(self) -> None:
        self.now = Health(True, "", {"frames": 7, "clock_offset_ms": -250, "session": 17})

    async def run(self) -> None: ...

    async def stop(self) -> None: ...

    async def flush(self) -> None: ...

    def health(self) -> Health:
        return self.now


async def test_health_and_metrics_are_served_where_the_health_says() -> None:
    component = Component()
    async with AsyncExitStack() as stack, httpx.AsyncClient() as client:
        watched = await monitored(component, "demo", {"retention_ms": 9}, address_of({}), stack)
        stats = watched.health().stats
        assert (watched.name, watched.instance, stats["frames"], stats["retention_ms"]) == ("connector", "main", 7, 9)
        url = str(stats["metrics_url"])
        assert url.startswith("http://127.0.0.1:")
        healthz = url.replace("/metrics", "/healthz")
        assert (await client.get(healthz)).json() == {"ok": True, "reason": ""}
        component.now = Health(False, "the venue is away", component.now.stats)
        answer = await client.get(healthz)
        assert (answer.status_code, answer.json()) == (503, {"ok": False, "reason": "the venue is away"})
        # Whether it lives is another question: a restart does not bring a venue back.
        shown = await client.get(url)
        assert shown.status_code == 200
        lines = [line for line in shown.text.splitlines() if line.startswith("ssmd_")]
        assert lines == [
            'ssmd_component_up{component="connector",env="demo",member="main"} 1.0',
            'ssmd_component_ok{component="connector",env="demo",member="main"} 0.0',
            'ssmd_component_standby{component="connector",env="demo",member="main"} 0.0',
            'ssmd_connector_frames_total{component="connector",env="demo",member="main"} 7.0',
            'ssmd_connector_clock_offset_seconds{component="connector",env="demo",member="main"} -0.25',
        ]


@pytest.mark.parametrize("address", ["9090", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(Misconfigured, match="expected HOST:PORT"):
        address_of({"SSMD_MONITOR": address})


def test_an_address_of_ipv6_is_one() -> None:
    assert address_of({"SSMD_MONITOR": "[::]:9090"}) == ("::", 9090)
