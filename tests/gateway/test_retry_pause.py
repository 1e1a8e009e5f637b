"""Pauses between tries grow up to their bound, differ by chance, and begin anew after an answer."""

from __future__ import annotations

import asyncio

import pytest

from ssmd.gateway import retry_pause
from ssmd.gateway.retry_pause import RetryPause


async def pauses(pause: RetryPause, count: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "sleep", sleep)
        for _ in range(count):
            await pause.wait()
    return slept


async def test_they_double_to_their_bound_and_begin_anew_after_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pause = RetryPause(lambda size: b"\xff" * size)
    assert await pauses(pause, 6, monkeypatch) == [0.2, 0.4, 0.8, 1.6, retry_pause.MAX_S, retry_pause.MAX_S]
    pause.answered()
    assert await pauses(pause, 1, monkeypatch) == [0.2]


async def test_two_do_not_wait_equally_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await pauses(RetryPause(bytes), 2, monkeypatch) == [0.1, 0.2]
