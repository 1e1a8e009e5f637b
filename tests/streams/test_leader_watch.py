"""A write that waits for a lost leader is let go when there is another; one that waits for a slow leader is not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from ssmd.errors import Unavailable
from ssmd.identifiers import system_random
from ssmd.streams import leader_watch
from ssmd.streams.connection import ApiRefused, Connection
from ssmd.streams.leader_watch import LeaderWatch, ask
from ssmd.streams.stream_access import StreamAccess


class Scripted:
    """A connection whose questions are answered as `script` says: an answer, a refusal, or None = by nobody in time."""

    def __init__(self, script: Sequence[dict[str, Any] | ApiRefused | None]) -> None:
        self.script = list(script)
        self.asked = 0
        self.is_open = True
        self.abandoned = asyncio.Event()

    async def api(self, verb: str, body: Any, *, timeout_s: float) -> dict[str, Any]:
        del verb, body
        self.asked += 1
        answer = self.script.pop(0) if self.script else {}
        if answer is None:
            await asyncio.sleep(timeout_s)
            raise Unavailable("no reply")
        if isinstance(answer, ApiRefused):
            raise answer
        return answer

    async def abandon(self) -> None:
        self.is_open = False
        self.abandoned.set()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader_watch, "ASK_AGAIN_S", 0.01)
    monkeypatch.setattr(leader_watch, "WATCH_AFTER_S", 0.01)


EMPTY = ApiRefused("no message found", code=404, err_code=10037)


@pytest.mark.parametrize("answer", [{}, EMPTY], ids=["a message", "an empty stream"])
async def test_silence_and_then_an_answer_ends_the_waiting(answer: Any) -> None:
    connection = Scripted([{}, None, None, answer])
    watch = LeaderWatch("s")
    with watch.waiting(cast("Connection", connection)):
        async with asyncio.timeout(60):
            await connection.abandoned.wait()
    assert connection.asked == 4
    await watch.close()


async def test_a_slow_leader_is_waited_for() -> None:
    connection = Scripted([{}, None, {}, None, EMPTY, None])
    watch = LeaderWatch("s")
    with watch.waiting(cast("Connection", connection)):
        async with asyncio.timeout(60):
            while connection.asked < 8:
                await asyncio.sleep(0)
    await watch.close()
    assert not connection.abandoned.is_set()


async def test_nobody_is_asked_while_writes_are_answered_in_time() -> None:
    connection = Scripted([])
    watch = LeaderWatch("s")
    for _ in range(3):
        with watch.waiting(cast("Connection", connection)):
            pass
    await asyncio.sleep(0.05)
    await watch.close()
    assert connection.asked == 0


async def test_a_question_is_asked_again_until_somebody_answers_or_the_deadline_comes() -> None:
    answered = Scripted([None, None, {"here": 1}])
    assert await ask(cast("Connection", answered), "X", None, timeout_s=10) == {"here": 1}
    assert answered.asked == 3
    silent = Scripted([None] * 100)
    with pytest.raises(Unavailable, match="no reply"):
        await ask(cast("Connection", silent), "X", None, timeout_s=0.05)
    with pytest.raises(ApiRefused):
        await ask(cast("Connection", Scripted([None, EMPTY])), "X", None, timeout_s=10)


class Unanswered(Scripted):
    """What is written on it, nobody acknowledges."""

    async def request(self, *_: object, **_options: object) -> None:
        await self.abandoned.wait()
        raise Unavailable("the connection is lost")


async def test_writes_and_questions_of_a_stream_do_not_wait_for_their_deadline() -> None:
    """The promise that the killed leader's test keeps on three servers, without their elections."""
    access = StreamAccess("nats://127.0.0.1:1", "s", timeout_s=600, name="test")
    async with asyncio.timeout(60):
        with pytest.raises(Unavailable, match="is lost"):
            await access.send(cast("Connection", Unanswered([{}, None, None, {}])), [("t.x", b"{}", {})], system_random)
        access._connection = cast("Connection", Scripted([None, None, {"state": {"last_seq": 7}}]))
        assert await access.head() == 7
        access._connection = None
    await access.close()
