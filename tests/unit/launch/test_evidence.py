"""The evidence of a launch from the record: growing traffic and moving rates bias nothing, what is
not mature does not count, and a launch that began anew starts from nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from topbill.domain.errors import NotFound
from topbill.engine.compiled import CompiledExperiment
from topbill.launch.evidence import harm_sentence, launch_evidence
from topbill.spec import Experiment

from ..reporting.test_phases import START, Stage, experiment, record

HALVES = {"old": 50, "new": 50}


def day(number: float) -> datetime:
    """The moment so many days after the record's first."""
    return datetime.fromtimestamp(START / 1e6, UTC) + timedelta(days=number)


def guarded(traffic: int, **more: Any) -> Experiment:
    metrics = {
        "click": {"event": "click", "kind": "binary", "window": "60s"},
        "away": {"event": "click", "kind": "binary", "window": "60s", "better": "lower"},
    }
    return experiment(
        HALVES,
        traffic=traffic,
        metrics=metrics,
        guardrails=[{"metric": "away", "better": "lower", "margin": "10%"}],
        **more,
    )


def ramp(rates: tuple[float, float, float] = (0.2, 0.5, 0.3)) -> list[Stage]:
    """Traffic grows from 10% to all of 3,000 units a day, while rates move."""
    stages = []
    for traffic, rate in zip((10, 50, 100), rates, strict=True):
        stages.append(Stage(guarded(traffic), range(3_000), rate))
    return stages


def test_growing_traffic_and_moving_rates_harm_nobody(tmp_path: Path) -> None:
    record(tmp_path, ramp())
    evidence = launch_evidence("home", tmp_path, step_since=day(2))
    (guardrail,) = evidence.guardrails
    assert (guardrail.metric, guardrail.variant) == ("away", "new")
    assert guardrail.verdict == "not_failed"
    assert evidence.guardrails_not_failed
    assert evidence.harmed == evidence.unknown == ()
    assert evidence.sample_ratio_ok
    assert evidence.units == evidence.units_in_step == 3_000
    assert launch_evidence("home", tmp_path).units_in_step == 3_000


def test_a_variant_that_harms_is_named_with_its_numbers(tmp_path: Path) -> None:
    record(tmp_path, ramp(), lift={"new": 0.15})
    evidence = launch_evidence("home", tmp_path)
    (guardrail,) = evidence.harmed
    assert not evidence.guardrails_not_failed
    assert guardrail.worse_by_low is not None
    assert guardrail.worse_by_low > 0.0
    sentence = harm_sentence(guardrail)
    assert sentence.startswith("away is worse by ")
    assert "(at least " in sentence
    assert sentence.endswith(" in new; 10% allowed")


def test_a_launch_that_began_anew_starts_from_nothing(tmp_path: Path) -> None:
    stages = [*ramp(), Stage(guarded(100), range(3_000, 3_500), 0.3)]
    record(tmp_path, stages, lift={"new": 0.15})
    evidence = launch_evidence("home", tmp_path, since=day(3), step_since=day(3.5))
    assert evidence.units == 500
    assert 0 < evidence.units_in_step < 500
    (guardrail,) = evidence.guardrails
    assert guardrail.units == 500


def test_what_goes_on_beside_a_launch_is_no_part_of_it(tmp_path: Path) -> None:
    beside = guarded(100)
    record(tmp_path, ramp(), lift={"new": 0.15})
    evidence = launch_evidence("home", tmp_path, beside=beside.fingerprint)
    assert 1_300 < evidence.units < 1_700
    (guardrail,) = evidence.guardrails
    assert guardrail.units == evidence.units


def test_before_anybody_came_nothing_is_known(tmp_path: Path) -> None:
    record(tmp_path, ramp())
    evidence = launch_evidence("home", tmp_path, since=day(10))
    assert evidence.units == 0
    assert [g.verdict for g in evidence.guardrails] == ["unknown"]
    assert not evidence.guardrails_not_failed
    assert evidence.sample_ratio_ok


def test_what_is_not_mature_does_not_count(tmp_path: Path) -> None:
    late = {"window": "90d"}
    metrics = {
        "click": {"event": "click", "kind": "binary", "window": "60s"},
        "away": {"event": "click", "kind": "binary", "better": "lower", **late},
    }
    guardrails = [{"metric": "away", "better": "lower", "margin": "10%"}]
    file = experiment(HALVES, metrics=metrics, guardrails=guardrails)
    record(tmp_path, [Stage(file, range(2_000), 0.3)], lift={"new": 0.3})
    (guardrail,) = launch_evidence("home", tmp_path).guardrails
    assert guardrail.verdict == "unknown"


def test_a_record_without_rewards_is_not_sound(tmp_path: Path) -> None:
    record(tmp_path, [Stage(guarded(100), range(500), 0.0)])
    evidence = launch_evidence("home", tmp_path)
    # Its draws are made up, too: always the first of two that were as likely.
    codes = {note.code for note in evidence.troubles}
    assert codes == {"propensity_mismatch", "choice_mismatch", "no_rewards"}
    assert not evidence.health_ok
    # None at all looks as if nobody sent the event.
    assert [g.verdict for g in evidence.guardrails] == ["unknown"]


def test_units_that_went_astray_are_told(tmp_path: Path) -> None:
    file = guarded(100)
    compiled = CompiledExperiment(file)
    units = []
    for number in range(4_000):
        variant, _ = compiled.assign(f"u{number}")
        # Every third of the new variant's never tells.
        if variant is not None and (variant.name == "old" or number % 3):
            units.append(number)
    record(tmp_path, [Stage(file, units, 0.3)])
    evidence = launch_evidence("home", tmp_path)
    assert not evidence.sample_ratio_ok
    assert evidence.sample_ratio_p is not None
    assert evidence.sample_ratio_p < 0.01


def test_an_unknown_experiment_is_named(tmp_path: Path) -> None:
    record(tmp_path, [Stage(guarded(100), range(10))])
    with pytest.raises(NotFound, match="away"):
        launch_evidence("away", tmp_path)
