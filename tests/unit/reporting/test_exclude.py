"""`exclude:` in the file: whoever is left out gets the control's order, teaches nothing and is not
counted but as left out; also in the record of before it was written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from topbill import reporting
from topbill.domain.errors import SpecError
from topbill.domain.records import Decision, RewardEvent
from topbill.engine import DecideRequest, Engine
from topbill.reporting.experiment.plan import plan
from topbill.reporting.queries import exposure, series
from topbill.spec import Experiment
from topbill.testing import a_decision, an_experiment, publish

pytestmark = pytest.mark.usefixtures("engine")

START = 1_790_000_000_000_000
SECOND = 1_000_000


def experiment(**fields: Any) -> Experiment:
    context = {
        "is_bot": {"type": "flag"},
        "device": {"type": "category", "values": ["tv", "mobile"]},
    }
    return an_experiment(unit="profile_id", context=context, **fields)


EXCLUDE = {"context": {"is_bot": True, "device": ["probe"]}, "units": ["staff-1"]}


@pytest.mark.parametrize(
    ("unit", "context", "reason"),
    [
        ("u", {"is_bot": True}, "excluded_context"),
        ("u", {"device": "probe"}, "excluded_context"),
        ("staff-1", {}, "excluded_unit"),
        ("u", {"is_bot": False, "device": "tv"}, "policy"),
    ],
)
def test_who_is_left_out_gets_the_controls_order_and_no_variant(
    unit: str, context: dict[str, Any], reason: str
) -> None:
    engine = Engine([experiment(exclude=EXCLUDE)])
    raw = msgspec.Raw(json.dumps(context).encode())
    decision = engine.decide(DecideRequest(experiment="home", unit=unit, context=raw))
    assert decision.reason == reason
    assert (decision.variant is None) == (reason != "policy")
    assert decision.slate
    if reason != "policy":
        assert decision.propensity == 1.0
    # A draft, or a paused one, has nobody in it to leave out.
    paused = Engine([experiment(exclude=EXCLUDE, status="paused")])
    request = DecideRequest(experiment="home", unit=unit, context=raw)
    assert paused.decide(request).reason == "not_in_experiment"


def decided(number: int, unit: str, variant: str, **context: Any) -> Decision:
    return a_decision(
        f"d{number}",
        unit=unit,
        variant=variant,
        context=msgspec.Raw(json.dumps(context).encode()),
        decided_at=START + number * SECOND,
    )


def test_the_record_of_before_is_read_without_them(tmp_path: Path) -> None:
    """By what a unit was at its first exposure: later it may be the variant's doing."""
    decisions, rewards = [], []
    for n in range(200):
        variant = "ab"[n % 2]
        # Bots play whatever is shown, and all of them came to b.
        is_bot = n % 4 == 1
        decisions.append(decided(3 * n, f"u{n}", variant, is_bot=is_bot, device="tv"))
        decisions.append(decided(3 * n + 1, f"u{n}", variant, is_bot=n == 2))
        if is_bot or n % 8 < 2:
            rewards.append(play(3 * n))
    decisions.append(decided(900, "staff-1", "a"))
    counts = {}
    for name, fields in (("all", {}), ("some", {"exclude": EXCLUDE})):
        publish(tmp_path / name, [experiment(**fields)], decisions, rewards)
        counts[name] = reporting.load_experiment_report("home", tmp_path / name)
    whole, some = counts["all"], counts["some"]
    assert not whole.excluded.keys() & {"excluded_unit", "excluded_context"}
    assert some.excluded["excluded_context"] == 100
    assert some.excluded["excluded_unit"] == 1
    assert {v.variant: v.units for v in whole.variants} == {"a": 101, "b": 100}
    assert {v.variant: v.units for v in some.variants} == {"a": 100, "b": 50}
    assert whole.ab is not None
    assert some.ab is not None
    assert whole.ab.comparisons[0].n_control == 101
    assert some.ab.comparisons[0].n_control == 100
    # Who is left out is missing on one side here, and the split is tested without them.
    assert some.ab.sample_ratio.p_value < 1e-4
    part = reporting.load_experiment_report("home", tmp_path / "some", until="2026-09-21T14:15:00Z")
    assert part.excluded["excluded_context"] < 100
    assert plan("home", tmp_path / "some").metric is not None
    # What else pages show of them is of the same units: the curve of the lift, and what was shown.
    folder = tmp_path / "some"
    curve = series.progress(folder, "home")
    last = curve[curve.variant == "b"].iloc[-1]
    found = some.ab.comparisons[0]
    got = [last.units, last.relative, last.relative_low, last.relative_high]
    assert got == pytest.approx([50, found.relative, found.relative_low, found.relative_high])
    assert series.units_over_time(folder, "home").groupby("variant").units.max()["b"] == 50
    shown = exposure.positions(folder, "home", "b").shown.sum()
    assert shown == next(v.decisions for v in some.variants if v.variant == "b") == 100


def play(number: int) -> RewardEvent:
    at = START + number * SECOND + SECOND
    return RewardEvent(decision_id=f"d{number}", event_id="e", event="play", received_at=at)


@pytest.mark.parametrize(
    ("exclude", "path", "text"),
    [
        ({"context": {"is_bto": True}}, "exclude.context.is_bto", "did you mean is_bot?"),
        ({"context": {"is_bot": {"yes": 1}}}, "exclude.context.is_bot", "true or false"),
        ({"context": {"is_bot": []}}, "exclude.context.is_bot", "a value, or a list"),
        ({"units": [7]}, "exclude.units[0]", "put it in quotes"),
        ({"unit": ["a"]}, "exclude.unit", "did you mean units?"),
    ],
)
def test_a_slip_in_it_is_named(exclude: dict[str, Any], path: str, text: str) -> None:
    with pytest.raises(SpecError) as raised:
        experiment(exclude=exclude)
    (problem,) = raised.value.problems
    assert problem.path == path
    assert text in str(problem)


def test_it_is_another_file_and_nothing_is_learned_anew() -> None:
    plain, more = experiment(), experiment(exclude=EXCLUDE)
    assert plain.fingerprint != more.fingerprint
    assert plain.learning_fingerprint == more.learning_fingerprint
    turned = experiment(exclude={"units": ["staff-1"], "context": dict(EXCLUDE["context"])})  # type: ignore[call-overload]
    assert turned.fingerprint == more.fingerprint
