"""Planning: how many units and days, what can be seen with those there are."""

from __future__ import annotations

import pytest

from topbill.ab.core.effect import Rule, adjusted
from topbill.ab.power import textbook
from topbill.ab.power.runtime import days_to_decision, detectable_effect, runtime, units_needed
from topbill.domain.errors import BadRequest

FIXED, SEQUENTIAL = Rule("fixed"), Rule("sequential")


def test_a_fixed_look_needs_the_textbook_sample() -> None:
    assert units_needed(0.1, 1.0, FIXED) == pytest.approx(
        2 * textbook.sample_size(0.1, 1.0), rel=1e-3
    )


def test_the_right_to_peek_costs_units() -> None:
    fixed, peeking = units_needed(0.05, 1.0, FIXED), units_needed(0.05, 1.0, SEQUENTIAL)
    assert fixed is not None
    assert peeking is not None
    assert fixed < peeking < 4 * fixed


def test_half_the_effect_needs_about_four_times_the_units() -> None:
    assert units_needed(0.05, 1.0, FIXED) == pytest.approx(
        4 * (units_needed(0.1, 1.0, FIXED) or 0), rel=1e-3
    )


def test_uneven_shares_need_more() -> None:
    assert (units_needed(0.1, 1.0, FIXED, shares=(0.1, 0.9)) or 0) > 2 * (
        units_needed(0.1, 1.0, FIXED) or 0
    )


def test_what_n_units_can_see_is_what_needs_n_units() -> None:
    for rule in (FIXED, SEQUENTIAL):
        seen = detectable_effect(2.0, 10_000, rule)
        assert units_needed(seen or 0.0, 2.0, rule) == pytest.approx(10_000, rel=1e-3)


def test_no_effect_needs_more_than_anybody_has() -> None:
    assert units_needed(0.0, 1.0, FIXED) is None
    assert runtime(0.1, 0.3, 0.05, FIXED, units_a_day=0.0).days is None
    assert detectable_effect(1.0, 3, FIXED) is None


def test_days_follow_from_traffic() -> None:
    plan = runtime(0.1, 0.3, 0.05, FIXED, units_a_day=1_000.0)
    assert plan.units == units_needed(0.005, 0.3, FIXED)
    assert plan.days == pytest.approx((plan.units or 0) / 1_000.0)


def test_days_to_decision_shrink_as_data_comes_and_end_at_zero() -> None:
    open_ = days_to_decision(0.02, 0.01, 1_000, 100.0, SEQUENTIAL)
    assert open_ is not None
    assert open_ > 0.0
    later = days_to_decision(0.02, 0.01 / 2**0.5, 2_000, 100.0, SEQUENTIAL)
    assert later == pytest.approx(open_ - 10.0, abs=0.1)
    assert days_to_decision(0.2, 0.01, 1_000, 100.0, SEQUENTIAL) == 0.0
    assert days_to_decision(1e-9, 0.01, 1_000, 100.0, SEQUENTIAL) is None
    assert days_to_decision(0.02, 0.01, 1_000, 0.0, SEQUENTIAL) is None


def test_plans_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(BadRequest):
        units_needed(0.1, 1.0, FIXED, power=1.0)
    with pytest.raises(BadRequest):
        textbook.sample_size(0.1, 0.0)
    with pytest.raises(BadRequest):
        textbook.sample_size_of_rates(0.1, 0.1)


def test_p_values_that_are_missing_do_not_count_as_tests() -> None:
    assert adjusted([0.02, None, 0.04], "bonferroni") == [0.04, None, 0.08]
    assert adjusted([None], "holm") == [None]
