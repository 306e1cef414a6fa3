"""The verdict's sentence reads well whatever the numbers are, and never contradicts the table of
comparisons.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from topbill.ab import ArmEstimate, Comparison, GuardrailResult, Margin, SampleRatio, Split, Verdict
from topbill.ab.core.effect import Pair, Rule, effect_of
from topbill.ab.core.units import Rate
from topbill.ab.verdict import called, guardrail, verdict, without_outlook
from topbill.domain.formatting import change

SPLIT = SampleRatio(counts={}, shares={}, p_value=1.0, p_sequential=None, alpha=0.01, alarm=False)


def comparison(variant: str = "thompson", **changes: Any) -> Comparison:
    shown = {
        "difference": 0.1,
        "difference_low": 0.05,
        "difference_high": 0.15,
        "se": 0.02,
        "p_value": 1e-6,
    }
    lift = {"relative": 0.062, "relative_low": 0.031, "relative_high": 0.094}
    return Comparison(
        **{"metric": "completed_plays", "variant": variant, **shown, **lift, **changes}
    )


def told(*comparisons: Comparison, guardrail: str | None = None, alpha: float = 0.05) -> Verdict:
    rails = [GuardrailResult(metric="abandon", variant="thompson", margin=0.02, status=guardrail)]  # type: ignore[arg-type]
    return verdict(called(comparisons, alpha), rails if guardrail else [], SPLIT, "editorial")


def test_the_sentence_of_a_winner() -> None:
    assert told(comparison(), guardrail="not_worse").sentence == (
        "thompson beats editorial: +6.2% completed plays, between +3.1% and +9.4%; "
        "abandon not worse; safe to ship."
    )


def test_against_another_variant_nothing_is_advised() -> None:
    harmless = GuardrailResult(
        metric="abandon", variant="thompson", margin=0.02, status="not_worse"
    )
    broken = msgspec.structs.replace(harmless, status="worse", worse_by=0.1)
    for rail in (harmless, broken):
        for c in (comparison(), comparison(difference_low=-0.15, difference_high=-0.05)):
            result = verdict(called([c], 0.05), [rail], SPLIT, "bandit", decides=False)
            assert not result.safe_to_ship
            assert result.winner is None
            assert "ship" not in result.sentence
            assert "Stop" not in result.sentence
            assert "bandit" in result.sentence
            assert result.codes[-1] == "other_control"


def test_an_upper_bound_that_says_nothing_is_not_said() -> None:
    wide = comparison(metric="objective", relative=2.241, relative_low=0.405, relative_high=151.839)
    found = told(wide, guardrail="undecided")
    assert found.sentence == (
        "thompson beats editorial: +224.1% objective, at least +40.5%; "
        "non-inferiority of abandon not shown yet; "
        "keep it running."
    )
    assert found.codes == ["beats_control", "guardrail_undecided"]


def test_what_is_over_is_told_without_advice_and_without_what_was_to_come() -> None:
    told_then = {
        "a beats b: +5% play; non-inferiority of abandon not shown yet (about 3 more days at the "
        "current rate); keep it running.": (
            "a beats b: +5% play; non-inferiority of abandon not shown yet."
        ),
        "No difference shown yet: +1% play; about 28 more days to decide at the current rate.": (
            "No difference shown yet: +1% play."
        ),
        "a beats b: +5% play; safe to ship.": "a beats b: +5% play.",
        "a is worse: −5% play.": "a is worse: −5% play.",
    }
    for sentence, over in told_then.items():
        assert without_outlook(sentence) == over


def test_a_lift_that_cannot_be_said_is_a_difference_with_a_real_minus() -> None:
    found = told(
        comparison(relative=None, difference=-0.1, difference_low=-0.15, difference_high=0.05)
    )
    assert "−0.1 completed plays, between −0.15 and +0.05" in found.sentence


def test_a_difference_of_rates_is_told_in_percentage_points() -> None:
    bounds = {"difference": 0.0304, "difference_low": 0.0099, "difference_high": 0.0509}
    found = told(comparison(relative=None, is_proportion=True, **bounds))
    assert "+3.04 pp completed plays, between +0.99 pp and +5.09 pp" in found.sentence


def test_why_a_guardrail_cannot_be_judged_is_told_in_words() -> None:
    unknown = GuardrailResult(
        metric="abandon", variant="thompson", margin=0.02, status="unknown", reason="all_zero"
    )
    found = verdict(called([comparison()], 0.05), [unknown], SPLIT, "editorial")
    why = "the metric is zero for every unit of both variants"
    assert f"abandon cannot be judged ({why})" in found.sentence


@pytest.mark.parametrize(
    ("share", "text"), [(0.062, "+6.2%"), (-0.0031, "−0.31%"), (12.345, "+1,234.5%")]
)
def test_percentages_have_a_sign_a_real_minus_and_separated_thousands(
    share: float, text: str
) -> None:
    assert change(share) == text


def test_what_is_lost_to_there_being_several_is_no_call_in_table_and_sentence() -> None:
    weak = comparison(p_value=0.04, chance_to_win=0.98)
    others = [
        comparison(name, p_value=0.9, difference_low=-0.1, chance_to_win=0.5)
        for name in ("linucb", "uniform")
    ]
    assert called([weak], 0.05)[0].call == "better"
    assert {c.call for c in called([weak, *others], 0.05)} == {"no_call"}
    found = told(weak, *others)
    assert found.codes == ["no_call", "call_lost_to_multiplicity"]
    assert found.sentence == (
        "Not yet sure that thompson is better than editorial: +6.2% completed plays, "
        "between +3.1% and +9.4%, "
        "which one of 3 variants can show by luck."
    )


def test_lower_is_called_better_where_it_is() -> None:
    less = {"difference": -0.1, "difference_low": -0.15, "difference_high": -0.05}
    calls = [
        c.call for m in ("lower", "higher") for c in called([comparison(better=m, **less)], 0.05)
    ]
    assert calls == ["better", "worse"]


def harm(variant: str = "linucb") -> GuardrailResult:
    return GuardrailResult(
        metric="abandon", variant=variant, margin=0.02, status="worse", worse_by=0.437
    )


ASTRAY = SampleRatio(
    counts={"editorial": 600, "linucb": 400},
    shares={"editorial": 0.5, "linucb": 0.5},
    p_value=1e-9,
    p_sequential=1e-8,
    alpha=0.01,
    alarm=True,
)


def test_a_broken_guardrail_comes_before_a_verdict_that_is_withheld() -> None:
    found = verdict([], [harm()], ASTRAY, "editorial")
    assert found.sentence == (
        "Stop linucb: abandon is worse by 43.7% (2.0% allowed). Sample ratio mismatch (SRM): units "
        "were not split as intended (got editorial 60.0%, linucb 40.0%; meant editorial 50.0%, "
        "linucb 50.0%); find out why before reading any difference."
    )
    assert found.codes == ["guardrail_worse", "sample_ratio_mismatch"]


def test_whoever_breaks_a_guardrail_is_named_whatever_the_verdict_is() -> None:
    unsure = comparison("linucb", difference_low=-0.1, p_value=0.4)
    for primary in ([], [unsure], [comparison(), unsure]):
        found = verdict(called(primary, 0.05), [harm()], SPLIT, "editorial")
        assert found.sentence.startswith("Stop linucb: abandon is worse by 43.7% (2.0% allowed). ")
    # The winner's own harm is told with it, once.
    found = verdict(called([comparison()], 0.05), [harm("thompson")], SPLIT, "editorial")
    assert found.sentence.count("43.7%") == 1
    assert found.sentence.startswith("thompson beats editorial")


def test_a_split_that_went_wrong_on_a_day_names_the_day() -> None:
    days = []
    for day, (one, other), p in (("2026-03-01", (500, 0), 1e-99), ("2026-03-02", (0, 500), 1e-98)):
        counts = {"editorial": one, "linucb": other}
        days.append(Split(by="day", value=day, counts=counts, p_value=p, p_adjusted=p))
    ratio = SampleRatio(
        counts={"editorial": 500, "linucb": 500},
        shares={"editorial": 0.5, "linucb": 0.5},
        p_value=1.0,
        p_sequential=1e-90,
        alpha=0.01,
        alarm=True,
        days=days,
    )
    found = verdict([], [], ratio, "editorial")
    assert "intended on 2026-03-01 (got editorial 100.0%, linucb 0.0%; meant" in found.sentence


# --- Absolute margins


def rates(control: int, treated: int, n: int) -> Pair:
    estimates = [ArmEstimate(k / n, k / n * (1.0 - k / n) / n, n) for k in (treated, control)]
    return Pair(*estimates, "", n, n)


@pytest.mark.parametrize("rule", [Rule("fixed"), Rule("sequential")], ids=lambda r: r.method)
@pytest.mark.parametrize(
    ("treated", "status"), [(3_000, "not_worse"), (3_200, "undecided"), (3_600, "worse")]
)
def test_an_absolute_margin_is_one_of_the_difference(rule: Rule, treated: int, status: str) -> None:
    pair = rates(3_000, treated, 10_000)
    result = guardrail("abandon", "t", pair, rule, margin=Margin(0.025, "points"), better="lower")
    assert result.status == status
    assert (result.margin, result.margin_unit) == (0.025, "points")
    # Told in the margin's unit: 2 points, not 6.7% of 30%.
    assert result.worse_by == pytest.approx((treated - 3_000) / 10_000)
    effect = effect_of("abandon", "t", pair, rule)
    assert (result.worse_by_low, result.worse_by_high) == (
        effect.difference_low,
        effect.difference_high,
    )


def test_few_successes_are_judged_exactly_by_an_absolute_margin_too() -> None:
    counted = replace(rates(0, 0, 200), rates=(Rate(0, 200), Rate(3, 200)))
    counted = replace(
        counted, treated=ArmEstimate(0.0, 0.0, 200), control=ArmEstimate(0.015, 7e-5, 200)
    )
    wide, narrow = (
        guardrail("a", "t", counted, Rule("fixed"), margin=Margin(m, "points"), better="lower")
        for m in (0.05, 0.001)
    )
    assert (wide.status, narrow.status) == ("not_worse", "undecided")


def test_an_undecided_guardrail_says_how_long_it_takes() -> None:
    pair = rates(3_000, 3_010, 10_000)
    result = guardrail(
        "abandon",
        "thompson",
        pair,
        Rule("fixed"),
        margin=Margin(0.01, "points"),
        better="lower",
        units_a_day=1_000.0,
    )
    assert result.status == "undecided"
    # (z · σ/0.009)² units in all, less those that are there.
    sigma = math.sqrt(pair.treated.variance + pair.control.variance)  # type: ignore[union-attr]
    needed = 20_000 * (1.96 * sigma / 0.009) ** 2
    assert result.days_to_decision == pytest.approx((needed - 20_000) / 1_000, rel=1e-3)
    sentence = verdict(called([comparison()], 0.05), [result], SPLIT, "editorial").sentence
    assert (
        "non-inferiority of abandon not shown yet (about 20 more days at the current rate)"
        in sentence
    )


def test_points_are_told_as_points() -> None:
    worse = GuardrailResult(
        metric="abandon",
        variant="linucb",
        margin=0.02,
        margin_unit="points",
        status="worse",
        worse_by=0.031,
    )
    sentence = verdict(called([comparison()], 0.05), [worse], SPLIT, "editorial").sentence
    assert "Stop linucb: abandon is worse by 3.10 pp (2.00 pp allowed)." in sentence


# --- What decides, and what can be


def test_the_adjusted_p_value_is_the_one_that_decides() -> None:
    first, second = called(
        [comparison("a", p_value=0.03), comparison("b", p_value=0.04)], alpha=0.05
    )
    # Holm: the smaller of two is doubled, and no later one is below it.
    assert (first.p_adjusted, second.p_adjusted) == pytest.approx((0.06, 0.06))
    assert (first.call, second.call) == ("no_call", "no_call")
    (alone,) = called([comparison("a", p_value=0.03)], alpha=0.05)
    assert (alone.p_adjusted, alone.call) == (0.03, "better")
    (bayes,) = called([comparison("a", p_value=None, chance_to_win=0.999)], alpha=0.05)
    assert (bayes.p_adjusted, bayes.call) == (None, "better")


@pytest.mark.parametrize("rule", [Rule("fixed"), Rule("sequential"), Rule("bayes")])
def test_intervals_of_rates_stay_in_their_range(rule: Rule) -> None:
    few = replace(rates(2, 3, 4), bounds=(0.0, 1.0))
    bounded, free = (effect_of("y", "t", pair, rule) for pair in (few, replace(few, bounds=None)))
    assert free.difference_low is not None
    assert free.difference_low < -1.0 or rule.method != "sequential"
    assert bounded.difference_low == max(free.difference_low, -1.0)
    assert bounded.difference_high == min(free.difference_high or 0.0, 1.0)
    if bounded.relative_low is not None:
        assert bounded.relative_low >= -1.0
    assert bounded.p_value == free.p_value
