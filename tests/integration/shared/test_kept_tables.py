"""What days add up to, kept in the lake for a Spark Connect server: a report that reads it says
what DuckDB says of every row, and only days that are new or changed are asked anew.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from tests import sail_server
from tests.answers import differences
from tests.unit.reporting.test_kept_days import Record, experiment, watched

from topbill import reporting
from topbill.domain.engine_url import ENGINE_VARIABLE, SCRATCH_VARIABLE
from topbill.lake import lake_place
from topbill.lake.kept import SUMS
from topbill.lake.kept_tables import KEPT, forget_tables, forget_tables_until
from topbill.lake.places import LAKE
from topbill.reporting.experiment import build

pytest.importorskip("pysail", reason="no pysail: pip install -r requirements-dev.lock")
pytest.importorskip("pyspark", reason="no pyspark: pip install 'topbill[spark]'")

_KILLED = """
import os, signal, sys
from topbill.lake.spark import SparkEngine
from topbill.reporting.experiment import build

build.LARGE, left, write = 1, int(sys.argv[2]), SparkEngine.write


def written(*given):
    global left
    columns, left = write(*given), left - 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return columns


SparkEngine.write = written
build.load_experiment_report("home", sys.argv[1])
"""
"""A report, killed when the server has written so many days' answers."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as environment, sail_server.running() as url:
        environment.setenv(SCRATCH_VARIABLE, str(tmp_path_factory.mktemp("scratch")))
        yield url


@pytest.fixture
def record(tmp_path: Path) -> Record:
    record = Record(tmp_path, seed=1, units=60)
    for _ in range(4):
        record.live(150)
    return record


def report(record: Record, server: str, least: int) -> tuple[dict[str, Any], list[str]]:
    """The report, by the engine at `server` if any, where days are kept from `least` decisions on;
    and what was logged."""
    with (
        patch.dict("os.environ", {ENGINE_VARIABLE: server}),
        patch.object(build, "LARGE", least),
        watched() as said,
    ):
        answer = reporting.load_experiment_report("home", record.folder)
    return json.loads(reporting.to_json(answer)), said


def check(record: Record, server: str) -> None:
    """The server's report of kept days is DuckDB's of every row."""
    record.publish()
    here, _ = report(record, "", 10**9)
    there, said = report(record, server, 1)
    assert said == []
    assert differences(here, there) == []
    assert here["ab"]["comparisons"]


def roots(record: Record) -> list[Path]:
    """Where the tables are of what units' decisions add up to."""
    return sorted((record.folder / LAKE / SUMS).glob("*/report_units-*"))


def kept(record: Record) -> list[str]:
    """What their partitions are called."""
    tables = [DeltaTable(root) for root in roots(record) if DeltaTable.is_deltatable(str(root))]
    return sorted(str(one[KEPT]) for table in tables for one in table.partitions())


def versions(record: Record) -> list[int]:
    """The newest version of each table of the experiment's parts."""
    tables = sorted((record.folder / LAKE / SUMS).glob("*/report_*"))
    return [DeltaTable(root).version() for root in tables if DeltaTable.is_deltatable(str(root))]


def test_all_days_of_a_report_are_one_commit(record: Record, server: str) -> None:
    check(record, server)
    assert len(kept(record)) == 2
    assert versions(record) == [0] * len(versions(record))
    record.live(80)
    check(record, server)
    assert len(kept(record)) == 3
    assert set(versions(record)) == {1}


@pytest.mark.parametrize(("days", "tables"), [(1, 0), (3, 1)])
def test_a_report_that_is_killed_leaves_what_it_has_committed(
    record: Record, server: str, days: int, tables: int
) -> None:
    record.publish()
    command = [sys.executable, "-c", _KILLED, str(record.folder), str(days)]
    ended = subprocess.run(command, env={**os.environ, ENGINE_VARIABLE: server}, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(versions(record)) == tables
    written = list((record.folder / LAKE / SUMS).glob("*/report_*/2024-10-0*"))
    assert len(written) == days, "of the last one no version of a table knows"
    check(record, server)
    assert versions(record) == [0] * len(versions(record))
    assert len(kept(record)) == 2


def test_days_are_kept_and_asked_anew_when_rewards_come_late(record: Record, server: str) -> None:
    check(record, server)
    before = kept(record)
    assert [name[:10] for name in before] == ["2024-10-04", "2024-10-05"]
    check(record, server)
    assert kept(record) == before, "read, not asked anew"
    record.send(record.late)
    record.revise(experiment((20, 50, 30)))
    record.live(80)
    record.erase(str(record.decisions[0].unit))
    check(record, server)
    new = set(kept(record)) - set(before)
    assert sorted(name[:10] for name in new) == ["2024-10-04", "2024-10-05", "2024-10-06"]


def test_what_two_write_at_once_counts_once(record: Record, server: str) -> None:
    check(record, server)
    before = kept(record)
    (root,) = roots(record)
    rows = DeltaTable(root).to_pyarrow_table()
    # By another writer, all of it.
    others = pa.array([name.as_py().rpartition("-")[0] + "-zzz" for name in rows[KEPT]])
    rows = rows.set_column(rows.column_names.index(KEPT), KEPT, others)
    write_deltalake(root, rows, mode="append")
    assert len(kept(record)) == 2 * len(before)
    check(record, server)


def test_what_cannot_be_read_is_deleted_and_made_anew(record: Record, server: str) -> None:
    check(record, server)
    (root,) = roots(record)
    next(root.glob("*/*.parquet")).unlink()
    answer, said = report(record, server, 1)
    assert "all of the record is read instead" in said[0]
    assert answer["ab"]["comparisons"]
    assert not kept(record)
    check(record, server)
    assert kept(record)


def test_what_is_taken_out_of_the_record_is_taken_out_of_them(record: Record, server: str) -> None:
    check(record, server)
    place = lake_place(record.folder)
    forget_tables_until(place, date(2024, 10, 4))
    assert [name[:10] for name in kept(record)] == ["2024-10-05"]
    check(record, server)
    forget_tables(place, "another")
    assert len(kept(record)) == 2
    forget_tables(place)
    assert not [path for path in (record.folder / LAKE / SUMS).rglob("*") if path.is_file()]
    check(record, server)
