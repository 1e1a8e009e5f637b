"""A frame that cannot be normalized waits apart, with the reason; the tape and the raw stream have it, and capture goes on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.services.connector.test_connector import bench, is_all_acked, running, until

from ssmd.schemas.blocks import EntryKind
from ssmd.services.connector.quarantine import Unmapped, unmapped
from ssmd.services.simulator.config import FaultOrder, FrameFault, SimulatorConfig
from ssmd.streams import subjects


@pytest.mark.parametrize(("kind", "reason"), [("bad-json", "malformed"), ("unknown-type", "unknown-type")])
async def test_a_frame_nobody_understands_is_quarantined_with_its_reason(tmp_path: Path, kind: FrameFault, reason: str) -> None:
    faults = (FaultOrder(kind=kind, after_frames=40),)
    async with bench(tmp_path, SimulatorConfig(seed=4, markets=3, rate=300, require_auth=False, faults=faults)) as system:
        connector = system.connector()
        async with running(connector) as task:
            await until(lambda: connector.health().stats["quarantined"] == 1, "a letter is written", task)
            frames, records = int(connector.health().stats["frames"]), len(system.records())
            await until(lambda: int(connector.health().stats["frames"]) > frames + 100, "capture goes on", task)
            await until(lambda: is_all_acked(connector) and len(system.records()) > records, "records, too", task)
            await connector.flush()
        (message,) = system.transport.stored("dlq")
        assert message.subject == subjects.dead_letter("dev", "connector")
        letter = msgspec.json.decode(message.payload, type=Unmapped)
        assert (letter.feed, letter.connection) == ("kalshi", "main")
        assert letter.reason.startswith(reason)
        kept = {(session, n): payload for session, n, entry, payload in system.entries() if entry == EntryKind.IN}
        assert kept[letter.session, letter.n] == letter.text.encode()
        assert connector.health().stats["sessions"] == 1
        assert "capture.drift-detected.v1" in await system.facts()


async def test_letters_wait_for_a_stream_that_is_away_and_capture_does_not(tmp_path: Path) -> None:
    faults = (FaultOrder(kind="bad-json", after_frames=40, count=3),)
    async with bench(tmp_path, SimulatorConfig(seed=4, markets=3, rate=300, require_auth=False, faults=faults)) as system:
        connector = system.connector()
        system.transport.is_away = True
        async with running(connector) as task:
            await until(lambda: int(connector.health().stats["frames"]) > 200, "captured without streams", task)
            assert connector.health().stats["quarantined"] == 0
            system.transport.is_away = False
            await until(lambda: connector.health().stats["quarantined"] == 3, "the letters are written", task)
        assert len(system.transport.stored("dlq")) == 3


def test_bytes_that_are_no_text_are_kept_too() -> None:
    letter = unmapped("kalshi", "main", (7, 3), 9, "malformed", b"\xff\x00")
    assert (letter.text, letter.b64, letter.session, letter.n) == ("", "/wA=", 7, 3)
