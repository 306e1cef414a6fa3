"""Harm is called while few have seen it, rarely without reason, and with numbers that say the same
as the verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import inf, isfinite, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from topbill.ab import ArmEstimate, GuardrailHarm, Margin, harm
from topbill.ab.core.effect import Pair, Rule
from topbill.ab.core.units import Rate
from topbill.ab.harm import ALPHA, StagedRule, fraction_of
from topbill.ab.planning import Outlook
from topbill.ab.power.runtime import units_for
from topbill.domain.records import Floats
from topbill.stats import sequential
from topbill.stats.sequential import STAGES, UNSTAGED, crossing_probability, staged_multiplier

DRIFT = 2.8015852
"""Standard errors between a margin and none where a fixed-horizon test at 5% has 80% power."""
LOOKS = tuple(round(0.005 * i, 3) for i in range(1, 201))


def rates(treated: int, control: int, n: int) -> Pair:
    """Two arms of n units with so many events."""
    counts = Rate(treated, n), Rate(control, n)
    arms = [ArmEstimate(r.value, r.value * (1.0 - r.value) / n, n) for r in counts]
    return Pair(arms[0], arms[1], "", n, n, rates=counts, bounds=(0.0, 1.0), is_proportion=True)


def means(treated: float, control: float, se: float, n: int = 20_000) -> Pair:
    """Two arms of n units whose difference has that standard error."""
    return Pair(
        ArmEstimate(treated, se * se / 2.0, n), ArmEstimate(control, se * se / 2.0, n), "", n, n
    )


def crossing(margins: float, until: float, alpha: float = ALPHA) -> float:
    """The chance that harm of so many margins passes the stages' bound until that fraction, at two
    hundred looks a sample: by recursive integration, which knows of no reflection."""
    looks = [look for look in LOOKS if look <= until]
    critical = [min(staged_multiplier(look, alpha), 40.0) for look in looks]
    return crossing_probability(looks, critical, margins * DRIFT * sqrt(until))


@pytest.mark.parametrize("alpha", [0.2, ALPHA, ALPHA / 4, 0.001])
def test_the_stages_spend_their_part_of_alpha(alpha: float) -> None:
    looks = [i / 800 for i in range(1, 801)]
    chance = crossing_probability(looks, [min(staged_multiplier(x, alpha), 40.0) for x in looks], 0)
    # Between looks a path may pass and come back: the bound is for all of them.
    assert 0.88 < chance / ((1.0 - UNSTAGED) * alpha) < 1.0


PATHS, EVERY = 4_000, 1 / 2_000


@pytest.fixture(scope="module")
def harmless() -> Floats:
    """Scores of launches that do no harm, at 2,000 looks (PATHS, 2_000)."""
    rng = np.random.default_rng(11)
    return rng.normal(0.0, sqrt(EVERY), (PATHS, round(1 / EVERY))).cumsum(axis=1)


def passed(paths: Floats, bound: Sequence[float]) -> float:
    """The share of paths that pass a bound of so many standard errors at any look."""
    looks = EVERY * np.arange(1, paths.shape[1] + 1)
    return float(np.mean(np.any(paths >= np.array(bound) * np.sqrt(looks), axis=1)))


def error(share: float) -> float:
    """Four standard errors of a share of all paths."""
    return 4.0 * sqrt(share * (1.0 - share) / PATHS)


def test_paths_pass_the_stages_as_often_as_is_worked_out(harmless: Floats) -> None:
    bound = [staged_multiplier(EVERY * i, 0.2) for i in range(1, 2_001)]
    assert passed(harmless, bound) == pytest.approx(0.19, abs=error(0.19))


def test_what_does_no_harm_is_called_harmed_as_seldom_as_is_said(harmless: Floats) -> None:
    """By the whole rule, the sequence beside the stages, of a sample of 700,000 units."""
    rules = [StagedRule.at(EVERY * i, ALPHA) for i in range(1, 2_001)]
    bound = [rule.reach(350 * i, inf) for i, rule in enumerate(rules, start=1)]
    share = passed(harmless, bound)
    assert 0.6 * ALPHA < share < ALPHA + error(ALPHA)


def test_a_stage_asks_for_less_as_it_goes_on_and_the_next_for_more() -> None:
    for (end, _), (later, _) in pairwise(STAGES):
        assert staged_multiplier(end / 2) > staged_multiplier(end)
        assert staged_multiplier(end * 1.001) > staged_multiplier(end)
        # In scores, levels rise: a path that passed the one need not have passed the other.
        assert staged_multiplier(later) * sqrt(later) > staged_multiplier(end) * sqrt(end)
    assert staged_multiplier(0.0) == staged_multiplier(1.01) == inf


def test_harm_of_four_margins_shows_by_15_percent_and_of_two_by_half_of_the_sample() -> None:
    assert crossing(4.0, 0.15) > 0.97
    assert crossing(2.0, 0.5) > 0.96


def test_of_four_judged_harm_shows_as_much_later_as_the_page_says() -> None:
    assert crossing(4.0, 0.15, ALPHA / 4) == pytest.approx(0.92, abs=0.01)
    assert crossing(2.0, 0.5, ALPHA / 4) == pytest.approx(0.90, abs=0.01)
    # Half of them are shown by then.
    assert crossing(4.0, 0.08) > 0.5 > crossing(4.0, 0.08, ALPHA / 4)
    assert crossing(4.0, 0.1, ALPHA / 4) > 0.5
    assert crossing(2.0, 0.24) > 0.5 > crossing(2.0, 0.24, ALPHA / 4)
    assert crossing(2.0, 0.34, ALPHA / 4) > 0.5


def test_to_leave_out_the_margin_itself_would_be_too_late_even_at_one_look() -> None:
    # Why harm is told from none, not from the margin.
    assert norm.cdf(DRIFT * sqrt(0.5) - norm.isf(0.05)) < 0.64
    # And why the report's sequence alone does not do.
    looks = [look for look in LOOKS if look <= 0.5]
    alone = [float(sequential.multiplier(look * 700_000, 0.1, 350_000)) for look in looks]
    assert crossing_probability(looks, alone, 2.0 * DRIFT * sqrt(0.5)) < 0.93


def test_the_fraction_is_that_of_the_sample_that_power_names() -> None:
    margin = Margin(0.02)
    aim = Outlook(0.1, 0.3).harmless(margin, "lower", (0.5, 0.5))
    units = units_for(aim, Rule(method="fixed"))
    assert units is not None
    pair = means(0.1, 0.1, sqrt(0.09 * 4.0 / units), units // 2)
    # The plan's control counts (1 + margin)² times, as it is compared with the margin.
    assert fraction_of(pair, margin) == pytest.approx(1.0, rel=0.03)


def test_a_catastrophe_shows_among_few_units() -> None:
    result = harm("abandon", "new", rates(95, 50, 500), margin=Margin(0.02), better="lower")
    assert result.verdict == "harmed"
    assert result.worse_by == pytest.approx(0.9)
    assert result.worse_by_low is not None
    assert result.worse_by_low > 0.0
    assert result.fraction < 0.01


def test_harm_where_the_control_has_none_at_all_is_harm() -> None:
    result = harm("abandon", "new", rates(60, 0, 500), margin=Margin(0.02), better="lower")
    assert result.verdict == "harmed"
    assert result.worse_by is None
    assert result.reason == "control_near_zero"


def test_nothing_is_known_where_there_is_nothing_to_compare() -> None:
    for pair in (
        Pair(None, None, "missing_control", 3, 0),
        rates(0, 0, 500),
        means(1.0, 1.0, 0.0),
    ):
        result = harm("abandon", "new", pair, margin=Margin(0.02), better="lower")
        assert result.verdict == "unknown"
        assert result.reason


def test_a_guardrail_may_be_shown_to_be_kept() -> None:
    result = harm("abandon", "new", means(0.1, 0.1, 0.0002), margin=Margin(0.02), better="lower")
    assert (result.verdict, result.is_kept) == ("not_failed", True)


def test_what_is_worse_by_less_than_the_margin_is_not_harmed_however_sure() -> None:
    pair = means(0.1012, 0.1, 1e-5, 10_000_000)
    result = harm("abandon", "new", pair, margin=Margin(0.02), better="lower")
    assert result.worse_by_low is not None
    assert result.worse_by_low > 0.0
    assert (result.verdict, result.is_kept) == ("not_failed", True)


def test_without_any_margin_what_is_shown_to_be_worse_is_harmed() -> None:
    result = harm("watch", "new", means(0.9, 1.0, 0.02), margin=Margin(0.0), better="higher")
    assert result.verdict == "harmed"
    mild = harm("watch", "new", means(0.95, 1.0, 0.02), margin=Margin(0.0), better="higher")
    assert mild.verdict == "not_failed"


VALUES = st.floats(0.05, 2.0)
ERRORS = st.floats(1e-4, 0.5)
MARGINS = st.one_of(
    st.floats(0.0, 0.5).map(Margin), st.floats(0.0, 0.5).map(lambda v: Margin(v, "absolute"))
)


def of(treated: float, se: float, margin: Margin, better: str = "lower") -> GuardrailHarm:
    sign = 1.0 if better == "lower" else -1.0
    pair = means(sign * treated, sign * 1.0, se)
    return harm("m", "new", pair, margin=margin, better=better)  # type: ignore[arg-type]


@given(VALUES, ERRORS, MARGINS)
def test_the_verdict_is_what_the_numbers_say(treated: float, se: float, margin: Margin) -> None:
    result = of(treated, se, margin)
    assert result.verdict != "unknown"
    if result.worse_by is None or result.worse_by_low is None or result.worse_by_high is None:
        assert result.reason == "control_near_zero"
        return
    assert all(isfinite(x) for x in (result.worse_by, result.worse_by_low, result.worse_by_high))
    assert result.worse_by_low <= result.worse_by <= result.worse_by_high
    # To rounding: both sides are worked out in their own way.
    if abs(result.worse_by_low) > 1e-9 and abs(result.worse_by - margin.value) > 1e-9:
        harmed = result.worse_by_low > 0.0 and result.worse_by > margin.value
        assert (result.verdict == "harmed") == harmed
    assert not (result.is_kept and result.verdict == "harmed")


@given(VALUES, st.floats(0.0, 1.0), ERRORS, MARGINS)
def test_more_harm_is_never_less_harm(
    treated: float, more: float, se: float, margin: Margin
) -> None:
    if of(treated, se, margin).verdict == "harmed":
        assert of(treated + more, se, margin).verdict == "harmed"


@given(VALUES, ERRORS, MARGINS)
def test_the_bad_direction_is_the_only_difference(
    treated: float, se: float, margin: Margin
) -> None:
    lower, higher = of(treated, se, margin), of(treated, se, margin, "higher")
    assert lower.verdict == higher.verdict
    if lower.worse_by is not None and higher.worse_by is not None:
        assert lower.worse_by == pytest.approx(higher.worse_by)


@given(VALUES, ERRORS, MARGINS)
def test_of_several_judged_each_is_judged_more_strictly(
    treated: float, se: float, margin: Margin
) -> None:
    pair = means(treated, 1.0, se)
    one = harm("m", "new", pair, margin=margin, better="lower")
    four = harm("m", "new", pair, margin=margin, better="lower", alpha=ALPHA / 4)
    assert not (four.verdict == "harmed" and one.verdict != "harmed")
    assert np.isclose(one.fraction, four.fraction)
