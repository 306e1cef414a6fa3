"""Numbers that stay right when the data is not as the textbook has it, each beside the right value:
a closed form, or what somebody who knows computes by hand.
"""

from __future__ import annotations

import math
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from topbill import ab
from topbill.ab import REASONS, Mean, Proportion, Quantile, Ratio, Sum, compare
from topbill.ab.checks.segments import _shrunken
from topbill.ab.core.effect import ArmEstimate, Effect, Rule, fieller
from topbill.ab.core.rates import RatePair, tail_evidence
from topbill.ab.core.units import Rate, resolve
from topbill.domain.errors import BadData, BadRequest


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
    effect, expected = (r.heterogeneity[0].effects[0] for r in (result, plain))
    assert effect.difference == pytest.approx(expected.difference, rel=1e-9)
    assert effect.p_value == pytest.approx(expected.p_value, rel=1e-9)


# --- The first of a unit's rows


def come_back(seed: int, on_day: Any = 2) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All are first seen on tv; in t the heavy half comes back on mobile."""
    g = np.random.default_rng(seed)
    n = 6_000
    arm = g.choice(["c", "t"], n)
    heavy = g.random(n) < 0.5
    play = (g.random(n) < np.where(heavy, 0.6, 0.2)).astype(int)
    first = pd.DataFrame(
        {"unit": np.arange(n), "variant": arm, "device": "tv", "day": 1, "play": play}
    )
    again = first[(arm == "t") & heavy].assign(device="mobile", day=on_day)
    return first, again


PLAY = ab.MetricDesign(name="play", binary=True, weight=1.0)


@pytest.mark.parametrize("order", ["as they came", "the other way round", "one day"])
def test_a_unit_belongs_to_the_segment_of_its_first_row(order: str) -> None:
    first, again = come_back(3, on_day=1 if order == "one day" else 2)
    rows = pd.concat([first, again])
    # By day, whatever the order; within a day, as the rows stand.
    if order == "the other way round":
        rows = rows.iloc[::-1]
    result = ab.analyse(rows, design(PLAY), segments=["device"])
    assert {s.value: sum(s.counts.values()) for s in result.sample_ratio.segments} == {"tv": 6_000}
    assert [e.value for h in result.heterogeneity for e in h.effects] == ["tv"]


def test_strata_that_one_variant_leaves_out_adjust_nothing() -> None:
    """Where the control's app does not say of half its heavy viewers that they are, the rest of its
    stratum is heavier than the variant's: 100 of 100 such A/A tests were called.
    """
    calls = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        n = 3_000
        arm, heavy = rng.choice(["c", "t"], n), rng.random(n) < 0.3
        y = np.where(heavy, 10.0, 1.0) + rng.normal(0.0, 1.0, n)
        plan = np.where(heavy, "pro", "free").astype(object)
        rows = pd.DataFrame({"u": np.arange(n), "arm": arm, "y": y, "plan": plan})
        unsaid = rows.assign(plan=rows.plan.mask((arm == "c") & heavy & (rng.random(n) < 0.5)))
        effect = compare_by(unsaid, "plan")
        plain = stats.ttest_ind(y[arm == "t"], y[arm == "c"], equal_var=False)
        assert effect.reason == "strata_differ"
        assert effect.p_value == pytest.approx(plain.pvalue, rel=1e-6)
        calls += effect.p_value < 0.05
        # What is unsaid in both alike is one more stratum.
        both = compare_by(rows.assign(plan=rows.plan.mask(rng.random(n) < 0.3)), "plan")
        assert both.reason == ""
        assert both.se < effect.se
    assert calls <= 2


def compare_by(rows: pd.DataFrame, strata: str) -> Any:
    return compare(
        rows, unit="u", variant="arm", control="c", metrics={"y": Mean("y")}, strata=strata,
        method="fixed",
    ).iloc[0]  # fmt: skip


def test_a_unit_belongs_to_the_stratum_of_its_first_row_even_where_that_is_nothing() -> None:
    first, again = come_back(4)
    rows = pd.concat([first.assign(device=None), again])
    parts: dict[str, Any] = {
        "unit": "unit",
        "variant": "variant",
        "control": "c",
        "metrics": {"play": Mean("play", per="unit")},
        "method": "fixed",
    }
    plain = compare(rows, **parts)
    for frame, time in ((rows, None), (rows.iloc[::-1], "day")):
        # All units are in one stratum, so nothing is to be stratified by.
        pd.testing.assert_frame_equal(plain, compare(frame, strata="device", time=time, **parts))


# --- Days


def arrivals(times: Any) -> pd.DataFrame:
    """A row a unit, in turn in c and t, at those times; half of them play."""
    n = len(times)
    g = np.random.default_rng(0)
    variants = np.where(np.arange(n) % 2 == 0, "c", "t")
    return pd.DataFrame(
        {"unit": np.arange(n), "variant": variants, "day": times, "play": g.integers(0, 2, n)}
    )


def test_a_day_is_one_that_passed_not_a_date_seen() -> None:
    # 2,400 units in two days and a half, over three dates (or four): 960 a day.
    for start in ("2026-03-01T00:00", "2026-03-01T18:00"):
        times = pd.date_range(start, periods=2_400, freq="90s")
        plan = ab.plan(arrivals(times), design(PLAY))
        assert plan.units_a_day == pytest.approx(960.0, rel=1e-3)
        run = plan.runtimes[0]
        assert run.days == pytest.approx((run.units or 0) / 960.0, rel=1e-3)


def test_dates_without_a_row_are_days_all_the_same() -> None:
    for days in (pd.to_datetime(["2026-03-01", "2026-03-10"]).date, [1, 10]):
        plan = ab.plan(arrivals(np.repeat(np.asarray(days, dtype=object), 500)), design(PLAY))
        assert plan.units_a_day == pytest.approx(100.0)


def test_on_the_first_day_it_is_too_early_to_say_how_long_to_wait() -> None:
    for times in (pd.date_range("2026-03-01T23:59:50", periods=800, freq="50ms"), [1] * 800):
        rows = arrivals(times)
        plan = ab.plan(rows, design(PLAY))
        assert plan.units_a_day is None
        assert all(run.units and run.days is None for run in plan.runtimes)
        assert [least.days for least in plan.detectable] == [0]
        result = ab.analyse(rows, design(PLAY))
        assert result.comparisons[0].days_to_decision is None
        assert "day" not in result.verdict.sentence


def test_moments_with_a_time_zone_are_counted_by_the_days_of_utc() -> None:
    times = pd.date_range("2026-03-01T00:30", periods=48, freq="h", tz="Europe/Berlin")
    days = ab.analyse(arrivals(times), design(PLAY)).sample_ratio.days
    counts = {split.value: sum(split.counts.values()) for split in days}
    assert counts == {"2026-02-28": 1, "2026-03-01": 24, "2026-03-02": 23}


# --- Which direction is good


def halved_purchases() -> pd.DataFrame:
    """t clicks more and buys half as often."""
    g = np.random.default_rng(0)
    n = 20_000
    is_t = np.arange(n) % 2 == 1
    return pd.DataFrame(
        {
            "unit": np.arange(n),
            "variant": np.where(is_t, "t", "c"),
            "day": np.arange(n) // 2_000,
            "click": (g.random(n) < np.where(is_t, 0.4, 0.3)).astype(int),
            "buy": (g.random(n) < np.where(is_t, 0.05, 0.1)).astype(int),
        }
    )


CLICK = ab.MetricDesign(name="click", binary=True, weight=1.0)


def test_a_guardrail_says_which_direction_is_good() -> None:
    with pytest.raises(BadRequest, match=r"design\.metrics\.buy\.better.*'higher' or 'lower'"):
        design(CLICK, ab.MetricDesign(name="buy", binary=True), guardrails={"buy": 0.02})
    of_buy = ab.MetricDesign(name="buy", binary=True, better="higher")
    result = ab.analyse(halved_purchases(), design(CLICK, of_buy, guardrails={"buy": 0.02}))
    assert result.guardrails[0].status == "worse"
    assert not result.verdict.safe_to_ship
    assert result.verdict.sentence.endswith("do not ship.")


@pytest.mark.parametrize(("weight", "status"), [(0.5, "worse"), (-0.5, "not_worse")])
def test_the_weight_says_which_direction_is_good(weight: float, status: str) -> None:
    of_buy = ab.MetricDesign(name="buy", binary=True, weight=weight)
    result = ab.analyse(halved_purchases(), design(CLICK, of_buy, guardrails={"buy": 0.02}))
    assert result.guardrails[0].status == status
    of_buy_row = next(c for c in result.comparisons if c.metric == "buy")
    assert of_buy_row.call == ("worse" if weight > 0.0 else "better")


# --- Units in several variants


def test_units_left_out_are_counted() -> None:
    rows = arrivals([1] * 1_000)
    again = rows[:310].assign(variant=np.where(rows.variant[:310] == "c", "t", "c"))
    result = ab.analyse(pd.concat([rows, again]), design(PLAY))
    assert result.notes == [
        "310 of 1,000 units (31.0%) were seen in more than one variant; they were left out"
    ]


# --- One statistic for one row, and rates where the normal distribution fails


def test_difference_and_lift_of_five_units_agree() -> None:
    values = [10.9, 11.1, 12.8, 6.4, 13.5], [14.5, 13.1, 16.8, 12.4, 13.6]
    rows = pd.DataFrame({"v": ["c"] * 5 + ["t"] * 5, "y": [*values[0], *values[1]]})
    metrics = {"y": Mean("y")}
    e = compare(rows, unit=None, variant="v", control="c", metrics=metrics, method="fixed").iloc[0]
    welch = stats.ttest_ind(values[1], values[0], equal_var=False)
    interval = welch.confidence_interval(0.95)
    assert e.p_value == pytest.approx(welch.pvalue)
    assert [e.difference_low, e.difference_high] == pytest.approx([interval.low, interval.high])
    assert max(e.difference_low, e.relative_low) < 0.0


@given(
    st.lists(st.floats(5.0, 15.0), min_size=2, max_size=8),
    st.lists(st.floats(5.0, 15.0), min_size=2, max_size=8),
)
@settings(max_examples=60)
def test_the_lift_leaves_zero_out_exactly_where_the_difference_does(
    control: list[float], treated: list[float]
) -> None:
    arms = ["c"] * len(control) + ["t"] * len(treated)
    rows = pd.DataFrame({"v": arms, "y": [*control, *treated]})
    metrics = {"y": Mean("y")}
    e = compare(rows, unit=None, variant="v", control="c", metrics=metrics, method="fixed").iloc[0]
    if e.relative_low is None or min(map(abs, (e.difference_low, e.difference_high))) < 1e-9:
        return
    assert np.sign([e.difference_low, e.difference_high]).tolist() == (
        np.sign([e.relative_low, e.relative_high]).tolist()
    )


def rates(
    control: tuple[int, int], treated: tuple[int, int], method: str = "fixed", rows_a_unit: int = 1
) -> Any:
    """The effect of two rates, each successes out of so many units."""
    table = []
    for arm, (successes, n) in (("c", control), ("t", treated)):
        for i in range(n):
            table += [(f"{arm}{i}", arm, int(i < successes))] * rows_a_unit
    rows = pd.DataFrame(table, columns=["u", "v", "y"])
    parts: dict[str, Any] = {"metrics": {"y": Proportion("y")}, "method": method}
    return compare(rows, unit="u", variant="v", control="c", **parts).iloc[0]


@pytest.mark.parametrize("rows_a_unit", [1, 3])
def test_none_against_all_has_an_interval_and_a_p_value(rows_a_unit: int) -> None:
    e = rates((0, 50), (50, 50), rows_a_unit=rows_a_unit)
    assert e.difference == 1.0
    # Fisher's exact p is 2e-29. Each true rate is beyond its exact bound with a chance of 5%.
    assert 1e-29 < e.p_value < 1e-28
    assert 0.85 < e.difference_low < 0.93
    assert e.difference_high == 1.0
    for method in ("sequential", "group-sequential"):
        other = rates((0, 50), (50, 50), method, rows_a_unit)
        assert other.p_value < 0.05
        assert 0.0 < other.difference_low < other.difference_high == 1.0
    assert rates((0, 50), (50, 50), "bayes").chance_to_win > 0.99


@pytest.mark.parametrize("counts", [(0, 4), (1, 4), (0, 6), (2, 7), (20, 16), (1, 8)])
def test_few_successes_are_judged_like_fishers_exact_test(counts: tuple[int, int]) -> None:
    one, other = counts
    e = rates((one, 20), (other, 20))
    exact = stats.fisher_exact([[one, 20 - one], [other, 20 - other]]).pvalue
    assert e.p_value == pytest.approx(exact, rel=0.5)
    assert (e.p_value <= 0.05) == (e.difference_low > 0.0 or e.difference_high < 0.0)
    if e.relative is not None:
        assert (e.difference_low > 0.0) == (e.relative_low > 0.0)


@pytest.mark.parametrize("n", [(5, 5), (8, 12)])
def test_exact_rates_call_no_more_than_five_in_a_hundred(n: tuple[int, int]) -> None:
    p = np.zeros((n[0] + 1, n[1] + 1))
    for c, t in np.ndindex(p.shape):
        pair = RatePair(Rate(t, n[1]), Rate(c, n[0]), tail_evidence)
        p[c, t] = stats.chi2.sf(pair.against_difference(0.0), 1)
    for rate in np.linspace(0.02, 0.98, 49):
        chances = [stats.binom.pmf(np.arange(m + 1), m, rate) for m in n]
        assert np.outer(*chances)[p <= 0.05].sum() <= 0.05


def test_the_chance_to_win_of_few_events_is_that_of_their_beta_posteriors() -> None:
    # Control: Beta(1, n + 1) after none of n; variant: Beta(2, m) after one of m.
    n, m = 50, 40
    rows = pd.DataFrame({"unit": range(n + m), "variant": ["c"] * n + ["t"] * m, "day": 1})
    rows["play"] = rows["quit"] = (rows.unit == n + m - 1).astype(int)
    quit_ = ab.MetricDesign(name="quit", binary=True, better="lower")
    result = ab.analyse(rows, design(PLAY, quit_), method="fixed")
    more, fewer = result.comparisons
    chance = 1.0 - m * (m + 1) / ((m + n + 1) * (m + n + 2))
    assert (more.chance_to_win, fewer.chance_to_win) == pytest.approx((chance, 1.0 - chance))
    # What either choice loses differs by what the two rates do.
    mean_difference = 2.0 / (m + 2) - 1.0 / (n + 2)
    assert fewer.expected_loss - more.expected_loss == pytest.approx(mean_difference)


def test_a_guardrail_of_few_events_is_judged_by_its_counts() -> None:
    rows = arrivals([1] * 400)
    rows["abandon"] = (rows.variant == "t").astype(int)
    of_abandon = ab.MetricDesign(name="abandon", binary=True, better="lower")
    of_play = design(PLAY, of_abandon, guardrails={"abandon": 0.02})
    for method in ("fixed", "sequential"):
        result = ab.analyse(rows, of_play, method=method)
        assert result.guardrails[0].status == "worse"
        assert result.guardrails[0].p_value < 1e-4


# --- Labels and columns as people have them

LABELS: dict[str, tuple[Any, tuple[object, ...]]] = {
    "bool": (np.array([False, True]), (False, 0, 0.0, "False", "false", np.False_)),
    "int": (np.array([0, 1]), (0, 0.0, False, "0", np.int8(0), "0.0")),
    "float": (np.array([0.0, 1.0]), (0.0, 0, False, "0", "0.0")),
    "float32": (np.array([0.5, 1.5], dtype=np.float32), (0.5, "0.5")),
    "text": (np.array(["0", "1"], dtype=object), (0, 0.0, "0")),
    "words": (np.array(["control", "new"], dtype=object), ("control",)),
    "category": (pd.Categorical(["control", "new"]), ("control",)),
    "category of numbers": (pd.Categorical([0, 1]), (0, 0.0, False, "0")),
    "nullable": (pd.array([0, 1], dtype="Int64"), (0, 0.0, False, "0")),
    "nullable boolean": (pd.array([False, True], dtype="boolean"), (False, 0, "False")),
    "string": (pd.array(["control", "new"], dtype="string"), ("control",)),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_compare_by_value_whatever_type_they_have(kind: str) -> None:
    values, controls = LABELS[kind]
    g = np.random.default_rng(0)
    rows = pd.DataFrame({"u": np.arange(400), "v": pd.Series(values).take(np.arange(400) % 2)})
    rows = rows.reset_index(drop=True).assign(u=np.arange(400), y=g.normal(5.0, 1.0, 400))
    of_y = (rows.y[1::2].mean() - rows.y[::2].mean(), np.median(rows.y[1::2]))
    metrics = {"y": Mean("y"), "p50": Quantile("y")}
    for control in controls:
        table = compare(rows, unit="u", variant="v", control=control, metrics=metrics)
        assert table.reason.tolist() == ["", ""], control
        assert table.difference[0] == pytest.approx(of_y[0])
        assert table.value[1] == pytest.approx(of_y[1])
    other = pd.Series(values).tolist()[1]
    shares = {controls[0]: 0.5, other: 0.5}
    named = ab.Design(
        key="k",
        control=controls[0],  # type: ignore[arg-type]
        shares=shares,  # type: ignore[arg-type]
        metrics=(ab.MetricDesign(name="y", weight=1.0),),
    )
    result = ab.analyse(rows, named, unit="u", variant="v", day=None)
    assert list(result.sample_ratio.counts.values()) == [200, 200]
    assert result.comparisons[0].reason == ""


def test_true_and_false_are_the_same_however_they_are_written() -> None:
    rows = pd.DataFrame({"u": range(8), "v": ["FALSE", "TRUE"] * 4, "y": range(8)})
    for control in ("FALSE", "false", "False", False):
        effect = compare(rows, unit="u", variant="v", control=control, metrics={"y": Mean("y")})
        assert (effect.variant[0], effect.difference[0]) == ("TRUE", 1.0)


def test_labels_that_differ_stay_apart() -> None:
    assert resolve("1", ["1", "1.0"]) == "1"
    assert resolve(1, ["1.0", "1"]) == "1"
    assert resolve("true", ["True", "true"]) == "true"
    assert resolve("a", ["b"]) == "a"
    assert resolve(None, [None, "None"]) == "None"


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("v", [["a"], ["b"]], r"data\.v: got a column of VARCHAR\[\]; expected one value a row"),
        ("u", [[1], [2]], r"data\.u: got a column of INTEGER\[\]"),
        ("y", [[1.0], [2.0]], r"data\.y: got a column of DOUBLE\[\]; expected numbers"),
        ("y", [1 + 2j, 3j], r"data\.y: got a column of complex128; expected numbers"),
        ("day", [["a"], ["b"]], r"data\.day: got a column of VARCHAR\[\]"),
        ("v", [{"a": 1}, {"a": 2}], r"data\.v: got a column of STRUCT"),
    ],
)
def test_a_column_that_cannot_be_used_is_named(
    column: str, values: list[object], message: str
) -> None:
    rows = pd.DataFrame({"u": [1, 2], "v": ["c", "t"], "y": [1.0, 2.0], "day": [1, 2]})
    rows[column] = pd.Series(values)
    parts: dict[str, Any] = {"control": "c", "metrics": {"y": Mean("y")}, "time": "day"}
    with pytest.raises(BadData, match=message):
        compare(rows, unit="u", variant="v", **parts)


def test_moments_that_are_written_out_are_moments() -> None:
    times = pd.date_range("2026-03-01", periods=2_400, freq="90s").strftime("%Y-%m-%dT%H:%M:%S")
    assert ab.plan(arrivals(times), design(PLAY)).units_a_day == pytest.approx(960.0, rel=1e-3)
    days = pd.date_range("2026-03-01", periods=2_400, freq="90s").strftime("%Y-%m-%d")
    assert ab.plan(arrivals(days), design(PLAY)).units_a_day == pytest.approx(800.0)


# --- Quantiles of values that move in steps


def counted(seed: int, lift: float = 1.0, n: int = 1_000) -> pd.DataFrame:
    """Counts of about 20 a unit, in turn in c and t."""
    is_t = np.arange(n) % 2 == 1
    y = np.random.default_rng(seed).poisson(np.where(is_t, 20.0 * lift, 20.0))
    return pd.DataFrame({"u": np.arange(n), "v": np.where(is_t, "t", "c"), "y": y})


def median_effect(rows: pd.DataFrame, method: Any = "fixed") -> Any:
    metrics = {"p50": Quantile("y")}
    return compare(rows, unit="u", variant="v", control="c", metrics=metrics, method=method).iloc[0]


def mid_places(y: Any) -> tuple[Any, Any]:
    """The values, and the share at the middle of the places that each takes up."""
    values, n = np.unique(y, return_counts=True)
    return values, (np.cumsum(n) - (n + 1) / 2.0) / (len(y) - 1)


def test_quantiles_of_counts_are_mid_quantiles() -> None:
    rows = counted(0)
    for q in (0.25, 0.5, 0.75):
        metrics = {"q": Quantile("y", q)}
        e = compare(rows, unit="u", variant="v", control="c", metrics=metrics).iloc[0]
        for value, variant in ((e.value, "t"), (e.control_value, "c")):
            values, places = mid_places(rows.y[rows.v == variant])
            assert value == pytest.approx(np.interp(q, places, values))


def test_quantiles_of_values_that_are_all_unlike_are_the_usual_ones() -> None:
    rows = counted(0)
    rows["y"] += np.random.default_rng(1).random(len(rows))
    # One unit of many rows has one value, which is no step.
    rows = pd.concat([rows, *[rows.iloc[:40]] * 3])
    e = median_effect(rows)
    medians = rows.groupby("v").y.quantile(0.5)
    assert (e.value, e.control_value) == pytest.approx((medians.t, medians.c))
    assert e.difference_high - e.difference == pytest.approx(e.difference - e.difference_low)


def test_zeros_among_values_that_are_all_unlike_are_a_median_of_zero() -> None:
    g = np.random.default_rng(0)
    y = np.where(np.arange(600) % 3 == 0, g.lognormal(size=600), 0.0)
    e = median_effect(pd.DataFrame({"u": range(600), "v": list("ct") * 300, "y": y}))
    assert (e.value, e.control_value, e.reason) == (0.0, 0.0, "all_zero")


def test_medians_of_counts_differ_by_no_more_than_their_shares_do() -> None:
    for seed in range(15):
        rows = counted(seed)
        e = median_effect(rows)
        # By hand: of the two counts about the median of all, a part is up to it.
        values, places = mid_places(rows.y)
        i = int(np.searchsorted(places, 0.5, side="right")) - 1
        weight = (0.5 - places[i]) / (places[i + 1] - places[i])
        low, high = values[i], values[i + 1]
        up_to = (rows.y < low) + (1 + weight) / 2 * (rows.y == low) + weight / 2 * (rows.y == high)
        own = up_to.groupby(rows.v)
        z = (own.mean().c - own.mean().t) / np.sqrt((own.var() / 500).sum())
        assert abs(e.difference / e.se) <= max(abs(z), 1.0) * (1.0 + 1e-9)
        assert np.sign(e.difference) in (0.0, np.sign(z)) or abs(z) < 1.0


def test_steps_of_unlike_sizes_have_two_sides() -> None:
    g = np.random.default_rng(3)
    y = g.choice([100.0, 104.99, 109.99, 199.0], 2_000, p=[0.3, 0.3, 0.3, 0.1])
    rows = pd.DataFrame({"u": range(2_000), "v": list("ct") * 1_000, "y": y})
    metrics = {"p75": Quantile("y", 0.75)}
    for method in ("fixed", "sequential", "bayes"):
        e = compare(rows, unit="u", variant="v", control="c", metrics=metrics, method=method).iloc[
            0
        ]
        above, below = e.difference_high - e.difference, e.difference - e.difference_low
        assert above > 0.0
        assert below > 0.0
        assert above != pytest.approx(below, rel=0.02)
        # Difference and lift leave zero out alike.
        assert (e.relative_low < 0.0 < e.relative_high) == (
            e.difference_low < 0.0 < e.difference_high
        )


def test_medians_of_counts_keep_their_level_and_show_a_shift() -> None:
    calls = sum((median_effect(counted(seed)).p_value or 1.0) < 0.05 for seed in range(40))
    # More than 6 of 40 come by chance once in 100 times at 5%.
    assert calls <= 6
    for method in ("fixed", "sequential"):
        shifted = median_effect(counted(0, lift=1.15), method)
        assert shifted.difference_low > 0.0


def test_a_shift_of_whole_steps_in_a_large_sample_is_shown() -> None:
    g = np.random.default_rng(0)
    n = 20_000
    is_t = np.arange(n) % 2 == 1
    y = g.choice([3, 4, 5], n) + is_t
    rows = pd.DataFrame({"u": np.arange(n), "v": np.where(is_t, "t", "c"), "y": y})
    e = median_effect(rows)
    assert e.difference == pytest.approx(1.0, abs=0.03)
    assert e.reason == ""
    assert e.p_value < 1e-10


def test_quantiles_of_values_too_large_to_square_have_a_reason() -> None:
    y = np.resize([-1e300, 1e300], 400)
    rows = pd.DataFrame({"u": range(400), "v": np.repeat(["c", "t"], 200), "y": y})
    e = median_effect(rows)
    assert (e.reason, e.p_value) == ("infinite_values", None)


def test_of_steps_a_lift_has_both_ends_or_none() -> None:
    g = np.random.default_rng(4)
    for mean in (0.3, 0.6, 1.0):
        rows = counted(0, n=80).assign(y=g.poisson(mean, 80))
        for method in ("fixed", "sequential"):
            e = median_effect(rows, method)
            lift = (e.relative, e.relative_low, e.relative_high)
            assert all(x is None for x in lift) or e.relative_low <= e.relative <= e.relative_high


def test_medians_of_counts_go_with_phases_and_guardrails() -> None:
    rows = counted(0, n=4_000).assign(phase=np.repeat([0, 1], 2_000))
    rows["play"] = np.where(np.random.default_rng(5).random(4_000) < 0.3, 1.0, 0.0)
    shares = ({"c": 0.5, "t": 0.5}, {"c": 0.49, "t": 0.51})
    two = design(
        PLAY,
        ab.MetricDesign(name="y", q=0.5, better="higher"),
        guardrails={"y": 0.1},
        phases=tuple(ab.Phase(shares=own, control="c") for own in shares),
    )
    result = ab.analyse(rows, two, unit="u", variant="v", phase="phase", day=None, method="fixed")
    (effect,) = [c for c in result.comparisons if c.metric == "y"]
    assert effect.difference == pytest.approx(0.0, abs=0.5)
    assert effect.difference_low < effect.difference < effect.difference_high
    assert [g.status for g in result.guardrails] == ["not_worse"]


# --- Labels of every type, and columns that Python filled


BIG = 2**62


@pytest.mark.parametrize(
    ("labels", "control"),
    [
        ([BIG, BIG + 1], BIG),  # as floats they are one
        ([b"c", b"t"], "c"),
        ([datetime(2024, 1, 1), datetime(2024, 1, 2)], "2024-01-01"),
        ([date(2024, 1, 1), date(2024, 1, 2)], "2024-01-01"),
        ([False, 1], 0),
        ([np.bool_(0), np.bool_(1)], False),
        ([False, True], "0"),
        ([0, 1], "false"),
        (["FALSE", "TRUE"], 0),
    ],
)
def test_a_control_is_found_by_value_whatever_its_column_holds(
    labels: list[Any], control: object
) -> None:
    places = np.arange(200) % 2
    column = np.empty(200, dtype=object)
    column[:] = [labels[place] for place in places]
    rows = pd.DataFrame({"u": np.arange(200), "v": column, "y": places + np.arange(200) % 7})
    for data in (rows, rows.infer_objects()):
        (effect,) = compare(
            data, unit="u", variant="v", control=control, metrics={"y": Mean("y")}, method="fixed"
        ).itertuples()
        assert effect.difference == pytest.approx(1.0, abs=0.1)
        assert effect.n == 100


def test_columns_of_several_kinds_are_read_or_refused_by_name_however_late() -> None:
    n = 4_000
    mixed: list[Any] = [bool(i % 2) for i in range(n - 100)] + [i % 2 for i in range(100)]
    rows = pd.DataFrame(
        {"u": range(n), "v": np.arange(n) // 2 % 2, "y": pd.Series(mixed, dtype=object)}
    )
    options: dict[str, Any] = {"unit": "u", "variant": "v", "control": 0}
    (effect,) = compare(rows, metrics={"y": Mean("y")}, **options).itertuples()
    assert (effect.value, effect.control_value) == (0.5, 0.5)
    rows["y"] = pd.Series([*range(n - 1), "x"], dtype=object)
    with pytest.raises(BadData, match=r"data\.y: got a column of VARCHAR; expected numbers"):
        compare(rows, metrics={"y": Mean("y")}, **options)
    rows["v"] = pd.date_range("2024-01-01", periods=n, tz="Europe/Oslo")
    with pytest.raises(BadData, match=r"data\.v: got a column of TIMESTAMP WITH TIME ZONE"):
        compare(rows, metrics={"u": Mean("u")}, **options)


def test_a_column_that_one_variant_does_not_send_is_no_zero() -> None:
    rng = np.random.default_rng(0)
    n = 400
    rows = pd.DataFrame({"u": np.arange(n) // 2, "v": np.where(np.arange(n) // 2 % 2, "t", "c")})
    rows["paid"] = np.where(rows.v == "t", np.nan, rng.gamma(2.0, 5.0, n))
    rows["visits"] = 1
    metrics: dict[str, Any] = {"sum": Sum("paid"), "ratio": Ratio("paid", "visits")}
    options: dict[str, Any] = {"unit": "u", "variant": "v", "control": "c", "metrics": metrics}
    for effect in compare(rows, **options).itertuples():
        assert (effect.value, effect.p_value, effect.reason) == (None, None, "no_values")
    # Where some have one, to have none is to have spent nothing.
    rows.loc[3, "paid"] = 100.0
    sums = compare(rows, **options).set_index("metric")
    assert sums.loc["sum", "value"] == pytest.approx(1.0)


def test_numbers_too_large_to_be_squared_have_a_reason() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, 200) * 1e300
    rows = pd.DataFrame({"v": np.where(np.arange(200) % 2, "t", "c"), "y": values})
    metrics: dict[str, Any] = {"mean": Mean("y"), "median": Quantile("y", 0.5)}
    table = compare(rows, unit=None, variant="v", control="c", metrics=metrics)
    assert list(table.reason) == ["infinite_values"] * 2


# --- Guardrails of what happened to everybody, or to nobody


@pytest.mark.parametrize("method", ["fixed", "sequential", "group-sequential", "bayes"])
def test_enough_units_that_are_all_alike_keep_a_guardrail(method: Any) -> None:
    """2,000 of 2,000 against 2,000 of 2,000 cannot be 2 points worse; 10 of 10 can. To have none
    at all is how it looks where nobody sends the event, too."""
    metrics = (
        ab.MetricDesign(name="y", weight=1.0),
        ab.MetricDesign(name="plays_well", binary=True, better="higher"),
    )
    for margin in (ab.Margin.parse("2pp"), ab.Margin.parse("10%")):
        guarded = design(*metrics, guardrails={"plays_well": margin})
        for n, status in ((20, "undecided"), (4_000, "not_worse")):
            rows = pd.DataFrame({"unit": range(n), "variant": ["c", "t"] * (n // 2), "day": 1})
            rows["y"], rows["plays_well"] = rows.unit % 7, 1
            (found,) = ab.analyse(rows, guarded, method=method).guardrails
            assert (found.status, found.worse_by) == (status, 0.0)
            assert found.worse_by_low < 0.0 < found.worse_by_high
            none = rows.assign(plays_well=0)
            (found,) = ab.analyse(none, guarded, method=method).guardrails
            assert (found.status, found.reason) == ("unknown", "all_zero")


def test_a_design_that_speaks_of_what_is_not_there_is_refused() -> None:
    metrics = (ab.MetricDesign(name="y", weight=1.0),)
    options: dict[str, Any] = {"key": "k", "metrics": metrics, "shares": {"c": 0.5, "t": 0.5}}
    with pytest.raises(BadRequest, match="no such metric; the metrics are y"):
        ab.Design(control="c", guardrails={"crash": 0.1}, **options)
    with pytest.raises(BadRequest, match="got 'old', which has no share; expected one of c"):
        ab.Design(control="old", **options)


def test_of_days_that_are_numbers_in_a_column_of_text_the_first_is_the_least() -> None:
    """Day 9 comes before day 10, which text does not know."""
    n = 400
    first = pd.DataFrame({"unit": range(n), "day": "9", "device": "tv", "y": np.arange(n) % 7})
    first["variant"] = np.where(first.unit % 2, "t", "c")
    later = first[first.unit % 4 == 1].assign(day="10", device="phone")
    metric = ab.MetricDesign(name="y", weight=1.0)
    analysis = ab.analyse(pd.concat([later, first]), design(metric), segments=["device"])
    counts = {segment.value: segment.counts for segment in analysis.sample_ratio.segments}
    assert counts == {"tv": {"c": 200, "t": 200}}
    assert [day.value for day in analysis.sample_ratio.days] == ["9"]


def test_values_whose_squares_are_nothing_are_near_zero_and_no_error() -> None:
    """1e-200 is a number, and its square is 0.0: nothing may be divided by it."""
    control, treated = ArmEstimate(1e-200, 0.0, 10), ArmEstimate(0.5, 0.01, 10)
    assert fieller(treated, control, 1.96) is None
    rule = Rule("sequential", 0.05)
    tiny = Effect(metric="m", variant="v", n=10, n_control=10, difference=1e-200, se=1e-200)
    usual = Effect(metric="m", variant="v", n=10, n_control=10, difference=0.1, se=0.1)
    for effects in ({"a": tiny, "b": usual}, {"a": tiny, "b": usual, "c": usual}):
        found = _shrunken("device", "v", effects, rule)
        numbers = [e.shrunken for e in found.effects if e.shrunken is not None]
        assert all(math.isfinite(number) for number in numbers)
