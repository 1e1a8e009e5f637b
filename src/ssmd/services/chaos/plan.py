"""Which processes are killed when, by a seed: waves of strikes. A wave is over when everything is back."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from ssmd import crash_points
from ssmd.errors import Misconfigured

COMPONENTS: Final = ("connector", "raw-archiver", "normalized-archiver", "projector", "gateway")
SERVERS: Final = ("nats-transport", "nats-journal")
TARGETS: Final = (*COMPONENTS, *SERVERS)
"""What may be killed. The cache is left alone: everything in it is a fold, and its loss is `ssmd demo`'s part."""

AT_START: Final = frozenset({crash_points.SESSION_CLOSED, crash_points.AFTER_FACTS})
"""Points that are passed at a start, so the process is killed first to get it there."""

WITHIN_S: Final = 1.0


class Strike(msgspec.Struct, frozen=True):
    """One kill -9 of `target`.

    Attributes:
        point: the crash point it dies at; "" = wherever it is after `after_s` of the wave.
        nth: the how-manieth pass of the point kills.
    """

    target: str
    point: str = ""
    nth: int = 1
    after_s: float = 0.0

    @property
    def how(self) -> Literal["crash point", "random"]:
        return "crash point" if self.point else "random"


Wave = tuple[Strike, ...]


def every_crash_point(targets: Sequence[str] = TARGETS, seed: int = 0) -> list[Wave]:
    """Each named point of the targets once; several processes die in one wave, each of them once."""
    chosen = random.Random(seed)  # noqa: S311 - a plan that can be repeated, no secret
    waiting = {target: list(crash_points.OF_COMPONENT.get(target, ())) for target in targets}
    waves: list[Wave] = []
    while any(waiting.values()):
        wave = [Strike(target, points.pop(0), chosen.randint(1, 3)) for target, points in waiting.items() if points]
        # A point that is passed once a start is passed once.
        waves.append(tuple(msgspec.structs.replace(one, nth=1) if one.point in AT_START else one for one in wave))
    return waves


def random_kills(rounds: int, targets: Sequence[str] = TARGETS, seed: int = 0) -> list[Wave]:
    """`rounds` waves in each of which every target is killed once, at a random instant of the same second."""
    chosen = random.Random(seed)  # noqa: S311 - as above
    return [tuple(Strike(target, after_s=round(chosen.uniform(0.0, WITHIN_S), 3)) for target in targets) for _ in range(rounds)]


def checked_targets(names: Sequence[str]) -> tuple[str, ...]:
    """The targets meant; none = all.

    Raises:
        Misconfigured: one is no target.
    """
    for name in names:
        if name not in TARGETS:
            raise Misconfigured(f"{name!r} cannot be killed", mend=f"one of: {', '.join(TARGETS)}")
    return tuple(dict.fromkeys(names)) or TARGETS
