import json
import traceback
from pathlib import Path

import pytest

from ssmd.errors import Misconfigured
from ssmd.identifiers import system_random
from ssmd.keys.fingerprint import fingerprint
from ssmd.keys.local_store import LocalStore, make_passphrase, passphrase
from ssmd.keys.secret import Secret

FIELDS = {"token": Secret("hunter2-hunter2"), "id": Secret("x")}


def store(directory: Path, *, env: str = "e", word: str = "correct horse") -> LocalStore:
    return LocalStore(env, directory, word, system_random)


def test_what_is_written_is_read_and_nobody_else_reads_it(tmp_path: Path) -> None:
    kept = store(tmp_path)
    assert kept.read("k") is None
    kept.write("k", FIELDS)
    assert kept.read("k") == FIELDS
    assert b"hunter2" not in kept.path("k").read_bytes()
    kept.write("k", {"token": Secret("other")})
    assert kept.read("k") == {"token": Secret("other")}
    assert (kept.delete("k"), kept.delete("k"), kept.read("k")) == (True, False, None)


def test_another_passphrase_name_or_environment_opens_nothing(tmp_path: Path) -> None:
    store(tmp_path).write("k", FIELDS)
    path = store(tmp_path).path("k")
    (path.parent / "other.json").write_bytes(path.read_bytes())
    (path.parent / "other.json").chmod(0o600)
    for kept, name in (
        (store(tmp_path, word="wrong horse!"), "k"),
        (store(tmp_path), "other"),
        (store(tmp_path, env="prod"), "k"),
    ):
        with pytest.raises(Misconfigured, match="does not open") as caught:
            kept.read(name)
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_changed_byte_opens_nothing(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.write("k", FIELDS)
    sealed = json.loads(kept.path("k").read_text())
    for part in ("salt", "nonce", "box"):
        broken = dict(sealed, **{part: ("A" if sealed[part][0] != "A" else "B") + sealed[part][1:]})
        kept.path("k").write_text(json.dumps(broken))
        with pytest.raises(Misconfigured, match="does not open"):
            kept.read("k")


def test_where_the_passphrase_comes_from(tmp_path: Path) -> None:
    assert passphrase({}, tmp_path) == ""
    made = make_passphrase(tmp_path, system_random)
    assert len(passphrase({}, tmp_path)) == 64
    assert passphrase({"SSMD_KEYS_PASSPHRASE": "correct horse"}, tmp_path) == "correct horse"
    given = tmp_path / "given"
    given.write_text("battery staple\n")
    given.chmod(0o600)
    assert passphrase({"SSMD_KEYS_PASSPHRASE_FILE": str(given)}, tmp_path) == "battery staple"
    given.chmod(0o644)
    with pytest.raises(Misconfigured, match="read by others"):
        passphrase({"SSMD_KEYS_PASSPHRASE_FILE": str(given)}, tmp_path)
    with pytest.raises(Misconfigured, match="both set"):
        passphrase({"SSMD_KEYS_PASSPHRASE_FILE": str(given), "SSMD_KEYS_PASSPHRASE": "x" * 20}, tmp_path)
    with pytest.raises(Misconfigured, match="shorter than 12"):
        passphrase({"SSMD_KEYS_PASSPHRASE": "short"}, tmp_path)
    with pytest.raises(Misconfigured, match="not there"):
        passphrase({"SSMD_KEYS_PASSPHRASE_FILE": str(tmp_path / "none")}, tmp_path)
    made.chmod(0o640)
    with pytest.raises(Misconfigured, match="read by others"):
        passphrase({}, tmp_path)


def test_without_a_passphrase_nothing_is_stored(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no passphrase"):
        store(tmp_path, word="").write("k", FIELDS)
    assert not list(tmp_path.rglob("*.json"))


def test_a_fingerprint_is_the_same_everywhere_and_tells_values_names_and_environments_apart() -> None:
    mark = fingerprint("e", "k", FIELDS)
    assert mark == fingerprint("e", "k", dict(reversed(FIELDS.items())))
    assert len(mark) == 16
    int(mark, 16)
    others = {
        fingerprint("f", "k", FIELDS),
        fingerprint("e", "l", FIELDS),
        fingerprint("e", "k", {"token": FIELDS["token"]}),
        fingerprint("e", "k", {"token": Secret("hunter2-hunter2x"), "id": Secret("")}),
        fingerprint("e", "k", {"id": Secret("hunter2-hunter2"), "token": Secret("x")}),
    }
    assert len(others | {mark}) == 6
