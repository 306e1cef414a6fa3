"""Small data sets of which this or another tool said something wrong in public reports: each with
the number that is right, through the functions that people call.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from topbill import ab
from topbill.ab import Mean, Proportion, Quantile, compare


def of_play(**parts: Any) -> ab.Design:
    metric = ab.MetricDesign(name="play", binary=True, weight=1.0)
    return ab.Design(key="k", control="c", shares={"c": 0.5, "t": 0.5}, metrics=(metric,), **parts)


@pytest.mark.parametrize("seed", range(4))
def test_last_months_minutes_that_one_app_alone_sends_win_nothing(seed: int) -> None:
    """graze-social/personalization 58, PostHog 52255: 20 of 20 such A/A tests were called."""
    rng = np.random.default_rng(seed)
    n = 1_500
    past, arm = rng.gamma(2, 5, n), rng.choice(["c", "t"], n)
    visits = 1 + rng.poisson(past / 5)
    y = past + rng.normal(0, 3, n)
    columns = {"u": np.arange(n), "arm": arm, "y": y, "past": np.where(arm == "t", past, np.nan)}
    rows = pd.DataFrame({name: np.repeat(values, visits) for name, values in columns.items()})
    effect = compare(
        rows, unit="u", variant="arm", control="c", metrics={"y": Mean("y", per="unit")},
        covariates={"y": "past"}, method="fixed",
    ).iloc[0]  # fmt: skip
    units = pd.DataFrame(columns)
    plain = stats.ttest_ind(units.y[arm == "t"], units.y[arm == "c"], equal_var=False)
    assert effect.reason == "covariate_missing"
    assert effect.p_value == pytest.approx(plain.pvalue, rel=1e-6)


def visits_of_heavy_viewers(n: int, device: str) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    """Nobody's chance to play on a visit changes; in t the heavy half comes a second time."""
    rng = np.random.default_rng(3)
    arm, heavy = rng.choice(["c", "t"], n), rng.random(n) < 0.5
    chance = np.where(heavy, 0.6, 0.2)
    first = pd.DataFrame(
        {"unit": np.arange(n), "variant": arm, "device": "tv", "day": 1,
         "play": (rng.random(n) < chance).astype(int)}
    )  # fmt: skip
    again = (arm == "t") & heavy
    played = (rng.random(again.sum()) < chance[again]).astype(int)
    second = pd.DataFrame(
        {"unit": np.arange(n)[again], "variant": "t", "device": device, "day": 2, "play": played}
    )
    return pd.concat([first, second]), arm


def test_a_segment_holds_units_by_their_first_device() -> None:
    """GrowthBook 831: all are first seen on tv, whatever the variant makes them come back on."""
    rows, arm = visits_of_heavy_viewers(6_000, "mobile")
    analysis = ab.analyse(rows, of_play(), segments=["device"])
    counts = {segment.value: segment.counts for segment in analysis.sample_ratio.segments}
    assert counts == {"tv": {"c": int((arm == "c").sum()), "t": int((arm == "t").sum())}}
    ((effect,),) = [h.effects for h in analysis.heterogeneity]
    assert effect.p_adjusted > 0.05
    assert abs(effect.difference) < 0.04


def test_a_rate_that_moves_by_who_comes_how_often_is_no_win() -> None:
    """GrowthBook 1293: per visit t looks 17% better, and plays no more per viewer's visit."""
    rows, _ = visits_of_heavy_viewers(6_000, "tv")
    analysis = ab.analyse(rows, of_play())
    assert not analysis.verdict.safe_to_ship
    (note,) = analysis.notes
    assert "1.5 a unit in t and 1 in c" in note
    assert "per unit" in analysis.verdict.sentence


def test_a_plan_for_five_treatments_is_that_of_holm() -> None:
    """avast/ep-stats 40, bookingcom/powercalculator 22: 4,562 units, where 3,066 were planned."""
    names = ["c", "t1", "t2", "t3", "t4", "t5"]
    design = ab.Design(
        key="k", control="c", shares=dict.fromkeys(names, 1 / 6),
        metrics=(ab.MetricDesign(name="y", weight=1.0),),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {"unit": np.arange(6_000), "variant": rng.choice(names, 6_000),
         "day": rng.integers(1, 8, 6_000), "y": rng.normal(10, 5, 6_000)}
    )  # fmt: skip
    plan = ab.plan(rows, design, relative=[0.05], method="fixed")
    z = stats.norm.isf
    right = 4 * ((z(0.05 / 2 / 5) + z(0.2)) * plan.sd / (0.05 * plan.baseline)) ** 2
    assert round(right) == 4_562
    assert plan.runtimes[0].units == pytest.approx(right, rel=0.01)


def test_five_users_an_arm_are_not_significant_by_one_interval_of_two() -> None:
    """Welch's p is 0.0696, so both intervals hold 0; the lift's was 2.2% to 68.5%."""
    c, t = [10.9, 11.1, 12.8, 6.4, 13.5], [14.5, 13.1, 16.8, 12.4, 13.6]
    rows = pd.DataFrame({"unit": range(10), "variant": ["c"] * 5 + ["t"] * 5, "y": c + t, "day": 1})
    design = ab.Design(
        key="k", control="c", shares={"c": 0.5, "t": 0.5},
        metrics=(ab.MetricDesign(name="y", weight=1.0),),
    )  # fmt: skip
    (effect,) = ab.analyse(rows, design, method="fixed").comparisons
    welch = stats.ttest_ind(t, c, equal_var=False)
    assert effect.p_value == pytest.approx(0.0696, abs=5e-5)
    assert effect.p_value == pytest.approx(welch.pvalue, rel=1e-9)
    low, high = welch.confidence_interval(0.95)
    assert (effect.difference_low, effect.difference_high) == pytest.approx((low, high))
    assert effect.relative_low < 0.0 < effect.relative_high


def test_a_boolean_variant_has_a_median() -> None:
    """PostHog 63344: a bare TypeError."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {"u": range(200), "exposed": np.arange(200) % 2 == 1, "ms": rng.lognormal(4, 1, 200)}
    )
    effect = compare(
        rows, unit="u", variant="exposed", control=False, metrics={"p50": Quantile("ms", 0.5)},
        method="fixed",
    ).iloc[0]  # fmt: skip
    medians = rows.groupby("exposed").ms.median()
    assert effect.difference == pytest.approx(medians[True] - medians[False], abs=1.0)
    assert 0.3 < effect.p_value < 0.8


def test_none_of_fifty_against_all_of_fifty_is_fishers() -> None:
    """ClickHouse 119709, statsmodels 2742: no interval and no p."""
    rows = pd.DataFrame({"u": range(100), "v": ["c"] * 50 + ["t"] * 50, "y": [0] * 50 + [1] * 50})
    effect = compare(
        rows, unit="u", variant="v", control="c", metrics={"y": Proportion("y")}, method="fixed"
    ).iloc[0]
    fisher = stats.fisher_exact([[0, 50], [50, 0]]).pvalue
    assert np.log(effect.p_value) == pytest.approx(np.log(fisher), rel=0.01)
    assert (effect.difference, effect.difference_high) == (1.0, 1.0)
    assert 0.85 < effect.difference_low < 0.95


def test_a_third_of_the_units_seen_in_both_variants_is_said_in_numbers() -> None:
    """PostHog 56659, Eppo's docs 332: 31% were dropped, and "safe to ship"."""
    rng = np.random.default_rng(4)
    n = 16_000
    arm, both = rng.choice(["c", "t"], n), rng.random(n) < 0.31
    play = (rng.random(n) < np.where(arm == "t", 0.46, 0.38)).astype(int)
    rows = pd.DataFrame({"unit": np.arange(n), "variant": arm, "day": 1, "play": play})
    others = rows[both].assign(variant=np.where(arm[both] == "c", "t", "c"))
    analysis = ab.analyse(pd.concat([rows, others]), of_play())
    assert analysis.sample_ratio.mixed == int(both.sum()) == 5_041
    assert analysis.notes == [
        "5,041 of 16,000 units (31.5%) were seen in more than one variant; they were left out"
    ]


class Streamed:
    """A table of another library: all that is known of it is its Arrow stream, as of polars'."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def test_what_gives_an_arrow_stream_is_read() -> None:
    columns = {
        "u": range(6), "v": ["c", "c", "c", "t", "t", "t"], "y": [1.0, 2.0, 3.0, 2.0, 3.0, 4.0]
    }  # fmt: skip
    table = pa.table({name: list(values) for name, values in columns.items()})
    for data in (Streamed(table), table, table.to_batches()[0], table.to_pydict()):
        row = compare(data, unit="u", variant="v", control="c", metrics={"y": Mean("y")}).iloc[0]
        assert (row.difference, row.value, row.n) == (1.0, 3.0, 3)
