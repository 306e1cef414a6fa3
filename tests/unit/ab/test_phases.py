"""Phases in the analysis: laws of the expected split and of strata, and crossovers by first
exposure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill import ab
from topbill.domain.errors import BadData, BadRequest

Shares = dict[str, float]
HALVES: Shares = {"c": 0.5, "t": 0.5}
MOSTLY_C: Shares = {"c": 0.95, "t": 0.05}

PLAY = ab.MetricDesign(name="y", weight=1.0)


def design(phases: Sequence[Shares], metric: ab.MetricDesign = PLAY) -> ab.Design:
    return ab.Design(
        key="k",
        control="c",
        shares=phases[-1],
        metrics=(metric,),
        phases=tuple(ab.Phase(shares=shares, control="c") for shares in phases),
    )


def world(
    rng: np.random.Generator,
    phases: Sequence[Shares],
    units: Sequence[int],
    *,
    base: Sequence[float] = (0.0,),
    effect: float = 0.0,
    returning: float = 0.0,
) -> pd.DataFrame:
    """Units that come in each phase, assigned by a place of their own as the engine does; a share
    of those who came before come again, and are given what their place is then."""
    places = rng.random(sum(units))
    frames, came = [], 0
    for number, (shares, n) in enumerate(zip(phases, units, strict=True)):
        again = np.flatnonzero(rng.random(came) < returning)
        unit = np.concatenate([again, np.arange(came, came + n)])
        came += n
        names = np.array(list(shares))
        index = np.searchsorted(np.cumsum(list(shares.values())), places[unit], side="right")
        variant = names[np.minimum(index, len(names) - 1)]
        y = base[number % len(base)] + effect * (variant == "t") + rng.normal(0.0, 1.0, unit.size)
        frames.append(
            pd.DataFrame({"unit": unit, "variant": variant, "phase": number, "day": number, "y": y})
        )
    return pd.concat(frames, ignore_index=True)


def analysed(rows: pd.DataFrame, phases: Sequence[Shares], **more: object) -> ab.Analysis:
    return ab.analyse(rows, design(phases), phase="phase", **{"method": "fixed", **more})  # type: ignore[arg-type]


# --- The split

COUNTS = st.lists(st.lists(st.integers(0, 500), min_size=3, max_size=3), min_size=1, max_size=4)


@settings(max_examples=50)
@given(counts=COUNTS)
def test_phases_of_equal_shares_are_one_split(counts: list[list[int]]) -> None:
    shares = [0.2, 0.5, 0.3]
    together = np.sum(counts, axis=0)
    assert ab.srm_of_phases(counts, [shares] * len(counts)) == pytest.approx(
        ab.srm(together, shares), abs=1e-9
    )


@settings(max_examples=50)
@given(counts=COUNTS)
def test_the_split_of_one_phase_is_the_usual_one(counts: list[list[int]]) -> None:
    shares = [0.2, 0.5, 0.3]
    assert ab.srm_of_phases(counts[:1], [shares]) == ab.srm(counts[0], shares)


@settings(max_examples=50)
@given(
    units=st.lists(st.integers(1, 50), min_size=2, max_size=4),
    ones=st.lists(st.integers(1, 9), min_size=4, max_size=4),
)
def test_what_is_split_as_each_phase_asks_is_right_over_all(
    units: list[int], ones: list[int]
) -> None:
    # Exactly as expected in each phase, however shares differ: no gap over all.
    shares = [[one / 10, 1 - one / 10] for one in ones[: len(units)]]
    counts = [
        [10 * n * one / 10, 10 * n * (10 - one) / 10] for n, one in zip(units, ones, strict=False)
    ]
    assert ab.srm_of_phases(counts, shares) == pytest.approx(1.0)


def test_a_unit_where_none_could_be_is_no_chance() -> None:
    assert ab.srm_of_phases([[50, 50], [99, 1]], [[0.5, 0.5], [1.0, 0.0]]) == 0.0
    assert ab.srm_of_phases([[50, 50], [99, 0]], [[0.5, 0.5], [1.0, 0.0]]) == pytest.approx(1.0)
    assert ab.srm_of_phases([], []) == 1.0


@pytest.mark.parametrize(
    ("counts", "shares"),
    [([[1, 2]], [[0.5, 0.25, 0.25]]), ([1, 2], [0.5, 0.5]), ([[1, -2], [3, 4]], [[0.5, 0.5]] * 2)],
)
def test_counts_that_cannot_be_meant_are_refused(counts: object, shares: object) -> None:
    with pytest.raises(BadRequest):
        ab.srm_of_phases(counts, shares)  # type: ignore[arg-type]


# --- Strata


def test_a_phase_that_is_cut_in_two_changes_no_number() -> None:
    phases = [MOSTLY_C, HALVES]
    rows = world(np.random.default_rng(1), phases, (600, 600), base=(0.0, 1.0))
    whole = analysed(rows, phases)
    # The second half of the first phase's units in a phase of their own, of the same shares.
    cut = rows.assign(phase=np.where(rows.unit < 300, 0, rows.phase + 1))
    parts = analysed(cut, [MOSTLY_C, *phases])
    (one,), (other,) = parts.comparisons, whole.comparisons
    assert one.difference == pytest.approx(other.difference, rel=1e-12)
    assert one.se == pytest.approx(other.se, rel=1e-12)
    assert (one.n, one.n_control, one.call) == (other.n, other.n_control, other.call)
    assert parts.sample_ratio.p_value == pytest.approx(whole.sample_ratio.p_value)
    assert [p.shares for p in parts.phases] == [MOSTLY_C, MOSTLY_C, HALVES]
    assert [p.changed for p in parts.phases] == [[], [], ["c 95% → 50%", "t 5% → 50%"]]


def test_one_phase_is_as_none() -> None:
    rows = world(np.random.default_rng(2), [HALVES], (500,), effect=0.2)
    alone = ab.analyse(rows, msgspec.structs.replace(design([HALVES]), phases=()), method="fixed")
    one = analysed(rows, [HALVES])
    assert one.comparisons == alone.comparisons
    assert one.sample_ratio.p_value == alone.sample_ratio.p_value


def test_the_effect_is_that_of_least_squares_with_a_fixed_effect_a_phase() -> None:
    phases = [MOSTLY_C, HALVES]
    rows = world(np.random.default_rng(3), phases, (2_000, 800), base=(0.0, 2.0), effect=0.3)
    (effect,) = analysed(rows, phases).comparisons
    columns = [rows.variant == "t", rows.phase == 0, rows.phase == 1]
    x = np.stack([np.asarray(c, dtype=float) for c in columns], axis=1)
    solution, *_ = np.linalg.lstsq(x, rows.y.to_numpy(), rcond=None)
    assert effect.difference == pytest.approx(solution[0], rel=1e-9)
    # Weighed by size, the 100 of the first phase would have made it uncertain.
    assert effect.se is not None
    assert effect.se < 0.08


@pytest.mark.parametrize("method", ["sequential", "fixed", "bayes"])
def test_every_method_and_covariate_goes_with_phases(method: str) -> None:
    phases = [MOSTLY_C, HALVES, {"c": 0.2, "t": 0.8}]
    rows = world(np.random.default_rng(4), phases, (2_000, 2_000, 2_000), base=(0.0, 2.0, -1.0))
    rng = np.random.default_rng(5)
    rows["before"] = rng.normal(0.0, 1.0, len(rows))
    rows["y"] += 2.0 * rows.before + 0.5 * (rows.variant == "t")
    rows["device"] = np.where(rows.unit % 3 == 0, "tv", "mobile")
    plain = analysed(rows, phases, method=method)
    cuped = analysed(rows, phases, method=method, covariates={"y": "before"}, segments=["device"])
    for result in (plain, cuped):
        assert result.verdict.winner == "t"
        assert result.comparisons[0].difference == pytest.approx(0.5, abs=0.2)
    assert cuped.comparisons[0].variance_saved == pytest.approx(0.8, abs=0.05)
    for segment in cuped.heterogeneity[0].effects:
        assert segment.difference == pytest.approx(0.5, abs=0.2)


def test_quantiles_and_totals_go_with_phases() -> None:
    phases = [{"c": 0.9, "t": 0.1}, {"c": 0.1, "t": 0.9}]
    rows = world(np.random.default_rng(6), phases, (1_500, 1_500), base=(0.0, 5.0))
    for metric in (
        ab.MetricDesign(name="median", better="higher", metric=ab.Quantile("y", 0.5)),
        ab.MetricDesign(name="total", better="higher", metric=ab.Sum("y")),
    ):
        both = msgspec.structs.replace(design(phases), metrics=(PLAY, metric))
        result = ab.analyse(rows, both, phase="phase", method="fixed")
        effect = next(c for c in result.comparisons if c.metric == metric.name)
        # Pooled it would be 4.
        assert effect.difference == pytest.approx(0.0, abs=0.3)
        assert effect.call == "no_call"


def test_where_the_covariate_is_differs_by_phase_and_that_is_no_sign() -> None:
    phases = [{"c": 0.9, "t": 0.1}, {"c": 0.1, "t": 0.9}]
    rows = world(np.random.default_rng(7), phases, (1_500, 1_500))
    # Only those who came late have a history.
    rows["before"] = np.where(rows.phase == 1, rows.y, np.nan)
    result = analysed(rows, phases, covariates={"y": "before"})
    assert result.comparisons[0].reason == ""


def test_rows_a_unit_that_differ_by_phase_are_no_doing_of_the_variant() -> None:
    # Who came early comes oftener until now, and most of those are the control's.
    phases = [{"c": 0.9, "t": 0.1}, {"c": 0.1, "t": 0.9}]
    rows = world(np.random.default_rng(8), phases, (1_500, 1_500))
    early = rows[rows.phase == 0]
    rows = pd.concat([rows, early, early], ignore_index=True)
    result = analysed(rows, phases)
    assert not any(check.alarm for check in result.denominators)


# --- Crossovers


def test_units_that_changed_variant_with_the_shares_count_for_their_first() -> None:
    phases = [MOSTLY_C, HALVES]
    rows = world(np.random.default_rng(9), phases, (2_000, 2_000), returning=0.5)
    result = analysed(rows, phases)
    first = rows.sort_values("day", kind="stable").drop_duplicates("unit")
    assert result.units == {
        "c": int((first.variant == "c").sum()),
        "t": int((first.variant == "t").sum()),
    }
    variants = rows.groupby("unit").variant
    moved = variants.min() != variants.max()
    assert result.sample_ratio.moved == int(moved.sum()) > 300
    assert result.sample_ratio.mixed == 0
    assert "crossover_units" not in result.excluded
    assert any("changed variant" in note for note in result.notes)


def test_a_unit_in_two_variants_of_one_phase_is_left_out_unless_asked() -> None:
    rows = world(np.random.default_rng(10), [HALVES, MOSTLY_C], (600, 600))
    torn = rows[rows.unit < 50].assign(variant=lambda f: np.where(f.variant == "c", "t", "c"))
    both = pd.concat([rows, torn], ignore_index=True)
    left_out = analysed(both, [HALVES, MOSTLY_C])
    assert left_out.excluded["crossover_units"] == 50
    assert any("50 of 1,200 units (4.2%)" in note for note in left_out.notes)
    counted = analysed(both, [HALVES, MOSTLY_C], first_exposure=True)
    assert counted.excluded == {}
    assert counted.sample_ratio.moved == 50


def test_first_exposure_undoes_what_returners_drew_again() -> None:
    # 90/10, and who returns draws again: to leave those out makes 93/7 of it.
    rng = np.random.default_rng(11)
    shares = {"c": 0.9, "t": 0.1}
    first = pd.DataFrame(
        {"unit": np.arange(9_000), "variant": rng.choice(["c", "t"], 9_000, p=[0.9, 0.1]), "day": 1}
    )
    again = first[rng.random(9_000) < 0.6].assign(day=2)
    again["variant"] = rng.choice(["c", "t"], len(again), p=[0.9, 0.1])
    rows = pd.concat([first, again], ignore_index=True)
    rows["y"] = rng.normal(0.0, 1.0, len(rows))
    alone = ab.Design(key="k", control="c", shares=shares, metrics=(PLAY,))
    assert ab.analyse(rows, alone).sample_ratio.alarm
    kept_first = ab.analyse(rows, alone, first_exposure=True)
    assert not kept_first.sample_ratio.alarm
    assert sum(kept_first.units.values()) == 9_000
    table = ab.compare(
        rows,
        unit="unit",
        variant="variant",
        control="c",
        metrics={"y": ab.Mean("y")},
        time="day",
        first_exposure=True,
    )
    assert table.n[0] == kept_first.units["t"]
    assert table.reason[0] != "crossover_units"


# --- Plans, and days to go


def days_of(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with moments in place of numbers of days, each unit's at a time of its own."""
    within = np.arange(len(rows)) % 1_000 / 1_000
    moments = pd.Timestamp("2026-03-01") + pd.to_timedelta(rows.phase * 10 + within * 10, unit="D")
    return rows.assign(day=moments)


def since(phases: Sequence[Shares], traffic: Sequence[float]) -> ab.Design:
    """Phases of ten days each."""
    starts = [f"2026-03-{1 + 10 * number:02}T00:00:00Z" for number in range(len(phases))]
    made = []
    for shares, begins, ends, part in zip(
        phases, starts, [*starts[1:], None], traffic, strict=True
    ):
        made.append(ab.Phase(shares=shares, control="c", since=begins, until=ends, traffic=part))
    return msgspec.structs.replace(design(phases), phases=tuple(made))


def test_a_plan_is_by_the_shares_in_force_and_counts_the_rest_for_what_it_tells() -> None:
    phases = [MOSTLY_C, HALVES]
    units = (8_000, 2_000)
    rows = world(np.random.default_rng(21), phases, units, base=(10.0,))
    plan = ab.plan(
        days_of(rows), since(phases, [1.0, 1.0]), phase="phase", method="fixed", relative=[0.005]
    )
    (run,) = plan.runtimes
    count = rows.groupby(["phase", "variant"]).size()
    information = sum(
        count[p, "t"] * count[p, "c"] / (count[p, "t"] + count[p, "c"]) for p in (0, 1)
    )
    # At halves N units tell N/4: 10,000 units tell as much as some 3,500 of them.
    worth = 4.0 * information
    assert 3_000 < worth < 4_000
    assert plan.units_a_day == pytest.approx(10_000 / 20, rel=0.01)
    needed = 4.0 * (1.959964 + 0.841621) ** 2 * plan.sd**2 / (0.005 * plan.baseline) ** 2
    assert run.units == pytest.approx(needed, rel=2e-3)
    assert run.days == pytest.approx(run.units / plan.units_a_day)
    assert run.days_left == pytest.approx((run.units - worth) / plan.units_a_day)
    now = plan.detectable[0]
    assert (now.days, now.units) == (0, 10_000)
    se = plan.sd / np.sqrt(information)
    assert now.relative == pytest.approx((1.959964 + 0.841621) * se / plan.baseline, rel=2e-3)
    # What the analysis makes of the same rows has that standard error.
    (effect,) = analysed(rows, phases).comparisons
    assert effect.se == pytest.approx(se, rel=0.03)


def test_days_to_go_are_those_after_which_the_difference_would_be_called() -> None:
    """Phases are added at today's shares until the very analysis calls: it takes as many units as
    was said."""
    phases = [MOSTLY_C, HALVES]
    # The same outcomes over and over: a difference that stays as it is, and its spread too.
    effect, spread = 0.05, np.tile([-1.0, 1.0], 20_000)

    def called_after(more: int) -> ab.Comparison:
        counts = {(0, "c"): 7_600, (0, "t"): 400, (1, "c"): 1_000 + more // 2}
        counts[1, "t"] = 1_000 + more // 2
        parts = []
        for (phase, variant), n in counts.items():
            y = spread[:n] + effect * (variant == "t")
            parts.append(pd.DataFrame({"phase": phase, "variant": variant, "y": y}))
        rows = pd.concat(parts, ignore_index=True)
        rows["unit"] = np.arange(len(rows))
        rows["place"] = rows.groupby("phase").cumcount() / rows.groupby("phase").unit.transform(
            "size"
        )
        days = pd.to_timedelta(10.0 * (rows.phase + rows.place), unit="D")
        rows["day"] = pd.Timestamp("2026-03-01") + days
        table = since(phases, [1.0, 1.0])
        (row,) = ab.analyse(rows, table, phase="phase", method="sequential").comparisons
        return row

    first = called_after(0)
    assert first.call == "no_call"
    assert first.days_to_decision is not None
    a_day = 10_000 / 20
    needed = round(first.days_to_decision * a_day)
    assert called_after(round(0.98 * needed)).call == "no_call"
    assert called_after(round(1.02 * needed)).call == "better"


def test_traffic_to_come_is_that_in_force() -> None:
    # A tenth of the traffic for ten days, then all of it: ten times as many a day.
    phases = [HALVES, HALVES]
    rows = days_of(world(np.random.default_rng(22), phases, (500, 5_000), base=(10.0,)))
    of_traffic = since(phases, [0.1, 1.0])
    plan = ab.plan(rows, of_traffic, phase="phase")
    assert plan.units_a_day == pytest.approx(500.0, rel=0.01)
    assert ab.plan(rows, since(phases, [1.0, 1.0]), phase="phase").units_a_day == pytest.approx(
        275.0, rel=0.01
    )


def test_what_is_over_has_no_days_to_go() -> None:
    phases = [HALVES, {"c": 0.0, "t": 1.0}]
    rows = days_of(world(np.random.default_rng(23), phases, (2_000, 2_000), base=(10.0,)))
    plan = ab.plan(rows, since(phases, [1.0, 1.0]), phase="phase")
    assert plan.units_a_day is None
    assert plan.units == 2_000
    assert {run.days_left for run in plan.runtimes} == {None}


def test_a_variant_that_gets_nobody_any_more_has_no_days_to_go() -> None:
    three = {"c": 0.4, "t": 0.3, "u": 0.3}
    phases = [three, {"c": 0.5, "t": 0.5, "u": 0.0}]
    rows = days_of(world(np.random.default_rng(24), phases, (3_000, 2_000), base=(10.0,)))
    by_name = {
        c.variant: c for c in ab.analyse(rows, since(phases, [1.0, 1.0]), phase="phase").comparisons
    }
    assert by_name["u"].days_to_decision is None
    plan = ab.plan(rows, since(phases, [1.0, 1.0]), phase="phase")
    assert {run.variant for run in plan.runtimes} == {"t"}


# --- What cannot be meant


def test_phases_that_do_not_fit_are_refused() -> None:
    rows = world(np.random.default_rng(12), [HALVES], (50,))
    with pytest.raises(BadRequest, match="design without phases"):
        ab.analyse(rows, msgspec.structs.replace(design([HALVES]), phases=()), phase="phase")
    with pytest.raises(BadData, match="50 rows have a number"):
        analysed(rows.assign(phase=7), [HALVES])
    with pytest.raises(BadData, match="expected whole numbers"):
        analysed(rows.assign(phase="first"), [HALVES])
    with pytest.raises(BadRequest, match="no such column"):
        ab.analyse(rows, design([HALVES]), phase="stage")
