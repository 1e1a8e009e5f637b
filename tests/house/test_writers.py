"""Everything that writes files: which modules do, under whose names, and that no name or link leads them elsewhere.

The table is complete: a module that begins to write files fails here until it says what keeps it in its place.
"""

from __future__ import annotations

import ast
import asyncio
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.conftest import Ssmd, ssmd, workspace  # noqa: F401 - fixtures

from ssmd.errors import Misconfigured, SsmdError
from ssmd.identifiers import encode_token
from ssmd.registry.changes import write_files
from ssmd.registry.loader import load_registry
from ssmd.streams.journal_sqlite import SqliteJournal

SRC = Path(__file__).resolve().parents[2] / "src" / "ssmd"

STATE = "below .ssmd/ENV, under names of checked documents and numbers of our own (tests below)"
FRESH = "a temporary directory or file of this process alone"
LINKS = "never through a link, inside its directory"

WRITERS = {
    "archive/segment": f"the spool: {STATE}",
    "archive/storage_local": f"{LINKS}: tests/contracts/test_storage_contract.py",
    "cli/app": "/dev/null",
    "cli/reference": "a developer's command",
    "gateway/documents": "a developer's command",
    "keys/generated": f"{LINKS}: tests/keys/test_private_files.py",
    "keys/private_files": f"{LINKS}: tests/keys/test_private_files.py",
    "registry/bootstrap": "a workspace that demo, record or chaos has just made: tests/e2e/test_demo.py",
    "registry/changes": "exchanges/: below",
    "registry/definition_check": FRESH,
    "services/armed_crash": "a directory of the chaos runs",
    "services/backup": FRESH,
    "services/connector/departures": STATE,
    "services/connector/gap_repairs": STATE,
    "services/connector/letter_spool": STATE,
    "services/connector/mapper_checkpoint": STATE,
    "services/connector/sessions": STATE,
    "services/machine_checks": FRESH,
    "services/processes": STATE,
    "services/repair_sources": FRESH,
    "services/run_file": STATE,
    "services/server_directory": STATE,
    "services/simulator/seeded_capture": FRESH,
    "streams/journal_sqlite": STATE,
    "streams/tape": STATE,
    "transforms/export": "`data export --into`: below",
    "transforms/tables": "`data export --into`: below",
    "wiring/archive_access": FRESH,
    "wiring/backends": STATE,
    "wiring/demo": "a directory that demo has made: tests/e2e/test_demo.py",
    "wiring/instances": STATE,
    "wiring/journal_tools": "`journal export`: below",
    "wiring/own_spool": STATE,
    "wiring/record": "the workspace that record has made",
    "wiring/tape": STATE,
}
"""Module -> where it writes and what holds it there. What calls these (env render, backup restore, key export, streams auth,
env use, the quality page) writes through `keys.private_files`, `registry.changes` or a storage."""

WRITING = {"write_text", "write_bytes", "mkstemp", "NamedTemporaryFile", "symlink_to", "copyfile", "copytree", "extractall"}
WRITING_QUALIFIED = {"os.link", "shutil.copy", "shutil.move", "pq.ParquetWriter"}
WORDS = ("open(", *(f"{name}(" for name in (*WRITING, *WRITING_QUALIFIED)))


def writes(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    whole = ast.unparse(call.func)
    if name != "open":
        return name in WRITING or whole in WRITING_QUALIFIED
    if whole == "os.open":
        return any(flag in ast.unparse(call) for flag in ("O_CREAT", "O_WRONLY", "O_RDWR"))
    modes = [one.value for one in (*call.args, *(word.value for word in call.keywords)) if isinstance(one, ast.Constant)]
    return any(isinstance(mode, str) and set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes)


def test_whatever_writes_files_is_in_the_table() -> None:
    found = {
        path.relative_to(SRC).with_suffix("").as_posix()
        for path in SRC.rglob("*.py")
        if "chaos" not in path.parts
        and any(word in (text := path.read_text(encoding="utf-8")) for word in WORDS)
        and any(isinstance(node, ast.Call) and writes(node) for node in ast.walk(ast.parse(text)))
    }
    assert found == set(WRITERS)


@given(name=st.text(min_size=1, max_size=40))
def test_a_name_of_the_venue_is_one_plain_name_of_a_file(name: str) -> None:
    """Tickers, connections and instances become file names and object keys as tokens."""
    try:
        token = encode_token(name)
    except UnicodeEncodeError:  # a lone surrogate is no text
        return
    assert set(token) <= set("%_-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def test_no_document_names_a_directory_elsewhere(tmp_path: Path) -> None:
    registry = tmp_path / "exchanges"
    shutil.copytree(SRC.parents[1] / "exchanges", registry)
    odd = registry / "environments" / "odd.yaml"
    keys = {"k": {"type": "kalshi-api-key", "fields": ["api_key", "private_key"], "source": "generated"}}
    capture = {"endpoint": "simulator", "key": "$key:k"}
    document = {"name": "odd", "feed": "kalshi", "schema": "market:1", "keys": keys, "capture": capture}
    odd.write_text(json.dumps(document))
    load_registry(registry, date="2026-11-22")
    for name in ("../evil", "a/b", "..", ".hidden", "a\nb", "a\n"):
        for change in (
            {"name": name},
            {"feed": name},
            {"capture": {**capture, "connection": name}},
            {"keys": {**keys, name: keys["k"]}},
            {"shards": {name: {"rest": True}}},
        ):
            odd.write_text(json.dumps({**document, **change}))
            with pytest.raises(SsmdError, match=r"odd\.yaml.* must be (a name|named)"):
                load_registry(registry, date="2026-11-22")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "victim"
    path.parent.mkdir()
    path.write_text("precious")
    return path


def test_a_link_in_the_registry_leads_nowhere_else(tmp_path: Path, victim: Path) -> None:
    root = tmp_path / "w" / "exchanges"
    (root / "feeds").mkdir(parents=True)
    (root / "feeds" / "evil.yaml").symlink_to(victim)
    (root / "environments").symlink_to(victim.parent)
    for name in ("feeds/evil.yaml", "environments/new.yaml", "../../outside.yaml"):
        with pytest.raises(Misconfigured, match="leads out of the workspace"):
            write_files(root, {"feeds/good.yaml": b"x", name: b"x"}, within=root.parent)
    assert (victim.read_text(), [path.name for path in victim.parent.iterdir()]) == ("precious", ["victim"])
    assert not (root / "feeds" / "good.yaml").exists()
    # A link within the workspace stays one.
    (tmp_path / "w" / "shared.yaml").write_text("old")
    (root / "feeds" / "linked.yaml").symlink_to("../../shared.yaml")
    write_files(root, {"feeds/linked.yaml": b"new"}, within=root.parent)
    assert ((tmp_path / "w" / "shared.yaml").read_text(), (root / "feeds" / "linked.yaml").is_symlink()) == ("new", True)


def test_what_a_command_is_told_to_write_goes_through_no_link(
    ssmd: Ssmd,  # noqa: F811
    workspace: Path,  # noqa: F811
    victim: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the very name, beside it, and in the directory: nothing of somebody else's is changed."""
    document = workspace / "exchanges" / "environments" / "kalshi-dev.yaml"
    document.write_text(document.read_text() + "\njournal:\n  backend: sqlite\n")
    monkeypatch.setenv("SSMD_ENV", "kalshi-dev")
    directory = workspace / ".ssmd" / "kalshi-dev"
    directory.mkdir(parents=True)
    asyncio.run(_empty_journal(directory / "journal.sqlite"))
    linked = workspace / "linked"
    linked.symlink_to(victim)
    (workspace / ".ssmd" / "current-env").symlink_to(victim)
    out = workspace / "out"
    out.mkdir()
    (out / "journal-auth.conf").symlink_to(victim)
    (out / "kustomization.yaml").symlink_to(victim)
    kept = str(workspace / "kept")
    assert ssmd("backup", "create", "--to", kept).status == 0
    for arguments, says in (
        (("env", "use", "kalshi-dev"), "no plain file"),
        (("journal", "export", str(linked)), "left alone"),
        (("env", "render", "kalshi-demo", "--to", str(out)), "no plain file"),
        (("streams", "auth", "kalshi-demo", "--to", str(out)), "no plain file"),
        (("backup", "create", "--to", str(linked)), "Not a directory"),
        (("backup", "restore", "--from", kept, "--into", str(linked)), "is no directory"),
    ):
        called = ssmd(*arguments)
        assert (called.status != 0, says in called.err) == (True, True), (arguments, called)
    assert victim.read_text() == "precious"
    assert [path.name for path in victim.parent.iterdir()] == ["victim"]


async def _empty_journal(path: Path) -> None:
    await (await SqliteJournal.open(path, "kalshi-dev")).close()
