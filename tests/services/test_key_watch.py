"""A key that is watched: what is new is used, what cannot be loaded changes nothing."""

import asyncio
from collections.abc import Mapping

import pytest
import structlog

from ssmd.errors import Misconfigured
from ssmd.keys.secret import Secret
from ssmd.services.key_watch import KeyWatch

OLD, NEW = {"token": Secret("old-value")}, {"token": Secret("new-value")}


class Source:
    def __init__(self) -> None:
        self.now: Mapping[str, Secret] | Exception = OLD
        self.asked = 0

    def load(self) -> Mapping[str, Secret]:
        self.asked += 1
        if isinstance(self.now, Exception):
            raise self.now
        return self.now


async def test_another_value_is_used_and_told_once() -> None:
    source, told = Source(), list[Mapping[str, Secret]]()
    changed = asyncio.Event()

    def on_change(fields: Mapping[str, Secret]) -> None:
        told.append(fields)
        changed.set()

    async with KeyWatch("k", source.load, OLD, on_change, every_s=0.01, settle_s=0.0) as watch:
        source.now = NEW
        async with asyncio.timeout(60):
            await changed.wait()
        assert watch.current == NEW
        seen = source.asked
        async with asyncio.timeout(60):
            while source.asked < seen + 3:
                await asyncio.sleep(0.01)
    assert told == [NEW]
    after = source.asked
    await asyncio.sleep(0.05)
    assert source.asked == after  # nothing outlives the block


async def test_what_cannot_be_loaded_or_is_gone_changes_nothing_and_is_logged_once() -> None:
    source = Source()
    watch = KeyWatch("k", source.load, OLD, settle_s=0.0)
    with structlog.testing.capture_logs() as logs:
        source.now = Misconfigured("half written")
        assert not await watch.refresh()
        assert not await watch.refresh()
        source.now = {}
        assert not await watch.refresh()
        source.now = OLD
        assert not await watch.refresh()
        assert watch.current == OLD
        source.now = NEW
        assert await watch.refresh()
    assert watch.current == NEW
    assert [(log["event"], log.get("reason")) for log in logs] == [("key-not-loaded", "half written"), ("key-changed", None)]
    assert "value" not in str(logs)


async def test_fields_that_are_still_being_written_are_not_taken() -> None:
    halves = iter([{"token": Secret("new"), "id": Secret("old")}, {"token": Secret("new"), "id": Secret("new")}])
    watch = KeyWatch("k", lambda: next(halves), OLD, settle_s=0.0)
    assert not await watch.refresh()
    assert watch.current == OLD


async def test_an_error_nobody_foresaw_is_not_hidden() -> None:
    source = Source()
    source.now = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await KeyWatch("k", source.load, OLD, settle_s=0.0).refresh()
