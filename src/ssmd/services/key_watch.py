"""One key as it is now: loaded again every few seconds, so that a rotated key is used without a restart.

Who signs asks `current` each time. What cannot be loaded (a file half written, Vault away) changes nothing: the last good
value stays in use, and the log says so once. Loading blocks, so it is done beside the loop, one at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

from ssmd.errors import SsmdError
from ssmd.keys.secret import Secret
from ssmd.telemetry.structured import structlog

WATCH_S: Final = 5.0
"""How often a key is looked at. Kubernetes itself takes up to a minute to show a changed Secret to a pod."""
LOAD_S: Final = 20.0
"""How long one look may take."""
SETTLE_S: Final = 0.5
"""Another value must still be there this much later: the fields of a key may be written one after the other."""

Fields = Mapping[str, Secret]


class KeyWatch:
    """See the module. Watches from entering to leaving.

    Args:
        name: of the key, for the log.
        load: its fields as they are stored now; blocks; raises SsmdError.
        fields: as they are at the start.
        on_change: told the new fields once they are in use.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], Fields],
        fields: Fields,
        on_change: Callable[[Fields], None] = lambda _: None,
        *,
        every_s: float = WATCH_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._name = name
        self._load = load
        self._on_change = on_change
        self._every_s = every_s
        self._settle_s = settle_s
        self._one_at_a_time = asyncio.Lock()
        self._told = ""
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("keys").bind(key=name)
        self.current: Fields = fields

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch(), name=f"key {self._name}")
        self._task.add_done_callback(self._on_ended)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            # Not its text: a driver's may hold what it was given.
            self._log.error("key-not-watched", reason=type(error).__name__, mend="restart this process")

    async def refresh(self) -> bool:
        """Look now; whether the key is another one than before."""
        async with self._one_at_a_time:
            try:
                fields = await self._look()
                if not self._is_other(fields):
                    return False
                await asyncio.sleep(self._settle_s)
                if fields != await self._look():
                    return False
            except (SsmdError, TimeoutError) as error:
                self._tell(error.message if isinstance(error, SsmdError) else f"no answer within {LOAD_S:g} s")
                return False
            self.current = fields
        self._log.info("key-changed")
        self._on_change(fields)
        return True

    async def _look(self) -> Fields:
        async with asyncio.timeout(LOAD_S):
            fields = await asyncio.to_thread(self._load)
        self._told = ""
        return fields

    def _is_other(self, fields: Fields) -> bool:
        # A key that is gone, but was there, is no reason to stop signing with it: the venue decides.
        return bool(fields) and fields != self.current

    def _tell(self, reason: str) -> None:
        if reason != self._told:
            self._log.warning("key-not-loaded", reason=reason, mend=f"ssmd key verify {self._name}")
        self._told = reason

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self.refresh()
