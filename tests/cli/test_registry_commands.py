"""The commands of the registry in this process: what they write, what they refuse, what they show."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssmd.cli.app import main
from ssmd.registry.bootstrap import kalshi_files
from ssmd.registry.editor_schemas import editor_schema_files
from ssmd.registry.loader import check_registry

Ssmd = Any
ROOT = Path(__file__).parents[2]
DEV = "exchanges/environments/kalshi-dev.yaml"
FEED = "exchanges/feeds/kalshi.yaml"


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


# init


def test_the_repositorys_registry_is_what_init_writes() -> None:
    """After a change of the documents' types: `ssmd init . --with kalshi` writes exchanges/.schemas anew."""
    files = {**kalshi_files(), **editor_schema_files()}
    assert {f"exchanges/{name}": payload for name, payload in files.items()} == {
        f"exchanges/{name}": payload for name, payload in snapshot(ROOT / "exchanges").items()
    }


def test_init_makes_a_workspace_that_validates_and_twice_changes_nothing(ssmd: Ssmd, tmp_path: Path) -> None:
    root = tmp_path / "new" / "place"
    assert ssmd("init", str(root), "--with", "kalshi", "--dry-run").status == 0
    assert not root.exists()
    called = ssmd("init", str(root), "--with", "kalshi")
    assert (called.status, called.err.splitlines()[-1]) == (0, "  try: ssmd up kalshi-dev")
    assert (root / ".gitignore").read_text() == ".ssmd/\n"
    assert (root / ".ssmd").is_dir()
    assert ssmd("validate", "--workspace", str(root)).err == "no mistake in 5 documents\n"
    before = snapshot(root)
    assert ssmd("init", str(root), "--with", "kalshi").err.splitlines()[0] == "nothing to change"
    assert snapshot(root) == before


def test_init_without_data_keeps_what_is_there(ssmd: Ssmd, tmp_path: Path) -> None:
    root = tmp_path / "new"
    root.mkdir()
    (root / ".gitignore").write_bytes(b"*.log")
    assert ssmd("init", str(root)).status == 0
    assert (root / ".gitignore").read_bytes() == b"*.log\n.ssmd/\n"
    assert ssmd("validate", str(root)).err == "no mistake in 0 documents\n"
    (root / "exchanges/feeds/kalshi.yaml").write_text("name: mine\n")
    assert "kept exchanges/feeds/kalshi.yaml, which holds something else" in ssmd("init", str(root), "--with", "kalshi").err
    assert (root / "exchanges/feeds/kalshi.yaml").read_text() == "name: mine\n"


def test_editor_schemas_say_what_the_documents_may_hold(workspace: Path) -> None:
    for path in sorted((workspace / "exchanges").glob("*/*.yaml")):
        kind = {"feeds": "feed", "schemas": "schema", "environments": "environment"}[path.parent.name]
        assert path.read_text().startswith(f"# yaml-language-server: $schema=../.schemas/{kind}.json\n")
        schema = json.loads((workspace / "exchanges/.schemas" / f"{kind}.json").read_text())
        top = schema["definitions"][schema["$ref"].removeprefix("#/definitions/")]
        assert top["additionalProperties"] is False
        assert set(yaml.safe_load(path.read_text())) <= set(top["properties"])


# feed


def test_a_feed_from_its_creation_to_its_second_version(ssmd: Ssmd, workspace: Path) -> None:
    create = (
        "feed", "create", "mars", "--type", "spot", "--wire", "mars-1", "--effective-from", "2026-01-01",
        "--endpoint", "prod=https://a/v2,wss://a/ws", "--channel", "trade", "--capability", "trades",
        "--rate-limit", "rest_reads_per_second=5", "--timezone", "America/New_York",
        "--pause", "Thursday 03:00-05:00 rest", "--location", "home:own:eu", "--display-name", "Mars: the exchange",
    )  # fmt: skip
    dry = ssmd(*create, "--dry-run")
    assert (dry.status, dry.err) == (0, "would write exchanges/feeds/mars.yaml\n")
    assert '+display_name: "Mars: the exchange"' in dry.out
    assert not (workspace / "exchanges/feeds/mars.yaml").exists()
    assert ssmd(*create).err == "wrote exchanges/feeds/mars.yaml\n"
    assert ssmd(*create).err.startswith('error: feed "mars" exists already')
    path = workspace / "exchanges/feeds/mars.yaml"
    path.write_text(path.read_text().replace("status: draft", "status: draft  # not yet"))
    assert ssmd("feed", "add-version", "mars", "--effective-from", "2026-06-01", "--wire", "mars-2").status == 0
    assert ssmd("feed", "update", "mars", "--status", "active").status == 0
    assert (
        path.read_text()
        == """\
# yaml-language-server: $schema=../.schemas/feed.json
name: mars
display_name: "Mars: the exchange"
type: spot
status: active  # not yet
capture_locations:
  - name: home
    provider: own
    region: eu
versions:
  - effective_from: 2026-01-01
    wire: mars-1
    channels: [trade]
    capabilities: [trades]
    rate_limits:
      rest_reads_per_second: 5
    calendar:
      timezone: America/New_York
      weekly_pauses:
        - day: thursday
          start: "03:00"
          end: "05:00"
          reason: rest
    endpoints:
      prod:
        rest: https://a/v2
        websocket: wss://a/ws
  - effective_from: 2026-06-01
    wire: mars-2
    endpoints:
      prod:
        rest: https://a/v2
        websocket: wss://a/ws
    channels: [trade]
    capabilities: [trades]
    rate_limits:
      rest_reads_per_second: 5
    calendar:
      timezone: America/New_York
      weekly_pauses:
        - day: thursday
          start: "03:00"
          end: "05:00"
          reason: rest
"""
    )
    shown = json.loads(ssmd("feed", "show", "mars", "--as-of", "2026-03-01", "-o", "json").out)
    assert [version["wire"] for version in shown["versions"]] == ["mars-1"]
    assert ssmd("feed", "show", "mars", "--as-of", "2025-12-31") == (
        1,
        "",
        'feed "mars" has no version in force on 2025-12-31\n',
    )
    assert yaml.safe_load(ssmd("feed", "show", "mars", "-o", "yaml").out)["versions"][1]["wire"] == "mars-2"
    assert ssmd("feed", "list").out.splitlines()[2].split() == ["mars", "spot", "active", "2", "2026-06-01", "mars-2", "prod"]


def test_an_edit_that_would_break_a_rule_changes_nothing(ssmd: Ssmd, workspace: Path) -> None:
    before = snapshot(workspace)
    called = ssmd("feed", "add-version", "kalshi", "--effective-from", "2026-03-12")
    assert called == (
        1,
        "",
        (
            "error: this would leave the registry with 1 mistake; nothing was changed:\n"
            "  exchanges/feeds/kalshi.yaml:48:21: effective_from 2026-03-12 does not follow 2026-03-12 of the version above"
            " (order versions by date, each date once) [overlap]\n"
        ),
    )
    for arguments, said in (
        (("feed", "update", "kalshi", "--status", "actve"), 'did you mean "active"?'),
        (("feed", "update", "kalsi", "--status", "active"), 'there is no feed "kalsi"'),
        (("feed", "update", "kalshi", "--set", "versons=1"), 'unknown key "versons"'),
        (("feed", "update", "kalshi", "--set", "versions[7].wire=x"), "has no place versions.7.wire"),
        (("feed", "update", "kalshi", "--set", "wire"), '"wire" is no assignment'),
        (("feed", "create", "Bad Name", "--type", "spot", "--wire", "x"), '"Bad Name" is no name'),
        (("env", "update", "kalshi-dev", "--set", "capture.simulator.markets=many"), "found the text many"),
        (("env", "add-key", "kalshi-dev", "kalshi", "--field", "x"), 'defines the key "kalshi" already'),
        (("env", "create", "x", "--feed", "kalshi", "--schema", "market:1", "--endpoint", "prod"), "capture.key names none"),
        (("schema", "set-status", "market", "1", "deprecated"), "an active environment needs an active schema"),
        (("schema", "set-status", "market", "1", "draft"), "cannot become draft again"),
        (("schema", "set-status", "market", "2", "draft"), "has no version 2"),
    ):
        called = ssmd(*arguments)
        assert called.status in (1, 2), arguments
        assert said in called.err, called.err
    assert snapshot(workspace) == before


# environment


def test_an_environment_from_its_creation_to_a_second_key(ssmd: Ssmd, workspace: Path) -> None:
    assert ssmd(
        "env", "create", "two", "--feed", "kalshi", "--schema", "market:1", "--endpoint", "demo", "--capture-key", "kalshi",
        "--key", "kalshi=kalshi-api-key:api_key,private_key", "--set", "capture.tickers=A,B", "--set", "schedule.start=09:00",
    ).status == 0  # fmt: skip
    assert ssmd("env", "add-key", "two", "nats", "--field", "url", "--optional").status == 0
    assert ssmd("env", "update", "two", "--set", "journal.url=$key:nats.url", "--set", "shards.all.rest=true").status == 0
    assert (
        (workspace / "exchanges/environments/two.yaml").read_text()
        == """\
# yaml-language-server: $schema=../.schemas/environment.json
keys:
  kalshi:
    type: kalshi-api-key
    fields: [api_key, private_key]
  nats:
    type: opaque
    fields: [url]
    required: false
name: two
feed: kalshi
schema: market:1
schedule:
  start: "09:00"
capture:
  endpoint: demo
  key: $key:kalshi
  tickers: [A, B]
journal:
  url: $key:nats.url
shards:
  all:
    rest: true
"""
    )
    assert json.loads(ssmd("env", "show", "two", "--as-of", "2026-04-01", "-o", "json").out)["config"] == ""


def test_comments_line_ends_and_the_byte_order_mark_stay(ssmd: Ssmd, workspace: Path) -> None:
    path = workspace / DEV
    payload = b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n").replace(b"markets: 20", b"markets:  20  # few")
    path.write_bytes(payload)
    definition = workspace / "exchanges/schemas/market.capnp"
    definition.write_bytes(definition.read_bytes().replace(b"\n", b"\r\n"))
    assert ssmd("validate").status == 0
    assert ssmd("env", "update", "kalshi-dev", "--set", "capture.simulator.markets=30", "--status", "draft").status == 0
    expected = payload.replace(b"markets:  20", b"markets:  30").replace(b"-dev\r\nfeed", b"-dev\r\nstatus: draft\r\nfeed")
    assert path.read_bytes() == expected
    assert ssmd("validate").status == 0


# schema


def test_a_schemas_second_version_is_compared_with_the_first(ssmd: Ssmd, workspace: Path) -> None:
    definition = (workspace / "exchanges/schemas/market.capnp").read_text()
    new = workspace / "new.capnp"
    new.write_text(definition.replace("isBlock @4 :Bool;", "isBlock @4 :Text;"))
    called = ssmd("schema", "add-version", "market", "--file", str(new))
    assert called.status == 1
    assert "version 1: breaks readers: Trade.isBlock @4 was retyped from Bool to Text\n" in called.err
    assert "breaks readers of market:1, as named above" in called.err
    assert ssmd("schema", "add-version", "market", "--file", str(new), "--breaking").status == 0
    new.write_text(definition.replace("isBlock @4 :Bool;", "isBlock @4 :Bool; venue @5 :Text;"))
    called = ssmd("schema", "add-version", "market", "--file", str(new), "--breaking")
    assert "version 1: Trade.venue @5 is new\n" in called.err
    rows = json.loads(ssmd("schema", "list", "-o", "json").out)
    assert [(row["version"], row["definition"], row["compatible_with"]) for row in rows] == [
        (1, "market.capnp", []),
        (2, "market-v2.capnp", []),
        (3, "market-v3.capnp", [1]),
    ]
    path = workspace / "exchanges/schemas/market.yaml"
    path.write_text(path.read_text().replace("compatible_with: [1]", "compatible_with: [1, 2]"))
    found = json.loads(ssmd("validate", "-o", "json").out)
    assert [(finding["rule"], finding["line"], finding["column"]) for finding in found] == [("not-compatible", 22, 26)]
    assert found[0]["message"] == "version 3 is not compatible with 2: Trade.isBlock @4 was retyped from Text to Bool"


def test_a_new_schema_is_registered_with_its_hash(ssmd: Ssmd, workspace: Path) -> None:
    new = workspace / "new.capnp"
    new.write_text("@0xb1b2b3b4b5b6b7b8;\nstruct Ping { at @0 :UInt64; }\n")
    called = ssmd("schema", "register", "ping", "--file", str(new), "--root", "Pong")
    assert called.err == f'error: {new} has no struct "Pong"\n  try: did you mean "Ping"?\n'
    assert ssmd("schema", "register", "ping", "--file", str(new), "--root", "Ping").status == 0
    assert ssmd("schema", "set-status", "ping", "1", "active").status == 0
    rows = ssmd("schema", "hash", "ping").out.splitlines()
    assert rows[1].split()[0::3] == ["ping:1", "yes"]
    (workspace / "exchanges/schemas/ping.capnp").write_text("edited")
    assert ssmd("schema", "hash", "ping").status == 1
    new.write_text("@0xb1b2b3b4b5b6b7b8;\nstruct Ping { at @0 :Nothing; }\n")
    called = ssmd("schema", "register", "other", "--file", str(new), "--root", "Ping")
    assert (called.status, called.err) == (2, "error: not a Cap'n Proto definition: line 2: Not defined: Nothing\n")


# validate


def test_the_pre_commit_hook_runs_the_validation() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert (hook["id"], hook["entry"], hook["pass_filenames"]) == ("ssmd-validate", "ssmd validate", False)
    pattern = re.compile(hook["files"])
    assert [bool(pattern.search(name)) for name in ("exchanges/feeds/a.yaml", "deep/exchanges/x", "src/exchanges.py")] == [
        True,
        True,
        False,
    ]


def test_annotations_for_github(ssmd: Ssmd, workspace: Path) -> None:
    path = workspace / DEV
    path.write_text(path.read_text().replace("markets: 20", 'markets: "20"'))
    assert ssmd("validate", "--format", "github").out == (
        "::error file=exchanges/environments/kalshi-dev.yaml,line=16,col=14,title=wrong-type::capture.simulator.markets must be"
        ' an integer, found the text "20" (write 20 without quotes)\n'
    )


def test_online_reaches_what_is_named(ssmd: Ssmd, workspace: Path, journal_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kalshi-demo", "kalshi-prod"):
        (workspace / f"exchanges/environments/{name}.yaml").unlink()
    assert ssmd("env", "update", "kalshi-dev", "--set", f"journal.url={journal_url}").status == 0
    assert ssmd("validate", "--online").status == 0
    monkeypatch.setenv("SSMD_CACHE_URL", "redis://me:hunter2@127.0.0.1:1/0")
    assert ssmd("env", "add-key", "kalshi-dev", "cache", "--field", "url").status == 0
    ssmd("env", "update", "kalshi-dev", "--set", "journal.url=nats://127.0.0.1:1", "--set", "cache.url=$key:cache.url")
    called = ssmd("validate", "--online", "-o", "json")
    found = {finding["message"].partition(":")[0]: finding["rule"] for finding in json.loads(called.out)}
    assert (called.status, found) == (1, {"journal is not reached": "unreachable", "cache is not reached": "unreachable"})
    assert "hunter2" not in called.out + called.err


def test_a_thousand_documents_are_checked_within_two_seconds(ssmd: Ssmd, workspace: Path) -> None:
    environment, feed = (workspace / DEV).read_text(), (workspace / FEED).read_text()
    for number in range(700):
        (workspace / f"exchanges/environments/e{number}.yaml").write_text(environment.replace(": kalshi-dev", f": e{number}"))
    for number in range(295):
        (workspace / f"exchanges/feeds/f{number}.yaml").write_text(feed.replace("name: kalshi\n", f"name: f{number}\n"))
    before = time.process_time()
    called = ssmd("validate")
    took = time.process_time() - before
    assert called.err == "no mistake in 1000 documents\n"
    assert took < 2.0, took


# any sequence of edits

NAMES = st.sampled_from(["kalshi", "mars", "a", "Bad Name", "two"])
STATUSES = st.sampled_from(["draft", "active", "deprecated", "actve"])
DATES = st.sampled_from(["2025-01-01", "2026-03-12", "2026-11-22", "2027-01-01", "2028-02-29"])
ENVIRONMENTS = st.sampled_from(["kalshi-dev", "kalshi-prod", "two", "none"])
SETTINGS = st.sampled_from(
    [
        "capture.tickers_max=5", "capture.tickers=A,B: c", "capture.endpoint=prod", "capture.endpoint=nowhere", "feed=mars",
        "schema=market:2", "timezone=America/New_York", "timezone=Mars", "retention.raw_days=30", "retention.raw_days=-1",
        "shards.a.rest=true", "shards.b.tickers=X*", "shards.c={tickers: [X*, Y]}", "schedule.days=monday,friday",
        "schedule.start=9", "schedule.end=17:30", "limits={memory_bytes: 1000}", "limits.disk_bytes=1", "gateway.port=0",
        "keys.kalshi.rotation_days=30", "keys.kalshi.fields=x", "journal.url=$key:nats.url", "unknown=1", "name=other",
        "transport.max_age_hours=24", "cache={backend: memory}", "capture.simulator.speed=max",
    ]
)  # fmt: skip


def words(*parts: str | st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.tuples(*(st.just(part) if isinstance(part, str) else part for part in parts))


ARGUMENTS = st.one_of(
    words("feed", "update", NAMES, "--status", STATUSES),
    words("feed", "update", NAMES, "--display-name", st.text(st.characters(codec="utf-8"), max_size=8)),
    words("feed", "create", NAMES, "--type", "spot", "--wire", "w", "--effective-from", DATES, "--endpoint", "prod=r,w"),
    words("feed", "add-version", NAMES, "--effective-from", DATES),
    words("feed", "add-version", NAMES, "--effective-from", DATES, "--effective-to", DATES),
    words("env", "create", NAMES, "--feed", NAMES, "--schema", "market:1", "--endpoint", "prod", "--set", SETTINGS),
    words("env", "update", ENVIRONMENTS, "--set", SETTINGS, "--set", SETTINGS),
    words("env", "update", ENVIRONMENTS, "--status", STATUSES),
    words("env", "add-key", ENVIRONMENTS, "nats", "--field", "url"),
    words("schema", "set-status", "market", st.sampled_from(["1", "2"]), STATUSES),
)


@given(edits=st.lists(ARGUMENTS, min_size=1, max_size=6))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_edits_leaves_a_valid_registry_or_is_refused_without_a_change(
    workspace: Path, capsys: pytest.CaptureFixture[str], edits: list[tuple[str, ...]]
) -> None:
    for name, payload in kalshi_files().items():
        (workspace / "exchanges" / name).write_bytes(payload)
    for path in [*(workspace / "exchanges").glob("*/*.yaml")]:
        if f"{path.parent.name}/{path.name}" not in kalshi_files():
            path.unlink()
    for arguments in edits:
        before = snapshot(workspace)
        status = main(arguments)
        error = capsys.readouterr().err
        after = snapshot(workspace)
        assert status in (0, 1, 2), error
        assert "unforeseen" not in error, error
        if status:
            assert after == before, error
            continue
        assert check_registry(workspace / "exchanges", date="2026-11-22")[1] == []
        for name, payload in before.items():
            comments = [line for line in payload.decode().splitlines() if line.lstrip().startswith("#")]
            assert [line for line in after[name].decode().splitlines() if line.lstrip().startswith("#")] == comments
