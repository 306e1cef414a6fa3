"""The lake: each batch once, one consistent state for readers, and metrics in SQL that equal those
in Python.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topbill.domain.decision import (
    DECISION_COLUMNS,
    REWARD_COLUMNS,
    Origin,
    decision_rows,
    reward_rows,
    unit_event_rows,
)
from topbill.domain.errors import BadRequest, LogError, NotFound
from topbill.domain.records import Action, Decision, Mask, Placement, RewardEvent, UnitEvent
from topbill.lake import DATABASE, Lake, Problem, connect, sql, tables
from topbill.lake.handle import CHECKPOINT_EVERY
from topbill.policies.uniform import FixedParams, UniformParams
from topbill.spec import Experiment, Metric, Variant

NOW = 1_790_000_000_000_000
SECOND = 1_000_000


def experiment(key: str = "home", metrics: tuple[Metric, ...] = (), **changes: Any) -> Experiment:
    metrics = metrics or (
        Metric("play", "play", "binary", 1800.0),
        Metric("watched", "watch", "max", 3600.0),
    )
    return Experiment(
        key=key,
        surface="artwork",
        actions=(Action("x"), Action("y")),
        metrics=metrics,
        objective=changes.pop("objective", {m.name: 1.0 for m in metrics}),
        variants=(
            Variant("editorial", "fixed", FixedParams(), 0.5, control=True),
            Variant("bandit", "uniform", UniformParams(), 0.5),
        ),
        **changes,
    )


def decision(number: int, **changes: Any) -> Decision:
    return Decision(
        **{
            "decision_id": f"d{number}",
            "experiment": "home",
            "revision": "r1",
            "variant": "bandit",
            "unit": f"u{number % 3}",
            "context": msgspec.Raw(b'{"device":"tv"}'),
            "eligible": ("x", "y"),
            "slate": (Placement(0, "x", 0.5),),
            "propensity": 0.5,
            "probabilities": ((0.5, 0.5),),
            "policy": "uniform",
            "reason": "policy",
            "decided_at": NOW + number * SECOND,
            **changes,
        }
    )


def publish(
    lake: Lake,
    decisions: list[Decision],
    events: list[RewardEvent] = [],  # noqa: B006
    after: int = 0,
) -> None:
    if decisions:
        rows = list(enumerate(decisions, start=after + 1))
        lake.append("decisions", decision_rows(rows), rows[-1][0])
    if events:
        by_id = {d.decision_id: Origin.of(d) for d in decisions}
        origins = [(seq, e, by_id[e.decision_id]) for seq, e in enumerate(events, start=after + 1)]
        lake.append("rewards", reward_rows(origins), origins[-1][0])


def rows(folder: Path, query: str) -> list[Any]:
    return [tuple(row.values()) for row in sql(folder / DATABASE, query).to_pylist()]


def test_an_empty_lake_has_every_view_with_its_columns_and_no_row(tmp_path: Path) -> None:
    Lake(tmp_path).write_database([experiment()], NOW)
    types = dict(rows(tmp_path, "SELECT column_name, column_type FROM (DESCRIBE feedback)"))
    assert types["metrics"] == "MAP(VARCHAR, DOUBLE)"
    assert types["decided_at"] == "TIMESTAMP"
    views = ("decisions", "rewards", "events", "feedback", "units", "placements", 'metrics."home"')
    for view in views:
        assert rows(tmp_path, f"FROM {view}") == []
    empty = {
        view: rows(tmp_path, f"DESCRIBE {view}")
        for view in ("decisions", "rewards", "events", "feedback", "units")
    }
    lake = Lake(tmp_path)
    back = UnitEvent(unit="7", unit_type="profile_id", event_id="e", event="back", received_at=NOW)
    lake.append("events", unit_event_rows([(1, back)]), 1)
    publish(
        lake,
        [decision(1)],
        [RewardEvent(decision_id="d1", event_id="e", event="play", received_at=NOW)],
    )
    lake.write_database([experiment()], NOW)
    assert {view: rows(tmp_path, f"DESCRIBE {view}") for view in empty} == empty


def test_what_was_published_is_read_back_as_it_was(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    mask = Mask("pin", 0, 1, (1,), only=True)
    stored = decision(
        7,
        actions=msgspec.Raw(b'[{"id":"x"}]'),
        policy_version=3,
        latency_us=41,
        page="p1",
        masks=(mask,),
    )
    publish(lake, [stored])
    lake.write_database([experiment()], NOW)
    (row,) = sql(tmp_path / DATABASE, "SELECT * FROM decisions").to_pylist()
    assert row.pop("decided_at").replace(tzinfo=UTC) == datetime.fromtimestamp(
        stored.decided_at / 1e6, UTC
    )
    assert row == {
        "decision_id": "d7",
        "experiment": "home",
        "revision": "r1",
        "variant": "bandit",
        "unit": "u1",
        "context": '{"device":"tv"}',
        "actions": '[{"id":"x"}]',
        "eligible": ["x", "y"],
        "slate": ["x"],
        "propensities": [0.5],
        "propensity": 0.5,
        "probabilities": [[0.5, 0.5]],
        "policy": "uniform",
        "policy_version": 3,
        "reason": "policy",
        "latency_us": 41,
        "page": "p1",
        "layer": None,
        "place": None,
        "masks": [{"rule": "pin", "start": 0, "stop": 1, "rows": [1], "only": True}],
        "row_weight": None,
        "entities": [],
        "stops": [],
        "shadows": [],
        "terms": None,
        "seq": 1,
    }


_NEWER = ("masks", "page", "row_weight", "entities", "stops", "shadows", "terms")


def test_a_lake_of_an_earlier_version_gets_the_columns_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tables.schemas()
    few = pa.schema([field for field in whole["decisions"] if field.name not in _NEWER])
    with monkeypatch.context() as earlier:
        earlier.setattr(tables, "schemas", lambda: {**whole, "decisions": few})
        Lake(tmp_path).append("decisions", decision_rows([(1, decision(1))]).select(few.names), 1)
    lake = Lake(tmp_path)
    publish(lake, [decision(2, page="p1")], after=1)
    for _ in range(2):
        lake.write_database([experiment()], NOW)
        found = rows(
            tmp_path,
            "SELECT decision_id, page, len(masks), coalesce(row_weight, 1) "
            "FROM decisions ORDER BY seq",
        )
        assert found == [("d1", None, None, 1.0), ("d2", "p1", 0, 1.0)]
        lake.compact(thorough=True)


def test_a_batch_that_is_appended_again_changes_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    batch = decision_rows([(1, decision(1)), (2, decision(2))])
    assert lake.append("decisions", batch, 2)
    assert not lake.append("decisions", batch, 2)
    assert not Lake(tmp_path).append("decisions", batch, 2)
    lake.write_database([experiment()], NOW)
    assert rows(tmp_path, "SELECT count(*), count(DISTINCT decision_id) FROM decisions") == [(2, 2)]


def test_of_two_writers_with_the_same_batch_one_is_refused(tmp_path: Path) -> None:
    """Both look, both see nothing published, both append: Delta lets one through."""
    lake, rival = Lake(tmp_path), Lake(tmp_path)
    batch = decision_rows([(1, decision(1))])
    lake.append("decisions", batch, 1)
    table = rival._tables["decisions"]
    look = table.refresh
    looks = iter([lambda: None])
    table.refresh = lambda: next(looks, look)()  # type: ignore[method-assign]
    with pytest.raises(LogError, match="cannot append rows through 1"):
        rival.append("decisions", batch, 1)
    lake.write_database([experiment()], NOW)
    assert rows(tmp_path, "SELECT count(*) FROM decisions") == [(1,)]


def test_the_position_survives_restart_compaction_and_delta_checkpoints(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for number in range(1, 8):
        publish(lake, [decision(number)], after=number - 1)
    lake.compact(thorough=True)
    table = DeltaTable(tmp_path / "lake" / "decisions")
    table.create_checkpoint()
    table.cleanup_metadata()
    assert Lake(tmp_path).position("decisions") == 7
    assert Lake(tmp_path).position("rewards") == 0


def test_compaction_merges_files_and_keeps_every_row(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for number in range(1, 8):
        publish(lake, [decision(number)], after=number - 1)
    assert lake.compact() == 7
    assert len(lake.files("decisions")) == 1
    lake.write_database([experiment()], NOW)
    assert rows(tmp_path, "SELECT decision_id FROM decisions ORDER BY seq") == [
        (f"d{n}",) for n in range(1, 8)
    ]


def parquet(folder: Path) -> set[Path]:
    """The files of rows, without those of checkpoints."""
    return set((folder / "lake" / "decisions" / "experiment=home").glob("*.parquet"))


def test_what_a_merge_replaced_is_deleted_when_its_readers_had_their_time(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for number in range(1, 6):
        publish(lake, [decision(number)], after=number - 1)
        if number == 3:
            lake.compact()
    before = parquet(tmp_path)
    assert lake.vacuum() == 0
    assert parquet(tmp_path) == before
    lake.compact()
    orphan = next(iter(before)).with_name("part-00000-orphan-c000.zstd.parquet")
    orphan.write_bytes(b"of a writer that was killed")
    assert Lake(tmp_path, keep_for=0.0).vacuum() == len(before)
    assert parquet(tmp_path) == {orphan, *map(Path, lake.files("decisions"))}
    a_day_ago = time.time() - 25 * 3_600
    os.utime(orphan, (a_day_ago, a_day_ago))
    assert Lake(tmp_path).vacuum(thorough=True) == 1
    assert parquet(tmp_path) == set(map(Path, lake.files("decisions")))
    lake.write_database([experiment()], NOW)
    assert rows(tmp_path, "SELECT count(*) FROM decisions") == [(5,)]


def test_a_table_of_an_earlier_release_forgets_replaced_files_as_soon_as_a_new_one(
    tmp_path: Path,
) -> None:
    publish(Lake(tmp_path), [decision(1)])
    new = settings_of(tmp_path, "decisions")
    week = {"delta.deletedFileRetentionDuration": "interval 1 weeks"}
    DeltaTable(str(tmp_path / "lake" / "decisions")).alter.set_table_properties(week)
    Lake(tmp_path)
    assert settings_of(tmp_path, "decisions") == new
    assert new["delta.deletedFileRetentionDuration"] == "interval 1 hours"


def settings_of(folder: Path, name: str) -> dict[str, Any]:
    return dict(DeltaTable(str(folder / "lake" / name)).metadata().configuration)


def test_compaction_beside_appends_loses_and_doubles_nothing(tmp_path: Path) -> None:
    lake, stop = Lake(tmp_path), threading.Event()
    merged: list[int] = []

    def compact() -> None:
        while not stop.is_set():
            merged.append(lake.compact(thorough=len(merged) % 2 == 1))
            lake.vacuum()

    compactor = threading.Thread(target=compact)
    compactor.start()
    for number in range(1, 41):
        publish(lake, [decision(number)], after=number - 1)
    stop.set()
    compactor.join()
    lake.write_database([experiment()], NOW)
    assert sum(merged) > 0
    assert rows(tmp_path, "SELECT count(*), count(DISTINCT decision_id) FROM decisions") == [
        (40, 40)
    ]
    assert Lake(tmp_path).position("decisions") == 40


def test_a_reader_keeps_its_state_while_the_lake_moves_on(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    publish(lake, [decision(1)])
    lake.write_database([experiment()], NOW)
    early = connect(tmp_path / DATABASE)
    publish(lake, [decision(2)], after=1)
    lake.compact(thorough=True)
    lake.write_database([experiment()], NOW)
    late = connect(tmp_path / DATABASE)
    assert early.sql("SELECT count(*) FROM decisions").fetchall() == [(1,)]
    assert late.sql("SELECT count(*) FROM decisions").fetchall() == [(2,)]


def test_whoever_opens_the_database_at_any_moment_sees_decisions_and_rewards_of_one_version(
    tmp_path: Path,
) -> None:
    lake = Lake(tmp_path)
    lake.write_database([experiment()], NOW)
    stop = threading.Event()
    odd: list[object] = []

    def read() -> None:
        while not stop.is_set():
            try:
                (counts,) = rows(
                    tmp_path,
                    "SELECT (SELECT count(*) FROM decisions), (SELECT count(*) FROM rewards)",
                )
                if counts[0] != counts[1]:
                    odd.append(counts)
            except Exception as error:
                odd.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 9):
        event = RewardEvent(decision_id=f"d{number}", event_id="e", event="play", received_at=NOW)
        publish(lake, [decision(number)], [event], after=number - 1)
        if number % 3 == 0:
            lake.compact()
        lake.write_database([experiment()], NOW)
    stop.set()
    reader.join()
    assert odd == []


def test_a_folder_that_was_moved_or_copied_is_read_where_it_is(tmp_path: Path) -> None:
    home, other = tmp_path / "it's 100% home", tmp_path / "o'clock"
    lake = Lake(home)
    publish(
        lake,
        [decision(1)],
        [RewardEvent(decision_id="d1", event_id="e", event="play", received_at=NOW)],
    )
    lake.write_database([experiment()], NOW)
    everything = [
        "SELECT decision_id, decided_at FROM decisions",
        "SELECT event FROM rewards",
        "FROM placements",
        "FROM units",
        'FROM metrics."home"',
        "FROM feedback",
        "SELECT key FROM experiments",
        "SELECT metric FROM metrics",
    ]
    before = [rows(home, query) for query in everything]
    assert all(before)
    shutil.copytree(home, other)
    publish(lake, [decision(2)], after=1)
    lake.compact()
    lake.write_database([experiment()], NOW)
    assert [rows(other, query) for query in everything] == before
    shutil.rmtree(home)
    assert [rows(other, query) for query in everything] == before
    Lake(other).write_database([experiment()], NOW)  # the next publication
    assert [rows(other, query) for query in everything] == before


def test_what_a_killed_writer_left_behind_does_no_harm(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for suffix in (".tmp", ".tmp.wal"):
        (tmp_path / f"{DATABASE}{suffix}").write_bytes(b"half a file" * 500)
    publish(lake, [decision(1)])
    lake.write_database([experiment()], NOW)
    assert rows(tmp_path, "SELECT count(*) FROM decisions") == [(1,)]
    assert {path.name for path in tmp_path.iterdir()} == {DATABASE, "lake"}


def test_an_analytics_database_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write_database([experiment()], NOW)
    (tmp_path / f"{DATABASE}.tmp").mkdir()
    with pytest.raises(LogError, match="cannot be written"):
        lake.write_database([experiment("other")], NOW)
    assert rows(tmp_path, "SELECT key FROM experiments") == [("home",)]
    (tmp_path / f"{DATABASE}.tmp").rmdir()
    lake.write_database([experiment("other")], NOW)
    assert rows(tmp_path, "SELECT key FROM experiments") == [("other",)]


def test_each_publication_shows_what_holds_by_then(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    everything = (
        "SELECT (SELECT list(key) FROM experiments), (SELECT list(subject) FROM problems), "
        "(SELECT count(*) FROM decisions), (SELECT count(*) FROM units), "
        "(SELECT epoch_us(published_at) FROM published)"
    )
    lake.write_database([experiment()], NOW)
    assert rows(tmp_path, everything) == [(["home"], None, 0, 0, NOW)]
    publish(lake, [decision(1)])
    lake.write_database([experiment()], NOW + 1, problems=[Problem("file", "a.yaml", "", "wrong")])
    assert rows(tmp_path, everything) == [(["home"], ["a.yaml"], 1, 1, NOW + 1)]
    lake.write_database([experiment()], NOW + 2)
    assert rows(tmp_path, everything) == [(["home"], None, 1, 1, NOW + 2)]
    lake.write_database([experiment(), experiment("other")], NOW + 3)
    assert rows(tmp_path, everything) == [(["home", "other"], None, 1, 1, NOW + 3)]


def test_an_append_reads_few_commits_however_many_came_before(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for number in range(1, 36):
        publish(lake, [decision(number)], after=number - 1)
    log = tmp_path / "lake" / "decisions" / "_delta_log"
    newest = json.loads((log / "_last_checkpoint").read_text())["version"]
    assert lake._tables["decisions"].version - newest < CHECKPOINT_EVERY
    assert lake.position("decisions") == 35
    lake.write_database([experiment()], NOW)
    assert rows(tmp_path, "SELECT count(DISTINCT decision_id) FROM decisions") == [(35,)]


KINDS = ("binary", "max", "sum", "count", "mean", "last")
METRICS = tuple(
    Metric(name, event, kind, window, cap)  # type: ignore[arg-type]
    for (name, event, window, cap), kind in zip(
        [
            ("unit", "a", 10.0, 1.0),
            ("value", "a", 5.5, 2.0),
            ("decided_at", "b", 10.0, 3.0),
            ("it's", "b", 0.1, 4.0),
            ("event", "a", 2.0, 1.5),
            ('odd "name"', "b", 10.0, 0.7),
        ],
        KINDS,
        strict=True,
    )
)
EVENTS = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from(["a", "b", "c"]),
        st.floats(-5, 5, allow_nan=False, width=32),
        st.sampled_from(
            [
                -SECOND,
                0,
                99_999,
                100_000,
                100_001,
                SECOND,
                2 * SECOND,
                5_500_000,
                5_500_001,
                10 * SECOND,
            ]
        ),
    ),
    max_size=25,
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS)
def test_metrics_and_objective_in_sql_equal_those_of_the_experiment(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[int, str, float, int]]
) -> None:
    weights = {
        "unit": 0.5,
        "value": -0.25,
        "decided_at": 1.0,
        "it's": 0.5,
        "event": 2.0,
        'odd "name"': 1.0,
    }
    spec = experiment("it's", METRICS, objective=weights)
    decisions = [decision(n, experiment="it's") for n in range(1, 5)]
    came = [
        RewardEvent(
            decision_id=f"d{n}",
            event_id=str(i),
            event=event,
            value=value,
            occurred_at=decisions[n - 1].decided_at + lag,
            received_at=NOW + 100 * SECOND,
        )
        for i, (n, event, value, lag) in enumerate(events)
    ]
    folder = tmp_path_factory.mktemp("lake")
    lake = Lake(folder)
    publish(lake, decisions, came)
    lake.write_database([spec], NOW + 1000 * SECOND)
    got = {
        row[0]: row[1:]
        for row in rows(folder, "SELECT decision_id, metrics, objective, mature FROM feedback")
    }
    for d in decisions:
        expected = {
            m.name: m.value(
                ((e.value, ((e.occurred_at or 0) - d.decided_at) / 1e6))
                for e in came
                if e.decision_id == d.decision_id and e.event == m.event
            )
            for m in METRICS
        }
        metrics, objective, mature = got[d.decision_id]
        assert dict(metrics) == pytest.approx(expected, abs=1e-12)
        assert objective == pytest.approx(spec.goal.value(expected), abs=1e-12)
        assert mature


def test_a_decision_is_mature_when_the_longest_window_of_the_objective_has_passed(
    tmp_path: Path,
) -> None:
    lake = Lake(tmp_path)
    metrics = (Metric("play", "play", "binary", 10.0), Metric("watched", "watch", "max", 60.0))
    spec = experiment(
        metrics=(*metrics, Metric("guard", "bad", "binary", 9e9)),
        objective={"play": 1.0, "watched": 1},
    )
    publish(lake, [decision(0)])
    lake.write_database([spec], NOW + 60 * SECOND)
    assert rows(tmp_path, "SELECT mature FROM feedback") == [(False,)]
    lake.write_database([spec], NOW + 60 * SECOND + 1)
    assert rows(tmp_path, "SELECT mature FROM feedback") == [(True,)]


def test_decisions_of_an_experiment_without_a_file_stay_in_feedback_without_metrics(
    tmp_path: Path,
) -> None:
    lake = Lake(tmp_path)
    publish(lake, [decision(1), decision(2, experiment="gone")])
    lake.write_database([experiment()], NOW)
    found = rows(
        tmp_path, "SELECT experiment, metrics IS NULL, objective FROM feedback ORDER BY experiment"
    )
    assert found == [("gone", True, None), ("home", False, 0.0)]


def test_a_reward_names_the_item_it_speaks_of_where_that_is_known(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    slate = (Placement(0, "x", 0.5), Placement(1, "y", 1.0))
    events = [
        RewardEvent(decision_id="d1", event_id="1", event="play", position=1, received_at=NOW),
        RewardEvent(decision_id="d1", event_id="2", event="play", action="x", received_at=NOW),
        RewardEvent(decision_id="d1", event_id="3", event="play", received_at=NOW),
        RewardEvent(decision_id="d1", event_id="4", event="play", position=9, received_at=NOW),
        RewardEvent(decision_id="d2", event_id="5", event="play", received_at=NOW),
    ]
    publish(lake, [decision(1, slate=slate), decision(2)], events)
    lake.write_database([experiment()], NOW)
    assert rows(tmp_path, "SELECT item FROM rewards ORDER BY seq") == [
        ("y",),
        ("x",),
        (None,),
        (None,),
        ("x",),
    ]


def test_a_unit_counts_in_the_variant_of_its_first_exposure(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    publish(
        lake,
        [
            decision(1, unit="u", variant=None, reason="holdout"),
            decision(2, unit="u", variant="editorial"),
            decision(3, unit="u", variant="bandit"),
        ],
    )
    lake.write_database([experiment()], NOW)
    assert rows(tmp_path, "SELECT unit, variant, decisions FROM units") == [("u", "editorial", 2)]


def test_placements_have_a_row_for_each_item_shown(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    publish(
        lake,
        [
            decision(1, slate=(Placement(0, "y", 0.25), Placement(1, "x", 1.0))),
            decision(2, slate=()),
        ],
    )
    lake.write_database([experiment()], NOW)
    found = rows(
        tmp_path,
        "SELECT decision_id, position, action, propensity FROM placements ORDER BY position",
    )
    assert found == [("d1", 0, "y", 0.25), ("d1", 1, "x", 1.0)]


@pytest.mark.parametrize(
    "query",
    [
        "COPY (SELECT 1) TO '{folder}/lake/stolen.csv'",
        "COPY (SELECT 1) TO '{folder}/stolen.csv'",
        "ATTACH '{folder}/other.duckdb'",
        "CREATE TABLE t (a INTEGER)",
        "DROP VIEW decisions",
        "SET memory_limit = '1TB'",
        "INSTALL httpfs",
        "SELECT * FROM read_text('{folder}/secret.txt')",
        "SELECT * FROM read_text('{folder}/lake/../secret.txt')",
        "SELECT * FROM read_parquet('https://example.org/x.parquet')",
        "SELECT 1; DROP VIEW decisions",
        "SELEC 1",
        "SELECT nothing FROM decisions",
        "",
        # What is explained with ANALYZE is done.
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/lake/stolen.csv'",
        "explain analyse COPY (SELECT 1) TO '{folder}/lake/stolen.csv'",
        "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{folder}/lake/stolen.csv'",
        "EXPLAIN /**/ ANALYZE COPY (SELECT 1) TO '{folder}/lake/stolen.csv'",
        "/* */ EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/lake/stolen.csv'",
        "EXPLAIN ANALYZE CREATE TABLE t (a INTEGER)",
        "EXPLAIN ANALYZE DROP VIEW decisions",
        # A SELECT may hold statements that write, as they are or as text.
        "WITH x AS (COPY (SELECT 1) TO '{folder}/lake/stolen.csv') SELECT 1",
        "EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1) TO '{folder}/lake/stolen.csv') SELECT 1",
        "FROM query('WITH x AS (COPY (SELECT 1) TO ''{folder}/lake/a.csv'') SELECT 1')",
        "FROM json_execute_serialized_sql(json_serialize_sql("
        "'WITH x AS (COPY (SELECT 1) TO ''{folder}/lake/stolen.csv'') SELECT 1'))",
        "FROM destroy_external_resource('json_execute_serialized_sql', json_serialize_sql("
        "'WITH x AS (COPY (SELECT 1) TO ''{folder}/lake/stolen.csv'') SELECT 1'))",
        "FROM enable_logging('QueryLog', storage = 'file', storage_path = '{folder}/lake/log')",
        "WITH x AS (INSERT INTO experiments SELECT * FROM experiments) SELECT 1",
        "CALL checkpoint()",
        "PRAGMA database_list",
    ],
)
def test_sql_only_reads_the_lake(tmp_path: Path, query: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    lake = Lake(tmp_path)
    publish(lake, [decision(1)])
    lake.write_database([experiment()], NOW)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadRequest, match=r"^sql: "):
        sql(tmp_path / DATABASE, query.format(folder=tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "query",
    [
        "SHOW TABLES",
        "DESCRIBE decisions",
        "SUMMARIZE decisions",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE SELECT count(*) FROM decisions;",
        "SELECT ';' AS \"é;\" -- one statement; not two",
        "VALUES (1)",
        "FROM experiments ORDER BY key",
        "WITH x AS (SELECT 1) FROM x",
    ],
)
def test_sql_may_look_around(tmp_path: Path, query: str) -> None:
    Lake(tmp_path).write_database([experiment()], NOW)
    assert sql(tmp_path / DATABASE, query).num_rows > 0


def test_sql_that_takes_too_long_is_ended_and_says_which_line_is_wrong(tmp_path: Path) -> None:
    Lake(tmp_path).write_database([experiment()], NOW)
    with pytest.raises(BadRequest, match=r"took longer than 0\.1 s"):
        sql(
            tmp_path / DATABASE,
            "SELECT count(*) FROM range(1000000000) a, range(1000000000)",
            seconds=0.1,
        )
    with pytest.raises(BadRequest, match="LINE 2: WHERE nothing"):
        sql(tmp_path / DATABASE, "SELECT * FROM decisions\nWHERE nothing = 1")


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ('SELECT max("at") FROM decisions', "decided_at (decisions"),
        ("SELECT avg(d.micros) FROM decisions d", "latency_us"),
        ("SELECT unrewarded FROM metrics", '"default"'),
        ("SELECT floor FROM variants", "min_probability"),
        ('SELECT play FROM earned."home"', "metrics"),
        ("FROM troubles", "problems"),
    ],
)
def test_sql_with_a_name_of_older_versions_is_answered_with_its_name_of_today(
    tmp_path: Path, query: str, name: str
) -> None:
    Lake(tmp_path).write_database([experiment()], NOW)
    with pytest.raises(BadRequest, match=f"is called {re.escape(name)}"):
        sql(tmp_path / DATABASE, query)


def test_no_progress_bar_stands_amid_what_a_command_prints() -> None:
    with connect() as connection:
        setting = "SELECT current_setting('enable_progress_bar')"
        assert connection.execute(setting).fetchall() == [(False,)]


def test_an_analytics_database_that_is_not_there_or_is_none_is_a_named_error(
    tmp_path: Path,
) -> None:
    with pytest.raises(NotFound, match="start the worker"):
        connect(tmp_path / DATABASE)
    (tmp_path / DATABASE).write_text("not a database, but long enough to be read as one" * 1000)
    with pytest.raises(LogError, match="cannot be opened"):
        connect(tmp_path / DATABASE)


def test_a_lake_that_cannot_be_opened_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file where a folder should be")
    with pytest.raises(LogError, match="cannot be opened"):
        Lake(tmp_path)


DOCS = (Path(__file__).parents[3] / "docs" / "data.md").read_text()


@pytest.mark.parametrize("query", re.findall(r"```sql\n(.*?)```", DOCS, re.DOTALL))
def test_every_query_of_the_docs_runs_and_finds_something(tmp_path: Path, query: str) -> None:
    lake = Lake(tmp_path)
    event = RewardEvent(decision_id="d7", event_id="e", event="play", received_at=NOW + 8 * SECOND)
    publish(lake, [decision(7, experiment="home-artwork", unit="profile-7")], [event])
    lake.write_database([experiment("home-artwork")], NOW + 9000 * SECOND)
    assert sql(tmp_path / DATABASE, query).num_rows > 0


def section(view: str) -> str:
    """What the page on the record says of a view or table."""
    if f"**`{view}`**" in DOCS:
        return DOCS.split(f"**`{view}`**")[1].split("\n**`")[0]
    return DOCS.split(f"\n| `{view}` |")[1].split("\n")[0]


def test_the_docs_name_every_view_with_its_columns(tmp_path: Path) -> None:
    Lake(tmp_path).write_database([experiment("KEY")], NOW)
    with connect(tmp_path / DATABASE) as connection:
        columns = connection.execute(
            "SELECT schema_name, table_name, column_name FROM duckdb_columns() "
            "WHERE database_name = 'lake' AND NOT internal"
        ).fetchall()
    metrics = {metric.name for metric in experiment().metrics}
    for schema, table, column in columns:
        view = f'{schema}."{table}"' if schema == "metrics" else table
        if column == "seq" or (schema == "metrics" and column in metrics):
            continue
        assert re.search(rf"`\"?{column}\"?`", section(view)), (view, column)
    assert {column.name for column in DECISION_COLUMNS} <= {name for _, _, name in columns}
    assert {column.name for column in REWARD_COLUMNS} <= {name for _, _, name in columns}
