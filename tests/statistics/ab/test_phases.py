"""Phases, simulated: shares that change three times while base rates drift make no false calls, and
cost little of the power of one who knows the right analysis.

Worlds are many, so what `analyse` does is done here in a few lines of NumPy; a test holds that it
is the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from topbill import ab
from topbill.domain.records import Floats

SHARES = np.array([[0.34, 0.33, 0.33], [0.2, 0.6, 0.2], [0.34, 0.33, 0.33], [0.6, 0.2, 0.2]])
UNITS = (400, 300, 500, 300)
RATES = np.array([0.15, 0.45, 0.25, 0.6])
"""The base rate of each phase's own days, for all who come then."""
RETURNING = 0.2
"""Of the units that came before, so many come again in each phase."""
NAMES = np.array(["c", "t", "u"])
EFFECT = 0.09

Rows = dict[str, Any]


def world(rng: np.random.Generator, effect: float) -> Rows:
    """Rows of units with places of their own on the line that shares are stretches of."""
    places = rng.random(sum(UNITS))
    columns: dict[str, list[Any]] = {"unit": [], "variant": [], "phase": [], "y": []}
    came = 0
    for number, n in enumerate(UNITS):
        again = np.flatnonzero(rng.random(came) < RETURNING)
        unit = np.concatenate([again, np.arange(came, came + n)])
        came += n
        edges = np.cumsum(SHARES[number])[:-1]
        variant = np.searchsorted(edges, places[unit], side="right")
        # What a viewer sees works on the spot, whatever the variant was before.
        y = rng.random(unit.size) < RATES[number] + effect * (variant == 1)
        columns["unit"].append(unit)
        columns["variant"].append(variant)
        columns["phase"].append(np.full(unit.size, number))
        columns["y"].append(y.astype(float))
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def effects(rows: Rows, values: Floats) -> tuple[Floats, Floats, Floats]:
    """Differences, standard errors and p-values of t and u: each unit in its first variant and
    phase, weighed by precision."""
    units = int(rows["unit"].max()) + 1
    first = np.full(units, -1)
    # Backwards, so that the first row has the last word.
    first[rows["unit"][::-1]] = np.arange(rows["unit"].size)[::-1]
    variant, phase = rows["variant"][first], rows["phase"][first]
    x = np.bincount(rows["unit"], weights=values, minlength=units)
    n = np.bincount(rows["unit"], minlength=units).astype(float)
    differences, variances, degrees = np.zeros(2), np.zeros((2, 2)), np.zeros((2, 2))
    weights = np.zeros(2)
    for number in range(len(UNITS)):
        arms = []
        for label in range(3):
            inside = (variant == label) & (phase == number)
            total, size = n[inside].sum(), inside.sum()
            mean = x[inside].sum() / total
            residual = x[inside] - mean * n[inside]
            arms.append((mean, size / (size - 1) * (residual**2).sum() / total**2, total, size))
        for i in range(2):
            (t, vt, nt, kt), (c, vc, nc, kc) = arms[i + 1], arms[0]
            w = nt * nc / (nt + nc)
            differences[i] += w * (t - c)
            variances[i] += w * w * np.array([vt, vc])
            degrees[i] += np.array([kt, kc])
            weights[i] += w
    differences /= weights
    variances /= weights[:, None] ** 2
    se = np.sqrt(variances.sum(axis=1))
    df = variances.sum(axis=1) ** 2 / (variances**2 / (degrees - 1)).sum(axis=1)
    return differences, se, 2.0 * stats.t.sf(np.abs(differences) / se, df)


def better(differences: Floats, p_values: Floats) -> bool:
    """Whether t is called better, by Holm at 5%."""
    passes = p_values[0] <= 0.025 or (p_values[0] <= 0.05 and p_values[1] <= 0.025)
    return bool(differences[0] > 0.0 and passes)


def test_what_is_simulated_here_is_what_analyse_shows() -> None:
    phases = tuple(
        ab.Phase(shares=dict(zip("ctu", map(float, shares), strict=True)), control="c")
        for shares in SHARES
    )
    design = ab.Design(
        key="k",
        control="c",
        shares=phases[-1].shares,
        metrics=(ab.MetricDesign(name="y", weight=1.0),),
        phases=phases,
    )
    rows = world(np.random.default_rng(1), EFFECT)
    frame = pd.DataFrame(rows).assign(variant=NAMES[rows["variant"]], day=rows["phase"])
    result = ab.analyse(frame, design, phase="phase", method="fixed")
    differences, se, p_values = effects(rows, rows["y"])
    assert not result.sample_ratio.alarm
    for i, c in enumerate(result.comparisons):
        assert c.difference == pytest.approx(differences[i], rel=1e-9)
        assert c.se == pytest.approx(se[i], rel=1e-9)
        assert c.p_value == pytest.approx(p_values[i], rel=1e-6)


@pytest.mark.slow
def test_shares_that_changed_three_times_make_no_false_calls() -> None:
    rng, worlds = np.random.default_rng(2), 2_000
    calls = 0
    for _ in range(worlds):
        rows = world(rng, 0.0)
        _, _, p_values = effects(rows, rows["y"])
        # Either of two variants, by Holm.
        calls += p_values.min() <= 0.025
    assert calls <= stats.binom.isf(0.01, worlds, 0.05)


@pytest.mark.slow
def test_an_effect_is_found_nearly_as_often_as_by_one_who_knows_the_rates() -> None:
    rng, worlds = np.random.default_rng(3), 2_000
    mine = best = 0
    for _ in range(worlds):
        rows = world(rng, EFFECT)
        differences, _, p_values = effects(rows, rows["y"])
        mine += better(differences, p_values)
        # What the days were like, which nobody knows, is no noise to the oracle.
        differences, _, p_values = effects(rows, rows["y"] - RATES[rows["phase"]])
        best += better(differences, p_values)
    assert best > 0.6 * worlds
    assert mine >= 0.9 * best


@pytest.mark.slow
def test_pooled_the_same_worlds_are_called_again_and_again() -> None:
    rng, worlds = np.random.default_rng(4), 200
    calls = 0
    for _ in range(worlds):
        rows = world(rng, 0.0)
        arms = [rows["y"][rows["variant"] == label] for label in range(3)]
        calls += stats.ttest_ind(arms[1], arms[0], equal_var=False).pvalue <= 0.025
    assert calls > 0.25 * worlds


def split_p(counts: Floats) -> float:
    return ab.srm_of_phases(counts, SHARES)


@pytest.mark.slow
def test_the_split_over_phases_keeps_its_level() -> None:
    rng, worlds = np.random.default_rng(5), 2_000
    p_values = []
    for _ in range(worlds):
        counts = [rng.multinomial(n, q) for n, q in zip(UNITS, SHARES, strict=True)]
        p_values.append(split_p(np.array(counts)))
    for level in (0.01, 0.05):
        false_calls = int(np.sum(np.array(p_values) <= level))
        assert false_calls <= stats.binom.isf(0.005, worlds, level)
    assert stats.kstest(p_values, "uniform").pvalue > 1e-4
