"""Kalshi's times as exact UTC nanoseconds: milliseconds, seconds, and RFC 3339 text with 0 to 9 fraction digits."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from ssmd.errors import Malformed

_SECOND_TEXT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)
_NS_OF_DIGITS: Final[tuple[int, ...]] = tuple(10 ** (9 - digits) for digits in range(10))


class _Seconds(dict[str, int]):
    """`YYYY-MM-DDTHH:MM:SS` -> nanoseconds, remembered (a second has many frames); bounded."""

    def __missing__(self, text: str) -> int:
        if not _SECOND_TEXT.fullmatch(text):
            raise Malformed(f"not an RFC 3339 time: {text[:40]!r}")
        try:
            moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
        except ValueError as error:
            raise Malformed(f"no such time: {text[:40]!r}") from error
        ns = (moment - _EPOCH) // _SECOND * 1_000_000_000
        if ns < 0:
            raise Malformed(f"time before 1970: {text[:40]!r}")
        if len(self) >= 4096:
            self.clear()
        self[text] = ns
        return ns


_SECONDS: Final = _Seconds()
_SECOND_NS: Final = 1_000_000_000
_LAST: Final[list[tuple[str, int, str, int]]] = [("", 0, "", 0)]
"""The last text of `event_ns`, what it was, and its second likewise: a third of the texts repeat the one before. One tuple,
so that threads may share it.
"""


def rfc3339_ns(text: str) -> int:
    """UTC nanoseconds of `text`, which must end in `Z` (Kalshi's always do).

    Raises:
        Malformed: any other text, or a time before 1970.
    """
    ns = _SECONDS[text[:19]]
    digits = text[20:-1]
    if not digits:
        if text[19:] != "Z":
            raise Malformed(f"not an RFC 3339 time in UTC: {text[:40]!r}")
        return ns
    if text[19] != "." or text[-1] != "Z" or len(digits) > 9 or not (digits.isascii() and digits.isdigit()):
        raise Malformed(f"not an RFC 3339 time in UTC: {text[:40]!r}")
    return ns + int(digits) * _NS_OF_DIGITS[len(digits)]


def event_ns(text: str, ts_ms: int) -> int:
    """The event's time of a frame that may tell it twice: `text` ("" = absent) and `ts_ms` (0 = absent); 0 = untold.

    The text is finer (microseconds) and is taken where it falls into the millisecond `ts_ms`; where the two disagree
    `ts_ms` holds, because Kalshi calls the text deprecated (protocol notes of 2026-11, section 6).

    Raises:
        Malformed: text that is no time.
    """
    last_text, ns, second, second_ns = _LAST[0]
    if text != last_text:
        digits = text[20:26]
        if text[:20] == second and text[26:] == "Z" and digits.isdigit() and digits.isascii():
            # What `rfc3339_ns` would say of the same second and six digits, as nearly all frames have them.
            ns = second_ns + int(digits) * 1000
        elif text:
            ns = rfc3339_ns(text)
            second, second_ns = (text[:20], ns // _SECOND_NS * _SECOND_NS) if text[19] == "." else ("", 0)
        else:
            return ts_ms * 1_000_000
        _LAST[0] = text, ns, second, second_ns
    if ts_ms and ns // 1_000_000 != ts_ms:
        return ts_ms * 1_000_000
    return ns
