"""Kalshi's REST interface as data: what an answer means for the caller, how old it is, when the next call may be made.

No network here; `services.kalshi_rest` has it. Sources: the recordings of 2026-06 to 2026-08 (error bodies, limits), the
venue's pages on rate limits and pagination, read 2026-10.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

ROOT: Final = "/trade-api/v2"
DEFAULT_COST: Final = 10
SECOND_NS: Final = 1_000_000_000

Advice = Literal["read", "slow-down", "try-again", "sign-again", "bad-key", "bad-request", "not-found"]
"""What the caller of a REST call should do.

read: the body is the answer. slow-down: wait for tokens, then the same call. try-again: the venue is in trouble, the same
call after a pause. sign-again: the venue's clock and ours differ; the same call signed afresh, a few times. bad-key: the key
or its signature is refused and will be again. bad-request: this call is refused and will be again. not-found: there is no
such thing, or not yet: REST lags behind the stream.
"""


class Verdict(NamedTuple):
    """What to do after an answer, and the venue's words for it."""

    advice: Advice
    words: str


_EXPIRED: Final = "header_timestamp_expired"
_WORDS_MAX: Final = 300


def verdict(status: int, body: bytes) -> Verdict:
    """Sort an answer. Any status and any body have a verdict; a 200 that is no JSON object is `try-again`."""
    if status == 200:
        if body[:1] == b"{" and body.rstrip()[-1:] == b"}":
            return Verdict("read", "")
        return Verdict("try-again", f"200 with what is no JSON object: {_text(body)}")
    words = f"{status}: {words_of(body)}"
    if status == 429:
        return Verdict("slow-down", words)
    if status in {401, 403}:
        return Verdict("sign-again" if _EXPIRED in words else "bad-key", words)
    if status == 404:
        return Verdict("not-found", words)
    if status == 408 or status >= 500:
        return Verdict("try-again", words)
    return Verdict("bad-request", words)


def words_of(body: bytes) -> str:
    """The message in one of the venue's error bodies.

    Four shapes are known: `{"error":{"code","message","details"?}}`, flat `{"code","message","details"}`,
    `{"msg":".."}` and `{"error":".."}`; anything else (a proxy's HTML) is given as it is, cut.
    """
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _text(body)
    if not isinstance(found, dict):
        return _text(body)
    error = found.get("error", found)
    if isinstance(error, str):
        return error[:_WORDS_MAX]
    if not isinstance(error, dict):
        return _text(body)
    if isinstance(error.get("msg"), str):
        return str(error["msg"])[:_WORDS_MAX]
    parts = [str(error[name]) for name in ("code", "message", "details") if error.get(name)]
    return ", ".join(dict.fromkeys(parts))[:_WORDS_MAX] or _text(body)


def age_s(headers: Mapping[str, str]) -> int:
    """How old an answer may be at most, in seconds, by its headers (lower-case names).

    The venue's edge keeps public answers (15 s, July 2026). It says so in `age`; where it does not, a `public, max-age`
    may be as old as that. A private or uncached answer is 0.
    """
    told = headers.get("age", "").strip()
    if told.isascii() and told.isdigit() and len(told) <= 9:
        return int(told) + 1  # whole seconds, rounded down
    control = headers.get("cache-control", "")
    if "public" in control:
        for part in control.split(","):
            name, _, value = part.strip().partition("=")
            if name == "max-age" and value.isascii() and value.isdigit() and len(value) <= 9:
                return int(value)
    return 0


class Limits(NamedTuple):
    """A token bucket of an account: tokens a second and how many it holds."""

    refill_rate: int
    capacity: int


BASIC: Final = Limits(200, 400)
"""Reads of the lowest tier; held to where the venue does not say."""


class _Bucket(msgspec.Struct):
    refill_rate: int
    bucket_capacity: int


class _AccountLimits(msgspec.Struct):
    read: _Bucket


def limits_of(body: bytes) -> Limits:
    """The read limits in an answer of `/account/limits`; `BASIC` where they cannot be read or make no sense."""
    try:
        read = msgspec.json.decode(body, type=_AccountLimits).read
    except (msgspec.DecodeError, UnicodeDecodeError):
        return BASIC
    if read.refill_rate < 1 or read.bucket_capacity < DEFAULT_COST:
        return BASIC
    return Limits(read.refill_rate, read.bucket_capacity)


class TokenBucket:
    """How long to wait so that the venue never has to say 429. Whole numbers of token-nanoseconds; `now_ns` is monotonic.

    It starts a quarter full: the account may have other users, and the process before this one may just have ended.
    """

    def __init__(self, limits: Limits, now_ns: int) -> None:
        self._limits = limits
        self._level = limits.capacity * SECOND_NS // 4
        self._filled_ns = now_ns

    def change(self, limits: Limits, now_ns: int) -> None:
        """Go on with other limits."""
        self._fill(now_ns)
        self._limits = limits
        self._level = min(self._level, limits.capacity * SECOND_NS)

    def take(self, now_ns: int, cost: int = DEFAULT_COST) -> int:
        """Take `cost` tokens, now or in debt; nanoseconds to wait before the call, 0 = none.

        Callers may take concurrently: each next one waits behind those before.
        """
        self._fill(now_ns)
        self._level -= cost * SECOND_NS
        return 0 if self._level >= 0 else -(self._level // self._limits.refill_rate)

    def refused(self, now_ns: int) -> None:
        """The venue said 429: it counts fewer tokens than we do; begin from none."""
        self._fill(now_ns)
        self._level = min(self._level, 0)

    def _fill(self, now_ns: int) -> None:
        gained = max(now_ns - self._filled_ns, 0) * self._limits.refill_rate
        self._level = min(self._level + gained, self._limits.capacity * SECOND_NS)
        self._filled_ns = max(now_ns, self._filled_ns)


def _text(body: bytes) -> str:
    return body[:_WORDS_MAX].decode(errors="replace")
