"""The signed handshake, over a real client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ssmd.clock import ManualClock
from ssmd.errors import Misconfigured
from ssmd.exchanges.kalshi import signing
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.simulator.simulator import Simulator

NOW_MS = 1_795_363_200_000
PATH = "/trade-api/ws/v2"
Keys = dict[str, signing.PrivateKey]


@pytest.fixture
def signed(run_simulator: Any, keys: Keys) -> Any:
    pems = {key_id: signing.public_pem(key).decode() for key_id, key in keys.items()}
    return run_simulator(ManualClock(NOW_MS * 1_000_000), require_auth=True, public_keys=pems)


@pytest.mark.parametrize("key_id", ["key-rsa", "key-ed"])
@pytest.mark.parametrize("skew_ms", [-20_000, 0, 20_000])
async def test_a_signed_handshake_within_the_window_is_let_in(signed: Any, keys: Keys, key_id: str, skew_ms: int) -> None:
    async with (
        signed as running,
        running.client(signing.headers(key_id, keys[key_id], NOW_MS + skew_ms, "GET", PATH)) as client,
    ):
        await client.send({"id": 1, "cmd": "list_subscriptions"})
        assert await client.text() == '{"type":"ok","id":1,"msg":[]}\n'


async def test_the_four_refusals_have_the_venues_bodies(signed: Any, keys: Keys) -> None:
    good = signing.headers("key-rsa", keys["key-rsa"], NOW_MS, "GET", PATH)
    unsigned = {name: value for name, value in good.items() if name != "KALSHI-ACCESS-SIGNATURE"}
    late = signing.headers("key-rsa", keys["key-rsa"], NOW_MS - 20_001, "GET", PATH)
    other_path = signing.headers("key-rsa", keys["key-rsa"], NOW_MS, "GET", "/trade-api/v2/markets")
    other_key = {**good, "KALSHI-ACCESS-KEY": "key-ed"}
    async with signed as running:
        missing = b'{"error":{"code":"signature_is_missing_from_headers","message":"signature is missing from headers"}}'
        failed = b'{"error":{"code":"authentication_error","message":"authentication_error","details":"%b"}}'
        wrong = failed % b"INCORRECT_API_KEY_SIGNATURE"
        assert await running.refused() == (401, missing)
        assert await running.refused(unsigned) == (401, missing)
        assert await running.refused({**good, "KALSHI-ACCESS-KEY": "nobody"}) == (
            401,
            failed % b"NOT_FOUND",
        )
        assert await running.refused(late) == (
            401,
            b'{"error":{"code":"header_timestamp_expired","message":"header timestamp expired"}}',
        )
        assert await running.refused(other_path) == (401, wrong)
        assert await running.refused(other_key) == (401, wrong)
        assert (await running.control("/status"))["handshakes_refused"] == 6


async def test_public_rest_needs_no_signature_but_a_wrong_one_is_refused(signed: Any, keys: Keys) -> None:
    async with signed as running:
        assert (await running.get("/exchange/status"))[0] == 200
        assert (await running.get("/account/limits"))[0] == 401
        path = "/trade-api/v2/account/limits"
        good = signing.headers("key-ed", keys["key-ed"], NOW_MS, "GET", path)
        response = await running.http.get(running.simulator.rest_url + "/account/limits?x=1", headers=good)
        assert response.json() == {
            "grants": [],
            "read": {"bucket_capacity": 400, "refill_rate": 200},
            "usage_tier": "basic",
            "write": {"bucket_capacity": 100, "refill_rate": 100},
        }
        response = await running.http.get(running.simulator.rest_url + "/markets", headers=good)
        assert (response.status_code, response.json()["error"]["details"]) == (401, "INCORRECT_API_KEY_SIGNATURE")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"require_auth": True}, "public_keys is empty"),
        ({"public_keys": {"k": "no pem"}}, r"public_keys\['k'\]: the public key cannot be read"),
        ({"require_auth": False, "speed": "fast"}, "speed is 'fast'; expected 1x, Nx"),
        ({"require_auth": False, "speed": "0x"}, "speed is '0x'; expected 1x, Nx"),
        ({"require_auth": False, "markets": 0}, "simulator markets is 0; expected 1 to 100000"),
        ({"require_auth": False, "port": 70_000}, "simulator port is 70000; expected 0 to 65535"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(Misconfigured, match=message):
        Simulator(SimulatorConfig(**settings), ManualClock())


async def test_a_taken_port_is_named(run_simulator: Any) -> None:
    async with run_simulator() as running:
        port = int(running.simulator.rest_url.split(":")[2].split("/")[0])
        second = Simulator(SimulatorConfig(port=port, require_auth=False), ManualClock())
        with pytest.raises(Misconfigured, match=f"cannot listen on 127.0.0.1 port {port}") as caught:
            await asyncio.wait_for(second.start(), 30)
        assert "--port 0" in caught.value.mend
