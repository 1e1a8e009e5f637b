"""What every component's process answers on its control subjects, over a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg
from tests.wiring.test_system_status import environment_of

from ssmd import __version__
from ssmd.errors import Rejected, Unavailable
from ssmd.services.component import Health
from ssmd.services.ended_tasks import end_tasks
from ssmd.streams import subjects
from ssmd.streams.connection import Connection
from ssmd.streams.control import ControlClient
from ssmd.wiring.monitoring import MonitoredComponent
from ssmd.wiring.process import answer_control


class Part:
    """A component that is as well as it is told, and has a question of its own."""

    name, instance = "connector", "main"

    def __init__(self) -> None:
        self.now = Health(ok=True, stats={"frames": 3})
        self.flushed = 0

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def stop(self) -> None:
        return

    async def flush(self) -> None:
        self.flushed += 1
        if self.flushed > 1:
            raise Unavailable("the streams are away", mend="wait")

    def health(self) -> Health:
        return self.now

    def questions(self) -> Mapping[str, Callable[[bytes], Awaitable[Mapping[str, Any]]]]:
        async def repair(payload: bytes) -> Mapping[str, Any]:
            if payload == b"odd":
                raise KeyError("hunter2")
            if payload != b'{"gap":1}':
                raise Rejected("no-such-gap", "what gap?", mend="ssmd data gaps")
            return {"ok": True, "result": "repaired"}

        return {"repair": repair}


async def test_every_verb_is_answered_and_who_is_not_well_takes_part_in_no_day(
    tmp_path: Path, transport_url: str, fresh_env: str
) -> None:
    environment = environment_of(tmp_path, fresh_env, transport_url)
    part, stopping = Part(), asyncio.Event()
    serving = asyncio.create_task(answer_control(environment, {}, MonitoredComponent(part, {"metrics_url": "m"}), stopping))
    client = await ControlClient.open(transport_url, fresh_env)

    async def asked(verb: str, payload: bytes = b"") -> Mapping[str, Any]:
        return await client.request("connector", "main", verb, 5, payload)

    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    await asked("repair")  # the last one to be there
                    break
                except Unavailable:
                    await asyncio.sleep(0.02)
        assert [one.version for one in await client.roll_call(5, 1)] == [__version__]
        assert await asked("start") == {"ok": True, "reason": ""}
        assert await asked("health") == {"ok": True, "reason": "", "stats": {"frames": 3, "metrics_url": "m"}}
        assert await asked("flush") == {"ok": True, "reason": ""}
        away = {"ok": False, "reason": "the streams are away", "kind": "Unavailable", "rule": "", "mend": "wait"}
        assert await asked("drain") == away
        part.now = Health(ok=False, reason="the venue refuses the key")
        assert await asked("start") == {"ok": False, "reason": "the venue refuses the key"}
        assert await asked("repair", b'{"gap":1}') == {"ok": True, "result": "repaired"}
        # Its text is for the log of the component alone.
        unforeseen = {"ok": False, "reason": "unforeseen: KeyError", "kind": "KeyError", "rule": "", "mend": "see its log"}
        assert await asked("repair", b"odd") == unforeseen
        refused = {"ok": False, "reason": "what gap?", "kind": "Rejected", "rule": "no-such-gap", "mend": "ssmd data gaps"}
        assert await asked("repair", b"x") == refused
        assert not stopping.is_set()
        assert await asked("stop") == {"ok": True, "reason": ""}
        assert stopping.is_set()
    finally:
        await end_tasks([serving])
        await client.close()


async def test_an_answer_that_is_none_is_no_answer(transport_url: str, fresh_env: str) -> None:
    connection = await Connection.open(transport_url, name="odd", timeout_s=30)
    client = await ControlClient.open(transport_url, fresh_env)
    answers = [b"", b"[1]", b"not JSON"]

    async def answer(msg: Msg) -> None:
        await msg.respond(answers.pop(0))

    await connection.subscribe(subjects.service(fresh_env, "connector", "main", "health"), answer)
    await connection.client.flush()
    try:
        for _ in range(3):
            with pytest.raises(Unavailable, match="connector main gave no answer to health that could be read"):
                await client.request("connector", "main", "health", 5)
    finally:
        await client.close()
        await connection.close()
