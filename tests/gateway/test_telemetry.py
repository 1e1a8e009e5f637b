"""What /metrics says: everything that health knows, and what was dropped by reason."""

from __future__ import annotations

import httpx
from tests.gateway.conftest import Gateway

from ssmd.gateway.telemetry import GatewayMetrics


def values_of(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_drops_are_told_by_reason() -> None:
    metrics = GatewayMetrics()
    metrics.answered(200, 1_000_000)
    stats: dict[str, int | str] = {
        "messages_lost": 7,
        "messages_conflated": 40,
        "clients": 3,
        "queued_bytes": 9,
        "lag_messages": 2,
    }
    stats |= {"queued_bytes": 9, "lag_messages": 2}
    values = values_of(metrics.exposition(stats).decode())
    assert values['ssmd_gateway_messages_dropped{reason="slow-client"}'] == 7
    assert values['ssmd_gateway_messages_dropped{reason="conflated"}'] == 40
    assert (values["ssmd_gateway_clients"], values["ssmd_gateway_lag_messages"]) == (3, 2)
    assert values["ssmd_gateway_queued_bytes"] == 9
    assert values['ssmd_gateway_requests_total{status="200"}'] == 1


async def test_they_are_served(gateway: Gateway) -> None:
    async with gateway() as running, running.connect() as client, httpx.AsyncClient(base_url=running.url) as http:
        await client.command("subscribe", tickers=["A"])
        await client.barrier()
        last = running.put(running.tape.trade("A"))
        await running.settled(last)
        values = values_of((await http.get("/metrics")).text)
        assert (values["ssmd_gateway_clients"], values["ssmd_gateway_stream_seq"]) == (1, last)
