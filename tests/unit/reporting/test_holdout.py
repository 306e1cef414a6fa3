"""What all of an experiment is worth against its holdout: the right units on either side, and the
numbers of the plain definition.
"""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from rich.console import Console

from topbill import reporting
from topbill.ab import Proportion, compare
from topbill.domain.decision import decision_rows, reward_rows
from topbill.domain.errors import BadRequest
from topbill.domain.origin import Origin
from topbill.domain.records import Action, Decision, Placement, RewardEvent
from topbill.lake import Lake
from topbill.policies.uniform import FixedParams, UniformParams
from topbill.reporting.queries.database import open_database
from topbill.spec import Experiment, Guardrail, Metric, Variant

pytestmark = pytest.mark.usefixtures("engine")

NOW, SECOND = 1_790_000_000_000_000, 1_000_000
SPEC = Experiment(
    key="home",
    surface="artwork",
    holdout=0.2,
    actions=(Action("x"), Action("y")),
    metrics=(
        Metric("play", "play", "binary", 60.0),
        Metric("abandon", "abandon", "binary", 60.0, better="lower"),
    ),
    objective={"play": 1.0},
    guardrails=(Guardrail("abandon", 0.02),),
    variants=(
        Variant("editorial", "fixed", FixedParams(), 0.5, control=True),
        Variant("bandit", "uniform", UniformParams(), 0.5),
    ),
)


class Line(NamedTuple):
    """A line of the audit."""

    revision: str
    spec: str
    at: int
    experiment: str = "home"
    who: str = "me"


CHANCES = {None: 0.10, "editorial": 0.10, "bandit": 0.40}


class World:
    """Decisions of units, and plays by chance."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(11)
        self.decisions: list[Decision] = []
        self.plays: list[str] = []

    def decide(
        self,
        unit: str,
        variant: str | None,
        *,
        spec: Experiment = SPEC,
        reason: str = "",
        at: float,
    ) -> None:
        number = len(self.decisions)
        reason = reason or ("policy" if variant else "holdout")
        self.decisions.append(
            Decision(
                decision_id=f"d{number}",
                experiment="home",
                revision=spec.fingerprint,
                variant=variant,
                unit=unit,
                eligible=("x", "y"),
                slate=(Placement(0, "x", 0.5),),
                propensity=0.5,
                probabilities=((0.5, 0.5),),
                policy="uniform",
                reason=reason,  # type: ignore[arg-type]
                latency_us=100,
                decided_at=NOW + round(at * SECOND),
            )
        )
        if self.rng.random() < CHANCES[variant]:
            self.plays.append(f"d{number}")

    def publish(self, folder: Path, *audit: Experiment) -> None:
        lake = Lake(folder)
        rows = decision_rows(list(enumerate(self.decisions, 1)))
        lake.append("decisions", rows, len(self.decisions))
        origins = {d.decision_id: Origin.of(d) for d in self.decisions}
        events = []
        for seq, name in enumerate(self.plays, 1):
            at = origins[name].decided_at + SECOND
            event = RewardEvent(
                decision_id=name, event_id=name, event="play", value=1.0, received_at=at
            )
            events.append((seq, event, origins[name]))
        lake.append("rewards", reward_rows(events), len(events))
        lines = []
        for number, spec in enumerate(audit):
            said = {"status": spec.status, "holdout": spec.holdout, "traffic": spec.traffic}
            lines.append(Line(spec.fingerprint, msgspec.json.encode(said).decode(), number))
        newest = audit[-1] if audit else SPEC
        lake.write_database([newest], NOW + 10_000 * SECOND, lines)


def sides(number: int) -> str | None:
    """A fifth is held out, the rest is split evenly."""
    return None if number % 5 == 0 else ("editorial", "bandit")[number % 2]


def text(report: reporting.Report) -> str:
    console = Console(width=150, file=StringIO())
    reporting.render_text(report, console)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six hundred units, each with two decisions under one revision."""
    world = World()
    for number in range(600):
        for again in range(2):
            world.decide(f"u{number}", sides(number), at=number + 1_000 * again)
    folder = tmp_path_factory.mktemp("plain")
    world.publish(folder, SPEC)
    return folder


def test_held_out_units_are_compared_with_all_variants_and_with_each(plain: Path) -> None:
    report = reporting.load_experiment_report("home", plain, method="fixed")
    found = report.holdout
    assert found is not None
    assert (found.units, found.units_in_variants, found.decisions) == (120, 480, 240)
    assert (found.share, found.excluded, found.sample_ratio.alarm) == (0.2, {}, False)
    with open_database(plain) as database:
        rows = database.frame(
            """SELECT d.unit, coalesce(d.variant, 'none') AS variant,
                d.variant IS NULL AS held, coalesce(m.play, 0) AS play
            FROM decisions d LEFT JOIN (
                SELECT decision_id, count(*) AS play FROM rewards GROUP BY 1
            ) m USING (decision_id)"""
        )
    settings: Any = {"unit": "unit", "metrics": {"play": Proportion("play")}, "method": "fixed"}
    together = compare(rows, variant="held", control=True, **settings)
    each = compare(rows, variant="variant", control="none", **settings)
    (line,) = [c for c in found.together if c.metric == "play"]
    assert line.variant == "(variants)"
    for name in (
        "value",
        "control_value",
        "difference",
        "relative_low",
        "relative_high",
        "p_value",
    ):
        assert getattr(line, name) == pytest.approx(together[name][0])
    by_variant = {c.variant: c for c in found.each if c.metric == "play"}
    for row in each.to_dict("records"):
        assert by_variant[row["variant"]].difference == pytest.approx(row["difference"])
    assert by_variant["bandit"].call == "better"
    assert by_variant["editorial"].call == "no_call"


def test_the_readout_is_in_text_html_and_json(plain: Path) -> None:
    report = reporting.load_experiment_report("home", plain)
    shown = text(report)
    assert "Against the holdout: 120 units (20.0% intended)" in shown
    assert "All variants together against the holdout: +" in shown
    assert "all variants" in shown
    assert "Against the holdout" in reporting.to_html(report)
    decoded = msgspec.json.decode(reporting.to_json(report))
    assert decoded["holdout"]["together"][0]["variant"] == "(variants)"
    assert decoded["decisions"] == 960


def test_units_that_could_not_take_part_when_they_came_are_on_no_side(tmp_path: Path) -> None:
    """Half of the units were outside while traffic was 50%, and came in when it was turned up:
    nobody was held out of them before."""
    small = replace(SPEC, traffic=0.5)
    world = World()
    for number in range(400):
        inside = number % 5 == 0 or number % 3 == 0
        reason = "" if inside else "not_in_experiment"
        variant = sides(number) if inside else None
        world.decide(f"u{number}", variant, spec=small, reason=reason, at=number)
    for number in range(400, 700):
        world.decide(f"u{number}", sides(number), at=number)
    for number in range(700):
        world.decide(f"u{number}", sides(number), at=1_000 + number)
    world.publish(tmp_path, small, SPEC)
    found = reporting.load_experiment_report("home", tmp_path).holdout
    assert found is not None
    outside = sum(number % 5 != 0 and number % 3 != 0 for number in range(400))
    assert found.excluded["admitted_later"] == outside
    assert found.excluded["earlier_shares"] == 400 - outside
    assert (found.units, found.units_in_variants) == (60, 240)
    assert not found.sample_ratio.alarm


def test_what_was_asked_of_a_draft_keeps_nobody_out(tmp_path: Path) -> None:
    draft = replace(SPEC, status="draft")
    world = World()
    for number in range(100):
        world.decide(f"u{number}", None, spec=draft, reason="not_in_experiment", at=number)
    for number in range(100):
        world.decide(f"u{number}", sides(number), at=200 + number)
    world.publish(tmp_path, draft, SPEC)
    found = reporting.load_experiment_report("home", tmp_path).holdout
    assert found is not None
    assert (found.units, found.units_in_variants, found.excluded) == (20, 80, {})


def test_lost_logs_of_the_holdout_are_told_before_any_difference(tmp_path: Path) -> None:
    world = World()
    for number in range(900):
        if number % 5 or number % 3 == 0:
            world.decide(f"u{number}", sides(number), at=number)
    world.publish(tmp_path, SPEC)
    report = reporting.load_experiment_report("home", tmp_path)
    assert report.holdout is not None
    assert report.holdout.sample_ratio.alarm
    assert (
        "Held-out units are not as many as intended (got 7.69% of those compared, meant 20.00%)"
        in (text(report).replace("\n", " "))
    )


def test_without_a_holdout_there_is_no_readout(tmp_path: Path) -> None:
    world = World()
    for number in range(20):
        world.decide(f"u{number}", ("editorial", "bandit")[number % 2], at=number)
    world.publish(tmp_path, SPEC)
    assert reporting.load_experiment_report("home", tmp_path).holdout is None


def test_any_variant_may_be_compared_with(plain: Path) -> None:
    usual = reporting.load_experiment_report("home", plain)
    other = reporting.load_experiment_report("home", plain, control="bandit")
    assert usual.ab is not None
    assert other.ab is not None
    assert (usual.ab.control, other.ab.control) == ("editorial", "bandit")
    assert [c.variant for c in other.ab.comparisons] == ["editorial"] * len(other.ab.comparisons)
    assert other.ab.comparisons[0].difference == pytest.approx(-usual.ab.comparisons[0].difference)
    codes = {note.code: note.sentence for note in other.notes}
    assert "as many more chances to be fooled" in codes["other_control"]
    assert "other_control" not in {note.code for note in usual.notes}
    assert "other_control" in other.ab.verdict.codes
    assert "ship" not in other.ab.verdict.sentence
    same = reporting.load_experiment_report("home", plain, control="editorial")
    assert reporting.to_json(same) == reporting.to_json(usual)
    with pytest.raises(BadRequest, match="did you mean bandit"):
        reporting.load_experiment_report("home", plain, control="bandti")
