"""`topbill power FILE`, and `simulate` of the same file: the file says the shares, the traffic, the
method, the margins, and with them the whole rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from topbill import cli, spec
from topbill.ab import Margin, plan_ahead
from topbill.domain.errors import BadRequest, NotFound
from topbill.domain.reading import Method
from topbill.reporting.experiment.plan import plan_of_file
from topbill.simulation.run import run
from topbill.spec import Experiment

FILE = """
experiment: new-art
surface: artwork
unit: profile_id
status: draft
traffic: 50%
holdout: 10%
method: group-sequential
looks: [50%, 100%]
actions: [{id: a}, {id: b}]
metrics:
  play: {event: play, kind: binary, window: 1h}
  abandon: {event: abandon, kind: binary, window: 1h, better: lower}
objective: {play: 1}
guardrails: [{metric: abandon, margin: 2pp}]
launch: {ramp: [5%, 50%], hold: {at_least: 48h, units: 500}, on_harm: pause}
conclusion: {winner: fresh, because: Written too early}
variants:
  fresh: {policy: thompson, share: 60%}
  editorial: {policy: fixed, order: [a], share: 40%, control: true}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "new-art.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
def experiment(file: Path) -> Experiment:
    return spec.load(file)


def test_it_is_the_plan_of_the_files_numbers(experiment: Experiment) -> None:
    own = plan_of_file(
        experiment, 0.12, units_a_day=10_000, guardrails={"abandon": 0.08}, relative=[0.05]
    )
    method: Method = "group-sequential"
    looks = (0.5, 1.0)
    same = plan_ahead(
        0.12,
        units_a_day=4_500,
        shares=[0.4, 0.6],
        relative=[0.05],
        method=method,
        looks=looks,
    )
    assert (own.method, own.looks, own.units_a_day) == (method, looks, 4_500)
    assert (own.runtimes[0].variant, own.runtimes[0].units) == ("fresh", same.runtimes[0].units)
    harm = plan_ahead(
        0.08,
        shares=[0.4, 0.6],
        relative=[0.05],
        margins=[Margin(0.02, "points")],
        method=method,
        looks=looks,
    )
    (line,) = own.guardrails
    assert (line.metric, line.units) == ("abandon", harm.guardrails[0].units)


def test_the_whole_rule_is_said(experiment: Experiment) -> None:
    rule = plan_of_file(experiment, 0.12).rule
    assert rule == [
        "Takes part: 50% of the units, 10% held out before: fresh 60% and editorial 40% "
        "(editorial is the control).",
        "A treatment is better when the 95% interval of its effect on the objective (play × 1) is "
        "above 0; one looks at 50% and 100% of the planned units, and stops at the first call.",
        "It is safe to ship when each guardrail is shown to be worse by less than its margin: "
        "abandon 2pp.",
        "Launched by steps of 5% and 50% of the traffic, each for 2 days and 500 units at least; "
        "when a guardrail is broken, it pauses until somebody approves.",
        "abandon is not planned for: say what it is today, such as --guardrail abandon=8%.",
    ]


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("sequential", "whenever one likes, and may stop"),
        ("fixed", "one looks once"),
        ("bayes", "credible interval"),
    ],
)
def test_how_one_looks_is_part_of_the_rule(experiment: Experiment, method: str, said: str) -> None:
    plan = plan_of_file(experiment, 0.12, method=method)  # type: ignore[arg-type]
    assert said in plan.rule[1]


def test_what_the_file_does_not_have_is_named(experiment: Experiment) -> None:
    with pytest.raises(BadRequest, match="expected one of abandon"):
        plan_of_file(experiment, 0.12, guardrails={"churn": 0.1})
    alone = replace(experiment, variants=(replace(experiment.control, share=1.0),))
    with pytest.raises(NotFound, match="one variant only"):
        plan_of_file(alone, 0.12)


def test_the_command_takes_the_file_and_refuses_what_it_says(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.app(["power", str(file), "--baseline", "12%"], result_action="return_value")
    assert "By what rule it is decided" in capsys.readouterr().out
    with pytest.raises(BadRequest, match="says it; leave the option out"):
        cli.app(
            ["power", str(file), "--baseline", "12%", "--variants", "3"],
            result_action="return_value",
        )


def test_it_is_simulated_as_a_test_whatever_its_launch_and_conclusion_say(
    experiment: Experiment,
) -> None:
    lines = run(experiment, 400)
    assert {line.variant for line in lines if line.decisions} == {"fresh", "editorial"}


def test_every_example_can_be_planned(tmp_path: Path) -> None:
    for path in sorted((Path(__file__).parents[3] / "experiments").glob("home-*.yaml")):
        experiment = spec.from_raw(yaml.safe_load(path.read_text()), path.name)
        assert plan_of_file(experiment, 0.1, relative=[0.05]).runtimes
