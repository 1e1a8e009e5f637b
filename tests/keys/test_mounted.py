from pathlib import Path

import pytest

from ssmd.errors import Misconfigured
from ssmd.keys.mounted import delete_mounted, directory_of, read_mounted, write_mounted
from ssmd.keys.secret import Secret


def mount(root: Path, version: str, fields: dict[str, str]) -> None:
    """A volume as the kubelet lays it out: files behind ..data, which is swapped whole."""
    data = root / f"..{version}"
    data.mkdir(parents=True)
    for field, text in fields.items():
        (data / field).write_text(text)
        (data / field).chmod(0o440)
        if not (root / field).is_symlink():
            (root / field).symlink_to(Path("..data") / field)
    draft = root / "..data_tmp"
    draft.symlink_to(data.name)
    draft.replace(root / "..data")


def test_a_mounted_secret_is_read_and_read_anew_after_a_swap(tmp_path: Path) -> None:
    mount(tmp_path, "1", {"api_key": "a1", "private_key": "p1\n"})
    fields = ("api_key", "private_key")
    assert read_mounted(tmp_path, fields) == {"api_key": Secret("a1"), "private_key": Secret("p1")}
    mount(tmp_path, "2", {"api_key": "a2", "private_key": "p2"})
    assert read_mounted(tmp_path, fields) == {"api_key": Secret("a2"), "private_key": Secret("p2")}
    with pytest.raises(Misconfigured, match="mounted by Kubernetes"):
        write_mounted(tmp_path, {"api_key": Secret("x")})


def test_fields_are_never_of_two_versions(tmp_path: Path) -> None:
    """The link a field file goes by is not followed: ..data is read once for all fields."""
    mount(tmp_path, "1", {"api_key": "a1", "private_key": "p1"})
    (tmp_path / "api_key").unlink()
    (tmp_path / "api_key").symlink_to("/nowhere")
    assert read_mounted(tmp_path, ("api_key", "private_key")) == {"api_key": Secret("a1"), "private_key": Secret("p1")}


def test_a_directory_by_hand(tmp_path: Path) -> None:
    directory = tmp_path / "kalshi"
    assert read_mounted(directory, ("token",)) == {}
    write_mounted(directory, {"token": Secret("t1"), "id": Secret("i")})
    assert read_mounted(directory, ("token", "id", "more")) == {"token": Secret("t1"), "id": Secret("i")}
    (directory / "token").chmod(0o644)
    with pytest.raises(Misconfigured, match="by everybody"):
        read_mounted(directory, ("token",))
    assert (delete_mounted(directory, ("token", "id")), delete_mounted(directory, ("token", "id"))) == (True, False)


@pytest.mark.parametrize(
    ("payload", "says"), [(b"", "empty"), (b" \n", "empty"), (b"\xff\xfe", "not text"), (b"x" * 65537, "larger")]
)
def test_what_is_no_field_is_refused(tmp_path: Path, payload: bytes, says: str) -> None:
    (tmp_path / "token").write_bytes(payload)
    (tmp_path / "token").chmod(0o600)
    with pytest.raises(Misconfigured, match=says):
        read_mounted(tmp_path, ("token",))


def test_where_a_key_is(tmp_path: Path) -> None:
    assert directory_of("kalshi", "", tmp_path) == Path("/etc/ssmd/keys/kalshi")
    assert directory_of("kalshi", "secrets/kalshi", tmp_path) == tmp_path / "secrets" / "kalshi"
    assert directory_of("kalshi", "/run/kalshi", tmp_path) == Path("/run/kalshi")
