"""A launch on the dashboards: where it stands, what it waits for, what was done and why."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from filled import record_visits
from test_pages import said, tables

from topbill.domain.terms import load_terms
from topbill.lake import Lake, LaunchLine
from topbill.log.protocol import Order
from topbill.reporting.queries.database import published_at
from topbill.reporting.queries.launches import launch_of, launches
from topbill.reporting.queries.milestones import milestones
from topbill.spec import Experiment

KEY = "home-artwork"
HOUR = 3_600_000_000
BEGUN = 1_790_000_000_000_000
WAITING = LaunchLine(
    experiment=KEY,
    revision="r1",
    step=3,
    stage="ramp",
    traffic=0.25,
    since=BEGUN + 24 * HOUR,
    reason="approval",
    sentence="50% of traffic begins when somebody approves",
    until=None,
    next_traffic=0.5,
    needs_approval=True,
    ramp=(0.01, 0.25, 0.5, 1.0),
)


def order(step: int, hours: int, traffic: float, because: str) -> Order:
    at = BEGUN + hours * HOUR
    return Order(KEY, "r1", f"m{step}", at, "launch", None, because, None, "traffic", step, traffic)


ORDERS = [
    Order(KEY, "r1", "r1", BEGUN - HOUR, "launch", None, "as good", None, "gate", 1),
    order(2, 0, 0.01, "the first step of its ramp"),
    Order(KEY, "r1", "m2", BEGUN + HOUR, "ann", "paused", "<b>lunch</b>", traffic=0.01),
    Order(KEY, "r1", "m2", BEGUN + 2 * HOUR, "ann", None, "", traffic=0.01),
    order(3, 24, 0.25, "1% held for 24 h and 5,321 units, no guardrail failed"),
    # Of another state of the file: none of this launch.
    Order(KEY, "r0", "m0", BEGUN - 9 * HOUR, "launch", "stopped", "harm", None, "rollback", 4),
]


def published(data: Path, experiment: Experiment, line: LaunchLine) -> Path:
    moment = published_at(data).replace(tzinfo=UTC)
    at = round(moment.timestamp() * 1e6)
    Lake(data).write_database([experiment], at, orders=ORDERS, launches=[line])
    return data


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory, examples: dict[str, Experiment]) -> Path:
    experiment = examples[KEY]
    data = record_visits(tmp_path_factory.mktemp("launched"), [experiment], 300)
    return published(data, experiment, WAITING)


def test_a_launch_is_told_with_its_history(launched: Path) -> None:
    launch = launch_of(launched, KEY)
    assert launch is not None
    assert launch.state == "Waits for approval"
    assert launch.since == datetime(2026, 9, 22, 14, 13, 20)
    assert launch.says == (
        "at 25% of traffic since 2026-09-22 14:13 UTC: 50% of traffic begins when somebody "
        "approves; 50% is next"
    )
    assert [(step.step, step.name) for step in launch.steps] == [
        (1, "gate passed"),
        (2, "1% of traffic"),
        (0, "paused"),
        (0, "as its file says"),
        (3, "25% of traffic"),
    ]


def test_the_experiments_page_and_home_say_what_it_waits_for(launched: Path, open_app) -> None:
    app = open_app(launched, "experiment", experiment=KEY)
    assert [e.message for e in app.exception] == []
    text = said(app)
    assert "Traffic: 1% → **25%** → 50% → 100%" in text
    assert "At 25% of traffic since 2026-09-22 14:13 UTC" in text
    assert "topbill approve home-artwork" in text
    table = next(table for table in tables(app) if "why" in table)
    assert list(table["what"])[-1] == "25% of traffic"
    assert "<b>lunch</b>" in set(table["why"])
    home = open_app(launched)
    assert [e.message for e in home.exception] == []
    assert "Launch: waits for approval. At 25% of traffic" in said(home)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"stage": "gate", "traffic": None, "needs_approval": False}, "At its gate"),
        ({"stage": "shadow", "traffic": None, "needs_approval": False}, "In shadow"),
        ({"needs_approval": False, "reason": "hold_time"}, "Ramping"),
        ({"needs_approval": False, "reason": "done", "next_traffic": None}, "Launched"),
        ({}, "Waits for approval"),
        ({"stage": "over"}, "Rolled back"),
        ({"stage": "over", "traffic": None}, "Stopped at its gate"),
    ],
)
def test_each_stage_has_one_word_of_the_glossary(
    launched: Path, changes: dict[str, object], state: str
) -> None:
    launch = launch_of(launched, KEY)
    assert launch is not None
    assert msgspec.structs.replace(launch, **changes).state == state
    assert state in load_terms().states


def test_charts_over_time_have_a_line_at_each_step_and_order(launched: Path, open_app) -> None:
    marks = milestones(launched, KEY)
    assert [mark.label for mark in marks] == [
        "rolled back",
        "1% of traffic",
        "paused",
        "as its file says",
        "25% of traffic",
    ]
    assert marks[0].sentence == "rolled back, by launch: harm"
    for page in ("experiment", "health", "bandit"):
        app = open_app(launched, page, experiment=KEY)
        assert [e.message for e in app.exception] == []
        over_time = [c.proto.spec for c in app.get("vega_lite_chart") if '"till"' in c.proto.spec]
        assert over_time
        for spec in over_time:
            assert '"sentence"' in spec


def test_a_launch_that_went_back_says_why(
    tmp_path: Path, examples: dict[str, Experiment], open_app
) -> None:
    data = record_visits(tmp_path, [examples[KEY]], 0)
    over = WAITING._replace(
        stage="over",
        reason="over",
        sentence="the launch is over: abandon is worse by 6.1% in thompson",
        next_traffic=None,
        needs_approval=False,
    )
    text = said(open_app(published(data, examples[KEY], over), "experiment", experiment=KEY))
    assert "The launch is over: abandon is worse by 6.1% in thompson." in text


def test_without_a_launch_there_is_nothing_to_say(demo: Path, open_app) -> None:
    assert launches(demo) == []
    assert "Launch" not in said(open_app(demo, "experiment", experiment=KEY))
