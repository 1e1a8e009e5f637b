"""SealedSecrets: upstream's vectors are opened, and what ssmd seals is opened by another implementation."""

import base64
import datetime as dt
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from Crypto.Cipher import AES
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from ssmd.errors import Malformed, Misconfigured
from ssmd.identifiers import system_random
from ssmd.keys.sealing import (
    SCOPES,
    SealedName,
    load_certificate,
    load_controller_key,
    manifest_text,
    open_sealed,
    sealed_secret,
)
from ssmd.keys.secret import Secret
from ssmd.keys.store import KeyPlaces, KeyStore, write_sealed
from ssmd.registry.documents import KeyDefinition, SealedSecretSettings

NOW_NS = 1_790_000_000_000_000_000
SECRETS = {"api_key": Secret("id-1"), "private_key": Secret("-----BEGIN\nschlüssel ☂\n"), "empty": Secret("")}


def certificate_of(key: Any, *, days: int = 30) -> bytes:
    now = dt.datetime.fromtimestamp(NOW_NS // 10**9, dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sealed-secrets")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=60))
        .not_valid_after(now + dt.timedelta(days=days))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


@pytest.fixture(scope="module")
def controller() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def independent_open(key: rsa.RSAPrivateKey, label: bytes, sealed: str) -> bytes:
    """The published format, from bare arithmetic (RFC 8017, 7.1.2) and another library's AES; shares no code with ssmd."""
    raw = base64.b64decode(sealed)
    size = raw[0] << 8 | raw[1]
    numbers = key.private_numbers()
    modulus = numbers.public_numbers.n
    width = (modulus.bit_length() + 7) // 8
    assert size == width
    encoded = pow(int.from_bytes(raw[2 : 2 + size], "big"), numbers.d, modulus).to_bytes(width, "big")

    def mask(seed: bytes, length: int) -> bytes:
        blocks = (hashlib.sha256(seed + counter.to_bytes(4, "big")).digest() for counter in range(length // 32 + 1))
        return b"".join(blocks)[:length]

    def xor(one: bytes, other: bytes) -> bytes:
        return bytes(a ^ b for a, b in zip(one, other, strict=True))

    assert encoded[0] == 0
    seed = xor(encoded[1:33], mask(encoded[33:], 32))
    block = xor(encoded[33:], mask(seed, width - 33))
    assert block[:32] == hashlib.sha256(label).digest()
    session_key = block[32:].lstrip(b"\0").removeprefix(b"\1")
    assert len(session_key) == 32
    box = raw[2 + size :]
    return AES.new(session_key, AES.MODE_GCM, nonce=bytes(12), mac_len=16).decrypt_and_verify(box[:-16], box[-16:])


LABELS = {"strict": b"ssmd/exchange-creds", "namespace-wide": b"ssmd", "cluster-wide": b""}


@pytest.mark.parametrize("scope", SCOPES)
def test_an_independent_implementation_opens_what_ssmd_seals(controller: rsa.RSAPrivateKey, scope: str) -> None:
    name = SealedName("exchange-creds", "ssmd", scope)
    document = sealed_secret(name, SECRETS, load_certificate(certificate_of(controller), NOW_NS), system_random)
    encrypted = document["spec"]["encryptedData"]
    opened = {field: independent_open(controller, LABELS[scope], text).decode() for field, text in encrypted.items()}
    assert opened == {field: value.reveal() for field, value in SECRETS.items()}
    # As the rest of the object: kubeseal's form, on metadata and template alike.
    metadata: dict[str, Any] = {"name": "exchange-creds", "namespace": "ssmd"}
    if scope != "strict":
        metadata["annotations"] = {f"sealedsecrets.bitnami.com/{scope}": "true"}
    assert document["metadata"] == metadata
    assert document["spec"]["template"] == {"metadata": metadata, "type": "Opaque"}
    assert (document["apiVersion"], document["kind"]) == ("bitnami.com/v1alpha1", "SealedSecret")


def test_every_value_is_sealed_with_a_key_of_its_own(controller: rsa.RSAPrivateKey) -> None:
    key = load_certificate(certificate_of(controller), NOW_NS)
    name = SealedName("n", "ns")
    one, other = (sealed_secret(name, {"a": Secret("x"), "b": Secret("x")}, key, system_random) for _ in range(2))
    assert len({*one["spec"]["encryptedData"].values(), *other["spec"]["encryptedData"].values()}) == 4


def test_upstreams_vectors_are_opened(shared_dir: Path) -> None:
    directory = shared_dir / "data" / "sealed-secrets"
    vectors = json.loads((directory / "vectors.json").read_text())["vectors"]
    keys = {path.name: load_controller_key(path.read_bytes()) for path in directory.glob("*.key.pem")}
    opened = 0
    for vector in vectors:
        key = keys[vector["private_key_file"]]
        name = SealedName(vector["secret_name"], vector["namespace"], vector["scope"])
        assert name.label == vector["oaep_label"].encode()
        plain = base64.b64decode(vector["plaintext_b64"])
        assert open_sealed([key], name.label, vector["sealed_b64"]) == plain
        assert independent_open(key, name.label, vector["sealed_b64"]) == plain
        load_certificate((directory / vector["certificate_file"]).read_bytes(), NOW_NS)
        opened += 1
    assert opened == 15


def test_of_several_keys_the_fitting_one_opens_and_only_under_its_label(controller: rsa.RSAPrivateKey) -> None:
    key = load_certificate(certificate_of(controller), NOW_NS)
    name = SealedName("n", "ns")
    text = sealed_secret(name, {"a": Secret("x")}, key, system_random)["spec"]["encryptedData"]["a"]
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert open_sealed([stranger, controller], b"ns/n", text) == b"x"
    for keys, label in (([stranger], b"ns/n"), ([controller], b"ns/other"), ([], b"ns/n")):
        with pytest.raises(Malformed, match="no key opens"):
            open_sealed(keys, label, text)
    for broken in ("", "AA==", "!!", text[:40], base64.b64encode(b"\xff\xff" + bytes(40)).decode()):
        with pytest.raises(Malformed):
            open_sealed([controller], b"ns/n", broken)


def test_what_cannot_be_sealed_is_refused(controller: rsa.RSAPrivateKey) -> None:
    key = load_certificate(certificate_of(controller), NOW_NS)
    for name, values in (
        (SealedName("n", "ns"), {}),
        (SealedName("", "ns"), SECRETS),
        (SealedName("n", "", "cluster-wide"), SECRETS),
        (SealedName("N/..", "ns"), SECRETS),
        (SealedName("n", "ns", "wide"), SECRETS),
    ):
        with pytest.raises(Misconfigured):
            sealed_secret(name, values, key, system_random)
    with pytest.raises(Misconfigured, match="expired"):
        load_certificate(certificate_of(controller, days=-1), NOW_NS)
    with pytest.raises(Malformed, match="expected an RSA key"):
        load_certificate(certificate_of(ec.generate_private_key(ec.SECP256R1())), NOW_NS)
    with pytest.raises(Malformed, match="cannot be read"):
        load_certificate(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", NOW_NS)


def test_a_set_key_of_source_sealed_secret_is_a_manifest_that_git_may_hold(
    tmp_path: Path, controller: rsa.RSAPrivateKey
) -> None:
    (tmp_path / "cluster.pem").write_bytes(certificate_of(controller))
    settings = SealedSecretSettings(name="exchange-creds", certificate="cluster.pem", manifest="deploy/creds.yaml")
    definition = KeyDefinition(type="opaque", fields=("token",), source="sealed-secret", sealed_secret=settings, path="mounted")
    store = KeyStore("k", definition, KeyPlaces("e", tmp_path, tmp_path / ".ssmd", tmp_path, {}, system_random))
    assert store.read() == {}
    assert store.write({"token": Secret("hunter2")}, NOW_NS) == str(tmp_path / "deploy" / "creds.yaml")
    text = (tmp_path / "deploy" / "creds.yaml").read_text()
    assert "hunter2" not in text
    document = yaml.safe_load(text)
    assert independent_open(controller, b"ssmd/exchange-creds", document["spec"]["encryptedData"]["token"]) == b"hunter2"
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "token").write_text("hunter2")
    (tmp_path / "mounted" / "token").chmod(0o440)
    assert store.read() == {"token": Secret("hunter2")}
    assert (store.delete(), store.delete()) == (True, False)
    with pytest.raises(Misconfigured, match="cannot be read"):
        write_sealed(SealedName("n", "ns"), SECRETS, tmp_path / "none.pem", tmp_path / "x.yaml", NOW_NS, system_random)


def test_the_manifest_reads_back_as_the_object() -> None:
    document = {"a": {"b-c": 'x: y # "z"\n☂', "weird key": "true", "n": {"d/e.f": "1"}}}
    assert yaml.safe_load(manifest_text(document, "# heading\n")) == document
