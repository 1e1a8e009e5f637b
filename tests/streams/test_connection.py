"""One connection, one life: what happens to those who wait, and to what was buffered."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ssmd.errors import Misconfigured, Unavailable
from ssmd.services.embedded_servers import find_nats_server, start_nats
from ssmd.streams.connection import ApiRefused, Connection
from ssmd.streams.server_urls import redacted, servers_of


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_nobody_there_is_unavailable_at_once() -> None:
    url = f"nats://someone:hunter2@127.0.0.1:{_free_port()}"
    started = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable) as raised:
        await Connection.open(url, name="test", timeout_s=120)
    assert asyncio.get_running_loop().time() - started < 30
    assert "hunter2" not in str(raised.value)


async def test_a_server_that_says_nothing_is_unavailable_after_the_deadline() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(Unavailable, match=r"within 0\.2 s"):
            await Connection.open(f"nats://127.0.0.1:{deaf.getsockname()[1]}", name="test", timeout_s=0.2)


@pytest.mark.parametrize("url", ["nats://me:secret@127.0.0.1:notaport", "127.0.0.1:4222", "nats://", "", "http://host:1"])
async def test_no_url_is_misconfigured(url: str) -> None:
    with pytest.raises(Misconfigured, match="not the url of a NATS server") as raised:
        await Connection.open(url, name="test", timeout_s=0.2)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("greeting", [b"", b'INFO {"server_id":"x","version":"2.15.1","max_payload":1000}\r\n'])
async def test_a_server_that_hangs_up_is_unavailable(greeting: bytes) -> None:
    gone: list[asyncio.Event] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone.append(asyncio.Event())
        if greeting:
            writer.write(greeting)
            await reader.readline()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        gone[-1].set()

    listening = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    with pytest.raises(Unavailable, match="no NATS server"):
        await Connection.open(f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}", name="test", timeout_s=30)
    listening.close()
    await listening.wait_closed()
    assert gone
    for one in gone:
        await one.wait()


async def test_a_wrong_password_is_misconfigured(tmp_path: Path) -> None:
    port = _free_port()
    config = tmp_path / "nats.conf"
    config.write_text(f'listen: "127.0.0.1:{port}"\nauthorization {{ user: me, password: hunter2 }}\n')
    server = await asyncio.create_subprocess_exec(find_nats_server(), "-c", config, stderr=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    connection = await Connection.open(f"nats://me:hunter2@127.0.0.1:{port}", name="test", timeout_s=30)
                    break
                except Unavailable:
                    await asyncio.sleep(0.01)
        await connection.close()
        for url in (f"nats://me:wrong@127.0.0.1:{port}", f"nats://127.0.0.1:{port}"):
            with pytest.raises(Misconfigured, match="does not let us in") as raised:
                await Connection.open(url, name="test", timeout_s=30)
            assert "wrong" not in str(raised.value)
    finally:
        server.terminate()
        await server.wait()


async def test_a_connection_that_is_reset_with_bytes_to_send_is_known_to_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reset(*_: object) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    server = await start_nats(tmp_path / "nats", sync_always=False)
    try:
        connection = await Connection.open(server.url, name="test", timeout_s=30)
        client: Any = connection.client
        for method in ("read", "drain"):
            monkeypatch.setattr(client._transport, method, reset)
        client._pending, client._pending_data_size = [b"PING\r\n"], 6
        await client._read_loop()
        assert connection.lost.is_set()
        assert "reset by peer" in connection.reason
        await connection.abandon()
    finally:
        await server.stop()


async def test_requests_fail_when_the_server_dies_not_at_their_deadline(tmp_path: Path) -> None:
    server = await start_nats(tmp_path / "nats", sync_always=False)
    try:
        connection = await Connection.open(server.url, name="test", timeout_s=30)
        answered = asyncio.Event()

        async def never(_: object) -> None:
            answered.set()

        await connection.subscribe("deaf", never)
        asked = asyncio.create_task(connection.request("deaf", b"?", timeout_s=60))
        async with asyncio.timeout(30):
            await answered.wait()
        server.kill()
        async with asyncio.timeout(30):
            with pytest.raises(Unavailable, match="is lost"):
                await asked
        assert not connection.is_open
        with pytest.raises(Unavailable, match="is lost"):
            await connection.publish("anything", b"")
        await connection.close()
    finally:
        await server.stop()


async def test_abandoned_connections_send_nothing_more(transport_url: str) -> None:
    listener = await Connection.open(transport_url, name="listener", timeout_s=30)
    heard: list[bytes] = []

    async def hear(msg: object) -> None:
        heard.append(msg.data)  # type: ignore[attr-defined]

    inbox = listener.new_inbox()
    await listener.subscribe(inbox, hear)
    await listener.client.flush()
    writer = await Connection.open(transport_url, name="writer", timeout_s=30)
    # Without giving the loop a turn, the message is still in this process.
    await writer.publish(inbox, b"late")
    await writer.abandon()
    await writer.abandon()
    other = await Connection.open(transport_url, name="other", timeout_s=30)
    await other.publish(inbox, b"after")
    await other.close()
    async with asyncio.timeout(30):
        while not heard:
            await listener.client.flush()
    assert heard == [b"after"]
    await listener.close()


async def test_refusals_carry_the_servers_number(transport_url: str, fresh_env: str) -> None:
    connection = await Connection.open(transport_url, name="test", timeout_s=30)
    with pytest.raises(ApiRefused) as raised:
        await connection.api(f"STREAM.INFO.{fresh_env}", timeout_s=30)
    assert (raised.value.code, raised.value.err_code) == (404, 10059)
    with pytest.raises(Unavailable, match="nobody listens"):
        await connection.request(f"{fresh_env}.nobody", b"", timeout_s=30)
    await connection.close()


def test_urls_in_messages_hold_no_secret() -> None:
    assert redacted("nats://me:secret@one:4222, tls://two:4222") == "nats://one:4222,tls://two:4222"
    assert redacted("NATS://me:s/e@c,ret@one:4222,tls://you:s@two:1") == "NATS://one:4222,tls://two:1"
    for secret in ("s/ecret", "se,cret"):
        with pytest.raises(Misconfigured) as refused:
            servers_of(f"nats://me:{secret}@one:4222")
        assert refused.value.message == "not the url of a NATS server: 'nats://one:4222'"


def test_a_websocket_is_no_way_to_a_server() -> None:
    with pytest.raises(Misconfigured) as refused:
        servers_of("wss://me:secret@one:443")
    assert refused.value.message == "not the url of a NATS server: 'wss://one:443'"
    assert refused.value.mend.startswith("write it as nats://host:port or tls://host:port")
