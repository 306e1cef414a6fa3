"""What the statistics promise, simulated: looking every day costs no false calls, p-values are
uniform, CUPED pays.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from topbill.ab import Mean, Proportion, Quantile, Ratio, compare
from topbill.ab.checks import denominators
from topbill.domain.records import Floats
from topbill.stats.sequential import always_valid_p

EXPERIMENTS, LOOKS, A_LOOK = 1_000, 50, 100
"""1,000 A/A experiments, looked at 50 times, 100 units an arm arriving between looks."""

DRAWS = {
    "plays": lambda rng, size: (rng.random(size) < 0.05).astype(float),
    "minutes": lambda rng, size: rng.lognormal(0.0, 1.0, size),
    "normal": lambda rng, size: rng.normal(10.0, 3.0, size),
}


def peeks(draw: str, seed: int, experiments: int = EXPERIMENTS) -> tuple[Floats, Floats]:
    """(z at each look (experiments × looks), units at each look) of A/A experiments."""
    rng = np.random.default_rng(seed)
    data = DRAWS[draw](rng, (2, experiments, LOOKS * A_LOOK))
    total, squares = (
        data.cumsum(axis=2)[..., A_LOOK - 1 :: A_LOOK],
        (data**2).cumsum(axis=2)[..., A_LOOK - 1 :: A_LOOK],
    )
    n = A_LOOK * np.arange(1.0, LOOKS + 1.0)
    mean = total / n
    se = np.sqrt(np.sum((squares / n - mean**2) / (n - 1.0), axis=0))
    return (mean[1] - mean[0]) / np.where(se > 0.0, se, np.inf), 2.0 * n


def test_what_is_simulated_here_is_what_compare_shows() -> None:
    rng = np.random.default_rng(0)
    y = DRAWS["minutes"](rng, (2, 1, LOOKS * A_LOOK))[:, 0]
    arms = np.repeat(["old", "new"], LOOKS * A_LOOK)
    table = compare(
        pd.DataFrame({"arm": arms, "y": y.ravel()}),
        unit=None,
        variant="arm",
        control="old",
        metrics={"y": Mean("y")},
    )
    z, n = peeks("minutes", 0, experiments=1)
    assert table.p_value[0] == pytest.approx(float(always_valid_p(z[0, -1], n[-1])), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("draw", DRAWS)
def test_at_most_five_percent_of_aa_experiments_ever_call_a_difference(draw: str) -> None:
    z, n = peeks(draw, seed=11)
    ever = np.any(always_valid_p(z, n) <= 0.05, axis=1).mean()
    naive = np.any(2.0 * stats.norm.sf(np.abs(z)) <= 0.05, axis=1).mean()
    assert ever <= 0.05
    assert naive > 0.20  # what the same looks would have called without the sequence


def quantile_z(x: Floats, q: float) -> tuple[Floats, Floats]:
    """The q-quantile and its standard error by Woodruff, of sorted values in the last axis."""
    n, z = x.shape[-1], float(stats.norm.isf(0.025))
    s = z * np.sqrt(q * (1.0 - q) / (n - 1.0))
    low, middle, high = (_at(x, share) for share in (q - s, q, q + s))
    return middle, (high - low) / (2.0 * z)


def _at(x: Floats, share: float) -> Floats:
    place = min(max(share, 0.0), 1.0) * (x.shape[-1] - 1)
    below = int(place)
    above = min(below + 1, x.shape[-1] - 1)
    return np.asarray(x[..., below] * (1.0 - place + below) + x[..., above] * (place - below))


def test_the_quantile_that_is_simulated_here_is_what_compare_shows() -> None:
    y = DRAWS["minutes"](np.random.default_rng(0), (2, 500))
    table = compare(
        pd.DataFrame({"arm": np.repeat(["old", "new"], 500), "y": y.ravel()}),
        unit=None,
        variant="arm",
        control="old",
        metrics={"y": Quantile("y", 0.9)},
    )
    value, se = quantile_z(np.sort(y), 0.9)
    assert table.difference[0] == pytest.approx(value[1] - value[0], rel=1e-9)
    assert table.se[0] == pytest.approx(
        np.hypot(*se), rel=0.03
    )  # the share at or below is counted, not taken for q


@pytest.mark.slow
@pytest.mark.parametrize("q", [0.5, 0.9])
def test_at_most_five_percent_of_aa_experiments_ever_call_a_difference_of_quantiles(
    q: float,
) -> None:
    data = DRAWS["minutes"](np.random.default_rng(16), (2, 500, LOOKS * A_LOOK))
    ever = np.zeros(500, dtype=bool)
    for n in range(A_LOOK, LOOKS * A_LOOK + 1, A_LOOK):
        value, se = quantile_z(np.sort(data[..., :n]), q)
        ever |= always_valid_p((value[1] - value[0]) / np.hypot(*se), 2.0 * n) <= 0.05
    assert 0.0 < ever.mean() <= 0.05


@pytest.mark.slow
def test_p_values_of_aa_experiments_are_uniform_at_a_single_look() -> None:
    rng = np.random.default_rng(12)
    units, rows = 800, 3
    unit = np.repeat(np.arange(units), rows)
    seen = []
    for _ in range(EXPERIMENTS // 100):  # a hundred experiments are a hundred columns of one table
        own = rng.gamma(2.0, 1.0, (100, units))
        y = own[:, unit] + rng.normal(0.0, 1.0, (100, units * rows))
        d = 1.0 + rng.poisson(1.0, (100, units * rows))
        frame = {"unit": unit, "arm": np.where(unit % 2, "new", "old")}
        frame |= {f"y{i}": y[i] for i in range(100)} | {f"d{i}": d[i] for i in range(100)}
        metrics = {f"mean{i}": Mean(f"y{i}") for i in range(100)}
        metrics |= {f"ratio{i}": Ratio(f"y{i}", f"d{i}") for i in range(100)}
        table = compare(
            pd.DataFrame(frame),
            unit="unit",
            variant="arm",
            control="old",
            metrics=metrics,
            method="fixed",
        )
        seen.append(table.p_value.astype(float).to_numpy().reshape(2, 100))
    for all_p in np.hstack(seen):
        p = all_p[~np.isnan(all_p)]
        # Where the rows that a ratio is over differ by chance, it is withheld.
        assert EXPERIMENTS - p.size <= stats.binom.ppf(0.999, EXPERIMENTS, denominators.ALPHA)
        # A sound test fails this in one of a thousand seeds; the seed is fixed.
        assert stats.kstest(p, "uniform").pvalue > 0.001


@pytest.mark.slow
@pytest.mark.parametrize(
    "metric", [Quantile("y", 0.5), Quantile("y", 0.9), Quantile("y", 0.5, per="unit")]
)
def test_intervals_of_quantiles_cover_with_clustered_events(metric: Quantile) -> None:
    rng = np.random.default_rng(13)
    unit = np.repeat(np.arange(600), 4)
    arms = np.where(unit % 2, "new", "old")
    inside = 0
    for _ in range(200):
        y = rng.gamma(2.0, 1.0, 600)[unit] + rng.gamma(2.0, 1.0, unit.size)
        frame = pd.DataFrame({"unit": unit, "arm": arms, "y": y})
        row = compare(
            frame, unit="unit", variant="arm", control="old", metrics={"q": metric}, method="fixed"
        ).iloc[0]
        inside += row.difference_low <= 0.0 <= row.difference_high
    # Binomial(200, 0.95): mean 190, four standard deviations are 12.
    assert 178 <= inside < 200  # not so wide as to hold everything


@pytest.mark.slow
def test_fixed_intervals_of_the_lift_cover_the_true_lift() -> None:
    rng = np.random.default_rng(14)
    inside = 0
    for _ in range(20):  # fifty experiments a table
        old, new = rng.random((50, 400)) < 0.10, rng.random((50, 400)) < 0.13
        frame = {"arm": np.repeat(["old", "new"], 400)} | {
            f"y{i}": np.append(old[i], new[i]) for i in range(50)
        }
        table = compare(
            pd.DataFrame(frame),
            unit=None,
            variant="arm",
            control="old",
            metrics={f"y{i}": Proportion(f"y{i}") for i in range(50)},
            method="fixed",
        )
        inside += int(np.sum((table.relative_low <= 0.3) & (table.relative_high >= 0.3)))
    # Binomial(1000, 0.95) has a standard deviation of 6.9; the band is four of them.
    assert 922 <= inside <= 978


def units_to_decide(
    lift: float, correlation: float, seed: int, experiments: int = 200
) -> tuple[Floats, Floats]:
    """Units (both arms) at which the sequence first leaves zero out, without and with CUPED."""
    rng = np.random.default_rng(seed)
    looks, each = 200, 100
    n = looks * each
    decided = []
    x = rng.normal(0.0, 1.0, (2, experiments, n))
    y = 10.0 + 5.0 * (
        correlation * x + np.sqrt(1.0 - correlation**2) * rng.normal(0.0, 1.0, x.shape)
    )
    y[1] += 10.0 * lift
    theta = 5.0 * correlation  # its own estimate converges within the first look
    for values in (y, y - theta * x):
        s, q = (
            values.cumsum(axis=2)[..., each - 1 :: each],
            (values**2).cumsum(axis=2)[..., each - 1 :: each],
        )
        m = each * np.arange(1.0, looks + 1.0)
        z = (s[1] - s[0]) / m / np.sqrt(np.sum((q / m - (s / m) ** 2) / (m - 1.0), axis=0))
        called = always_valid_p(z, 2.0 * m) <= 0.05
        first = np.where(called.any(axis=1), called.argmax(axis=1) + 1, looks)
        decided.append(2.0 * each * first)
    return decided[0], decided[1]


@pytest.mark.slow
def test_cuped_decides_a_true_five_percent_with_fewer_units() -> None:
    plain, adjusted = units_to_decide(0.05, 0.7, seed=15)
    # Half the variance is explained, so about half the units do; the sequence's own price blurs it
    # a little.
    assert np.median(adjusted) < 0.65 * np.median(plain)
