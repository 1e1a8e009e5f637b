import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ssmd.errors import Misconfigured, Unavailable
from ssmd.registry.documents import Endpoint
from ssmd.registry.findings import InvalidRegistry
from ssmd.services.run_file import Endpoints, RunLock
from ssmd.settings import Workspace
from ssmd.wiring.environment import registry_commit, resolve_environment

ROOT = Path(__file__).parents[2]
DATE = "2026-11-22"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    shutil.copytree(ROOT / "exchanges", tmp_path / "exchanges")
    return Workspace(tmp_path)


def test_an_environment_is_resolved_with_what_holds_on_the_date(workspace: Workspace) -> None:
    environment = resolve_environment(workspace, "kalshi-prod", DATE)
    assert environment.name == "kalshi-prod"
    assert environment.feed_version.wire == "kalshi-dollars"
    assert environment.endpoint.websocket == "wss://external-api-ws.kalshi.com/trade-api/ws/v2"
    assert environment.schema.version == 1
    assert environment.config == ""
    assert environment.run is None
    assert environment.archive_directory == workspace.root / ".ssmd/kalshi-prod/archive"
    assert not environment.uses_simulator


def test_a_date_on_which_an_environment_does_not_work_is_refused(workspace: Workspace) -> None:
    with pytest.raises(InvalidRegistry) as caught:
        resolve_environment(workspace, "kalshi-prod", "2026-03-11")
    assert {finding.rule for finding in caught.value.findings} == {"unknown-endpoint"}


def test_embedded_addresses_come_from_the_run_that_is_on(workspace: Workspace) -> None:
    off = resolve_environment(workspace, "kalshi-dev", DATE)
    assert off.uses_simulator
    for server in ("journal", "transport", "cache"):
        with pytest.raises(Unavailable, match=f"kalshi-dev is not running: it has no {server} server"):
            off.server_url(server, {})
    with pytest.raises(Unavailable, match="the simulator of kalshi-dev is not running"):
        _ = off.endpoint
    with RunLock(off.directory, "kalshi-dev") as lock:
        lock.publish(
            1,
            Endpoints(
                journal_url="nats://127.0.0.1:1",
                transport_url="nats://127.0.0.1:2",
                simulator_rest="http://127.0.0.1:3",
                simulator_websocket="ws://127.0.0.1:3",
            ),
            {},
        )
        on = resolve_environment(workspace, "kalshi-dev", DATE)
        assert on.run is not None
        assert on.run.pid == os.getpid()
        assert on.server_url("journal", {}) == "nats://127.0.0.1:1"
        assert on.server_url("transport", {}) == "nats://127.0.0.1:2"
        assert on.endpoint == Endpoint(rest="http://127.0.0.1:3", websocket="ws://127.0.0.1:3")
        with pytest.raises(Unavailable, match="no cache server"):
            on.server_url("cache", {})
    assert resolve_environment(workspace, "kalshi-dev", DATE).run is None


def test_a_url_may_be_a_secret(workspace: Workspace) -> None:
    path = workspace.registry / "environments/kalshi-prod.yaml"
    path.write_text(
        path.read_text().replace("name: kalshi-prod", "  nats: {type: opaque, fields: [url]}\nname: kalshi-prod")
        + "transport: {url: $key:nats.url}\njournal: {url: nats://host:4222}\n"
    )
    environment = resolve_environment(workspace, "kalshi-prod", DATE)
    assert environment.server_url("journal", {}) == "nats://host:4222"
    assert environment.server_url("transport", {"SSMD_NATS_URL": "nats://me:pw@host"}) == "nats://me:pw@host"
    with pytest.raises(Misconfigured, match="SSMD_NATS_URL or SSMD_NATS_URL_FILE is not set"):
        environment.server_url("transport", {})


def test_the_capture_key_is_generated_for_the_simulator_and_read_for_the_exchange(workspace: Workspace) -> None:
    dev = resolve_environment(workspace, "kalshi-dev", DATE)
    assert sorted(dev.capture_key({})) == ["api_key", "private_key"]
    assert (dev.directory / "keys/kalshi.json").exists()
    prod = resolve_environment(workspace, "kalshi-prod", DATE)
    with pytest.raises(Misconfigured, match="SSMD_KALSHI_API_KEY or SSMD_KALSHI_API_KEY_FILE"):
        prod.capture_key({})


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *identity, "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed: apt-get install git")
def test_the_commit_is_the_last_that_changed_the_registry(workspace: Workspace) -> None:
    git(workspace.root, "init", "-q")
    assert registry_commit(workspace) == ""
    git(workspace.root, "add", "exchanges")
    git(workspace.root, "commit", "-q", "-m", "registry")
    first = git(workspace.root, "rev-parse", "HEAD")
    (workspace.root / "other").write_text("x")
    git(workspace.root, "add", "other")
    git(workspace.root, "commit", "-q", "-m", "other")
    assert registry_commit(workspace) == first
    # A workspace inside of a repository that does not know it has no commit.
    shutil.copytree(workspace.registry, workspace.root / ".ssmd/demo/exchanges")
    assert registry_commit(Workspace(workspace.root / ".ssmd/demo")) == ""
