"""Covariates from before the experiment: declared in its file, taken from the record, worth what
the report says.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from topbill import reporting, spec
from topbill.ab import Mean, Proportion, compare
from topbill.domain.decision import decision_rows, reward_rows
from topbill.domain.errors import SpecError
from topbill.domain.origin import Origin
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.lake import Lake
from topbill.reporting.experiment import plan

NOW, HOUR = 1_700_000_000_000_000, 3_600_000_000
UNITS = 1_500
FILE = """
experiment: art
surface: artwork
unit: profile_id
context:
  minutes_last_month: {type: number, min: 0, max: 100}
  device: {type: category, values: [tv]}
actions: [{id: a}, {id: b}]
metrics:
  play: {event: play, kind: binary, window: 1h, covariate: 2d}
  watched: {event: watched, kind: sum, window: 1h, cap: 50, covariate: minutes_last_month}
  rated: {event: rated, kind: last, window: 1h, default: 3}
objective: OBJECTIVE
variants:
  old: {policy: uniform, share: 50%, control: true}
  new: {policy: uniform, share: 50%}
"""


@dataclass
class World:
    """The data folder, and per unit what was put into it."""

    data: Path
    units: pd.DataFrame


def build(folder: Path, objective: str = "{play: 1.0, watched: 1.0}") -> World:
    """Units that like plays or not: what they did in another experiment before (and also after)
    tells how much.
    """
    rng = np.random.default_rng(0)
    liking = rng.beta(0.5, 0.5, UNITS)
    before = rng.poisson(6.0 * liking)
    minutes = np.round(100.0 * np.clip(liking + rng.normal(0.0, 0.1, UNITS), 0.0, 1.0), 2)
    plays = rng.random((UNITS, 2)) < liking[:, None]
    watched = np.round(plays[:, 0] * 40.0 * liking + rng.random(UNITS), 3)
    folder.mkdir(exist_ok=True)
    (folder / "art.yaml").write_text(FILE.replace("OBJECTIVE", objective))
    art = spec.load(folder / "art.yaml")
    decisions, events = [], []
    for u in range(UNITS):
        decisions.append(decided(f"old{u}", "older", "x", u, NOW - 60 * HOUR, {}))
        long_ago = [NOW - 59 * HOUR] * 3  # earlier than two days: not counted
        lately = [NOW - 30 * HOUR + i for i in range(before[u])]
        later = [NOW + 5 * HOUR] * 7  # after the unit's first decision: not counted either
        events += [
            RewardEvent(decision_id=f"old{u}", event_id="", event="play", received_at=at)
            for at in long_ago + lately + later
        ]
        for i in range(2):
            arm = "new" if u % 2 else "old"
            context = {"minutes_last_month": float(minutes[u]) if i == 0 else 77.0}
            decisions.append(decided(f"d{u}-{i}", "art", arm, u, NOW + i * HOUR, context))
            at = NOW + i * HOUR + 1_000
            if plays[u, i]:
                events.append(
                    RewardEvent(decision_id=f"d{u}-{i}", event_id="", event="play", received_at=at)
                )
            if i == 0:
                events.append(
                    RewardEvent(
                        decision_id=f"d{u}-0",
                        event_id="",
                        event="watched",
                        value=float(watched[u]),
                        received_at=at,
                    )
                )
    events = [msgspec.structs.replace(e, event_id=str(i)) for i, e in enumerate(events)]
    lake, by_id = Lake(folder / "data"), {d.decision_id: Origin.of(d) for d in decisions}
    lake.append("decisions", decision_rows(list(enumerate(decisions, 1))), len(decisions))
    lake.append(
        "rewards",
        reward_rows([(i, e, by_id[e.decision_id]) for i, e in enumerate(events, 1)]),
        len(events),
    )
    lake.write_database([art], NOW + 48 * HOUR)
    rows = {"unit": np.arange(UNITS), "arm": np.where(np.arange(UNITS) % 2, "new", "old")}
    rows |= {
        "before": before,
        "minutes": minutes,
        "plays": plays.mean(axis=1),
        "watched": watched / 2.0,
    }
    return World(folder / "data", pd.DataFrame(rows))


def decided(
    number: str, experiment: str, variant: str, unit: int, at: int, context: dict[str, float]
) -> Decision:
    return Decision(
        decision_id=number,
        experiment=experiment,
        revision="r",
        variant=variant,
        unit=f"u{unit}",
        context=msgspec.Raw(json.dumps(context).encode()),
        eligible=("a", "b"),
        slate=(Placement(0, "a", 0.5),),
        propensity=0.5,
        probabilities=((0.5, 0.5),),
        policy="uniform",
        reason="policy",
        decided_at=at,
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("before"))


def by_metric(found: reporting.Report) -> dict[str, object]:
    assert found.ab is not None
    return {c.metric: c for c in found.ab.comparisons}


@pytest.mark.parametrize(
    ("metric", "value", "covariate"),
    [("play", "plays", "before"), ("watched", "watched", "minutes")],
)
def test_the_report_adjusts_by_what_units_did_before_their_first_decision(
    world: World, metric: str, value: str, covariate: str
) -> None:
    """Units have two decisions each, so means over decisions are means over units of the unit's
    mean.
    """
    got = by_metric(reporting.load("art", world.data))[metric]
    table = {
        adjusted: compare(
            world.units,
            unit="unit",
            variant="arm",
            control="old",
            metrics={"m": Mean(value)},
            covariates={"m": covariate} if adjusted else None,
        ).iloc[0]
        for adjusted in (False, True)
    }
    assert (got.difference, got.se) == pytest.approx(
        (table[True].difference, table[True].se), rel=1e-9
    )
    assert got.variance_saved == pytest.approx(
        1.0 - (table[True].se / table[False].se) ** 2, rel=1e-9
    )
    assert got.variance_saved > 0.4


def test_the_objective_is_adjusted_by_its_metrics_past_and_a_metric_without_one_is_left_alone(
    world: World,
) -> None:
    found = by_metric(reporting.load("art", world.data))
    assert found["objective"].variance_saved > 0.4
    assert found["rated"].variance_saved is None


def test_text_html_and_json_say_how_much_variance_it_saved(world: World) -> None:
    found = reporting.load("art", world.data)
    saved = by_metric(found)["play"].variance_saved
    told = f"play: what units did before takes away {saved:.0%} of the variance"
    out = io.StringIO()
    reporting.render_text(found, Console(file=out, width=200))
    assert told in out.getvalue()
    assert told in reporting.to_html(found)
    comparisons = json.loads(reporting.to_json(found))["ab"]["comparisons"]
    assert next(c for c in comparisons if c["metric"] == "play")["variance_saved"] == pytest.approx(
        saved
    )


def test_a_plan_needs_fewer_units_by_what_the_past_saves(world: World, tmp_path: Path) -> None:
    planned = plan.plan("art", world.data, metric="play", lifts=[0.05])
    plain = compare(
        world.units,
        unit="unit",
        variant="arm",
        control="old",
        metrics={"m": Mean("plays")},
        method="fixed",
    ).iloc[0]
    assert planned.sd is not None
    assert planned.sd < 0.8 * plain.se * UNITS**0.5 / 2.0


def test_an_objective_of_one_metric_takes_that_metrics_past(tmp_path: Path) -> None:
    found = reporting.load("art", build(tmp_path, "{play: 1.0}").data)
    assert found.ab is not None
    assert found.ab.primary == "play"
    assert found.ab.comparisons[0].variance_saved > 0.4


def test_a_decision_without_an_event_has_the_metrics_default(world: World) -> None:
    assert by_metric(reporting.load("art", world.data))["rated"].value == 3.0


@pytest.mark.parametrize(
    ("covariate", "expected"),
    [
        ("device", "one of the numbers in context"),
        ("minutes_last_mont", "did you mean minutes_last_month?"),
        ("7", "a duration such as 28d, or the name of a number in context"),
        ("0d", "a duration above 0s"),
    ],
)
def test_a_past_that_cannot_be_meant_is_refused(
    tmp_path: Path, covariate: str, expected: str
) -> None:
    file = tmp_path / "art.yaml"
    file.write_text(
        FILE.replace("OBJECTIVE", "{play: 1.0}").replace("covariate: 2d", f"covariate: {covariate}")
    )
    with pytest.raises(SpecError, match=r"metrics\.play\.covariate") as caught:
        spec.load(file)
    assert expected in str(caught.value)


def test_a_proportion_is_adjusted_like_a_mean() -> None:
    rng = np.random.default_rng(1)
    x = rng.random(4_000)
    frame = pd.DataFrame(
        {"arm": np.where(np.arange(4_000) % 2, "new", "old"), "x": x, "y": rng.random(4_000) < x}
    )
    table = [
        compare(
            frame,
            unit=None,
            variant="arm",
            control="old",
            metrics={"y": kind("y")},
            covariates={"y": "x"},
        ).iloc[0]
        for kind in (Proportion, Mean)
    ]
    assert table[0].se == pytest.approx(table[1].se, rel=1e-9)
