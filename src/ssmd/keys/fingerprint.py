"""Fingerprints: which value it is, without a way back to it.

A slow digest (scrypt: 16 MiB and some 40 ms a guess), salted with the environment's and the key's name, cut to 64 bits.
It is the same on every machine, so that a process can say that it loaded what an operator set elsewhere. A value of
much randomness, as all generated keys are, is safe behind it; a password that stands in a dictionary is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from ssmd.keys.secret import Secret

DIGITS: Final = 16


def fingerprint(env: str, name: str, fields: Mapping[str, Secret]) -> str:
    """Hex digest of all fields of key `name`, in any order."""
    parts = [text.encode() for field in sorted(fields) for text in (field, fields[field].reveal())]
    # Lengths first: ("ab", "c") and ("a", "bc") are not the same.
    joined = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    digest = hashlib.scrypt(joined, salt=f"ssmd key {env}/{name}".encode(), n=1 << 14, r=8, p=1, dklen=DIGITS // 2)
    return digest.hex()
