"""What was planned, what was changed after the first exposure, and what is read otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import yaml

from topbill import reporting, spec
from topbill.domain.decision import decision_rows
from topbill.domain.reading import Method
from topbill.domain.records import Decision, Placement
from topbill.lake import Lake
from topbill.reporting.experiment.planned import (
    change_notes,
    changes,
    plan_differences,
    planned_reading,
)
from topbill.spec import Experiment

NOW, DAY = 1_700_000_000_000_000, 86_400_000_000
FIRST: dict[str, Any] = {
    "metrics": {"play": {"event": "play", "window": "1h"}, "abandon": {"better": "lower"}},
    "objective": {"play": 1.0},
    "guardrails": [{"metric": "abandon", "margin": "2%"}],
}


def test_the_file_says_how_its_result_is_read() -> None:
    assert planned_reading({}) == ("sequential", (1.0,))
    looks = {"method": "group-sequential", "looks": ["50%", "100%"]}
    assert planned_reading(looks) == ("group-sequential", (0.5, 1.0))


def test_every_change_of_the_plan_is_named_and_nothing_else() -> None:
    assert changes(FIRST, FIRST) == []
    assert changes(FIRST, FIRST | {"variants": {"b": {}}, "title": "New", "traffic": "5%"}) == []
    today = {
        "metrics": {"play": {"event": "play", "window": "2h"}, "minutes": {}},
        "objective": {"play": 1.0, "minutes": 0.5},
        "guardrails": [{"metric": "abandon", "margin": "20pp"}],
        "method": "fixed",
    }
    assert changes(FIRST, today) == [
        "objective.minutes: added",
        "metrics.play: window 1h → 2h",
        "metrics.abandon: removed",
        "metrics.minutes: added",
        "guardrails.abandon: margin 2% → 20pp",
        "method: sequential → fixed",
    ]
    assert changes(FIRST, FIRST | {"objective": {"play": 0.5}}) == ["objective.play: 1 → 0.5"]


@pytest.mark.parametrize(
    ("method", "looks", "as_planned"),
    [
        ("group-sequential", (0.5,), True),
        ("group-sequential", (0.5, 1.0), True),
        ("group-sequential", (0.25, 0.5), False),
        ("fixed", (1.0,), False),
        ("sequential", (1.0,), False),
    ],
)
def test_what_is_read_otherwise_than_planned_is_marked(
    method: Method, looks: tuple[float, ...], as_planned: bool
) -> None:
    planned = FIRST | {"method": "group-sequential", "looks": ["50%", "100%"]}
    codes = [note.code for note in change_notes([], planned, method, looks)]
    assert codes == ([] if as_planned else ["not_as_planned"])


class Line(NamedTuple):
    """A line of the audit."""

    revision: str
    spec: str
    at: int
    experiment: str = "art"
    who: str = "me"


def line(experiment: Experiment, at: int) -> Line:
    return Line(experiment.fingerprint, msgspec.json.encode(experiment.raw).decode(), at)


def changed(art: Experiment, folder: Path, **keys: Any) -> Experiment:
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(art.raw | keys))
    return spec.load(path)


def published(folder: Path, *experiments: Experiment, exposed: Experiment) -> Path:
    """A record whose decisions were made under `exposed`; the last experiment is today's."""
    decisions = [
        Decision(
            decision_id=f"d{i}",
            experiment="art",
            revision=exposed.fingerprint,
            variant=("editorial", "thompson")[i % 2],
            unit=f"u{i}",
            eligible=("a", "b"),
            slate=(Placement(0, "a", 0.5),),
            propensity=0.5,
            probabilities=((0.5, 0.5),),
            policy="uniform",
            reason="policy",
            decided_at=NOW + i,
        )
        for i in range(20)
    ]
    lake = Lake(folder)
    lake.append("decisions", decision_rows(list(enumerate(decisions, 1))), len(decisions))
    audit = [line(experiment, NOW + n) for n, experiment in enumerate(experiments)]
    lake.write_database([experiments[-1]], NOW + 5 * DAY, audit)
    return folder


def codes(report: reporting.Report) -> dict[str, str]:
    return {note.code: note.sentence for note in report.notes}


def test_a_report_marks_what_was_changed_after_the_first_exposure(
    art: Experiment, tmp_path: Path
) -> None:
    weighted = changed(art, tmp_path, objective={"play": 0.5})
    before = published(tmp_path / "before", weighted, art, exposed=art)
    assert "changed_after_exposure" not in codes(reporting.load_experiment_report("art", before))
    after = published(tmp_path / "after", art, weighted, exposed=art)
    told = codes(reporting.load_experiment_report("art", after))["changed_after_exposure"]
    assert "objective.play: 1 → 0.5" in told.replace("1.0", "1")
    assert "on 2023-11-14 22:13 UTC by me" in told


def test_every_step_is_told_also_where_a_later_one_took_it_back(
    art: Experiment, tmp_path: Path
) -> None:
    weighted = changed(art, tmp_path, objective={"play": 0.5})
    bolder = changed(art, tmp_path, hypothesis="Everything is better.")
    data = published(tmp_path / "data", art, weighted, art, bolder, exposed=art)
    report = reporting.load_experiment_report("art", data)
    told = codes(report)["changed_after_exposure"]
    assert "play: 1.0 → 0.5; on" in told.replace("1 →", "1.0 →")
    assert "play: 0.5 → 1" in told
    assert "hypothesis: '' → 'Everything is better.'" in told
    assert "Everything is better" in reporting.to_html(report)


def test_what_was_changed_before_the_first_exposure_is_no_news(
    art: Experiment, tmp_path: Path
) -> None:
    weighted = changed(art, tmp_path, objective={"play": 0.5})
    data = published(tmp_path / "data", art, weighted, exposed=weighted)
    assert "changed_after_exposure" not in codes(reporting.load_experiment_report("art", data))


def test_when_a_launch_stops_is_part_of_the_plan_and_orders_do_not_change_it() -> None:
    launch = {"ramp": ["50%", "100%"], "on_harm": "rollback"}
    before = FIRST | {"launch": launch}
    assert plan_differences(before, FIRST | {"launch": launch | {"ramp": ["100%"]}}) == []
    after = FIRST | {"launch": launch | {"on_harm": "tell"}}
    assert plan_differences(before, after) == ["launch.on_harm: rollback → tell"]


def test_steps_of_a_launch_are_no_change_of_the_plan(art: Experiment, tmp_path: Path) -> None:
    launched = changed(art, tmp_path, launch={"ramp": ["50%", "100%"], "on_harm": "pause"})
    half = changed(art, tmp_path, traffic="50%")
    data = published(tmp_path / "data", launched, half, art, exposed=half)
    assert "changed_after_exposure" not in codes(reporting.load_experiment_report("art", data))
    other = changed(art, tmp_path, launch={"ramp": ["50%", "100%"], "on_harm": "tell"})
    data = published(tmp_path / "other", launched, half, other, exposed=half)
    told = codes(reporting.load_experiment_report("art", data))["changed_after_exposure"]
    assert "launch.on_harm: pause → tell" in told


def test_report_and_plan_read_by_the_method_of_the_file(art: Experiment, tmp_path: Path) -> None:
    planned = changed(art, tmp_path, method="group-sequential", looks=["50%", "100%"])
    data = published(tmp_path / "data", planned, exposed=planned)
    usual = reporting.load_experiment_report("art", data)
    assert usual.ab is not None
    assert usual.ab.method == "group-sequential"
    assert not {"not_as_planned", "changed_after_exposure"} & set(codes(usual))
    other = reporting.load_experiment_report("art", data, method="bayes")
    assert other.ab is not None
    assert other.ab.method == "bayes"
    assert (
        "read by bayes, where the file plans group-sequential at 50% and 100%"
        in codes(other)["not_as_planned"]
    )


def test_an_absolute_margin_reaches_the_report(art: Experiment, tmp_path: Path) -> None:
    guarded = changed(
        art,
        tmp_path,
        metrics=art.raw["metrics"]
        | {"abandon": {"event": "abandon", "kind": "binary", "window": "1s", "better": "lower"}},
        guardrails=[{"metric": "abandon", "margin": "2pp"}],
    )
    data = published(tmp_path / "data", guarded, exposed=guarded)
    report = reporting.load_experiment_report("art", data)
    assert report.ab is not None
    assert {(g.margin, g.margin_unit) for g in report.ab.guardrails} == {(0.02, "points")}
    assert replace(guarded).guardrails[0].margin_unit == "points"
