"""Questions of the record that a Spark Connect server answers: DuckDB's passes, and its numbers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial, wraps
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from tests import rich_lake, sail_server, spark_server
from tests.answers import differences

from topbill import ab, reporting
from topbill.ab.reasons import DENOMINATOR_DOUBTFUL
from topbill.cli import app
from topbill.domain.engine_url import ENGINE_VARIABLE, SCRATCH_VARIABLE, address_of
from topbill.domain.errors import BadRequest, LogError
from topbill.domain.reading import Method
from topbill.lake import DATABASE, answer, open_engine
from topbill.lake.engine import DuckDBEngine
from topbill.ope import evaluate
from topbill.plan import running
from topbill.reporting.experiment.plan import plan

pytest.importorskip("pysail", reason="no pysail: pip install -r requirements-dev.lock")
pytest.importorskip("pyspark", reason="no pyspark: pip install 'topbill[spark]'")

from topbill.lake.spark import SparkEngine
from topbill.lake.spark_sql import columns_of


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of few metrics."""
    return rich_lake.publish(tmp_path_factory.mktemp("data"), is_rich=False)


@pytest.fixture(
    scope="module",
    params=["sail", pytest.param("spark", marks=[pytest.mark.slow, pytest.mark.spark])],
)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a server of this module: Sail, and Spark 4 on a JVM."""
    running = (
        sail_server.running()
        if request.param == "sail"
        else spark_server.running(tmp_path_factory.mktemp("spark"))
    )
    with pytest.MonkeyPatch.context() as patch, running as url:
        patch.setenv(SCRATCH_VARIABLE, str(tmp_path_factory.mktemp("scratch")))
        yield url


@pytest.fixture
def on_spark(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions go to the server."""
    monkeypatch.setenv(ENGINE_VARIABLE, server)


Question = Callable[[], Any]


def answers(question: Question, server: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What DuckDB and the server say, as JSON has it."""
    said = []
    for url in ("", server):
        monkeypatch.setenv(ENGINE_VARIABLE, url)
        said.append(json.loads(question()))
    return said


def test_a_difference_is_found() -> None:
    assert differences({"a": [1.0, 2.0]}, {"a": [1.0, 2.0 + 1e-8]}) == [".a[1]: 2.0 and 2.00000001"]
    assert differences({"a": None}, {"a": 1.0}) == [".a: None and 1.0"]
    assert differences({"a": 1.0}, {"a": 1.0 + 1e-12}) == []


def test_a_report_says_the_same_on_a_server(
    data: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = answers(partial(_report, data), server, monkeypatch)
    assert differences(here, there) == []
    # What it is made of is there: nothing was compared with nothing.
    assert here["ab"]["comparisons"]
    assert here["ab"]["heterogeneity"]
    assert len(here["phases"]) == 2
    assert here["health"]["choices"]


def test_no_pass_is_left_out_on_a_server(
    data: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are asked the same questions, one by one."""
    asked: dict[type, list[str]] = {DuckDBEngine: [], SparkEngine: []}
    for engine, questions in asked.items():
        for method in ("sql", "execute", "keep"):
            monkeypatch.setattr(engine, method, _noting(getattr(engine, method), questions))
    answers(partial(_report, data), server, monkeypatch)
    here, there = asked.values()
    assert there == here
    assert len(there) > 40


def _noting(method: Callable[..., Any], questions: list[str]) -> Callable[..., Any]:
    @wraps(method)
    def noting(engine: Any, *given: Any, **named: Any) -> Any:
        # What an engine asks of itself is no question of the report's.
        if sys._getframe(1).f_globals["__name__"].startswith("topbill.reporting"):
            questions.append([text for text in given if isinstance(text, str)][-1])
        return method(engine, *given, **named)

    return noting


@pytest.mark.slow
def test_a_report_of_everything_says_the_same_on_a_server(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = rich_lake.publish(tmp_path)
    here, there = answers(partial(_report, data), server, monkeypatch)
    assert differences(here, there) == []
    assert {line["metric"] for line in here["metrics"]} == rich_lake.FILE["metrics"].keys()
    assert here["holdout"]["together"]


@pytest.mark.parametrize("buckets", [1, 3])
def test_an_evaluation_says_the_same_on_a_server(
    buckets: int, data: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = partial(_evaluation, data, buckets=buckets, where="device=tv")
    here, there = answers(evaluation, server, monkeypatch)
    assert differences(here, there) == []
    assert here["buckets"] == buckets
    assert here["decisions"] > 20


def test_walks_by_bucket_add_up_to_one(data: Path) -> None:
    """Of a policy that learns nothing, and of weights alone, nothing is lost or said twice."""
    whole, parts = (json.loads(_evaluation(data, buckets=n)) for n in (1, 5))
    assert parts["buckets"] == 5
    assert parts["decisions"] == whole["decisions"]
    for name in ("ips", "snips"):
        ours, all_at_once = (one["targets"]["uniform"][name] for one in (parts, whole))
        assert differences(ours["value"], all_at_once["value"]) == []
        assert differences(ours["low"], all_at_once["low"]) == []


def test_a_sample_is_of_the_same_units_on_a_server(
    data: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = answers(partial(_evaluation, data, most=100), server, monkeypatch)
    assert differences(here, there) == []
    assert 0.0 < here["sampled"] < 1.0


@pytest.mark.parametrize(
    "query",
    [
        "SELECT variant, count(*) AS n, avg(propensity) FROM decisions GROUP BY ALL ORDER BY 1",
        "FROM units ORDER BY unit LIMIT 3",
        "SELECT d.*, r.n FROM decisions d JOIN (SELECT decision_id, count(*) AS n FROM rewards "
        "GROUP BY ALL) r ON r.decision_id = d.decision_id ORDER BY seq LIMIT 5",
        "SELECT action, position, propensity FROM placements ORDER BY decision_id LIMIT 9",
        "SELECT experiment, unit, decided_at, objective, mature FROM feedback ORDER BY 3 LIMIT 9",
        "SELECT sum(objective), count(*) FILTER (mature) FROM feedback",
        "SELECT count(*), count(r.n) FROM (decisions d LEFT JOIN (SELECT decision_id, 1 AS n FROM "
        "rewards GROUP BY ALL) r ON r.decision_id = d.decision_id)",
        "SELECT DISTINCT decided_at::DATE - DATE '2026-01-31' AS days FROM feedback ORDER BY 1",
        "SELECT sum(seq) OVER mine - seq FROM decisions WINDOW mine AS (PARTITION BY variant "
        "ORDER BY seq) ORDER BY 1",
        "SELECT key, unit FROM experiments",
        "SHOW TABLES",
    ],
)
def test_sql_is_answered_the_same_by_a_server(
    query: str, data: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for url in ("", server):
        monkeypatch.setenv(ENGINE_VARIABLE, url)
        rows = answer(data / DATABASE, query)
        said.append([rows.column_names, [list(row.values()) for row in rows.to_pylist()]])
    here, there = said
    assert differences(here, there) == []
    assert here[1]


@pytest.mark.usefixtures("on_spark")
@pytest.mark.parametrize(
    ("query", "got"),
    [
        ("DROP VIEW decisions", "got DROP"),
        ("SELECT nothing FROM decisions", "nothing"),
        ("SELECT * FROM read_parquet('/etc/passwd'), decisions", "/etc/passwd"),
        ("SELECT * FROM decisions; SELECT 1", "got 2 statements"),
        ("COPY decisions TO '/tmp/x'", "got COPY"),
        ('SELECT * FROM parquet."/etc/passwd", decisions', "parquet"),
    ],
)
def test_sql_for_a_server_reads_the_record_and_nothing_else(
    query: str, got: str, data: Path
) -> None:
    with pytest.raises(BadRequest) as caught:
        answer(data / DATABASE, query)
    assert got in str(caught.value)


@pytest.mark.usefixtures("on_spark")
def test_what_spark_has_no_word_for_is_told(data: Path) -> None:
    with pytest.raises(LogError, match="cannot answer") as caught:
        answer(data / DATABASE, "SELECT jaro_similarity(unit, 'u1') AS s FROM decisions")
    assert "JARO" in str(caught.value).upper()


def test_columns_that_a_table_has_not_yet_are_null() -> None:
    kinds = {"seq": "BIGINT", "at": "TIMESTAMP", "new": "VARCHAR[]", "each": "STRUCT(a DOUBLE)[]"}
    assert columns_of(kinds, ["at", "seq", "other"]) == [
        "`seq`",
        "`at`",
        "CAST(NULL AS ARRAY<STRING>) AS `new`",
        "CAST(NULL AS ARRAY<STRUCT<`a`: DOUBLE>>) AS `each`",
    ]


def test_how_long_it_takes_is_planned_the_same_on_a_server(
    data: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = answers(
        lambda: msgspec.json.encode(plan(rich_lake.KEY, data)), server, monkeypatch
    )
    assert differences(here, there) == []
    assert here["runtimes"]


def test_what_runs_is_read_the_same_by_a_server(
    data: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "MOST_UNITS", 50)
    here, there = answers(lambda: json.dumps(_units(data)), server, monkeypatch)
    assert here == there
    assert 20 <= len(here) <= 100


@pytest.mark.parametrize("method", ["sequential", "bayes"])
@pytest.mark.parametrize("rows", ["units", "events"])
def test_a_file_is_compared_the_same_on_a_server(
    rows: str, method: Method, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.csv"
    _rows_of_units(4 if rows == "events" else 1).to_csv(path, index=False)

    def compared() -> bytes:
        result = ab.compare_file(
            path,
            unit="user",
            variant="arm",
            control="old",
            metrics=FILE_METRICS,
            covariates={"minutes": ["past", "visits"], "clicked": "past"},
            segments=["device", "country"],
            time="at",
            shares={"old": 0.5, "new": 0.25, "other": 0.25},
            guardrails={"p90": 0.02},
            better={"p90": "lower"},
            method=method,
        )
        assert result.row_is_unit == (rows == "units")
        return msgspec.json.encode(result)

    here, there = answers(compared, server, monkeypatch)
    assert differences(here, there) == []
    assert {line["metric"] for line in here["ab"]["comparisons"]} == FILE_METRICS.keys()
    assert {line["reason"] for line in here["ab"]["comparisons"]} <= {"", DENOMINATOR_DOUBTFUL}, (
        "there are numbers"
    )
    assert here["ab"]["heterogeneity"]
    assert len(here["ab"]["sample_ratio"]["days"]) == 5


def test_a_file_is_compared_by_the_engine_that_is_named(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.parquet"
    _rows_of_units(2).to_parquet(path)
    command = ["compare", str(path), "--unit", "user", "--variant", "arm", "--control", "old"]
    command += ["--metric", "clicked=proportion:clicked", "--json"]
    said = []
    for engine in ([], ["--engine", server]):
        # Set by the command, as for all that the process asks.
        with monkeypatch.context() as patch:
            patch.setenv(ENGINE_VARIABLE, "")
            app(command + engine, result_action="return_value")
        said.append(json.loads(capsys.readouterr().out))
    assert differences(*said) == []


FILE_METRICS: dict[str, ab.Metric] = {
    "clicked": ab.Proportion("clicked"),
    "minutes": ab.Mean("minutes"),
    "mean of units": ab.Mean("minutes", "unit"),
    "ever clicked": ab.Proportion("clicked", "unit"),
    "total": ab.Sum("minutes"),
    "rate": ab.Ratio("clicked", "visits"),
    "p90": ab.Quantile("minutes", 0.9),
    "median of visits": ab.Quantile("visits"),
    "median of units": ab.Quantile("minutes", per="unit"),
}


def _rows_of_units(most: int) -> pd.DataFrame:
    """Rows of 1,500 units, each with one to `most`, of which some lack a value and of one moment
    there are several."""
    rng = np.random.default_rng(19)
    units = np.repeat(np.arange(1_500), rng.integers(1, most + 1, 1_500))
    n = len(units)
    by_unit = rng.random(1_500)[units]
    arm = np.where(by_unit < 0.5, "old", np.where(by_unit < 0.75, "new", "other"))
    minutes = rng.gamma(2.0, 5.0, n) + (arm == "new")
    minutes[rng.random(n) < 0.03] = np.nan
    return pd.DataFrame(
        {
            "user": [f"u{unit:04d}" for unit in units],
            "arm": arm,
            "clicked": (rng.random(n) < np.where(arm == "new", 0.3, 0.2)).astype(int),
            "minutes": minutes.round(3),
            "visits": rng.poisson(3.0, n),
            "past": rng.gamma(2.0, 5.0, 1_500)[units].round(3),
            "device": rng.choice(["tv", "phone"], n),
            "country": rng.choice(["no", "se", None], n),
            "at": [f"2026-03-0{day} 12:30:00" for day in rng.integers(1, 6, n)],
        }
    ).sample(frac=1.0, random_state=1)


def _planned(data: Path) -> bytes:
    return msgspec.json.encode(plan(rich_lake.KEY, data))


def _units(data: Path) -> list[Any]:
    units = running.what_runs(data).records[rich_lake.KEY].units
    return [[unit.unit, unit.context] for unit in units]


def _evaluation(data: Path, **options: Any) -> str:
    result = evaluate(rich_lake.KEY, "uniform", data, **options)
    return json.dumps(result.as_dict())


def _report(data: Path) -> str:
    return reporting.to_json(reporting.load_experiment_report(rich_lake.KEY, data))


# --- What is said when it cannot be


@pytest.mark.parametrize(
    ("url", "got"),
    [
        ("spark://host:7077", "got spark://host:7077"),
        ("sc://", "got sc://"),
        ("sc://host:port", "got sc://host:port"),
        ("https://host/;token=secret", "got https://host/"),
    ],
)
def test_another_url_is_refused(url: str, got: str) -> None:
    with pytest.raises(BadRequest, match="expected a Spark Connect server") as caught:
        address_of(url)
    assert got in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_url_says_host_and_port() -> None:
    assert address_of("sc://spark") == ("spark", 15002)
    assert address_of("sc://[::1]:15003/;use_ssl=true") == ("::1", 15003)


def test_a_server_that_is_not_there_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        monkeypatch.setenv(ENGINE_VARIABLE, f"sc://127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(LogError, match=r"sc://127\.0\.0\.1:\d+: cannot be reached"):
            reporting.load(rich_lake.KEY, data)


@pytest.mark.usefixtures("on_spark")
def test_a_server_that_does_not_see_the_lake_says_which(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topbill.lake.spark.files_of", lambda _: "/of/another/machine")
    with pytest.raises(LogError, match="sees that folder under the same path") as caught:
        reporting.load(rich_lake.KEY, data)
    assert "cannot read /of/another/machine" in str(caught.value)


def test_what_is_not_installed_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINE_VARIABLE, "sc://spark;token=secret")
    monkeypatch.setitem(sys.modules, "topbill.lake.spark", None)
    monkeypatch.delattr("topbill.lake.spark", raising=False)
    with pytest.raises(BadRequest, match=r"pip install 'topbill\[spark\]'") as caught:
        open_engine(data / DATABASE)
    assert "secret" not in str(caught.value)


def test_without_a_url_duckdb_answers_here(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENGINE_VARIABLE, raising=False)
    engine = open_engine(data / DATABASE)
    assert isinstance(engine, DuckDBEngine)
    engine.close()


def test_a_program_without_a_file_is_no_run_of_sparks_own_tests() -> None:
    code = "import topbill.lake.spark; print('loaded')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "loaded\n", done.stderr
