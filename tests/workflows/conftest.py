from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from ssmd.services.embedded_servers import RunningServer
from ssmd.services.embedded_temporal import start_temporal
from ssmd.workflows.connection import NAMESPACE


@pytest.fixture(scope="session")
def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real Temporal server, shared by a worker's tests: environments have names of their own."""
    server = asyncio.run(start_temporal(tmp_path_factory.mktemp("servers") / "temporal", NAMESPACE))
    yield server
    asyncio.run(server.stop(grace_s=0.1))
