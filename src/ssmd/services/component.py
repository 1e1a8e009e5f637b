"""What every long-lived component is to the process that runs it and to whoever asks over the control subjects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import msgspec


class Health(msgspec.Struct, frozen=True):
    """A component's own word on itself.

    Attributes:
        ok: does its job now.
        reason: why not, naming the cause ("transport unreachable for 12 s"), "" when ok.
        stats: counters and positions by name; exact integers or text.
    """

    ok: bool
    reason: str = ""
    stats: dict[str, int | str] = {}


class Component(Protocol):
    """A connector, archiver, projector, gateway or simulator.

    `run` returns after `stop`, or raises what made it impossible to go on; cancelling it is a stop without grace.
    """

    @property
    def name(self) -> str:
        """Kind of component ("raw-archiver"), the control subject's token."""
        ...

    @property
    def instance(self) -> str:
        """Which one of its kind ("main")."""
        ...

    async def run(self) -> None: ...

    async def stop(self) -> None:
        """Finish what is held, then let `run` return. Safe to call twice."""
        ...

    async def flush(self) -> None:
        """Make durable what is held (archivers: seal); a component that holds nothing does nothing."""
        ...

    def health(self) -> Health: ...


@runtime_checkable
class Questioned(Protocol):
    """A component that answers more than every component does."""

    def questions(self) -> Mapping[str, Callable[[bytes], Awaitable[Mapping[str, Any]]]]:
        """By verb: takes what the question tells (JSON), answers {"ok": true, ...} or raises an SsmdError."""
        ...
