"""Boundaries that hold while one looks: what they promise, and what they cost."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from topbill.stats.sequential import (
    always_valid_p,
    boundaries,
    log_e_value,
    multiplier,
    repeated_p,
)


def test_the_p_value_is_below_alpha_exactly_when_the_interval_leaves_zero_out() -> None:
    for n in (10, 500, 5_000, 1_000_000):
        reach = float(multiplier(n))
        assert always_valid_p(reach * 1.000001, n) < 0.05 < always_valid_p(reach * 0.999999, n)


def test_a_sequence_is_wider_than_a_fixed_look_and_tightest_near_its_tuning() -> None:
    n = np.array([50, 500, 5_000, 50_000, 5_000_000])
    reach = multiplier(n, tuning=5_000)
    assert np.all(reach > stats.norm.isf(0.025))
    assert reach.argmin() == 2


def test_a_smaller_alpha_reaches_further() -> None:
    assert multiplier(1_000, 0.01) > multiplier(1_000, 0.05) > multiplier(1_000, 0.2)


def test_the_e_value_is_one_before_any_evidence() -> None:
    assert log_e_value(0.0, 1e-9) == pytest.approx(0.0)


def test_one_look_with_all_the_error_is_the_ordinary_test() -> None:
    assert boundaries([1.0])[0] == pytest.approx(stats.norm.isf(0.025))
    assert repeated_p(2.5, [1.0]) == pytest.approx(2 * stats.norm.sf(2.5), rel=1e-6)


def test_boundaries_spend_what_the_spending_function_releases() -> None:
    fractions = [0.3, 0.6, 1.0]
    bounds = boundaries(fractions, 0.05, "quadratic")
    covariance = [[min(a, b) / np.sqrt(a * b) for a in fractions] for b in fractions]
    for k, spent in ((2, 0.05 * 0.36), (3, 0.05)):
        stays = stats.multivariate_normal(cov=np.array(covariance)[:k, :k]).cdf(
            bounds[:k], lower_limit=-bounds[:k]
        )
        assert 1.0 - stays == pytest.approx(spent, abs=2e-5)


def test_early_looks_ask_for_more_and_the_last_for_little_more_than_a_fixed_test() -> None:
    bounds = boundaries([0.2, 0.4, 0.6, 0.8, 1.0])
    assert np.all(np.diff(bounds) < 0.0)
    assert bounds[0] > 4.8
    assert 1.96 < bounds[-1] < 2.05


def test_the_repeated_p_value_crosses_alpha_at_the_boundary() -> None:
    looks = [0.25, 0.5, 0.75]
    edge = float(boundaries(looks)[-1])
    assert repeated_p(edge + 1e-4, looks) < 0.05 < repeated_p(edge - 1e-4, looks)
    assert repeated_p(0.0, looks) == 1.0
    assert repeated_p(40.0, looks) <= 1e-12


@pytest.mark.parametrize("wrong", [[], [0.0, 1.0], [0.5, 0.4], [0.5, 1.2]])
def test_information_fractions_must_increase_within_one(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="increase within"):
        boundaries(wrong)
