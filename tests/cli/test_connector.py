"""`ssmd connector status` over a real server, and which part of a capture `--shard` means."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Ssmd
from tests.wiring.test_system_status import ENVIRONMENT, answering

from ssmd.errors import Misconfigured
from ssmd.identifiers import system_random
from ssmd.settings import Workspace
from ssmd.wiring.capture import capture_group, shard_part
from ssmd.wiring.environment import ResolvedEnvironment, resolve_environment

SHARDS = "shards: {crypto: {tickers: [KXBTC*, KXETH*]}, other: {rest: true}}\n"
TICKERS = ("KXBTC-1", "KXNFL-1", "KXETH-2")


def environment_of(workspace: Path, url: str, *, more: str = "") -> ResolvedEnvironment:
    text = ENVIRONMENT.format(name="shared", url=url) + more
    (workspace / "exchanges" / "environments" / "shared.yaml").write_text(text)
    return resolve_environment(Workspace(workspace), "shared", "2026-05-14")


@contextmanager
def answered(url: str, answers: Mapping[tuple[str, str], Mapping[str, Any]]) -> Iterator[None]:
    """Components that answer while a command runs in the main thread."""
    are_there, are_done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with answering(url, "shared", answers):
            are_there.set()
            await asyncio.to_thread(are_done.wait, 60)

    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(asyncio.run, serve())
        try:
            assert are_there.wait(30)
            yield
        finally:
            are_done.set()
            serving.result(30)


def stats_of(**figures: int) -> dict[str, Any]:
    known = {"connections": 5, "markets": 20_000, "frames": 1_234_567, "unplaced": 0, "unacked": 0, "clock_offset_ms": 12}
    return {**known, **figures}


def test_status_tells_how_the_connector_stands(ssmd: Ssmd, workspace: Path, transport_url: str) -> None:
    environment_of(workspace, transport_url)
    well = {"ok": True, "reason": "", "stats": stats_of()}
    with answered(transport_url, {("connector", "main"): well}):
        called = ssmd("--env", "shared", "connector", "status", "-o", "json")
    assert (called.status, json.loads(called.out)) == (0, [{"instance": "main", **well}])


def test_status_asks_every_shard_and_names_the_one_that_is_not_well(ssmd: Ssmd, workspace: Path, transport_url: str) -> None:
    environment_of(workspace, transport_url, more=SHARDS)
    answers = {
        ("connector", "main-crypto"): {"ok": True, "reason": "", "stats": stats_of()},
        ("connector", "main-other"): {"ok": False, "reason": "7 markets are not subscribed", "stats": stats_of(unplaced=7)},
    }
    with answered(transport_url, answers):
        called = ssmd("--env", "shared", "connector", "status", "-o", "json")
    assert called.status == 1
    assert [(one["instance"], one["ok"], one["stats"]["unplaced"]) for one in json.loads(called.out)] == [
        ("main-crypto", True, 0),
        ("main-other", False, 7),
    ]


def test_status_of_one_that_does_not_answer_says_so(ssmd: Ssmd, workspace: Path, transport_url: str) -> None:
    environment_of(workspace, transport_url)
    called = ssmd("--env", "shared", "connector", "status")
    assert called.status == 1
    assert "NOT WELL" in called.out


def test_a_shard_has_its_own_name_and_tickers_and_one_of_them_the_shared_channels(workspace: Path) -> None:
    listed = "\n".join(ENVIRONMENT.format(name="shared", url="nats://127.0.0.1:1").splitlines()).replace(
        "  endpoint: simulator\n", f"  endpoint: simulator\n  tickers: [{', '.join(TICKERS)}]\n"
    )
    (workspace / "exchanges" / "environments" / "shared.yaml").write_text(f"{listed}\n{SHARDS}")
    document = resolve_environment(Workspace(workspace), "shared", "2026-05-14").document
    found = {}
    for name in ("", "crypto", "other"):
        part = shard_part(document, {"SSMD_SHARD": name})
        group = capture_group(document, part, None, None, None, system_random)  # type: ignore[arg-type]
        found[name] = (part.connection, part.has_shared, group.universe.tickers)
    assert found == {
        "": ("main", True, TICKERS),
        "crypto": ("main-crypto", False, ("KXBTC-1", "KXETH-2")),
        "other": ("main-other", True, ("KXNFL-1",)),
    }
    with pytest.raises(Misconfigured, match="no shard 'sports'; it has: crypto, other"):
        shard_part(document, {"SSMD_SHARD": "sports"})


def test_a_shard_that_is_none_is_refused_before_anything_starts(ssmd: Ssmd, workspace: Path) -> None:
    environment_of(workspace, "nats://127.0.0.1:1", more=SHARDS)
    called = ssmd("--env", "shared", "connector", "run", "--shard", "sports")
    assert called.status == 2
    assert "no shard 'sports'" in called.err
