"""Several covariates at once, and the true reason where one is no help; metrics whose variation is
tiny beside their size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from topbill import ab
from topbill.ab import Mean, Ratio, Sum, compare
from topbill.domain.errors import BadRequest


def units(seed: int = 0, n: int = 800, effect: float = 0.0) -> pd.DataFrame:
    """Units whose outcome follows two things from before."""
    rng = np.random.default_rng(seed)
    past, visits = rng.gamma(2.0, 5.0, n), rng.poisson(4.0, n).astype(float)
    arm = rng.choice(["c", "t"], n)
    y = past + 2.0 * visits + rng.normal(0.0, 2.0, n) + effect * (arm == "t")
    return pd.DataFrame({"u": np.arange(n), "arm": arm, "y": y, "past": past, "visits": visits})


def effect(rows: Any, covariates: Any, metric: ab.Metric | None = None, **options: Any) -> Any:
    arguments: dict[str, Any] = {"unit": "u", "variant": "arm", "control": "c", "method": "fixed"}
    metrics = {"y": metric or Mean("y")}
    own = {"y": covariates} if covariates else None
    return compare(rows, metrics=metrics, covariates=own, **(arguments | options)).iloc[0]


def by_hand(rows: pd.DataFrame, names: list[str]) -> tuple[float, float]:
    """The difference and standard error of outcomes less what all units' regression on the
    covariates says."""
    x = rows[names] - rows[names].mean()
    slopes = np.linalg.lstsq(
        np.column_stack([np.ones(len(x)), x]), rows["y"].to_numpy(), rcond=None
    )[0][1:]
    rest = rows["y"] - x.to_numpy() @ slopes
    t, c = rest[rows["arm"] == "t"], rest[rows["arm"] == "c"]
    spent = (len(x) - 2) / (len(x) - 1 - len(names))
    return t.mean() - c.mean(), np.sqrt(spent * (t.var() / len(t) + c.var() / len(c)))


@pytest.mark.parametrize("names", [["past"], ["past", "visits"]])
def test_several_are_least_squares_on_all(names: list[str]) -> None:
    rows = units()
    result = effect(rows, names)
    difference, se = by_hand(rows, names)
    assert result.difference == pytest.approx(difference, rel=1e-9)
    assert result.se == pytest.approx(se, rel=1e-9)


def test_each_takes_away_its_part_of_the_variance() -> None:
    rows = units(effect=1.0)
    errors = [effect(rows, names).se for names in (None, "past", ["past", "visits"])]
    assert errors[0] > 1.1 * errors[1] > 1.5 * errors[2]
    assert effect(rows, ["past", "visits"], method="sequential").p_value < 0.05
    # One name in a list is that name.
    assert effect(rows, "past").equals(effect(rows, ["past"]))


def test_covariates_that_say_the_same_count_once() -> None:
    rows = units().assign(again=lambda d: 3.0 * d["past"] + 1.0, constant=5.0)
    one = effect(rows, ["past", "visits"])
    same = effect(rows, ["past", "visits", "again", "constant"])
    assert same.difference == pytest.approx(one.difference, rel=1e-6)
    assert same.se == pytest.approx(one.se, rel=1e-2)


def test_rows_of_units_and_ratios_are_adjusted_too() -> None:
    rows = units()
    events = rows.loc[np.repeat(rows.index, 1 + rows["u"] % 3)].assign(sessions=1.0)
    for metric in (Mean("y"), Mean("y", "unit"), Sum("y"), Ratio("y", "sessions")):
        plain, adjusted = effect(events, None, metric), effect(events, ["past", "visits"], metric)
        assert adjusted.se < plain.se
        assert abs(adjusted.difference - plain.difference) < 4.0 * plain.se


@pytest.mark.parametrize("names", [["past", "visits"], ["past", "visits", "past2"]])
def test_lins_regression_with_several(names: list[str]) -> None:
    rows = units(seed=3).assign(past2=lambda d: d["past"] ** 2)
    result = effect(rows, names, adjust="lin")
    centre = rows[names].mean().to_numpy()
    values, variances = {}, {}
    for arm in ("t", "c"):
        own = rows[rows["arm"] == arm]
        x = np.column_stack([np.ones(len(own)), own[names].to_numpy() - centre])
        slopes, *_ = np.linalg.lstsq(x, own["y"].to_numpy(), rcond=None)
        s2 = np.sum((own["y"] - x @ slopes) ** 2) / (len(own) - x.shape[1])
        values[arm], variances[arm] = slopes[0], s2 * np.linalg.inv(x.T @ x)[0, 0]
    assert result.difference == pytest.approx(values["t"] - values["c"], rel=1e-7)
    assert result.se == pytest.approx(np.sqrt(variances["t"] + variances["c"]), rel=1e-7)


@pytest.mark.slow
def test_false_calls_are_as_many_as_agreed() -> None:
    """400 worlds without an effect, few units and five covariates: at 5%, from 2.3% to 8.3% with
    99.9%."""
    for adjust in ("cuped", "lin"):
        calls = 0
        for seed in range(400):
            rng = np.random.default_rng(seed)
            rows = units(seed, n=40)
            for i in range(3):
                rows[f"x{i}"] = rng.normal(size=40)
            names = ["past", "visits", "x0", "x1", "x2"]
            calls += effect(rows, names, adjust=adjust).p_value <= 0.05
        assert 9 <= calls <= 33


def test_each_ones_coverage_is_compared_between_variants() -> None:
    """Missing of one covariate in t and of the other in c: as many units are without in both."""
    rows = units()
    odd = rows["u"] % 4 == 0
    rows.loc[odd & (rows["arm"] == "t"), "past"] = np.nan
    rows.loc[odd & (rows["arm"] == "c"), "visits"] = np.nan
    result = effect(rows, ["past", "visits"])
    assert result.reason == "covariate_missing"
    assert result.difference == effect(rows, None).difference
    rows = units()
    rows.loc[odd, "past"] = np.nan
    assert effect(rows, ["past", "visits"]).reason == ""


def test_analyse_takes_several() -> None:
    rows = units(effect=0.6)
    design = ab.Design(
        key="k",
        control="c",
        shares={"c": 0.5, "t": 0.5},
        metrics=(ab.MetricDesign(name="y", weight=1.0),),
    )
    options: dict[str, Any] = {"unit": "u", "variant": "arm", "day": None, "method": "fixed"}
    result = ab.analyse(rows, design, covariates={"y": ["past", "visits"]}, **options)
    assert result.comparisons[0].se == pytest.approx(by_hand(rows, ["past", "visits"])[1])
    assert any("what units did before takes away" in note for note in result.notes)
    rows.loc[0, "past"] = np.inf
    result = ab.analyse(rows, design, covariates={"y": ["past", "visits"]}, **options)
    assert "past: 1 of 800 rows have an infinite value, which counts as missing" in result.notes


@pytest.mark.parametrize("names", [[], ["past", "past"]])
def test_none_or_one_twice_is_refused(names: list[str]) -> None:
    with pytest.raises(BadRequest, match=r"covariates\.y"):
        compare(
            units(),
            unit="u",
            variant="arm",
            control="c",
            metrics={"y": Mean("y")},
            covariates={"y": names},
        )


# --- The true reason


@pytest.mark.parametrize("adjust", ["cuped", "lin"])
@pytest.mark.parametrize("copies", [["y"], ["past", "twice"]])
def test_a_covariate_that_is_the_metric_adjusts_nothing(adjust: str, copies: list[str]) -> None:
    rows = units().assign(twice=lambda d: 2.0 * d["y"] - 7.0)
    result = effect(rows, copies, adjust=adjust)
    plain = effect(rows, None)
    assert result.reason == "covariate_is_metric"
    assert (result.difference, result.p_value) == (plain.difference, plain.p_value)


def test_an_infinite_covariate_is_said() -> None:
    rows = units()
    rows.loc[3, "past"] = np.inf
    assert effect(rows, "past").reason == "covariate_infinite"


@pytest.mark.parametrize("offset", [1e9, 1e12])
@pytest.mark.parametrize("rows_a_unit", [1, 2])
@pytest.mark.parametrize("kind", ["sum", "ratio", "mean", "mean of units"])
def test_values_far_from_zero_keep_their_variation(
    offset: float, rows_a_unit: int, kind: str
) -> None:
    rng = np.random.default_rng(5)
    n = 400
    # Eighths, which doubles hold exactly at this size.
    near = np.round(8.0 * rng.normal(0.0, 1.0, n)) / 8.0
    arm = np.where(np.arange(n) % 2 == 0, "c", "t")
    near[arm == "t"] += 0.5
    part = np.round(8.0 * rng.random(n)) * 8.0
    frames = []
    for row in range(rows_a_unit):
        # Of two rows the first has what the second lacks, so that totals alone are alike.
        value = (offset + near + part if row == 0 else -part) if kind == "sum" else offset + near
        frames.append(pd.DataFrame({"u": np.arange(n), "arm": arm, "y": value, "ones": 1.0}))
    if kind == "sum" and rows_a_unit == 1:
        frames[0]["y"] = offset + near
    metrics = {
        "sum": Sum("y"),
        "ratio": Ratio("y", "ones"),
        "mean": Mean("y"),
        "mean of units": Mean("y", "unit"),
    }
    result = effect(pd.concat(frames), None, metrics[kind])
    expected = stats.ttest_ind(near[arm == "t"], near[arm == "c"], equal_var=False)
    difference = near[arm == "t"].mean() - near[arm == "c"].mean()
    assert result.reason == ""
    assert result.difference == pytest.approx(difference, rel=1e-3)
    assert result.p_value == pytest.approx(expected.pvalue, rel=0.05)
