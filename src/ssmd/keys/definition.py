"""What `keys` must know of a key; the registry's `KeyDefinition` has this shape."""

from __future__ import annotations

from typing import Protocol


class KeyDefinition(Protocol):
    """A key as an environment defines it: never a value."""

    @property
    def type(self) -> str:
        """kalshi-api-key | opaque."""
        ...

    @property
    def fields(self) -> tuple[str, ...]: ...

    @property
    def required(self) -> bool: ...

    @property
    def source(self) -> str:
        """Env | generated."""
        ...
