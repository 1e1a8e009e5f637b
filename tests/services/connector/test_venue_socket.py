"""A connection on which only pings come, against the simulator."""

import asyncio

import pytest

from ssmd.clock import SystemClock
from ssmd.services.connector.venue_socket import VenueSocket
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.simulator.simulator import Simulator


async def test_pings_alone_keep_a_connection_and_are_answered() -> None:
    config = SimulatorConfig(require_auth=False, ping_s=1, pong_deadline_s=1, start_paused=True)
    simulator = Simulator(config, SystemClock())
    await simulator.start()
    serving = asyncio.create_task(simulator.run())
    frames: list[bytes] = []
    try:
        socket = await VenueSocket.open(
            simulator.websocket_url,
            {},
            on_frame=frames.append,
            is_fatal=lambda _status, _body: False,
            read_limit_bytes=1 << 20,
            stale_s=2.5,  # a ping comes every second; a busy machine may be late
        )
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3.4):
                await socket.wait_ended()
        assert simulator.health().stats["connections_open"] == 1
        await socket.close("stopped", "asked to stop")
    finally:
        await simulator.stop()
        await serving
    assert frames == []
