"""Bad input: a clear message with file, field and rule and the next step; status 2; nothing half-written.

All but one in this process, by the very function that `ssmd` runs: a process for each costs more than all there is to see.
"""

from __future__ import annotations

import asyncio
import io
import socket
import threading
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.e2e.main_job import run_ssmd

from ssmd.cli.app import main
from ssmd.clock import SystemClock
from ssmd.exchanges.kalshi.signing import public_pem
from ssmd.registry.bootstrap import DEMO_ENVIRONMENT, KALSHI_FEED, write_registry
from ssmd.schemas.codecs import definition_sha256
from ssmd.services.simulator.config import SimulatorConfig
from ssmd.services.simulator.seeded_capture import write_seeded_capture
from ssmd.services.simulator.simulator import Simulator

SEEDED = DEMO_ENVIRONMENT.format(capture="  simulator:\n    seed: 1\n", segment_bytes=1 << 20)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    write_registry(root, {"demo": SEEDED}, definition_sha256())
    return root


def ssmd(*arguments: str) -> CompletedProcess[str]:
    """What `ssmd ARGUMENTS` answers and says."""
    with redirect_stdout(io.StringIO()) as answered, redirect_stderr(io.StringIO()) as said:
        status = main(list(arguments))
    return CompletedProcess(arguments, status, answered.getvalue(), said.getvalue())


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def check_refused(workspace: Path, *arguments: str, says: tuple[str, ...]) -> None:
    before = sorted(workspace.rglob("*"))
    done = ssmd("--workspace", str(workspace), *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    for text in says:
        assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert "error:" in done.stderr
    assert sorted(path for path in workspace.rglob("*") if path.suffix != ".lock") == before, "something was written"


def test_a_malformed_environment_is_named_with_line_field_and_rule(workspace: Path) -> None:
    edit(workspace / "exchanges/environments/demo.yaml", "segment_bytes: 1048576", "segment_bites: 1048576")
    check_refused(workspace, "up", "demo", says=("exchanges/environments/demo.yaml:", "segment_bites", "segment_bytes"))


def test_a_malformed_feed_is_named_with_line_field_and_rule(workspace: Path) -> None:
    edit(workspace / "exchanges/feeds/kalshi.yaml", "effective_from: 2026-03-12", "effective_from: 12.03.2026")
    check_refused(workspace, "day", "status", says=("exchanges/feeds/kalshi.yaml:", "effective_from", "12.03.2026"))


def test_an_unknown_environment_lists_those_there_are(workspace: Path) -> None:
    check_refused(workspace, "up", "dmo", says=("dmo", "demo"))


def test_an_unreachable_server_is_named(workspace: Path) -> None:
    path = workspace / "exchanges/environments/demo.yaml"
    path.write_text(path.read_text() + "transport:\n  url: nats://127.0.0.1:1\njournal:\n  url: nats://127.0.0.1:1\n")
    check_refused(workspace, "streams", "status", says=("nats://127.0.0.1:1",))


def test_a_taken_gateway_port_is_named_with_the_way_out(workspace: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        edit(workspace / "exchanges/environments/demo.yaml", "  port: 0", f"  port: {port}")
        done = ssmd("--workspace", str(workspace), "up", "demo")
    assert done.returncode == 2
    assert "the gateway cannot listen" in done.stderr
    assert str(port) in done.stderr
    assert "gateway.port" in done.stderr
    assert not (workspace / ".ssmd/demo/run.json").exists()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a directory")
    done = ssmd("demo", "--keep", str(in_the_way / "demo"))
    assert done.returncode == 2
    assert str(in_the_way) in done.stderr
    assert "--keep" in done.stderr
    assert in_the_way.read_text() == "not a directory"


def test_a_directory_that_is_not_a_demos_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    done = ssmd("demo", "--keep", str(tmp_path))
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("damage", ["garbage", "cut"])
def test_a_corrupt_capture_line_is_named_and_nothing_is_started(tmp_path: Path, damage: str) -> None:
    capture = tmp_path / "capture.jsonl"
    write_seeded_capture(capture, seed=1, frames=60)
    lines = capture.read_bytes().splitlines(keepends=True)
    lines[41] = b"garbage\n" if damage == "garbage" else lines[41][: len(lines[41]) // 2] + b"\n"
    capture.write_bytes(b"".join(lines))
    done = ssmd("demo", "--capture", str(capture), "--keep", str(tmp_path / "demo"))
    assert done.returncode == 2
    assert f"{capture} line 42" in done.stderr
    assert not (tmp_path / "demo").exists()


def test_a_missing_capture_is_named(tmp_path: Path) -> None:
    done = ssmd("demo", "--capture", str(tmp_path / "none.jsonl"), "--keep", str(tmp_path / "demo"))
    assert done.returncode == 2
    assert "none.jsonl" in done.stderr
    assert not (tmp_path / "demo").exists()


@pytest.fixture
def guarded_venue() -> Iterator[Simulator]:
    """A simulator that knows one key, which is nobody's."""
    known = public_pem(Ed25519PrivateKey.generate()).decode()
    simulator = Simulator(SimulatorConfig(seed=1, markets=2, public_keys={"known": known}), SystemClock())
    started = threading.Event()
    stop: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        await simulator.start()
        stop.append(asyncio.get_running_loop())
        started.set()
        await simulator.run()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(20)
    yield simulator
    asyncio.run_coroutine_threadsafe(simulator.stop(), stop[0]).result(10)
    thread.join(20)


def test_a_wrong_key_is_named_and_its_value_is_not(
    workspace: Path, tmp_path: Path, guarded_venue: Simulator, transport_url: str
) -> None:
    feed = KALSHI_FEED.replace("rest: simulator", f"rest: {guarded_venue.rest_url}").replace(
        "websocket: simulator", f"websocket: {guarded_venue.websocket_url}"
    )
    (workspace / "exchanges/feeds/kalshi.yaml").write_text(feed)
    path = workspace / "exchanges/environments/demo.yaml"
    edit(path, "    source: generated\n", "")
    edit(path, "  simulator:\n    seed: 1\n", "  tickers: [KXANY-1]\n")
    path.write_text(path.read_text() + f"transport:\n  url: {transport_url}\njournal:\n  url: {transport_url}\n")
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key = tmp_path / "key.pem"
    key.write_bytes(pem)
    key.chmod(0o600)
    secrets = {"SSMD_KALSHI_API_KEY": "7f0e6f2c-stranger", "SSMD_KALSHI_PRIVATE_KEY_FILE": str(key)}
    done = run_ssmd("--workspace", str(workspace), "connector", "run", "--env", "demo", timeout_s=60, variables=secrets)
    assert done.returncode == 2, done.stderr
    assert "refused the handshake: 401" in done.stderr
    assert "check the key id and the private key" in done.stderr
    assert "Traceback" not in done.stderr
    assert pem.decode().splitlines()[1] not in done.stderr


def test_a_key_that_is_not_set_is_named_before_anything_is_started(workspace: Path) -> None:
    edit(workspace / "exchanges/environments/demo.yaml", "    source: generated\n", "")
    check_refused(workspace, "up", "demo", says=("SSMD_KALSHI_API_KEY",))
