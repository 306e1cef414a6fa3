"""Do the intervals hold what they promise? Simulations with known truth; every band is binomial, at
three deviations.

2,000 simulations of a 95% interval have a standard deviation of 0.49 points: 93.5% to 96.5% is the
band.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr

from topbill.ope import OPEN, estimate

pytestmark = pytest.mark.slow

SIMULATIONS = 2_000
K = 5
LOGGING = np.array([0.4, 0.25, 0.15, 0.1, 0.1])
TARGET = np.array([0.1, 0.1, 0.2, 0.25, 0.35])


def world(base: float) -> tuple[np.ndarray, float]:
    """Click rates of K actions around a base rate, and the target's true value."""
    rates = base * np.array([0.6, 0.8, 1.0, 1.2, 1.4])
    return rates, float(TARGET @ rates)


def drawn(
    rng: np.random.Generator, n: int, rates: np.ndarray, taste: np.ndarray | float = 1.0
) -> dict[str, Any]:
    """A log of n decisions with a model that is off; `taste` multiplies the click rates row by
    row.
    """
    a = rng.choice(K, size=n, p=LOGGING)
    model = rates * np.array([1.3, 1.0, 0.8, 1.1, 0.9])
    return {
        "rewards": (rng.random(n) < rates[a] * taste).astype(float),
        "propensities": LOGGING[a],
        "target_propensities": TARGET[a],
        "q_logged": model[a],
        "q_target": np.full(n, float(TARGET @ model)),
    }


def test_normal_intervals_cover_at_five_percent_clicks() -> None:
    rates, truth = world(0.05)
    rng = np.random.default_rng(1)
    names = ("ips", "snips", "dr", "sndr")
    hits = dict.fromkeys(names, 0)
    for _ in range(SIMULATIONS):
        for name, e in estimate(**drawn(rng, 8_000, rates), estimators=names).items():
            assert e.low is not None
            assert e.high is not None
            hits[name] += e.low <= truth <= e.high
    for name in names:
        assert 0.935 <= hits[name] / SIMULATIONS <= 0.965, (name, hits[name] / SIMULATIONS)


def test_intervals_cover_when_a_viewer_comes_again_and_again() -> None:
    """1,500 viewers of five visits each, some of whom like everything: rows depend, units do
    not.
    """
    rates, truth = world(0.05)
    rng = np.random.default_rng(2)
    units = np.repeat(np.arange(1_500), 5)
    clustered = naive = 0
    for _ in range(SIMULATIONS):
        data = drawn(
            rng, units.size, rates, rng.choice([0.0, 4.0], p=[0.75, 0.25], size=1_500)[units]
        )
        by_unit = estimate(**data, units=units, estimators=("snips",))["snips"]
        by_row = estimate(**data, estimators=("snips",))["snips"]
        assert by_unit.low is not None
        assert by_unit.high is not None
        assert by_row.low is not None
        assert by_row.high is not None
        clustered += by_unit.low <= truth <= by_unit.high
        naive += by_row.low <= truth <= by_row.high
    assert 0.935 <= clustered / SIMULATIONS <= 0.965, clustered / SIMULATIONS
    assert naive < clustered


def test_bootstrap_intervals_cover_too() -> None:
    rates, truth = world(0.05)
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(500):
        e = estimate(
            **drawn(rng, 8_000, rates), estimators=("snips",), interval="bootstrap", replicates=400
        )["snips"]
        assert e.low is not None
        assert e.high is not None
        hits += e.low <= truth <= e.high
    assert abs(hits / 500 - 0.95) <= 3 * sqrt(0.95 * 0.05 / 500), hits / 500


@pytest.mark.parametrize("known_bound", [False, True])
def test_betting_intervals_cover_rare_clicks_where_the_normal_one_does_not(
    known_bound: bool,
) -> None:
    rates, truth = world(0.004)
    rng = np.random.default_rng(4)
    bound = float((TARGET / LOGGING).max()) if known_bound else None
    betting = normal = 0
    for _ in range(SIMULATIONS):
        data = drawn(rng, 1_500, rates)
        common = {"estimators": ("ips",), "gates": OPEN}
        e = estimate(**data, **common, interval="betting", max_weight=bound)["ips"]
        if (
            e.reason == "no_rewards"
        ):  # nobody clicked: no number at all, so nothing to be wrong about
            betting += 1
            continue
        assert e.low is not None
        assert e.high is not None
        betting += e.low <= truth <= e.high
        plain = estimate(**data, **common)["ips"]
        assert plain.low is not None
        assert plain.high is not None
        normal += plain.low <= truth <= plain.high
    assert betting / SIMULATIONS >= 0.95
    assert normal / SIMULATIONS < 0.93


@pytest.mark.parametrize("name", ["ips", "snips"])
def test_sequences_hold_at_a_hundred_looks(name: str) -> None:
    """The betting sequence of ips is finite-sample, the asymptotic one of snips starts at 500
    decisions.
    """
    rates, truth = world(0.05)
    rng = np.random.default_rng(5)
    simulations, alarms, naive = 300, 0, 0
    for _ in range(simulations):
        data = drawn(rng, 6_000, rates)
        left = missed = False
        for n in np.linspace(500, 6_000, 100).astype(int):
            seen = {column: values[:n] for column, values in data.items()}
            e = estimate(**seen, estimators=(name,), interval="sequence", gates=OPEN)[name]
            assert e.low is not None
            assert e.high is not None
            assert e.se is not None
            assert e.value is not None
            left = left or not e.low <= truth <= e.high
            missed = missed or abs(e.value - truth) > 1.96 * e.se
        alarms += left
        naive += missed
    assert alarms / simulations <= 0.05
    assert naive / simulations > 0.15  # what looking costs a fixed-time interval


def test_stabilised_weights_cover_on_a_log_that_a_bandit_wrote() -> None:
    """Two equally good arms, Thompson sampling with a shrinking floor, 4,000 rounds: the plain mean
    of an arm is biased down and covers too little; stabilised doubly robust covers as it says and
    is biased about half as much."""
    simulations, batches, size, mean = SIMULATIONS, 200, 20, 0.5
    rng = np.random.default_rng(6)
    n = batches * size
    total, count = np.zeros((simulations, 2)), np.zeros((simulations, 2))
    columns = {name: np.empty((simulations, n)) for name in ("rewards", "p", "e0", "q0", "arm")}
    for b in range(batches):
        now = slice(b * size, (b + 1) * size)
        estimated = total / np.maximum(count, 1)
        width = np.sqrt((mean * (1 - mean) / np.maximum(count, 1)).sum(axis=1))
        floor = 0.2 * (b + 1) ** -0.4 if b else 0.5
        e0 = np.clip(ndtr((estimated[:, 0] - estimated[:, 1]) / width), floor, 1 - floor)
        arm = (rng.random((simulations, size)) >= e0[:, None]).astype(int)
        rewards = (rng.random((simulations, size)) < mean).astype(float)
        columns["rewards"][:, now], columns["arm"][:, now] = rewards, arm
        columns["p"][:, now] = np.where(arm == 0, e0[:, None], 1 - e0[:, None])
        columns["e0"][:, now], columns["q0"][:, now] = e0[:, None], estimated[:, :1]
        for a in (0, 1):
            total[:, a] += (rewards * (arm == a)).sum(axis=1)
            count[:, a] += (arm == a).sum(axis=1)
    stabilised = plain = 0
    errors, plain_errors = [], []
    for s in range(simulations):
        row = {name: column[s] for name, column in columns.items()}
        e = estimate(
            row["rewards"],
            row["p"],
            (row["arm"] == 0).astype(float),
            q_logged=row["q0"],
            q_target=row["q0"],
            weight_moments=1 / row["e0"],
            estimators=("adaptive-dr",),
            gates=OPEN,
        )["adaptive-dr"]
        assert e.value is not None
        assert e.low is not None
        assert e.high is not None
        stabilised += e.low <= mean <= e.high
        errors.append(e.value - mean)
        mine = row["rewards"][row["arm"] == 0]
        half = 1.96 * mine.std(ddof=1) / np.sqrt(mine.size)
        plain += abs(mine.mean() - mean) <= half
        plain_errors.append(mine.mean() - mean)
    bias, plain_bias = float(np.mean(errors)), float(np.mean(plain_errors))
    print(
        f"\nstabilised: covers {stabilised / simulations:.3f}, "
        f"bias {bias:+.4f} of sd {np.std(errors):.4f}"
    )
    print(
        f"plain mean: covers {plain / simulations:.3f}, "
        f"bias {plain_bias:+.4f} of sd {np.std(plain_errors):.4f}"
    )
    assert abs(stabilised / simulations - 0.95) <= 0.015
    assert plain / simulations <= 0.93
    assert plain_bias < -5 * np.std(plain_errors) / sqrt(simulations)
    assert abs(bias) < 0.65 * abs(plain_bias)
