"""Bytes of every event version ever released, one file per tag: today's code must read, keep and fold them.

Never change a file here: a released event never changes. A new version gets a new tag, an upcaster and a new file.

`draft/` holds the same for events that nothing emits yet. Those may change (`python tests/journals/write_drafts.py`); the
issue that first emits one moves its file here and adds its tag to `domain.catalogue.RELEASED`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from ssmd.domain import (
    archive,
    capture,
    client,
    dead_letter,
    environment,
    key,
    listing,
    projection,
    secmaster_sync,
    trading_day,
)
from ssmd.domain.capture import TapePlace
from ssmd.domain.catalogue import CATALOGUE, RELEASED
from ssmd.domain.decider import tag_of
from ssmd.domain.envelope import Envelope, decode_envelope, encode_envelope

DIRECTORY = Path(__file__).parent
FILES = sorted(DIRECTORY.glob("*.jsonl"))
DRAFTS = sorted((DIRECTORY / "draft").glob("*.jsonl"))
SESSION = 1_778_760_000_000_000_001


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def test_every_event_type_has_frozen_bytes() -> None:
    """A new event type: add `tests/journals/TAG.jsonl`, one stored envelope a line, as the journal has it."""
    assert sorted(path.stem for path in [*FILES, *DRAFTS]) == list(CATALOGUE.tags)
    assert {path.stem for path in FILES} == RELEASED


@pytest.mark.parametrize("path", [*FILES, *DRAFTS], ids=lambda path: path.stem)
def test_released_bytes_are_read_and_written_alike(path: Path) -> None:
    lines = _lines(path)
    assert lines
    for line in lines:
        envelope = decode_envelope(line)
        assert encode_envelope(envelope) == line
        event = CATALOGUE.decode(envelope.type, envelope.data)
        assert (envelope.type, tag_of(event)) == (path.stem, path.stem)
        assert msgspec.json.encode(event) == bytes(envelope.data)


STATES: dict[str, Any] = {
    "environment": environment.State(
        status="torn-down",
        run_id="0198a3c4-0000-7000-8000-0000000000a4",
        config="decade",
        document_sha256="7a" * 32,
    ),
    "trading-day": trading_day.State(
        status="force-ended",
        date="2026-05-14",
        steps=(("end", "seal"),),
        totals=trading_day.Totals(102_555, {"book": 80_000, "gap": 3, "trade": 2211}, 12, 987_654_321, 3),
        late=("end",),
        due_ns=(1_778_742_000_000_000_000, 1_778_785_200_000_000_000),
    ),
    "capture": capture.State(last=TapePlace(SESSION, 25, 0), epoch=1),
    "archive": archive.State(
        epoch=1,
        instance="raw-archiver-0",
        incarnation="5f1e",
        last_seq=42,
        segments=2,
        records=197,
        size_bytes=3579,
        check="9f3a",
        mapper=3,
        renormalized_at=2,
        pruned=frozenset({"raw/prod/kalshi/2026/05/14/main-5f1e-00000000000000000001-00000000000000000042.jsonl.zst"}),
        quality=archive.QualityAssessed(
            1, 987_654, 2, 86_000_000_000_000, 0, 400_000_000_000, 0, 77, ("coverage 99.5370 %: missing",)
        ),
    ),
    "listing": listing.State(
        {
            "KXBTC15M-26MAY140045-45": listing.Standing(
                listing.Market(
                    ticker="KXBTC15M-26MAY140045-45",
                    series="KXBTC15M",
                    category="Crypto",
                    title="BTC price up in next 15 mins?",
                    open_ns=1_778_760_000_000_000_000,
                    close_ns=1_778_760_900_000_000_000,
                    expiry_ns=1_778_760_900_000_000_000,
                    attributes={"floor_strike": "79345.12", "strike_type": "greater_or_equal"},
                )
            )
        }
    ),
    "secmaster-sync": secmaster_sync.State("", "0198a3c4-0000-7000-8000-0000000000e1"),
    "client": client.State(
        created=client.Created(
            "research bot", "5f" * 32, ("stream", "markets"), 1_810_000_000_000_000_000, ("kalshi",), 50, 3, "conflated"
        ),
        is_revoked=True,
        disconnect="0198a3c4-0000-7000-8000-0000000000b1",
    ),
    "key": key.State(
        "kalshi-api-key",
        ("api_key", "private_key"),
        accesses={"connector:main": "0198a3c4-0000-7000-8000-0000000000c1"},
    ),
    "dead-letter": dead_letter.State(is_recorded=True),
    "projection": projection.State(
        current="0000000000000001",
        rebuilt=projection.Made("0000000000000002", 2, 41, "ab" * 32, 7, 0),
        diverged=projection.Made("0000000000000003", 2, 45, "ef" * 32, 7, 0),
    ),
}


@pytest.mark.parametrize("kind", sorted({tag.partition(".")[0] for tag in RELEASED}))
def test_released_bytes_fold(kind: str) -> None:
    envelopes: list[Envelope] = [
        envelope for path in FILES for envelope in map(decode_envelope, _lines(path)) if envelope.aggregate == kind
    ]
    envelopes.sort(key=lambda envelope: envelope.version)
    assert [envelope.version for envelope in envelopes] == list(range(1, len(envelopes) + 1))
    events = [CATALOGUE.decode(envelope.type, envelope.data) for envelope in envelopes]
    assert CATALOGUE.deciders[kind].fold(events) == STATES[kind]
