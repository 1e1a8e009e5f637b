"""Both key types, checked with the library itself where that is independent of our code."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from ssmd.errors import Malformed
from ssmd.exchanges.kalshi import signing

TEXT = b"1791380000000GET/trade-api/ws/v2"
ARGUMENTS = (1791380000000, "GET", "/trade-api/ws/v2")
RSA = rsa.generate_private_key(65537, 2048)
ED = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def _pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, kind: str) -> bytes:
    form = serialization.PrivateFormat.PKCS8 if kind == "pkcs8" else serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def test_rsa_is_pss_with_sha256_and_a_salt_of_the_digest_length() -> None:
    raw = base64.b64decode(signing.sign(RSA, *ARGUMENTS), validate=True)
    RSA.public_key().verify(raw, TEXT, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())


def test_ed25519_signs_the_plain_text() -> None:
    assert base64.b64decode(signing.sign(ED, *ARGUMENTS), validate=True) == ED.sign(TEXT)


def test_the_query_string_is_not_signed_and_the_method_is_upper_case() -> None:
    assert signing.sign(ED, 1, "get", "/trade-api/v2/markets?limit=5") == signing.sign(ED, 1, "GET", "/trade-api/v2/markets")


@pytest.mark.parametrize("key", [RSA, ED], ids=["rsa", "ed25519"])
def test_verify_accepts_its_own_request_and_no_other(key: signing.PrivateKey) -> None:
    signature = signing.sign(key, *ARGUMENTS)
    public = signing.load_public_key(signing.public_pem(key))
    assert signing.verify(public, signature, *ARGUMENTS)
    assert not signing.verify(public, signature, 1791380000001, "GET", "/trade-api/ws/v2")
    assert not signing.verify(public, signature, 1791380000000, "POST", "/trade-api/ws/v2")
    assert not signing.verify(public, signature, 1791380000000, "GET", "/trade-api/v2/markets")
    assert not signing.verify(public, "not base64!", *ARGUMENTS)
    assert not signing.verify(public, "", *ARGUMENTS)


def test_pkcs1_v15_is_refused() -> None:
    raw = RSA.sign(TEXT, padding.PKCS1v15(), hashes.SHA256())
    assert not signing.verify(RSA.public_key(), base64.b64encode(raw).decode(), *ARGUMENTS)


def test_headers_are_the_three_of_the_venue() -> None:
    assert signing.headers("key-1", ED, *ARGUMENTS) == {
        "KALSHI-ACCESS-KEY": "key-1",
        "KALSHI-ACCESS-TIMESTAMP": "1791380000000",
        "KALSHI-ACCESS-SIGNATURE": base64.b64encode(ED.sign(TEXT)).decode(),
    }


@pytest.mark.parametrize(("key", "kind"), [(RSA, "pkcs1"), (RSA, "pkcs8"), (ED, "pkcs8")])
def test_keys_load_in_the_forms_the_venue_hands_out(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, kind: str) -> None:
    loaded = signing.load_private_key(_pem(key, kind))
    assert signing.public_pem(loaded) == signing.public_pem(key)


def test_an_unreadable_key_is_named_without_being_echoed() -> None:
    secret = _pem(RSA, "pkcs8").replace(b"\nMII", b"\nSECRET")
    with pytest.raises(Malformed, match="expected an unencrypted PEM of an RSA key") as caught:
        signing.load_private_key(secret)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_an_encrypted_key_says_so() -> None:
    pem = RSA.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"pass")
    )
    with pytest.raises(Malformed, match="is encrypted"):
        signing.load_private_key(pem)


def test_another_type_of_key_is_named() -> None:
    pem = _pem(ec.generate_private_key(ec.SECP256R1()), "pkcs8")
    with pytest.raises(Malformed, match=r"EllipticCurvePrivateKey|ECPrivateKey"):
        signing.load_private_key(pem)


def test_an_unreadable_public_key_is_malformed() -> None:
    with pytest.raises(Malformed, match=r"public key cannot be read \(4 bytes\)"):
        signing.load_public_key(b"none")
