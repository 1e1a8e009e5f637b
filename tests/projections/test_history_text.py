"""Every event that can stand in the history of a day has words, and says them: from the frozen bytes of each type."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from ssmd.domain import client, environment, key, listing, secmaster_sync
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.envelope import decode_envelope
from ssmd.projections.days import DAYS
from ssmd.projections.history_text import _fields, describe

JOURNALS = Path(__file__).parents[1] / "journals"
BYTES = {path.stem: path for path in (*JOURNALS.glob("*.jsonl"), *(JOURNALS / "draft").glob("*.jsonl"))}
SHOWN = sorted(tag for tag in BYTES if tag.partition(".")[0] in DAYS.aggregates)
TOLD_ELSEWHERE = {listing.AGGREGATE, "projection"}
"""Markets have a view of their own; a rebuild must not change the answer that it rebuilds."""

CONTROL = {
    "client.accessed.v1": "let in by some process é",
    "client.created.v1": (
        'created: "research bot" may stream, markets on kalshi, realtime, expires 2027-05-11T01:46:40.000000000Z'
    ),
    "client.deleted.v1": "deleted (some reason é)",
    "client.disconnect-requested.v1": "its connections are to be cut (too many subscriptions)",
    "client.mode-set.v1": "is served conflated from now on",
    "client.revoked.v1": "revoked (laptop lost)",
    "client.rotated.v1": "rotated: fingerprint 0123abcd in place of 0123abcd, expires 2026-05-14T12:00:00.000000001Z",
    "environment.applied.v1": "applied: commit decade; nothing had to be changed",
    "environment.torn-down.v1": "torn down: remove stream kalshi-dev-raw: 0 messages, 0 bytes",
    "key.accessed.v1": "loaded by connector:main: the value with fingerprint 5f1e5f1e5f1e",
    "key.defined.v1": "defined: kalshi-api-key with api_key, private_key",
    "key.deleted.v1": "deleted (moved to another venue account)",
    "key.expiry-noticed.v1": "expires soon: at 2026-06-13T12:00:00.000000000Z",
    "key.revoked.v1": "revoked (some reason é)",
    "key.rotated.v1": "rotated: fingerprint a7c0a7c0a7c0 in place of 5f1e5f1e5f1e",
    "key.set.v1": "set: a value with fingerprint 5f1e5f1e5f1e, expires 2026-06-13T12:00:00.000000000Z",
    "key.verified.v1": "verified: it is not good (the venue answered 401: it does not take this key)",
    "secmaster-sync.completed.v1": "sync complete: 17 markets, 3 listed, 2 changed",
    "secmaster-sync.failed.v1": "sync failed: the venue answers 429 for ever",
    "secmaster-sync.started.v1": "sync started: series KXBTC15M",
}


def events_of(tag: str) -> list[msgspec.Struct]:
    envelopes = map(decode_envelope, BYTES[tag].read_bytes().splitlines())
    return [CATALOGUE.decode(one.type, one.data) for one in envelopes]


def test_every_aggregate_is_shown_or_told_elsewhere() -> None:
    assert {tag.partition(".")[0] for tag in CATALOGUE.tags} - TOLD_ELSEWHERE == set(DAYS.aggregates)


@pytest.mark.parametrize("tag", SHOWN)
def test_every_event_of_a_history_has_words_of_its_own(tag: str) -> None:
    for event in events_of(tag):
        said = describe(event)
        assert said
        assert said != _fields(event)
        assert "\n" not in said


def test_what_is_said_of_the_control_plane() -> None:
    told = {key.AGGREGATE, client.AGGREGATE, environment.AGGREGATE, secmaster_sync.AGGREGATE}
    assert {tag: describe(events_of(tag)[-1]) for tag in SHOWN if tag.partition(".")[0] in told} == CONTROL
