"""What the dashboards ask, answered by a Spark Connect server as by DuckDB, to the last digits."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pandas as pd
import pytest
from tests import sail_server
from tests.answers import differences

from topbill.domain.engine_url import ENGINE_VARIABLE, SCRATCH_VARIABLE
from topbill.reporting import answer_cache, past
from topbill.reporting.queries import (
    action_values,
    coverage,
    database,
    decisions,
    drift,
    exposure,
    history,
    launches,
    milestones,
    series,
    shadows,
)

pytest.importorskip("pysail", reason="no pysail: pip install -r requirements-dev.lock")
pytest.importorskip("pyspark", reason="no pyspark: pip install 'topbill[spark]'")

DASHBOARDS = Path(__file__).parents[3] / "dashboards"


class Asked(NamedTuple):
    """What a question is asked of, as far as it needs that."""

    data: Path
    key: str
    variant: str
    segment: str
    group: str
    decision: str
    unit: str


QUESTIONS: dict[str, Callable[[Asked], Any]] = {
    "action_values": lambda q: action_values.action_values(q.data, q.key, q.variant),
    "action_values of a group": lambda q: action_values.action_values(
        q.data, q.key, q.variant, q.segment, q.group
    ),
    "groups": lambda q: action_values.groups(q.data, q.key),
    "coverage": lambda q: coverage.coverage(q.data, "home"),
    "pages": lambda q: coverage.pages(q.data),
    "experiments": lambda q: database.experiments(q.data),
    "load_experiment": lambda q: database.load_experiment(q.data, q.key).raw,
    "problems": lambda q: database.problems(q.data),
    "published_at": lambda q: database.published_at(q.data),
    "recorded_alarms": lambda q: database.recorded_alarms(q.data),
    "retained": lambda q: database.retained(q.data),
    "standing_alarms": lambda q: database.standing_alarms(q.data),
    "delays": lambda q: decisions.delays(q.data, q.key),
    "find": lambda q: decisions.find(q.data, q.decision),
    "joins": lambda q: decisions.joins(q.data, q.key),
    "latest": lambda q: decisions.latest(q.data, q.key),
    "latest of a kind": lambda q: decisions.latest(
        q.data, q.key, variant=q.variant, has_events=True
    ),
    "of_unit": lambda q: decisions.of_unit(q.data, q.unit),
    "events_of_unit": lambda q: decisions.events_of_unit(q.data, q.unit),
    "drift": lambda q: drift.drift(q.data, q.key),
    "by_segment": lambda q: exposure.by_segment(q.data, q.key, q.variant, q.segment),
    "exploration": lambda q: exposure.exploration(q.data, q.key, q.variant),
    "explored_by_position": lambda q: exposure.explored_by_position(q.data, q.key),
    "most_shown": lambda q: exposure.most_shown(q.data, q.key, q.variant),
    "policy_versions": lambda q: exposure.policy_versions(q.data, q.key),
    "positions": lambda q: exposure.positions(q.data, q.key, q.variant),
    "shares_over_time": lambda q: exposure.shares_over_time(q.data, q.key, q.variant),
    "revision_lines": lambda q: history.revision_lines(q.data, q.key),
    "launch_of": lambda q: launches.launch_of(q.data, q.key),
    "launches": lambda q: launches.launches(q.data),
    "milestones": lambda q: milestones.milestones(q.data, q.key),
    "experiment_library": lambda q: past.experiment_library(q.data),
    "progress": lambda q: series.progress(q.data, q.key),
    "traffic": lambda q: series.traffic(q.data, q.key),
    "units_over_time": lambda q: series.units_over_time(q.data, q.key),
    "shadows": lambda q: shadows.shadows(q.data, q.key),
    "experiment_report": lambda q: answer_cache.experiment_report(q.data, q.key),
}
"""By the name of the function that is asked, and of what."""
ELSEWHERE = {"page_report"}
"""Compared by tests/integration/pages/test_report.py."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server of this process."""
    with pytest.MonkeyPatch.context() as patch, sail_server.running() as url:
        patch.setenv(SCRATCH_VARIABLE, str(tmp_path_factory.mktemp("scratch")))
        yield url


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_answered_alike(
    question: str, demo: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(demo, "home-rows", "thompson", "taste", "crime", "home-rows-3", "")
    (unit,) = decisions.latest(demo, "home-rows", 1)["unit"]
    here, there = _answers(QUESTIONS[question], asked._replace(unit=unit), server, monkeypatch)
    assert differences(here, there) == []


@pytest.mark.slow
@pytest.mark.parametrize("question", QUESTIONS)
def test_phases_holdout_and_units_left_out_are_answered_alike(
    question: str, phased: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(phased, "phased", "thompson", "device", "web", "", "")
    last = decisions.latest(phased, "phased", 1).iloc[0]
    asked = asked._replace(decision=last["decision_id"], unit=last["unit"])
    here, there = _answers(QUESTIONS[question], asked, server, monkeypatch)
    assert differences(here, there) == []


def test_no_question_of_a_page_is_left_out() -> None:
    """Whatever a page asks by `data.ask` is compared here."""
    asked = set()
    for file in DASHBOARDS.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("ask", "data.ask"):
                asked.add(ast.unparse(node.args[0]).rpartition(".")[2])
    assert len(asked) > 25
    assert asked <= {*QUESTIONS, *ELSEWHERE}


def _answers(
    question: Callable[[Asked], Any], asked: Asked, server: str, monkeypatch: pytest.MonkeyPatch
) -> list[Any]:
    """What DuckDB and the server say."""
    said = []
    for url in ("", server):
        monkeypatch.setenv(ENGINE_VARIABLE, url)
        said.append(_plain(question(asked)))
    return said


def _plain(answer: Any) -> Any:
    """An answer as lists, dictionaries and numbers, the types of columns included."""
    if isinstance(answer, pd.DataFrame):
        kinds = [str(kind) for kind in answer.dtypes]
        rows = answer.itertuples(index=False, name=None)
        return [list(answer.columns), kinds, answer.attrs, [_plain(row) for row in rows]]
    if isinstance(answer, msgspec.Struct):
        return _plain(msgspec.structs.asdict(answer))
    if isinstance(answer, dict):
        return {name: _plain(value) for name, value in answer.items()}
    if isinstance(answer, list | tuple):
        return [_plain(value) for value in answer]
    if answer is pd.NaT or answer is pd.NA or (isinstance(answer, float) and math.isnan(answer)):
        return None
    return _plain(answer.tolist()) if hasattr(answer, "tolist") else answer
