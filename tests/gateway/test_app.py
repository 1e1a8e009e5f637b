"""The component: where it listens, what it refuses at start, how it ends."""

from __future__ import annotations

import asyncio
import socket
from http import HTTPStatus

import pytest
from tests.gateway.conftest import DEADLINE_S, ENV, FEED, Gateway
from websockets.asyncio.client import connect

from ssmd.clock import SystemClock
from ssmd.errors import Conflict, Malformed, Misconfigured, Rejected, SsmdError, Unavailable, UnknownFrame
from ssmd.gateway.app import GatewayLimits, GatewayService, Surroundings
from ssmd.gateway.hub_limits import HubLimits
from ssmd.gateway.problems import problem_of, status_of
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.streams.transport_memory import MemoryTransport


def service(host: str = "127.0.0.1", port: int = 0) -> GatewayService:
    return GatewayService(MemoryTransport(), env=ENV, feed=FEED, host=host, port=port, clock=SystemClock())


async def test_a_taken_port_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Misconfigured) as refused:
            await service(port=port).run()
    assert refused.value.message == f"the gateway cannot listen on 127.0.0.1:{port}: the port is taken"
    assert refused.value.mend == (
        f"see who has it: ss -ltnp 'sport = :{port}'; or set another port (0 = any free one) in "
        "exchanges/environments/test.yaml, gateway.host and gateway.port"
    )


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
async def test_an_address_that_is_not_ours_is_refused(host: str) -> None:
    asking = GatewayService(
        MemoryTransport(),
        env=ENV,
        feed=FEED,
        host=host,
        port=0,
        clock=SystemClock(),
        around=Surroundings(journal=MemoryJournal(ENV)),
    )
    with pytest.raises(Misconfigured, match=f"the gateway cannot listen on {host}") as refused:
        await asking.run()
    assert refused.value.mend == "correct exchanges/environments/test.yaml, gateway.host and gateway.port"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "203.0.113.7", "desk.example"])
async def test_strangers_are_not_served_without_keys(host: str) -> None:
    with pytest.raises(Misconfigured, match=f"the gateway would serve {host} without asking for API keys") as refused:
        await service(host).run()
    assert "gateway.auth: keys" in refused.value.mend


async def test_it_ends_when_told_and_can_be_told_twice(gateway: Gateway) -> None:
    async with gateway() as running:
        assert running.service.name == "gateway"
        port = int(running.url.rpartition(":")[2])
        await running.service.flush()
        await running.service.stop()
        await running.service.stop()
        assert running.task is not None
        async with asyncio.timeout(DEADLINE_S):
            await running.task
        with socket.create_server(("127.0.0.1", port)):
            pass


async def test_a_client_that_does_not_read_does_not_put_off_the_stop(gateway: Gateway) -> None:
    limits = GatewayLimits(hub=HubLimits(close_grace_s=60), drain_s=1)
    async with gateway(limits=limits) as running:
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        plain.connect(("127.0.0.1", int(running.url.rpartition(":")[2])))
        url = running.url.replace("http", "ws") + "/v1/stream"
        async with connect(url, sock=plain, max_queue=1, close_timeout=0.1) as client:
            await client.send('{"id":1,"cmd":"subscribe","tickers":["*"]}')
            for _ in range(40):
                await running.settled(running.put(*(running.tape.trade("A") for _ in range(200))))
            await running.service.stop()
            assert running.task is not None
            async with asyncio.timeout(DEADLINE_S):
                await running.task


async def test_cancelling_is_a_stop_without_grace() -> None:
    one = service()
    task = asyncio.create_task(one.run())
    await asyncio.wait_for(one.started.wait(), DEADLINE_S)
    task.cancel()
    await asyncio.wait([task], timeout=DEADLINE_S)
    assert task.cancelled()
    with socket.create_server(("127.0.0.1", int(one.url.rpartition(":")[2]))):
        pass


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Rejected("day-complete", "no"), HTTPStatus.UNPROCESSABLE_ENTITY),
        (Rejected("market-unknown", "no"), HTTPStatus.NOT_FOUND),
        (Conflict("moved"), HTTPStatus.CONFLICT),
        (Malformed("bytes"), HTTPStatus.BAD_REQUEST),
        (UnknownFrame("bytes"), HTTPStatus.BAD_REQUEST),
        (Unavailable("away"), HTTPStatus.SERVICE_UNAVAILABLE),
        (Misconfigured("wrong"), HTTPStatus.INTERNAL_SERVER_ERROR),
        (SsmdError("other"), HTTPStatus.INTERNAL_SERVER_ERROR),
    ],
)
def test_the_table_of_statuses(error: SsmdError, status: HTTPStatus) -> None:
    assert status_of(error) == status
    problem = problem_of(error, "/v1/x")
    assert (problem.status, problem.title, problem.detail, problem.instance) == (status, status.phrase, error.message, "/v1/x")
