"""The REST side: signatures where a call has them, the rate limit, faults, the edge cache, then the venue's answer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from ssmd.clock import Clock
from ssmd.exchanges.kalshi.signing import KEY_HEADER
from ssmd.exchanges.kalshi.simulated.rest_calls import CAPACITY_S, ROOT, RestCalls
from ssmd.services.simulator import authentication as words
from ssmd.services.simulator.authentication import Authentication
from ssmd.services.simulator.config import FaultOrder
from ssmd.services.simulator.faults import Faults
from ssmd.services.simulator.listener import HttpAnswer, HttpRequest

_COST = 10
_SECOND_NS = 1_000_000_000
_CALLERS_MAX = 1_000
_CACHE_BYTES = 8 << 20
_STALE_S = 15
_TOO_MANY = HttpAnswer(429, b'{"error":"too many requests"}')
_BROKEN: Mapping[str, HttpAnswer] = {
    "rest-401": HttpAnswer(401, words.BAD_SIGNATURE),
    "rest-expired": HttpAnswer(401, words.EXPIRED),
    "rest-404": HttpAnswer(404, b'{"error":{"code":"not_found","message":"not found","details":"simulated"}}'),
    "rest-429": _TOO_MANY,
    "rest-500": HttpAnswer(500, b'{"code":"internal_server_error","message":"internal server error","details":""}'),
    "rest-502": HttpAnswer(502, b"<html><body>502 Bad Gateway</body></html>"),
    "rest-503": HttpAnswer(503, b'{"error":{"code":"service_unavailable","message":"service unavailable"}}'),
    "rest-504": HttpAnswer(504, b'{"code":"gateway_timeout","message":"gateway timeout","details":""}'),
}
_PRIVATE = frozenset({"/account/limits"})
_ROWS = ("markets", "trades", "events")


class _Kept(NamedTuple):
    at_ns: int
    answer: HttpAnswer


class RestSite:
    """Answers under `/trade-api/v2`.

    Args:
        authentication: None checks nothing.
        tokens_s: read tokens a second for each key, and for all callers without one; 0 = no limit.
        edge_cache_s: how old an answer an unsigned call may get.
    """

    def __init__(
        self,
        calls: RestCalls,
        authentication: Authentication | None,
        faults: Faults,
        clock: Clock,
        tokens_s: int,
        edge_cache_s: int = 0,
    ) -> None:
        self._calls = calls
        self._authentication = authentication
        self._faults = faults
        self._clock = clock
        self._tokens_s = tokens_s
        self._edge_cache_s = edge_cache_s
        self._buckets: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._kept_bytes = 0
        self.requests = 0

    def answer(self, request: HttpRequest) -> HttpAnswer:
        """The answer to one request whose path starts with the root."""
        self.requests += 1
        path = request.path.removeprefix(ROOT)
        fault = self._faults.on_rest(path)
        kind = "" if fault is None else fault.kind
        if kind in _BROKEN:
            return _BROKEN[kind]
        if not self._take(request.headers.get(KEY_HEADER.lower(), "")):
            return _TOO_MANY
        if request.method != "GET":
            return HttpAnswer(405, b'{"error":{"code":"method_not_allowed","message":"method not allowed"}}')
        is_signed = Authentication.is_signed(request.headers)
        if self._authentication is not None and (path in _PRIVATE or is_signed):
            refused = self._authentication.refusal(request.headers, request.method, request.path)
            if refused:
                return HttpAnswer(401, refused)
        name = f"{path}?{sorted(request.query.items())}"
        age_s = _STALE_S if kind == "rest-stale" else 0 if is_signed else self._edge_cache_s
        kept = self._from_cache(name, age_s)
        if kept is not None:
            return kept
        return self._late(self._fresh(path, request, name, kind, is_signed=is_signed), fault)

    def _fresh(self, path: str, request: HttpRequest, name: str, kind: str, *, is_signed: bool) -> HttpAnswer:
        answer = self._calls.answer(path, request.query)
        body = answer.body
        if kind == "cursor-loop" and isinstance(body, dict) and request.query.get("cursor"):
            body = {**body, "cursor": request.query["cursor"]}
        if kind == "missing-rows" and isinstance(body, dict):
            body = {key: value[::2] if key in _ROWS and isinstance(value, list) else value for key, value in body.items()}
        headers: tuple[tuple[str, str], ...] = ()
        if self._edge_cache_s and not is_signed:
            headers = (("cache-control", f"public, max-age={self._edge_cache_s}"), ("age", "0"))
        encoded = HttpAnswer(answer.status, msgspec.json.encode(body), headers)
        if answer.status == 200 and not kind:
            self._keep(name, encoded)
        return encoded

    @staticmethod
    def _late(answer: HttpAnswer, fault: FaultOrder | None) -> HttpAnswer:
        match None if fault is None else fault.kind:
            case "rest-slow":
                return answer._replace(delay_s=(fault.stall_ms if fault else 0) / 1_000)
            case "half-page":
                return answer._replace(is_cut=True)
            case _:
                return answer

    def _from_cache(self, name: str, age_s: int) -> HttpAnswer | None:
        kept = self._kept.get(name)
        if kept is None or not age_s:
            return None
        old_ns = self._clock.monotonic_ns() - kept.at_ns
        if old_ns >= age_s * _SECOND_NS:
            return None
        old = ("age", str(old_ns // _SECOND_NS))
        return kept.answer._replace(headers=(("cache-control", f"public, max-age={age_s}"), old))

    def _keep(self, name: str, answer: HttpAnswer) -> None:
        before = self._kept.pop(name, None)
        self._kept_bytes += len(answer.body) - (0 if before is None else len(before.answer.body))
        self._kept[name] = _Kept(self._clock.monotonic_ns(), answer)
        while self._kept_bytes > _CACHE_BYTES:
            _, gone = self._kept.popitem(last=False)
            self._kept_bytes -= len(gone.answer.body)

    def _take(self, caller: str) -> bool:
        """Take a call's tokens; whole numbers of token-nanoseconds."""
        if not self._tokens_s:
            return True
        now_ns, full = self._clock.monotonic_ns(), CAPACITY_S * self._tokens_s * _SECOND_NS
        level, filled_ns = self._buckets.pop(caller, (full, now_ns))
        level = min(level + (now_ns - filled_ns) * self._tokens_s, full)
        is_enough = level >= _COST * _SECOND_NS
        self._buckets[caller] = (level - _COST * _SECOND_NS * is_enough, now_ns)
        if len(self._buckets) > _CALLERS_MAX:
            self._buckets.popitem(last=False)
        return is_enough
