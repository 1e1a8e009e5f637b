from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ssmd.errors import Malformed
from ssmd.schemas.decimals import MANTISSA_MAX, MANTISSA_MIN, TEXT_MAX, Memo, parse, parse_fitting, render, rescale

TEXTS = st.from_regex(r"\A-?[0-9]{1,14}(\.[0-9]{1,9})?\Z")


@pytest.mark.parametrize(
    ("text", "exponent", "mantissa"),
    [
        ("0.5600", -4, 5600),
        ("0.56", -4, 5600),
        ("0.56000000", -4, 5600),
        ("-1.25", -2, -125),
        ("007", 0, 7),
        ("-0.00", -2, 0),
        ("1200", 2, 12),
        ("0", 3, 0),
        ("9223372036854775806", 0, MANTISSA_MAX),
        ("-9223372036854775808", 0, MANTISSA_MIN),
    ],
)
def test_text_is_a_mantissa(text: str, exponent: int, mantissa: int) -> None:
    assert parse(text, exponent) == mantissa


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "+1",
        "1e5",
        "1_000",
        " 1",
        "1 ",
        "1\n",
        ".5",
        "5.",
        "--1",
        "1.2.3",
        "NaN",
        "inf",
        "\u0661",
        "0x1",
        "1,5",
        "0" * (TEXT_MAX + 1),
    ],
)
def test_other_text_is_refused(text: str) -> None:
    for read in (lambda: parse(text, -2), lambda: parse_fitting(text, -2)):
        with pytest.raises(Malformed):
            read()


@pytest.mark.parametrize(
    ("text", "exponent"),
    [
        ("0.12345", -4),
        ("15", 1),
        ("9223372036854775807", 0),
        ("-9223372036854775809", 0),
        ("92233720368547758.08", -4),
    ],
)
def test_what_does_not_fit_is_refused(text: str, exponent: int) -> None:
    with pytest.raises(Malformed):
        parse(text, exponent)


def test_more_decimals_widen_the_exponent() -> None:
    assert parse_fitting("0.1234567", -4) == (1234567, -7)
    assert parse_fitting("0.12", -4) == (1200, -4)
    assert parse_fitting("1250", 2) == (125, 1)


@given(TEXTS, st.integers(-9, 2))
@example("10000000000000.000001", 0)
def test_the_value_is_exact(text: str, exponent: int) -> None:
    with localcontext(prec=60):
        try:
            mantissa, found = parse_fitting(text, exponent)
        except Malformed:
            decimals = len(text.partition(".")[2].rstrip("0"))
            assert not MANTISSA_MIN <= Decimal(text).scaleb(max(decimals, -exponent)) <= MANTISSA_MAX
            return
        assert Decimal(mantissa).scaleb(found) == Decimal(text)
        assert found <= exponent
        # As coarse as it can be.
        assert found == exponent or mantissa % 10 != 0
        if found == exponent:
            assert parse(text, exponent) == mantissa
        else:
            with pytest.raises(Malformed):
                parse(text, exponent)


@given(st.integers(MANTISSA_MIN, MANTISSA_MAX), st.integers(-12, 0))
def test_render_and_parse_are_inverse(mantissa: int, exponent: int) -> None:
    text = render(mantissa, exponent)
    assert parse(text, exponent) == mantissa
    assert len(text.partition(".")[2]) == -exponent
    with localcontext(prec=60):
        assert Decimal(text) == Decimal(mantissa).scaleb(exponent)


@given(st.integers(-(10**6), 10**6), st.integers(-6, 2), st.integers(0, 6))
def test_rescale_keeps_the_value(mantissa: int, exponent: int, finer: int) -> None:
    assert Decimal(rescale(mantissa, exponent, exponent - finer)).scaleb(exponent - finer) == Decimal(mantissa).scaleb(exponent)


def test_the_memo_is_parse_and_stays_bounded() -> None:
    memo = Memo(-2, limit=10)
    for number in range(35):
        text = f"{number}.25"
        assert memo[text] == memo[text] == parse(text, -2)
        assert len(memo) <= 10
    with pytest.raises(Malformed):
        memo["1.005"]
    assert "1.005" not in memo


def test_the_memo_refuses_what_is_out_of_bounds() -> None:
    memo = Memo(-4, (0, 10_000))
    assert (memo["0"], memo["1.0"]) == (0, 10_000)
    for text in ("1.0001", "-0.0001"):
        with pytest.raises(Malformed):
            memo[text]
