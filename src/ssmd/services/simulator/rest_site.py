"""The REST side: signatures where a call has them, the rate limit, faults, then the venue's answer."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ssmd.clock import Clock
from ssmd.exchanges.kalshi.simulated.rest_calls import ROOT, RestCalls
from ssmd.services.simulator.authentication import Authentication
from ssmd.services.simulator.faults import Faults
from ssmd.services.simulator.listener import HttpAnswer, HttpRequest

_COST = 10
_SECOND_NS = 1_000_000_000
_TOO_MANY = HttpAnswer(429, b'{"error":"too many requests"}')
_BROKEN: Mapping[str, HttpAnswer] = {
    "rest-429": _TOO_MANY,
    "rest-500": HttpAnswer(500, b'{"code":"internal_server_error","message":"internal server error","details":""}'),
    "rest-503": HttpAnswer(503, b'{"error":{"code":"service_unavailable","message":"service unavailable"}}'),
}
_PRIVATE = frozenset({"/account/limits"})


class RestSite:
    """Answers under `/trade-api/v2`.

    Args:
        authentication: None checks nothing.
        tokens_s: read tokens a second for all callers together (a call costs 10, capacity two seconds), 0 = no limit.
    """

    def __init__(
        self, calls: RestCalls, authentication: Authentication | None, faults: Faults, clock: Clock, tokens_s: int
    ) -> None:
        self._calls = calls
        self._authentication = authentication
        self._faults = faults
        self._clock = clock
        self._tokens_s = tokens_s
        self._level = 2 * tokens_s * _SECOND_NS
        self._filled_ns = clock.monotonic_ns()
        self.requests = 0

    def answer(self, request: HttpRequest) -> HttpAnswer:
        """The answer to one request whose path starts with the root."""
        self.requests += 1
        fault = self._faults.on_rest()
        if fault in _BROKEN:
            return _BROKEN[fault]
        if not self._take():
            return _TOO_MANY
        if request.method != "GET":
            return HttpAnswer(405, b'{"error":{"code":"method_not_allowed","message":"method not allowed"}}')
        path = request.path.removeprefix(ROOT)
        authentication = self._authentication
        if authentication is not None and (path in _PRIVATE or authentication.is_signed(request.headers)):
            refused = authentication.refusal(request.headers, request.method, request.path)
            if refused:
                return HttpAnswer(401, refused)
        answer = self._calls.answer(path, request.query)
        body = answer.body
        if fault == "cursor-loop" and isinstance(body, dict) and request.query.get("cursor"):
            body = {**body, "cursor": request.query["cursor"]}
        return HttpAnswer(answer.status, msgspec.json.encode(body))

    def _take(self) -> bool:
        """Take a call's tokens; whole numbers of token-nanoseconds."""
        if not self._tokens_s:
            return True
        now_ns = self._clock.monotonic_ns()
        self._level = min(self._level + (now_ns - self._filled_ns) * self._tokens_s, 2 * self._tokens_s * _SECOND_NS)
        self._filled_ns = now_ns
        if self._level < _COST * _SECOND_NS:
            return False
        self._level -= _COST * _SECOND_NS
        return True
