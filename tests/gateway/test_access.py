"""Keys: what becomes of connections, limits, other sites, TLS, the log. The matrix is in test_authorization.py."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog
import websockets
from tests.gateway.certificates import write_certificate
from tests.gateway.conftest import DEADLINE_S, Gateway, Running

from ssmd.application.handler import Application
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.clock import DayCalendar, SystemClock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.client import DECIDER, ClientCommand, CreateClient, DisconnectClient, RevokeClient, SetMode
from ssmd.errors import Rejected
from ssmd.gateway.api_keys import NewKey, client_id_of, fingerprint_of, grant_of, make_key
from ssmd.gateway.app import GatewayLimits
from ssmd.gateway.gate import GateLimits
from ssmd.gateway.past_books import PastBooks
from ssmd.gateway.server import TlsFiles
from ssmd.projections.views import fold_views
from ssmd.streams.journal_memory import MemoryJournal

ALL = ("stream", "markets", "records")


class Desk:
    """A journal with clients, and whoever makes them."""

    def __init__(self) -> None:
        self.journal = MemoryJournal("test")
        self.clock = SystemClock()
        self.application = Application(self.journal, CATALOGUE, self.clock, os.urandom)

    async def make(self, *scopes: str, **options: Any) -> NewKey:
        key = make_key(os.urandom)
        await self.tell(key, CreateClient("a bot", key.fingerprint, scopes or ALL, **options))
        return key

    async def tell(self, key: NewKey, command: ClientCommand) -> None:
        await self.application.handle(DECIDER, (key.client_id,), command, actor="test")

    def around(self) -> dict[str, Any]:
        @contextlib.asynccontextmanager
        async def views() -> AsyncIterator[Any]:
            yield await fold_views(self.journal)

        past = PastBooks(MemoryStorage(), "test", "kalshi", DayCalendar())
        return {"journal": self.journal, "views": views, "listings": self.journal, "past": past}


async def ready(running: Running) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not running.service.health().ok:
            await asyncio.sleep(0.001)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


async def handshake(running: Running, key: str) -> int:
    """HTTP status of the WebSocket handshake."""
    url = running.url.replace("http", "ws", 1) + "/v1/stream"
    try:
        async with websockets.connect(url, additional_headers=bearer(key)):
            return 101
    except websockets.InvalidStatus as refused:
        return refused.response.status_code


async def test_a_browser_shows_its_key_as_a_subprotocol(gateway: Gateway) -> None:
    desk = Desk()
    key = await desk.make("stream")
    async with gateway(**desk.around()) as running:
        await ready(running)
        url = running.url.replace("http", "ws", 1) + "/v1/stream"
        offered: Any = ["ssmd.v1", f"ssmd.key.{key.text}"]
        async with websockets.connect(url, subprotocols=offered, origin=running.url) as socket:  # type: ignore[arg-type]
            assert socket.subprotocol == "ssmd.v1"
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with websockets.connect(url, subprotocols=offered, origin="https://evil.example"):  # type: ignore[arg-type]
                pass
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (RevokeClient("lost"), "the API key was revoked"),
        (DisconnectClient("r1", "noisy"), "disconnected by the operator"),
    ],
)
async def test_connections_feel_at_once_what_becomes_of_their_key(
    gateway: Gateway, command: ClientCommand, reason: str
) -> None:
    desk = Desk()
    key, other = await desk.make(), await desk.make()
    async with gateway(**desk.around()) as running:
        await ready(running)
        async with (
            running.connect(additional_headers=bearer(key.text)) as client,
            running.connect(additional_headers=bearer(other.text)) as bystander,
        ):
            for one in (client, bystander):
                await one.command("subscribe", tickers=["*"])
                assert (await one.next())["type"] == "ack"
            await desk.tell(key, command)
            closing = await client.next()
            assert (closing["type"], closing["reason"]) == ("closing", reason)
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await client.next()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, reason)
            assert await bystander.barrier() == []
        assert await handshake(running, key.text) == (401 if isinstance(command, RevokeClient) else 101)


async def test_a_connection_ends_when_its_key_expires(gateway: Gateway) -> None:
    desk = Desk()
    key = await desk.make(expires_ns=desk.clock.now_ns() + 2_000_000_000)
    async with gateway(**desk.around()) as running:
        await ready(running)
        async with running.connect(additional_headers=bearer(key.text)) as client:
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await client.next()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.reason == "the API key has expired"


async def test_limits_of_a_key(gateway: Gateway) -> None:
    desk = Desk()
    key, other = await desk.make(requests_per_s=1, connections_max=1), await desk.make()
    async with gateway(**desk.around()) as running, httpx.AsyncClient(base_url=running.url) as http:
        await ready(running)
        statuses = [200]
        # More than one in a second: on a machine that stands still in between, the next ones are.
        while statuses[-1] == 200 and len(statuses) < 100:
            statuses.append((await http.get("/v1/markets", headers=bearer(key.text))).status_code)
        assert (statuses[:3], statuses[-1]) == ([200, 200, 200], 429)
        assert (await http.get("/v1/markets", headers=bearer(other.text))).status_code == 200
        async with running.connect(additional_headers=bearer(key.text)):
            async with running.connect(additional_headers=bearer(key.text)) as second:
                assert (await second.next())["code"] == "too-many-connections"
            async with running.connect(additional_headers=bearer(other.text)) as third:
                assert await third.barrier() == []


async def test_set_mode_reaches_connections(gateway: Gateway) -> None:
    desk = Desk()
    key = await desk.make()
    async with gateway(**desk.around()) as running:
        await ready(running)
        async with running.connect(additional_headers=bearer(key.text)) as client:
            await client.barrier()
            await desk.tell(key, SetMode("latest"))
            async with asyncio.timeout(DEADLINE_S):
                while {one.mode for one in running.service.hub.of_key(key.client_id)} != {"latest"}:
                    await asyncio.sleep(0.001)
            assert [one.mode for one in running.service.hub.of_key(key.client_id)] == ["latest"]
            assert await client.barrier() == []  # it was told, not cut


async def test_until_it_is_known_who_may_ask_nobody_may(gateway: Gateway) -> None:
    desk = Desk()
    key = await desk.make()
    desk.journal.is_away = True
    async with gateway(**desk.around()) as running, httpx.AsyncClient(base_url=running.url) as http:
        answer = await http.get("/v1/markets", headers=bearer(key.text))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "who may ask is not known" in (await http.get("/healthz")).json()["reason"]
        desk.journal.is_away = False
        await ready(running)
        desk.journal.is_away = True
        assert (await http.get("/v1/markets", headers=bearer(key.text))).status_code == 200


async def test_the_log_knows_no_keys(gateway: Gateway) -> None:
    desk = Desk()
    key = await desk.make()
    written = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=written))
    try:
        async with gateway(**desk.around()) as running, httpx.AsyncClient(base_url=running.url) as http:
            await ready(running)
            await http.get("/v1/markets", headers=bearer(key.text))
            await http.get("/v1/markets", params={"key": key.text}, headers=bearer(key.text))
            assert await handshake(running, key.text) == 101
            assert await handshake(running, key.text[:-1]) == 401
    finally:
        structlog.reset_defaults()
    assert written.getvalue().count(key.client_id) >= 3
    assert key.text not in written.getvalue()
    assert key.text[20:40] not in written.getvalue()


async def test_requests_have_bounds(gateway: Gateway) -> None:
    limits = GatewayLimits(gate=GateLimits(target_bytes_max=500))
    async with gateway(limits=limits) as running, httpx.AsyncClient(base_url=running.url) as http:
        assert (await http.get("/v1/markets", params={"q": "x" * 600})).status_code == 414
        answer = await http.request("GET", "/v1/markets", content=b"x" * 10)
        assert (answer.status_code, answer.json()["type"]) == (413, "urn:ssmd:problem:body-refused")


async def test_only_pages_that_were_named_may_ask_from_elsewhere(gateway: Gateway) -> None:
    async with gateway(origins=("https://desk.example",)) as running, httpx.AsyncClient(base_url=running.url) as http:
        asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
        for origin, allowed in (("https://desk.example", "https://desk.example"), ("https://evil.example", None)):
            answer = await http.get("/v1/markets", headers={"Origin": origin})
            assert (answer.status_code, answer.headers.get("access-control-allow-origin")) == (200, allowed)
            preflight = await http.options("/v1/markets", headers={"Origin": origin, **asked})
            assert preflight.headers.get("access-control-allow-origin") == allowed
            assert ("access-control-allow-headers" in preflight.headers) == (allowed is not None)


async def test_without_keys_only_this_machines_names_are_answered_to(gateway: Gateway) -> None:
    async with gateway() as running, httpx.AsyncClient(base_url=running.url) as http:
        port = running.url.rpartition(":")[2]
        for host, status in ((f"localhost:{port}", 200), (f"127.0.0.1:{port}", 200), ("[::1]", 200), ("evil.example", 403)):
            assert ((await http.get("/v1/markets", headers={"Host": host})).status_code, host) == (status, host)


def test_a_key_is_long_random_and_only_its_hash_is_kept() -> None:
    keys = {make_key(os.urandom) for _ in range(50)}
    assert len({key.client_id for key in keys}) == len({key.text for key in keys}) == 50
    for key in keys:
        assert client_id_of(key.text) == key.client_id
        assert key.fingerprint == fingerprint_of(key.text)
        assert key.text.split("_", 2)[2] not in key.fingerprint
    with pytest.raises(Rejected, match="not known here"):
        grant_of("ssmd_x", None, 0)
    assert client_id_of("ssmd_aaaaaaaaaaaa_short") == ""


async def test_over_tls(gateway: Gateway, tmp_path: Path) -> None:
    certificate, private_key = write_certificate(tmp_path)
    context = ssl.create_default_context(cafile=str(certificate))
    async with gateway(tls=TlsFiles(certificate, private_key)) as running:
        assert running.url.startswith("https://127.0.0.1:")
        async with httpx.AsyncClient(base_url=running.url, verify=context) as http:
            assert (await http.get("/v1/health")).status_code == 200
        async with running.connect(ssl=context) as client:
            await client.command("subscribe", tickers=["*"])
            assert msgspec.to_builtins(await client.next())["type"] == "ack"
