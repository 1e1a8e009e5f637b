"""Where the library's synchronous recorders meet our async streams: one thread that runs an event loop.

Everything of a factory lives on its loop; any thread may call. The loop ends with `close`, or when nobody holds it any
more; what was opened on it is closed first.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any, Final, TypeVar

from eventsourcing.persistence import DataError, IntegrityError, InterfaceError, OperationalError, ProgrammingError

from ssmd.errors import Conflict, Malformed, Misconfigured, Rejected, SsmdError, Unavailable

Result = TypeVar("Result")
Closer = Callable[[], Awaitable[None]]

STOP_TIMEOUT_S: Final = 10.0

_ERRORS: Final[tuple[tuple[type[SsmdError], type[Exception]], ...]] = (
    (Conflict, IntegrityError),
    (Unavailable, OperationalError),
    (Malformed, DataError),
    (Rejected, ProgrammingError),
    (Misconfigured, InterfaceError),
)


@contextmanager
def translated() -> Iterator[None]:
    """Our errors as the library's (PEP 249 names)."""
    try:
        yield
    except SsmdError as error:
        kind = next((theirs for ours, theirs in _ERRORS if isinstance(error, ours)), OperationalError)
        raise kind(f"{error.message}{f' ({error.mend})' if error.mend else ''}") from error


class LoopThread:
    """See the module. `closers` run on the loop when it ends, the last one added first."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._closers: list[Closer] = []
        self._thread = Thread(target=_serve, args=(self._loop, self._closers), name=name, daemon=True)
        self._thread.start()
        self._finalizer = weakref.finalize(self, _stop, self._loop, self._thread)

    @property
    def is_closed(self) -> bool:
        return not self._finalizer.alive

    def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What `work` comes to on the loop; this thread waits. Each `work` bounds its own waits.

        Raises:
            InterfaceError: closed.
            the library's errors for ours.
        """
        if self.is_closed:
            work.close()
            raise InterfaceError("the connection to JetStream is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            with translated():
                return future.result()
        except BaseException:
            future.cancel()
            raise

    def on_close(self, closer: Closer) -> None:
        self._closers.append(closer)

    def start(self, work: Coroutine[Any, Any, None]) -> Callable[[], None]:
        """Let `work` run on the loop until it ends or the returned function, which any thread may call, is called."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)

        def cancel() -> None:
            if not self.is_closed:
                future.cancel()

        return cancel

    def close(self) -> None:
        """Close everything and end the thread. Safe to call twice."""
        self._finalizer()


def _serve(loop: asyncio.AbstractEventLoop, closers: list[Closer]) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(_wind_up(closers))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def _wind_up(closers: list[Closer]) -> None:
    own = asyncio.current_task()
    running = [task for task in asyncio.all_tasks() if task is not own]
    for closer in reversed(closers):
        # A server that is away does not keep the loop from ending.
        with suppress(SsmdError, TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S / 2):
                await closer()
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def _stop(loop: asyncio.AbstractEventLoop, thread: Thread) -> None:
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=STOP_TIMEOUT_S)
