"""A second process for what one may do: a connector is refused, an archiver stands by and takes over. Real servers."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.main_job import run_ssmd

from ssmd.clock import SystemClock, date_of
from ssmd.identifiers import system_random
from ssmd.registry.bootstrap import write_registry
from ssmd.schemas.codecs import definition_sha256
from ssmd.services.chaos.checks import check_archive, check_seals, check_tape
from ssmd.services.chaos.reference import contents, reference
from ssmd.services.connector.tape_follower import Names
from ssmd.services.supervisor import RestartPolicy
from ssmd.settings import Workspace, variables
from ssmd.streams.tape_summary import summarize
from ssmd.wiring.backends import open_journal, open_storage
from ssmd.wiring.chaos import ENV, ENVIRONMENT
from ssmd.wiring.environment import resolve_environment
from ssmd.wiring.system import LocalSystem
from ssmd.wiring.tape import mapper_of, tape_directory
from ssmd.wiring.trading_day import day_procedure, end_day
from ssmd.wiring.up import begin_day

CLOCK = SystemClock()


async def until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(what) from None


@pytest.mark.timeout(240)
async def test_a_second_connector_is_refused_and_a_second_archiver_stands_by_and_takes_over(tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    root.mkdir()
    write_registry(root, {ENV: ENVIRONMENT.format(seed=3, markets=5, rate=300)}, definition_sha256())
    environment = resolve_environment(Workspace(root), ENV, date_of(CLOCK.now_ns()))
    log = tmp_path / "second.log"
    # What is killed stays away: who takes over then is the standby.
    policy = RestartPolicy(first_s=600, max_s=600)
    given = dict(variables())
    async with LocalSystem(environment, given, CLOCK, lambda _: None, policy=policy) as system:
        date = await begin_day(system.environment, given, CLOCK, system_random, lambda _: None)
        with log.open("wb") as output:
            second = subprocess.Popen(
                [sys.executable, "-m", "ssmd", "--workspace", str(root), "archiver", "run", "--type", "raw"],
                stdout=output,
                stderr=output,
            )
        try:
            refused = await asyncio.to_thread(run_ssmd, "--workspace", str(root), "connector", "run")
            assert refused.returncode == 1
            assert "connection main of kalshi is captured already: its connector answers" in refused.stderr
            assert "stop that connector first" in refused.stderr
            await until(lambda: '"event":"stands-by"' in log.read_text().replace(" ", ""), log.read_text())
            assert '"holder":"main"' in log.read_text().replace(" ", "")
            system.supervisor.kill("raw-archiver")
            await until(lambda: "takes-over" in log.read_text(), log.read_text())
            frames = int((await system.health("connector"))["stats"]["frames"])
            said: list[str] = []
            async with day_procedure(
                system.environment, given, clock=CLOCK, random=system_random, actor="test", say=said.append
            ) as procedure:
                # The connector captures on: the totals have all that had come when they were asked for.
                state = await end_day(procedure, date)
                assert state.totals is not None
                assert state.totals.messages >= frames
                captured, sealed = "connector main published what it captured", "raw-archiver main-2 sealed what it held"
                assert [one for one in said if one in (captured, sealed)] == [captured, sealed]
            await system.supervisor.stop("connector")
            second.send_signal(signal.SIGTERM)  # seals what came since
            assert await asyncio.to_thread(second.wait, 60) == 0, log.read_text()
            journal = await open_journal(system.environment, given)
            seals = await check_seals(journal, open_storage(system.environment, given))
            await journal.close()
        finally:
            if second.poll() is None:
                second.kill()
                second.wait(10)
        resolved = system.environment
    tape = tape_directory(resolved)
    expected = await reference(
        tape,
        Names(ENV, "kalshi", "main"),
        mapper_of("kalshi"),
        clock=CLOCK,
        random=system_random,
        spool=tmp_path / "reference",
        settings=resolved.document.archive,
    )
    checks = [seals, check_tape(summarize(tape)), *check_archive(expected, await contents(open_storage(resolved, given)))]
    assert [f"{check.name}: {check.detail}" for check in checks if not check.is_ok] == []
