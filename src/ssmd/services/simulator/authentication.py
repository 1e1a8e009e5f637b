"""Who may connect: the venue's signed headers, refused with its own words."""

from __future__ import annotations

from collections.abc import Mapping

from ssmd.clock import Clock
from ssmd.errors import Misconfigured, SsmdError
from ssmd.exchanges.kalshi import signing

BAD_SIGNATURE = (
    b'{"error":{"code":"authentication_error","message":"authentication_error","details":"INCORRECT_API_KEY_SIGNATURE"}}'
)
UNKNOWN_KEY = b'{"error":{"code":"authentication_error","message":"authentication_error","details":"NOT_FOUND"}}'
MISSING = b'{"error":{"code":"signature_is_missing_from_headers","message":"signature is missing from headers"}}'
EXPIRED = b'{"error":{"code":"header_timestamp_expired","message":"header timestamp expired"}}'


class Authentication:
    """Checks requests against registered public keys.

    Raises:
        Misconfigured: a public key cannot be read; names its id.
    """

    def __init__(self, public_keys: Mapping[str, str], skew_s: int, clock: Clock) -> None:
        self._skew_ms = skew_s * 1_000
        self._clock = clock
        self._keys: dict[str, signing.PublicKey] = {}
        for key_id, pem in public_keys.items():
            try:
                self._keys[key_id] = signing.load_public_key(pem.encode())
            except SsmdError as error:
                raise Misconfigured(f"public_keys[{key_id!r}]: {error.message}") from error

    def refusal(self, headers: Mapping[str, str], method: str, path: str) -> bytes:
        """The 401 body for this request, b"" when it may pass. `headers` by lower-case name."""
        key_id = headers.get(signing.KEY_HEADER.lower(), "")
        timestamp = headers.get(signing.TIMESTAMP_HEADER.lower(), "")
        signature = headers.get(signing.SIGNATURE_HEADER.lower(), "")
        if not (key_id and timestamp and signature):
            return MISSING
        key = self._keys.get(key_id)
        if key is None:
            return UNKNOWN_KEY
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 18):
            return EXPIRED
        timestamp_ms = int(timestamp)
        if abs(timestamp_ms - self._clock.now_ns() // 1_000_000) > self._skew_ms:
            return EXPIRED
        return b"" if signing.verify(key, signature, timestamp_ms, method, path) else BAD_SIGNATURE

    @staticmethod
    def is_signed(headers: Mapping[str, str]) -> bool:
        """Whether the request claims to be signed."""
        return any(name.startswith("kalshi-access-") for name in headers)
