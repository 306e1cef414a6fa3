"""Planning: how many units and days, what can be seen with those there are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower

from topbill import ab
from topbill.ab import Margin
from topbill.ab.core.effect import Rule, adjusted
from topbill.ab.power.joint import units_for_all
from topbill.ab.power.runtime import (
    Aim,
    Progress,
    days_by_holm,
    days_to_decision,
    detectable_effect,
    runtime,
    units_for,
    units_needed,
)
from topbill.domain.errors import BadRequest
from topbill.stats import sequential

FIXED, SEQUENTIAL = Rule("fixed"), Rule("sequential")


@pytest.mark.parametrize(("effect", "ratio"), [(1.5, 1.0), (0.5, 1.0), (0.3, 4.0), (0.1, 1.0)])
def test_a_fixed_look_needs_the_sample_that_statsmodels_says(effect: float, ratio: float) -> None:
    solve = TTestIndPower().solve_power
    n = float(solve(effect, alpha=0.05, power=0.8, ratio=ratio))
    units = units_needed(effect, 1.0, FIXED, shares=(1.0, ratio))
    # Welch's degrees of freedom are fewer than Student's where arms are not alike.
    tolerance = 1.0 if ratio == 1.0 and n < 1_000 else 0.05 * n
    assert units == pytest.approx(n * (1.0 + ratio), abs=tolerance)
    seen = detectable_effect(1.0, 200, FIXED)
    least = float(solve(None, nobs1=100, alpha=0.05, power=0.8))
    assert seen == pytest.approx(least, rel=1e-5)


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
    open_ = days_to_decision(Progress(0.02, 0.01, 1_000, 100.0), SEQUENTIAL)
    assert open_ is not None
    assert open_ > 0.0
    later = days_to_decision(Progress(0.02, 0.01 / 2**0.5, 2_000, 100.0), SEQUENTIAL)
    assert later == pytest.approx(open_ - 10.0, abs=0.1)
    assert days_to_decision(Progress(0.2, 0.01, 1_000, 100.0), SEQUENTIAL) == 0.0
    assert days_to_decision(Progress(1e-9, 0.01, 1_000, 100.0), SEQUENTIAL) is None
    assert days_to_decision(Progress(0.02, 0.01, 1_000, 0.0), SEQUENTIAL) is None


def test_plans_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(BadRequest):
        units_needed(0.1, 1.0, FIXED, power=1.0)
    with pytest.raises(BadRequest):
        units_needed(0.1, -1.0, FIXED)


def test_p_values_that_are_missing_do_not_count_as_tests() -> None:
    assert adjusted([0.02, None, 0.04], "bonferroni") == [0.04, None, 0.08]
    assert adjusted([None], "holm") == [None]


@pytest.mark.parametrize("n", [2, 3, 8, 40])
def test_holm_is_statsmodels(n: int) -> None:
    p_values = np.random.default_rng(n).random(n) ** 3
    p_values[0] = p_values[-1]
    assert adjusted(list(p_values)) == list(multipletests(p_values, method="holm")[1])


# --- Several treatments: Holm


def test_several_treatments_cost_what_holm_asks_of_the_first() -> None:
    z = stats.norm.isf
    for tests in (1, 2, 5):
        expected = 4.0 * (z(0.025 / tests) + z(0.2)) ** 2 / 0.05**2
        assert units_needed(0.05, 1.0, FIXED, tests=tests) == pytest.approx(expected, rel=1e-3)


GROUPS = Rule("group-sequential", looks=(0.5, 1.0))


@pytest.mark.parametrize("rule", [FIXED, SEQUENTIAL, GROUPS, Rule("bayes")], ids=lambda r: r.method)
@pytest.mark.parametrize(("tests", "n"), [(1, 100), (2, 100_000), (5, 20), (19, 4_000_000)])
def test_a_treatment_is_called_where_holm_s_p_value_is_at_most_alpha(
    rule: Rule, tests: int, n: int
) -> None:
    reach = rule.call_reach(n, np.inf, tests)
    for z, is_called in ((reach * 1.0001, True), (reach * 0.9999, False)):
        p = rule.p_value(z, n, np.inf)
        # Bayes has no p-value: twice the smaller chance stands for it.
        p = 2.0 * stats.norm.sf(z) if p is None else p
        assert (p * tests <= rule.alpha) == is_called


def test_who_waits_for_holm_waits_for_the_surer_ones() -> None:
    surest, second, hopeless = (Progress(d, 0.01, 1_000, 100.0) for d in (0.03, 0.02, 1e-9))
    days = days_by_holm([second, surest, hopeless], FIXED)
    # The surest of three, then the surer of two.
    assert days[1] == days_to_decision(surest, FIXED, tests=3) == 0.0
    assert days[0] == days_to_decision(second, FIXED, tests=2)
    assert days[2] is None
    assert days_by_holm([second], FIXED) == [days_to_decision(second, FIXED)]
    # Nobody comes before one that is never called.
    slow = surest._replace(units_a_day=0.0)
    assert days_by_holm([slow, second], FIXED) == [None, None]


# --- Looks


def test_looks_call_a_null_effect_at_half_of_alpha_on_one_side() -> None:
    looks = (0.25, 0.5, 0.75, 1.0)
    critical = sequential.boundaries(looks)
    assert sequential.crossing_probability(looks, critical, 0.0) == pytest.approx(0.025, abs=1e-3)
    rng = np.random.default_rng(0)
    scores = np.cumsum(rng.normal(2.8 / 4, 0.5, (200_000, 4)), axis=1)
    crossed = np.any(scores / np.sqrt(looks) > critical, axis=1).mean()
    found = sequential.crossing_probability(looks, critical, 2.8)
    # Its standard error is 0.001; the lower boundary is never met with such a drift.
    assert found == pytest.approx(crossed, abs=0.004)


def test_looking_on_the_way_costs_a_little() -> None:
    once, twice = units_needed(0.05, 1.0, FIXED), units_needed(0.05, 1.0, GROUPS)
    assert once is not None
    assert twice is not None
    assert once < twice < 1.02 * once


# --- Guardrails


def test_a_guardrail_needs_the_units_that_find_its_margin() -> None:
    # 2 points of 30%: the same as finding 2 points, for nothing else is asked.
    plan = ab.plan_ahead(0.3, margins=[Margin(0.02, "points"), Margin(0.1)], method="fixed")
    points, relative = plan.guardrails
    assert points.units == units_needed(0.02, np.sqrt(0.21), FIXED)
    # Of a relative margin the control's own noise takes part: (1 + 0.1)² of it.
    aim = Aim(0.03, (1.1 * np.sqrt(0.21), np.sqrt(0.21)))
    assert relative.units == units_for(aim, FIXED)


def test_call_and_guardrail_together_take_more_than_either_and_less_than_bonferroni() -> None:
    call, guard = Aim(0.02, (0.5, 0.5)), Aim(0.02, (0.46, 0.46))
    alone = max(units_for(aim, FIXED) or 0 for aim in (call, guard))
    bound = max(units_for(aim, FIXED, 0.9) or 0 for aim in (call, guard))
    together = units_for_all([call, guard], np.eye(2), FIXED) or 0
    assert alone < together < bound
    # Two independent chances of √0.8 each are 0.8.
    same = units_for_all([call, call], np.eye(2), FIXED) or 0
    assert same == pytest.approx(units_for(call, FIXED, np.sqrt(0.8)), rel=0.01)
    # What always comes together costs nothing more.
    assert units_for_all([call, call], np.ones((2, 2)), FIXED) == units_for(call, FIXED)


# --- Before launch


def test_a_plan_ahead_is_the_plan_of_its_numbers() -> None:
    plan = ab.plan_ahead(0.12, units_a_day=40_000, variants=3, relative=[0.05], days=[0, 7])
    (run,) = plan.runtimes
    sds = (np.sqrt(0.12 * 0.88), np.sqrt(0.126 * 0.874))
    assert run.units == units_for(Aim(0.006, sds, tests=2), SEQUENTIAL)
    # Two thirds of all units are the variant's and the control's.
    assert run.days == pytest.approx((run.units or 0) / (40_000 * 2 / 3))
    assert run.all_units == pytest.approx(1.5 * (run.units or 0), abs=1)
    assert [(line.days, line.units) for line in plan.detectable] == [(7, round(40_000 * 14 / 3))]
    assert (run.variant, plan.treatments) == ("each variant", 2)


def test_numbers_shares_and_what_changes_the_variance() -> None:
    def units(**more: object) -> int:
        plan = ab.plan_ahead(5.0, sd=8.0, relative=[0.1], method="fixed", **more)  # type: ignore[arg-type]
        return plan.runtimes[0].units or 0

    plain = units()
    assert plain == units_needed(0.5, 8.0, FIXED)
    assert units(variance_saved=0.5) == pytest.approx(plain / 2, rel=1e-3)
    assert units(decisions_per_unit=4.0, design_effect=2.0) == pytest.approx(plain / 2, rel=1e-3)
    assert units(shares=[0.9, 0.1]) == units_needed(0.5, 8.0, FIXED, shares=(0.9, 0.1))
    several = ab.plan_ahead(5.0, sd=8.0, shares=[0.5, 0.3, 0.2], relative=[0.1])
    assert [run.variant for run in several.runtimes] == ["variant 1", "variant 2"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"baseline": 1.2}, "expected a rate between 0 and 1"),
        ({"baseline": float("nan")}, "expected a rate between 0 and 1"),
        ({"baseline": 0.0, "sd": 1.0}, "expected a number other than 0"),
        ({"sd": 0.0}, "expected a positive standard deviation"),
        ({"variants": 1}, "expected from 2 to 100"),
        ({"shares": [1.0]}, "expected two positive shares"),
        ({"shares": [1.0, 0.0]}, "expected two positive shares"),
        ({"units_a_day": 0.0}, "expected a positive number"),
        ({"relative": [2.0], "baseline": 0.5}, "the rate is between 0 and 1"),
        ({"margins": [Margin(0.5, "absolute")]}, "expected a percentage"),
        ({"margins": [Margin(0.02, "points")], "sd": 1.0}, "points are of rates"),
        ({"margins": [Margin(0.0)]}, "expected a margin above 0"),
        ({"variance_saved": 1.0}, "from 0 to below 1"),
        ({"design_effect": 0.5}, "at least 1"),
        ({"decisions_per_unit": 0.0}, "at least 1"),
    ],
)
def test_plans_ahead_that_cannot_be_meant_are_refused(
    arguments: dict[str, object], expected: str
) -> None:
    with pytest.raises(BadRequest, match=expected):
        ab.plan_ahead(**({"baseline": 0.12} | arguments))  # type: ignore[arg-type]
