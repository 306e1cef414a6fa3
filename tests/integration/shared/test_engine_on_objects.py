"""A lake in an object store, read by a Spark Connect server with rights of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import object_store, rich_lake, sail_server
from tests.answers import differences
from tests.unit.reporting.test_kept_days import Record, watched

from topbill.domain.engine_url import ENGINE_VARIABLE, SCRATCH_VARIABLE
from topbill.domain.lake_url import LAKE_VARIABLE
from topbill.lake import answer, database_of, lake_place
from topbill.lake.files import files_below
from topbill.lake.kept import SUMS
from topbill.lake.kept_tables import forget_tables
from topbill.ope import evaluate
from topbill.reporting import load_experiment_report, to_json
from topbill.reporting.experiment import build

pytest.importorskip("pysail", reason="no pysail: pip install -r requirements-dev.lock")
pytest.importorskip("pyspark", reason="no pyspark: pip install 'topbill[spark]'")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A machine's folder, whose lake lies in a bucket."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in object_store.environment().items():
            patch.setenv(name, value)
        url = f"s3://{object_store.fresh_bucket()}/a/lake"
        patch.setenv(LAKE_VARIABLE, url)
        # Where several machines answer, what they keep is in a store as well.
        patch.setenv(SCRATCH_VARIABLE, f"{url}-scratch")
        yield rich_lake.publish(tmp_path_factory.mktemp("data"), is_rich=False)


@pytest.fixture(scope="module")
def server(data: Path) -> Iterator[str]:
    """The URL of a server that may read the bucket."""
    assert data
    with sail_server.running() as url:
        yield url


def _report(data: Path) -> object:
    return json.loads(to_json(load_experiment_report(rich_lake.KEY, data)))


def test_sql_reads_the_bucket(data: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    query = "SELECT variant, count(*) AS n FROM decisions GROUP BY ALL ORDER BY ALL"
    here = answer(database_of(data), query).to_pylist()
    monkeypatch.setenv(ENGINE_VARIABLE, server)
    assert answer(database_of(data), query).to_pylist() == here
    assert sum(row["n"] for row in here) > 200


def test_an_evaluation_walks_through_the_bucket_of_each_unit(
    data: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = evaluate(rich_lake.KEY, "uniform", data, buckets=4).as_dict()
    monkeypatch.setenv(ENGINE_VARIABLE, server)
    there = evaluate(rich_lake.KEY, "uniform", data, buckets=4).as_dict()
    assert differences(json.loads(json.dumps(here)), json.loads(json.dumps(there))) == []


@pytest.mark.slow
def test_a_report_of_a_bucket_says_the_same(
    data: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = _report(data)
    monkeypatch.setenv(ENGINE_VARIABLE, server)
    assert differences(here, _report(data)) == []


@pytest.mark.usefixtures("data")
def test_what_days_add_up_to_is_kept_in_the_bucket(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LAKE_VARIABLE, f"s3://{object_store.fresh_bucket()}/lake")
    record = Record(tmp_path, seed=1, units=60)
    for _ in range(3):
        record.live(60)
    record.publish()
    here = json.loads(to_json(load_experiment_report("home", tmp_path)))
    monkeypatch.setenv(ENGINE_VARIABLE, server)
    monkeypatch.setattr(build, "LARGE", 1)
    with watched() as said:
        there = json.loads(to_json(load_experiment_report("home", tmp_path)))
    assert said == []
    assert differences(here, there) == []
    place = lake_place(tmp_path)
    assert any(path.endswith(".parquet") for path in files_below(place).sizes(SUMS))
    forget_tables(place)
    assert not files_below(place).sizes(SUMS)
