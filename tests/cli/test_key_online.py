"""`ssmd key verify|rotate --online`: the venue is asked, and its no changes nothing; and what is shown of a sealed key."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.cli.conftest import Ssmd
from tests.cli.test_key import ENVIRONMENT
from tests.keys.test_sealing import certificate_of

from ssmd.clock import SystemClock
from ssmd.exchanges.kalshi.signing import public_pem
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.simulator.simulator import Simulator

KEYS = {name: Ed25519PrivateKey.generate() for name in ("old", "new", "stranger")}


@pytest.fixture
def venue_url() -> Iterator[str]:
    """REST interface of a simulated venue that knows the keys old and new, served by a thread."""
    pems = {name: public_pem(KEYS[name]).decode() for name in ("old", "new")}
    simulator = Simulator(SimulatorConfig(public_keys=pems, markets=2, rate=1), SystemClock())
    started, loop = threading.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        await simulator.start()
        started.set()
        await simulator.run()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(20)
    yield simulator.rest_url
    asyncio.run_coroutine_threadsafe(simulator.stop(), loop).result(20)
    thread.join(20)
    loop.close()


@pytest.fixture
def small(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (workspace / "exchanges" / "environments" / "small.yaml").write_text(
        ENVIRONMENT.format(source="file\n    path: secrets/kalshi")
    )
    monkeypatch.setenv("SSMD_ENV", "small")
    for name, key in KEYS.items():
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (workspace / f"{name}.pem").write_bytes(pem)
        monkeypatch.setenv(f"ID_{name.upper()}", name)
    return workspace


def given(name: str) -> tuple[str, ...]:
    return ("--from-env", f"api_key=ID_{name.upper()}", "--from-file", f"private_key={name}.pem")


def test_the_venue_is_asked_and_its_no_changes_nothing(ssmd: Ssmd, small: Path, venue_url: str) -> None:
    feed = small / "exchanges" / "feeds" / "kalshi.yaml"
    feed.write_text(re.sub(r"https://[a-z.-]*demo[a-z.-]*/trade-api/v2", venue_url, feed.read_text()))
    assert venue_url in feed.read_text()
    ssmd("key", "init")
    assert ssmd("key", "set", "kalshi", *given("old")).status == 0
    verified = ssmd("key", "verify", "kalshi", "--online", "-o", "json")
    assert verified.status == 0, verified
    (verdict,) = json.loads(verified.out)
    assert (verdict["is_good"], verdict["is_online"], verdict["problems"]) == (True, True, [])
    before = json.loads(ssmd("key", "show", "kalshi", "-o", "json").out)
    refused = ssmd("key", "rotate", "kalshi", "--online", *given("stranger"))
    assert (refused.status, "the venue answered 401: it does not take this key" in refused.err) == (1, True)
    after = json.loads(ssmd("key", "show", "kalshi", "-o", "json").out)
    assert (after["fingerprint"], after["rotations"], after["set_ns"]) == (before["fingerprint"], 0, before["set_ns"])
    assert ssmd("key", "rotate", "kalshi", "--online", *given("new")).status == 0
    assert json.loads(ssmd("key", "show", "kalshi", "-o", "json").out)["rotations"] == 1
    # What nobody asked the venue about is found out by asking.
    assert ssmd("key", "rotate", "kalshi", *given("stranger")).status == 0
    bad = ssmd("key", "verify", "kalshi", "--online", "-o", "json")
    (verdict,) = json.loads(bad.out)
    assert (bad.status, verdict["problems"]) == (1, ["the venue answered 401: it does not take this key"])
    audit = json.loads(ssmd("key", "audit", "kalshi", "-o", "json").out)
    assert [line["event"] for line in audit] == ["defined", "set", "verified", "rotated", "rotated", "verified"]
    assert audit[-1]["detail"].startswith("is_good: no")


def test_a_sealed_key_is_shown_by_its_sealed_secrets_name(ssmd: Ssmd, small: Path) -> None:
    controller = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (small / "cluster.pem").write_bytes(certificate_of(controller, days=36_500))
    place = "{name: creds, namespace: trading, certificate: cluster.pem, manifest: creds.yaml}"
    sealed = f"sealed-secret\n    path: mounted\n    sealed_secret: {place}"
    (small / "exchanges" / "environments" / "small.yaml").write_text(ENVIRONMENT.format(source=sealed))
    assert ssmd("key", "set", "kalshi", *given("old")).status == 0
    listed = {one["name"]: one for one in json.loads(ssmd("key", "list", "-o", "json").out)}
    assert (listed["kalshi"]["sealed_secret"], listed["kalshi"]["source"]) == ("trading/creds", "sealed-secret")
    assert (listed["kalshi"]["is_here"], listed["kalshi"]["status"]) == (False, "set")
    assert listed["token"]["sealed_secret"] == ""
    shown = ssmd("key", "show", "kalshi")
    assert re.search(r"sealed secret +trading/creds", shown.out), shown.out
    assert "kind: " in (small / "creds.yaml").read_text()
