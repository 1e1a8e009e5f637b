"""Everything in `keys` that writes files: no way out of the directory, no way through a link, 0600 on secrets."""

import os
import stat
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from ssmd.errors import Misconfigured
from ssmd.identifiers import system_random
from ssmd.keys.local_store import LocalStore, make_passphrase
from ssmd.keys.mounted import delete_mounted, directory_of, read_mounted, write_mounted
from ssmd.keys.private_files import inside, read_private, remove_private, write_private
from ssmd.keys.secret import Secret
from ssmd.keys.store import KeyPlaces, KeyStore
from ssmd.registry.documents import KeyDefinition, SealedSecretSettings

SECRET = "hunter2-hunter2"
OUTSIDE = ("../evil", "..", "/etc/evil", "a/b", "a/../../evil", "", ".", ".hidden", "a\0b", "x" * 300, "~", "a\\b", "..%2fevil")


def places(root: Path) -> KeyPlaces:
    return KeyPlaces(
        "e", root, root / ".ssmd", root / ".ssmd" / "e" / "keys", {"SSMD_KEYS_PASSPHRASE": "p" * 16}, system_random
    )


def files_of(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_leads_out_of_its_directory(tmp_path: Path, name: str) -> None:
    root = tmp_path / "workspace"
    root.mkdir()
    store = LocalStore("e", root / "keys", "p" * 16, system_random)
    writers: list[Callable[[], object]] = [
        lambda: store.write(name, {"token": Secret(SECRET)}),
        lambda: store.delete(name),
        lambda: write_mounted(root / "mount", {name: Secret(SECRET)}),
        lambda: delete_mounted(root / "mount", (name,)),
        lambda: read_mounted(root / "mount", (name,)),
        lambda: directory_of(name, "", root),
        lambda: KeyStore(name, KeyDefinition(type="opaque", fields=("t",), source="local"), places(root)).delete(),
        lambda: KeyStore(name, KeyDefinition(type="opaque", fields=("t",), source="generated"), places(root)).read(),
        lambda: KeyStore(name, KeyDefinition(type="opaque", fields=("t",), source="generated"), places(root)).regenerate(),
    ]
    for write in writers:
        with pytest.raises(Misconfigured) as caught:
            write()
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert files_of(tmp_path) == {"workspace"}


@pytest.mark.parametrize("relative", ["../x.yaml", "/tmp/x.yaml", "a/../../x.yaml", "", ".", "link/x.yaml", "a\0b"])
def test_a_manifest_is_written_inside_the_workspace_only(tmp_path: Path, relative: str) -> None:
    root, elsewhere = tmp_path / "workspace", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    (root / "link").symlink_to(elsewhere)
    with pytest.raises(Misconfigured, match="not inside the workspace"):
        inside(root, relative, "manifest")
    settings = SealedSecretSettings(name="n", certificate="c.pem", manifest=relative)
    definition = KeyDefinition(type="opaque", fields=("t",), source="sealed-secret", sealed_secret=settings)
    for touch in (lambda: KeyStore("k", definition, places(root)).write({"t": Secret(SECRET)}, 0),
                  lambda: KeyStore("k", definition, places(root)).delete()):  # fmt: skip
        with pytest.raises(Misconfigured):
            touch()
    assert files_of(elsewhere) == set()


def test_nothing_is_written_or_read_through_a_symbolic_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(victim)
    with pytest.raises(Misconfigured, match="no plain file"):
        write_private(link, SECRET.encode())
    with pytest.raises(Misconfigured, match="cannot be read"):
        read_private(link)
    store = LocalStore("e", tmp_path / "keys", "p" * 16, system_random)
    store.write("k", {"token": Secret(SECRET)})
    store.path("k").unlink()
    store.path("k").symlink_to(victim)
    with pytest.raises(Misconfigured):
        store.write("k", {"token": Secret(SECRET)})
    mount = tmp_path / "mount"
    mount.mkdir()
    (mount / "token").symlink_to(victim)
    with pytest.raises(Misconfigured):
        write_mounted(mount, {"token": Secret(SECRET)})
    generated = KeyDefinition(type="opaque", fields=("t",), source="generated")
    place = places(tmp_path)
    place.directory.mkdir(parents=True)
    (place.directory / "g.json").symlink_to(victim)
    with pytest.raises(Misconfigured, match="symbolic link"):
        KeyStore("g", generated, place).read()
    assert victim.read_text() == "precious"
    # Removing takes the link, never what it names.
    assert remove_private(link)
    assert victim.read_text() == "precious"


def test_a_dangling_link_makes_no_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "new")
    with pytest.raises(Misconfigured):
        write_private(tmp_path / "link", b"x")
    assert not (tmp_path / "new").exists()


def test_secrets_are_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = LocalStore("e", tmp_path / "keys", "p" * 16, system_random)
        store.write("k", {"token": Secret(SECRET)})
        write_mounted(tmp_path / "mount", {"token": Secret(SECRET)})
        passphrase = make_passphrase(tmp_path / "state", system_random)
        KeyStore("g", KeyDefinition(type="opaque", fields=("t",), source="generated"), places(tmp_path)).regenerate()
    finally:
        os.umask(before)
    for path in (store.path("k"), tmp_path / "mount" / "token", passphrase, tmp_path / ".ssmd" / "e" / "keys" / "g.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700, path


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "k"
    write_private(path, b"x")
    path.chmod(mode)
    with pytest.raises(Misconfigured, match=f"mode {mode:o}"):
        read_private(path)


def test_what_is_written_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "k"
    write_private(path, b"first")
    tmp_path.chmod(0o500)
    try:
        write_private(path, b"second")
    except Misconfigured:
        assert path.read_bytes() == b"first"
    else:  # root may write anywhere
        assert path.read_bytes() == b"second"
    finally:
        tmp_path.chmod(0o700)
    assert files_of(tmp_path) == {"k"}


def test_devices_pipes_and_directories_are_no_secret_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "directory").mkdir(mode=0o700)
    for name in ("pipe", "directory"):
        with pytest.raises(Misconfigured):
            read_private(tmp_path / name)
        with pytest.raises(Misconfigured):
            write_private(tmp_path / name, b"x")
        with pytest.raises(Misconfigured):
            read_mounted(tmp_path, (name,))
    with pytest.raises(Misconfigured):
        read_private(Path("/dev/zero"))
