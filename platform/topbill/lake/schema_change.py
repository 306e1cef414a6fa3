"""The lake's columns under the names of another schema version: its tables rewritten, its analytics
database written anew.

Delta has no renaming of columns that all its readers understand, so a table's rows are written
again under the new names. That is one commit: it replaces the schema and all files at once. A
reader that holds the old version keeps its files until they are vacuumed half an hour later, and a
process that is killed before the commit leaves the table as it was.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from topbill.domain.errors import LogError, SpecError
from topbill.domain.schema_version import RENAMED_SINCE_1, SCHEMA_VERSION
from topbill.domain.sql import quoted
from topbill.lake.analytics import Problem
from topbill.lake.appending import WRITER
from topbill.lake.places import DATABASE
from topbill.lake.tables import WIDENED, Lake, stamp, version_of
from topbill.spec import Experiment, from_audit

_logger = logging.getLogger("topbill")


def version(data: Path) -> int | None:
    """The oldest schema version of what the lake in the folder holds, or the newest where that is
    one that this code doesn't know; None where there is no lake. Raises LogError."""
    versions = []
    for where in _table_folders(data).values():
        table = _opened(where)
        if table is not None:
            versions.append(version_of(table))
    if (data / DATABASE).exists():
        versions.append(_database_version(data / DATABASE))
    if not versions:
        return None
    return max(versions) if max(versions) > SCHEMA_VERSION else min(versions)


ADDED_SINCE_1: dict[str, tuple[str, ...]] = {
    "decisions": ("row_weight", "entities", "stops", "shadows", "terms"),
    "rewards": (),
}
"""Columns that 0.1.0 does not know, by table."""


def back_up(data: Path, copy: Path) -> None:
    """Copy the lake and its analytics database into a new folder: links to the files, which nothing
    changes once they are written, or copies where the file system has no links."""
    fresh = copy.with_name(f"{copy.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    if (data / "lake").is_dir():
        shutil.copytree(data / "lake", fresh / "lake", copy_function=_link)
    if (data / DATABASE).exists():
        _link(str(data / DATABASE), str(fresh / DATABASE))
    fresh.rename(copy)


def upgrade(data: Path) -> list[str]:
    """Give the lake the names of this code's version; what was done, in sentences."""
    done = []
    for name, where in _table_folders(data).items():
        table = _opened(where)
        if table is None:
            continue
        if version_of(table) < SCHEMA_VERSION:
            rows = _rewrite(table, where, RENAMED_SINCE_1[name])
            done.append(f"{where}: {rows:,} rows written under {_pairs(RENAMED_SINCE_1[name])}")
        _stamp(where, SCHEMA_VERSION)
    database = data / DATABASE
    if database.exists() and _database_version(database) < SCHEMA_VERSION:
        _write_database_anew(data)
        done.append(f"{database}: written anew")
    return done


def downgrade(data: Path) -> list[str]:
    """Give the lake the names that 0.1.0 reads; what was done, in sentences."""
    done = []
    for name, where in _table_folders(data).items():
        table = _opened(where)
        if table is None or version_of(table) == 1:
            continue
        names = {new: old for old, new in RENAMED_SINCE_1[name].items()}
        rows = _rewrite(table, where, names, ADDED_SINCE_1[name])
        done.append(f"{where}: {rows:,} rows written under {_pairs(names)}")
        _stamp(where, 1)
    database = data / DATABASE
    if database.exists():
        # Its views name columns that are gone. 0.1.0 says that it is missing, and its keeper
        # writes one within two seconds.
        database.unlink()
        done.append(f"{database}: removed")
    return done


def _table_folders(data: Path) -> dict[str, Path]:
    return {name: (data / "lake" / name).resolve() for name in RENAMED_SINCE_1}


def _opened(where: Path) -> DeltaTable | None:
    try:
        return DeltaTable(str(where))
    except TableNotFoundError:
        return None
    except (OSError, DeltaError) as error:
        raise LogError(f"{where}: cannot be read: {error}; expected a Delta table") from error


def _rewrite(
    table: DeltaTable, where: Path, names: Mapping[str, str], without: Sequence[str] = ()
) -> int:
    """Write all rows of a table again with its columns renamed, in one commit, and without some;
    how many rows there are.

    The position in the log stays: it belongs to the table, not to its files.
    """
    # Arrow's datasets bring pandas with them: only a migration waits for that.
    from topbill.lake import rewriting

    try:
        dataset = rewriting.dataset_of(table, where)
        columns, fields = [], []
        for field in dataset.schema:
            if field.name not in without:
                columns.append(field.name)
                fields.append(field.with_name(names.get(field.name, field.name)))
        renamed = pa.schema(fields)
        write_deltalake(
            table,
            pa.RecordBatchReader.from_batches(
                renamed, rewriting.batches(dataset, columns, renamed)
            ),
            mode="overwrite",
            schema_mode="overwrite",
            partition_by=["experiment"],
            writer_properties=WRITER,
        )
        return int(dataset.count_rows())
    except (OSError, DeltaError, pa.ArrowException) as error:
        raise LogError(f"{where}: cannot be migrated: {error}") from error


def _stamp(where: Path, number: int) -> None:
    """Set the schema version of a table, and that all its files have all columns."""
    try:
        stamp(DeltaTable(str(where)), number, **{WIDENED: "false"})
    except (OSError, DeltaError) as error:
        raise LogError(f"{where}: cannot be stamped: {error}") from error


def _pairs(names: Mapping[str, str]) -> str:
    return ", ".join(f"{old} → {new}" for old, new in names.items())


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


# ------------------------------------------------------------------ the analytics database


class _AuditLine(NamedTuple):
    experiment: str
    revision: str
    at: int
    who: str
    spec: str


def _database_version(path: Path) -> int:
    with _attached(path) as connection:
        columns = connection.execute(
            "SELECT column_name FROM duckdb_columns() "
            "WHERE database_name = 'lake' AND table_name = 'published'"
        ).fetchall()
        if ("schema_version",) not in columns:
            return 1
        ((number,),) = connection.execute("SELECT schema_version FROM published").fetchall()
        return int(number)


def _write_database_anew(data: Path) -> None:
    """What the old database says, as this code writes it: readers need not wait for the worker."""
    with _attached(data / DATABASE) as connection:
        ((at,),) = connection.execute('SELECT epoch_us("at") FROM published').fetchall()
        specs = connection.execute("SELECT key, status, spec, revision FROM experiments").fetchall()
        audit = connection.execute(
            'SELECT experiment, revision, epoch_us("at"), who, spec FROM revisions'
        ).fetchall()
        problems = connection.execute(
            "SELECT kind, subject, path, message FROM troubles"
        ).fetchall()
    experiments: list[Experiment] = []
    for key, _, spec, revision in specs:
        try:
            experiments.append(from_audit(spec, f"{key} (as published)", revision))
        except SpecError as error:
            _logger.warning("%s has no metrics until the worker publishes: %s", key, error)
    Lake(data).write_database(
        experiments,
        at,
        [_AuditLine(*line) for line in audit],
        [Problem(*problem) for problem in problems],
        {key for key, status, *_ in specs if status == "removed"},
    )


@contextmanager
def _attached(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection in which the database at a path is `lake`, whatever its version."""
    with duckdb.connect() as connection:
        try:
            # ATTACH takes no parameters.
            connection.execute(f"ATTACH {quoted(str(path))} AS lake (READ_ONLY)")
            connection.execute("USE lake")
            yield connection
        except duckdb.Error as error:
            raise LogError(
                f"{path}: cannot be read: {error}; expected an analytics database"
            ) from error
