"""Phases: a report whose file was changed on the way reads each decision under the shares in force
when its unit came, and goes on saying what it can.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from topbill import reporting
from topbill.domain.decision import decision_rows, reward_rows
from topbill.domain.errors import BadRequest
from topbill.domain.origin import Origin
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.engine.compiled import CompiledExperiment
from topbill.lake import Lake
from topbill.reporting.experiment.plan import plan
from topbill.reporting.experiment.wording import standing
from topbill.reporting.queries import action_values, series
from topbill.spec import Experiment, from_audit

pytestmark = pytest.mark.usefixtures("engine")

DAY = 86_400_000_000
START = 20_000 * DAY  # 2024-10-04
ACTIONS: list[dict[str, Any]] = [{"id": "x"}, {"id": "y"}]


class Line(NamedTuple):
    """A line of the audit."""

    experiment: str
    revision: str
    at: int
    who: str
    spec: str


class Stage(NamedTuple):
    """A day or more under one file: which units came, and at what rate they click."""

    experiment: Experiment
    units: Sequence[int]
    rate: float = 0.3
    days: int = 1


def experiment(
    shares: dict[str, int], *, control: str = "", traffic: int = 100, **more: Any
) -> Experiment:
    """An experiment with those shares (in per cent); the first variant is the control unless
    another is."""
    control = control or next(iter(shares))
    variants = {}
    for name, share in shares.items():
        variants[name] = {"policy": "uniform", "share": f"{share}%"}
        if name == control:
            variants[name]["control"] = True
    raw = {
        "experiment": "home",
        "surface": "artwork",
        "unit": "profile",
        "traffic": f"{traffic}%",
        "actions": ACTIONS,
        "metrics": {"click": {"event": "click", "kind": "binary", "window": "60s"}},
        "objective": {"click": 1.0},
        "variants": variants,
        **more,
    }
    return from_audit(json.dumps(raw), "home.yaml")


def record(
    folder: Path,
    stages: Sequence[Stage],
    *,
    lift: dict[str, float] | None = None,
    seed: int = 0,
    audited: bool = True,
) -> None:
    """A lake of those stages, one after the other: each unit of one decides once a stage, and is
    assigned by the engine's own hash."""
    rng = np.random.default_rng(seed)
    decisions: list[Decision] = []
    events: list[RewardEvent] = []
    audit: list[Line] = []
    day = 0
    for stage in stages:
        compiled = CompiledExperiment(stage.experiment)
        begins, ends = START + day * DAY, START + (day + stage.days) * DAY
        raw = msgspec.json.encode(stage.experiment.raw).decode()
        if not audit or audit[-1].revision != compiled.revision:
            audit.append(Line("home", compiled.revision, begins + 1_000_000, "me", raw))
        times = np.sort(rng.integers(begins, ends - DAY // 100, len(stage.units)))
        draws = rng.random(len(stage.units))
        for number, at, draw in zip(stage.units, times, draws, strict=True):
            variant, reason = compiled.assign(f"u{number}")
            decision_id = f"d{len(decisions)}"
            decisions.append(
                Decision(
                    decision_id=decision_id,
                    experiment="home",
                    revision=compiled.revision,
                    variant=variant.name if variant else None,
                    unit=f"u{number}",
                    eligible=("x", "y"),
                    slate=(Placement(0, "x", 0.5),),
                    propensity=0.5,
                    probabilities=((0.5, 0.5),),
                    policy="uniform",
                    reason=reason,
                    latency_us=100,
                    decided_at=int(at),
                )
            )
            chance = stage.rate + (lift or {}).get(variant.name if variant else "", 0.0)
            if draw < chance:
                events.append(
                    RewardEvent(
                        decision_id=decision_id,
                        event_id=f"e{decision_id}",
                        event="click",
                        value=1.0,
                        received_at=int(at) + 1_000_000,
                    )
                )
        day += stage.days
    lake = Lake(folder)
    lake.append("decisions", decision_rows(list(enumerate(decisions, 1))), len(decisions))
    by_id = {d.decision_id: Origin.of(d) for d in decisions}
    rows = [(seq, e, by_id[e.decision_id]) for seq, e in enumerate(events, 1)]
    if rows:
        lake.append("rewards", reward_rows(rows), len(rows))
    at = START + (day + 1) * DAY
    lake.write_database([stages[-1].experiment], at, audit if audited else ())


THIRDS = {"old": 34, "fresh": 33, "learned": 33}
MOST_FRESH = {"old": 20, "fresh": 60, "learned": 20}


def test_shares_that_were_changed_and_put_back_withhold_nothing(tmp_path: Path) -> None:
    before, after = experiment(THIRDS), experiment(MOST_FRESH)
    stages = [
        Stage(before, range(2_000), 0.2),
        Stage(after, range(1_000, 4_000), 0.4),
        Stage(before, range(3_500, 5_000), 0.1),
    ]
    record(tmp_path, stages)
    report = reporting.load_experiment_report("home", tmp_path)
    assert report.ab is not None
    assert not report.ab.sample_ratio.alarm
    assert "withheld" not in report.ab.verdict.sentence
    assert [p.shares["fresh"] for p in report.phases] == [0.33, 0.6, 0.33]
    assert [sum(p.units.values()) for p in report.phases] == [2_000, 2_000, 1_000]
    assert all(p.srm_p is not None and p.srm_p > 1e-3 for p in report.phases)
    assert report.phases[1].changed == ["old 34% → 20%", "fresh 33% → 60%", "learned 33% → 20%"]
    assert report.phases[0].until == report.phases[1].since
    assert report.phases[-1].until is None
    # 14% and 13% of the hash change variant with the shares, of the 1,500 who came back.
    assert 350 < report.ab.sample_ratio.moved < 460
    assert report.ab.sample_ratio.mixed == 0
    # Each once, also who stands in two variants' lines.
    assert report.units == 5_000
    assert sum(line.units for line in report.variants) > 5_000
    assert any("shares were changed on 2024-10-05" in note for note in report.ab.notes)
    off = msgspec.structs.replace(report.ab.verdict, codes=["sample_ratio_mismatch"])
    withheld = msgspec.structs.replace(report, ab=msgspec.structs.replace(report.ab, verdict=off))
    # What the record itself tells of is no guess at bots.
    step = standing(withheld).next
    assert step.startswith(
        "Shares were changed on 2024-10-05 and 2024-10-06, and there is a sample ratio mismatch"
    )
    assert step.endswith("Read no lift before.")
    assert "bots" not in step
    as_json = json.loads(reporting.to_json(report))
    assert {"since", "until", "shares", "units", "srm_p"} <= as_json["phases"][0].keys()


def test_the_pooled_counts_would_have_withheld_it(tmp_path: Path) -> None:
    stages = [
        Stage(experiment(THIRDS), range(2_000)),
        Stage(experiment(MOST_FRESH), range(2_000, 5_000)),
    ]
    record(tmp_path, stages, audited=False)
    report = reporting.load_experiment_report("home", tmp_path)
    # Without an audit nothing tells that shares were others once.
    assert len(report.phases) == 1
    assert report.ab is not None
    assert report.ab.sample_ratio.alarm


def test_base_rates_that_drift_make_no_effect(tmp_path: Path) -> None:
    # Simpson's: the variant's share grew while everything got better.
    stages = [
        Stage(experiment({"old": 90, "new": 10}), range(3_000), 0.1),
        Stage(experiment({"old": 10, "new": 90}), range(3_000, 6_000), 0.5),
    ]
    record(tmp_path, stages)
    report = reporting.load_experiment_report("home", tmp_path)
    assert report.ab is not None
    (click,) = report.ab.comparisons
    assert click.call == "no_call"
    assert click.difference is not None
    assert abs(click.difference) < 0.06  # pooled it would be 0.3


def test_the_winner_that_was_shipped_is_still_compared(tmp_path: Path) -> None:
    stages = [
        Stage(experiment({"old": 50, "new": 50}), range(4_000)),
        Stage(experiment({"new": 100}), range(2_000, 8_000)),
    ]
    record(tmp_path, stages, lift={"new": 0.15})
    report = reporting.load_experiment_report("home", tmp_path)
    assert report.ab is not None
    assert report.ab.verdict.sentence.startswith(
        "In the last phase with several variants, until 2024-10-05 00:00 UTC: new beats old: "
    )
    assert report.ab.control == "old"
    assert sum(report.ab.units.values()) == 4_000
    assert report.excluded["one_variant"] == 4_000
    assert report.phases[1].units == {"new": 6_000}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"old": 50, "new": 50}, {"old": 100, "new": 0}),  # rolled back
        ({"old": 95, "new": 5}, {"old": 50, "new": 50}),  # ramped up
        ({"old": 50, "new": 50}, {"old": 34, "new": 33, "third": 33}),  # one joined
        ({"old": 34, "new": 33, "third": 33}, {"old": 50, "new": 50}),  # one left
    ],
)
def test_a_verdict_never_disappears(
    tmp_path: Path, first: dict[str, int], second: dict[str, int]
) -> None:
    stages = [
        Stage(experiment(first), range(4_000)),
        Stage(experiment(second), range(3_000, 8_000)),
    ]
    record(tmp_path, stages, lift={"new": 0.15})
    report = reporting.load_experiment_report("home", tmp_path)
    assert report.ab is not None
    assert "new beats old" in report.ab.verdict.sentence
    assert not report.ab.sample_ratio.alarm


def test_a_copied_folder_has_the_same_report(tmp_path: Path) -> None:
    stages = [
        Stage(experiment({"old": 80, "new": 20}), range(300)),
        Stage(experiment({"old": 50, "new": 50}), range(200, 600)),
    ]
    record(tmp_path / "here", stages)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    here, there = (
        reporting.load_experiment_report("home", tmp_path / at) for at in ("here", "there")
    )
    assert len(there.phases) == 2
    assert reporting.to_json(there) == reporting.to_json(here)


def test_a_control_that_changed_is_compared_with_over_all(tmp_path: Path) -> None:
    stages = [
        Stage(experiment({"old": 50, "new": 50}), range(3_000)),
        Stage(experiment({"old": 50, "new": 50}, control="new"), range(3_000, 6_000)),
    ]
    record(tmp_path, stages, lift={"new": 0.15})
    report = reporting.load_experiment_report("home", tmp_path)
    assert report.ab is not None
    assert report.ab.verdict.sentence.startswith("old is worse than new")
    assert report.phases[1].changed == ["control old → new"]
    assert report.ab.comparisons[0].n > 2_500  # both phases, of equal shares


def test_a_variant_that_joins_is_compared_on_what_came_since(tmp_path: Path) -> None:
    # The old hands all came before it joined: they are its only viewers.
    stages = [
        Stage(experiment({"old": 50, "new": 50}), range(3_000), 0.1),
        Stage(experiment({"old": 34, "new": 33, "third": 33}), range(3_000), 0.3),
    ]
    record(tmp_path, stages, lift={"third": 0.2})
    report = reporting.load_experiment_report("home", tmp_path)
    assert report.ab is not None
    third = next(c for c in report.ab.comparisons if c.variant == "third")
    assert third.call == "better"
    assert third.n > 900


def test_traffic_alone_makes_a_phase_and_no_stratum(tmp_path: Path) -> None:
    halves = {"old": 50, "new": 50}
    stages = [
        Stage(experiment(halves, traffic=5), range(3_000)),
        Stage(experiment(halves), range(3_000)),
    ]
    record(tmp_path, stages)
    report = reporting.load_experiment_report("home", tmp_path)
    assert report.ab is not None
    assert [p.traffic for p in report.phases] == [0.05, 1.0]
    assert report.phases[1].changed == ["traffic 5% → 100%"]
    assert "thin_strata" not in report.excluded
    assert sum(report.ab.units.values()) == 3_000
    assert report.excluded["not_in_experiment"] > 2_500
    assert not any("shares were changed" in note for note in report.ab.notes)


def test_a_title_that_changes_is_no_phase(tmp_path: Path) -> None:
    halves = {"old": 50, "new": 50}
    stages = [
        Stage(experiment(halves), range(1_000)),
        Stage(experiment(halves, title="Another"), range(1_000, 2_000)),
    ]
    record(tmp_path, stages)
    (phase,) = reporting.load_experiment_report("home", tmp_path).phases
    assert len(phase.revisions) == 2
    assert sum(phase.units.values()) == 2_000


def test_a_thin_phase_is_left_out_and_counted(tmp_path: Path) -> None:
    stages = [
        Stage(experiment({"old": 50, "new": 50}), range(2_000)),
        Stage(experiment({"old": 90, "new": 10}), range(2_000, 2_020)),
    ]
    record(tmp_path, stages)
    report = reporting.load_experiment_report("home", tmp_path)
    assert report.excluded["thin_strata"] == 20
    assert report.ab is not None
    assert report.ab.comparisons[0].n + report.ab.comparisons[0].n_control == 2_000


def test_a_split_that_is_wrong_in_one_phase_is_found_there(tmp_path: Path) -> None:
    first, second = experiment({"old": 50, "new": 50}), experiment({"old": 30, "new": 70})
    # In the second phase the service went on by the first one's shares.
    stages = [Stage(first, range(3_000)), Stage(first, range(3_000, 7_000))]
    record(tmp_path / "wrong", stages)
    lines = []
    for at, e in ((START, first), (START + DAY, second)):
        raw = msgspec.json.encode(e.raw).decode()
        lines.append(Line("home", e.fingerprint, at, "me", raw))
    lake = Lake(tmp_path / "wrong")
    lines[1] = lines[1]._replace(revision=first.fingerprint)
    lake.write_database([second], START + 3 * DAY, lines)
    report = reporting.load_experiment_report("home", tmp_path / "wrong")
    assert report.ab is not None
    assert report.ab.verdict.sentence.startswith(
        "Sample ratio mismatch (SRM): units were not split as intended in the phase since "
        "2024-10-05 00:00 "
    )
    assert "meant old 30.0%, new 70.0%" in report.ab.verdict.sentence


def test_a_part_is_read_by_time_and_by_revision(tmp_path: Path) -> None:
    before, after = experiment({"old": 50, "new": 50}), experiment({"old": 20, "new": 80})
    record(tmp_path, [Stage(before, range(1_000)), Stage(after, range(500, 3_000))])
    first = reporting.load_experiment_report("home", tmp_path, until="2024-10-05")
    second = reporting.load_experiment_report("home", tmp_path, since="2024-10-05T00:00:00Z")
    assert (first.decisions, second.decisions) == (1_000, 2_500)
    assert [p.shares for p in first.phases] == [{"old": 0.5, "new": 0.5}]
    assert [p.shares for p in second.phases] == [{"old": 0.2, "new": 0.8}]
    assert second.ab is not None
    # Within the part each unit counts as it came into it.
    assert sum(second.ab.units.values()) == 2_500
    # An empty part says nothing of whether the service is asked.
    empty = reporting.load_experiment_report("home", tmp_path, since="2030-01-01")
    (note,) = empty.notes
    assert note.sentence.startswith("No decision is in this part of the record: since 2030-01-01")
    assert second.ab.sample_ratio.moved == 0
    for revision in (before.fingerprint, before.fingerprint[:6]):
        part = reporting.load_experiment_report("home", tmp_path, revision=revision)
        assert part.units == first.units
        assert part.ab is not None
        assert first.ab is not None
        assert part.ab.comparisons == first.ab.comparisons
    assert second.notes[0].sentence == "This is a part of the record: since 2024-10-05T00:00:00Z."


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ({"since": "yesterday"}, "since"),
        ({"since": "2024-10-05", "until": "2024-10-05"}, "until"),
        ({"revision": "0000"}, "revision"),
        ({"revision": ""}, "revision"),
    ],
)
def test_a_part_that_cannot_be_meant_is_refused(
    tmp_path: Path, part: dict[str, str], path: str
) -> None:
    record(tmp_path, [Stage(experiment({"old": 50, "new": 50}), range(50))])
    with pytest.raises(BadRequest) as caught:
        reporting.load_experiment_report("home", tmp_path, **part)
    assert caught.value.path == path


def test_an_audit_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    before, after = experiment({"old": 90, "new": 10}), experiment({"old": 50, "new": 50})
    record(tmp_path, [Stage(before, range(1_000)), Stage(after, range(1_000, 3_000))])
    raw = msgspec.json.encode(after.raw).decode()
    lines = [
        # Nobody came under it, so it is no phase.
        Line("home", "aaaaaaaaaaaa", START - DAY, "me", "{}"),
        Line("home", before.fingerprint, START, "me", '{"of": "another age"}'),
        Line("home", after.fingerprint, START + DAY, "me", raw),
    ]
    Lake(tmp_path).write_database([after], START + 3 * DAY, lines)
    report = reporting.load_experiment_report("home", tmp_path)
    first, second = report.phases
    assert (first.shares, first.srm_p) == ({}, None)
    assert second.changed == ["shares not on record"]
    assert second.srm_p is not None
    assert report.ab is not None
    assert not report.ab.sample_ratio.alarm
    assert any("does not hold the shares" in note for note in report.ab.notes)
    # Its units are compared with each other all the same.
    assert report.ab.comparisons[0].n + report.ab.comparisons[0].n_control == 3_000


def test_an_imported_log_with_another_revision_is_what_was_in_force(tmp_path: Path) -> None:
    e = experiment({"old": 50, "new": 50})
    record(tmp_path, [Stage(e, range(1_000))])
    raw = msgspec.json.encode(e.raw).decode()
    Lake(tmp_path).write_database(
        [e], START + 3 * DAY, [Line("home", "bbbbbbbbbbbb", START + 2 * DAY, "me", raw)]
    )
    (phase,) = reporting.load_experiment_report("home", tmp_path).phases
    assert sum(phase.units.values()) == 1_000


# --- Actions


def test_an_action_whose_content_changed_is_another_one(tmp_path: Path) -> None:
    halves = {"old": 50, "new": 50}
    before = experiment(halves, actions=[{"id": "x", "payload": {"image": "a.jpg"}}, {"id": "y"}])
    after = experiment(halves, actions=[{"id": "x", "payload": {"image": "b.jpg"}}, {"id": "y"}])
    record(tmp_path, [Stage(before, range(400), 0.9), Stage(after, range(400, 800), 0.1)])
    report = reporting.load_experiment_report("home", tmp_path)
    shown = {(line.variant, line.action) for line in report.shares}
    assert ("new", "x") in shown
    assert ("new", "x (until 2024-10-05 00:00)") in shown
    (note,) = [note for note in report.notes if note.code == "action_changed"]
    assert note.sentence.startswith(
        "x is another action since 2024-10-05 00:00 UTC: its payload changed."
    )
    # No phase, as nobody gets another variant by it.
    assert len(report.phases) == 1
    values = action_values.action_values(tmp_path, "home", "new").set_index("action")
    assert values.loc["x (until 2024-10-05 00:00)", "value"] > 0.7
    assert values.loc["x", "value"] < 0.3


def test_an_action_that_is_written_otherwise_is_the_same(tmp_path: Path) -> None:
    halves = {"old": 50, "new": 50}
    a = {"id": "x", "payload": {"image": "a.jpg", "alt": "A"}}
    b = {"payload": {"alt": "A", "image": "a.jpg"}, "id": "x"}
    stages = [
        Stage(experiment(halves, actions=[a, {"id": "y"}]), range(200)),
        Stage(experiment(halves, actions=[b, {"id": "y"}], title="Another"), range(200, 400)),
    ]
    record(tmp_path, stages)
    report = reporting.load_experiment_report("home", tmp_path)
    assert {line.action for line in report.shares} == {"x"}
    assert not any(note.code == "action_changed" for note in report.notes)


def test_a_content_that_came_back_is_the_same_action(tmp_path: Path) -> None:
    halves = {"old": 50, "new": 50}
    a = experiment(halves, actions=[{"id": "x", "payload": "a"}, {"id": "y"}])
    b = experiment(halves, actions=[{"id": "x", "payload": "b"}, {"id": "y"}])
    record(tmp_path, [Stage(a, range(200)), Stage(b, range(200, 400)), Stage(a, range(400, 600))])
    report = reporting.load_experiment_report("home", tmp_path)
    shown: dict[str, int] = {}
    for line in report.shares:
        shown[line.action] = shown.get(line.action, 0) + line.shown
    assert shown == {"x": 400, "x (until 2024-10-06 00:00)": 200}


def test_the_curve_of_the_lift_ends_where_the_report_stands_although_shares_changed(
    tmp_path: Path,
) -> None:
    # Nothing works, but most of those who came in the better times got "fresh": pooled over both
    # phases it would look far better.
    stages = [
        Stage(experiment(THIRDS), range(3_000), 0.1),
        Stage(experiment(MOST_FRESH), range(3_000, 7_000), 0.5),
    ]
    record(tmp_path, stages)
    report = reporting.load_experiment_report("home", tmp_path)
    assert report.ab is not None
    curve = series.progress(tmp_path, "home", points=10)
    last = curve.groupby("variant").tail(1).set_index("variant")
    for c in report.ab.comparisons:
        if c.metric != report.ab.primary:
            continue
        row = last.loc[str(c.variant)]
        expected = [c.relative, c.relative_low, c.relative_high]
        # Estimates are pooled here and moments there, which weighs variances a trifle differently.
        got = [row.relative, row.relative_low, row.relative_high]
        assert got == pytest.approx(expected, abs=1e-3)
        assert row.relative_low < 0.0 < row.relative_high
    assert last.decisions.notna().all()
    assert np.isnan(last.loc["old", "relative"])
    # What each variant earned is of all its decisions, as it was.
    assert curve.decisions.sum() == 7_000


def test_who_changed_variant_counts_for_the_first_on_the_curve_too(tmp_path: Path) -> None:
    """With all that they did since, as in the report: else the curve would promise more."""
    stages = [
        Stage(experiment(THIRDS), range(3_000), 0.2),
        Stage(experiment(MOST_FRESH), range(6_000), 0.2, days=2),
    ]
    record(tmp_path, stages, lift={"fresh": 0.3})
    report = reporting.load_experiment_report("home", tmp_path)
    assert report.ab is not None
    assert report.ab.sample_ratio.moved > 300
    (fresh,) = [c for c in report.ab.comparisons if c.variant == "fresh"]
    curve = series.progress(tmp_path, "home", points=10)
    last = curve[curve.variant == "fresh"].iloc[-1]
    expected = [fresh.relative, fresh.relative_low, fresh.relative_high]
    got = [last.relative, last.relative_low, last.relative_high]
    assert got == pytest.approx(expected, rel=5e-3)


# --- The holdout


def held(experiment: Experiment, units: Sequence[int]) -> int:
    """How many of the units the engine holds out."""
    compiled = CompiledExperiment(experiment)
    return sum(compiled.assign(f"u{unit}")[1] == "holdout" for unit in units)


def test_a_variant_beside_the_holdout_is_read_by_phase(tmp_path: Path) -> None:
    # A hit comes out as `new` gets most units: pooled, it would beat the holdout by 20 points.
    mostly_old = experiment({"old": 90, "new": 10}, holdout="20%")
    mostly_new = experiment({"old": 10, "new": 90}, holdout="20%")
    stages = [
        Stage(mostly_old, range(3_000), rate=0.1),
        Stage(mostly_new, range(3_000, 6_000), rate=0.6),
    ]
    record(tmp_path, stages, seed=2)
    found = reporting.load_experiment_report("home", tmp_path, method="fixed").holdout
    assert found is not None
    assert found.units == held(mostly_old, range(6_000))
    assert not found.sample_ratio.alarm
    for line in found.each:
        assert line.call == "no_call"
        assert line.difference == pytest.approx(0.0, abs=0.08)
    # The clicks of a unit that changed variant with the shares count for its first.
    again = [*stages, Stage(mostly_old, range(3_000), rate=0.3)]
    record(tmp_path / "again", again)
    more = reporting.load_experiment_report("home", tmp_path / "again", method="fixed").holdout
    assert more is not None
    assert sum(line.n for line in more.each) == more.units_in_variants


def test_a_part_has_its_holdout(tmp_path: Path) -> None:
    a_fifth = experiment({"old": 50, "new": 50}, holdout="20%")
    a_tenth = experiment({"old": 50, "new": 50}, holdout="10%")
    first, second = range(600), range(600, 1_500)
    record(tmp_path, [Stage(a_fifth, first, rate=0.3), Stage(a_tenth, second, rate=0.5)])
    change = "2024-10-05"
    whole = reporting.load_experiment_report("home", tmp_path).holdout
    before = reporting.load_experiment_report("home", tmp_path, until=change).holdout
    after = reporting.load_experiment_report("home", tmp_path, since=change).holdout
    assert whole is not None
    assert before is not None
    assert after is not None
    assert whole.excluded == {"earlier_shares": 600}
    assert (before.share, before.units, before.decisions) == (
        pytest.approx(0.2),
        held(a_fifth, first),
        held(a_fifth, first),
    )
    assert (after.share, after.units) == (pytest.approx(0.1), held(a_tenth, second))
    assert before.excluded == after.excluded == {}
    assert (before.units + before.units_in_variants, after.units + after.units_in_variants) == (
        len(first),
        len(second),
    )
    by_revision = reporting.load_experiment_report(
        "home", tmp_path, revision=CompiledExperiment(a_fifth).revision
    ).holdout
    assert by_revision == before


def test_topbill_power_plans_by_the_shares_in_force(tmp_path: Path) -> None:
    mostly_old, halves = experiment({"old": 95, "new": 5}), experiment({"old": 50, "new": 50})
    stages = [Stage(mostly_old, range(4_000), days=2), Stage(halves, range(4_000, 6_000), days=2)]
    record(tmp_path, stages)
    planned = plan("home", tmp_path, method="fixed", lifts=[0.05])
    report = reporting.load_experiment_report("home", tmp_path, method="fixed")
    (run,) = planned.runtimes
    (now, *_) = planned.detectable
    assert (planned.units, now.units) == (6_000, 6_000)
    assert report.ab is not None
    (line,) = report.ab.comparisons
    assert line.se is not None
    assert planned.baseline is not None
    # 80% power at one look needs 2.8 of the standard errors that the report has.
    assert now.relative == pytest.approx(2.802 * line.se / planned.baseline, rel=0.05)
    assert run.days is not None
    assert run.days_left is not None
    # 6,000 units split evenly would have taken four days off.
    assert run.days - 4.0 < run.days_left < run.days - 1.5
