"""Unit sums, buckets, and betting bounds: laws, and agreement with independent, slower
computations.
"""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.stats import intervals


@given(seed=st.integers(0, 10_000), n=st.integers(1, 500), units=st.integers(1, 50))
@settings(max_examples=30)
def test_chunks_cover_every_row_once_and_never_split_a_unit(seed: int, n: int, units: int) -> None:
    import unittest.mock

    codes = np.random.default_rng(seed).integers(0, units, n)
    with unittest.mock.patch.object(intervals, "_CHUNK", 37):
        parts = list(intervals.chunks(codes, n))
    rows = np.concatenate([np.arange(n)[selected] for selected, _ in parts])
    assert sorted(rows.tolist()) == list(range(n))
    seen: set[int] = set()
    for selected, own in parts:
        mine = set(codes[selected].tolist())
        assert not mine & seen
        assert own is not None
        assert own.min() == 0
        seen |= mine


def test_without_units_chunks_are_slices() -> None:
    assert list(intervals.chunks(None, 3)) == [(slice(0, 3), None)]


def test_unit_and_bucket_sums_keep_the_total() -> None:
    rng = np.random.default_rng(0)
    columns, units = rng.normal(size=(3, 1000)), rng.integers(0, 77, 1000)
    by_unit = intervals.by_unit(columns, units)
    assert by_unit.shape == (3, 77)
    np.testing.assert_allclose(by_unit[:, 5], columns[:, units == 5].sum(axis=1))
    buckets = intervals.by_bucket(by_unit)
    assert buckets.shape == (intervals.BUCKETS, 3)
    np.testing.assert_allclose(buckets.sum(axis=0), columns.sum(axis=1))


def test_bootstrap_replicates_have_the_deviation_of_the_mean() -> None:
    x = np.random.default_rng(1).exponential(size=(1, 50_000))
    sums = intervals.bootstrap_weights(4000) @ intervals.by_bucket(
        np.concatenate([x, np.ones_like(x)])
    )
    means = sums[:, 0] / sums[:, 1]
    assert intervals.bootstrap_weights(4000).sum(axis=1) == pytest.approx(intervals.BUCKETS)
    assert means.std() == pytest.approx(x.std() / np.sqrt(x.size), rel=0.06)
    low, high = intervals.percentile(means, 0.05)
    assert [low, high] == pytest.approx(
        list(intervals.normal(x.mean(), x.std() / np.sqrt(x.size), 0.05)), rel=0.003
    )


def slow_lower(x: list[float], alpha: float) -> float:
    """The bet as the paper writes it, one step after the other, and a bisection by halving."""
    n = len(x)

    def capital(m: float) -> float:
        wealth, mean_sum, square_sum, variance = 0.0, 0.5, 0.25, 0.25
        for t, value in enumerate(x, 1):
            bet = (2 * log(1 / alpha) / (n * variance)) ** 0.5
            if m > 0:
                bet = min(bet, 0.75 / m)
            wealth += log(1 + bet * (value - m))
            mean_sum += value
            square_sum += (value - mean_sum / (t + 1)) ** 2
            variance = square_sum / (t + 1)
        return wealth

    low, high = 0.0, sum(x) / n
    if capital(0.0) <= log(1 / alpha):
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if capital(middle) > log(1 / alpha) else (low, middle)
    return low


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.9])
def test_the_betting_bound_is_where_the_capital_reaches_one_over_alpha(rate: float) -> None:
    x = (np.random.default_rng(2).random(400) < rate) * 1.7
    assert intervals.betting_lower(x, np.ones(400), 0.05) == pytest.approx(
        slow_lower(x.tolist(), 0.05), abs=1e-8
    )


@given(seed=st.integers(0, 1000), n=st.integers(1, 300), rate=st.floats(0, 1))
@settings(max_examples=40)
def test_betting_bounds_surround_the_sample_mean_and_widen_with_confidence(
    seed: int, n: int, rate: float
) -> None:
    x = (np.random.default_rng(seed).random(n) < rate).astype(float)
    ones = np.ones(n)
    # What is bet depends on the level, so that bounds of two levels are nested but for a little.
    little = 0.01
    for anytime in (False, True):
        low, lower = (intervals.betting_lower(x, ones, a, anytime=anytime) for a in (0.05, 0.01))
        high, higher = (
            intervals.betting_upper(x, ones, 1.0, a, anytime=anytime) for a in (0.05, 0.01)
        )
        assert 0 <= lower <= low + little
        assert low <= x.mean() + 1e-9
        assert x.mean() <= high + 1e-9
        assert high <= higher + little
        assert higher <= 1 + 1e-9


def test_a_bound_of_all_prefixes_is_wider_than_that_of_one_moment() -> None:
    x = (np.random.default_rng(3).random(5000) < 0.1).astype(float)
    ones = np.ones(5000)
    assert intervals.betting_lower(x, ones, 0.05, anytime=True) < intervals.betting_lower(
        x, ones, 0.05
    )


def test_units_of_several_rows_bet_as_one() -> None:
    """The same visits, once as rows and once grouped by viewer, give bounds for the same mean."""
    rng = np.random.default_rng(4)
    counts = rng.integers(1, 4, 3000).astype(float)
    gains = rng.binomial(counts.astype(int), 0.2).astype(float)
    low = intervals.betting_lower(gains, counts, 0.05)
    assert 0.15 < low < 0.2
    assert intervals.betting_lower(np.zeros(5), np.ones(5), 0.05) == 0.0


def test_the_asymptotic_sequence_is_wider_than_the_normal_interval() -> None:
    for units in (100, 10_000, 1_000_000):
        low, high = intervals.asymptotic_sequence(1.0, 0.1, units, 0.05)
        inner = intervals.normal(1.0, 0.1, 0.05)
        assert low < inner[0] < inner[1] < high
