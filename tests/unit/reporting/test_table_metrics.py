"""Metrics of a warehouse's tables (`from:`), joined by unit when the report is made."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from topbill import cli, reporting
from topbill.domain.errors import SpecError
from topbill.domain.records import UnitEvent
from topbill.engine.compiled import CompiledExperiment
from topbill.reporting.experiment import table_metrics
from topbill.reporting.experiment.model import Report
from topbill.reporting.experiment.table_metrics import sql_problems
from topbill.spec import Experiment
from topbill.testing import a_decision, an_experiment, publish

SECOND = 1_000_000
DAY = 86_400 * SECOND
START = 1_790_000_000 * SECOND
FIRST = datetime.fromtimestamp(START / SECOND, UTC).replace(tzinfo=None)
PLAY = {"event": "play", "kind": "binary", "window": "60s"}
SOURCE = {"file": "orders.parquet", "unit": "profile", "value": "amount", "at": "paid_at"}


def experiment(**keys: Any) -> Experiment:
    metrics = {"play": PLAY, **keys.pop("metrics")}
    return an_experiment(unit="profile_id", metrics=metrics, **keys)


def revenue(source: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    return {"from": source or SOURCE, "kind": "sum", "window": "7d", **keys}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "tables").mkdir()
    return tmp_path


def report(
    data: Path, spec: Experiment, units: list[str], unit_events: list[UnitEvent] | None = None
) -> Report:
    decisions = [
        a_decision(f"d{n}", unit=unit, variant="ab"[n % 2], decided_at=START)
        for n, unit in enumerate(units)
    ]
    publish(data, [spec], decisions, unit_events=unit_events or [], at=START + 30 * DAY)
    return reporting.load_experiment_report("home", data)


def value(shown: Report, metric: str, variant: str = "a") -> Any:
    (line,) = (m for m in shown.metrics if (m.metric, m.variant) == (metric, variant))
    return line.estimate


def note(shown: Report, code: str) -> str:
    (sentence,) = (n.sentence for n in shown.notes if n.code == code)
    return sentence


def as_parquet(frame: pd.DataFrame, folder: Path) -> str:
    frame.to_parquet(folder / "orders.parquet")
    return "orders.parquet"


def as_csv(frame: pd.DataFrame, folder: Path) -> str:
    frame.to_csv(folder / "orders.csv", index=False)
    return "orders.csv"


def as_database(frame: pd.DataFrame, folder: Path) -> str:
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        connection.register("frame", frame)
        connection.execute("CREATE SCHEMA shop; CREATE TABLE shop.orders AS FROM frame")
    return "warehouse.duckdb"


@pytest.mark.parametrize("write", [as_parquet, as_csv, as_database])
def test_the_report_says_what_pandas_says(
    data: Path, write: Callable[[pd.DataFrame, Path], str]
) -> None:
    draw = np.random.default_rng(11)
    # Zeros in front: an id is text, whatever it looks like.
    units = [f"{n:03d}" for n in range(60)]
    hours = draw.integers(-100, 300, 400)
    orders = pd.DataFrame(
        {
            "profile": draw.choice([*units, "stranger"], 400),
            "amount": draw.gamma(2.0, 10.0, 400).round(2),
            "paid_at": [FIRST + timedelta(hours=int(hour)) for hour in hours],
        }
    )
    source = SOURCE | {"file": write(orders, data / "tables")}
    if source["file"].endswith(".duckdb"):
        source["table"] = "shop.orders"
    counts = {name: key for name, key in source.items() if name != "value"}
    spec = experiment(metrics={"revenue": revenue(source), "orders": revenue(counts, kind="count")})
    shown = report(data, spec, units)
    inside = orders[(hours > 0) & (hours <= 168)]
    for number, variant in enumerate("ab"):
        own = inside[inside["profile"].isin(units[number::2])]
        assert value(shown, "revenue", variant).value == pytest.approx(own["amount"].sum() / 30)
        assert value(shown, "orders", variant).value == pytest.approx(len(own) / 30)
        assert value(shown, "revenue", variant).units == 30
    per_unit = inside.groupby("profile")["amount"].sum().reindex(units, fill_value=0.0)
    lift = per_unit[1::2].mean() - per_unit[::2].mean()
    assert shown.ab is not None
    (effect,) = (c for c in shown.ab.comparisons if (c.metric, c.variant) == ("revenue", "b"))
    assert effect.difference == pytest.approx(lift)


def test_what_does_not_count_is_counted_by_reason(data: Path) -> None:
    later = "2026-09-22T12:00:00Z"
    rows = [("u1", "5", later), ("u1", "2.5", later), ("", "1", later), ("who", "1", later)]
    rows += [("u1", text, later) for text in ("", "much", "nan", "inf", "-inf")]
    rows += [("u1", "1", "soon"), ("u1", "1", "")]
    frame = pd.DataFrame(rows, columns=["profile", "amount", "paid_at"])
    frame.to_csv(data / "tables" / "orders.csv", index=False)
    spec = experiment(metrics={"revenue": revenue(SOURCE | {"file": "orders.csv"})})
    shown = report(data, spec, ["u1"])
    assert value(shown, "revenue").value == 7.5
    sentence = note(shown, "table")
    assert "2 of 11 rows count, of 1 units" in sentence
    for words in (
        "1 without a unit",
        "1 of units that are not in this report",
        "5 whose value is missing, no number, or not finite",
        "2 whose time is missing or cannot be read",
    ):
        assert words in sentence


def test_without_times_every_row_counts_and_the_report_says_so(data: Path) -> None:
    frame = pd.DataFrame({"profile": [1, 1, 2], "amount": [3, 4, 50]})
    frame.to_parquet(data / "tables" / "orders.parquet")
    source = {name: key for name, key in SOURCE.items() if name != "at"}
    shown = report(data, experiment(metrics={"revenue": revenue(source)}), ["1", "2", "3"])
    assert value(shown, "revenue", "a").value == 3.5
    assert value(shown, "revenue", "b").value == 50.0
    assert "every row of a unit counts" in note(shown, "table")


def test_days_begin_where_the_file_says(data: Path) -> None:
    # The first decision is at 14:13 UTC of the 21st, which is the 22nd already in Auckland.
    days = [date(2026, 9, 21), date(2026, 9, 22), date(2026, 9, 23)]
    frame = pd.DataFrame({"profile": ["u"] * 3, "amount": [1.0, 10.0, 100.0], "paid_at": days})
    frame.to_parquet(data / "tables" / "orders.parquet")
    metrics = {"revenue": revenue()}
    assert value(report(data, experiment(metrics=metrics), ["u"]), "revenue").value == 110.0
    there = experiment(metrics=metrics, time_zone="Pacific/Auckland")
    assert value(report(data / "other", there, ["u"]), "revenue").reason == "unreadable_table"
    (data / "there").mkdir()
    (data / "tables").rename(data / "there" / "tables")
    assert value(report(data / "there", there, ["u"]), "revenue").value == 100.0


def test_events_of_the_same_units_are_beside_it(data: Path) -> None:
    frame = pd.DataFrame(
        {"profile": ["u"], "amount": [7.0], "paid_at": [FIRST + timedelta(days=1)]}
    )
    frame.to_parquet(data / "tables" / "orders.parquet")
    back = {"event": "back", "kind": "count", "scope": "unit", "window": "7d"}
    event = UnitEvent(
        unit="u",
        unit_type="profile_id",
        event_id="e",
        event="back",
        occurred_at=START + DAY,
        received_at=START + DAY,
    )
    spec = experiment(metrics={"revenue": revenue(), "back": back})
    shown = report(data, spec, ["u"], [event])
    assert (value(shown, "revenue").value, value(shown, "back").value) == (7.0, 1.0)
    # Services are sent no such events.
    assert CompiledExperiment(spec).unit_events == {"back"}


def a_frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"profile": ["u"], "amount": [1.0], "paid_at": [FIRST]} | columns)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (None, "got no file tables/orders.parquet"),
        (a_frame().rename(columns={"amount": "amounts"}), "no column 'amount'"),
        (a_frame(amount=[FIRST]), "expected numbers"),
        (a_frame(profile=[1.5]), "expected text, integers or UUIDs"),
        (a_frame(paid_at=[3]), "expected times"),
        ("damaged", "has no numbers: "),
        (a_frame(amount=["x"]), "got no row that can be read, 1 whose value is missing"),
        (a_frame(paid_at=["soon"]), "got no row that can be read, 1 whose time is missing"),
    ],
)
def test_a_table_that_cannot_be_read_takes_no_other_metric_with_it(
    data: Path, frame: Any, words: str
) -> None:
    path = data / "tables" / "orders.parquet"
    if isinstance(frame, str):
        path.write_text(frame)
    elif frame is not None:
        frame.to_parquet(path)
    a_frame(paid_at=[FIRST + timedelta(days=1)]).to_csv(data / "tables" / "good.csv", index=False)
    metrics = {
        "revenue": revenue(better="higher"),
        "good": revenue(SOURCE | {"file": "good.csv"}),
    }
    spec = experiment(metrics=metrics, guardrails=[{"metric": "revenue", "margin": "5%"}])
    shown = report(data, spec, ["u", "v"])
    assert words in note(shown, "table_unreadable")
    assert (value(shown, "revenue").value, value(shown, "revenue").reason) == (
        None,
        "unreadable_table",
    )
    assert value(shown, "good").value == 1.0
    assert value(shown, "play").value == 0.0
    # No harm was shown to be absent.
    assert shown.ab is not None
    assert not shown.ab.verdict.safe_to_ship
    assert [g.status for g in shown.ab.guardrails] == ["unknown"]


def test_a_database_says_which_tables_are_missing(data: Path) -> None:
    as_database(a_frame(), data / "tables")
    source = SOURCE | {"file": "warehouse.duckdb", "table": "nothing"}
    shown = report(data, experiment(metrics={"revenue": revenue(source)}), ["u"])
    assert "nothing" in note(shown, "table_unreadable")


@pytest.mark.parametrize(
    ("metric", "path", "words"),
    [
        (revenue(SOURCE | {"file": "../secret.csv"}), "from.file", "in folder tables"),
        (revenue(SOURCE | {"file": "/etc/secret.csv"}), "from.file", "in folder tables"),
        (revenue(SOURCE | {"file": "*.csv"}), "from.file", "in folder tables"),
        (revenue(SOURCE | {"file": "orders.txt"}), "from.file", "in folder tables"),
        (revenue(SOURCE | {"file": "shop.duckdb"}), "from.table", "the table of the database"),
        (revenue(SOURCE | {"table": "orders"}), "from.table", "is one itself"),
        (revenue({"file": "a.csv", "unit": "u"}), "from.value", "the column of numbers"),
        (revenue(kind="count"), "from.value", "a count counts rows"),
        (revenue({"file": "a.csv", "value": "v"}), "from.unit", ""),
        (revenue(SOURCE | {"sql": "SELECT 1"}), "from.sql", "no sql beside a file"),
        (revenue({"sql": "SELECT 1", "table": "t"}), "from.sql", "no sql beside a table"),
        (revenue({"sql": " "}), "from.sql", "one SELECT"),
        (revenue({"unit": "u", "value": "v"}), "from.file", ""),
        (revenue({"sql": "SELECT 1"}, kind="last"), "from.at", "the column of times"),
        (revenue({"sql": "SELECT 1", "value": "v"}, kind="count"), "from.value", "counts rows"),
        (revenue(kind="distinct"), "from", "speak of no items"),
        (
            revenue({"file": "a.csv", "unit": "u", "value": "v"}, kind="last"),
            "from.at",
            "the column of times",
        ),
        (revenue(scope="decision"), "scope", "joined by unit"),
        (revenue(per="decision"), "per", "unit or nothing"),
        (revenue(covariate="28d"), "covariate", "a number in context"),
        (revenue(event="order"), "event", ""),
        ({"from": "orders.parquet", "kind": "sum", "window": "7d"}, "from", "a mapping"),
    ],
)
def test_what_a_file_may_not_say(metric: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(SpecError) as raised:
        experiment(metrics={"revenue": metric})
    problems = {problem.path: problem.expected for problem in raised.value.problems}
    assert words in problems[f"metrics.revenue.{path}"]


ORDERS = """
SELECT unit, value, occurred_at AS at
FROM events
WHERE event = 'order'
"""


def orders(*rows: tuple[str, float, float]) -> list[UnitEvent]:
    """(unit, value, days after the decisions) as events."""
    return [
        UnitEvent(
            unit=unit,
            unit_type="profile_id",
            event_id=f"e{number}",
            event="order",
            value=value,
            occurred_at=START + int(days * DAY),
            received_at=START + int(days * DAY),
        )
        for number, (unit, value, days) in enumerate(rows)
    ]


def of_sql(query: str, **keys: Any) -> Experiment:
    source = {"sql": query, **keys.pop("columns", {})}
    return experiment(metrics={"revenue": revenue(source, better="higher", **keys)})


def test_sql_over_the_record_says_what_events_say(data: Path) -> None:
    rows = [("u1", 5.0, 1.0), ("u1", 2.0, 6.9), ("u1", 100.0, 7.1), ("u2", 4.0, 1.0)]
    rows += [("u2", 50.0, -1.0), ("stranger", 9.0, 1.0)]
    plain = {"event": "order", "kind": "sum", "scope": "unit", "window": "7d"}
    timed = revenue({"sql": ORDERS, "at": "at"})
    metrics = {"plain": plain, "timed": timed, "n": revenue({"sql": ORDERS}, kind="count")}
    shown = report(data, experiment(metrics=metrics), ["u1", "u2", "u3"], orders(*rows))
    for variant, right in (("a", 3.5), ("b", 4.0)):
        assert value(shown, "plain", variant).value == right
        assert value(shown, "timed", variant).value == right
    # Without a time every row of a unit counts.
    assert value(shown, "n", "a").value == 1.5
    sentences = [n.sentence for n in shown.notes if n.code == "table"]
    assert "timed is of its SQL: 5 of 6 rows count, of 2 units" in sentences[0]
    assert "1 of units that are not in this report" in sentences[0]


def test_a_row_a_unit_is_that_units_number(data: Path) -> None:
    # Sums of integers are wider than any of them.
    query = "SELECT unit AS who, sum(10 * value::BIGINT) AS total FROM events GROUP BY unit"
    spec = of_sql(query, columns={"unit": "who", "value": "total"})
    shown = report(data, spec, ["u1", "u2"], orders(("u1", 5.0, 1.0), ("u1", 2.0, 2.0)))
    assert (value(shown, "revenue", "a").value, value(shown, "revenue", "b").value) == (70.0, 0.0)
    assert shown.ab is not None
    (effect,) = [c for c in shown.ab.comparisons if c.metric == "revenue"]
    assert effect.difference == -70.0


def test_rows_of_sql_that_do_not_count_are_counted_by_reason(data: Path) -> None:
    query = """SELECT * FROM (VALUES ('u1', 1.0), ('u1', 1.0), (NULL, 1.0), ('', 1.0), ('u1', NULL),
        ('u1', 'nan'::DOUBLE), ('u1', 'inf'::DOUBLE), ('who', 1.0)) t(unit, value)"""
    shown = report(data, of_sql(query), ["u1"])
    assert value(shown, "revenue").value == 2.0
    sentence = note(shown, "table")
    for words in ("2 of 8 rows count", "2 without a unit", "1 of units", "3 whose value"):
        assert words in sentence


BAD_SQL = [
    ("SELEC unit FROM events", "sql", 'syntax error at or near "SELEC" (LINE 1: SELEC unit'),
    ("SELECT unit,\n  amount AS value\nFROM events", "sql", "(LINE 2:   amount AS value)"),
    ("SELECT unit, value FROM nowhere", "sql", "nowhere does not exist"),
    ("SELECT unit, value FROM events; SELECT 1", "sql", "got 2 statements"),
    ("SELECT who, value FROM (SELECT unit AS who, value FROM events)", "unit", "no column 'unit'"),
    ("SELECT unit, 1 AS valu FROM events", "value", "did you mean valu?"),
    ("SELECT unit, event_id IS NULL AS b, [1] AS value FROM events", "value", "expected numbers"),
    ("SELECT 1.5::DOUBLE AS unit, value FROM events", "unit", "expected text, integers or UUIDs"),
    ("CREATE TABLE t AS SELECT 1", "sql", "got CREATE"),
    ("COPY (SELECT 1) TO 'x.csv'", "sql", "got COPY"),
    ("EXPLAIN ANALYZE COPY (SELECT 1) TO 'x.csv'", "sql", "got COPY"),
    ("WITH x AS (COPY (SELECT 1) TO 'x.csv') SELECT 1 AS unit, 1 AS value", "sql", "x.csv"),
    ("ATTACH 'x.duckdb'", "sql", "got ATTACH"),
    ("SET threads = 1", "sql", "got SET"),
    ("SELECT unit, value FROM read_csv('/etc/passwd')", "sql", "disabled"),
    ("SELECT unit, $x AS value FROM events", "sql", "parameters"),
    ("DESCRIBE events", "unit", "no column 'unit'"),
    ("EXPLAIN SELECT unit, value FROM events", "unit", "no column 'unit'"),
]


@pytest.mark.parametrize(("query", "key", "words"), BAD_SQL)
def test_bad_sql_is_told_before_the_launch_and_takes_no_other_metric_with_it(
    data: Path, monkeypatch: pytest.MonkeyPatch, query: str, key: str, words: str
) -> None:
    spec = of_sql(query)
    (problem,) = sql_problems(spec, [spec])
    assert problem.path == f"metrics.revenue.from.{key}"
    assert words in problem.got
    monkeypatch.chdir(data)
    shown = report(data, spec, ["u", "v"])
    assert value(shown, "revenue").reason == "unreadable_table"
    assert value(shown, "play").value == 0.0
    sentence = note(shown, "table_unreadable")
    assert sentence.startswith(f"revenue has no numbers: metrics.revenue.from.{key}: ")
    if key != "sql" or "/etc" not in query:
        assert words in sentence
    assert not (data / "x.csv").exists()


def test_sql_that_never_ends_keeps_the_report_from_nothing_else(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_metrics, "_SECONDS", 0.1)
    spec = of_sql("SELECT 'u' AS unit, count(*) AS value FROM range(1000000000), range(1000000000)")
    shown = report(data, spec, ["u"])
    assert "took longer than 0.1 s" in note(shown, "table_unreadable")
    assert value(shown, "play").value == 0.0


def test_validate_checks_sql_beside_the_other_experiments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """
experiment: {key}
surface: artwork
unit: profile_id
actions: [{{id: x}}, {{id: y}}]
metrics:
  play: {{event: play, kind: binary, window: 60s}}
  spent:
    kind: sum
    window: 7d
    from:
      sql: |
        SELECT d.unit, sum(m.objective) AS value
        FROM decisions d JOIN metrics."other" m USING (decision_id)
        GROUP BY d.{unit}
objective: {{play: 1}}
variants:
  a: {{policy: fixed, order: [x], share: 50%, control: true}}
  b: {{policy: fixed, order: [y], share: 50%}}
"""
    (tmp_path / "home.yaml").write_text(text.format(key="home", unit="unit"))
    (tmp_path / "other.yaml").write_text(text.format(key="other", unit="unit"))
    cli.app(["validate", str(tmp_path / "home.yaml")], result_action="return_value")
    assert "valid" in capsys.readouterr().out
    (tmp_path / "home.yaml").write_text(text.format(key="home", unit="unti"))
    with pytest.raises(SystemExit):
        cli.app(["validate", str(tmp_path)], result_action="return_value")
    said = capsys.readouterr().out
    assert "invalid" in said
    assert re.search(r"home\.yaml:\d+: metrics\.spent\.from\.sql: got ", said)
    assert "(LINE 3: GROUP BY d.unti)" in said
    assert "valid   " in said  # the other one


def test_policies_learn_nothing_of_a_table() -> None:
    with pytest.raises(SpecError, match=r"objective\.revenue"):
        experiment(metrics={"revenue": revenue(cap=100)}, objective={"play": 1.0, "revenue": 1.0})
    with pytest.raises(SpecError, match=r"metrics\.revenue\.from.*a unit"):
        an_experiment(metrics={"play": PLAY, "revenue": revenue()})


def test_fingerprints_change_with_the_source_and_learning_does_not() -> None:
    plain = experiment(metrics={})
    one = experiment(metrics={"revenue": revenue()})
    other = experiment(metrics={"revenue": revenue(SOURCE | {"value": "net"})})
    assert len({plain.fingerprint, one.fingerprint, other.fingerprint}) == 3
    assert plain.learning_fingerprint == one.learning_fingerprint
