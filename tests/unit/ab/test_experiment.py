"""A whole experiment: the sentence follows from the numbers, guardrails can veto, a bad split
withholds it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from topbill import ab, spec
from topbill.domain.errors import BadRequest

DESIGN = ab.Design(
    key="home",
    control="editorial",
    shares={"editorial": 0.2, "thompson": 0.4, "linucb": 0.4},
    metrics=(
        ab.MetricDesign(name="play", binary=True, weight=1.0),
        ab.MetricDesign(name="watched"),
        ab.MetricDesign(name="abandon", binary=True, better="lower"),
    ),
    guardrails={"abandon": 0.05},
)


def decisions(
    units: int = 12_000,
    play: dict[str, float] | None = None,
    abandon: dict[str, float] | None = None,
    shares: dict[str, float] | None = None,
    seed: int = 0,
    device_lift: float = 0.0,
) -> pd.DataFrame:
    """Decisions of units that came on ten days; play 40% and abandon 30% times a factor by
    variant.
    """
    rng = np.random.default_rng(seed)
    names = list(DESIGN.shares)
    variant = rng.choice(names, units, p=list((shares or DESIGN.shares).values()))
    taste = rng.beta(8, 12, units)
    sizes = 1 + rng.poisson(1.0, units)
    unit = np.repeat(np.arange(units), sizes)
    v, n = variant[unit], len(unit)
    device = rng.choice(["tv", "mobile"], units)[unit]
    factor = np.array([(play or {}).get(x, 1.0) for x in v]) + device_lift * (device == "tv") * (
        v != "editorial"
    )
    played = rng.random(n) < taste[unit] * factor
    return pd.DataFrame(
        {
            "unit": unit,
            "variant": v,
            "day": rng.integers(1, 11, units)[unit],
            "device": device,
            "play": played,
            "watched": played * rng.random(n),
            "abandon": rng.random(n) < 0.3 * np.array([(abandon or {}).get(x, 1.0) for x in v]),
        }
    )


def run(data: pd.DataFrame, design: ab.Design = DESIGN, **arguments: Any) -> ab.Analysis:
    found = ab.analyse(data, design, **arguments)
    text = msgspec.json.encode(found)
    assert b"NaN" not in text
    again = msgspec.json.decode(text, type=ab.Analysis)
    assert again.verdict == found.verdict
    for c in found.comparisons:
        assert all(math.isfinite(x) for x in msgspec.structs.astuple(c) if isinstance(x, float))
    return found


BETTER = {"thompson": 1.15, "linucb": 1.08}


def test_a_clear_winner_that_keeps_its_guardrail_is_safe_to_ship() -> None:
    found = run(decisions(play=BETTER, abandon={"thompson": 0.8}))
    c = found.comparisons[0]
    assert (c.metric, c.variant, c.call) == ("play", "thompson", "better")
    assert found.verdict.winner == "thompson"
    assert found.verdict.safe_to_ship
    assert found.verdict.codes == ["beats_control", "guardrails_kept"]
    assert c.relative is not None
    assert found.verdict.sentence.startswith(
        f"thompson beats editorial: {c.relative:+.1%} play, between +"
    )
    assert found.verdict.sentence.endswith("; abandon not worse; safe to ship.")


def test_a_guardrail_that_is_worse_vetoes() -> None:
    found = run(decisions(play=BETTER, abandon={"thompson": 1.4}))
    assert found.verdict.winner is None
    assert "guardrail_worse" in found.verdict.codes
    assert "but abandon is worse by" in found.verdict.sentence
    assert found.verdict.sentence.endswith("do not ship.")


def test_a_guardrail_that_is_not_decided_keeps_the_experiment_running() -> None:
    found = run(decisions(play=BETTER))
    assert not found.verdict.safe_to_ship
    assert found.verdict.codes == ["beats_control", "guardrail_undecided"]
    assert found.verdict.sentence.endswith("keep it running.")


def test_a_guardrail_without_events_cannot_be_judged() -> None:
    found = run(decisions(play=BETTER).assign(abandon=False))
    assert [g.status for g in found.guardrails] == ["unknown", "unknown"]
    assert "guardrail_unknown" in found.verdict.codes
    assert not found.verdict.safe_to_ship


def test_no_difference_says_so_and_how_long_it_may_take() -> None:
    found = run(decisions(units=3_000, seed=5))
    assert found.verdict.codes == ["no_call"]
    assert found.verdict.sentence.startswith("No difference shown yet between")


def test_variants_that_are_all_worse_are_not_shipped() -> None:
    found = run(decisions(play={"thompson": 0.85, "linucb": 0.8}))
    assert found.verdict.codes == ["worse_than_control"]
    assert found.verdict.sentence.endswith("do not ship.")


def test_a_split_that_is_off_withholds_the_verdict_whatever_the_numbers_say() -> None:
    found = run(decisions(play=BETTER, shares={"editorial": 0.25, "thompson": 0.4, "linucb": 0.35}))
    assert found.sample_ratio.alarm
    assert found.verdict.codes == ["sample_ratio_mismatch"]
    assert found.verdict.winner is None
    assert "not split as intended" in found.verdict.sentence


def test_the_split_is_told_per_day_and_segment() -> None:
    ratio = run(decisions(), segments=["device"]).sample_ratio
    assert [d.value for d in ratio.days] == [str(d) for d in range(1, 11)]
    assert {s.value for s in ratio.segments} == {"tv", "mobile"}
    assert sum(sum(d.counts.values()) for d in ratio.days) == sum(ratio.counts.values()) == 12_000


def test_lower_is_better_where_the_metric_says_so() -> None:
    found = run(decisions(abandon={"thompson": 0.7, "linucb": 1.4}))
    calls = {c.variant: c for c in found.comparisons if c.metric == "abandon"}
    assert (calls["thompson"].call, calls["linucb"].call) == ("better", "worse")
    assert (calls["thompson"].chance_to_win or 0.0) > 0.99
    assert calls["linucb"].chance_to_win == pytest.approx(0.0, abs=0.01)
    guard = {g.variant: g.status for g in found.guardrails}
    assert guard == {"thompson": "not_worse", "linucb": "worse"}


def test_an_objective_of_several_metrics_is_computed_as_the_experiment_defines_it() -> None:
    experiment = spec.load(Path(__file__).parents[3] / "experiments" / "home-artwork.yaml")
    rng = np.random.default_rng(0)
    metrics, names = experiment.metrics, [v.name for v in experiment.variants]
    values = {
        m.name: 3 * rng.random(40) if m.kind != "binary" else 1.0 * (rng.random(40) < 0.5)
        for m in metrics
    }
    data = pd.DataFrame(
        {"unit": range(40), "variant": [names[i % len(names)] for i in range(40)], **values}
    )
    found = ab.analyse(data, experiment, day=None)
    assert found.control == experiment.control.name
    assert found.units == {name: data.variant.eq(name).sum() for name in names}
    assert found.primary == "objective"
    by_hand = [experiment.goal.value({m: float(values[m][i]) for m in values}) for i in range(40)]
    first = found.comparisons[0]
    mine = [b for b, v in zip(by_hand, data.variant, strict=True) if v == first.variant]
    assert first.value == pytest.approx(np.mean(mine))


def test_an_objective_column_that_is_there_is_used() -> None:
    weighted = tuple(msgspec.structs.replace(m, weight=0.5) for m in DESIGN.metrics[:2])
    design = msgspec.structs.replace(DESIGN, metrics=(*weighted, DESIGN.metrics[2]))
    data = decisions(2_000)
    computed = run(data, design)
    given = run(data.assign(objective=0.5 * data.play + 0.5 * data.watched), design)
    assert computed.primary == given.primary == "objective"
    assert computed.comparisons[0].difference == pytest.approx(given.comparisons[0].difference)


@pytest.mark.parametrize("method", ["sequential", "fixed", "bayes", "group-sequential"])
def test_every_method_gives_a_verdict(method: Any) -> None:
    found = run(decisions(play=BETTER, abandon={"thompson": 0.7}), method=method)
    assert found.verdict.winner == "thompson"


def test_effects_that_do_not_differ_between_segments_are_drawn_together() -> None:
    found = run(decisions(play=BETTER), segments=["device"])
    thompson = found.heterogeneity[0]
    assert (thompson.segment, thompson.variant) == ("device", "thompson")
    assert (thompson.p_value or 0.0) > 0.01
    raw = [e.difference or 0.0 for e in thompson.effects]
    shrunken = [e.shrunken or 0.0 for e in thompson.effects]
    assert abs(shrunken[0] - shrunken[1]) <= abs(raw[0] - raw[1])


def test_effects_that_differ_between_segments_stay_apart_and_are_told() -> None:
    found = run(decisions(units=30_000, device_lift=0.3), segments=["device"])
    for h in found.heterogeneity:
        assert (h.p_adjusted or 1.0) < 1e-4
        effects = {e.value: e for e in h.effects}
        assert (effects["tv"].shrunken_low or 0.0) > (effects["mobile"].shrunken_high or 1.0)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (decisions(50).iloc[:0], "no_traffic"),
        (decisions(500).query("variant == 'editorial'"), "no_traffic"),
        (
            decisions(500).query("variant != 'editorial'").groupby("variant").head(3),
            "missing_control",
        ),
        (decisions(500).groupby("variant").head(1), "too_few_units"),
    ],
)
def test_data_too_weak_for_a_verdict_says_why(data: pd.DataFrame, code: str) -> None:
    # A handful of units, so that a lopsided split is still within chance.
    found = run(data.groupby("variant").head(3) if code == "no_traffic" else data)
    assert found.verdict.codes == [code]
    assert found.verdict.sentence.startswith("Nothing to say yet: ")


def test_decisions_outside_the_experiment_are_left_out() -> None:
    data = decisions(2_000)
    outside = data.assign(unit=data.unit + 10_000, variant=None)
    assert run(pd.concat([data, outside])).units == run(data).units


def test_a_covariate_narrows_the_interval() -> None:
    data = decisions(4_000)
    before = data.groupby("unit").play.transform(
        "mean"
    )  # stands in for a measure from before the experiment
    plain, adjusted = run(data), run(data.assign(before=before), covariates={"play": "before"})
    assert (adjusted.comparisons[0].se or 1.0) < 0.8 * (plain.comparisons[0].se or 0.0)


def test_a_missing_metric_column_is_named() -> None:
    with pytest.raises(BadRequest, match=r"data\.abandon"):
        ab.analyse(decisions(50).drop(columns="abandon"), DESIGN)


def test_a_plan_follows_from_the_experiments_own_traffic() -> None:
    found = ab.plan(decisions(4_000), DESIGN, method="fixed", relative=[0.05, 0.10])
    assert (found.metric, found.units, found.units_a_day) == ("play", 4_000, 400.0)
    assert found.baseline == pytest.approx(0.4, abs=0.03)
    runs = {(r.variant, r.relative): r for r in found.runtimes}
    assert set(runs) == {(v, lift) for v in ("thompson", "linucb") for lift in (0.05, 0.10)}
    small, large = runs["thompson", 0.05], runs["thompson", 0.10]
    assert (small.units or 0) == pytest.approx(4 * (large.units or 0), rel=0.01)
    assert small.days == pytest.approx((small.units or 0) / (400.0 * 0.6))
    peeking = ab.plan(decisions(4_000), DESIGN, relative=[0.05]).runtimes[0]
    assert (peeking.units or 0) > (small.units or 0)


def test_a_plan_without_traffic_says_why() -> None:
    assert ab.plan(decisions(50).iloc[:0], DESIGN).reason == "no_traffic"
    with pytest.raises(BadRequest, match="expected one of play"):
        ab.plan(decisions(50), DESIGN, metric="clicks")
