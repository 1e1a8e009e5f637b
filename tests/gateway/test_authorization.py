"""The matrix: every route and every command, with every kind of key. A new one without a row here fails."""

from __future__ import annotations

import hmac
import itertools
import os
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from starlette.routing import Route, WebSocketRoute
from tests.gateway.conftest import Gateway
from tests.gateway.test_access import ALL, Desk, bearer, handshake, ready

from ssmd.clock import SystemClock
from ssmd.domain.client import CreateClient, RevokeClient, State
from ssmd.errors import Rejected
from ssmd.gateway import api_keys
from ssmd.gateway.api_keys import SCOPES, NewKey, grant_of, make_key
from ssmd.gateway.app import AppParts, routes_of
from ssmd.gateway.clients import OpenAccess
from ssmd.gateway.commands import AnyCommand
from ssmd.gateway.hub import Hub
from ssmd.gateway.market_state import MarketState
from ssmd.gateway.telemetry import GatewayMetrics
from ssmd.services.component import Health


class Row(NamedTuple):
    """`scope` "" = open to everybody; `status`: with the right key."""

    scope: str
    paths: tuple[str, ...]
    status: int = 200


ROWS = {
    "/healthz": Row("", ("/healthz",)),
    "/": Row("", ("/",)),
    "/dashboard.js": Row("", ("/dashboard.js",)),
    "/dashboard.css": Row("", ("/dashboard.css",)),
    "/docs": Row("", ("/docs",)),
    "/docs.js": Row("", ("/docs.js",)),
    "/openapi.json": Row("", ("/openapi.json",)),
    "/asyncapi.json": Row("", ("/asyncapi.json",)),
    "/v1/stream": Row("stream", ("/v1/stream",), 426),
    "/v1/markets": Row("markets", ("/v1/markets", "/v1/markets?q=A&limit=1")),
    "/v1/markets/{rest:path}": Row(
        "markets", ("/v1/markets/A", "/v1/markets/A/trades", "/v1/markets/A/orderbook", "/v1/markets/A/candles")
    ),
    "/v1/health": Row("records", ("/v1/health",)),
    "/v1/status": Row("records", ("/v1/status",)),
    "/v1/feeds": Row("records", ("/v1/feeds",)),
    "/v1/days": Row("records", ("/v1/days",)),
    "/v1/days/{date}": Row("records", ("/v1/days/2026-05-14",)),
    "/v1/history": Row("records", ("/v1/history",)),
    "/v1/inventory": Row("records", ("/v1/inventory",)),
    "/v1/gaps": Row("records", ("/v1/gaps",)),
    "/v1/quality": Row("records", ("/v1/quality",)),
    "/v1/captures": Row("records", ("/v1/captures",)),
    "/metrics": Row("records", ("/metrics",)),
}
NO_ROUTES = {"/v1/no-such-path": "records", "/v1/markets/A/no-such-view": "markets", "/v1/markets/NONE": "markets"}
"""Denied as if they were there: whoever has no key does not learn what there is."""
COMMANDS: dict[str, tuple[dict[str, Any], str]] = {
    "subscribe": ({"tickers": ["A"]}, "ack"),
    "unsubscribe": ({"tickers": ["A"]}, "ack"),
    "mode": ({"mode": "latest"}, "mode"),
    "ping": ({}, "pong"),
}
CLOSED = [(row.scope, path) for row in ROWS.values() if row.scope for path in row.paths]


class Keys(NamedTuple):
    """`bad`: text -> (status, rule) wherever a key is asked for."""

    good: NewKey
    own: NewKey
    of_scope: dict[str, NewKey]
    bad: dict[str, tuple[int, str]]


async def keys_of(desk: Desk) -> Keys:
    good = await desk.make()
    expired, revoked = await desk.make(expires_ns=1), await desk.make()
    await desk.tell(revoked, RevokeClient("lost"))
    foreign, own = await desk.make(feeds=("kraken",)), await desk.make(feeds=("kraken", "kalshi"))
    of_scope = {scope: await desk.make(scope) for scope in ALL}
    wrong_secret = good.text[:-1] + ("A" if good.text[-1] != "A" else "B")
    bad = {
        "": (401, "key-missing"),
        "nonsense": (401, "key-invalid"),
        wrong_secret: (401, "key-invalid"),
        make_key(os.urandom).text: (401, "key-invalid"),
        expired.text: (401, "key-expired"),
        expired.text[:-1] + "-": (401, "key-invalid"),
        revoked.text: (401, "key-revoked"),
        revoked.text[:-1] + "-": (401, "key-invalid"),
        foreign.text: (403, "feed-forbidden"),
    }
    return Keys(good, own, of_scope, bad)


def test_every_route_and_command_has_a_row() -> None:
    state, clock = MarketState("kalshi"), SystemClock()

    def resume(*_: object, **__: object) -> None:
        raise NotImplementedError

    parts = AppParts(state, Hub(state), resume, lambda: Health(ok=True), clock, OpenAccess(), GatewayMetrics())
    routes = routes_of(parts)
    assert all(isinstance(route, Route | WebSocketRoute) for route in routes)
    assert {route.path for route in routes if isinstance(route, Route | WebSocketRoute)} == set(ROWS)
    assert {row.scope for row in ROWS.values()} == {"", *SCOPES}
    commands: tuple[Any, ...] = AnyCommand.__args__
    assert {command.__struct_config__.tag for command in commands} == set(COMMANDS)


async def test_every_route_with_every_kind_of_key(gateway: Gateway) -> None:
    desk = Desk()
    keys = await keys_of(desk)
    async with gateway(**desk.around()) as running, httpx.AsyncClient(base_url=running.url) as http:
        await running.settled(running.put(running.tape.snapshot("A"), running.tape.trade("A")))
        await ready(running)
        told: dict[tuple[str, str], set[bytes]] = {}
        paths = [path for _, path in CLOSED] + list(NO_ROUTES)
        for path, method, (key, (status, rule)) in itertools.product(paths, ("GET", "HEAD", "POST"), keys.bad.items()):
            answer = await http.request(method, path, headers=bearer(key))
            assert (path, method, answer.status_code) == (path, method, status), rule
            assert ("www-authenticate" in answer.headers) == (status == 401)
            assert "etag" not in answer.headers
            if method == "HEAD":
                continue
            problem = answer.json()
            assert (path, problem.pop("type")) == (path, f"urn:ssmd:problem:{rule}")
            assert problem.pop("instance") == path.partition("?")[0]
            assert set(problem) <= {"title", "status", "detail", "mend"}
            assert not key or key not in answer.text
            told.setdefault((key, method), set()).add(msgspec.json.encode(problem, order="sorted"))
        # Word for word the same, whatever was asked for.
        assert {len(bodies) for bodies in told.values()} == {1}
        rights = itertools.product([*CLOSED, *((scope, path) for path, scope in NO_ROUTES.items())], keys.of_scope.items())
        for (scope, path), (held, narrow) in rights:
            answer = await http.get(path, headers=bearer(narrow.text))
            right = 404 if path in NO_ROUTES else next(row.status for row in ROWS.values() if path in row.paths)
            assert (path, held, answer.status_code) == (path, held, right if held == scope else 403)
            assert held == scope or answer.json()["type"] == "urn:ssmd:problem:scope-missing"
        for scope, path in CLOSED:
            for one in (keys.good, keys.own):
                assert (await http.get(path, headers=bearer(one.text))).status_code in {200, 426}, scope
            # A key in the URL is no key.
            joined = f"{path}{'&' if '?' in path else '?'}api_key={keys.good.text}"
            assert (await http.get(joined)).status_code == 401
        for row in (one for one in ROWS.values() if not one.scope):
            for path, key in itertools.product(row.paths, ("", "nonsense", keys.good.text)):
                answer = await http.get(path, headers=bearer(key))
                assert (path, answer.status_code) == (path, 200)


async def test_every_command_with_every_kind_of_key(gateway: Gateway) -> None:
    """Commands need a connection, and there is none without a right key."""
    desk = Desk()
    keys = await keys_of(desk)
    async with gateway(**desk.around()) as running:
        await ready(running)
        expected = {key: status for key, (status, _) in keys.bad.items()}
        expected |= {one.text: 101 if scope == "stream" else 403 for scope, one in keys.of_scope.items()}
        assert {key: await handshake(running, key) for key in expected} == expected
        assert running.service.hub.messages_offered == 0
        for one in (keys.good, keys.own, keys.of_scope["stream"]):
            for cmd, (fields, answer) in COMMANDS.items():
                async with running.connect(additional_headers=bearer(one.text)) as client:
                    await client.command(cmd, **fields)
                    assert ((await client.next())["type"], cmd) == (answer, cmd)


def test_hashes_are_compared_in_constant_time_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    key = make_key(os.urandom)
    known = State(CreateClient("a", key.fingerprint, ALL))  # type: ignore[arg-type]  # stands for ClientCreated here
    compared: list[tuple[int, int]] = []

    def compare(left: str, right: str) -> bool:
        compared.append((len(left), len(right)))
        return hmac.compare_digest(left, right)

    class Hmac:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(api_keys, "hmac", Hmac)
    for text, state in (("", None), ("nonsense", None), (make_key(os.urandom).text, None), (key.text[:-1] + "-", known)):
        with pytest.raises(Rejected) as refused:
            grant_of(text, state, 0)
        assert refused.value.rule == "key-invalid"
    # Once for each, and of hashes of one length: also where there is nobody to compare with.
    assert compared == [(64, 64)] * 4
