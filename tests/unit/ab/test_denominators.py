"""Variants that move what metrics divide by, and metrics per unit: nothing is called by mix, and
what each unit counts once in is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill import ab
from topbill.ab.checks.denominators import drawn
from topbill.ab.core.effect import ArmEstimate, Pair
from topbill.ab.reasons import DENOMINATOR_DOUBTFUL, DENOMINATOR_MOVED
from topbill.ab.results import Per
from topbill.domain.errors import BadRequest

SHARES = {"c": 0.5, "t": 0.5}
PLAY = ab.MetricDesign(name="play", binary=True, weight=1.0)


def design(*metrics: ab.MetricDesign, **more: object) -> ab.Design:
    return ab.Design(key="k", control="c", shares=SHARES, metrics=metrics, **more)  # type: ignore[arg-type]


def visits(
    seed: int, n: int = 4000, *, moved: float = 0.0, lift: float = 0.0, drift: float = 0.0
) -> pd.DataFrame:
    """Rows of visits. Half the viewers are heavy and play on three visits of five, the others on
    one of five. A share `moved` of the heavy ones comes twice in t; `lift` is what t adds to the
    chance of a visit."""
    g = np.random.default_rng(seed)
    arm = g.choice(["c", "t"], n)
    heavy = g.random(n) < 0.5
    chance = np.where(heavy, 0.6, 0.2) + np.where(arm == "t", lift, 0.0)
    again = (arm == "t") & heavy & (g.random(n) < moved)
    again |= g.random(n) < 0.2
    rows = []
    for day, who in ((1, np.full(n, True)), (2, again)):
        rows.append(
            pd.DataFrame(
                {
                    "unit": np.arange(n)[who],
                    "variant": arm[who],
                    "day": day,
                    "play": (g.random(who.sum()) < chance[who]).astype(int),
                    "minutes": g.gamma(2.0, 10.0, who.sum()) * (1.0 + drift),
                }
            )
        )
    return pd.concat(rows)


def test_a_rate_that_moves_by_mix_is_not_called_and_each_unit_is_counted_once() -> None:
    rows = visits(1, moved=0.9)
    result = ab.analyse(rows, design(PLAY))
    (row,) = result.comparisons
    assert (row.call, row.reason, row.p_value, row.relative_low) == (
        "no_call",
        DENOMINATOR_MOVED,
        None,
        None,
    )
    (once,) = result.per_unit
    means = rows.groupby(["variant", "unit"]).play.mean().groupby("variant").mean()
    assert (once.value, once.control_value) == pytest.approx((means.t, means.c))
    assert (once.per, once.call) == ("unit", "no_call")
    assert "per unit" in result.verdict.sentence
    assert not result.verdict.safe_to_ship
    (check,) = result.denominators
    counts = rows.groupby(["variant", "unit"]).size().groupby("variant").mean()
    assert (check.per_unit, check.per_unit_control) == pytest.approx((counts.t, counts.c))
    assert check.alarm
    assert any("divided by differs" in note for note in result.notes)


def test_a_planted_effect_is_found_although_visits_moved() -> None:
    result = ab.analyse(visits(2, moved=0.9, lift=0.12), design(PLAY))
    assert result.comparisons[0].call == "no_call"
    assert result.verdict.winner == "t"
    assert result.verdict.sentence.startswith("t beats c")


def test_nothing_is_withheld_where_visits_do_not_move() -> None:
    result = ab.analyse(visits(3, lift=0.12), design(PLAY))
    assert [c.call for c in result.comparisons] == ["better"]
    assert not result.per_unit
    assert not any(check.alarm for check in result.denominators)


def test_a_guardrail_is_judged_by_units_where_visits_moved() -> None:
    guarded = ab.MetricDesign(name="play", binary=True, better="higher")
    other = ab.MetricDesign(name="minutes", weight=1.0)
    result = ab.analyse(
        visits(4, moved=0.9, lift=-0.1), design(other, guarded, guardrails={"play": 0.02})
    )
    (guardrail,) = result.guardrails
    assert (guardrail.status, guardrail.per) == ("worse", "unit")


@pytest.mark.parametrize(
    "metric",
    [
        ab.Mean("play"),
        ab.Proportion("play"),
        ab.Quantile("minutes", 0.9),
        ab.Ratio("play", "visit"),
    ],
    ids=repr,
)
def test_compare_holds_back_whatever_divides_by_what_moved(metric: ab.Metric) -> None:
    rows = visits(5, moved=0.9).assign(visit=1)

    def compared(**more: bool) -> pd.Series:
        table = ab.compare(
            rows, unit="unit", variant="variant", control="c", metrics={"m": metric}, **more
        )
        return table.iloc[0]

    row = compared()
    assert row.reason == DENOMINATOR_MOVED
    assert row.p_value is None
    assert row.difference_low is None
    trusted = compared(check_denominators=False)
    assert trusted.reason == ""
    assert trusted.p_value is not None
    # Two passes add up in two orders, so the last bit may differ.
    values = (trusted.value, trusted.control_value)
    assert (row.value, row.control_value) == pytest.approx(values)


def test_a_conditional_mean_over_those_that_the_variant_chose_is_held_back() -> None:
    rows = visits(6, n=6000).groupby("unit").first().reset_index()
    # In t, light viewers answer the question too.
    answers = (rows.variant == "t") | (rows.minutes > 15)
    rows["rating"] = rows.minutes.where(answers)
    table = ab.compare(
        rows, unit="unit", variant="variant", control="c", metrics={"r": ab.Mean("rating")}
    )
    assert table.reason[0] == DENOMINATOR_MOVED


def test_metrics_per_unit_are_what_pandas_makes_of_them() -> None:
    rows = visits(7, moved=0.9).sample(frac=1.0, random_state=1)
    plays = ab.MetricDesign(name="minutes", per="unit", weight=1.0)
    ever = ab.MetricDesign(name="play", binary=True, per="unit")
    result = ab.analyse(rows, design(plays, ever), method="fixed")
    assert not result.per_unit, "what counts units once is not withheld"
    assert {c.per for c in result.comparisons} == {"unit"}
    totals = rows.groupby(["variant", "unit"]).agg({"minutes": "sum", "play": "max"})
    means = totals.groupby("variant").mean()
    for c in result.comparisons:
        assert (c.value, c.control_value) == pytest.approx((means[c.metric].t, means[c.metric].c))


def test_units_without_a_known_value_are_left_out_of_a_metric_per_unit() -> None:
    rows = pd.DataFrame(
        {
            "unit": [1, 1, 2, 3, 3, 4, 5, 6],
            "variant": list("cccccttt"),
            "minutes": [1.0, 2.0, None, 4.0, None, 3.0, None, 5.0],
        }
    )
    minutes = ab.MetricDesign(name="minutes", per="unit", weight=1.0)
    (c,) = ab.analyse(rows, design(minutes), day=None).comparisons
    assert (c.value, c.control_value) == pytest.approx((4.0, 3.5))
    assert (c.n, c.n_control) == (2, 2)


def test_a_capped_metric_is_judged_by_what_is_learned_with_the_raw_one_beside_it() -> None:
    g = np.random.default_rng(8)
    n = 4000
    rows = pd.DataFrame({"unit": range(n), "variant": g.choice(["c", "t"], n)})
    bought = g.random(n) < 0.3
    rows["revenue"] = np.where(bought, g.gamma(4, 5, n) * np.where(rows.variant == "t", 1.3, 1), 0)
    rows.loc[rows.index[rows.variant == "c"][0], "revenue"] = 250_000.0
    revenue = ab.MetricDesign(name="revenue", weight=1.0, cap=100.0)
    result = ab.analyse(rows, design(revenue), day=None, method="fixed")
    capped = rows.assign(revenue=rows.revenue.clip(0, 100))
    means = capped.groupby("variant").revenue.mean()
    (c,) = result.comparisons
    assert (c.value, c.control_value) == pytest.approx((means.t, means.c))
    assert c.call == "better"
    (raw,) = result.as_they_came
    means = rows.groupby("variant").revenue.mean()
    assert (raw.value, raw.control_value) == pytest.approx((means.t, means.c))
    assert any("values above 100 count as 100 (" in note for note in result.notes)


def test_values_below_the_floor_are_said_to_be_below_it() -> None:
    g = np.random.default_rng(8)
    n = 1200
    rows = pd.DataFrame({"unit": range(n), "variant": g.choice(["c", "t"], n)})
    rows["pay"] = g.choice([-5.0, 1.0, 2.0], n, p=[0.1, 0.6, 0.3])
    refunds = int((rows.pay < 0).sum())
    pay = ab.MetricDesign(name="pay", weight=1.0, cap=2.0)
    (note,) = ab.analyse(rows, design(pay), day=None).notes
    assert f"pay: values below 0 count as 0 ({refunds:,} of 1,200); as they came" in note
    rows.loc[:2, "pay"] = 7.0
    refunds = int((rows.pay < 0).sum())
    (note,) = ab.analyse(rows, design(pay), day=None).notes
    assert "pay: values above 2 count as 2 (3 of 1,200), values below 0 count as 0 (" in note


@pytest.mark.parametrize("per", ["decision", "unit"])
def test_winsorised_values_are_cut_off_at_the_pooled_quantile(per: Per) -> None:
    rows = visits(9)
    rows.loc[rows.index[0], "minutes"] = 1e6
    minutes = ab.MetricDesign(name="minutes", winsorise=0.99, per=per, better="higher")
    result = ab.analyse(rows, design(PLAY, minutes))
    c = next(c for c in result.comparisons if c.metric == "minutes")
    values = rows if per == "decision" else rows.groupby(["variant", "unit"]).sum()
    cut = values.minutes.clip(upper=values.minutes.quantile(0.99))
    means = cut.groupby(values.variant if per == "decision" else "variant").mean()
    assert (c.value, c.control_value) == pytest.approx((means.t, means.c))


def test_ratio_and_quantile_are_metrics_of_a_design() -> None:
    rows = visits(10).assign(visit=1.0)
    rows.loc[rows.minutes > 60, "play"] = None  # its window is not over
    ratio = ab.MetricDesign(name="r", numerator="play", denominator="minutes", better="higher")
    p90 = ab.MetricDesign(name="minutes", q=0.9, better="lower")
    guarded = design(PLAY, ratio, p90, guardrails={"r": 0.5, "minutes": 0.5})
    result = ab.analyse(rows, guarded)
    by_name = {c.metric: c for c in result.comparisons}
    known = rows[rows.play.notna()].groupby("variant").sum()
    assert by_name["r"].value == pytest.approx(known.play.t / known.minutes.t)
    quantiles = rows.groupby("variant").minutes.quantile(0.9)
    assert by_name["minutes"].value == pytest.approx(quantiles.t)
    assert [g.status for g in result.guardrails] == ["not_worse", "not_worse"]


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"cap": 0.0}, "cap"),
        ({"winsorise": 1.0}, "winsorise"),
        ({"winsorise": 0.9, "cap": 3.0}, "winsorise"),
        ({"q": 0.0}, "q"),
        ({"numerator": "a"}, "m"),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, float], where: str) -> None:
    with pytest.raises(BadRequest, match=where):
        ab.MetricDesign(name="m", **wrong)  # type: ignore[arg-type]


# --- What moved too little for an alarm


def little(seed: int, *, lift: float = 0.0, n: int = 400) -> pd.DataFrame:
    """Rows of many visits: t brings some more of those who like things anyhow."""
    g = np.random.default_rng(seed)
    heavy, treated = g.random(n) < 0.5, g.random(n) < 0.5
    visits = 1 + g.poisson(g.gamma(0.8, 6.0, n) * np.where(heavy & treated, 1.5, 1.0))
    unit = np.repeat(np.arange(n), visits)
    chance = np.where(heavy, 0.5, 0.2) + lift * treated
    plays = (g.random(unit.size) < chance[unit]).astype(int)
    variant = np.where(treated, "t", "c")[unit]
    return pd.DataFrame({"unit": unit, "variant": variant, "play": plays})


def shown(rows: pd.DataFrame, per: Per = "decision") -> ab.Comparison:
    metric = ab.Mean("play", per="unit") if per == "unit" else ab.Mean("play")
    own = ab.MetricDesign(name="play", metric=metric, weight=1.0)
    return ab.analyse(rows, design(own), day=None, method="fixed").comparisons[0]


DOUBTFUL = 17
"""The seed of an experiment whose visits moved by less than an alarm asks for, and its rate with
them."""


def test_a_rate_that_visits_may_have_moved_is_not_called_and_says_so() -> None:
    rows = little(DOUBTFUL)
    result = ab.analyse(rows, design(PLAY), day=None, method="fixed")
    (c,) = result.comparisons
    (check,) = result.denominators
    assert not check.alarm
    assert c.p_value is not None
    assert c.p_value <= 0.05
    assert (c.call, c.reason) == ("no_call", DENOMINATOR_DOUBTFUL)
    assert c.p_adjusted is not None
    assert c.p_adjusted > 0.05, "the adjusted p-value is the one that decides"
    assert "which units counted once do not show" in result.verdict.sentence
    assert DENOMINATOR_DOUBTFUL in result.verdict.codes
    assert any("may differ in how many decisions" in note for note in result.notes)


def test_compare_remarks_the_doubt_and_leaves_the_numbers() -> None:
    rows = little(DOUBTFUL)
    tables = []
    for check in (True, False):
        table = ab.compare(
            rows,
            unit="unit",
            variant="variant",
            control="c",
            metrics={"play": ab.Mean("play")},
            method="fixed",
            check_denominators=check,
        )
        tables.append(table)
    assert list(tables[0].reason) == [DENOMINATOR_DOUBTFUL]
    assert list(tables[1].reason) == [""]
    pd.testing.assert_frame_equal(
        tables[0].drop(columns="reason"), tables[1].drop(columns="reason"), rtol=1e-12
    )


def test_a_guardrail_is_undecided_where_visits_may_have_decided_it() -> None:
    guarded = ab.MetricDesign(name="play", binary=True, better="lower")
    other = ab.MetricDesign(name="other", weight=1.0)
    rows = little(DOUBTFUL).assign(other=1.0)
    rows.loc[::2, "other"] = 0.0
    watched = design(other, guarded, guardrails={"play": ab.Margin(0.0)})
    (guardrail,) = ab.analyse(rows, watched, day=None, method="fixed").guardrails
    assert (guardrail.status, guardrail.reason) == ("undecided", DENOMINATOR_DOUBTFUL)


def test_what_units_counted_once_show_is_called() -> None:
    rows = little(DOUBTFUL, lift=0.2)
    assert shown(rows).call == shown(rows, "unit").call == "better"


@settings(max_examples=100)
@given(st.floats(-1.0, 1.0), st.floats(-1.0, 1.0), st.floats(0.001, 1.0), st.floats(-5.0, 5.0))
def test_a_difference_is_drawn_towards_that_of_units_and_never_past_it(
    difference: float, of_units: float, se: float, z: float
) -> None:
    def pair(value: float) -> Pair:
        arms = ArmEstimate(value, se**2 / 2.0, 100), ArmEstimate(0.0, se**2 / 2.0, 100)
        return Pair(*arms, "", 100, 100)

    check = ab.DenominatorCheck(
        metric="m",
        variant="t",
        per_unit=1.0 + z,
        per_unit_control=1.0,
        se=1.0,
        p_value=0.5,
        alarm=False,
    )
    treated = drawn(pair(difference), pair(of_units), check).treated
    assert treated is not None
    least, most = sorted((difference, of_units))
    assert least - 1e-9 <= treated.value <= most + 1e-9 or treated.value == difference
    assert abs(treated.value - difference) <= abs(z) * se + 1e-9
    assert abs(treated.value) <= max(abs(difference), abs(of_units)) + 1e-9
