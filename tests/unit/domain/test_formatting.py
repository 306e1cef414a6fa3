"""Numbers as people read them: the same everywhere, with a real minus sign, and never a wrong digit
too many.
"""

from __future__ import annotations

import math
import re
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain import formatting

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


@given(NUMBERS)
def test_a_number_reads_back_as_itself_to_its_last_digit(x: float) -> None:
    text = formatting.value(x).replace("−", "-").replace(",", "")
    digits = len(text.partition(".")[2])
    assert abs(float(text) - x) <= 0.5000001 * 10.0**-digits


@given(NUMBERS)
def test_a_change_has_its_sign_and_a_real_minus(x: float) -> None:
    text = formatting.change(x)
    assert "-" not in text
    assert text.startswith("−" if math.copysign(1.0, x) < 0 else "+")
    assert re.fullmatch(r"[+−][\d,]+\.\d{1,2}%", text)


@given(st.floats(0.0, 1.0))
def test_a_rate_reads_back_as_itself_and_is_none_or_all_only_where_it_is(x: float) -> None:
    text = formatting.rate(x)
    number = float(text.removesuffix("%").replace("−", "-")) / 100.0
    assert text.endswith("%")
    assert abs(number - x) <= 0.5001e-4
    assert (number == 0.0) == (x < formatting.NOTHING)
    assert (number == 1.0) == (x > 1.0 - formatting.NOTHING)
    # Two digits at least, however small it is.
    assert math.isclose(number, x, rel_tol=0.051, abs_tol=formatting.NOTHING)


@given(st.floats(-1.0, 1.0))
def test_points_have_their_sign_and_a_real_minus_and_nothing_has_none(x: float) -> None:
    text = formatting.points(x)
    if abs(x) < formatting.NOTHING:
        assert text == "0 pp"
        return
    assert text.startswith("−" if x < 0.0 else "+")
    assert text.endswith(" pp")
    number = float(text.removesuffix(" pp").replace("−", "-")) / 100.0
    assert math.isclose(number, x, rel_tol=0.051)
    assert formatting.points(x, signed=False) == text.removeprefix("+")


@given(st.floats(-1.0, 1.0), st.floats(-1.0, 1.0))
def test_an_interval_has_the_digits_of_its_ends(low: float, high: float) -> None:
    ends = [formatting.points(x).removesuffix(" pp") for x in (low, high)]
    assert formatting.points_interval(low, high) == f"{ends[0]} to {ends[1]} pp"
    rates = f"{formatting.rate(low)} to {formatting.rate(high)}"
    assert formatting.rate_interval(low, high) == rates


@given(NUMBERS)
def test_only_a_share_is_a_percentage(x: float) -> None:
    assert formatting.metric_value(x, is_proportion=False) == formatting.value(x)
    assert formatting.metric_difference(x, is_proportion=False) == formatting.significant(x)
    assert formatting.metric_value(x, is_proportion=True) == formatting.rate(x)
    assert formatting.metric_difference(x, is_proportion=True) == formatting.points(x)


@pytest.mark.parametrize("x", [-0.0, 0.0, 1e-17, -1e-17])
def test_what_rounding_left_of_nothing_has_no_sign(x: float) -> None:
    numbers = [formatting.value(x), formatting.signed(x), formatting.significant(x)]
    assert [formatting.rate(x), formatting.points(x), *numbers] == ["0%", "0 pp", "0", "0", "0"]


@pytest.mark.parametrize(
    "name", ["interval", "significant_interval", "rate_interval", "points_interval"]
)
@pytest.mark.parametrize("bounds", [(None, 0.1), (0.1, None), (math.nan, 0.1), (None, None)])
def test_half_an_interval_is_a_dash(name: str, bounds: tuple[float | None, float | None]) -> None:
    assert getattr(formatting, name)(*bounds) == formatting.MISSING


@given(st.floats(0.0, 1.0))
def test_a_chance_is_never_more_certain_than_three_nines(p: float) -> None:
    assert formatting.chance(p) not in ("100%", "100.0%", "0%", "0.0%")


@pytest.mark.parametrize(
    "name",
    [
        *("percent", "lift", "share", "chance", "count", "value", "fixed"),
        *("rate", "points", "signed", "significant"),
    ],
)
def test_what_is_missing_is_a_dash(name: str) -> None:
    assert getattr(formatting, name)(None) == formatting.MISSING


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formatting.lift(0.062), "+6.2%"),
        (formatting.lift(-0.0031), "−0.3%"),
        (formatting.lift(2.4), "+240%"),
        (formatting.lift(11.0), "12×"),
        (formatting.share(1.0), "100%"),
        (formatting.count(24_500), "24.5 k"),
        (formatting.count(1_234_567), "1.2 M"),
        (formatting.value(0.0568), "0.0568"),
        (formatting.value(1_240.4), "1,240"),
        (formatting.value(0.000_002_5), "2.5e−06"),
        (formatting.significant(-0.000_063_84), "−0.0000638"),
        (formatting.significant(0.0124), "+0.0124"),
        (formatting.signed(-0.01239), "−0.0124"),
        (formatting.significant(-0.01239), "−0.0124"),
        (formatting.significant(0.1), "+0.1"),
        (formatting.significant(1_240.4), "+1,240"),
        (formatting.significant_interval(-0.01239, 0.5), "−0.0124 to +0.5"),
        (formatting.rate(0.1234), "12.34%"),
        (formatting.rate(0.0568), "5.68%"),
        (formatting.rate(0.0004), "0.040%"),
        (formatting.rate(0.99997), "99.9970%"),
        (formatting.rate(1.0), "100%"),
        (formatting.rate_interval(0.0312, 0.044), "3.12% to 4.40%"),
        (formatting.points(0.012), "+1.20 pp"),
        (formatting.points(-0.0004), "−0.040 pp"),
        (formatting.points_interval(-0.0031, 0.044), "−0.31 to +4.40 pp"),
        (formatting.interval(0.031, 0.044), "0.0310 to 0.0440"),
        (formatting.lift_interval(0.012, None), "–"),
        (formatting.duration(90_061), "25 h"),
        (formatting.window(604_800), "7 days"),
        (formatting.milliseconds(1_234), "1.2 s"),
        (formatting.moment(datetime(2026, 11, 20, 16, 6, 5)), "20 Nov 2026, 16:06:05 UTC"),
        (formatting.several(1, "unit"), "1 unit"),
        (formatting.several(2, "raises", "raise"), "2 raise"),
        (formatting.listing(["a", "b", "c"]), "a, b and c"),
        (formatting.listing(["a", "b", "c"], 1), "a and 2 more"),
        (formatting.listing([]), ""),
    ],
)
def test_examples(text: str, expected: str) -> None:
    assert text == expected
