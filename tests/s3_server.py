"""A real S3 server from its wheel, for tests and soaks."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import httpx

from ssmd.services.processes import spawn, stop_child


class S3Server(NamedTuple):
    """A SeaweedFS of the tests; buckets are made when first written to."""

    url: str
    access_key: str
    secret_key: str
    child: subprocess.Popen[bytes]


_WEED_PORTS = ("s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
               "filer.port", "filer.port.grpc", "admin.port")  # fmt: skip
_WEED_FLAGS = ("master.telemetry=false", "s3.port.iceberg=0", "s3.port.lance=0", "webdav=false", "admin.ui=false")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


async def start_s3(program: Path, directory: Path) -> S3Server:
    """The server `program` (weed) in `directory`, once it answers; `processes.stop_child` its child."""
    access_key, secret_key = "tester", secrets.token_hex(16)
    identity = {"name": "tester", "credentials": [{"accessKey": access_key, "secretKey": secret_key}], "actions": ["Admin"]}
    (directory / "data").mkdir(parents=True)
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = _free_ports(len(_WEED_PORTS))
    flags = [f"-{name}={port}" for name, port in zip(_WEED_PORTS, ports, strict=True)] + [f"-{flag}" for flag in _WEED_FLAGS]
    argv = [str(program), "mini", "-dir", str(directory / "data"), "-ip", "127.0.0.1", f"-s3.config={directory / 's3.json'}"]
    server = S3Server(
        f"http://127.0.0.1:{ports[0]}", access_key, secret_key, spawn([*argv, *flags], log_path=directory / "log")
    )
    try:
        async with asyncio.timeout(60), httpx.AsyncClient() as client:
            while True:
                with suppress(httpx.TransportError):
                    # Unsigned: refused by the S3 part once it is there, and all it needs with it.
                    if (await client.put(f"{server.url}/ready/x", content=b"1")).status_code == 403:
                        return server
                await asyncio.sleep(0.05)
    except TimeoutError:
        await stop_child(server.child)
        raise AssertionError((directory / "log").read_text()[-2000:]) from None
