"""Moments merge exactly, and every estimate is a function of them with the standard error of its
definition.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from topbill.domain.records import Floats
from topbill.stats.moments import (
    Moments,
    cuped,
    cuped_theta,
    lin,
    mean,
    product_columns,
    ratio,
)

COLUMNS = ("y", "d", "x")


def sample(n: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    x = rng.normal(10.0, 3.0, n)
    d = 1.0 + rng.poisson(2.0, n)
    return np.column_stack([x + rng.normal(0.0, 1.0, n) * d, d, x])


def same(one: Moments, other: Moments) -> bool:
    return (
        one.n == other.n
        and np.allclose(one.mean, other.mean, rtol=1e-12, atol=1e-12)
        and np.allclose(one.scatter, other.scatter, rtol=1e-9, atol=1e-9)
    )


@settings(max_examples=50)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(0, 1_000))
def test_moments_of_shards_add_up_to_those_of_the_whole_in_any_order(
    sizes: list[int], seed: int
) -> None:
    rows = sample(sum(sizes), seed)
    shards = [Moments.of(COLUMNS, part) for part in np.split(rows, np.cumsum(sizes)[:-1])]
    forwards, backwards = shards[0], shards[-1]
    for shard in shards[1:]:
        forwards = forwards + shard
    for shard in shards[-2::-1]:
        backwards = backwards + shard
    assert same(forwards, Moments.of(COLUMNS, rows))
    assert same(backwards, forwards)


def test_moments_of_other_columns_do_not_add() -> None:
    with pytest.raises(ValueError, match="cannot be added"):
        Moments.of(("a",), np.ones((2, 1))) + Moments.of(("b",), np.ones((2, 1)))


def test_raw_sums_give_the_same_moments_as_rows() -> None:
    rows = sample(500)
    assert same(
        Moments.from_sums(COLUMNS, 500, rows.sum(axis=0), rows.T @ rows), Moments.of(COLUMNS, rows)
    )


def test_a_mean_far_from_zero_keeps_its_variance() -> None:
    rows = sample(1_000) + 1e9
    got = mean("y")(m := Moments.of(COLUMNS, rows)).variance(m)
    assert got == pytest.approx(rows[:, 0].var(ddof=1) / 1_000, rel=1e-9)


def test_the_mean_of_rows_has_the_cluster_robust_standard_error() -> None:
    rng = np.random.default_rng(1)
    sizes = 1 + rng.poisson(3.0, 400)
    units = np.repeat(np.arange(400), sizes)
    y = rng.normal(0.0, 1.0, 400)[units] + rng.normal(0.0, 1.0, units.size)
    by_unit = np.column_stack([np.bincount(units, y), sizes])
    m = Moments.of(("y", "rows"), by_unit)
    estimate = ratio("y", "rows")(m)
    residuals = np.bincount(units, y - y.mean())
    sandwich = float(np.sum(residuals**2)) / units.size**2 * 400 / 399
    assert estimate.value == pytest.approx(y.mean())
    assert estimate.variance(m) == pytest.approx(sandwich, rel=1e-12)
    assert (
        estimate.variance(m) > 1.5 * y.var(ddof=1) / units.size
    )  # rows of a unit are alike, so iid is too narrow


def test_the_delta_method_is_what_resampling_units_gives() -> None:
    rows = sample(2_000, seed=2)
    m = Moments.of(COLUMNS, rows)
    rng = np.random.default_rng(3)
    draws = [
        float(r[:, 0].sum() / r[:, 1].sum())
        for r in (rows[rng.integers(0, 2_000, 2_000)] for _ in range(800))
    ]
    # 800 draws tell a standard deviation to 2.5%; the band is four of those.
    assert ratio("y", "d")(m).variance(m) ** 0.5 == pytest.approx(np.std(draws), rel=0.1)


def test_an_empty_denominator_is_no_number_but_no_error() -> None:
    m = Moments.of(("a", "b"), np.zeros((5, 2)))
    assert ratio("a", "b")(m).value == 0.0
    assert ratio("a", "b")(m).variance(m) == 0.0


def test_one_unit_has_no_variance() -> None:
    m = Moments.of(COLUMNS, sample(1))
    assert mean("y")(m).variance(m) == 0.0


@pytest.mark.parametrize("statistic", [mean("y"), ratio("y", "d")])
def test_cuped_narrows_and_does_not_move_the_difference_in_expectation(statistic: object) -> None:
    plain, adjusted = [], []
    for seed in range(200):
        t, c = (Moments.of(COLUMNS, sample(200, seed=2 * seed + k)) for k in (0, 1))
        merged = t + c
        theta = cuped_theta(merged, statistic, "x")  # type: ignore[arg-type]
        plain.append(statistic(t).value - statistic(c).value)  # type: ignore[operator]
        both = [cuped(m, merged, statistic, "x", theta).value for m in (t, c)]  # type: ignore[arg-type]
        adjusted.append(both[0] - both[1])
    assert np.std(adjusted) < 0.9 * np.std(plain)
    assert abs(np.mean(adjusted)) < 4.0 * np.std(adjusted) / 200**0.5


def test_a_constant_covariate_changes_nothing() -> None:
    rows = sample(100)
    rows[:, 2] = 7.0
    m = Moments.of(COLUMNS, rows)
    assert cuped_theta(m, mean("y"), "x") == 0.0
    assert cuped(m, m, mean("y"), "x", 0.0).value == mean("y")(m).value


def products(n: int, seed: int, slope: float) -> tuple[Moments, Floats]:
    rng = np.random.default_rng(seed)
    x = rng.exponential(2.0, n)
    y = slope * x + rng.normal(0.0, 0.5 + x, n)
    names = ["y", "x", *product_columns("y", "x")]
    return Moments.of(names, np.column_stack([y, x, y * x, x**2, y * x**2, x**3])), np.column_stack(
        [y, x]
    )


def test_hc2_from_moments_is_hc2_from_rows_even_when_noise_grows_with_the_covariate() -> None:
    (t, rows_t), (c, rows_c) = products(400, 5, 1.0), products(500, 6, 2.0)
    found = lin(t, c, "y", "x")
    treated = np.repeat([1.0, 0.0], [400, 500])
    y, x = np.vstack([rows_t, rows_c]).T
    away = x - x.mean()
    Z = np.column_stack([np.ones(900), treated, away, treated * away])
    inverse = np.linalg.inv(Z.T @ Z)
    residual = y - Z @ (inverse @ Z.T @ y)
    leverage = np.einsum("ij,jk,ik->i", Z, inverse, Z)
    meat = Z.T @ (Z * (residual**2 / (1.0 - leverage))[:, None])
    assert found.treated - found.control == pytest.approx((inverse @ Z.T @ y)[1], rel=1e-9)
    assert found.treated_variance + found.control_variance == pytest.approx(
        (inverse @ meat @ inverse)[1, 1], rel=1e-4
    )


@pytest.mark.slow
def test_intervals_of_a_mean_cover_as_often_as_they_say() -> None:
    inside = 0
    for seed in range(2_000):
        m = Moments.of(COLUMNS, sample(300, seed))
        estimate = mean("y")(m)
        inside += abs(estimate.value - 10.0) <= stats.norm.isf(0.025) * estimate.variance(m) ** 0.5
    # Binomial(2000, 0.95) has a standard deviation of 9.7; the band is four of them.
    assert 1_861 <= inside <= 1_939
