"""Exact decimal text <-> scaled integers; no float is ever made.

A number is `mantissa x 10**exponent`. Mantissas fit the Int64 of `market.capnp`, whose largest value stands for
"no value" there and is therefore refused here: -2**63 <= mantissa <= 2**63 - 2.
"""

from __future__ import annotations

import re
from typing import Final

from ssmd.errors import Malformed

MANTISSA_MIN: Final = -(2**63)
MANTISSA_MAX: Final = 2**63 - 2
TEXT_MAX: Final = 64
"""Longest text read; bounds the work on hostile input and keeps exponents within Int8."""

_DECIMAL: Final = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?")


def parse(text: str, exponent: int) -> int:
    """The mantissa of `text` at `exponent`. Only ASCII `-?digits[.digits]` is read; trailing zeros may be dropped.

    Raises:
        Malformed: other text, a value that `exponent` cannot hold exactly, or one beyond the mantissa's bounds.
    """
    mantissa, found = parse_fitting(text, exponent)
    if found != exponent:
        raise Malformed(f"{text!r} has more decimals than the {-exponent} that exponent {exponent} holds")
    return mantissa


def parse_fitting(text: str, exponent: int) -> tuple[int, int]:
    """`text` as (mantissa, exponent): at `exponent` if that is exact, else at the largest exponent below it that is.

    Raises:
        Malformed: text that is no plain decimal, or a value beyond the mantissa's bounds.
    """
    match = _DECIMAL.fullmatch(text) if len(text) <= TEXT_MAX else None
    if match is None:
        raise Malformed(f"not a plain decimal of at most {TEXT_MAX} characters: {text[:TEXT_MAX]!r}")
    sign, whole, fraction = match.groups()
    decimals = (fraction or "").rstrip("0")
    mantissa, found = int(whole + decimals), -len(decimals)
    if found >= exponent:
        mantissa, found = mantissa * 10 ** (found - exponent), exponent
    elif exponent > 0:
        mantissa, found = _coarsened(mantissa, found, exponent)
    if sign:
        mantissa = -mantissa
    if not MANTISSA_MIN <= mantissa <= MANTISSA_MAX:
        raise Malformed(f"{text!r} does not fit 64 bits at exponent {found}")
    return mantissa, found


def _coarsened(mantissa: int, found: int, exponent: int) -> tuple[int, int]:
    # Only for positive exponents: whole numbers that end in zeros may still fit.
    while found < exponent and mantissa % 10 == 0:
        if mantissa == 0:
            return 0, exponent
        mantissa, found = mantissa // 10, found + 1
    return mantissa, found


def render(mantissa: int, exponent: int) -> str:
    """`mantissa x 10**exponent` as plain decimal text with exactly `-exponent` decimals (none for exponents >= 0)."""
    if exponent >= 0:
        return str(mantissa * 10**exponent)
    digits = str(abs(mantissa)).rjust(1 - exponent, "0")
    sign = "-" if mantissa < 0 else ""
    return f"{sign}{digits[:exponent]}.{digits[exponent:]}"


def rescale(mantissa: int, exponent: int, finer: int) -> int:
    """The mantissa at exponent `finer` (<= `exponent`) of the same value; exact, and not held to 64 bits."""
    return mantissa * int(10 ** (exponent - finer))


class Memo(dict[str, int]):
    """`memo[text]` is `parse(text, exponent)`, remembered: a venue repeats a few thousand prices and sizes.

    Bounded: when `limit` texts are held it starts over. `memo[text]` raises Malformed as `parse` does, and for values
    outside `bounds` (inclusive mantissas).
    """

    def __init__(self, exponent: int, bounds: tuple[int, int] = (MANTISSA_MIN, MANTISSA_MAX), limit: int = 1 << 16) -> None:
        super().__init__()
        self.exponent = exponent
        self._bounds = bounds
        self._limit = limit

    def __missing__(self, text: str) -> int:
        mantissa = parse(text, self.exponent)
        self.check(mantissa, self.exponent, text)
        if len(self) >= self._limit:
            self.clear()
        self[text] = mantissa
        return mantissa

    def check(self, mantissa: int, exponent: int, text: str) -> None:
        """Refuse (Malformed) what is out of bounds; `exponent` is this memo's or a finer one."""
        lowest, highest = self._bounds
        if not rescale(lowest, self.exponent, exponent) <= mantissa <= rescale(highest, self.exponent, exponent):
            raise Malformed(f"{text!r} is out of bounds")
