"""`ssmd client`: a key is shown once, and what becomes of it is in the journal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Ssmd

from ssmd.gateway.api_keys import client_id_of, fingerprint_of

ENVIRONMENT = """
keys:
  kalshi:
    type: kalshi-api-key
    fields: [api_key, private_key]
    source: generated
name: small
feed: kalshi
schema: market:1
capture:
  endpoint: simulator
  key: $key:kalshi
journal:
  backend: sqlite
cache:
  backend: memory
"""


@pytest.fixture
def small(workspace: Path) -> str:
    (workspace / "exchanges" / "environments" / "small.yaml").write_text(ENVIRONMENT)
    directory = workspace / ".ssmd" / "small"
    directory.mkdir(parents=True)
    (directory / "journal.sqlite").touch()
    return "small"


def test_a_clients_life(ssmd: Ssmd, small: str) -> None:
    made = ssmd(
        "client", "create", "my bot", "--scope", "stream", "--expires", "30d", "--rate", "5", "--env", small, "-o", "json"
    )
    assert made.status == 0, made.err
    facts = json.loads(made.out)
    key = facts.pop("key")
    assert client_id_of(key) == facts["id"]
    expected = {
        "name": "my bot",
        "status": "active",
        "scopes": ["stream"],
        "feeds": [],
        "mode": "realtime",
        "requests_per_s": 5,
    }
    assert expected.items() <= facts.items()
    assert "not shown again" in made.err
    listed = ssmd("client", "list", "--env", small, "-o", "json")
    (row,) = json.loads(listed.out)
    assert (row["id"], row["fingerprint"], row["created_by"]) == (facts["id"], fingerprint_of(key), "cli:anna")
    assert json.loads(ssmd("client", "set-mode", facts["id"], "latest", "--env", small, "-o", "json").out)["mode"] == "latest"
    assert ssmd("client", "disconnect", facts["id"], "--reason", "noisy", "--env", small).status == 0
    shown = ssmd("client", "show", facts["id"], "--env", small)
    assert "latest" in shown.out
    assert json.loads(ssmd("client", "revoke", facts["id"], "--env", small, "-o", "json").out)["status"] == "revoked"
    refused = ssmd("client", "set-mode", facts["id"], "realtime", "--env", small)
    assert (refused.status, "revoked" in refused.err) == (1, True)
    events = ssmd("journal", "show", "--env", small, "-o", "json")
    assert [event["envelope"]["type"] for event in json.loads(events.out)] == [
        "client.created.v1",
        "client.mode-set.v1",
        "client.disconnect-requested.v1",
        "client.revoked.v1",
    ]
    everything = "".join(one.out + one.err for one in (listed, shown, refused, events))
    assert key not in everything
    assert key.split("_", 2)[2] not in everything


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("create", "x", "--scope", "admin"), 2, "there are stream, markets, records"),
        (("create", "x", "--expires", "soon"), 2, "12h, 30d, 8w"),
        (("set-mode", "x", "fast"), 2, "realtime, conflated, latest"),
        (("revoke", "nobody"), 1, "there never was such a client"),
        (("show", "nobody"), 1, "ssmd client list"),
    ],
)
def test_mistakes(ssmd: Ssmd, small: str, arguments: tuple[str, ...], status: int, words: str) -> None:
    done = ssmd("client", *arguments, "--env", small)
    assert (done.status, words in " ".join(done.err.split())) == (status, True), done.err
