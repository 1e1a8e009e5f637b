"""What every component's process answers on its control subjects, over a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from tests.wiring.test_system_status import environment_of

from ssmd import __version__
from ssmd.errors import Rejected, Unavailable
from ssmd.services.component import Health
from ssmd.services.ended_tasks import end_tasks
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
        async with asyncio.timeout(20):
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
        refused = {"ok": False, "reason": "what gap?", "kind": "Rejected", "rule": "no-such-gap", "mend": "ssmd data gaps"}
        assert await asked("repair", b"x") == refused
        assert not stopping.is_set()
        assert await asked("stop") == {"ok": True, "reason": ""}
        assert stopping.is_set()
    finally:
        await end_tasks([serving])
        await client.close()
