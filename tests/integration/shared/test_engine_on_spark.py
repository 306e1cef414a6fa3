"""Spark 4 itself, on a JVM, which answers as DuckDB does, to the last digits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import rich_lake, spark_server
from tests.answers import differences
from tests.unit.reporting.test_kept_days import Record, watched

from topbill.domain.engine_url import ENGINE_VARIABLE
from topbill.lake import DATABASE, answer, lake_place
from topbill.lake.files import files_below
from topbill.lake.kept import SUMS
from topbill.reporting import load_experiment_report, to_json
from topbill.reporting.experiment import build
from topbill.reporting.queries import decisions, exposure, series

pytest.importorskip("pyspark", reason="no pyspark: pip install 'topbill[spark]'")

pytestmark = [pytest.mark.slow, pytest.mark.spark]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record with something of everything."""
    return rich_lake.publish(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server of this module."""
    with spark_server.running(tmp_path_factory.mktemp("spark")) as url:
        yield url


def _sql(data: Path) -> Any:
    query = (
        "SELECT variant, count(*) AS n, sum(objective) AS x FROM feedback GROUP BY ALL ORDER BY 1"
    )
    return [list(row.values()) for row in answer(data / DATABASE, query).to_pylist()]


def _pictures(data: Path) -> Any:
    frames = [
        series.traffic(data, rich_lake.KEY),
        exposure.by_segment(data, rich_lake.KEY, "bandit", "device"),
        decisions.delays(data, rich_lake.KEY),
    ]
    return [
        json.loads(frame.to_json(orient="split", date_format="iso", double_precision=15))
        for frame in frames
    ]


@pytest.mark.parametrize("question", [_sql, _pictures])
def test_spark_says_the_same(
    question: Callable[[Path], Any], data: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = question(data)
    monkeypatch.setenv(ENGINE_VARIABLE, server)
    assert differences(here, question(data)) == []
    assert here


def test_what_days_add_up_to_is_kept_in_the_lake(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record(tmp_path, seed=1, units=60)
    for _ in range(4):
        record.live(150)
    record.publish()
    here = json.loads(to_json(load_experiment_report("home", tmp_path)))
    monkeypatch.setenv(ENGINE_VARIABLE, server)
    monkeypatch.setattr(build, "LARGE", 1)
    for _ in range(2):
        with watched() as said:
            there = json.loads(to_json(load_experiment_report("home", tmp_path)))
        assert said == []
        assert differences(here, there) == []
    commits = [
        path for path in files_below(lake_place(tmp_path)).sizes(SUMS) if "_delta_log" in path
    ]
    assert commits
    assert all(path.endswith(f"{0:020}.json") for path in commits), "the second one read"
