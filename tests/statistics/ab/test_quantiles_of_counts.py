"""Quantiles of counts, simulated: where nothing is there at most 5% are called, what is there is
found nearly as often as by one who compares the shares up to one count, and the intervals cover.

By the product's own steps in NumPy, as it asks the database a few queries a quantile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from topbill import ab
from topbill.ab.core.effect import ArmEstimate, Effect, Pair, Rule, checked_rule, effect_of
from topbill.ab.core.quantile import called_no_more_often
from topbill.ab.reasons import TIED_QUANTILE
from topbill.domain.records import Floats

RUNS = 2_000
ALLOWED = int(stats.binom.isf(0.01, RUNS, 0.05))
"""So many false calls of `RUNS` are within the binomial band of 5%."""
Z = float(stats.norm.isf(0.025))
FIXED = checked_rule("fixed", 0.05)

WORLDS = [(0.5, 6.0), (0.5, 20.0), (0.9, 6.0), (0.9, 20.0), (0.9, 60.0)]
"""q, and the mean of the counts."""


# --- The world


def counts(
    rng: np.random.Generator, effect: float, mean: float = 6.0, n: int = 400
) -> dict[str, Any]:
    """Whole numbers on each of a unit's visits, about a level of its own."""
    level = rng.gamma(2.0, mean / 2.0, n)
    variant = rng.integers(0, 2, n)
    unit = np.repeat(np.arange(n), 1 + rng.poisson(1.0, n))
    y = rng.poisson(level[unit] * (1.0 + effect * variant[unit]))
    return {"unit": unit, "variant": variant[unit], "y": y.astype(float)}


def true_difference(q: float, effect: float, mean: float) -> float:
    """Of the mid-quantiles of everybody who could come: such counts are negative binomial."""
    values = np.arange(100.0 * mean)
    quantiles = []
    for scale in (mean / 2.0 * (1.0 + effect), mean / 2.0):
        shares = stats.nbinom.pmf(values, 2, 1.0 / (1.0 + scale))
        quantiles.append(np.interp(q, np.cumsum(shares) - shares / 2.0, values))
    return float(quantiles[0] - quantiles[1])


# --- What the product does


@dataclass
class Steps:
    """An arm's values in order, the shares at which each begins and ends, and whether several units
    have it."""

    values: Floats
    first: Floats
    last: Floats
    tied: Any

    def at(self, q: float) -> float:
        places = np.column_stack([self.first, self.last]).ravel()
        return float(np.interp(q, places, np.repeat(self.values, 2)))

    def neighbours(self, q: float) -> tuple[int, int, float]:
        """The values that the q-quantile is between, and how far it is from the one to the next."""
        i = int(np.searchsorted(self.first, q, side="right")) - 1
        if q <= self.last[i] or i + 1 == self.values.size:
            return i, i, 0.0
        return i, i + 1, (q - self.last[i]) / (self.first[i + 1] - self.last[i])

    def is_tied(self, q: float) -> bool:
        i, j, _ = self.neighbours(q)
        return bool(self.tied[i] or self.tied[j])

    def up_to(self, q: float, y: Floats) -> Floats:
        i, j, weight = self.neighbours(q)
        low, high = self.values[i], self.values[j]
        if i == j or not (self.tied[i] and self.tied[j]):
            return np.asarray(y <= low, dtype=float)
        return (y < low) + (1.0 + weight) / 2.0 * (y == low) + weight / 2.0 * (y == high)


def steps_of(y: Floats, unit: Floats) -> Steps:
    order = np.lexsort((unit, y))
    y, unit = y[order], unit[order]
    start = np.flatnonzero(np.append(True, y[1:] != y[:-1]))
    end = np.append(start[1:], y.size) - 1
    tied = unit[start] != unit[end]
    half = (end - start) / 2.0
    first = start + half * (tied & np.append(False, tied[:-1]))
    last = end - half * (tied & np.append(tied[1:], False))
    return Steps(y[start], first / (y.size - 1), last / (y.size - 1), tied)


def share(inside: Floats, unit: Floats) -> tuple[float, float]:
    """The share of an arm's rows, and its variance by unit."""
    _, index = np.unique(unit, return_inverse=True)
    a, b = np.bincount(index, weights=inside), np.bincount(index)
    value = a.sum() / b.sum()
    residual = a - value * b
    return value, b.size / (b.size - 1) * (residual**2).sum() / b.sum() ** 2


def z_of_shares(rows: Mapping[str, Any], inside: Floats) -> float:
    """Above zero where fewer of t's rows are inside."""
    unit, variant = rows["unit"], rows["variant"]
    (t, vt), (c, vc) = (share(inside[variant == v], unit[variant == v]) for v in (1, 0))
    if vt + vc == 0.0:
        return 0.0 if t == c else float("inf")
    return float((c - t) / np.sqrt(vt + vc))


def arm_estimate(y: Floats, unit: Floats, q: float) -> ArmEstimate:
    steps = steps_of(y, unit)
    reach = Z * np.sqrt(share(steps.up_to(q, y), unit)[1])
    shares = [max(0.0, q - reach), q, min(1.0, q + reach)]
    low, value, high = (steps.at(one) for one in shares)
    variance, n = ((high - low) / (2.0 * Z)) ** 2, np.unique(unit).size
    if not any(steps.is_tied(one) for one in shares):
        return ArmEstimate(value, variance, n)
    below, above = ((value - low) / Z) ** 2, ((high - value) / Z) ** 2
    return ArmEstimate(value, variance, n, below or variance, above or variance)


def quantile_pair(rows: Mapping[str, Any], q: float) -> Pair:
    y, unit, variant = rows["y"], rows["unit"], rows["variant"]
    t, c = (arm_estimate(y[variant == v], unit[variant == v], q) for v in (1, 0))
    if t.is_lopsided or c.is_lopsided:
        inside = steps_of(y, unit).up_to(q, y)
        t, c = called_no_more_often(t, c, z_of_shares(rows, inside))
    # Where no arm has any other value about its quantile, nothing says how far off it is.
    reason = "" if t.variance > 0.0 and c.variance > 0.0 else TIED_QUANTILE
    return Pair(t, c, reason, t.n, c.n)


def effect_in(rows: Mapping[str, Any], q: float, rule: Rule = FIXED) -> Effect:
    return effect_of("y", 1, quantile_pair(rows, q), rule)


def called(effect: Effect) -> int:
    """1 where t is called the larger, −1 where it is called the smaller, else 0."""
    if effect.p_value is None or effect.difference is None or effect.p_value > 0.05:
        return 0
    return 1 if effect.difference > 0.0 else -1


def is_inside(truth: float, effect: Effect) -> bool:
    low, high = effect.difference_low, effect.difference_high
    return low is not None and high is not None and low <= truth <= high


def oracle(rows: Mapping[str, Any], q: float) -> bool:
    """Who knows counts looks at the shares up to the count that is nearest to the quantile of
    both."""
    values, counts = np.unique(rows["y"], return_counts=True)
    at = values[np.argmin(np.abs(np.cumsum(counts) / counts.sum() - q))]
    return z_of_shares(rows, np.asarray(rows["y"] <= at, dtype=float)) > Z


def test_the_quantile_simulated_here_is_the_one_that_compare_shows() -> None:
    columns = ["difference", "difference_low", "difference_high", "se", "p_value", "relative_high"]
    for seed in range(3):
        rows = counts(np.random.default_rng(seed), 0.3)
        metrics = {f"q{q}": ab.Quantile("y", q) for q in (0.1, 0.5, 0.9)}
        table = ab.compare(
            pd.DataFrame(rows),
            unit="unit",
            variant="variant",
            control=0,
            metrics=metrics,
            method="fixed",
        )
        for i, metric in enumerate(metrics.values()):
            effect = effect_in(rows, metric.q)
            for name in columns:
                assert table[name][i] == pytest.approx(getattr(effect, name), rel=1e-6), name


# --- What it promises


@pytest.mark.slow
@pytest.mark.parametrize(("q", "mean"), WORLDS)
def test_quantiles_of_counts_call_little_of_nothing(q: float, mean: float) -> None:
    rng = np.random.default_rng(5)
    calls = sum(called(effect_in(counts(rng, 0.0, mean), q)) != 0 for _ in range(RUNS))
    assert calls <= ALLOWED


@pytest.mark.slow
@pytest.mark.parametrize(("q", "mean"), WORLDS)
def test_a_shift_of_counts_is_found_nearly_as_often_as_by_who_looks_at_shares(
    q: float, mean: float
) -> None:
    rng = np.random.default_rng(5)
    truth = true_difference(q, 0.35, mean)
    wins = best = inside = 0
    for _ in range(RUNS):
        rows = counts(rng, 0.35, mean)
        effect = effect_in(rows, q)
        wins += called(effect) == 1
        inside += is_inside(truth, effect)
        best += oracle(rows, q)
    assert best > 0.5 * RUNS
    assert wins >= 0.9 * best
    assert 0.935 * RUNS <= inside <= 0.985 * RUNS  # not so wide as to hold everything


@pytest.mark.slow
@pytest.mark.parametrize("n", [60, 400, 1_600])
@pytest.mark.parametrize("q", [0.5, 0.9])
def test_few_values_keep_their_level_too(n: int, q: float) -> None:
    # Most are zero, and of few units hardly any has more than one.
    rng = np.random.default_rng(6)
    calls = 0
    for _ in range(RUNS):
        variant, y = rng.integers(0, 2, n), rng.poisson(0.3, n) * 1.0
        calls += called(effect_in({"unit": np.arange(n), "variant": variant, "y": y}, q)) != 0
    assert calls <= ALLOWED


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sequential", "group-sequential"])
def test_quantiles_of_counts_are_seldom_called_however_often_one_looks(
    method: Literal["sequential", "group-sequential"],
) -> None:
    rng = np.random.default_rng(8)
    experiments, fractions = 500, (0.2, 0.4, 0.6, 0.8, 1.0)
    rules = [checked_rule(method, 0.05, 400.0, fractions[: i + 1]) for i in range(5)]
    reaches = [rule.reach(round(400 * f), np.inf) for rule, f in zip(rules, fractions, strict=True)]
    ever = 0
    for _ in range(experiments):
        rows = counts(rng, 0.0)
        z = []
        for fraction in fractions:
            came = rows["unit"] < 400 * fraction
            effect = effect_in({name: column[came] for name, column in rows.items()}, 0.9)
            z.append(abs(effect.difference or 0.0) / (effect.se or np.inf))
        ever += bool(np.any(np.array(z) > reaches))
    assert 0 < ever <= stats.binom.isf(0.01, experiments, 0.05)
