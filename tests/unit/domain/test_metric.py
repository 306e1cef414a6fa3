"""Every kind of metric in the table: what it computes, and that Python, SQL, the report of a page
and the simulator agree on it.
"""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill import domain, lake
from topbill.domain.errors import BadRequest
from topbill.domain.metric import (
    METRIC_KINDS,
    Metric,
    event_kinds,
    longest_window,
    unit_values_sql,
    values_sql,
    window_over,
)
from topbill.domain.objective import Objective
from topbill.domain.sql import identifier, quoted
from topbill.reporting.page import page_values
from topbill.reporting.queries.database import AnalyticsDatabase

KEY = "it's"
KINDS = event_kinds()
LEARNED = [kind for kind in KINDS if METRIC_KINDS[kind].is_learned]
START = dt.datetime(2026, 1, 1)
SECOND = 1_000_000
LAGS = [-SECOND, 0, 99_999, 100_000, 100_001, SECOND, SECOND, 5_500_000, 5_500_001, 10 * SECOND]
"""µs after the decision; some of them twice as likely, so that events of one moment are common."""
Event = tuple[int, str, float, int]
"""Which decision it belongs to, its name, its value, and its lag in µs."""


def item_of(value: float) -> str | None:
    """Which of a few items an event speaks of; some of none."""
    return None if value < -4 else f"i{int(value) % 3}"


def recorded(decisions: int, events: list[Event]) -> lake.Connection:
    """A lake of `decisions` decisions of experiment `it's` and their events, in memory."""
    connection = lake.connect()
    connection.execute(
        "CREATE TABLE decisions AS SELECT 'd' || n AS decision_id, $key AS experiment, n AS seq "
        "FROM range($decisions) t(n)",
        {"key": KEY, "decisions": decisions},
    ).fetchall()
    connection.execute(
        "CREATE TABLE rewards (decision_id VARCHAR, experiment VARCHAR, variant VARCHAR, "
        "unit VARCHAR, event VARCHAR, value DOUBLE, occurred_at TIMESTAMP, decided_at TIMESTAMP, "
        "seq BIGINT, item VARCHAR)"
    )
    rows: list[list[object]] = []
    for seq, (n, name, value, lag) in enumerate(events):
        happened = START + dt.timedelta(microseconds=lag)
        rows.append([f"d{n}", KEY, "a", "u", name, value, happened, START, seq, item_of(value)])
    if rows:
        connection.executemany("INSERT INTO rewards VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    return connection


def of_decision(metric: Metric, n: int, events: list[Event]) -> float:
    """What Python makes of the events of one decision."""
    own: list[Any] = []
    for m, name, value, lag in events:
        if m == n and name == metric.event:
            item = (item_of(value),) if metric.kind == "distinct" else ()
            own.append((value, lag / 1e6, *item))
    return metric.value(own)


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(["a", "b's", "c"]),
        st.floats(-5, 5, allow_nan=False, width=32),
        st.sampled_from(LAGS),
    ),
    max_size=25,
)
PARTS = st.fixed_dictionaries(
    {
        "event": st.sampled_from(["a", "b's"]),
        "window": st.sampled_from([0.1, 1.0, 5.5, 10.0]),
        "cap": st.sampled_from([0.7, 1.0, 3.0]),
        "default": st.sampled_from([0.0, 0.4, 2.0, -1.0]),
        "floor": st.sampled_from([0.0, -1.0, 0.5, -2.5]),
    }
)


@settings(max_examples=25)
@given(
    events=EVENTS,
    parts=st.lists(PARTS, min_size=len(KINDS), max_size=len(KINDS)),
    weights=st.lists(
        st.sampled_from([-0.5, 0.0, 0.25, 1.0, 2.0]),
        min_size=len(KINDS),
        max_size=len(KINDS),
    ),
)
def test_python_sql_and_the_report_of_a_page_agree_on_every_kind(
    events: list[Event], parts: list[dict[str, Any]], weights: list[float]
) -> None:
    metrics = [
        Metric(f'odd "{kind}"', kind=kind, **own) for kind, own in zip(KINDS, parts, strict=True)
    ]
    objective = Objective.of(metrics, {m.name: w for m, w in zip(metrics, weights, strict=True)})
    connection = recorded(4, events)
    columns = ", ".join(identifier(metric.name) for metric in metrics)
    got = connection.sql(
        f"SELECT decision_id, {objective.sql()}, {columns} FROM "  # noqa: S608  (our own text)
        f"({values_sql(metrics, f'r.experiment = {quoted(KEY)}')})"
    ).fetchall()
    by_decision = {row[0]: row[1:] for row in got}
    pages = page_values(AnalyticsDatabase(connection), KEY, metrics, objective.weights)
    for n in range(4):
        expected = [of_decision(metric, n, events) for metric in metrics]
        total = objective.value(dict(zip([m.name for m in metrics], expected, strict=True)))
        if f"d{n}" in by_decision:
            assert by_decision[f"d{n}"] == pytest.approx((total, *expected), abs=1e-12)
        else:  # no event of any metric: all are at their defaults, and so is the objective
            assert expected == [metric.default for metric in metrics]
            assert total == objective.default
        assert pages["objective"][n] == pytest.approx(total, abs=1e-12)
        for metric, value in zip(metrics, expected, strict=True):
            clipped = min(1.0, max(0.0, (value - metric.floor) / (metric.cap - metric.floor)))
            assert pages[metric.name][n] == pytest.approx(clipped, abs=1e-12)


@pytest.mark.parametrize("kind", LEARNED)
def test_the_report_of_a_page_computes_each_kind_as_the_learner_does(kind: str) -> None:
    """Once it took the largest value for what it didn't know, a count for "it happened", and
    nothing for a default."""
    default = 5.0 if METRIC_KINDS[kind].takes_value else 0.0
    metric = Metric("m", "e", kind, 60.0, 10.0, default=default)
    values = [(2.0, 1.0), (9.0, 2.0), (4.0, 3.0)]
    connection = recorded(2, [(0, "e", value, int(s * SECOND)) for value, s in values])
    expected = [min(1.0, metric.value(values) / 10.0), metric.value([]) / 10.0]
    assert (
        page_values(AnalyticsDatabase(connection), KEY, [metric], {"m": 1.0})["m"].tolist()
        == expected
    )


def test_the_guide_lists_every_kind_with_what_it_computes() -> None:
    page = (Path(__file__).parents[3] / "docs" / "experiments.md").read_text()
    lines = [f"| `{name}` | {kind.summary} |" for name, kind in METRIC_KINDS.items()]
    assert [line for line in lines if line not in page] == []


def test_what_each_kind_computes() -> None:
    events = [(2.0, 1.0), (9.0, 3.0), (4.0, 3.0), (7.0, 1.0), (100.0, 61.0)]
    got = {kind: Metric("m", "e", kind, 60.0).value(events) for kind in KINDS}
    assert got == {
        "binary": 1.0,
        "max": 9.0,
        "sum": 22.0,
        "count": 4.0,
        "mean": 5.5,
        "last": 4.0,  # of two at the last moment, the one that the log has last
        "earliest": 2.0,  # of two at the first moment, the one that the log has first
        "retention": 1.0,
        "distinct": 0.0,  # none of these events speaks of an item
    }
    spoken: list[Any] = [(1.0, 1.0, "a"), (1.0, 2.0, "b"), (1.0, 3.0, "a"), (1.0, 4.0, None)]
    assert Metric("m", "e", "distinct", 60.0).value(spoken) == 2.0


@pytest.mark.parametrize("kind", [kind for kind in METRIC_KINDS if kind not in KINDS])
def test_a_metric_of_other_metrics_is_no_number_of_a_decisions_events(kind: str) -> None:
    metric = Metric("m", "e", kind, 60.0)
    assert not metric.is_of_decisions
    with pytest.raises(BadRequest, match="a metric of other metrics"):
        metric.value([(1.0, 1.0)])


@settings(max_examples=25)
@given(events=EVENTS, window=st.sampled_from([0.1, 1.0, 5.5]), now=st.integers(0, 12))
def test_a_unit_has_the_metric_of_all_its_mature_decisions_events_together(
    events: list[Event], window: float, now: int
) -> None:
    """Decisions 0 and 1 are of one unit, 2 and 3 of another; each of them was decided 3 s after the
    one before."""
    connection = recorded(4, events)
    connection.execute("UPDATE rewards SET unit = (decision_id[2:]::INT // 2)::VARCHAR")
    later = "to_seconds(3 * decision_id[2:]::INT)"
    connection.execute(
        f"UPDATE rewards SET decided_at = decided_at + {later}, occurred_at = occurred_at + {later}"  # noqa: S608
    )
    metrics = [Metric(kind, "a", kind, window, per="unit") for kind in KINDS]
    start = round((START - dt.datetime(1970, 1, 1)).total_seconds()) * SECOND
    at = start + now * SECOND
    query = unit_values_sql(metrics, f"r.experiment = {quoted(KEY)}", at)
    got = {row[0]: row[2:] for row in connection.sql(query).fetchall()}
    for unit in ("0", "1"):
        own: list[Any] = []
        for n, name, value, lag in events:
            decided = start + 3 * n * SECOND
            over = window_over(decided, window, at)
            if n // 2 == int(unit) and name == "a" and over and lag / 1e6 <= window:
                own.append((value, (decided + lag) / 1e6, item_of(value)))
        for metric, value in zip(metrics, got.get(unit, [None] * len(metrics)), strict=True):
            pairs = own if metric.kind == "distinct" else [event[:2] for event in own]
            expected = metric.definition.fold(pairs) if own else None
            assert value == (None if expected is None else pytest.approx(expected, abs=1e-12))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_sum_beyond_all_numbers_is_infinite_and_does_not_stop_learning(sign: float) -> None:
    assert Metric("m", "e", "sum", 60.0).value([(sign * 1e308, 1.0)] * 3) == sign * math.inf


def test_an_unknown_kind_is_refused_and_told_which_there_are() -> None:
    with pytest.raises(BadRequest, match=r"metrics\.m\.kind: got 'meen'; expected one of binary"):
        Metric("m", "e", "meen", 60.0)


def test_the_table_cannot_be_changed_by_who_reads_it() -> None:
    assert domain.METRIC_KINDS is METRIC_KINDS
    with pytest.raises(TypeError):
        METRIC_KINDS["other"] = METRIC_KINDS["max"]  # type: ignore[index]


@given(at=st.integers(0, 10**16), window=st.integers(1, 10**9), lag=st.integers(-3, 3))
def test_a_window_is_over_when_no_event_can_be_inside_any_more(
    at: int, window: int, lag: int
) -> None:
    """µs by µs: from the moment it is over, an event that happens then has no effect."""
    seconds = window / 1_000
    now = at + window * 1_000 + lag
    metric = Metric("m", "e", "count", seconds)
    counts = metric.value([(1.0, (now - at) / 1e6)]) == 1.0
    assert window_over(at, seconds, now) == (not counts)
    assert longest_window([metric, metric]) == seconds


def test_an_objective_without_anything_to_win_is_nothing() -> None:
    metrics = [Metric("m", "e", "binary", 60.0)]
    objective = Objective.of(metrics, {"m": -1.0})
    assert objective.value({"m": 1.0}) == 0.0
    connection = lake.connect()
    assert connection.sql(f"SELECT {objective.sql()}").fetchall() == [(0.0,)]
    assert np.isclose(objective.window, 60.0)
