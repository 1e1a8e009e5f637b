from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ssmd.errors import Unavailable
from ssmd.services.embedded_servers import prepare_nats
from ssmd.services.processes import ProcessMark, is_running, mark_of, read_mark
from ssmd.services.supervisor import ChildEvent, ChildSpec, RestartPolicy, Supervisor, last_word, spec_of

QUICK = RestartPolicy(limit=3, first_s=0.01, max_s=0.02)


class Told:
    """What a supervisor told; waits for a certain event."""

    def __init__(self) -> None:
        self.events: list[ChildEvent] = []
        self._more = asyncio.Event()

    def __call__(self, event: ChildEvent) -> None:
        self.events.append(event)
        self._more.set()

    def whats(self, name: str) -> list[str]:
        return [event.what for event in self.events if event.name == name]

    async def until(self, name: str, what: str, *, times: int = 1) -> None:
        async with asyncio.timeout(30):
            while self.whats(name).count(what) < times:
                self._more.clear()
                await self._more.wait()


def python(tmp_path: Path, name: str, code: str, **options: object) -> ChildSpec:
    return ChildSpec(name, (sys.executable, "-I", "-S", "-c", code), tmp_path / f"{name}.log", **options)  # type: ignore[arg-type]


FOREVER = "import signal; signal.pause()"


def exists(path: Path) -> Callable[[int], Awaitable[bool]]:
    async def ready(_pid: int) -> bool:
        return path.exists()

    return ready


async def test_children_start_in_order_when_ready_and_end_in_reverse(tmp_path: Path) -> None:
    told = Told()
    ready_file = tmp_path / "ready"
    first = python(tmp_path, "first", f"open({str(ready_file)!r}, 'w').close(); {FOREVER}", ready=exists(ready_file))
    second = python(tmp_path, "second", FOREVER)
    async with Supervisor(told, policy=QUICK) as supervisor:
        await supervisor.start(first)
        await supervisor.start(second)
        marks = supervisor.processes()
        assert list(marks) == ["first", "second"]
        assert all(map(is_running, marks.values()))
    assert [(event.name, event.what, event.status) for event in told.events] == [
        ("first", "started", None),
        ("first", "ready", None),
        ("second", "started", None),
        ("second", "ready", None),
        ("second", "stopped", -signal.SIGTERM),
        ("first", "stopped", -signal.SIGTERM),
    ]
    assert not any(map(is_running, marks.values()))
    await supervisor.stop_all()


async def test_a_killed_child_comes_back_ready_with_its_environment(tmp_path: Path) -> None:
    told = Told()
    code = f"import os; print(os.environ['GREETING'], flush=True); {FOREVER}"
    log = tmp_path / "child.log"

    async def has_greeted(_pid: int) -> bool:
        return log.read_text().count("hello\n") == 1 + told.whats("child").count("exited")

    async with Supervisor(told, policy=QUICK, jitter=lambda: 0.5) as supervisor:
        spec = python(tmp_path, "child", code, env={"GREETING": "hello"}, ready=has_greeted, mark_file=tmp_path / "mark")
        await supervisor.start(spec)
        killed = supervisor.kill("child")
        await supervisor.wait_ready("child")
        mark = supervisor.processes()["child"]
        assert mark.pid != killed
        assert read_mark(tmp_path / "mark") == mark
        assert log.read_text() == "hello\nhello\n"
        assert "hello" not in repr(spec)
    assert not (tmp_path / "mark").exists()
    assert [event[1:] for event in told.events[2:4]] == [
        ("exited", killed, -signal.SIGKILL, "hello"),
        ("restarting", killed, -signal.SIGKILL, "restart 1 of at most 3 in 0.01 s"),
    ]
    assert told.whats("child") == ["started", "ready", "exited", "restarting", "started", "ready", "stopped"]


async def test_a_child_that_keeps_crashing_fails_the_whole_with_its_last_words(tmp_path: Path) -> None:
    told = Told()
    async with Supervisor(told, policy=QUICK) as supervisor:
        await supervisor.start(python(tmp_path, "steady", FOREVER))
        await supervisor.start(python(tmp_path, "crashing", "import sys; print('out of luck'); sys.exit(3)"))
        failure = await asyncio.wait_for(supervisor.failed(), 30)
        assert failure.message == (
            "crashing ended with status 3 and was restarted 3 times in a row; its log ends:\nout of luck"
        )
        assert failure.mend == f"see {tmp_path / 'crashing.log'}"
        with pytest.raises(Unavailable, match="out of luck"):
            await supervisor.wait_ready("crashing")
        assert list(supervisor.processes()) == ["steady"]
    assert told.whats("crashing").count("started") == 4
    assert told.whats("crashing")[-1] == "gave-up"
    assert told.whats("steady") == ["started", "ready", "stopped"]


async def test_a_child_that_ran_long_enough_is_forgiven(tmp_path: Path) -> None:
    told = Told()
    policy = RestartPolicy(limit=1, first_s=0.001, max_s=0.001, steady_s=0.0)
    async with Supervisor(told, policy=policy) as supervisor:
        await supervisor.start(python(tmp_path, "child", "raise SystemExit(1)"))
        await told.until("child", "started", times=5)
    assert "gave-up" not in told.whats("child")


async def test_a_finite_child_may_end(tmp_path: Path) -> None:
    told = Told()
    async with Supervisor(told, policy=QUICK) as supervisor:
        await supervisor.start(python(tmp_path, "finite", "pass", is_finite=True))
        await told.until("finite", "finished")
        assert supervisor.processes() == {}
    assert told.whats("finite")[-1] == "finished"


@pytest.mark.parametrize(
    ("code", "trouble"),
    [
        ("raise SystemExit('no such feed')", "child ended with status 1 while starting; its log ends:\nno such feed"),
        (FOREVER, "child was not ready within 0.1 s and logged nothing"),
    ],
)
async def test_a_first_start_that_fails_is_told_and_not_repeated(tmp_path: Path, code: str, trouble: str) -> None:
    told = Told()
    async with Supervisor(told, policy=QUICK) as supervisor:
        seconds = 0.1 if code == FOREVER else 30.0
        spec = python(tmp_path, "child", code, ready=exists(tmp_path / "never"), ready_within_s=seconds)
        with pytest.raises(Unavailable) as found:
            await supervisor.start(spec)
        assert found.value.message == trouble
        assert supervisor.processes() == {}
    assert told.whats("child").count("started") == 1


async def test_a_restart_that_never_gets_ready_uses_up_the_limit(tmp_path: Path) -> None:
    told = Told()
    gate = tmp_path / "gate"
    gate.touch()
    async with Supervisor(told, policy=QUICK) as supervisor:
        await supervisor.start(python(tmp_path, "child", FOREVER, ready=exists(gate), ready_within_s=0.2))
        gate.unlink()
        supervisor.kill("child")
        failure = await asyncio.wait_for(supervisor.failed(), 30)
        assert failure.message == "child was not ready within 0.2 s and was restarted 3 times in a row and logged nothing"
        assert supervisor.processes() == {}


async def test_a_program_that_does_not_exist_says_so(tmp_path: Path) -> None:
    async with Supervisor(policy=QUICK) as supervisor:
        spec = ChildSpec("ghost", ("/no/such/program",), tmp_path / "ghost.log", ready=exists(tmp_path / "never"))
        with pytest.raises(Unavailable, match=r"status 127 .*\n?.*cannot execute /no/such/program: No such file or directory"):
            await supervisor.start(spec)


async def test_a_child_that_ignores_sigterm_is_killed_at_the_deadline(tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    code = f"import signal; signal.signal(15, signal.SIG_IGN); open({str(deaf)!r}, 'w').close()\nwhile True: signal.pause()"
    async with Supervisor() as supervisor:
        await supervisor.start(python(tmp_path, "deaf", code, ready=exists(deaf)))
        assert await supervisor.stop("deaf", grace_s=0.05) == -signal.SIGKILL


async def test_stopping_does_not_wait_for_a_pause(tmp_path: Path) -> None:
    told = Told()
    policy = RestartPolicy(first_s=600, max_s=600)
    async with asyncio.timeout(60), Supervisor(told, policy=policy) as supervisor:
        await supervisor.start(python(tmp_path, "child", FOREVER))
        supervisor.kill("child")
        await told.until("child", "restarting")
    assert told.whats("child") == ["started", "ready", "exited", "restarting"]


def test_pauses_double_up_to_a_bound_and_jitter_only_shortens() -> None:
    policy = RestartPolicy(first_s=0.5, max_s=3.0)
    assert [policy.pause_s(restarts, 0.0) for restarts in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert policy.pause_s(10_000, 0.5) == 2.25


async def test_an_embedded_server_is_kept_running_on_its_port(tmp_path: Path) -> None:
    prepared = await prepare_nats(tmp_path / "nats-transport", sync_always=False)
    try:
        async with Supervisor(policy=QUICK) as supervisor:
            await supervisor.start(spec_of(prepared))
            supervisor.kill("nats-transport")
            await supervisor.wait_ready("nats-transport")
            mark = supervisor.processes()["nats-transport"]
            assert read_mark(prepared.mark_file) == mark
            assert await prepared.ready(mark.pid)
    finally:
        prepared.release()


_OWNER = """
import asyncio, sys
from pathlib import Path
from ssmd.services.supervisor import ChildSpec, Supervisor

async def main():
    log = Path(sys.argv[1]) / "log"
    async with Supervisor() as supervisor:
        for name in ("a", "b"):
            await supervisor.start(ChildSpec(name, (sys.executable, "-c", "import signal; signal.pause()"), log))
        print(*(mark.pid for mark in supervisor.processes().values()), flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
async def test_no_child_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", _OWNER, str(tmp_path), stdout=asyncio.subprocess.PIPE)
    assert owner.stdout is not None
    pids = [int(pid) for pid in (await asyncio.wait_for(owner.stdout.readline(), 60)).split()]
    marks: list[ProcessMark | None] = [mark_of(pid) for pid in pids]
    assert len(marks) == 2
    assert None not in marks
    os.kill(owner.pid, signal.SIGKILL)
    await owner.wait()
    async with asyncio.timeout(60):
        while any(mark is not None and is_running(mark) for mark in marks):
            await asyncio.sleep(0.02)


async def test_a_component_that_gives_up_is_told_in_its_own_words(tmp_path: Path) -> None:
    line = '{"level":"error","event":"cannot-go-on","reason":"key kalshi has no value","mend":"export SSMD_KALSHI_..."}'
    code = f"import sys; print({line!r}); print('bye'); sys.exit(2)"
    async with Supervisor(policy=QUICK) as supervisor:
        with pytest.raises(Unavailable) as found:
            await supervisor.start(python(tmp_path, "child", code, ready=exists(tmp_path / "never")))
    assert found.value.message == "child ended with status 2 while starting: key kalshi has no value"
    assert found.value.mend == "export SSMD_KALSHI_..."


@pytest.mark.parametrize("lines", ["", "out of luck", '{"event":"stopped","reason":"x"}', '{"event":"cannot-go-on"}', "[1]"])
def test_other_lines_are_no_last_word(lines: str) -> None:
    assert last_word(lines) is None
