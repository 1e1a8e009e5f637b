from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import httpx
import pytest

from ssmd.errors import Misconfigured
from ssmd.telemetry.metrics import Metrics, Verdict, serve_metrics


def samples(metrics: Metrics) -> list[str]:
    own = metrics.exposition().decode().splitlines()
    return [line for line in own if line.startswith("ssmd_") and "_created" not in line]


def test_names_carry_component_and_unit() -> None:
    metrics = Metrics("raw-archiver")
    metrics.counter("frames_received", "Frames read off the socket", labels=("feed",)).labels("kalshi").inc(3)
    metrics.counter("archived", "Bytes sealed", unit="bytes").inc(10)
    metrics.gauge("publish_lag", "Behind the tape", unit="seconds").set(0.5)
    metrics.histogram("seal", "Time to seal", buckets=(0.1, 1)).observe(0.1)
    assert samples(metrics) == [
        'ssmd_raw_archiver_frames_received_total{feed="kalshi"} 3.0',
        "ssmd_raw_archiver_archived_bytes_total 10.0",
        "ssmd_raw_archiver_publish_lag_seconds 0.5",
        'ssmd_raw_archiver_seal_seconds_bucket{le="0.1"} 1.0',
        'ssmd_raw_archiver_seal_seconds_bucket{le="1.0"} 1.0',
        'ssmd_raw_archiver_seal_seconds_bucket{le="+Inf"} 1.0',
        "ssmd_raw_archiver_seal_seconds_count 1.0",
        "ssmd_raw_archiver_seal_seconds_sum 0.1",
    ]


def test_a_wrong_or_repeated_name_is_refused() -> None:
    metrics = Metrics("gateway")
    with pytest.raises(ValueError, match="not a metric name: 'ssmd_gateway_Frames'"):
        metrics.counter("Frames", "")
    metrics.gauge("clients", "Connected clients")
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        metrics.gauge("clients", "Connected clients")


async def test_metrics_and_health_are_served_and_health_names_its_reason() -> None:
    metrics = Metrics("connector")
    metrics.gauge("sessions", "Sessions made").set(2)
    verdict = Verdict(ok=True)
    server = await serve_metrics(metrics, lambda: verdict)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        shown = await client.get("/metrics")
        assert shown.status_code == 200
        assert shown.headers["content-type"].startswith("text/plain; version=")
        assert "ssmd_connector_sessions 2.0" in shown.text.splitlines()
        assert ((await client.get("/healthz?full=1")).json()) == {"ok": True, "reason": ""}
        verdict = Verdict(ok=False, reason="transport unreachable for 12 s")
        sick = await client.get("/healthz")
        assert (sick.status_code, sick.json()) == (503, {"ok": False, "reason": "transport unreachable for 12 s"})
        assert (await client.get("/")).status_code == 404
        assert (await client.post("/metrics")).status_code == 405
        head = await client.head("/healthz")
        assert (head.status_code, head.content) == (503, b"")
    await server.close()
    await server.close()


async def test_a_caller_that_sends_nonsense_is_dropped_and_others_are_served() -> None:
    server = await serve_metrics(Metrics("connector"), lambda: Verdict(ok=True))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"x" * 100_000)
    with contextlib.suppress(ConnectionError):  # the same news as an end of the stream
        assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{server.port}/healthz")
    assert json.loads(answer.text)["ok"] is True
    await server.close()


async def test_a_taken_port_is_named() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(Misconfigured, match=f"cannot serve metrics on 127.0.0.1:{port}: ") as found:
            await serve_metrics(Metrics("connector"), lambda: Verdict(ok=True), port=port)
    assert found.value.mend == "choose another port (0 = any free one)"
