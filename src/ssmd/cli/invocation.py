"""What every command knows: the workspace, the environment that is meant, how to print."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from ssmd.clock import Clock, SystemClock, date_of
from ssmd.errors import Misconfigured
from ssmd.identifiers import system_random, uuid7
from ssmd.settings import Workspace, find_workspace, variables

if TYPE_CHECKING:
    from ssmd.wiring.environment import ResolvedEnvironment

Result = TypeVar("Result")


@dataclass(frozen=True)
class Invocation:
    """The global options of one command line.

    Attributes:
        command: its first word ("key").
        request_id: the correlation id of all that it leads to.
    """

    env: str = ""
    workspace_given: str = ""
    color: bool = True
    clock: Clock = field(default_factory=SystemClock)
    command: str = ""
    request_id: str = field(default_factory=lambda: uuid7(SystemClock().now_ns(), system_random))

    @property
    def variables(self) -> Mapping[str, str]:
        return variables()

    @property
    def workspace(self) -> Workspace:
        given = self.workspace_given or self.variables.get("SSMD_WORKSPACE", "")
        if given and not Path(given).is_dir():
            raise Misconfigured(f"workspace {given} is not a directory", mend="name the directory that holds exchanges/")
        return find_workspace(Path.cwd(), given)

    @property
    def today(self) -> str:
        """UTC date."""
        return date_of(self.clock.now_ns())

    def environment_name(self, given: str = "") -> str:
        """The environment that is meant; `given` is one named as an argument."""
        from ssmd.wiring.environment import choose_environment  # noqa: PLC0415 - keeps --help quick

        return choose_environment(self.workspace, given or self.env, self.variables)

    def resolve(self, given: str = "") -> ResolvedEnvironment:
        """The environment that is meant, checked, as of today."""
        from ssmd.wiring.environment import resolve_environment  # noqa: PLC0415 - keeps --help quick

        return resolve_environment(self.workspace, self.environment_name(given), self.today)

    def actor(self) -> str:
        """Who types ("cli:anna")."""
        import getpass  # noqa: PLC0415 - keeps --help quick

        try:
            return f"cli:{getpass.getuser()}"
        except (KeyError, OSError):  # a user id without a name, as in a container
            return f"cli:{os.getuid()}"


_AT_WORK: ContextVar[Invocation | None] = ContextVar("invocation", default=None)


def begin(invocation: Invocation) -> Invocation:
    """This command line is carried out from now on."""
    _AT_WORK.set(invocation)
    return invocation


def invocation_of(ctx: typer.Context) -> Invocation:
    """The global options, from any command's context."""
    found = ctx.find_root().obj
    if not isinstance(found, Invocation):
        raise TypeError("a command was called without its root group")
    return found


@contextmanager
def _requested() -> Generator[None]:
    """A block of work for this command line: logged where SSMD_LOG_LEVEL is set, traced where OTEL_* variables say so."""
    import sys  # noqa: PLC0415 - as below

    from ssmd.telemetry import request, tracing  # noqa: PLC0415 - keeps --help quick

    invocation = _AT_WORK.get() or Invocation()
    if invocation.variables.get("SSMD_LOG_LEVEL"):
        from ssmd.telemetry.logging import configure_logging, log_level  # noqa: PLC0415 - as above

        configure_logging("cli", invocation.clock, sys.stderr, level=log_level(invocation.variables))
    end = tracing.begin("cli", invocation.actor(), invocation.env, invocation.variables)
    try:
        with request.begun(invocation.request_id), tracing.span(f"ssmd {invocation.command}".rstrip()):
            yield
    finally:
        end()


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run an async procedure to its end; Ctrl-C and SIGTERM cancel it, and its `finally` blocks run.

    Raises:
        KeyboardInterrupt: it was cancelled so.
    """
    import asyncio  # noqa: PLC0415 - keeps --help quick
    import signal  # noqa: PLC0415 - as above

    async def until_told() -> Result:
        working = asyncio.ensure_future(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
        return await working

    try:
        with _requested():
            return asyncio.run(until_told())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        work.close()  # where it was never begun: a setting was wrong


def checked_date(text: str) -> str:
    """`text` if it is a calendar date YYYY-MM-DD (callback of --date options); "" stays ""."""
    from ssmd.registry.conversion import is_date  # noqa: PLC0415 - keeps --help quick

    if text and not is_date(text):
        raise typer.BadParameter(f"{text!r} is not a calendar date YYYY-MM-DD")
    return text
