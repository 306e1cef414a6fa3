"""Boundaries that hold while one looks: how often they are crossed without a difference."""

from __future__ import annotations

import numpy as np
import pytest

from topbill.stats.sequential import boundaries, multiplier

pytestmark = pytest.mark.slow


def test_group_sequential_looks_call_a_difference_without_drift_as_often_as_they_may() -> None:
    fractions = np.array([0.2, 0.4, 0.6, 0.8, 1.0])
    steps = np.random.default_rng(0).normal(0.0, np.sqrt(0.2), (200_000, 5))
    z = steps.cumsum(axis=1) / np.sqrt(fractions)
    called = float(np.mean(np.any(np.abs(z) >= boundaries(list(fractions)), axis=1)))
    assert called == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 200_000))


def test_a_confidence_sequence_misses_at_most_alpha_over_five_hundred_looks() -> None:
    walk = np.random.default_rng(1).normal(size=(4_000, 500, 20)).sum(axis=2).cumsum(axis=1)
    n = 20.0 * np.arange(1, 501)
    missed = np.mean(np.any(np.abs(walk / np.sqrt(n)) > multiplier(n, tuning=1_000), axis=1))
    assert missed <= 0.05
