"""Numbers that stay right when the data is not as the textbook has it, each beside the right value:
a closed form, or what somebody who knows computes by hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from topbill import ab
from topbill.ab import REASONS, Mean, compare


def design(*metrics: ab.MetricDesign, **parts: Any) -> ab.Design:
    """Two variants c and t, half each, with c the control."""
    return ab.Design(key="k", control="c", shares={"c": 0.5, "t": 0.5}, metrics=metrics, **parts)


# --- A covariate that is not there for all alike


def past_and_outcome(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Units whose outcome follows their past and nothing else; and rows, of which those with much
    of a past have more."""
    rng = np.random.default_rng(seed)
    n = 1_500
    past = rng.gamma(2.0, 5.0, n)
    units = pd.DataFrame(
        {
            "u": np.arange(n),
            "arm": rng.choice(["c", "t"], n),
            "past": past,
            "y": past + rng.normal(0.0, 3.0, n),
        }
    )
    return units, units.loc[np.repeat(np.arange(n), 1 + rng.poisson(past / 5.0))]


def adjusted(rows: pd.DataFrame) -> Any:
    """The effect on y per unit, with `past` as covariate."""
    return compare(
        rows,
        unit="u",
        variant="arm",
        control="c",
        metrics={"y": Mean("y", per="unit")},
        covariates={"y": "past"},
        method="fixed",
    ).iloc[0]


@pytest.mark.parametrize("seed", range(3))
def test_a_covariate_that_one_variant_alone_sends_adjusts_nothing(seed: int) -> None:
    _, rows = past_and_outcome(seed)
    plain = compare(
        rows,
        unit="u",
        variant="arm",
        control="c",
        metrics={"y": Mean("y", per="unit")},
        method="fixed",
    ).iloc[0]
    effect = adjusted(rows.assign(past=rows.past.where(rows.arm == "t")))
    assert effect.reason == "covariate_missing"
    assert effect.difference == pytest.approx(plain.difference, rel=1e-12)
    assert effect.se == pytest.approx(plain.se, rel=1e-12)


def test_coverage_is_tested_by_pearsons_chi_square() -> None:
    # 11.9% against 17.3% of 500 each: chi-square p = 0.016; of 1,000 each, p = 0.0006.
    for n, differs in ((500, False), (1_000, True)):
        rng = np.random.default_rng(1)
        arm = np.repeat(["c", "t"], n)
        covered = np.concatenate([np.arange(n) < 0.119 * n, np.arange(n) < 0.173 * n])
        y = rng.normal(9.0, 1.0, 2 * n)
        frame = pd.DataFrame({"u": np.arange(2 * n), "arm": arm, "y": y})
        frame["past"] = np.where(covered, y + rng.normal(size=2 * n), np.nan)
        assert (adjusted(frame).reason == "covariate_missing") == differs


@pytest.mark.parametrize("seed", range(3))
def test_a_missing_covariate_counts_as_the_mean_over_units(seed: int) -> None:
    units, rows = past_and_outcome(seed)
    absent = np.random.default_rng(99).random(len(units)) < 0.4
    units["past"] = units.past.mask(absent)
    rows = rows.assign(past=rows.past.where(~absent[rows.u]))
    # The regression by hand, on units: a missing past is the mean of those there are.
    x = (units.past - units.past.mean()).fillna(0.0)
    arms = [units.arm == name for name in ("t", "c")]
    between = sum(((x - x[a].mean()) * (units.y - units.y[a].mean()))[a].sum() for a in arms)
    theta = between / sum(((x - x[a].mean()) ** 2)[a].sum() for a in arms)
    means = [(units.y - theta * x)[a].mean() for a in arms]
    effect = adjusted(rows)
    assert effect.reason == ""
    assert effect.difference == pytest.approx(means[0] - means[1], abs=0.02)


def test_the_analysis_says_that_a_covariate_is_missing_and_segments_do_not_adjust_either() -> None:
    _, rows = past_and_outcome(0)
    rows = rows.assign(unit=rows.u, variant=rows.arm, device="tv")
    rows["past"] = rows.past.where(rows.arm == "t")
    parts: dict[str, Any] = {"day": None, "segments": ["device"], "method": "fixed"}
    of_y = design(ab.MetricDesign(name="y", weight=1.0))
    plain = ab.analyse(rows, of_y, **parts)
    result = ab.analyse(rows, of_y, covariates={"y": "past"}, **parts)
    assert any(REASONS["covariate_missing"] in note for note in result.notes)
    assert result.comparisons[0].variance_saved is None
    assert result.heterogeneity[0].effects == plain.heterogeneity[0].effects
