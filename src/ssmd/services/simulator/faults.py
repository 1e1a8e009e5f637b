"""Which faults are armed, which fired."""

from __future__ import annotations

from collections import Counter
from typing import get_args

from ssmd.services.simulator.config import FaultOrder, HandshakeFault, RestFault

_HANDSHAKE = frozenset(get_args(HandshakeFault))
_REST = frozenset(get_args(RestFault))
_COMMAND = {"command-timeout": 18, "command-refused": 27, "command-full": 26, "command-lost": -1}


class _Armed:
    __slots__ = ("left", "order", "wait")

    def __init__(self, order: FaultOrder) -> None:
        self.order = order
        self.wait = order.after_frames
        self.left = order.count


class Faults:
    """Armed faults in the order they were given; each event meets at most one of its kind."""

    def __init__(self) -> None:
        self._frame: list[_Armed] = []
        self._handshake: list[_Armed] = []
        self._rest: list[_Armed] = []
        self._command: list[_Armed] = []
        self.fired: Counter[str] = Counter()

    @property
    def quiet(self) -> bool:
        """No frame fault is armed: frames need not be looked at one by one."""
        return not self._frame

    def arm(self, order: FaultOrder) -> None:
        """Add a fault to come."""
        if order.kind in _HANDSHAKE:
            self._handshake.append(_Armed(order))
        elif order.kind in _REST:
            self._rest.append(_Armed(order))
        elif order.kind in _COMMAND:
            self._command.append(_Armed(order))
        else:
            self._frame.append(_Armed(order))

    def clear(self) -> None:
        """Disarm everything; what fired stays counted."""
        self._frame.clear()
        self._handshake.clear()
        self._rest.clear()
        self._command.clear()

    def on_frame(self) -> FaultOrder | None:
        """Count one frame about to be sent; the fault it meets, if any."""
        met: _Armed | None = None
        for armed in self._frame:
            if armed.wait > 0:
                armed.wait -= 1
            elif met is None:
                met = armed
        return self._fire(self._frame, met)

    def on_handshake(self) -> str:
        """Kind of the fault this handshake meets, "" to let it in."""
        order = self._fire(self._handshake, self._handshake[0] if self._handshake else None)
        return "" if order is None else order.kind

    def on_command(self) -> int:
        """Code of the error this command gets, -1 for no answer, 0 for none."""
        order = self._fire(self._command, self._command[0] if self._command else None)
        return 0 if order is None else _COMMAND[order.kind]

    def on_rest(self, path: str) -> FaultOrder | None:
        """The fault the call of `path` meets."""
        return self._fire(self._rest, next((armed for armed in self._rest if path.startswith(armed.order.path)), None))

    def armed(self) -> list[dict[str, object]]:
        """What is still to come, for the status page."""
        return [
            {"kind": armed.order.kind, "after_frames": armed.wait, "count": armed.left}
            for armed in (*self._frame, *self._handshake, *self._command, *self._rest)
        ]

    def _fire(self, among: list[_Armed], met: _Armed | None) -> FaultOrder | None:
        if met is None:
            return None
        self.fired[met.order.kind] += 1
        met.left -= 1
        if not met.left:
            among.remove(met)
        return met.order
