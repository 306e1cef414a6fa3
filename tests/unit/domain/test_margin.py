"""Margins as files write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain.errors import BadRequest
from topbill.domain.margin import Margin, amount


@pytest.mark.parametrize(
    ("text", "margin"),
    [
        ("10%", Margin(0.1)),
        ("0.5%", Margin(0.005)),
        ("2pp", Margin(0.02, "points")),
        (" 2pp ", Margin(0.02, "points")),
        (0.5, Margin(0.5, "absolute")),
        (3, Margin(3.0, "absolute")),
        ("0%", Margin(0.0)),
    ],
)
def test_a_margin_is_a_part_points_or_a_number(text: object, margin: Margin) -> None:
    assert Margin.parse(text) == margin


@given(st.decimals(0, 1_000, places=4), st.sampled_from(["%", "pp"]))
def test_what_is_written_is_read_again(number: object, sign: str) -> None:
    margin = Margin.parse(f"{number}{sign}")
    assert Margin.parse(str(margin)) == margin


@pytest.mark.parametrize("text", ["-2%", "2", "pp", "2 pp%", "1e3%", "", None, True, [2], -1.0])
def test_what_is_no_margin_is_refused_with_what_is_one(text: object) -> None:
    with pytest.raises(BadRequest, match=r"margin.*expected .*10%.*2pp"):
        Margin.parse(text)


def test_amounts_are_told_in_the_margin_s_unit() -> None:
    assert [amount(0.0312, unit) for unit in ("relative", "points", "absolute")] == [
        "3.1%",
        "3.12 pp",
        "0.0312",
    ]
    assert amount(-0.004, "points") == "−0.40 pp"
