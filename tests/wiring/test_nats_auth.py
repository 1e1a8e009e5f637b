"""NATS users with as little as each component needs: denied by a real nats-server, and enough for the whole system."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ssmd.clock import SystemClock, date_of
from ssmd.errors import Misconfigured, SsmdError, Unavailable
from ssmd.identifiers import system_random
from ssmd.registry.bootstrap import write_registry
from ssmd.schemas.codecs import definition_sha256
from ssmd.services import embedded_servers
from ssmd.services.embedded_servers import RunningServer, prepare_nats
from ssmd.settings import Workspace, variables
from ssmd.streams.connection import Connection
from ssmd.streams.journal import RecordedEvent
from ssmd.streams.nkeys import new_seed, user_key
from ssmd.streams.nkeys_url import with_nkey
from ssmd.streams.permissions import ROLES
from ssmd.streams.topology import apply as apply_streams
from ssmd.streams.topology import desired
from ssmd.wiring.backends import open_journal, open_storage
from ssmd.wiring.environment import ResolvedEnvironment, nats_seed, resolve_environment
from ssmd.wiring.nats_auth import auth_configs, auth_users
from ssmd.wiring.system import LocalSystem

CLOCK = SystemClock()
SHOWING = ("connector", "raw-archiver", "normalized-archiver", "projector", "gateway")
ENV = "guarded"
ENVIRONMENT = """
keys:
  kalshi:
    type: kalshi-api-key
    fields: [api_key, private_key]
    source: generated
name: guarded
feed: kalshi
schema: market:1
capture:
  endpoint: simulator
  key: $key:kalshi
  simulator:
    seed: 5
    markets: 5
transport:
  url: nats://127.0.0.1:{transport}
journal:
  url: nats://127.0.0.1:{journal}
gateway:
  port: 0
"""


async def start(directory: Path, config: str, *, sync_always: bool) -> RunningServer:
    prepared = await prepare_nats(directory, sync_always=sync_always)
    with (directory / "nats.conf").open("a") as file:
        file.write(config)
    return RunningServer(prepared, await embedded_servers._start(prepared, 30))


@asynccontextmanager
async def guarded(root: Path) -> AsyncIterator[tuple[ResolvedEnvironment, dict[str, str], dict[str, RunningServer]]]:
    """An environment on two servers that let nobody in but its own users."""
    root.mkdir()

    def resolved(journal: int, transport: int) -> ResolvedEnvironment:
        text = ENVIRONMENT.format(journal=journal, transport=transport)
        (root / "exchanges" / "environments").mkdir(parents=True, exist_ok=True)
        path = root / "exchanges" / "environments" / f"{ENV}.yaml"
        if path.exists():
            path.write_text(text)
        else:
            write_registry(root, {ENV: text}, definition_sha256())
        return resolve_environment(Workspace(root), ENV, date_of(CLOCK.now_ns()))

    environment = resolved(4222, 4223)
    users = auth_users(environment, system_random)
    configs = auth_configs([(environment, users)])
    servers: dict[str, RunningServer] = {}
    try:
        for endpoint, config in configs.items():
            servers[endpoint] = await start(root / endpoint, config, sync_always=endpoint == "journal")
        environment = resolved(servers["journal"].port, servers["transport"].port)
        yield environment, {"SSMD_NATS_NKEYS": str(environment.directory / "keys" / "nats")}, servers
    finally:
        for server in servers.values():
            await server.stop()


async def connected(environment: ResolvedEnvironment, given: dict[str, str], role: str, endpoint: str) -> Connection:
    url = f"nats://127.0.0.1:{getattr(environment.document, endpoint).url.rpartition(':')[2]}"
    return await Connection.open(with_nkey(url, nats_seed(given, role)), name=role, timeout_s=30)


async def last_of(environment: ResolvedEnvironment, given: dict[str, str], endpoint: str) -> dict[str, Any]:
    """What the streams of a server hold, seen by the operator."""
    connection = await connected(environment, given, "operator", endpoint)
    try:
        answer = await connection.api("STREAM.LIST", timeout_s=30)
        return {one["config"]["name"]: (one["state"]["messages"], one["config"]) for one in answer["streams"]}
    finally:
        await connection.close()


DENIED: list[tuple[str, str, str]] = [
    ("gateway", "journal", "guarded.journal.key.kalshi"),
    ("gateway", "journal", "guarded.journal.trading-day.2026-11-22"),
    ("gateway", "journal", "guarded.journal.client.x"),
    ("gateway", "journal", "guarded.snapshot.client.x"),
    ("gateway", "journal", "$JS.API.STREAM.CREATE.evil"),
    ("gateway", "journal", "$JS.API.STREAM.DELETE.guarded-journal"),
    ("gateway", "transport", "guarded.md.kalshi.trade.X"),
    ("gateway", "transport", "guarded.raw.kalshi.main"),
    ("gateway", "transport", "guarded.svc.connector.main.stop"),
    ("gateway", "transport", "guarded.svc.connector.main.repair"),
    ("gateway", "transport", "$JS.API.STREAM.PURGE.guarded-market"),
    ("gateway", "transport", "$JS.API.CONSUMER.CREATE.guarded-raw"),
    ("connector", "journal", "guarded.journal.trading-day.2026-11-22"),
    ("connector", "journal", "guarded.journal.archive.x"),
    ("connector", "transport", "$JS.API.STREAM.PURGE.guarded-raw"),
    ("connector", "transport", "guarded.md.kraken.trade.X"),
    ("connector", "transport", "guarded.svc.projector.main.stop"),
    ("raw-archiver", "journal", "guarded.journal.capture.kalshi.main"),
    ("raw-archiver", "transport", "guarded.raw.kalshi.main"),
    ("normalized-archiver", "transport", "guarded.md.kalshi.trade.X"),
    ("projector", "journal", "guarded.journal.capture.kalshi.main"),
    ("projector", "transport", "$JS.API.CONSUMER.CREATE.guarded-raw"),
    ("worker", "transport", "guarded.raw.kalshi.main"),
]


async def test_what_a_role_does_not_need_is_denied(tmp_path: Path) -> None:
    async with guarded(tmp_path / "w") as (environment, given, _):
        operator = {name: await connected(environment, given, "operator", name) for name in ("journal", "transport")}
        await apply_streams(operator, desired(ENV, max_age_s=3600, max_bytes=1 << 24))  # type: ignore[arg-type]
        before = {name: await last_of(environment, given, name) for name in operator}
        for role in {role for role, _, _ in DENIED}:
            for endpoint in ("journal", "transport"):
                connection = await connected(environment, given, role, endpoint)
                subjects = [subject for one, where, subject in DENIED if (one, where) == (role, endpoint)]
                for subject in subjects:
                    connection.reason = ""
                    await connection.publish(subject, b"{}", reply=f"{connection.new_inbox()}.x")
                    with suppress(Unavailable):
                        await connection.client.flush(timeout=30)
                    # A denial shows nowhere but here; and below, in that nothing changed.
                    async with asyncio.timeout(30):
                        while not connection.reason:
                            await asyncio.sleep(0.01)
                    assert "permissions violation" in connection.reason.lower(), (role, subject, connection.reason)
                    assert subject.lower() in connection.reason.lower()
                await connection.close()
        assert {name: await last_of(environment, given, name) for name in operator} == before
        for connection in operator.values():
            await connection.close()


async def test_what_a_role_needs_is_not_denied_and_inboxes_are_private(tmp_path: Path) -> None:
    async with guarded(tmp_path / "w") as (environment, given, _):
        operator = {name: await connected(environment, given, "operator", name) for name in ("journal", "transport")}
        await apply_streams(operator, desired(ENV, max_age_s=3600, max_bytes=1 << 24))  # type: ignore[arg-type]
        connector = await connected(environment, given, "connector", "transport")
        stored = await connector.request("guarded.raw.kalshi.main", b"x", timeout_s=30)
        assert json.loads(stored.data)["seq"] == 1
        for seq, role in enumerate(("connector", "raw-archiver", "normalized-archiver", "projector"), 1):
            writer = await connected(environment, given, role, "journal")
            stored = await writer.request(f"guarded.journal.dead-letter.{role}-1", b"{}", timeout_s=30)
            assert json.loads(stored.data)["seq"] == seq, "each journals what it cannot process"
            await writer.close()
        gateway = await connected(environment, given, "gateway", "transport")
        for subject in (f"{user_key(nats_seed(given, 'connector')).public}", "_INBOX.>", ">"):
            gateway.reason = ""
            await gateway.client.subscribe(subject if ">" in subject else f"_INBOX_{subject}.>")
            async with asyncio.timeout(30):
                while not gateway.reason:
                    await asyncio.sleep(0.01)
            assert "permissions violation for subscription" in gateway.reason.lower()
        for connection in (connector, gateway, *operator.values()):
            await connection.close()


async def test_a_reader_cannot_have_the_server_write_the_journal(tmp_path: Path) -> None:
    """A consumer may deliver anywhere in its account, but not into the stream it reads: that would be a cycle."""
    async with guarded(tmp_path / "w") as (environment, given, _):
        operator = {name: await connected(environment, given, "operator", name) for name in ("journal", "transport")}
        await apply_streams(operator, desired(ENV, max_age_s=3600, max_bytes=1 << 24))  # type: ignore[arg-type]
        await operator["journal"].request("guarded.journal.client.x", b"{}", timeout_s=30)
        before = await last_of(environment, given, "journal")
        gateway = await connected(environment, given, "gateway", "journal")
        config = {"deliver_policy": "all", "ack_policy": "none", "deliver_subject": "guarded.journal.key.kalshi"}
        with pytest.raises(Unavailable, match="cycle"):
            await gateway.api(
                "CONSUMER.CREATE.guarded-journal", {"stream_name": "guarded-journal", "config": config}, timeout_s=5
            )
        assert await last_of(environment, given, "journal") == before
        for connection in (gateway, *operator.values()):
            await connection.close()


async def test_who_has_no_key_or_another_environments_is_not_let_in(tmp_path: Path) -> None:
    async with guarded(tmp_path / "w") as (environment, _, servers):
        for url in (servers["journal"].url, with_nkey(servers["journal"].url, new_seed(system_random))):
            with pytest.raises(Misconfigured, match="does not let us in") as caught:
                await Connection.open(url, name="stranger", timeout_s=30)
            assert "nkey:" not in str(caught.value)
        assert environment.role == "operator"


@pytest.mark.timeout(240)
async def test_the_whole_system_works_with_these_permissions(tmp_path: Path) -> None:
    """Every component as its own user; a permission that lacks would stand in a server's log as a violation."""
    async with guarded(tmp_path / "w") as (environment, given, servers):
        known = {**variables(), **given}
        async with LocalSystem(environment, known, CLOCK, lambda _: None, child_variables=given) as system:
            await system.until_capturing()
            async with asyncio.timeout(60):
                while int((await system.health("connector"))["stats"]["frames"]) < 50:
                    await asyncio.sleep(0.05)
            client = await system._client()
            for kind in ("connector", "raw-archiver", "normalized-archiver"):
                answer = await client.request(kind, system.instance_of(kind), "flush", 60)
                assert answer["ok"], (kind, answer)
            for kind in SHOWING:
                assert (await system.health(kind))["ok"], kind
            journal = await open_journal(system.environment, known)
            try:
                async with asyncio.timeout(60):
                    while True:
                        kinds = set[str]()
                        async for batch in journal.replay():
                            kinds |= {one.envelope.type for one in batch if isinstance(one, RecordedEvent)}
                        if {"key.accessed.v1", "archive.segment-sealed.v1", "capture.connected.v1"} <= kinds:
                            break
                        await asyncio.sleep(0.1)
            finally:
                await journal.close()
            shown = await said_by(system)
            storage = open_storage(system.environment, known)
            kept = [one async for one in storage.list("")]
            assert any(key.startswith("raw/") for key in kept)
            assert any(key.startswith("normalized/") for key in kept)
        for name, server in servers.items():
            complaints = [line for line in server.log_path.read_text().splitlines() if "iolation" in line]
            assert complaints == [], name
        check_no_secret_shows(environment, given, shown)


async def said_by(system: LocalSystem) -> str:
    """What the processes show while they run: arguments, health, metrics."""
    shown = [json.dumps(await system.health(kind)) for kind in SHOWING]
    async with httpx.AsyncClient() as http:
        for kind in SHOWING:
            answer = await http.get((await system.health(kind))["stats"]["metrics_url"])
            shown.append(answer.raise_for_status().text)
    pids = [mark.pid for mark in system.supervisor.processes().values()]
    lines = [Path(f"/proc/{pid}/cmdline") for pid in pids]
    told = [line.read_text() for line in lines if line.exists()]
    assert not Path("/proc/self/cmdline").exists() or len(told) == len(pids) >= len(SHOWING)
    return "\n".join([*shown, *told])


def check_no_secret_shows(environment: ResolvedEnvironment, given: dict[str, str], shown: str) -> None:
    """Neither there nor in any byte that was written: logs, journal, streams, tape, archive (unpacked), cache, states."""
    keys = environment.directory / "keys"
    venue = json.loads((keys / "kalshi.json").read_text())
    pem = venue["private_key"].splitlines()[1:-1]
    assert len(pem) > 20
    secrets = [*(nats_seed(given, role) for role in ROLES), venue["api_key"], *pem]
    assert [one for one in secrets if one in shown] == []
    root = environment.directory.parents[1]
    written = [path for path in root.rglob("*") if path.is_file() and not path.is_relative_to(keys)]
    kinds = {path.relative_to(environment.directory).parts[0] for path in written if path.is_relative_to(environment.directory)}
    assert {"tape", "archive", "logs"} <= kinds
    packed = [path for path in written if path.suffix == ".zst"]
    assert packed
    for path in written:
        content = path.read_bytes()
        if path in packed:
            content += zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True).read()
        assert [one for one in secrets if one.encode() in content] == [], path


def test_seeds_are_kept_for_their_owner_and_only_made_once(tmp_path: Path) -> None:
    root = tmp_path / "w"
    root.mkdir()
    write_registry(root, {ENV: ENVIRONMENT.format(journal=1, transport=2)}, definition_sha256())
    environment = resolve_environment(Workspace(root), ENV, "2026-11-22")
    first = auth_users(environment, system_random)
    assert [user.role for user in first] == list(ROLES)
    assert len({user.public for user in first}) == len(ROLES)
    assert all(stat.S_IMODE(Path(user.seed_file).stat().st_mode) == 0o600 for user in first)
    again = {user.role: user for user in auth_users(environment, system_random, rotate=["gateway"])}
    changed = [user.role for user in first if again[user.role].public != user.public]
    assert changed == [role for role, user in again.items() if user.is_new] == ["gateway"]
    for text in auth_configs([(environment, first)]).values():
        assert not [user for user in first if Path(user.seed_file).read_text().strip() in text]
    Path(first[0].seed_file).write_text("SUANOTAKEY")
    with pytest.raises(SsmdError, match="cannot be read") as caught:
        auth_users(environment, system_random)
    assert "SUANOTAKEY" not in str(caught.value)


def test_a_key_pair_is_in_natss_form() -> None:
    # The pair that NATS's own documentation shows (nkeys authentication, read 2026-11).
    key = user_key("SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY")
    assert key.public == "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
    public = Ed25519PublicKey.from_public_bytes(base64.b32decode(key.public)[1:33])
    public.verify(base64.b64decode(key.sign("nonce")), b"nonce")
    assert "SU" not in repr(key)
