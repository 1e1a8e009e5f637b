"""`ssmd key`: a key's life, told in the journal; its value is nowhere but where it belongs."""

import io
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from tests.cli.conftest import Ssmd
from tests.keys.test_sealing import certificate_of, independent_open

from ssmd.clock import SystemClock
from ssmd.keys.source import resolve_key
from ssmd.registry.documents import KeyDefinition

ENVIRONMENT = """
keys:
  kalshi:
    type: kalshi-api-key
    fields: [api_key, private_key]
    source: {source}
  token:
    type: opaque
    fields: [token]
    required: false
    source: file
    path: secrets/token
  own:
    type: opaque
    fields: [token]
    source: generated
    rotation_days: 0
name: small
feed: kalshi
schema: market:1
capture:
  endpoint: demo
  key: $key:kalshi
journal:
  backend: sqlite
cache:
  backend: memory
"""
PLANTED = ("PLANTED-id-77aa", "PLANTED-token-88bb", "PLANTED-second-99cc")


def pem_of(key: Any) -> str:
    return str(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    )


@pytest.fixture
def small(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (workspace / "exchanges" / "environments" / "small.yaml").write_text(ENVIRONMENT.format(source="local"))
    monkeypatch.setenv("SSMD_ENV", "small")
    return "small"


def infos(ssmd: Ssmd) -> dict[str, dict[str, Any]]:
    return {info["name"]: info for info in json.loads(ssmd("key", "list", "-o", "json").out)}


def events(ssmd: Ssmd, name: str) -> list[tuple[str, str]]:
    return [(line["event"], line["detail"]) for line in json.loads(ssmd("key", "audit", name, "-o", "json").out)]


def test_a_keys_life(ssmd: Ssmd, small: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = pem_of(ed25519.Ed25519PrivateKey.generate()), pem_of(ed25519.Ed25519PrivateKey.generate())
    (workspace / "first.pem").write_text(first)
    (workspace / "second.pem").write_text(second)
    monkeypatch.setenv("MY_ID", PLANTED[0])
    begun = ssmd("key", "init", "-o", "json")
    assert begun.status == 0, begun.err
    assert {info["name"]: info["status"] for info in json.loads(begun.out)} == {
        "kalshi": "not set", "own": "not set", "token": "not set"}  # fmt: skip
    assert "keys.passphrase" in begun.err
    assert "made" not in ssmd("key", "init").err
    done = ssmd(
        "key", "set", "kalshi", "--from-env", "api_key=MY_ID", "--from-file", "private_key=first.pem", "--expires", "30d"
    )
    assert done.status == 0, done.err
    was = infos(ssmd)["kalshi"]
    assert (was["status"], was["is_here"], was["set_by"], was["rotations"]) == ("set", True, "cli:anna", 0)
    assert was["expires_ns"] > was["set_ns"] > 0
    assert was["rotate_by_ns"] - was["set_ns"] == 90 * 86_400 * 10**9
    assert ssmd("key", "verify", "kalshi").status == 0
    shown = ssmd("key", "show", "kalshi")
    assert was["fingerprint"] in shown.out
    same = ssmd("key", "rotate", "kalshi", "--from-env", "api_key=MY_ID", "--from-file", "private_key=first.pem")
    assert (same.status, "has this value already" in same.err) == (1, True)
    assert ssmd("key", "rotate", "kalshi", "--from-env", "api_key=MY_ID", "--from-file", "private_key=second.pem").status == 0
    now = infos(ssmd)["kalshi"]
    assert (now["rotations"], now["status"]) == (1, "set")
    assert now["fingerprint"] != was["fingerprint"]
    assert ssmd("key", "delete", "kalshi", "--yes", "--reason", "moved").status == 0
    assert infos(ssmd)["kalshi"]["status"] == "deleted"
    assert events(ssmd, "kalshi") == [
        ("defined", ""),
        ("set", ""),
        ("verified", "is_good: yes"),
        ("rotated", f"previous: {was['fingerprint']}"),
        ("deleted", "reason: moved"),
    ]


def test_one_command_line_is_one_request_in_journal_and_log(
    ssmd: Ssmd, small: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ssmd("key", "init").err.count("{") == 0  # nobody asked for logs
    monkeypatch.setenv("SSMD_LOG_LEVEL", "loud")
    refused = ssmd("key", "list")
    assert (refused.status, refused.err.splitlines()[0]) == (
        2,
        "error: SSMD_LOG_LEVEL is 'loud'; expected debug, info, warning, error",
    )
    monkeypatch.setenv("SSMD_LOG_LEVEL", "info")
    called = ssmd("key", "set", "token", "--insecure-argument", f"token={PLANTED[1]}")
    told = [json.loads(line) for line in called.err.splitlines() if line.startswith("{")]
    ssmd("key", "set", "token", "--insecure-argument", f"token={PLANTED[2]}")
    monkeypatch.delenv("SSMD_LOG_LEVEL")
    events = json.loads(ssmd("journal", "show", "--aggregate", "key/token", "-o", "json").out)
    events = [one["envelope"] for one in events]
    requests = [one["correlation_id"] for one in events]
    assert len(set(requests[-2:])) == 2, "each command line is a request of its own"
    assert [(line["event"], line["component"], line["types"], line["correlation_id"]) for line in told] == [
        ("appended", "cli", ["key.set.v1"], requests[-2])
    ]
    assert told[0]["event_ids"] == [events[-2]["id"]]


def test_verify_names_what_is_wrong(ssmd: Ssmd, small: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssmd("key", "init")
    found = ssmd("key", "verify", "-o", "json")
    assert found.status == 1
    verdicts = {one["name"]: one for one in json.loads(found.out)}
    assert verdicts["kalshi"]["problems"] == ["no value, and it is required"]
    assert (verdicts["token"]["is_good"], verdicts["token"]["notes"]) == (True, ["not set, and not required"])
    assert verdicts["own"]["is_good"]
    monkeypatch.setenv("MY_ID", PLANTED[0])
    weak = pem_of(rsa.generate_private_key(public_exponent=65537, key_size=1024))
    other = pem_of(ec.generate_private_key(ec.SECP256R1()))
    for text, says in ((weak, "too weak"), (other, "expected an unencrypted PEM"), ("hunter2", "cannot be read")):
        (workspace / "bad.pem").write_text(text)
        refused = ssmd("key", "set", "kalshi", "--from-env", "api_key=MY_ID", "--from-file", "private_key=bad.pem")
        assert (refused.status, says in refused.err) == (1, True), refused.err
        assert text.strip().splitlines()[-2 if "\n" in text.strip() else 0] not in refused.err
    assert not list(workspace.rglob("keys/local/*"))
    ssmd("key", "set", "token", "--insecure-argument", f"token={PLANTED[1]}", "--expires", "12h")
    later = SystemClock().now_ns() + 200 * 86_400 * 10**9
    monkeypatch.setattr(SystemClock, "now_ns", lambda _: later)
    assert infos(ssmd)["token"]["status"] == "expired"
    (expired,) = json.loads(ssmd("key", "verify", "token", "-o", "json").out)
    assert (expired["problems"], expired["notes"]) == (["expired 199 days ago"], ["older than 90 days: rotate it"])
    assert infos(ssmd)["token"]["is_good"] is False
    ssmd("key", "verify", "token")
    audit = [one for one in json.loads(ssmd("key", "audit", "token", "-o", "json").out) if one["event"] == "expiry-noticed"]
    assert [one["detail"] for one in audit] == ["finding: expired", "finding: rotation-due"]


def test_a_value_that_somebody_else_changed_is_told(ssmd: Ssmd, small: str, workspace: Path) -> None:
    ssmd("key", "set", "token", "--insecure-argument", f"token={PLANTED[1]}")
    path = workspace / "secrets" / "token" / "token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text(PLANTED[2])
    assert infos(ssmd)["token"]["status"] == "changed"
    path.chmod(0o644)
    broken = infos(ssmd)["token"]
    assert (broken["is_here"], "by everybody" in broken["trouble"]) == (None, True)


def test_only_what_is_defined_and_ours_can_be_set(ssmd: Ssmd, small: str, workspace: Path) -> None:
    for arguments, says in (
        (("set", "nobody", "--insecure-argument", "token=x"), "defines no such key"),
        (("set", "own", "--insecure-argument", "token=x"), "is generated"),
        (("set", "token"), "nobody can be asked"),
        (("set", "token", "--from-file", "other=x"), "names a field that the key lacks"),
        (("set", "token", "--from-file", "token"), "wants FIELD=..."),
        (("set", "token", "--from-file", "token=/nowhere"), "cannot be read"),
        (("set", "token", "--insecure-argument", "token=a", "--insecure-argument", "token=b"), "given twice"),
        (("rotate", "token", "--insecure-argument", "token=x"), "has no value yet"),
        (("delete", "token"), "must be confirmed"),
        (("export", "token", "--variables", "--to", "x.env"), "has no value here"),
        (("show", "nobody"), "defines no such key"),
    ):
        called = ssmd("key", *arguments)
        assert (called.status != 0, says in called.err) == (True, True), (arguments, called.err)
    (workspace / "exchanges" / "environments" / "small.yaml").write_text(ENVIRONMENT.format(source="env"))
    mine = ssmd("key", "set", "kalshi", "--insecure-argument", "api_key=x", "--insecure-argument", "private_key=y")
    assert mine.status == 1


def test_values_come_from_a_prompt_or_standard_input(
    ssmd: Ssmd, small: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    pem = pem_of(ed25519.Ed25519PrivateKey.generate())
    asked: list[bool] = []
    answers = iter([PLANTED[0], *pem.strip().split("\n")])

    def prompt(_: str, *, hide_input: bool, **more: Any) -> str:
        assert more["err"] is True
        asked.append(hide_input)
        return next(answers)

    monkeypatch.setattr("typer.prompt", prompt)
    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO(b"")))
    ssmd("key", "init")
    assert ssmd("key", "set", "kalshi").status == 0
    assert asked == [True] * 4
    assert infos(ssmd)["kalshi"]["status"] == "set"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PLANTED[1].encode() + b"\n")))
    assert ssmd("key", "set", "token", "--stdin", "token").status == 0
    assert (workspace / "secrets" / "token" / "token").read_text() == PLANTED[1]


def test_a_generated_key_is_rotated_by_itself(ssmd: Ssmd, small: str, workspace: Path) -> None:
    assert infos(ssmd)["own"]["is_here"] is False  # asking makes none
    ssmd("key", "verify", "own")
    was = infos(ssmd)["own"]["fingerprint"]
    assert ssmd("key", "rotate", "own").status == 0
    now = infos(ssmd)["own"]
    assert (now["rotations"], now["rotate_by_ns"], now["fingerprint"] != was) == (1, 0, True)
    assert [event for event, _ in events(ssmd, "own")] == ["defined", "set", "verified", "rotated"]


def test_export_seals_for_a_cluster_or_writes_variables(ssmd: Ssmd, small: str, workspace: Path) -> None:
    controller = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (workspace / "cluster.pem").write_bytes(certificate_of(controller, days=36_500))
    awkward = 'it\'s a "secret" $x'
    assert ssmd("key", "set", "token", "--insecure-argument", f"token={awkward}").status == 0
    sealed = ("export", "token", "--sealed-secret", "creds", "--certificate", "cluster.pem", "--to", "creds.yaml")
    assert ssmd("key", *sealed, "--scope", "namespace-wide").status == 0
    text = (workspace / "creds.yaml").read_text().partition('token: "')[2].partition('"')[0]
    assert independent_open(controller, b"ssmd", text) == awkward.encode()
    assert ssmd("key", "export", "token", "--variables", "--to", "token.env").status == 0
    assert stat.S_IMODE((workspace / "token.env").stat().st_mode) == 0o600
    script = '. ./token.env; printf %s "$SSMD_TOKEN_TOKEN"'
    read = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, timeout=20)
    assert read.stdout == awkward
    definition = KeyDefinition(type="opaque", fields=("token",))
    variables = {"SSMD_TOKEN_TOKEN": read.stdout}
    fields = resolve_key("token", definition, variables=variables, directory=workspace, random=bytes)
    assert fields["token"].reveal() == awkward
    assert [event for event, _ in events(ssmd, "token")] == ["defined", "set", "accessed", "accessed"]


def test_nothing_but_the_source_holds_a_planted_secret(
    ssmd: Ssmd, small: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All commands, then every byte they said and wrote: journal, logs, manifests, messages."""
    pem = pem_of(ed25519.Ed25519PrivateKey.generate())
    (workspace / "key.pem").write_text(pem)
    monkeypatch.setenv("MY_ID", PLANTED[0])
    controller = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (workspace / "cluster.pem").write_bytes(certificate_of(controller, days=36_500))
    said = ""
    for arguments in (
        ("init",),
        ("set", "kalshi", "--from-env", "api_key=MY_ID", "--from-file", "private_key=key.pem"),
        ("set", "token", "--insecure-argument", f"token={PLANTED[1]}"),
        ("rotate", "token", "--insecure-argument", f"token={PLANTED[2]}"),
        ("set", PLANTED[1], "--insecure-argument", PLANTED[2]),
        ("set", "token", "--from-file", f"{PLANTED[1]}={PLANTED[2]}"),
        ("set", "token", "--insecure-argument", PLANTED[2]),
        ("list",),
        ("list", "-o", "json"),
        ("show", "kalshi", "-o", "json"),
        ("verify", "-o", "json"),
        ("verify", "kalshi", "--debug"),
        ("export", "kalshi", "--sealed-secret", "creds", "--certificate", "cluster.pem", "--to", "creds.yaml"),
        ("audit", "-o", "json"),
        ("delete", "kalshi", "--yes"),
    ):
        called = ssmd("key", *arguments)
        said += called.out + called.err
    said += ssmd("journal", "show", "--env", small, "-o", "json").out
    pieces = [*PLANTED, *pem.strip().splitlines()[1:-1]]
    # A name that was asked for and is not defined is not repeated either: it may have been a secret.
    assert [piece for piece in pieces if piece in said] == []
    belongs = {workspace / "key.pem", workspace / "secrets" / "token" / "token"}
    held = {
        path for path in workspace.rglob("*") if path.is_file() and any(piece.encode() in path.read_bytes() for piece in pieces)
    }
    assert held == belongs
