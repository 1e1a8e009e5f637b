"""Signatures of Kalshi requests: RSA-PSS and Ed25519 over the same text.

The signed text is `timestamp_ms + METHOD + path`, UTF-8, no separators; the path starts at the root
(`/trade-api/v2/...`) and has no query string; a body is not signed. RSA: PSS, SHA-256, MGF1-SHA-256, salt of 32 bytes
(PKCS#1 v1.5 is refused by the venue). Ed25519 (since 2026-09-24): RFC 8032 over the same bytes.
Source: Kalshi's "API keys" page and changelog, read 2026-10.
"""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from ssmd.errors import Malformed

PrivateKey = RSAPrivateKey | Ed25519PrivateKey
PublicKey = RSAPublicKey | Ed25519PublicKey

KEY_HEADER = "KALSHI-ACCESS-KEY"
TIMESTAMP_HEADER = "KALSHI-ACCESS-TIMESTAMP"
SIGNATURE_HEADER = "KALSHI-ACCESS-SIGNATURE"
WEBSOCKET_PATH = "/trade-api/ws/v2"

_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)
_EXPECTED = "expected an unencrypted PEM of an RSA key (PKCS#1 or PKCS#8) or an Ed25519 key (PKCS#8)"


@lru_cache(maxsize=2)
def load_private_key(pem: bytes) -> PrivateKey:
    """The private key in `pem` (unencrypted PKCS#1 or PKCS#8).

    Checking an RSA key takes 50 ms of CPU, and a key is verified, then used, then looked at again every few seconds for a
    rotation: the last two are kept.

    Raises:
        Malformed: it is no such key. The message never holds any of the input.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise Malformed(f"the private key is encrypted; {_EXPECTED}", mend="openssl pkey -in KEY.pem -out PLAIN.pem") from None
    except (ValueError, UnsupportedAlgorithm):
        # The chain is cut: the driver's text is about the input, and the input is a secret.
        raise Malformed(f"the private key cannot be read; {_EXPECTED}", mend="download the key again, whole file") from None
    if isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        return key
    raise Malformed(f"the private key is a {type(key).__name__.lstrip('_')}; {_EXPECTED}")


def rsa_bits(key: PrivateKey) -> int | None:
    """Size of an RSA key; None = it is an Ed25519 key."""
    return key.key_size if isinstance(key, RSAPrivateKey) else None


def load_public_key(pem: bytes) -> PublicKey:
    """The RSA or Ed25519 public key in `pem` (SubjectPublicKeyInfo).

    Raises:
        Malformed: it is no such key.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Malformed(f"the public key cannot be read ({len(pem)} bytes); expected PEM of an RSA or Ed25519 key") from error
    if isinstance(key, RSAPublicKey | Ed25519PublicKey):
        return key
    raise Malformed(f"the public key is a {type(key).__name__.lstrip('_')}; expected RSA or Ed25519")


def public_pem(private_key: PrivateKey) -> bytes:
    """The public half of `private_key` as PEM, what a user registers with the venue."""
    return private_key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def sign(private_key: PrivateKey, timestamp_ms: int, method: str, path: str) -> str:
    """Signature, standard base64, of one request; a query string in `path` is left out of the signed text."""
    text = _text(timestamp_ms, method, path)
    if isinstance(private_key, RSAPrivateKey):
        signature = private_key.sign(text, _PSS, hashes.SHA256())
    else:
        signature = private_key.sign(text)
    return base64.b64encode(signature).decode("ascii")


def verify(public_key: PublicKey, signature: str, timestamp_ms: int, method: str, path: str) -> bool:
    """Whether `signature` (base64) is this request's; False for text that is no base64."""
    try:
        raw = base64.b64decode(signature, validate=True)
        if isinstance(public_key, RSAPublicKey):
            public_key.verify(raw, _text(timestamp_ms, method, path), _PSS, hashes.SHA256())
        else:
            public_key.verify(raw, _text(timestamp_ms, method, path))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def headers(key_id: str, private_key: PrivateKey, timestamp_ms: int, method: str, path: str) -> dict[str, str]:
    """The three headers of a signed request; sign afresh for each request and each reconnect (the venue allows about 10 s)."""
    return {
        KEY_HEADER: key_id,
        TIMESTAMP_HEADER: str(timestamp_ms),
        SIGNATURE_HEADER: sign(private_key, timestamp_ms, method, path),
    }


def _text(timestamp_ms: int, method: str, path: str) -> bytes:
    return f"{timestamp_ms}{method.upper()}{path.partition('?')[0]}".encode()
