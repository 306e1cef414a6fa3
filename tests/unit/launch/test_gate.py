"""The gate lets through what the log shows to be harmless, holds what it shows to harm, and says
where the log cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain.margin import Margin
from topbill.launch.gate import GateResult, judge, run_gate
from topbill.ope import Estimate
from topbill.ope.diagnostics import Diagnostics
from topbill.spec import Gate, load
from topbill.stats.intervals import normal

from ..ope.conftest import CANDIDATE, ONE_SLOT, World, published

__all__ = ["published"]

Make = Callable[..., World]
GATE = Gate("home", "greedy", "fixed-b", Margin.parse("5%"))
FIXED_B = CANDIDATE.replace("fixed-d", "fixed-b").replace("order: [d]", "order: [b]")
finite = st.floats(-1.0, 1.0)


def an_estimate(value: float, low: float, high: float, reason: str | None = None) -> Estimate:
    diagnostics = Diagnostics(900, 300, 500.0, 1.0, 0.01, 3.0, 0.01, 200)
    if reason:
        return Estimate("dr", None, None, None, None, reason, diagnostics)
    return Estimate("dr", value, (high - low) / 4, low, high, None, diagnostics)


def judged(low: float, high: float, margin: str = "10%") -> GateResult:
    gate = replace(GATE, margin=Margin.parse(margin))
    return judge(gate, an_estimate((low + high) / 2, low, high), an_estimate(0.6, 0.5, 0.7))


# The judgement
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.04, 0.10, "passed"),  # 10% of the least that the other one earns is 0.05
        (-0.04, -0.01, "passed"),  # a little worse, and surely within the margin
        (-0.06, 0.10, "unknown"),
        (-0.06, -0.01, "harmful"),
        (-0.30, -0.20, "harmful"),
    ],
)
def test_the_interval_and_the_margin_decide(low: float, high: float, verdict: str) -> None:
    result = judged(low, high)
    assert result.verdict == verdict
    assert result.passed == (verdict == "passed")
    assert (result.reason == "margin_undecided") == (verdict == "unknown")
    assert result.allowed == pytest.approx(0.05)
    assert (result.low, result.high, result.decisions, result.units) == (low, high, 900, 300)


@given(finite, st.floats(0.0, 0.5), st.floats(0.0, 0.3), st.floats(0.0, 0.3))
def test_what_earns_more_is_never_judged_worse(
    value: float, half: float, more: float, wider: float
) -> None:
    order = ["harmful", "unknown", "passed"]

    def place(value: float, margin: float) -> int:
        gate = replace(GATE, margin=Margin(round(margin, 4), "absolute"))
        difference = an_estimate(value, value - half, value + half)
        return order.index(judge(gate, difference, an_estimate(0.6, 0.5, 0.7)).verdict)

    assert place(value, 0.1) <= place(value + more, 0.1)
    assert place(value, 0.1) <= place(value, 0.1 + wider)


def test_a_refused_estimate_is_no_verdict_and_says_what_to_do() -> None:
    result = judge(GATE, an_estimate(0, 0, 0, "no_overlap"), an_estimate(0.6, 0.5, 0.7))
    assert (result.verdict, result.reason, result.low) == ("unknown", "no_overlap", None)
    assert result.sentence == (
        "the log of home cannot judge greedy: the policy never chooses what the log shows: every "
        "weight is zero. Only exploring shows what it earns: let a variant show it now and then."
    )


def test_a_part_of_what_may_be_nothing_is_no_margin() -> None:
    result = judge(GATE, an_estimate(0.0, -0.01, 0.01), an_estimate(0.1, -0.1, 0.3))
    assert (result.verdict, result.reason) == ("unknown", "control_near_zero")
    absolute = replace(GATE, margin=Margin.parse(0.02))
    assert judge(absolute, an_estimate(0.0, -0.01, 0.01), an_estimate(0.1, -0.1, 0.3)).passed


def test_harm_at_the_margin_passes_as_rarely_as_the_level_says() -> None:
    rng = np.random.default_rng(17)
    gate = replace(GATE, margin=Margin(0.02, "absolute"))
    versus = an_estimate(0.6, 0.59, 0.61)
    verdicts = {truth: [] for truth in (-0.04, -0.02, 0.0)}  # type: dict[float, list[str]]
    for truth, said in verdicts.items():
        for value in rng.normal(truth, 0.01, 2_000):
            low, high = normal(float(value), 0.01, 0.05)
            said.append(judge(gate, an_estimate(float(value), low, high), versus).verdict)
    # One side of a 95% interval: 2.5%, with four standard errors of 2,000 tries.
    assert verdicts[-0.02].count("passed") < 2_000 * (0.025 + 4 * 0.0035)
    assert verdicts[0.0].count("harmful") < 2_000 * (0.025 + 4 * 0.0035)
    # Φ(4 − 1.96) of what harms by twice the margin is shown to.
    assert verdicts[-0.04].count("harmful") > 2_000 * 0.96


# On a log
# ----------------------------------------------------------------------------------------------


def asked(world: World, candidate: str = FIXED_B, **terms: Any) -> GateResult:
    experiment = load(world.file(candidate))
    return run_gate(replace(GATE, **terms), experiment, world.data)


def test_a_log_that_explored_judges_either_way_round(published: Make) -> None:
    world = published(n=2000)
    better = asked(world)
    assert better.verdict == "passed", better.sentence
    worse = asked(world, variant="fixed-b", versus="greedy")
    assert worse.verdict == "harmful", worse.sentence
    assert worse.difference == pytest.approx(-(better.difference or 0.0))
    assert (worse.low or 0.0) < (worse.difference or 0.0) < (worse.high or 0.0) < 0.0
    # Where chance decided, the log shows either: 0.25 by b against 0.55 at best.
    assert -0.32 < (worse.difference or 0.0) < -0.1
    assert worse == asked(world, variant="fixed-b", versus="greedy")
    assert worse.sentence.endswith("worse, and not shown to be within 5%")
    assert worse.sentence.startswith("fixed-b against greedy: −0.")


def test_rankings_are_judged_by_an_estimator_of_rankings(published: Make) -> None:
    world = published(n=2000, spec=ONE_SLOT.replace("slots: 1", "slots: 2"))
    three = FIXED_B.replace("surface: artwork", "surface: artwork\nslots: 2")
    result = asked(world, three, variant="fixed-b", versus="greedy", margin=Margin.parse("1%"))
    assert result.estimator == "cascade-dr", result.sentence
    assert (result.low or 0.0) < (result.difference or 0.0) < (result.high or 0.0)
    assert (result.difference or 0.0) < 0.0
    assert asked(world, three, estimator="mips").reason == "not_evaluable"


def test_a_log_of_one_order_cannot_judge(published: Make) -> None:
    spec = ONE_SLOT.replace("chance:  {policy: uniform", "other:   {policy: fixed, order: [d]")
    result = asked(published(n=200, spec=spec))
    assert (result.verdict, result.reason) == ("unknown", "no_exploration")
    assert "no variant explores" in result.sentence


def test_a_short_log_cannot_judge(published: Make) -> None:
    result = asked(published(n=60))
    assert (result.verdict, result.reason) == ("unknown", "low_effective_sample")
    assert "Evaluate a policy nearer to the logged one, a longer log" in result.sentence


def test_a_young_log_cannot_judge(published: Make) -> None:
    result = asked(published(n=50, age=-3600.0))
    assert (result.verdict, result.reason) == ("unknown", "rewards_immature")


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"log": "away"}, "'away' is not in the lake"),
        ({"variant": "nobody"}, "no variant 'nobody'"),
        ({"estimator": "cascade-dr"}, "cascade-dr"),
    ],
)
def test_what_is_not_there_is_named(published: Make, terms: dict[str, str], said: str) -> None:
    result = asked(published(n=100), **terms)
    assert (result.verdict, result.reason) == ("unknown", "not_evaluable")
    assert said in result.sentence
