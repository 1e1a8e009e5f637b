"""Commands on one connection that the venue has not answered, and how long to wait before asking again.

Nothing that is wanted is ever given up: what was refused for now, or not answered, is asked again, each time after twice
the wait. (A replayed capture answers nothing, so asking again must stay rare.)
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

ANSWER_S: Final = 10.0
"""How long an answer may take."""
SNAPSHOTS_S: Final = 30.0
"""How long the last of the snapshots asked for may take."""
WAIT_FIRST_S: Final = 1.0
WAIT_MAX_S: Final = 300.0

Action = Literal["subscribe", "add", "delete", "snapshot", "unsubscribe"]


class Command(NamedTuple):
    """A command sent. `tickers`: those it is about; `due_s`: when its answer is overdue."""

    action: Action
    channel: str
    tickers: frozenset[str]
    due_s: float


class Asked:
    """All of one connection's, by (command id, channel): a `subscribe` is answered once per channel.

    Attributes:
        now_s: as of the last tick.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self._open: dict[tuple[int, str], Command] = {}
        # Channel -> (not before, wait after the next refusal).
        self._waits: dict[str, tuple[float, float]] = {}

    def sent(self, number: int, action: Action, channel: str, tickers: frozenset[str]) -> None:
        """The command `number` is on its way."""
        self._open[(number, channel)] = Command(
            action, channel, tickers, self.now_s + (SNAPSHOTS_S if action == "snapshot" else ANSWER_S)
        )

    def answered(self, number: int, channel: str = "") -> Command | None:
        """The venue answered; the command, None = it is not one that waits. `channel` "" = the answer names none."""
        if channel:
            return self._open.pop((number, channel), None)
        keys = [key for key in self._open if key[0] == number]
        found = [self._open.pop(key) for key in keys]
        return found[0] if found else None

    def went_well(self, channel: str) -> None:
        """What was asked of `channel` came: the next refusal is the first again."""
        self._waits.pop(channel, None)

    def refused(self, channel: str) -> None:
        """Not now: ask `channel` nothing for a while, each time for longer."""
        _, wait_s = self._waits.get(channel, (0.0, WAIT_FIRST_S))
        self._waits[channel] = (self.now_s + wait_s, min(wait_s * 2, WAIT_MAX_S))

    def is_patient(self, channel: str) -> bool:
        """Whether `channel` is to be asked nothing now."""
        return self.now_s < self._waits.get(channel, (0.0, 0.0))[0]

    def tickers(self, channel: str, *actions: Action) -> frozenset[str]:
        """What unanswered commands of `channel` are about."""
        return frozenset[str]().union(
            *(one.tickers for one in self._open.values() if one.channel == channel and one.action in actions)
        )

    def is_asked(self, channel: str, action: Action) -> bool:
        """Whether such a command waits for its answer."""
        return any(one.channel == channel and one.action == action for one in self._open.values())

    def overdue(self) -> list[Command]:
        """Commands whose answer did not come in time; they are forgotten, and their channels wait.

        What answers a "snapshot" is its snapshots, which are not seen here: the caller has to know whether they came.
        """
        late = [key for key, one in self._open.items() if one.due_s <= self.now_s]
        found = [self._open.pop(key) for key in late]
        for channel in {one.channel for one in found if one.action != "snapshot"}:
            self.refused(channel)
        return found
