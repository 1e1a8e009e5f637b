"""What goes on beside the socket for as long as there is a tape: fsync, another try on a full disk, the follower's start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ssmd import crash_points
from ssmd.errors import Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.services.connector.tape_follower import TapeFollower
from ssmd.streams.backoff import backoff_s
from ssmd.streams.publisher import OrderedPublisher
from ssmd.streams.tape import TapeWriter

STOPPING_TRIES: Final = 4
STOPPING_PAUSE_S: Final = 0.5
"""How often, and how far apart, a connector told to stop still tries to write its last block: whoever stops it waits."""


async def until_written(
    action: Callable[[], None], random: RandomBytes, on_trouble: Callable[[str], None], stopping: asyncio.Event
) -> None:
    """Do it until it works: a full disk stops the capture until there is room; what was taken stays in memory meanwhile.

    Raises:
        Unavailable: the connector is told to stop, and there was no room for `STOPPING_TRIES` either. The session then ends
            like a killed one: the next start closes it, and its gap begins at the last frame on the tape.
    """
    attempt, left = 0, STOPPING_TRIES
    while True:
        try:
            action()
        except Unavailable as error:
            attempt += 1
            on_trouble(error.message)
            if stopping.is_set():
                left -= 1
                if left <= 0:
                    raise
                await asyncio.sleep(STOPPING_PAUSE_S)
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), backoff_s(attempt, random, first_s=0.2, max_s=5.0))
        else:
            return


async def sync_tape(
    tape: TapeWriter, every_s: float, crash_point: crash_points.CrashPoint, on_trouble: Callable[[str], None]
) -> None:
    """Group fsync, until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await asyncio.to_thread(tape.sync)
            crash_point(crash_points.AFTER_TAPE_SYNC)
        except Unavailable as error:
            on_trouble(error.message)


async def follow(follower: TapeFollower, publisher: OrderedPublisher, random: RandomBytes) -> None:
    """Run the follower from where the streams are, once they can be asked."""
    attempt = 0
    while True:
        try:
            reached = await publisher.begin()
            break
        except Unavailable as error:
            publisher.away = error.message
            attempt += 1
            await asyncio.sleep(backoff_s(attempt, random, max_s=2.0))
    publisher.away = ""
    await follower.run(reached)
