"""Sequences for means in [0, 1] and for quantiles: what they promise, on exact cases and by
simulation.
"""

from __future__ import annotations

from math import inf, log

import numpy as np
import pytest
from scipy import stats

from topbill.domain.records import Floats
from topbill.stats import bounded
from topbill.stats.quantiles import Ordered, equal_quantiles_p, quantile_sequence, ranks


def test_a_sequence_is_within_zero_and_one_mirrors_and_narrows() -> None:
    x = np.random.default_rng(1).beta(1.0, 4.0, 400)
    low, high = bounded.bernstein_sequence(x)
    assert np.all((low >= 0.0) & (high <= 1.0) & (low < high))
    mirror_low, mirror_high = bounded.bernstein_sequence(1.0 - x)
    assert mirror_low == pytest.approx(1.0 - high, abs=1e-9)
    assert mirror_high == pytest.approx(1.0 - low, abs=1e-9)
    assert high[-1] - low[-1] < 0.7 * (high[39] - low[39])
    wide_low, wide_high = bounded.bernstein_sequence(x, alpha=0.01)
    assert np.all((wide_low <= low) & (wide_high >= high))


@pytest.mark.parametrize("name", ["bernstein", "rate"])
def test_all_bounds_of_a_sequence_hold_at_once(name: str) -> None:
    """200 sequences of 300 draws at a rate of 10%: at most 5% ever leave it out, with a binomial
    band of 4 sd above.
    """
    rng, missed = np.random.default_rng(2), 0
    for _ in range(200):
        x = (rng.random(300) < 0.1).astype(np.float64)
        if name == "rate":
            wins = np.cumsum(x).astype(int)
            bounds = np.array(
                [
                    bounded.rate_sequence(int(wins[n - 1]), n, tuning=100.0)
                    for n in (5, 30, 100, 300)
                ]
            )
            low, high = bounds.T
        else:
            low, high = bounded.bernstein_sequence(x)
        missed += bool(np.any(low > 0.1) or np.any(high < 0.1))
    assert missed <= 10 + 4 * 3.1


def test_the_bernstein_bound_uses_the_variance_that_hoeffdings_ignores() -> None:
    x = 0.5 + 0.01 * np.sin(np.arange(1_000.0))
    low, high = bounded.bernstein_sequence(x)
    hoeffding = np.sqrt(np.log(2.0 / 0.05) / 2.0 / x.size)  # at one look alone, which is narrower
    assert high[-1] - low[-1] < hoeffding


@pytest.mark.parametrize(("wins", "n"), [(0, 0), (0, 40), (40, 40), (7, 40), (3, 3)])
def test_a_rate_is_refuted_exactly_outside_of_its_sequence(wins: int, n: int) -> None:
    low, high = bounded.rate_sequence(wins, n, 0.05, tuning=100.0)
    weight = bounded.rate_concentration(100.0, 0.025)
    assert (low == 0.0) == (wins == 0)
    assert (high == 1.0) == (wins == n)
    assert low <= wins / max(n, 1) <= high
    for edge in {low, high} - {0.0, 1.0}:
        assert float(bounded.rate_log_e(wins, n, edge, weight)) == pytest.approx(
            -log(0.05), abs=1e-6
        )


def test_a_quantile_sequence_is_made_of_order_statistics_and_infinite_where_none_is_outside() -> (
    None
):
    x = np.sort(np.random.default_rng(3).lognormal(size=2_000))
    low, high = quantile_sequence(x, 0.5)
    assert low in x
    assert high in x
    assert low < np.median(x) < high
    assert quantile_sequence(x[:3], 0.5) == (-inf, inf)
    least, most = ranks(2_000, 0.5)
    assert (x[least - 1], x[most]) == (low, high)
    assert np.log(quantile_sequence(np.exp(x), 0.5)) == pytest.approx((low, high), rel=1e-12)


def order(x: Floats) -> Ordered:
    return Ordered(np.sort(x), x.size)


def test_the_quantile_test_is_symmetric_and_its_p_value_falls_away_from_the_true_shift() -> None:
    rng = np.random.default_rng(4)
    a, b = order(rng.exponential(size=3_000) + 1.0), order(rng.exponential(size=2_500))
    shifts = np.array([0.0, 0.5, 0.8, 1.0, 1.2, 1.5, 2.0])
    p = [equal_quantiles_p(a, b, 0.5, shift=s) for s in shifts]
    assert p[0] < 1e-6
    assert p[3] > 0.5
    assert p[:4] == sorted(p[:4])
    assert p[3:] == sorted(p[3:], reverse=True)
    back = [equal_quantiles_p(b, a, 0.5, shift=-s) for s in shifts]
    assert back == pytest.approx(p, rel=1e-6)


def test_values_that_are_left_out_as_far_from_the_quantile_change_nothing() -> None:
    rng = np.random.default_rng(5)
    a, b = np.sort(rng.normal(size=4_000)), np.sort(rng.normal(0.1, 1.0, 4_000))
    kept = [Ordered(x[1_000:3_000], x.size, 1_000) for x in (a, b)]
    assert equal_quantiles_p(*kept, 0.5) == pytest.approx(
        equal_quantiles_p(order(a), order(b), 0.5), rel=1e-9
    )


def test_ties_do_not_count_as_evidence() -> None:
    """Two arms of 0/1 values whose medians are both 0 differ in their rates, not in their
    medians.
    """
    rng = np.random.default_rng(6)
    a, b = ((rng.random(5_000) < p).astype(np.float64) for p in (0.1, 0.4))
    assert equal_quantiles_p(order(a), order(b), 0.5) == 1.0
    assert stats.ttest_ind(a, b).pvalue < 1e-9
