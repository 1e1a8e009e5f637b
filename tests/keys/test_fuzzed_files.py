"""2,000 seeded damages to key and registry files: an error of ours every time, no traceback, no secret in it."""

import json
import random
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from tests.keys.test_sealing import certificate_of

from ssmd.errors import SsmdError
from ssmd.identifiers import system_random
from ssmd.keys.generated import generated_fields
from ssmd.keys.local_store import LocalStore, passphrase
from ssmd.keys.mounted import read_mounted
from ssmd.keys.sealing import load_certificate, load_controller_key, open_sealed
from ssmd.keys.secret import Secret
from ssmd.keys.source import resolve_key
from ssmd.registry.documents import KeyDefinition
from ssmd.registry.loader import load_registry

ROUNDS = 250
SEED = 20261122
PLANTED = "PLANTED-5ecret-3f9a"
ROOT = Path(__file__).parents[2]
OPAQUE = KeyDefinition(type="opaque", fields=("token",), source="generated")


def damaged(seed: random.Random, payload: bytes) -> bytes:
    """`payload` cut, changed, doubled, with foreign bytes, or something else altogether."""
    data = bytearray(payload)
    for _ in range(seed.randint(1, 4)):
        at = seed.randrange(len(data) + 1)
        match seed.randrange(7):
            case 0:
                del data[at:]
            case 1:
                data[at:at] = bytes(seed.randrange(256) for _ in range(seed.randint(1, 8)))
            case 2:
                del data[at : at + seed.randint(1, 20)]
            case 3 if data:
                data[at % len(data)] ^= 1 << seed.randrange(8)
            case 4:
                data[at:at] = data[:at]
            case 5:
                data[at:at] = seed.choice(
                    [b"\0", b"\xff\xfe", b"[" * 3000, b"{}", b'"', b"\n- ", b"&a [*a]", b"!!python/x ", b"1e999"]
                )
            case _:
                data = bytearray(
                    seed.choice([b"", b"null", b"[]", b"\x00" * 40, b"{" * 5000, b"-----BEGIN PRIVATE KEY-----\n", bytes(data)])
                )
    return bytes(data)


def pem() -> bytes:
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


PEM = pem()


def _generated(root: Path, payload: bytes) -> object:
    _private(root / "k.json", payload)
    return generated_fields("k", OPAQUE, root, system_random)


def _local(root: Path, payload: bytes) -> object:
    store = LocalStore("e", root, "p" * 16, system_random)
    _private(store.path("k"), payload)
    return store.read("k")


def _mounted(root: Path, payload: bytes) -> object:
    _private(root / "token", payload)
    return read_mounted(root, ("token",))


def _pem_file(root: Path, payload: bytes) -> object:
    _private(root / "pem", payload)
    definition = KeyDefinition(type="kalshi-api-key", fields=("api_key", "private_key"))
    variables = {"SSMD_K_API_KEY": PLANTED, "SSMD_K_PRIVATE_KEY_FILE": str(root / "pem")}
    return resolve_key("k", definition, variables=variables, directory=root, random=system_random)


def _passphrase(root: Path, payload: bytes) -> object:
    _private(root / "word", payload)
    return passphrase({"SSMD_KEYS_PASSPHRASE_FILE": str(root / "word")}, root)


def _certificate(_: Path, payload: bytes) -> object:
    return load_certificate(payload, 0)


def _controller(_: Path, payload: bytes) -> object:
    return open_sealed([load_controller_key(payload)], b"", "AAAA")


def _environment(root: Path, payload: bytes) -> object:
    registry = root / "exchanges"
    if not registry.exists():
        shutil.copytree(ROOT / "exchanges", registry)
    (registry / "environments" / "kalshi-prod.yaml").write_bytes(payload)
    return load_registry(registry, date="2026-11-22")


def _private(path: Path, payload: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(payload)
    path.chmod(0o600)


def _sealed_box(root: Path) -> bytes:
    store = LocalStore("e", root, "p" * 16, system_random)
    store.write("k", {"token": Secret(PLANTED)})
    return store.path("k").read_bytes()


def _environment_text(_: Path) -> bytes:
    text = (ROOT / "exchanges" / "environments" / "kalshi-prod.yaml").read_text()
    more = (
        "    source: sealed-secret\n    sealed_secret:\n      name: creds\n      certificate: a.pem\n      manifest: b.yaml\n"
    )
    return text.replace("    fields: [api_key, private_key]\n", f"    fields: [api_key, private_key]\n{more}").encode()


CASES: dict[str, tuple[Callable[[Path, bytes], object], Callable[[Path], bytes]]] = {
    "generated": (_generated, lambda _: json.dumps({"token": PLANTED}).encode()),
    "local": (_local, _sealed_box),
    "mounted": (_mounted, lambda _: PLANTED.encode()),
    "pem": (_pem_file, lambda _: PEM),
    "passphrase": (_passphrase, lambda _: PLANTED.encode()),
    "certificate": (_certificate, lambda _: certificate_of(rsa.generate_private_key(public_exponent=65537, key_size=2048))),
    "controller": (_controller, lambda _: PEM),
    "environment": (_environment, _environment_text),
}


@pytest.mark.parametrize("what", CASES)
def test_a_damaged_file_is_an_error_and_shows_nothing(tmp_path: Path, what: str) -> None:
    assert ROUNDS * len(CASES) == 2_000
    read, good = CASES[what]
    seed = random.Random(f"{SEED} {what}")
    payload = good(tmp_path)
    pieces = {PLANTED, *(line for line in PEM.decode().splitlines()[1:-1])}
    refused = 0
    for _ in range(ROUNDS):
        broken = damaged(seed, payload)
        try:
            read(tmp_path, broken)
        except SsmdError as error:
            refused += 1
            shown = "".join(traceback.format_exception(error)) + error.mend
            assert not [piece for piece in pieces if piece in shown], broken
    # Some damage is none (a comment of a document, a letter of a token); most is noticed where there is a form.
    assert refused > (0 if what in ("mounted", "passphrase") else ROUNDS // 3)
