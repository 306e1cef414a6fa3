"""The report: numbers that equal the definition, intervals by unit, and a reason wherever a number
is missing.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from topbill import reporting
from topbill.domain import formatting
from topbill.domain.decision import decision_rows, reward_rows
from topbill.domain.errors import LogError, NotFound
from topbill.domain.origin import Origin
from topbill.domain.records import Action, Decision, Placement, RewardEvent
from topbill.lake import DATABASE, Lake
from topbill.policies.uniform import FixedParams, UniformParams
from topbill.reporting import render_text
from topbill.reporting.experiment.analysis_rows import ExperimentTables
from topbill.reporting.experiment.health import propensity_line
from topbill.reporting.experiment.wording import alarms
from topbill.spec import Experiment, Guardrail, Metric, Variant

NOW = 1_790_000_000_000_000
SECOND = 1_000_000


SPEC = Experiment(
    key="home",
    surface="artwork",
    title="Artwork for Midnight Run",
    hypothesis="Taste wins.",
    actions=(Action("x"), Action("y")),
    metrics=(
        Metric("play", "play", "binary", 60.0),
        Metric("watched", "watch", "max", 600.0),
        Metric("abandon", "abandon", "binary", 60.0, better="lower"),
    ),
    objective={"play": 1.0, "watched": 1.0},
    guardrails=(Guardrail("abandon", 0.02),),
    variants=(
        Variant("editorial", "fixed", FixedParams(), 0.5, control=True),
        Variant("bandit", "uniform", UniformParams(), 0.5),
    ),
)


def decision(number: int, **changes: Any) -> Decision:
    return Decision(
        **{
            "decision_id": f"d{number}",
            "experiment": "home",
            "revision": SPEC.fingerprint,
            "variant": "bandit",
            "unit": f"u{number}",
            "eligible": ("x", "y"),
            "slate": (Placement(0, "x", 0.5),),
            "propensity": 0.5,
            "probabilities": ((0.5, 0.5),),
            "policy": "uniform",
            "reason": "policy",
            "latency_us": 100,
            "decided_at": NOW,
            **changes,
        }
    )


def event(number: int, name: str, value: float = 1.0, after: float = 1.0) -> RewardEvent:
    at = NOW + round(after * SECOND)
    return RewardEvent(
        decision_id=f"d{number}",
        event_id=f"{name}{value}{after}",
        event=name,
        value=value,
        received_at=at,
    )


def made(
    folder: Path,
    decisions: list[Decision],
    events: list[RewardEvent] | None = None,
    *,
    age: float = 3600.0,
) -> reporting.Report:
    """The report of a lake with those rows, `age` seconds after NOW."""
    lake = Lake(folder)
    if decisions:
        lake.append("decisions", decision_rows(list(enumerate(decisions, 1))), len(decisions))
    if events:
        by_id = {d.decision_id: Origin.of(d) for d in decisions}
        rows = [(seq, e, by_id[e.decision_id]) for seq, e in enumerate(events, 1)]
        lake.append("rewards", reward_rows(rows), len(rows))
    lake.write_database([SPEC], NOW + round(age * SECOND))
    return reporting.load("home", folder)


def line(found: reporting.Report, variant: str) -> reporting.VariantLine:
    return next(v for v in found.variants if v.variant == variant)


def metric(found: reporting.Report, name: str, variant: str) -> reporting.MeanEstimate:
    return next(m.estimate for m in found.metrics if m.metric == name and m.variant == variant)


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item)


def text(found: reporting.Report, width: int = 160) -> str:
    console = Console(width=width, file=StringIO())
    render_text(found, console)
    return console.file.getvalue()


def test_rates_are_read_in_per_cent_beside_the_lift_and_are_fractions_in_json(
    tmp_path: Path,
) -> None:
    found = made(tmp_path, **trial(0.2))
    assert found.ab is not None
    play = next(c for c in found.ab.comparisons if c.metric == "play")
    assert play.is_proportion
    assert play.value is not None
    assert 0.0 < play.value < 1.0
    value, points = formatting.rate(play.value), formatting.points(play.difference)
    interval = formatting.points_interval(play.difference_low, play.difference_high)
    lift = formatting.percent(play.relative, signed=True)
    page, terminal = reporting.to_html(found), text(found)
    assert all(number in page for number in (value, points, interval, lift))
    assert all(number in terminal for number in (value, points, lift))
    row = next(line for line in terminal.splitlines() if points in line)
    assert row.index(points) < row.index(lift)
    # A number that is no share has no sign of one.
    watched = next(c for c in found.ab.comparisons if c.metric == "watched")
    assert not watched.is_proportion
    assert f"<td>{formatting.value(watched.value)}</td>" in page
    (line, *_) = [line for line in found.metrics if line.metric == "play"]
    assert formatting.rate(line.estimate.value) in terminal
    as_json = json.loads(reporting.to_json(found))
    (entry, *_) = [c for c in as_json["ab"]["comparisons"] if c["metric"] == "play"]
    assert entry["value"] == play.value


def test_the_mean_and_its_interval_are_those_of_unit_totals(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    units = rng.integers(0, 40, 300)
    watched = np.where(rng.random(300) < 0.4, rng.random(300).round(3), 0.0)
    decisions = [decision(i, unit=f"u{u}") for i, u in enumerate(units)]
    events = [event(i, "watch", float(w)) for i, w in enumerate(watched) if w]
    found = metric(made(tmp_path, decisions, events), "watched", "bandit")

    present = np.unique(units)
    x = np.array([watched[units == u].sum() for u in present])
    n = np.array([(units == u).sum() for u in present])
    mean = x.sum() / n.sum()
    se = np.sqrt(len(present) / (len(present) - 1) * ((x - mean * n) ** 2).sum()) / n.sum()
    half = stats.t.isf(0.025, len(present) - 1) * se
    assert (found.value, found.se) == (pytest.approx(mean, rel=1e-12), pytest.approx(se, rel=1e-9))
    assert (found.low, found.high) == (pytest.approx(mean - half), pytest.approx(mean + half))
    assert (found.units, found.decisions, found.reason) == (len(present), 300, "")


def test_a_thousand_decisions_of_two_units_are_not_a_thousand_opinions(tmp_path: Path) -> None:
    many = [decision(i, unit=f"u{i}") for i in range(1000)]
    few = [decision(i, unit=f"u{i % 10}") for i in range(1000)]
    events = [event(i, "play") for i in range(1000) if i % 10 < 3]
    wide, narrow = (metric(made(tmp_path / name, rows, events), "play", "bandit") for name, rows in
                    (("few", few), ("many", many)))  # fmt: skip
    assert wide.value == narrow.value == 0.3
    assert wide.se is not None
    assert narrow.se is not None
    assert wide.se > 8 * narrow.se


def test_the_objective_is_the_mean_of_the_experiments_own_objective(tmp_path: Path) -> None:
    decisions = [decision(i) for i in range(4)]
    events = [
        event(0, "play"),
        event(0, "watch", 0.5),
        event(1, "watch", 0.25),
        event(2, "abandon"),
    ]
    expected = [
        SPEC.goal.value(v) for v in ({"play": 1, "watched": 0.5}, {"watched": 0.25}, {}, {})
    ]
    found = line(made(tmp_path, decisions, events), "bandit").reward
    assert found.value == pytest.approx(np.mean(expected))


def test_each_metric_counts_the_decisions_older_than_its_own_window(tmp_path: Path) -> None:
    decisions = [decision(0), decision(1), decision(2, decided_at=NOW + 100 * SECOND)]
    found = made(tmp_path, decisions, [event(0, "play"), event(2, "play", after=101)], age=120.0)
    assert metric(found, "play", "bandit").decisions == 2
    assert metric(found, "play", "bandit").value == 0.5
    assert metric(found, "watched", "bandit").reason == "immature"
    assert line(found, "bandit").reward.value is None
    assert line(found, "bandit").decisions == 3
    assert [note.code for note in found.notes] == ["immature"]
    assert "10 min" in found.notes[0].sentence
    assert found.health.mature_share == 0.0


@pytest.mark.parametrize(
    ("decisions", "events", "value", "reason"),
    [
        ([decision(i) for i in range(5)], [], 0.0, "no_events"),
        (
            [decision(i) for i in range(5)],
            [event(i, "watch", 0.5) for i in range(5)],
            0.5,
            "constant_metric",
        ),
        ([decision(i, unit="u") for i in range(5)], [event(0, "watch")], 0.2, "too_few_units"),
        ([], [], None, "no_decisions"),
    ],
    ids=["all zero", "constant", "one unit", "no traffic"],
)
def test_a_number_that_the_data_cannot_bear_has_a_reason(
    tmp_path: Path,
    decisions: list[Decision],
    events: list[RewardEvent],
    value: float | None,
    reason: str,
) -> None:
    found = made(tmp_path, decisions, events)
    watched = metric(found, "watched", "bandit")
    assert (watched.value, watched.low, watched.high, watched.se, watched.reason) == (
        value,
        None,
        None,
        None,
        reason,
    )
    assert all(math.isfinite(x) for x in numbers(msgspec.to_builtins(found)))
    assert reporting.REASONS[reason] in text(found)


@pytest.mark.parametrize(
    ("successes", "units", "of_a_unit"), [(0, 50, 1), (50, 50, 1), (3, 50, 1), (0, 20, 3)]
)
def test_a_rate_of_few_events_has_the_interval_of_its_counts(
    tmp_path: Path, successes: int, units: int, of_a_unit: int
) -> None:
    decisions = [decision(i, unit=f"u{i // of_a_unit}") for i in range(units * of_a_unit)]
    events = [event(i, "play") for i in range(successes * of_a_unit)]
    found = metric(made(tmp_path, decisions, events), "play", "bandit")
    # Wilson (1927): the rates whose own standard error reaches the observed one.
    z, observed = 1.959963984540054, successes / units
    assert found.value == pytest.approx(observed)
    assert found.low is not None
    assert found.high is not None
    for bound in {found.low, found.high} - {0.0, 1.0}:
        se = math.sqrt(bound * (1.0 - bound) / units)
        assert abs(observed - bound) == pytest.approx(z * se, rel=1e-6)
    assert (found.low == 0.0, found.high == 1.0) == (successes == 0, successes == units)
    assert found.reason == ""


def test_a_rate_of_enough_events_keeps_its_interval_by_unit(tmp_path: Path) -> None:
    decisions = [decision(i) for i in range(100)]
    found = metric(
        made(tmp_path, decisions, [event(i, "play") for i in range(30)]), "play", "bandit"
    )
    assert found.se is not None
    assert found.high == pytest.approx(0.3 + stats.t.isf(0.025, 99) * found.se)


def test_an_empty_lake_gives_a_report_that_says_so(tmp_path: Path) -> None:
    found = made(tmp_path, [])
    assert (found.units, found.decisions, found.first_at) == (0, 0, None)
    assert [v.variant for v in found.variants] == ["editorial", "bandit"]
    assert [note.code for note in found.notes] == ["no_traffic"]
    assert "no decisions yet" in text(found)


def test_a_variant_that_left_the_file_is_still_reported(tmp_path: Path) -> None:
    found = made(
        tmp_path,
        [decision(1), decision(2, variant="gone"), decision(3, variant=None, reason="holdout")],
    )
    assert [(v.variant, v.share, v.units) for v in found.variants] == [
        ("editorial", 0.5, 0),
        ("bandit", 0.5, 1),
        ("gone", None, 1),
    ]
    assert found.health.reasons == {"policy": 2, "holdout": 1}
    # Its own are those of units in a variant, as the units beside them are; others by reason.
    assert (found.units, found.decisions) == (2, 2)
    assert "2 units, 2 decisions (1 more in its holdout)" in text(found)
    assert "2 decisions (1 more in its holdout)" in reporting.to_html(found)


def test_maturity_is_of_the_experiments_own_decisions(tmp_path: Path) -> None:
    young, old = NOW + 3_500 * SECOND, NOW
    decisions = [decision(1, decided_at=old), decision(2, decided_at=young)]
    decisions += [
        decision(n, variant=None, reason="not_in_experiment", decided_at=old) for n in (3, 4, 5)
    ]
    found = made(tmp_path, decisions, [event(1, "play"), event(3, "play")])
    assert (found.decisions, found.health.mature_share) == (2, 0.5)
    assert found.health.rewarded_share == 1.0


def test_shares_are_of_placements_within_a_variant(tmp_path: Path) -> None:
    both = (Placement(0, "y", 0.5), Placement(1, "x", 1.0))
    found = made(tmp_path, [decision(1, slate=both), decision(2), decision(3, variant="editorial")])
    assert [(s.variant, s.action, s.shown, s.share) for s in found.shares] == [
        ("bandit", "x", 2, pytest.approx(2 / 3)),
        ("bandit", "y", 1, pytest.approx(1 / 3)),
        ("editorial", "x", 1, 1.0),
    ]


def drawn(p: float, logged: float, n: int = 4000, seed: int = 4) -> list[Decision]:
    """Decisions that show x with probability `p` while the log says `logged`."""
    hits = np.random.default_rng(seed).random(n) < p
    both = (logged, 1 - logged)
    return [
        decision(i, slate=(Placement(0, "xy"[not hit], both[not hit]),), probabilities=(both,))
        for i, hit in enumerate(hits)
    ]


def test_honest_propensities_pass(tmp_path: Path) -> None:
    health = made(tmp_path, drawn(0.1, 0.1)).health
    assert health.propensity_ok is True
    for found in health.propensity:
        assert found.low is not None
        assert found.high is not None
        assert found.low <= 1.0 <= found.high


def test_sixty_honest_variants_raise_no_alarm_together(tmp_path: Path) -> None:
    """Intervals hold for all lines at once: an honest log fails in 1% of cases, not in 45%."""
    rows = [
        msgspec.structs.replace(d, decision_id=f"{seed}-{d.decision_id}", variant=f"v{seed}")
        for seed in range(60)
        for d in drawn(0.3, 0.3, n=150, seed=seed)
    ]
    health = made(tmp_path, rows).health
    assert len([line for line in health.propensity if line.ok is not None]) == 120
    assert health.propensity_ok is True


def test_an_honest_log_that_is_looked_at_every_hour_raises_no_alarm() -> None:
    """A warning not to evaluate must not come of looking: of 300 logs, each looked at 40 times,
    a fixed 95% interval would call 50 dishonest."""
    rng = np.random.default_rng(8)
    alarms = 0
    for _ in range(300):
        p = rng.uniform(0.02, 0.4, size=4_000)
        hits = (rng.random(p.size) < p).astype(float)
        columns = np.array([np.ones(p.size), hits, p, p * (1 - p), hits / p, 1 / p - 1])
        cubes = (1 - p) * np.abs(1 - 2 * p) / p**2
        sums = np.vstack([columns, cubes]).cumsum(axis=1)[:, 99::100]
        names = ("decisions", "drawn", "expected", "variance", "weights", "excess", "cubes")
        looks = [dict(zip(names, look, strict=True)) for look in sums.T]
        lines = [propensity_line({"variant": "v", "action": "a", **s}, tests=2) for s in looks]
        alarms += any(line.ok is False for line in lines)
    assert alarms <= 6  # 1% is 3


def test_propensities_that_were_not_drawn_from_are_found(tmp_path: Path) -> None:
    found = made(tmp_path, drawn(0.1, 0.15))
    assert found.health.propensity_ok is False
    assert "propensity_mismatch" in [note.code for note in found.notes]
    assert "are off" in text(found)


def test_choices_are_judged_against_the_summed_probabilities_and_a_mismatch_shows(
    tmp_path: Path,
) -> None:
    honest, lying = (
        made(tmp_path / "honest", drawn(0.1, 0.1)),
        made(tmp_path / "lying", drawn(0.1, 0.15)),
    )
    (sound,), (broken,) = honest.health.choices, lying.health.choices
    assert (sound.variant, sound.alarm, broken.alarm) == ("bandit", False, True)
    assert (
        sum(sound.drawn.values()) == sound.decisions == pytest.approx(sum(sound.expected.values()))
    )
    assert broken.p_sequential < 0.01 < sound.p_sequential
    assert broken.p_value < 1e-4 < sound.p_value
    assert "choice_mismatch" in [note.code for note in lying.notes]
    assert "choice_mismatch" in [note.code for note in alarms(lying)]
    assert "choice_mismatch" not in [note.code for note in alarms(honest)]
    assert "NOT as logged" in text(lying)
    assert "NOT as logged" in reporting.to_html(lying)


def test_a_draw_that_was_impossible_is_a_mismatch_and_a_zero_probability_is_no_degree_of_freedom(
    tmp_path: Path,
) -> None:
    rows = [
        msgspec.structs.replace(d, eligible=("x", "y", "z"), probabilities=((0.5, 0.5, 0.0),))
        for d in drawn(0.5, 0.5)
    ]
    (found,) = made(tmp_path / "sound", rows).health.choices
    assert set(found.expected) == {"x", "y"}
    z = (found.drawn["x"] - found.decisions / 2) / (found.decisions / 4) ** 0.5
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(z)))
    odd = msgspec.structs.replace(rows[0], slate=(Placement(0, "z", 0.0),))
    (broken,) = made(tmp_path / "broken", [odd, *rows[1:]]).health.choices
    assert (broken.impossible, broken.alarm, broken.p_value) == (1, True, 0.0)


def test_a_fixed_order_is_certain_and_one_exception_is_found(tmp_path: Path) -> None:
    fixed = [
        decision(i, slate=(Placement(0, "x", 1.0),), probabilities=((1.0, 0.0),)) for i in range(50)
    ]
    checked = made(tmp_path / "kept", fixed).health.propensity
    assert [(c.action, c.ok, c.reason) for c in checked] == [("x", True, "certain")]
    broken = [*fixed, decision(50, slate=(Placement(0, "y", 1.0),), probabilities=((1.0, 0.0),))]
    assert made(tmp_path / "broken", broken).health.propensity_ok is False


def test_too_few_draws_are_not_judged(tmp_path: Path) -> None:
    health = made(tmp_path, drawn(0.5, 0.5, n=8)).health
    assert {c.reason for c in health.propensity} == {"too_few_draws"}
    assert health.propensity_ok is None


@pytest.mark.parametrize("huge", [1e308, 1e200, float("inf")])
def test_values_too_large_to_square_have_a_reason_and_no_number(
    tmp_path: Path, huge: float
) -> None:
    events = [event(i, "watch", value=huge if i % 3 == 0 else 1.0) for i in range(30)]
    found = made(tmp_path, [decision(i) for i in range(30)], events)
    (line,) = [m for m in found.metrics if m.metric == "watched" and m.estimate.decisions]
    assert (line.estimate.value, line.estimate.reason) == (None, "infinite_values")
    for shown in (reporting.to_json(found), reporting.to_html(found)):
        assert not {"NaN", "Infinity", "inf%", "nan"} & set(re.findall(r"\w+%?", shown))


def test_events_under_a_wrong_name_are_an_alarm_where_no_other_comes(tmp_path: Path) -> None:
    report = made(tmp_path, [decision(i) for i in range(10)], [event(i, "plays") for i in range(4)])
    assert report.health.reward_join_rate is None
    assert [a.code for a in alarms(report)] == ["unread_events"]
    assert "4 plays (did you mean play?)" in " ".join(note.sentence for note in report.notes)


def test_rewards_are_called_late_where_all_are_and_not_for_one_that_is_so_by_nature(
    tmp_path: Path,
) -> None:
    decisions = [decision(i) for i in range(10)]
    watched = [event(i, "watch", after=1e6) for i in range(10)]
    (tmp_path / "one").mkdir()
    one = made(tmp_path / "one", decisions, [*(event(i, "play") for i in range(10)), *watched])
    assert one.health.joined == {"play": 1.0, "watch": 0.0}
    assert "late_rewards" not in {alarm.code for alarm in alarms(one)}
    (tmp_path / "all").mkdir()
    late = made(
        tmp_path / "all",
        decisions,
        [*(event(i, "play", after=1e6 if i else 0.0) for i in range(10)), *watched],
    )
    (sentence,) = [alarm.sentence for alarm in alarms(late) if alarm.code == "late_rewards"]
    assert sentence == (
        "Rewards come late: within its metric's window only 10% of play, and no event does better."
    )


def test_health_counts_fallbacks_latency_and_joins(tmp_path: Path) -> None:
    decisions = [
        decision(i, latency_us=1000 * (i + 1), reason="fallback" if i < 2 else "policy")
        for i in range(10)
    ]
    events = [event(0, "play"), event(1, "play", after=61.0), event(2, "unheard-of")]
    report = made(tmp_path, decisions, events)
    health = report.health
    assert health.fallback_share == 0.2
    assert health.latency_ms == {"p50": 5.0, "p90": 9.0, "p99": 10.0, "max": 10.0}
    assert health.reward_events == 3
    assert health.reward_join_rate == pytest.approx(1 / 2)
    assert health.unread_events == {"unheard-of": 1}
    (note,) = [note.sentence for note in report.notes if note.code == "unread_events"]
    assert note.startswith("No metric reads these reward events: 1 unheard-of")
    assert "unread_events" not in {alarm.code for alarm in alarms(report)}
    assert health.rewarded_share == pytest.approx(0.3)


def test_an_unknown_experiment_is_named_beside_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="start the worker"):
        reporting.load("home", tmp_path)
    made(tmp_path, [])
    with pytest.raises(NotFound, match="'hom' in the lake; expected one of: home"):
        reporting.load("hom", tmp_path)


def test_a_lake_whose_files_went_away_is_a_named_error(tmp_path: Path) -> None:
    made(tmp_path, [decision(1)])
    for file in (tmp_path / "lake").rglob("*.parquet"):
        file.unlink()
    with pytest.raises(LogError, match=DATABASE):
        reporting.load("home", tmp_path)


def test_the_text_says_what_a_reader_needs(tmp_path: Path) -> None:
    decisions = [decision(i, variant=("editorial", "bandit")[i % 2]) for i in range(40)]
    shown = text(made(tmp_path, decisions, [event(i, "play") for i in range(0, 40, 3)]))
    for words in (
        "Artwork for Midnight Run",
        "Taste wins.",
        "editorial (control)",
        "40 units",
        "abandon (guardrail)",
    ):
        assert words in shown


def trial(
    lift: float, *, n: int = 3000, editorial: float = 0.5, abandon: float = 0.05
) -> dict[str, Any]:
    """Decisions of n units, and their events: plays at 20% under the editors, `lift` more under the
    bandit.
    """
    rng = np.random.default_rng(11)
    decisions, events = [], []
    for i in range(n):
        variant = "editorial" if rng.random() < editorial else "bandit"
        context = msgspec.Raw(msgspec.json.encode({"device": ["tv", "web"][i % 2]}))
        decisions.append(decision(i, variant=variant, context=context))
        if rng.random() < (0.2 if variant == "editorial" else 0.2 + lift):
            events.append(event(i, "play"))
        if rng.random() < (0.05 if variant == "editorial" else abandon):
            events.append(event(i, "abandon"))
    return {"decisions": decisions, "events": events}


def test_the_verdict_comes_first_and_is_about_the_same_decisions(tmp_path: Path) -> None:
    found = made(tmp_path, **trial(0.2, abandon=0.02))
    assert found.ab is not None
    assert found.ab.verdict.winner == "bandit"
    compared = found.ab.comparisons[0]
    assert compared.metric == "objective"
    assert compared.value == pytest.approx(line(found, "bandit").reward.value)
    assert compared.control_value == pytest.approx(line(found, "editorial").reward.value)
    lines = text(found).splitlines()
    assert lines[3].startswith("Winner. bandit beats editorial")
    assert "Winner." in reporting.to_html(found)
    assert "Ship bandit" in reporting.to_html(found)


@pytest.mark.parametrize("width", [80, 120])
def test_the_text_fits_the_terminal_uncut(tmp_path: Path, width: int) -> None:
    shown = text(made(tmp_path, **trial(0.2)), width)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    assert "+" in next(
        row for row in shown.splitlines() if "objective" in row and "bandit" in row and "%" in row
    )


def test_a_broken_split_withholds_the_verdict(tmp_path: Path) -> None:
    found = made(tmp_path, **trial(0.2, editorial=0.35))
    assert found.ab is not None
    assert found.ab.verdict.codes == ["sample_ratio_mismatch"]
    assert "Not trustworthy (SRM)." in reporting.to_html(found)
    assert "not as intended" in text(found)


def test_what_may_still_come_is_not_counted_as_nothing(tmp_path: Path) -> None:
    found = made(tmp_path, **trial(0.2), age=120.0)
    assert found.ab is not None
    by_metric = {c.metric: c for c in found.ab.comparisons}
    assert by_metric["play"].call == "better"
    assert by_metric["watched"].value is None
    assert by_metric["watched"].reason == "no_values"


def test_categories_of_the_context_are_looked_into(tmp_path: Path) -> None:
    spec = msgspec.json.encode(
        {"context": {"device": {"type": "category"}, "hour": {"type": "cycle"}, "play": 1}}
    )
    tables = ExperimentTables("home", {"spec": spec.decode()}, [], [{"metric": "play"}], NOW)
    assert tables.category_features() == ["device"]
    made(tmp_path, **trial(0.2))
    found = reporting.load("home", tmp_path, segments=["device"])
    assert found.ab is not None
    assert [e.value for e in found.ab.heterogeneity[0].effects] == ["tv", "web"]
    assert "by device" in reporting.to_html(found)


class Wellformed(HTMLParser):
    """Collects what an HTML page refers to, and fails on tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            # What leads elsewhere on the page leads to nothing outside of it.
            is_inside = name == "href" and (value or "").startswith("#")
            if name in ("src", "href", "srcset", "data") and not is_inside:
                self.references.append(f"{tag} {name}")
        if tag in ("script", "link", "iframe", "object", "img"):
            self.references.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element without content nests trivially."""

    def handle_endtag(self, tag: str) -> None:
        if tag == "p" and self.open[-1] != "p":
            return
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    "rows", [trial(0.2), trial(0.0, n=6), {"decisions": []}], ids=["clear", "six units", "empty"]
)
def test_the_html_is_whole_in_itself(tmp_path: Path, rows: dict[str, Any]) -> None:
    page = reporting.to_html(made(tmp_path, **rows))
    parser = Wellformed()
    parser.feed(page)
    assert parser.open == []
    assert parser.references == []
    assert "http" not in page
    assert "url(" not in page
    assert "nan" not in re.sub(r"<[^>]*>", " ", page).lower().split()
    for chart in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(chart)  # noqa: S314 (our own)


def test_every_heading_that_leads_to_the_glossary_gets_there(tmp_path: Path) -> None:
    page = reporting.to_html(made(tmp_path, **trial(0.2)))
    led_to = set(re.findall(r'<th[^>]*><a href="#([^"]+)"', page))
    assert {"word-lift", "word-result", "word-probability-to-beat-control"} <= led_to
    explained = re.findall(r'<dt id="([^"]+)">', page)
    assert sorted(led_to) == sorted(explained)


def test_the_html_escapes_what_people_wrote(tmp_path: Path) -> None:
    hostile = "<script>alert('x')</script>&"
    found = made(
        tmp_path,
        [decision(i, slate=(Placement(0, hostile, 1.0),), variant=hostile) for i in range(3)],
    )
    page = reporting.to_html(msgspec.structs.replace(found, title=hostile, hypothesis=hostile))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    "rows", [trial(0.2), trial(0.0, n=6), {"decisions": []}], ids=["clear", "six units", "empty"]
)
def test_the_json_is_the_report_and_has_only_finite_numbers(
    tmp_path: Path, rows: dict[str, Any]
) -> None:
    found = made(tmp_path, **rows)
    assert all(math.isfinite(x) for x in numbers(msgspec.to_builtins(found)))
    assert msgspec.json.decode(reporting.to_json(found), type=reporting.Report) == found


def test_the_frame_has_one_column_a_number(tmp_path: Path) -> None:
    report = made(tmp_path, **trial(0.2))
    frame = report.to_frame().set_index(["metric", "variant"])
    assert report.ab is not None
    for mean in report.metrics:
        row = frame.loc[mean.metric, mean.variant]
        for name in ("value", "low", "high", "se"):
            expected = getattr(mean.estimate, name)
            missing = expected is None and row[name] is pd.NA
            assert missing or row[name] == expected
    for comparison in report.ab.comparisons:
        row = frame.loc[comparison.metric, comparison.variant]
        missing = comparison.relative is None and row["relative"] is pd.NA
        assert missing or row["relative"] == comparison.relative
        assert row["call"] == comparison.call
    assert frame.loc[("objective", "editorial"), "control"]
    numbers_of = ("value", "se", "control_value", "difference", "relative_high", "p_value")
    assert all(pd.api.types.is_float_dtype(frame[name]) for name in numbers_of)
    assert report.ab.verdict.sentence in report._repr_html_()


def test_an_empty_report_has_a_frame_too(tmp_path: Path) -> None:
    frame = made(tmp_path, []).to_frame()
    assert frame["value"].isna().all()
    assert set(frame["reason"]) == {"no_decisions"}


def modules_that_run(work: Callable[[], Any]) -> set[str]:
    """The topbill modules of which any function runs, however deep, while `work` does."""
    names: set[str] = set()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            names.add(frame.f_globals.get("__name__", ""))

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(before)
    return {name for name in names if name.startswith("topbill.")}


def test_the_way_from_load_to_the_sentence_is_short(tmp_path: Path) -> None:
    """Counted are modules whose functions run from `load` until the report stands in the terminal,
    its verdict on top: those of the rooms that make it. What they all look up is counted beside
    them: the definitions in `domain`, where `lake` lies, who is asked of it, and its rows."""
    made(tmp_path, **trial(0.2))
    load = reporting.load  # looked up before: the package finds its module when asked
    modules = modules_that_run(lambda: text(load("home", tmp_path)))
    rooms: dict[str, list[str]] = {}
    for name in sorted(modules):
        rooms.setdefault(name.split(".")[1], []).append(name)
    making = [*rooms["reporting"], *rooms["ab"], *rooms["stats"]]
    assert len(making) <= 28, making
    beside = sorted(modules - {*making, "topbill.late"})
    assert len(beside) <= 19, beside


def test_one_load_knows_pages_and_experiments_apart(tmp_path: Path) -> None:
    made(tmp_path, [decision(1), decision(2, experiment="front", layer="page", variant=None)])
    assert not reporting.is_page("home", tmp_path)
    assert reporting.is_page("front", tmp_path)
    assert isinstance(reporting.load("home", tmp_path), reporting.Report)
    with pytest.raises(NotFound, match=r"no experiment or page 'hom'.*home, front"):
        reporting.load("hom", tmp_path)
