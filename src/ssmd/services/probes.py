"""Whether an embedded server answers, asked over its own protocol with nothing but a socket, and whether it is ours."""

from __future__ import annotations

import asyncio
import json

from ssmd.services.processes import mark_of

LOOPBACK = "127.0.0.1"
_PROBE_S = 0.5


async def nats_ready(monitor_port: int, server_name: str) -> bool:
    """Whether the server of that name is healthy: JetStream has recovered its streams.

    A client that connects too early would lose two seconds to its own retry. Never raises.
    """
    # The name tells our server from a stranger that took the port first.
    if (await _json_at(monitor_port, "/healthz")).get("status") != "ok":
        return False
    return (await _json_at(monitor_port, "/varz")).get("server_name") == server_name


async def cache_ready(port: int, pid: int) -> bool:
    """Whether the Redis-compatible server on `port` is process `pid` and has loaded its data. Never raises."""
    answer = await _exchange(port, b"PING\r\nINFO server\r\nQUIT\r\n")
    return answer.startswith(b"+PONG") and f"process_id:{pid}\r\n".encode() in answer


async def temporal_ready(http_port: int, namespace: str, pid: int) -> bool:
    """Whether the Temporal server that listens on `http_port` has its namespace, and process `pid` lives. Never raises."""
    answer = await _json_at(http_port, f"/api/v1/namespaces/{namespace}")
    info = answer.get("namespaceInfo")
    return isinstance(info, dict) and info.get("name") == namespace and mark_of(pid) is not None


async def _json_at(port: int, path: str) -> dict[str, object]:
    # HTTP/1.0: the answer is not chunked and ends with the connection.
    answer = await _exchange(port, f"GET {path} HTTP/1.0\r\n\r\n".encode())
    try:
        document = json.loads(answer.partition(b"\r\n\r\n")[2])
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


async def _exchange(port: int, request: bytes) -> bytes:
    """All that a loopback port answers until it closes; b"" when it refuses or is slow."""
    try:
        async with asyncio.timeout(_PROBE_S):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(request)
                await writer.drain()
                return await reader.read(-1)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""
