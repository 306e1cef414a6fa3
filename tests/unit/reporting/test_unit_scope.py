"""Metrics of scope unit: what a unit did after its first decision, once a unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill import reporting
from topbill.domain.errors import BadRequest, SpecError
from topbill.domain.records import Decision, RewardEvent, UnitEvent
from topbill.reporting.experiment.plan import plan
from topbill.reporting.queries.series import progress
from topbill.spec import Experiment
from topbill.testing import a_decision, an_experiment, publish, temporary_lake

pytestmark = pytest.mark.usefixtures("engine")

SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
START = 1_790_000_000 * SECOND


def experiment(**metrics: Any) -> Experiment:
    """Its objective is a play, beside metrics of units."""
    play = {"event": "play", "kind": "binary", "window": "60s"}
    units = {
        name: {"event": "session_start", "kind": "binary", "window": "7d", "scope": "unit"} | parts
        for name, parts in metrics.items()
    }
    return an_experiment(unit="profile_id", metrics={"play": play, **units})


def decided(number: int, unit: str, after: int = 0, variant: str = "a") -> Decision:
    return a_decision(f"d{number}", unit=unit, variant=variant, decided_at=START + after)


def did(
    unit: str,
    after: int,
    event_id: str = "e",
    *,
    event: str = "session_start",
    value: float = 1.0,
    unit_type: str = "profile_id",
) -> UnitEvent:
    return UnitEvent(
        unit=unit,
        unit_type=unit_type,
        event_id=event_id,
        event=event,
        value=value,
        occurred_at=START + after,
        received_at=START + max(0, after),
    )


def lines(
    spec: Experiment,
    decisions: Sequence[Decision],
    events: Sequence[UnitEvent],
    *,
    at: int = START + 30 * DAY,
    rewards: Sequence[RewardEvent] = (),
) -> dict[tuple[str, str], Any]:
    """The report's means by metric and variant."""
    with temporary_lake([spec], decisions, rewards, unit_events=events, at=at) as data:
        report = reporting.load_experiment_report("home", data)
    return {(line.metric, line.variant): line.estimate for line in report.metrics}


def test_a_unit_counts_once_by_what_it_did_after_its_first_decision_in_the_window() -> None:
    decisions = [decided(n, "back", n * HOUR) for n in range(5)]
    decisions += [decided(10 + n, unit) for n, unit in enumerate(["before", "same", "late", "not"])]
    decisions += [decided(20, "edge"), decided(21, "other")]
    events = [
        did("back", HOUR, "one"),
        did("back", 2 * HOUR, "two"),
        did("before", -1),
        did("same", 0),
        did("late", 7 * DAY + 1),
        did("edge", 7 * DAY),
        did("other", HOUR, unit_type="account_id"),
        did("not", HOUR, event="survey"),
    ]
    estimate = lines(experiment(returned={}), decisions, events)["returned", "a"]
    assert (estimate.units, estimate.decisions) == (7, 7)
    assert estimate.value == pytest.approx(2 / 7)


def test_the_window_opens_with_the_first_decision_and_not_with_a_later_one() -> None:
    decisions = [decided(1, "u"), decided(2, "u", 5 * DAY), decided(3, "v")]
    events = [did("u", 8 * DAY), did("v", DAY)]
    assert lines(experiment(returned={}), decisions, events)["returned", "a"].value == 0.5


def test_until_the_window_is_over_nothing_is_known_of_a_unit() -> None:
    decisions = [decided(1, "old"), decided(2, "young", DAY), decided(3, "old", 2 * DAY)]
    events = [did("young", DAY + HOUR)]
    at = START + 7 * DAY + HOUR
    estimate = lines(experiment(returned={}), decisions, events, at=at)["returned", "a"]
    assert (estimate.units, estimate.value) == (1, 0.0)
    none_yet = lines(experiment(returned={}), decisions, events, at=at - 2 * HOUR)["returned", "a"]
    assert none_yet.reason == "immature"


def test_rewards_of_the_same_name_are_no_events_of_the_unit() -> None:
    reward = RewardEvent(
        decision_id="d1", event_id="e", event="session_start", received_at=START + HOUR
    )
    estimate = lines(experiment(returned={}), [decided(1, "u")], [], rewards=[reward])
    assert estimate["returned", "a"].value == 0.0


_EVENTS = st.lists(
    st.tuples(st.sampled_from("uvw"), st.integers(-3, 12), st.sampled_from([-2.0, 1.0, 4.0])),
    max_size=10,
)


@settings(max_examples=15)
@given(_EVENTS)
def test_every_kind_is_that_of_the_units_events_in_the_window(
    happened: list[tuple[str, int, float]],
) -> None:
    kinds = ("binary", "count", "sum", "max", "mean", "last", "earliest")
    metrics = {kind: {"kind": kind} for kind in kinds}
    for kind in ("max", "mean", "last", "earliest"):
        metrics[kind]["default"] = -1.0  # type: ignore[assignment]
    spec = experiment(**metrics)
    decisions = [decided(n, unit) for n, unit in enumerate("uvw")]
    # Events of one moment go by their ids, in Python as in SQL.
    order = [did(u, days * DAY, f"e{n}", value=v) for n, (u, days, v) in enumerate(happened)]
    got = lines(spec, decisions, order)
    for metric in spec.unit_metrics:
        values = []
        for unit in "uvw":
            own = [
                (value, float(days * 86_400))
                for u, days, value in happened
                if u == unit and days > 0
            ]
            values.append(metric.value(own))
        assert got[metric.name, "a"].value == pytest.approx(math.fsum(values) / 3), metric.name


def test_variants_are_compared_and_a_guardrail_watches_it(tmp_path: Path) -> None:
    churned = {"event": "cancelled", "kind": "binary", "window": "7d", "scope": "unit"}
    spec = an_experiment(
        unit="profile_id",
        metrics={
            "play": {"event": "play", "kind": "binary", "window": "60s"},
            "churned": churned,
            "nps": {**churned, "event": "nps", "kind": "last", "window": "14d", "default": 5.0},
        },
        guardrails=[{"metric": "churned", "margin": "2%", "better": "lower"}],
    )
    decisions, events = [], []
    for n in range(400):
        variant = "ab"[n % 2]
        decisions += [decided(10 * n + k, f"u{n}", k * HOUR, variant) for k in range(1 + n % 3)]
        if n % 10 < (2 if variant == "a" else 7):
            events.append(did(f"u{n}", DAY, event="cancelled"))
        events.append(did(f"u{n}", DAY, "nps", event="nps", value=8.0 if variant == "b" else 6.0))
    publish(tmp_path, [spec], decisions, unit_events=events, at=START + 30 * DAY)
    report = reporting.load_experiment_report("home", tmp_path)
    assert report.ab is not None
    compared = {c.metric: c for c in report.ab.comparisons}
    assert compared["churned"].call == "worse"
    assert compared["churned"].difference == pytest.approx(0.6 - 0.2, abs=0.11)
    assert [g.metric for g in report.ab.guardrails] == ["churned"]
    assert compared["nps"].difference == pytest.approx(2.0)
    assert compared["churned"].n == compared["churned"].n_control == 200
    written = msgspec.json.decode(msgspec.json.encode(report))
    assert {line["per"] for line in written["metrics"] if line["metric"] == "nps"} == {"unit"}
    runtimes = plan("home", tmp_path, metric="churned", lifts=[0.1], days=[14])
    assert runtimes.metric == "churned"
    with pytest.raises(BadRequest, match="scope: unit"):
        progress(tmp_path, "home", "churned")


def test_a_units_past_takes_noise_out() -> None:
    """A covariate of time reads the unit's own events before its first decision."""
    spec = experiment(returned={"kind": "count", "covariate": "7d"})
    decisions, events = [], []
    for n in range(200):
        decisions.append(decided(n, f"u{n}", variant="ab"[n % 2]))
        visits = n // 2 % 5
        for k in range(visits):
            events.append(did(f"u{n}", -(k + 1) * HOUR, f"before{k}"))
        for k in range(visits + n // 10 % 2):
            events.append(did(f"u{n}", (k + 1) * HOUR, f"after{k}"))
    with temporary_lake([spec], decisions, unit_events=events, at=START + 30 * DAY) as data:
        report = reporting.load_experiment_report("home", data)
    assert report.ab is not None
    (row,) = [c for c in report.ab.comparisons if c.metric == "returned"]
    assert row.variance_saved is not None
    assert row.variance_saved > 0.8


@pytest.mark.parametrize(
    ("change", "path", "text"),
    [
        ({"unit": None}, "metrics.returned.scope", "unit: in this file"),
        ({"objective": {"returned": 1.0}}, "objective.returned", "policies learn from decisions"),
        ({"per": "decision"}, "metrics.returned.per", "since scope: unit"),
        ({"guardrails": [{"metric": "returned", "margin": "1%"}]}, "metrics.returned.better", ""),
    ],
)
def test_what_it_cannot_mean_is_refused_by_name(
    change: dict[str, Any], path: str, text: str
) -> None:
    returned = {"event": "session_start", "kind": "binary", "window": "7d", "scope": "unit"}
    if "per" in change:
        returned["per"] = change.pop("per")
    fields: dict[str, Any] = {
        "unit": "profile_id",
        "metrics": {
            "play": {"event": "play", "kind": "binary", "window": "60s"},
            "returned": returned,
        },
        **change,
    }
    if fields["unit"] is None:
        del fields["unit"]
    with pytest.raises(SpecError) as raised:
        an_experiment(**fields)
    (problem,) = [p for p in raised.value.problems if p.path == path]
    assert text in str(problem)


def test_policies_pages_and_fingerprints_do_not_see_it() -> None:
    plain, more = experiment(), experiment(returned={})
    assert [metric.name for metric in more.metrics] == ["play"]
    assert [metric.per for metric in more.unit_metrics] == ["unit"]
    assert plain.learning_fingerprint == more.learning_fingerprint
    assert plain.fingerprint != more.fingerprint


# ---------------------------------------------------------------------- retention


def retained(day: int = 1, **more: Any) -> dict[str, Any]:
    return {"event": "session_start", "kind": "retention", "day": day, **more}


def retention(spec: Experiment, decisions: Any, events: Any, at: int) -> Any:
    return lines(spec, decisions, events, at=at)["back", "a"]


def of_days(day: int, time_zone: str | None = None) -> Experiment:
    play = {"event": "play", "kind": "binary", "window": "60s"}
    zone = {} if time_zone is None else {"time_zone": time_zone}
    return an_experiment(unit="profile_id", metrics={"play": play, "back": retained(day)}, **zone)


_ZONES = [None, "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Kiritimati"]
_HOURS = st.floats(0.0, 24.0 * 5)


@settings(max_examples=12)
@given(
    st.sampled_from(_ZONES),
    st.integers(1, 3),
    st.sampled_from([datetime(2026, 3, 27), datetime(2026, 10, 23), datetime(2026, 6, 1)]),
    st.lists(st.tuples(_HOURS, _HOURS), min_size=1, max_size=5),
    _HOURS,
)
def test_retention_is_of_one_calendar_day_of_the_experiments_zone(
    zone: str | None, day: int, start: datetime, visits: list[tuple[float, float]], now: float
) -> None:
    """Also where clocks are put forward or back; and nothing is known before that day is over."""
    local = ZoneInfo(zone or "UTC")

    def moment(hours: float) -> datetime:
        return start.replace(tzinfo=UTC) + timedelta(microseconds=round(hours * HOUR))

    def micros(hours: float) -> int:
        return round(moment(hours).timestamp() * SECOND)

    def days_between(first: datetime, second: datetime) -> int:
        return (second.astimezone(local).date() - first.astimezone(local).date()).days

    decisions, events, expected = [], [], []
    for n, (first, wait) in enumerate(visits):
        decisions.append(a_decision(f"d{n}", unit=f"u{n}", decided_at=micros(first)))
        at = micros(first + wait)
        events.append(
            UnitEvent(
                unit=f"u{n}",
                unit_type="profile_id",
                event_id="e",
                event="session_start",
                occurred_at=at,
                received_at=at,
            )
        )
        if days_between(moment(first), moment(now)) > day:
            is_on_day = days_between(moment(first), moment(first + wait)) == day
            expected.append(float(is_on_day))
    estimate = retention(of_days(day, zone), decisions, events, micros(now))
    assert estimate.decisions == len(expected)
    if expected:
        assert estimate.value == pytest.approx(sum(expected) / len(expected))


def test_a_visit_past_midnight_is_the_next_days_though_minutes_later() -> None:
    midnight = START - START % DAY
    late = [a_decision("d", unit="u", decided_at=midnight + DAY - 60 * SECOND)]
    after = midnight + DAY + 60 * SECOND
    visit = [did("u", after - START)]
    assert retention(of_days(1), late, visit, midnight + 2 * DAY).value == 1.0
    assert retention(of_days(1), late, visit, midnight + 2 * DAY - 1).reason == "immature"
    assert retention(of_days(1, "Europe/Berlin"), late, visit, midnight + 3 * DAY).value == 0.0


@pytest.mark.parametrize(
    ("metric", "path", "text"),
    [
        ({"day": None}, "day", "the day after the first decision"),
        ({"window": "7d"}, "window", "its day says when"),
        ({"scope": "decision"}, "scope", "since kind: retention"),
        ({"kind": "binary"}, "day", "a window, since kind: binary"),
        ({"day": 0}, "day", "a whole number from 1"),
        ({"day": "7d"}, "day", "a whole number from 1"),
        ({"kind": "binary", "day": None}, "window", "this key, which is required"),
    ],
)
def test_retention_says_its_day_and_nothing_else_does(
    metric: dict[str, Any], path: str, text: str
) -> None:
    whole = {key: value for key, value in (retained(7) | metric).items() if value is not None}
    play = {"event": "play", "kind": "binary", "window": "60s"}
    with pytest.raises(SpecError) as raised:
        an_experiment(unit="profile_id", metrics={"play": play, "back": whole})
    (problem,) = raised.value.problems
    assert problem.path == f"metrics.back.{path}"
    assert text in str(problem)


def test_a_time_zone_is_one_that_there_is() -> None:
    with pytest.raises(SpecError, match=r"time_zone.*Europe/Berlin"):
        of_days(1, "Europe/Berlín")
    assert of_days(1, "Europe/Berlin").time_zone == "Europe/Berlin"
    assert of_days(1).fingerprint != of_days(1, "Europe/Berlin").fingerprint
