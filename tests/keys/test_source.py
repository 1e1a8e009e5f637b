import pickle
import stat
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ssmd.errors import Misconfigured
from ssmd.exchanges.kalshi.signing import load_private_key
from ssmd.identifiers import system_random
from ssmd.keys.secret import Secret
from ssmd.keys.source import resolve_key
from ssmd.registry.documents import KeyDefinition

KALSHI = KeyDefinition(type="kalshi-api-key", fields=("api_key", "private_key"))
OPAQUE = KeyDefinition(type="opaque", fields=("token",))
GENERATED = KeyDefinition(type="kalshi-api-key", fields=("api_key", "private_key"), source="generated")


def pem_of(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@pytest.fixture(scope="module")
def rsa_pem() -> str:
    return pem_of(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def resolve(definition: KeyDefinition, tmp_path: Path, variables: dict[str, str], name: str = "kalshi") -> dict[str, Secret]:
    return resolve_key(name, definition, variables=variables, directory=tmp_path / "keys", random=system_random)


def test_variable_and_file_give_the_same_value(tmp_path: Path, rsa_pem: str) -> None:
    file = tmp_path / "key.pem"
    file.write_text(rsa_pem)
    variables = {"SSMD_KALSHI_API_KEY": "id-1", "SSMD_KALSHI_PRIVATE_KEY_FILE": str(file)}
    fields = resolve(KALSHI, tmp_path, variables)
    assert fields["api_key"].reveal() == "id-1"
    assert fields["private_key"].reveal() == rsa_pem.removesuffix("\n")
    by_value = resolve(KALSHI, tmp_path, {"SSMD_KALSHI_API_KEY": "id-1", "SSMD_KALSHI_PRIVATE_KEY": rsa_pem.removesuffix("\n")})
    assert by_value == fields


def test_dashes_of_a_name_are_underscores_in_the_variable(tmp_path: Path) -> None:
    assert resolve(OPAQUE, tmp_path, {"SSMD_MY_KEY_TOKEN": "t"}, name="my-key") == {"token": Secret("t")}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, 'key "kalshi" has no value: SSMD_KALSHI_TOKEN or SSMD_KALSHI_TOKEN_FILE is not set'),
        ({"SSMD_KALSHI_TOKEN": " "}, "SSMD_KALSHI_TOKEN is set, but empty"),
        (
            {"SSMD_KALSHI_TOKEN": "a", "SSMD_KALSHI_TOKEN_FILE": "b"},
            "SSMD_KALSHI_TOKEN and SSMD_KALSHI_TOKEN_FILE are both set: which one holds?",
        ),
        (
            {"SSMD_KALSHI_TOKEN_FILE": "/nowhere/key"},
            "SSMD_KALSHI_TOKEN_FILE names /nowhere/key, which cannot be read: No such file or directory",
        ),
        ({"SSMD_KALSHI_TOKEN_FILE": "/dev/null"}, "SSMD_KALSHI_TOKEN_FILE names /dev/null, which is empty"),
        (
            {"SSMD_KALSHI_TOKEN_FILE": "/dev/zero"},
            "SSMD_KALSHI_TOKEN_FILE names /dev/zero, which is larger than 65536 bytes: not a key",
        ),
    ],
)
def test_a_value_that_is_not_there_is_named_by_its_variable(tmp_path: Path, variables: dict[str, str], message: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        resolve(OPAQUE, tmp_path, variables)
    assert caught.value.message == message


def test_an_optional_key_may_be_absent_but_not_half(tmp_path: Path) -> None:
    optional = KeyDefinition(type="kalshi-api-key", fields=("api_key", "private_key"), required=False)
    assert resolve(optional, tmp_path, {}) == {}
    with pytest.raises(Misconfigured, match="SSMD_KALSHI_PRIVATE_KEY or SSMD_KALSHI_PRIVATE_KEY_FILE is not set"):
        resolve(optional, tmp_path, {"SSMD_KALSHI_API_KEY": "id-1"})


def test_a_wrong_private_key_is_refused_and_never_shown(tmp_path: Path) -> None:
    p256 = ec.generate_private_key(ec.SECP256R1())
    value = p256.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    for wrong in ("hunter2-hunter2", value):
        with pytest.raises(Misconfigured, match="SSMD_KALSHI_PRIVATE_KEY") as caught:
            resolve(KALSHI, tmp_path, {"SSMD_KALSHI_API_KEY": "id-1", "SSMD_KALSHI_PRIVATE_KEY": wrong})
        shown = "".join(traceback.format_exception(caught.value))
        assert wrong not in shown
        assert "hunter2" not in shown


def test_an_ed25519_key_is_a_key_too(tmp_path: Path) -> None:
    pem = pem_of(ed25519.Ed25519PrivateKey.generate())
    fields = resolve(KALSHI, tmp_path, {"SSMD_KALSHI_API_KEY": "id-1", "SSMD_KALSHI_PRIVATE_KEY": pem})
    assert fields["private_key"].reveal() == pem


def test_a_file_that_is_no_text_is_refused_without_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"\xff\xfehunter2")
    with pytest.raises(Misconfigured, match="which is not text") as caught:
        resolve(OPAQUE, tmp_path, {"SSMD_KALSHI_TOKEN_FILE": str(file)})
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret("hunter2")
    assert (str(secret), repr(secret), f"{secret}", f"{[secret]}", f"{secret!r:>5}") == ("***", "***", "***", "[***]", "  ***")
    assert secret.reveal() == "hunter2"
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(secret)


def test_a_generated_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    first = resolve(GENERATED, tmp_path, {})
    assert resolve(GENERATED, tmp_path, {"SSMD_KALSHI_API_KEY": "ignored"}) == first
    assert first["api_key"].reveal().startswith("generated-")
    files = list((tmp_path / "keys").iterdir())
    assert [file.name for file in files] == ["kalshi.json"]
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
    private = load_private_key(first["private_key"].reveal().encode())
    assert isinstance(private, rsa.RSAPrivateKey)
    assert private.key_size == 2048


def test_processes_that_make_a_key_at_once_all_use_one(tmp_path: Path) -> None:
    generated = KeyDefinition(type="opaque", fields=("token", "salt"), source="generated")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: resolve(generated, tmp_path, {}), range(16)))
    assert all(fields == found[0] for fields in found)
    assert found[0]["token"] != found[0]["salt"]


def test_a_generated_key_that_others_can_read_or_nobody_understands_is_refused(tmp_path: Path) -> None:
    resolve(GENERATED, tmp_path, {})
    path = tmp_path / "keys" / "kalshi.json"
    path.chmod(0o644)
    with pytest.raises(Misconfigured) as caught:
        resolve(GENERATED, tmp_path, {})
    assert (caught.value.message, caught.value.mend) == (f"{path} can be read by others (mode 644)", f"chmod 600 {path}")
    path.chmod(0o600)
    path.write_text('{"api_key": "x"')
    with pytest.raises(Misconfigured, match="is not a generated key"):
        resolve(GENERATED, tmp_path, {})
    path.write_text('{"api_key": "x"}')
    with pytest.raises(Misconfigured, match="lacks private_key"):
        resolve(GENERATED, tmp_path, {})


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file")
    with pytest.raises(Misconfigured, match='generated key "kalshi" cannot be kept in'):
        resolve(GENERATED, tmp_path, {})
