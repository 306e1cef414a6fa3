"""`compare`: what goes in, what comes out, and that weak data gives reasons rather than numbers or
errors.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill import lake
from topbill.ab import REASONS, Mean, Proportion, Quantile, Ratio, Sum, compare
from topbill.ab.core.effect import METHODS, ArmEstimate, fieller
from topbill.domain.errors import BadData, BadRequest

COLUMNS = [
    *(
        "metric",
        "variant",
        "value",
        "control_value",
        "difference",
        "difference_low",
        "difference_high",
    ),
    *("relative", "relative_low", "relative_high", "se", "p_value", "n", "reason"),
]
EVERY = {
    "mean": Mean("y"),
    "of units": Mean("y", per="unit"),
    "share": Proportion("won"),
    "any": Proportion("won", per="unit"),
    "sum": Sum("y"),
    "ratio": Ratio("y", "d"),
    "median": Quantile("y"),
    "median of units": Quantile("y", per="unit"),
}


def rows(units: int = 60, per_unit: int = 1, seed: int = 0, **columns: Any) -> pd.DataFrame:
    """Units alternate between variant "new" and control "old"; y is about 5, won 0/1, d 1."""
    rng = np.random.default_rng(seed)
    n = units * per_unit
    unit = np.repeat(np.arange(units), per_unit)
    table = pd.DataFrame(
        {
            "unit": unit,
            "arm": np.where(unit % 2 == 0, "new", "old"),
            "y": rng.normal(5.0, 1.0, units)[unit] + rng.normal(0.0, 0.2, n),
            "won": rng.integers(0, 2, n),
            "d": 1.0,
        }
    )
    return table.assign(**columns)


def run(data: Any, metrics: Any = None, **arguments: Any) -> pd.DataFrame:
    given_ = {
        "unit": "unit",
        "variant": "arm",
        "control": "old",
        "metrics": metrics or {"m": Mean("y")},
    }
    table = compare(data, **{**given_, **arguments})
    for record in table.to_dict("records"):
        assert record["reason"] in REASONS
        assert not any(isinstance(x, float) and not math.isfinite(x) for x in record.values()), (
            record
        )
    return table


def reasons(data: Any, metrics: Any = None, **arguments: Any) -> set[str]:
    shown: tuple[Any, ...] = ("sequential", "bayes")
    return {
        reason
        for method in shown
        for reason in run(data, metrics or EVERY, method=method, **arguments).reason
    }


def test_the_table_has_the_promised_columns_and_a_row_per_metric_and_variant() -> None:
    table = run(rows(600, arm=[["old", "a", "b"][i % 3] for i in range(600)]), EVERY)
    assert list(table.columns) == COLUMNS
    assert list(zip(table.metric, table.variant, strict=True)) == [
        (m, v) for m in EVERY for v in "ab"
    ]
    assert set(table.reason) == {""}


@pytest.mark.parametrize("method", METHODS)
def test_every_interval_holds_its_estimate(method: Any) -> None:
    table = run(rows(400), EVERY, method=method)
    assert np.all(table.difference_low < table.difference)
    assert np.all(table.difference < table.difference_high)
    assert np.all(table.relative_low < table.relative)
    assert np.all(table.relative < table.relative_high)


def test_frames_arrow_tables_and_relations_give_the_same_table() -> None:
    frame = rows(200, 3)
    connection = lake.connect()
    connection.register("unit_rows", frame)
    wanted = run(frame, EVERY)
    for data in (
        pa.Table.from_pandas(frame),
        connection.sql("SELECT * FROM unit_rows WHERE d = 1"),
    ):
        pd.testing.assert_frame_equal(run(data, EVERY), wanted, rtol=1e-9)


def test_many_rows_of_a_unit_are_one_unit() -> None:
    whole = rows(300, 4)
    units = whole.groupby(["unit", "arm"], as_index=False).agg(
        y=("y", "sum"), d=("d", "sum"), won=("won", "max")
    )
    grouped = run(
        whole,
        {"s": Sum("y"), "r": Ratio("y", "d"), "m": Mean("y"), "any": Proportion("won", per="unit")},
    )
    by_hand = run(
        units, {"s": Sum("y"), "r": Ratio("y", "d"), "m": Ratio("y", "d"), "any": Proportion("won")}
    )
    pd.testing.assert_frame_equal(grouped, by_hand, rtol=1e-9)
    assert set(grouped.n) == {150}


@pytest.mark.parametrize("per_unit", [1, 2])
def test_units_are_told_apart_alike_by_numbers_near_each_other_or_far_apart_and_by_text(
    per_unit: int,
) -> None:
    covariates = {"mean": "d", "ratio": "x"}
    near = rows(200, per_unit)
    # Some units have one row only, so that there are fewer rows than numbers between the ends.
    near = near[(near.unit % 3 == 0) | ~near.unit.duplicated()]
    x = np.where(near.unit % 5 == 0, np.nan, near.y + near.unit % 7)
    near = near.assign(unit=3 * near.unit - 100, d=1.0 + near.unit % 4, x=x)
    wanted = run(near, EVERY, covariates=covariates)
    assert set(wanted.n) == {100}
    for unit in (near.unit * 10**12, near.unit.astype(str)):
        table = run(near.assign(unit=unit), EVERY, covariates=covariates)
        pd.testing.assert_frame_equal(table, wanted, rtol=1e-9)


def test_repeating_every_row_does_not_narrow_a_mean() -> None:
    once, twice = rows(200), pd.concat([rows(200)] * 2)
    assert run(twice).se[0] == pytest.approx(run(once).se[0], rel=1e-9)
    assert run(twice, {"q": Quantile("y")}).se[0] == pytest.approx(
        run(once, {"q": Quantile("y")}).se[0], rel=0.2
    )


def test_the_variant_keeps_its_type_and_the_control_may_be_given_as_text() -> None:
    data = rows(arm=[i % 2 for i in range(60)])
    for control in (0, "0", np.int64(0)):
        assert list(run(data, control=control).variant) == [1]


def test_without_a_unit_column_each_row_is_a_unit() -> None:
    assert run(rows(50, 2), unit=None).n[0] == 50


def test_missing_values_are_left_out_of_a_mean_but_the_unit_stays_in_other_metrics() -> None:
    data = rows(100)
    data.loc[data.index[:10], "y"] = np.nan
    table = run(data, {"m": Mean("y"), "w": Proportion("won")}).set_index("metric")
    assert table.value["m"] == pytest.approx(data.y[data.arm == "new"].mean())
    assert (table.n["m"], table.n["w"]) == (45, 50)


def test_a_value_far_from_zero_loses_no_digits() -> None:
    near, far = run(rows(500)), run(rows(500).assign(y=lambda d: d.y + 1e9))
    assert far.difference[0] == pytest.approx(near.difference[0], abs=1e-6)
    assert far.se[0] == pytest.approx(near.se[0], rel=1e-6)


def test_a_covariate_narrows_and_units_without_it_count_as_average() -> None:
    data = rows(400).assign(pre=lambda d: d.y + np.random.default_rng(9).normal(0.0, 0.3, len(d)))
    plain = run(data, EVERY | {"other": Mean("y")}).set_index("metric").se
    covariates = {"mean": "pre", "sum": "pre", "ratio": "pre"}
    adjusted = run(data, EVERY | {"other": Mean("y")}, covariates=covariates).set_index("metric").se
    assert all(adjusted[m] < 0.5 * plain[m] for m in covariates)
    assert adjusted["other"] == plain["other"]
    data.loc[data.index[:100], "pre"] = None
    partly = run(data, covariates={"m": "pre"}).se[0]
    assert adjusted["mean"] < partly < plain["mean"]


def test_lin_adjusts_where_each_unit_has_a_value_and_cuped_elsewhere() -> None:
    data = rows(400).assign(pre=lambda d: d.y + np.random.default_rng(9).normal(0.0, 0.3, len(d)))
    cuped, lin = (run(data, covariates={"m": "pre"}, adjust=a) for a in ("cuped", "lin"))
    assert lin.se[0] != cuped.se[0]
    assert lin.se[0] == pytest.approx(cuped.se[0], rel=0.02)
    data.loc[0, "y"] = None
    cuped, lin = (run(data, covariates={"m": "pre"}, adjust=a) for a in ("cuped", "lin"))
    assert lin.se[0] == cuped.se[0]


def test_strata_take_out_what_differs_between_them() -> None:
    rng = np.random.default_rng(4)
    kind = rng.integers(0, 4, 800)
    data = rows(800).assign(kind=kind, y=lambda d: d.y + 5.0 * kind)
    plain, stratified = run(data), run(data, strata="kind")
    assert stratified.se[0] < 0.5 * plain.se[0]
    assert abs(stratified.difference[0]) < 4 * stratified.se[0]


def test_a_stratum_with_one_arm_only_joins_another() -> None:
    data = rows(100).assign(kind=lambda d: np.where(d.unit == 0, "lone", "rest"))
    table = run(data, strata="kind")
    assert (table.reason[0], table.n[0]) == ("", 50)


def test_the_order_of_rows_does_not_matter() -> None:
    data = rows(200, 3)
    pd.testing.assert_frame_equal(
        run(data, EVERY), run(data.sample(frac=1.0, random_state=1), EVERY), rtol=1e-9
    )


@settings(max_examples=25)
@given(st.floats(0.1, 100.0), st.floats(-50.0, 50.0))
def test_rescaling_scales_the_difference_and_leaves_the_lift_and_p_value(
    scale: float, lift: float
) -> None:
    t, c = ArmEstimate(105.0 + lift, 4.0, 50), ArmEstimate(100.0, 5.0, 60)
    st_, sc = (
        ArmEstimate(t.value * scale, 4.0 * scale**2, 50),
        ArmEstimate(c.value * scale, 5.0 * scale**2, 60),
    )
    assert fieller(st_, sc, 2.0) == pytest.approx(fieller(t, c, 2.0), rel=1e-9)
    low, high = fieller(t, c, 2.0) or (0.0, 0.0)
    assert (low > 0.0 or high < 0.0) == (abs(t.value - c.value) > 2.0 * 3.0)


def test_a_lift_over_a_negative_control_is_positive_when_the_variant_is_higher() -> None:
    table = run(rows(400).assign(y=lambda d: -d.y + 0.5 * (d.arm == "new")))
    assert table.relative[0] == pytest.approx(table.difference[0] / abs(table.control_value[0]))
    assert table.relative_low[0] < table.relative[0] < table.relative_high[0]


# Weak data: a reason, never NaN, never a traceback.


def test_no_rows_at_all_is_no_traffic() -> None:
    assert reasons(rows().iloc[:0]) == {"no_traffic"}
    assert reasons(pd.DataFrame(columns=["unit", "arm", "y", "won", "d"])) == {"no_traffic"}


def test_a_variant_without_units_is_no_traffic() -> None:
    assert reasons(rows(arm="old")) == {"no_traffic"}
    table = run(rows(arm="old"), variants=["old", "new"])
    assert (table.variant[0], table.n[0], table.reason[0]) == ("new", 0, "no_traffic")
    assert table.control_value[0] is not None


def test_a_missing_control_still_shows_the_variant() -> None:
    assert reasons(rows(arm="new")) == {"missing_control"}
    table = run(rows(arm="new"))
    assert table.value[0] == pytest.approx(rows().y.mean())
    assert table.difference[0] is None


def test_one_unit_has_no_uncertainty() -> None:
    assert reasons(rows(2)) == {"too_few_units"}
    assert reasons(rows(2, per_unit=5)) == {"too_few_units"}
    assert run(rows(2)).se[0] is None


def test_a_constant_metric_has_no_uncertainty() -> None:
    for units, per_unit in ((60, 1), (60, 3)):
        found = run(rows(units, per_unit, y=0.1, won=1), EVERY)
        assert set(found.reason) == {"constant_metric", "tied_quantile"}
        assert set(found.p_value) == {None}


def test_an_all_zero_metric_says_so() -> None:
    assert reasons(rows(y=0.0, won=0)) == {"all_zero"}


def test_infinite_values_are_named_and_not_averaged() -> None:
    data = rows(400)
    data.loc[3, "y"] = np.inf
    table = run(data, EVERY).set_index("metric")
    assert set(table.reason.drop(["share", "any"])) == {"infinite_values"}
    assert table.control_value["mean"] is None
    assert table.reason["share"] == ""
    assert set(run(data.assign(y=-data.y), EVERY).reason) == {"infinite_values", ""}


def test_values_too_large_to_square_count_as_infinite() -> None:
    data = rows()
    data.loc[4, "y"] = 1e200
    assert run(data).reason[0] == "infinite_values"


def test_a_metric_without_any_value_says_so() -> None:
    for nothing in (np.nan, None):
        found = run(rows(y=nothing), EVERY).set_index("metric").reason
        assert set(found.drop(["share", "any"])) == {"no_values"}


def test_a_zero_denominator_is_no_value() -> None:
    assert run(rows(d=0.0), {"r": Ratio("y", "d")}).reason[0] == "no_values"


def test_a_control_near_zero_has_a_difference_but_no_lift() -> None:
    table = run(rows(400).assign(y=lambda d: d.y - 5.0 * (d.arm == "old")))
    assert table.reason[0] == "control_near_zero"
    assert table.difference_low[0] > 0.0
    assert table.relative[0] is table.relative_low[0] is None


def test_units_of_two_variants_are_left_out_and_told() -> None:
    data = pd.concat([rows(100, 2), rows(100, 2).iloc[:10].assign(arm="old")])
    table = run(data, EVERY)
    assert set(table.reason) == {"crossover_units"}
    assert set(table.n) == {47}


# Wrong arguments: a named error that says where.


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"method": "bayesian"}, "method"),
        ({"alpha": 0.0}, "alpha"),
        ({"unit": "viewer"}, "data.viewer"),
        ({"metrics": {"m": Mean("z")}}, "data.z"),
        ({"metrics": {"m": "y"}}, "metrics.m"),
        ({"metrics": {"m": Mean("arm")}}, "data.arm"),
        ({"metrics": {"m": Proportion("y")}}, "data.y"),
        ({"covariates": {"other": "d"}}, "covariates.other"),
        ({"metrics": {"m": Quantile("y")}, "covariates": {"m": "d"}}, "covariates.m"),
        ({"adjust": "magic"}, "adjust"),
        ({"looks": (0.5, 0.2)}, "looks"),
        ({"prior": -1.0, "method": "bayes"}, "prior"),
        ({"strata": "country"}, "data.country"),
        ({"strata": ["arm"]}, "data.['arm']"),
        ({"unit": ["u"]}, "data.['u']"),
        ({"metrics": ["y"]}, "metrics"),
        ({"covariates": {"m": 5}}, "covariates.m"),
        ({"covariates": ["d"]}, "covariates"),
        ({"control": ["old"]}, "control"),
        ({"adjust": "lin", "covariates": {"m": "d"}, "metrics": {"m": Ratio("y", "d")}}, "adjust"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], path: str) -> None:
    with pytest.raises(BadRequest) as caught:
        run(rows(), **arguments)
    assert caught.value.path == path


def test_no_metrics_and_other_containers_are_refused() -> None:
    with pytest.raises(BadRequest, match="expected a dict"):
        compare(rows(), unit="unit", variant="arm", control="old", metrics={})
    with pytest.raises(BadRequest, match="got list; expected a pandas or polars frame"):
        run([1, 2, 3])
    with pytest.raises(BadRequest, match="between 0 and 1"):
        Quantile("y", 1.0)


def test_rows_without_a_unit_are_bad_data() -> None:
    with pytest.raises(BadData, match="3 of 60 rows have no unit"):
        run(rows(unit=[None] * 3 + list(range(57))))
