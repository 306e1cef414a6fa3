"""Effects drawn towards each other: by the closed form, by published numbers, by independent
implementations, and by what it is for: what was picked because it looked best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from topbill.ab.core.shrinkage import FEWEST, shrink

# Batting averages of 18 players over their first 45 times at bat of 1970, and what the estimator of
# James & Stein makes of them on the scale of √45 arcsin(2y − 1), where the variance is 1: Efron &
# Morris, "Data Analysis Using Stein's Estimator and Its Generalizations", JASA 70 (1975).
BATTING = (
    *(0.400, 0.378, 0.356, 0.333, 0.311, 0.311, 0.289, 0.267, 0.244),
    *(0.244, 0.222, 0.222, 0.222, 0.222, 0.222, 0.200, 0.178, 0.156),
)
PUBLISHED = (
    *(0.290, 0.286, 0.281, 0.277, 0.273, 0.273, 0.268, 0.264, 0.259),
    *(0.259, 0.254, 0.254, 0.254, 0.254, 0.254, 0.249, 0.244, 0.239),
)


def test_of_equal_errors_it_is_what_efron_and_morris_published() -> None:
    x = np.sqrt(45) * np.arcsin(2 * np.array(BATTING) - 1)
    result = shrink(x.tolist(), [1.0] * len(BATTING))
    assert result is not None
    back = [(np.sin(effect.value / np.sqrt(45)) + 1) / 2 for effect in result.effects]
    assert back == pytest.approx(PUBLISHED, abs=1e-3)
    assert result.effects[0].kept == pytest.approx(0.209, abs=1e-3)


def test_of_equal_errors_it_is_the_closed_form_of_james_and_stein() -> None:
    y = np.random.default_rng(1).normal(0.02, 0.03, 25)
    error = 0.015
    result = shrink(y, [error] * 25)
    assert result is not None
    kept = 1 - (25 - 3) * error**2 / np.sum((y - y.mean()) ** 2)
    expected = y.mean() + kept * (y - y.mean())
    assert [effect.value for effect in result.effects] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_spread_and_mean_are_those_of_statsmodels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    errors = rng.uniform(0.005, 0.04, 20)
    y = rng.normal(0.01, 0.03, 20) + rng.normal(0.0, errors)
    own, other = shrink(y, errors), combine_effects(y, errors**2, method_re="iterated")
    assert own is not None
    assert own.spread**2 == pytest.approx(other.tau2, rel=1e-5)
    weights = 1.0 / (errors**2 + own.spread**2)
    assert weights @ (y - own.mean) ** 2 == pytest.approx(19, rel=1e-9), "Paule and Mandel's"
    assert own.mean == pytest.approx(other.mean_effect_re, rel=1e-6)


def by_quadrature(y: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each true effect, all of Bayes: flat priors for the mean and
    the spread (Gelman et al., Bayesian Data Analysis, 5.4)."""
    v = errors**2
    spreads = np.linspace(1e-6, 10 * np.std(y), 4_000)[:, None]
    weights = 1.0 / (v + spreads**2)
    mean = (weights @ y)[:, None] / weights.sum(1, keepdims=True)
    variance = 1.0 / weights.sum(1, keepdims=True)
    log = 0.5 * np.log(variance[:, 0]) + 0.5 * np.log(weights).sum(1)
    log -= 0.5 * (weights * (y - mean) ** 2).sum(1)
    p = np.exp(log - log.max())[:, None]
    p /= p.sum()
    kept = spreads**2 * weights
    middle = mean + kept * (y - mean)
    own = kept * v + (1 - kept) ** 2 * variance
    total = (p * middle).sum(0)
    return total, np.sqrt((p * (own + middle**2)).sum(0) - total**2)


def test_it_is_near_to_all_of_bayes() -> None:
    rng = np.random.default_rng(7)
    errors = rng.uniform(0.01, 0.03, 40)
    y = rng.normal(0.01, 0.02, 40) + rng.normal(0.0, errors)
    result = shrink(y, errors)
    assert result is not None
    middles, deviations = by_quadrature(y, errors)
    own = np.array([effect.value for effect in result.effects])
    half = np.array([effect.high - effect.value for effect in result.effects]) / stats.norm.isf(
        0.025
    )
    assert np.abs(own - middles).max() < 0.2 * errors.min()
    assert half == pytest.approx(deviations, rel=0.1)


@pytest.mark.parametrize(("many", "left"), [(12, 0.25), (40, 0.1)])
def test_what_was_picked_because_it_looked_best_is_hardly_flattered(many: int, left: float) -> None:
    flattered, believed, covered, raw = [], [], [], []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        errors = rng.uniform(0.01, 0.03, many)
        truth = rng.normal(0.005, 0.015, many)
        y = truth + rng.normal(0.0, errors)
        result = shrink(y, errors)
        assert result is not None
        best = int(np.argmax(y))
        chosen = result.effects[best]
        flattered.append(y[best] - truth[best])
        believed.append(chosen.value - truth[best])
        covered.append(chosen.low <= truth[best] <= chosen.high)
        raw.append(abs(y[best] - truth[best]) <= 1.96 * errors[best])
    assert np.mean(flattered) > 0.015
    assert abs(np.mean(believed)) < left * np.mean(flattered)
    assert np.mean(covered) >= 0.94 > 0.85 > np.mean(raw)


EFFECTS = st.lists(
    st.tuples(st.floats(-0.5, 0.5), st.floats(0.001, 0.2)), min_size=FEWEST, max_size=12
)


@given(EFFECTS, st.floats(-1.0, 1.0), st.floats(0.1, 10.0))
def test_units_and_zero_do_not_matter_and_nothing_is_drawn_beyond_the_mean(
    lines: list[tuple[float, float]], shift: float, scale: float
) -> None:
    y, errors = (list(column) for column in zip(*lines, strict=True))
    first = shrink(y, errors)
    other = shrink([scale * (x + shift) for x in y], [scale * e for e in errors])
    assert first is not None
    assert other is not None
    assert other.mean == pytest.approx(scale * (first.mean + shift), abs=1e-5 * scale)
    for one, two, x in zip(first.effects, other.effects, y, strict=True):
        assert two.value == pytest.approx(scale * (one.value + shift), abs=1e-5 * scale)
        assert 0.0 <= one.kept <= 1.0
        assert min(x, first.mean) - 1e-9 <= one.value <= max(x, first.mean) + 1e-9
        assert one.low < one.value < one.high


def test_of_three_nobody_can_tell_spread_from_chance() -> None:
    assert shrink([0.1, 0.2, 0.3], [0.1, 0.1, 0.1]) is None
