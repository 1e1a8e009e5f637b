"""`ssmd env apply|teardown` and `ssmd config history` over real servers that two environments share."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ssmd.archive.storage_local import LocalStorage
from ssmd.projections.store_redis import RedisRowStore
from ssmd.streams.connection import Connection

Ssmd = Any


@pytest.fixture
def names(ssmd: Ssmd, workspace: Path, fresh_env: str, journal_url: str, transport_url: str, cache_url: str) -> tuple[str, str]:
    """Two environments of one workspace on the same servers, in git; the second's name begins with the first's."""
    found = (fresh_env, f"{fresh_env}-more")
    for name in found:
        called = ssmd(
            "env", "create", name, "--feed", "kalshi", "--schema", "market:1", "--endpoint", "prod", "--capture-key", "kalshi",
            "--key", "kalshi=kalshi-api-key:api_key,private_key", "--set", f"journal.url={journal_url}",
            "--set", f"transport={{url: '{transport_url}', max_bytes: 10485760}}", "--set", f"cache.url={cache_url}",
        )  # fmt: skip
        assert called.status == 0, called.err
    (workspace / ".gitignore").write_text(".ssmd/\n")
    for arguments in (
        ["init", "-q"],
        ["config", "user.name", "Anna"],
        ["config", "user.email", "anna@example.org"],
        ["add", "."],
    ):
        subprocess.run(["git", *arguments], cwd=workspace, check=True, timeout=60)
    assert ssmd("commit", "-m", "First").status == 0
    return found


def streams(*urls: str) -> set[str]:
    async def asked() -> set[str]:
        found: set[str] = set()
        for url in urls:
            connection = await Connection.open(url, name="test", timeout_s=5)
            try:
                found |= set((await connection.api("STREAM.NAMES", timeout_s=5)).get("streams") or ())
            finally:
                await connection.close()
        return found

    return asyncio.run(asked())


def test_apply_is_idempotent_and_teardown_takes_only_its_own(
    ssmd: Ssmd, workspace: Path, names: tuple[str, str], journal_url: str, transport_url: str, cache_url: str
) -> None:
    one, two = names
    plan = json.loads(ssmd("env", "apply", one, "--dry-run", "-o", "json").out)
    assert [(step["action"], step["kind"]) for step in plan] == [("create", "stream")] * 4 + [("create", "storage")]
    assert not {name for name in streams(journal_url, transport_url) if name.startswith(one)}
    assert ssmd("env", "apply", one).err.splitlines()[0] == f"{one}: 5 changes done"
    called = ssmd("env", "apply", one)
    assert called.out == "nothing to change\n"
    assert called.err.splitlines()[1].startswith("applied before, as it is (")
    assert ssmd("env", "apply", two).status == 0

    # Rows and objects of both, so that one's removal can be seen to spare the other's.
    async def filled() -> None:
        for name in names:
            store = RedisRowStore(cache_url, name, random=bytes)
            await store.swap(await store.begin("days", 1), None)
            await store.close()
            storage = LocalStorage(workspace / ".ssmd" / name / "archive")
            for day in ("14", "15"):
                await storage.put(f"raw/{name}/kalshi/2026/05/{day}/manifest.json", b"{}")

    asyncio.run(filled())
    called = ssmd("env", "teardown", one, "--date", "2026-05-14", "--yes")
    assert called.err.splitlines()[-1] == f"removed 1; the journal of {one} stays, and says so"
    kept = sorted(str(path.relative_to(workspace / ".ssmd")) for path in (workspace / ".ssmd").rglob("manifest.json"))
    assert kept == sorted(
        [f"{one}/archive/raw/{one}/kalshi/2026/05/15/manifest.json"]
        + [f"{two}/archive/raw/{two}/kalshi/2026/05/{day}/manifest.json" for day in ("14", "15")]
    )

    refused = ssmd("env", "teardown", one)
    assert (refused.status, refused.err) == (1, f"error: removing 4 of {one} must be confirmed\n  try: --yes\n")
    assert ssmd("env", "teardown", one, "--yes", "--archive").status == 0
    left = {name for name in streams(journal_url, transport_url) if name.startswith(one)}
    assert left == {f"{one}-journal"} | {f"{two}-{role}" for role in ("raw", "market", "dlq", "journal")}

    async def rows(name: str) -> bool:
        store = RedisRowStore(cache_url, name, random=bytes)
        try:
            return await store.current("days") is not None
        finally:
            await store.close()

    assert [asyncio.run(rows(name)) for name in names] == [False, True]
    assert [span["what"] for span in json.loads(ssmd("config", "history", one, "-o", "json").out)] == ["applied", "torn down"]


def test_uncommitted_changes_are_refused_or_recorded(ssmd: Ssmd, names: tuple[str, str]) -> None:
    name = names[0]
    assert ssmd("env", "update", name, "--set", "retention.raw_days=30", "--set", "schedule.days=monday").status == 0
    words = f"environments/{name}.yaml: retention.raw_days: 0 -> 30"
    refused = ssmd("env", "apply", name)
    assert refused.status == 1
    assert refused.err.startswith(f"error: the registry of {name} has 2 uncommitted changes: ")
    assert ssmd("config", "history", name).status == 2  # nothing was made, not even a journal
    called = ssmd("env", "apply", name, "--allow-dirty")
    assert called.status == 0, called.err
    assert "not now" in called.out
    (span,) = json.loads(ssmd("config", "history", name, "-o", "json").out)
    assert words in span["uncommitted"]
    assert ssmd("commit", "-m", "Keep a month").status == 0
    assert ssmd("env", "apply", name).status == 0
    spans = json.loads(ssmd("config", "history", name, "-o", "json").out)
    assert [(span["subject"], bool(span["uncommitted"])) for span in spans] == [("First", True), ("Keep a month", False)]
    assert json.loads(ssmd("config", "history", name, "--date", "2020-01-01", "-o", "json").out) == []
