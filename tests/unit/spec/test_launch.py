"""What the loader makes of `launch`, and what it says about one that cannot be meant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import jsonschema
import msgspec
import pytest

from topbill.domain.errors import SpecError
from topbill.domain.margin import Margin
from topbill.ope import ESTIMATORS
from topbill.spec import (
    AdvanceIf,
    Conclusion,
    Experiment,
    Gate,
    Hold,
    Launch,
    from_audit,
    json_schema,
    load,
)
from topbill.spec.launch import Estimator

SAMPLE = (Path(__file__).parents[2] / "data" / "experiments" / "midnight-run.yaml").read_text()
WHOLE = """
  start: 2026-12-01T09:00Z
  gate: {log: o, variant: thompson, versus: linucb, margin: 2%, estimator: snips, on_refusal: stop}
  shadow: 24h
  ramp: [1%, 5%, 25%, 50%, 100%]
  hold: {at_least: 12h, units: 5000}
  advance_if: {guardrails: any, sample_ratio: any, health: any}
  on_harm: pause
  approve_at: 50%
"""
SHORT = "{ramp: [5%, 100%]}"


def experiment(launch: str, folder: Path, others: str = "") -> Experiment:
    path = folder / "x.yaml"
    path.write_text(f"{SAMPLE}{others}\nlaunch: {launch}\n")
    return load(path)


def test_every_key_is_read(tmp_path: Path) -> None:
    launch = Launch(
        start=1796115600.0,
        gate=Gate("o", "thompson", "linucb", Margin(0.02), "snips", "stop"),
        shadow=86_400.0,
        ramp=(0.01, 0.05, 0.25, 0.5, 1.0),
        hold=Hold(at_least=43_200.0, units=5000),
        advance_if=AdvanceIf("any", "any", "any"),
        on_harm="pause",
        approve_at=(0.5,),
    )
    assert experiment(WHOLE, tmp_path).launch == launch


def test_what_is_left_out_is_careful(tmp_path: Path) -> None:
    launch = experiment("{ramp: [5%, 100%], gate: {variant: thompson, margin: 0.01}}", tmp_path)
    assert launch.launch == Launch(
        ramp=(0.05, 1.0),
        gate=Gate(
            "home-artwork", "thompson", "editorial", Margin(0.01, "absolute"), "dr", "approve"
        ),
        hold=Hold(at_least=86_400.0, units=0),
        advance_if=AdvanceIf("not_failed", "ok", "ok"),
        on_harm="rollback",
    )
    assert experiment(SHORT, tmp_path).launch == Launch(ramp=(0.05, 1.0))


def test_without_it_an_experiment_is_what_it_was(tmp_path: Path) -> None:
    launched = experiment(SHORT, tmp_path)
    (tmp_path / "x.yaml").write_text(SAMPLE)
    plain = load(tmp_path / "x.yaml")
    assert plain.launch is None
    assert replace(launched, launch=None).fingerprint == plain.fingerprint
    assert launched.fingerprint != plain.fingerprint
    assert launched.learning_fingerprint == plain.learning_fingerprint


@pytest.mark.parametrize("launch", [WHOLE, SHORT])
def test_an_audit_says_the_same(launch: str, tmp_path: Path) -> None:
    before = experiment(launch, tmp_path)
    audit = msgspec.json.encode(before.raw).decode()
    after = from_audit(audit, before.key, before.fingerprint)
    assert (after.launch, after.fingerprint) == (before.launch, before.fingerprint)
    jsonschema.validate(before.raw, json_schema())


def test_every_part_changes_the_fingerprint(tmp_path: Path) -> None:
    lines = WHOLE.splitlines(keepends=True)[1:]
    prints = {experiment(WHOLE, tmp_path).fingerprint}
    optional = [line for line in lines if "ramp:" not in line]
    for line in optional:
        prints.add(experiment(WHOLE.replace(line, ""), tmp_path).fingerprint)
    assert len(prints) == 1 + len(optional)


def test_approvals_may_be_several(tmp_path: Path) -> None:
    launch = experiment("{ramp: [1%, 5%, 100%], approve_at: [5%, 100%]}", tmp_path).launch
    assert launch is not None
    assert launch.approve_at == (0.05, 1.0)


MISTAKES = [
    ("{}", "launch.ramp: got nothing; expected this key, which is required"),
    ("{ramp: []}", "launch.ramp: got a list of 0; expected a list of 1 to 50"),
    ("{ramp: 100%}", "launch.ramp: got '100%'; expected a list"),
    ("{ramp: [5, 100%]}", "launch.ramp[0]: got 5; expected a percentage such as 20%; write 5%"),
    (
        "{ramp: [0%, 100%]}",
        "launch.ramp[0]: got 0%; expected more than 0%: the first step shows it to somebody; "
        "traffic only grows",
    ),
    (
        "{ramp: [5%, 25%, 20%, 100%]}",
        "launch.ramp[2]: got 20%; expected more than 25%, the step before it; traffic only grows",
    ),
    (
        "{ramp: [5%, 5%, 100%]}",
        "launch.ramp[1]: got 5%; expected more than 5%, the step before it; traffic only grows",
    ),
    (
        "{ramp: [5%, 50%]}",
        "launch.ramp[1]: got 50%; expected 100% as the last step, which is the file's traffic; "
        "end the ramp there, or write traffic: 50%",
    ),
    (
        "{ramp: [5%, 100%], approve_at: 50%}",
        "launch.approve_at: got 50%; expected one of the ramp's steps: 5%, 100%",
    ),
    (
        "{ramp: [5%, 100%], approve_at: [5%, 50%]}",
        "launch.approve_at[1]: got 50%; expected one of the ramp's steps: 5%, 100%",
    ),
    (
        "{ramp: [5%, 100%], approve_at: half}",
        "launch.approve_at: got 'half'; expected a percentage such as 20%",
    ),
    (
        "{ramp: [100%], shadow: 24}",
        "launch.shadow: got 24; expected a duration such as 10s, 30m, 6h or 7d; give it a unit, "
        "for example 24m",
    ),
    (
        "{ramp: [100%], start: tomorrow}",
        "launch.start: got 'tomorrow'; expected a date or time such as 2026-03-02 or "
        "2026-03-02T10:00Z",
    ),
    (
        "{ramp: [100%], hold: {units: many}}",
        "launch.hold.units: got 'many'; expected a whole number from 0 to 1,000,000,000",
    ),
    (
        "{ramp: [100%], hold: {least: 1h}}",
        "launch.hold.least: got an unknown key; expected one of at_least, units; "
        "did you mean at_least?",
    ),
    (
        "{ramp: [100%], on_harm: roll_back}",
        "launch.on_harm: got 'roll_back'; expected one of rollback, pause, tell; "
        "did you mean rollback?",
    ),
    (
        "{ramp: [100%], advance_if: {guardrails: good}}",
        "launch.advance_if.guardrails: got 'good'; expected one of not_failed, any",
    ),
    (
        "{ramp: [100%], gate: {variant: tompson, margin: 2%}}",
        "launch.gate.variant: got 'tompson'; expected one of the variants editorial, thompson, "
        "linucb; did you mean thompson?",
    ),
    (
        "{ramp: [100%], gate: {variant: editorial, margin: 2%}}",
        "launch.gate.variant: got 'editorial'; expected another variant than editorial, "
        "which it is compared with",
    ),
    (
        "{ramp: [100%], gate: {variant: thompson, margin: 2pp}}",
        "launch.gate.margin: got 2pp; expected a percentage of the other's value or a number in "
        "the objective's unit; points are of rates",
    ),
    (
        "{ramp: [100%], gate: {variant: thompson}}",
        "launch.gate.margin: got nothing; expected this key, which is required; By how much its "
        "objective may be worse: 2% of the other's value, or a number in the objective's own unit.",
    ),
    (
        "{ramp: [100%], gate: {variant: thompson, margin: 2%, estimator: dR}}",
        "launch.gate.estimator: got 'dR'; expected one of ips, snips, clipped-ips, sg-ips, dm, dr, "
        "sndr, switch-dr, dros, sg-dr, mips, adaptive-dr; did you mean dr?",
    ),
    ("soon", "launch: got 'soon'; expected a mapping with start, gate, shadow, ramp, hold"),
]


@pytest.mark.parametrize(("launch", "message"), MISTAKES)
def test_a_mistake_is_named(launch: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as error:
        experiment(launch, tmp_path)
    (problem,) = error.value.problems
    assert str(problem).startswith(f"{problem.place}: {message}")
    assert problem.line > 0


def test_guardrails_that_are_not_there_cannot_be_asked_for(tmp_path: Path) -> None:
    without = SAMPLE.partition("guardrails:")
    text = without[0] + without[2].partition("\n  - {")[2].partition("\n")[2]
    path = tmp_path / "x.yaml"
    path.write_text(f"{text}\nlaunch: {{ramp: [100%], advance_if: {{guardrails: not_failed}}}}\n")
    with pytest.raises(SpecError, match="got no guardrail in the file; expected guardrails: a"):
        load(path)
    path.write_text(f"{text}\nlaunch: {SHORT}\n")
    assert load(path).launch == Launch(ramp=(0.05, 1.0))


def test_the_last_step_is_the_files_traffic(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        f"{SAMPLE.replace('traffic: 100%', 'traffic: 40%')}\nlaunch: {{ramp: [5%, 40%]}}\n"
    )
    assert load(path).launch == Launch(ramp=(0.05, 0.4))


def test_nobody_takes_part_before_its_first_step_and_everybody_once_somebody_won(
    tmp_path: Path,
) -> None:
    launched = experiment(SHORT, tmp_path)
    assert launched.traffic_in_force == 0.0
    at_a_step = replace(launched, launch=None, traffic=0.05)
    assert at_a_step.traffic_in_force == 0.05
    for one in (launched, at_a_step):
        assert replace(one, conclusion=Conclusion("thompson", "")).traffic_in_force == 1.0


def test_every_estimator_may_judge() -> None:
    assert set(get_args(Estimator)) == set(ESTIMATORS)
