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
def test_a_chance_is_never_more_certain_than_three_nines(p: float) -> None:
    assert formatting.chance(p) not in ("100%", "100.0%", "0%", "0.0%")


@pytest.mark.parametrize("name", ["percent", "lift", "share", "chance", "count", "value", "fixed"])
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
        (formatting.significant(-0.01239), "−0.0124"),
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
