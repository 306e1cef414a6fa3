"""A data folder of 0.1.0 opens, keeps what it holds, and can be put back."""

from __future__ import annotations

import fcntl
import signal
import sqlite3
import tarfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from deltalake import DeltaTable

from topbill import lake
from topbill.domain.errors import LogError, TopbillError
from topbill.domain.schema_version import SCHEMA_VERSION
from topbill.lake import schema_change, tables
from topbill.log import LOG_FILE, open_log, schema_stamp
from topbill.migration import migrate, migrate_down
from topbill.spec import load_all

from ..processes import python

ARCHIVE = Path(__file__).parents[1] / "data" / "0.1.0" / "folder.tar.xz"
DECISIONS, IN_LAKE, IN_LOG = 548, 440, 536
KEYS = ("home-artwork", "home-rows", "home-titles", "page-artwork", "page-rows", "page-titles")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder that 0.1.0 left."""
    with tarfile.open(ARCHIVE) as archive:
        # Python knows filters from 3.11.4 on, and asks for one from 3.14 on.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)  # noqa: S202  (our own file)
    return tmp_path / "data"


def columns(data: Path, table: str) -> set[str]:
    return {field.name for field in DeltaTable(str(data / "lake" / table)).schema().fields}


def rows(data: Path, query: str) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in lake.sql(data / lake.DATABASE, query).to_pylist()]


def user_version(data: Path) -> int:
    with closing(sqlite3.connect(data / LOG_FILE)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def old_rows(data: Path, table: str) -> list[dict[str, object]]:
    return sorted(
        DeltaTable(str(data / "lake" / table)).to_pyarrow_table().to_pylist(),
        key=lambda row: row["seq"],
    )


def test_the_lake_has_the_same_rows_under_the_names_of_today(data: Path) -> None:
    before = {name: old_rows(data, name) for name in ("decisions", "rewards")}
    migrate(data)
    for name, names in schema_change.RENAMED_SINCE_1.items():
        added = dict.fromkeys(schema_change.ADDED_SINCE_1[name])
        renamed = [{names.get(k, k): v for k, v in row.items()} | added for row in before[name]]
        assert old_rows(data, name) == renamed
    assert len(before["decisions"]) == IN_LAKE
    assert columns(data, "decisions") == set(tables.schemas()["decisions"].names)
    assert columns(data, "rewards") == set(tables.schemas()["rewards"].names)


def test_the_log_keeps_every_row_also_those_that_only_the_journal_had(data: Path) -> None:
    with closing(sqlite3.connect(data / LOG_FILE)) as connection:
        assert connection.execute("SELECT count(*) FROM decisions").fetchone() == (IN_LOG,)
    migrate(data)
    with closing(open_log(data / LOG_FILE)) as log:
        decisions = [decision for _, decision in log.read_decisions(0, 1_000)]
        assert len(decisions) == DECISIONS
        assert all(decision.decided_at > 0 for decision in decisions)
        assert any(decision.latency_us > 0 for decision in decisions)
        last = log.events("last-11")
    assert [event.received_at > 0 for event in last] == [True]


def test_readers_see_the_migrated_record_before_a_worker_has_started(data: Path) -> None:
    migrate(data)
    assert rows(data, "SELECT count(*) FROM feedback WHERE decided_at IS NOT NULL") == [(IN_LAKE,)]
    assert rows(data, "SELECT count(DISTINCT experiment) FROM revisions") == [(7,)]
    assert rows(data, "SELECT schema_version FROM published") == [(SCHEMA_VERSION,)]
    assert rows(data, 'SELECT count(*) > 0 FROM metrics."home-artwork"') == [(True,)]


def test_a_copy_of_what_is_changed_lies_beside_it(data: Path) -> None:
    before = old_rows(data, "decisions")
    first, *_ = migrate(data)
    (copy,) = data.glob("backup-*")
    assert str(copy) in first
    assert old_rows(copy, "decisions") == before
    assert (copy / lake.DATABASE).exists()


def test_what_is_migrated_is_left_alone(data: Path) -> None:
    assert migrate(data)
    stamp = (data / lake.DATABASE).stat().st_mtime_ns
    assert migrate(data) == []
    assert (data / lake.DATABASE).stat().st_mtime_ns == stamp
    assert len(list(data.glob("backup-*"))) == 1
    assert user_version(data) == SCHEMA_VERSION


def test_readers_of_a_folder_that_is_not_migrated_are_told_what_to_do(data: Path) -> None:
    for read in (lambda: lake.connect(data / lake.DATABASE), lambda: lake.Lake(data)):
        with pytest.raises(LogError, match=f"topbill migrate --data {data}"):
            read()


def test_a_new_folder_is_stamped_and_needs_no_migration(tmp_path: Path) -> None:
    assert migrate(tmp_path / "none") == []
    open_log(tmp_path / LOG_FILE).close()
    lake.Lake(tmp_path).write_database([], 0)
    assert user_version(tmp_path) == SCHEMA_VERSION
    assert schema_change.version(tmp_path) == SCHEMA_VERSION
    assert migrate(tmp_path) == []


def test_a_newer_version_is_refused_by_name(data: Path) -> None:
    migrate(data)
    schema_stamp.stamp(data / LOG_FILE, 9)
    for refused in (migrate, migrate_down, lambda data: open_log(data / LOG_FILE)):
        with pytest.raises(LogError, match=r"schema version 9; expected at most 2: a newer"):
            refused(data)
    schema_stamp.stamp(data / LOG_FILE, SCHEMA_VERSION)
    schema_change._stamp(data / "lake" / "rewards", 7)
    for refused in (migrate, lake.Lake):
        with pytest.raises(LogError, match=r"schema version 7; expected at most 2: a newer"):
            refused(data)


def test_down_gives_0_1_0_what_it_reads_and_up_again_what_came_since(data: Path) -> None:
    before = {name: columns(data, name) for name in ("decisions", "rewards")}
    held = old_rows(data, "rewards")
    migrate(data)
    migrate_down(data)
    assert {name: columns(data, name) for name in before} == before
    assert old_rows(data, "rewards") == held
    assert not (data / lake.DATABASE).exists()
    assert user_version(data) == 0
    assert migrate(data)
    assert len(old_rows(data, "decisions")) == IN_LAKE


def test_a_worker_at_work_is_not_pushed_aside(data: Path) -> None:
    with (data / "keeper.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TopbillError, match="a worker is at work"):
            migrate(data)
    assert "at" in columns(data, "decisions")


def test_what_waited_for_a_worker_to_migrate_goes_on_beside_it(data: Path) -> None:
    """As `topbill up` starts both: the service waits while the worker migrates, and finds it at
    work when its own turn comes."""
    with ThreadPoolExecutor(1) as service, (data / "keeper.lock").open("w") as worker:
        with (data / "migration.lock").open("w") as migrating:
            fcntl.flock(migrating, fcntl.LOCK_EX)
            waiting = service.submit(migrate, data)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.5)
            schema_change.upgrade(data)
            schema_stamp.stamp(data / LOG_FILE, SCHEMA_VERSION)
            fcntl.flock(worker, fcntl.LOCK_EX)
        assert waiting.result(timeout=10) == []


DEATHS = [
    ("back_up", 1, False),
    ("_rewrite", 1, False),
    ("_rewrite", 1, True),
    ("_stamp", 2, False),
    ("_write_database_anew", 1, False),
    ("stamp", 1, False),
]
"""Where a migration dies: at which call of which step, and whether after it."""


@pytest.mark.parametrize(("step", "number", "after"), DEATHS)
def test_a_migration_that_was_killed_goes_on_where_it_stopped(
    data: Path, step: str, number: int, after: bool
) -> None:
    """The process kills itself at the n-th call of a step; the next migration completes it."""
    code = f"""
import os, signal
from topbill import migration
from topbill.lake import schema_change
from topbill.log import schema_stamp
where = schema_stamp if {step!r} == "stamp" else schema_change
original, calls = getattr(where, {step!r}), []
def dying(*arguments):
    calls.append(1)
    if not {after} and len(calls) == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(*arguments)
    if {after} and len(calls) == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(where, {step!r}, dying)
migration.migrate(__import__("pathlib").Path({str(data)!r}))
"""
    assert python(code).returncode == -signal.SIGKILL
    migrate(data)
    assert len(old_rows(data, "decisions")) == IN_LAKE
    assert rows(data, "SELECT count(*) FROM feedback WHERE mature") != [(0,)]
    assert user_version(data) == schema_change.version(data) == SCHEMA_VERSION
    assert migrate(data) == []


def test_files_of_0_1_0_are_read_from_its_own_audit(data: Path) -> None:
    """Their keys have other names today; what the record says of them is read all the same."""
    migrate(data)
    published = dict(rows(data, "SELECT key, status FROM experiments"))
    assert set(published) == {*KEYS, "personalizer"}
    with pytest.raises(TopbillError):
        load_all([data.parent / "experiments"])
