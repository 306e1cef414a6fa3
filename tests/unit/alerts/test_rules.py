"""Faults in simulated records are told within two windows, once, with their cause; sound ones raise
nothing.
"""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.alarms import FAULTS, Fault, Stream, alarms, fault_is_found, raised
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain.alarm import KINDS
from topbill.domain.reasons import CAUSES
from topbill.stats.bennett import log_e_of_draws

QUICK = [next(fault for fault in FAULTS if fault.kind == kind) for kind in KINDS]
"""A fault of each kind."""


@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: fault.name)
def test_a_fault_is_told_within_two_windows_once_with_its_cause(fault: Fault) -> None:
    assert fault_is_found(fault, 2, begins=86, lasts=6) == ""


def test_there_are_faults_of_every_kind_and_cause() -> None:
    # What rewards that stopped do to a policy is told with the rewards.
    assert CAUSES.keys() - {fault.cause for fault in FAULTS} == {"rewards_silent", "units_added"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_is(fault: Fault, seed: int) -> None:
    assert fault_is_found(fault, seed) == ""


def test_a_sound_stream_raises_nothing_for_days() -> None:
    assert raised(alarms(Stream(3, traffic=8_000.0), 100)) == []


@pytest.mark.slow
def test_sound_months_raise_next_to_nothing() -> None:
    told = []
    for seed in range(100):
        stream = Stream(seed, traffic=(300.0, 1_000.0, 2_000.0, 8_000.0)[seed % 4])
        told += raised(alarms(stream, 24 * 30))
    assert len(told) <= 1


def test_a_fault_that_ends_is_resolved_once_and_not_raised_anew() -> None:
    fault = FAULTS[17]
    lines = alarms(Stream(2, traffic=4_000.0), 100, 86, fault, ends=90)
    assert [(line.kind, line.state) for _, line in lines] == [
        ("feature_drift", "raised"),
        ("feature_drift", "resolved"),
    ]


def test_the_bets_on_draws_are_fair() -> None:
    """Of draws with the probabilities that are said, the mean of the e-value is 1 at most."""
    random = np.random.default_rng(5)
    for p in (0.001, 0.05, 0.5, 0.97):
        drawn = random.binomial(200, p, size=20_000)
        e = np.exp(log_e_of_draws(drawn - 200 * p, np.full(drawn.shape, 200 * p * (1 - p))))
        assert e.mean() <= 1.1


@given(
    gap=st.floats(-500, 500),
    variance=st.floats(0, 1e5),
    more=st.floats(0, 100),
)
def test_evidence_grows_with_the_gap_and_not_with_the_variance(
    gap: float, variance: float, more: float
) -> None:
    here = log_e_of_draws(gap, variance)
    assert np.isfinite(here)
    assert log_e_of_draws(gap, variance + more) <= here + 1e-9
    assert abs(log_e_of_draws(-gap, variance) - here) < 1e-9
    assert log_e_of_draws(gap + np.copysign(more, gap), variance) >= here - 1e-9
