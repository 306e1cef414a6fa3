"""Who stands on the front, who is surely beaten, and how often somebody is wrongly called so."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from topbill.reporting.pareto import dominated
from topbill.stats.moments import Moments


def moments(values: np.ndarray) -> Moments:
    return Moments.of(("value", "pages"), np.stack([values, np.ones(len(values))], axis=1))


def arms(
    rng: np.random.Generator, rates: dict[str, tuple[float, float]], n: int = 2_000
) -> dict[str, dict[str, Moments]]:
    return {
        name: {
            goal: moments(rng.binomial(1, p, n).astype(float))
            for goal, p in zip(("play", "back"), ps, strict=True)
        }
        for name, ps in rates.items()
    }


def test_what_trades_one_goal_for_another_is_on_the_front() -> None:
    found = dominated(
        arms(np.random.default_rng(1), {"a": (0.3, 0.1), "b": (0.1, 0.3)}),
        {"play": 1.0, "back": 1.0},
    )
    assert found == {"a": {}, "b": {}}


def test_what_is_better_on_all_goals_beats_surely() -> None:
    found = dominated(
        arms(np.random.default_rng(1), {"a": (0.3, 0.3), "b": (0.1, 0.1)}),
        {"play": 1.0, "back": 1.0},
    )
    assert found == {"a": {}, "b": {"a": True}}


def test_less_is_better_where_the_weight_is_below_zero() -> None:
    """b has fewer of what is not wanted, so that a no longer beats it."""
    sums = arms(np.random.default_rng(1), {"a": (0.3, 0.3), "b": (0.1, 0.1)})
    assert dominated(sums, {"play": 1.0, "back": -1.0}) == {"a": {}, "b": {}}
    assert dominated(sums, {"back": -1.0}) == {"a": {"b": True}, "b": {}}


def test_a_single_variant_or_one_without_spread_is_beaten_by_nobody() -> None:
    assert dominated({"a": {"play": moments(np.ones(50))}}, {"play": 1.0}) == {"a": {}}
    same = {name: {"play": moments(np.ones(50))} for name in "ab"}
    assert dominated(same, {"play": 1.0}) == {"a": {}, "b": {}}


@pytest.mark.parametrize("variants", [2, 4])
def test_among_equals_somebody_is_called_beaten_in_no_more_than_5_percent_of_worlds(
    variants: int,
) -> None:
    """All are alike, so that any sure domination is a mistake; Bonferroni keeps them rare over all
    comparisons.
    """
    rng = np.random.default_rng(7)
    worlds = 1_000
    wrong = 0
    for _ in range(worlds):
        sums = arms(rng, {f"v{j}": (0.2, 0.4) for j in range(variants)}, 400)
        wrong += any(
            sure
            for ahead in dominated(sums, {"play": 1.0, "back": 1.0}).values()
            for sure in ahead.values()
        )
    assert wrong <= stats.binom.ppf(0.999, worlds, 0.05)
