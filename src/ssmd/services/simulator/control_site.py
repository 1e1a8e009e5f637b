"""The control side, on loopback only: what the simulator did, and faults on demand.

GET  /simulator/status          what is served, connections, frames, faults
GET  /simulator/faults          what is armed, what fired
POST /simulator/faults          one fault (`FaultOrder`) or a list; with after_frames 0 those that need no frame strike at once
POST /simulator/faults/clear    disarm all, end stalls
POST /simulator/orders          one change of markets or the exchange (`VenueOrder`) or a list; what fits none is a 409
POST /simulator/pause, /resume  stop and go on with the model's time
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ssmd.exchanges.kalshi.simulated.market_orders import NothingFits, VenueOrder
from ssmd.services.simulator.config import FaultOrder
from ssmd.services.simulator.connection import Connection
from ssmd.services.simulator.faults import Faults
from ssmd.services.simulator.listener import HttpAnswer, HttpRequest

ROOT = "/simulator"
_faults = msgspec.json.Decoder(FaultOrder | list[FaultOrder])
_orders = msgspec.json.Decoder(VenueOrder | list[VenueOrder])


class ControlSite:
    """Answers under `/simulator`.

    Args:
        status: figures of the whole simulator.
        live: open connections, oldest first.
        pause: stop (True) or go on with the model's time.
        order: change markets or the exchange; None = this venue has no model.
    """

    def __init__(
        self,
        faults: Faults,
        status: Callable[[], dict[str, object]],
        live: Callable[[], list[Connection]],
        pause: Callable[[bool], None],
        order: Callable[[VenueOrder], None] | None = None,
    ) -> None:
        self._venue_order = order
        self._faults = faults
        self._status = status
        self._live = live
        self._pause = pause

    def answer(self, request: HttpRequest) -> HttpAnswer:
        """The answer to one request whose path starts with the root."""
        match request.method, request.path.removeprefix(ROOT):
            case "GET", "/status":
                return _json(200, self._status())
            case "GET", "/faults":
                return _json(200, self._fault_report())
            case "POST", "/faults":
                return self._order(request.body)
            case "POST", "/faults/clear":
                self._faults.clear()
                for connection in self._live():
                    connection.unstall()
                return _json(200, self._fault_report())
            case "POST", "/orders":
                return self._change(request.body)
            case "POST", ("/pause" | "/resume") as verb:
                self._pause(verb == "/pause")
                return _json(200, self._status())
            case _:
                return _json(
                    404, {"error": {"code": "not_found", "message": f"{request.method} {request.path} is no control call"}}
                )

    def _order(self, body: bytes) -> HttpAnswer:
        try:
            given = _faults.decode(body)
        except (msgspec.DecodeError, UnicodeError) as error:
            return _json(400, {"error": {"code": "bad_fault", "message": str(error)}})
        for order in given if isinstance(given, list) else [given]:
            self._arm(order)
        return _json(200, self._fault_report())

    def _change(self, body: bytes) -> HttpAnswer:
        if self._venue_order is None:
            return _json(409, {"error": {"code": "no_model", "message": "a capture is played: its markets cannot be changed"}})
        try:
            given = _orders.decode(body)
        except (msgspec.DecodeError, UnicodeError) as error:
            return _json(400, {"error": {"code": "bad_order", "message": str(error)}})
        try:
            for order in given if isinstance(given, list) else [given]:
                self._venue_order(order)
        except NothingFits as error:
            return _json(409, {"error": {"code": "nothing_fits", "message": str(error)}})
        return _json(200, self._status())

    def _arm(self, order: FaultOrder) -> None:
        left = order.count
        if order.after_frames == 0:
            for connection in self._live()[: order.count]:
                if not connection.strike(order):
                    break
                self._faults.fired[order.kind] += 1
                left -= 1
        if left == order.count:  # nothing could be struck at once: the next frame, handshake or call meets it
            self._faults.arm(order)

    def _fault_report(self) -> dict[str, object]:
        return {"armed": self._faults.armed(), "fired": dict(sorted(self._faults.fired.items()))}


def _json(status: int, body: object) -> HttpAnswer:
    return HttpAnswer(status, msgspec.json.encode(body))
