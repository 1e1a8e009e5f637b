"""Cancelling while connecting is never lost, at whatever moment it comes."""

from __future__ import annotations

import asyncio
import gc

import pytest

from ssmd.streams.connection import Connection


# A client that is cancelled while it opens its socket leaves it to the garbage collector; only the cancelling is tested.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_a_cancelled_connect_is_cancelled(transport_url: str, turns: int) -> None:
    async def connect_for_ever() -> None:
        while True:
            connection = await Connection.open(transport_url, name="test", timeout_s=30)
            await connection.close()

    task = asyncio.create_task(connect_for_ever())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=10)
    assert task.cancelled()
    del task
    gc.collect()
