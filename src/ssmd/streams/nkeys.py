"""NKeys: the Ed25519 key pairs by which NATS knows its users. A server holds public keys only.

Text form: base32 without padding of prefix, 32 bytes and a CRC-16 (XModem, little-endian). The prefix of a public user
key is one byte ("U..."), that of a seed two ("SU..."): the seed's and, shifted in, the user's.
Source: github.com/nats-io/nkeys, README and strkey.go, read 2026-11.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ssmd.errors import Misconfigured
from ssmd.identifiers import RandomBytes

_SEED: Final = 18 << 3
_USER: Final = 20 << 3
_SEED_TEXT: Final = 58
_EXPECTED: Final = "expected the seed of a NATS user (SU..., 58 characters)"


class UserKey(NamedTuple):
    """One user's key pair. `public`: "U...", what the server and logs may know."""

    public: str
    private: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"UserKey({self.public})"

    def sign(self, nonce: str) -> bytes:
        """The server's nonce, signed: base64, as nats-py sends it."""
        return base64.b64encode(self.private.sign(nonce.encode()))


def inbox_of(public: str) -> str:
    """Prefix of the inboxes of the user with that public key: each reads its own answers only."""
    return f"_INBOX_{public}"


def new_seed(random: RandomBytes) -> str:
    """A fresh seed; secret."""
    return _encode(bytes((_SEED | _USER >> 5, (_USER & 31) << 3)) + random(32))


def user_key(seed: str) -> UserKey:
    """The key pair of a user's seed.

    Raises:
        Misconfigured: it is none. The message holds nothing of the input.
    """
    try:
        raw = base64.b32decode(f"{seed}======" if len(seed) == _SEED_TEXT else "")
    except (binascii.Error, ValueError):
        raw = b""
    prefix, key, check = raw[:2], raw[2:34], raw[34:]
    if (
        len(check) != 2
        or check != _crc(raw[:34])
        or (prefix[0] & 0xF8, (prefix[0] & 7) << 5 | prefix[1] >> 3) != (_SEED, _USER)
    ):
        raise Misconfigured(f"the NATS key cannot be read; {_EXPECTED}", mend="ssmd streams auth")
    private = Ed25519PrivateKey.from_private_bytes(key)
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return UserKey(_encode(bytes((_USER,)) + public), private)


def _encode(payload: bytes) -> str:
    return base64.b32encode(payload + _crc(payload)).decode("ascii").rstrip("=")


def _crc(payload: bytes) -> bytes:
    return binascii.crc_hqx(payload, 0).to_bytes(2, "little")
