"""Whether a key's fields are what its type asks for. Messages name fields, never values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ssmd.errors import Malformed
from ssmd.keys.definition import KeyDefinition
from ssmd.keys.secret import Secret

RSA_BITS_MIN: Final = 2048
DAY_NS: Final = 86_400_000_000_000


def problems(definition: KeyDefinition, fields: Mapping[str, Secret]) -> list[str]:
    """What is wrong with a key's value; [] = nothing that can be seen without asking the other side."""
    found = [f"field {field} is not set" for field in definition.fields if field not in fields]
    unknown = sorted(set(fields) - set(definition.fields))
    found += [f"field {field} is not defined" for field in unknown]
    for field in definition.fields:
        text = fields[field].reveal() if field in fields else None
        if text is None:
            continue
        if not text.strip():
            found.append(f"field {field} is empty")
        elif definition.type == "kalshi-api-key":
            found += _kalshi_problems(field, text)
    return found


def _kalshi_problems(field: str, text: str) -> list[str]:
    if field == "private_key":
        from ssmd.exchanges.kalshi.signing import load_private_key, rsa_bits  # noqa: PLC0415 - 50 ms not always needed

        try:
            key = load_private_key(text.encode())
        except Malformed as error:
            # Its message holds nothing of the key.
            return [f"field private_key: {error.message}"]
        bits = rsa_bits(key)
        if bits is not None and bits < RSA_BITS_MIN:
            return [f"field private_key: an RSA key of {bits} bits is too weak; expected {RSA_BITS_MIN} or more"]
        return []
    # It becomes a header of HTTP.
    return [] if text.isascii() and text.isprintable() and " " not in text else [f"field {field} holds more than an id"]


def expiry_problem(expires_ns: int, now_ns: int) -> str:
    """Why a key is not to be used any more, "" = it may be. `expires_ns` 0 = it does not expire."""
    if not 0 < expires_ns <= now_ns:
        return ""
    return f"expired {(now_ns - expires_ns) // DAY_NS} days ago"


def is_due(definition: KeyDefinition, set_ns: int, now_ns: int) -> bool:
    """Whether a key that was set at `set_ns` should be rotated by now."""
    return bool(definition.rotation_days and set_ns) and now_ns - set_ns >= definition.rotation_days * DAY_NS
