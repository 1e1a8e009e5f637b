"""A gateway over a NATS server as a process of its own: -m tests.e2e.gateway_process NATS_URL PORT CHECKPOINT ENV FEED."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from ssmd.clock import SystemClock
from ssmd.gateway.app import GatewayLimits, GatewayService, Surroundings
from ssmd.streams.transport_nats import NatsTransport


async def serve(nats_url: str, port: str, checkpoint: str, env: str, feed: str) -> None:
    transport = await NatsTransport.open(nats_url, env)
    await GatewayService(
        transport,
        env=env,
        feed=feed,
        host="127.0.0.1",
        port=int(port),
        clock=SystemClock(),
        limits=GatewayLimits(checkpoint_s=0.2),
        around=Surroundings(checkpoint=Path(checkpoint)),
    ).run()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
