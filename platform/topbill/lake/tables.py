"""The Delta tables of the lake: append each batch exactly once, compact, and show them through the
analytics database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, Schema, Transaction
from deltalake.exceptions import DeltaError

from topbill.domain.alarm import AlarmLine
from topbill.domain.decision import DECISION_COLUMNS, EVENT_COLUMNS, REWARD_COLUMNS, SEQ, schema
from topbill.domain.errors import LogError
from topbill.domain.records import Decision, QuarantinedRow
from topbill.domain.schema_version import SCHEMA_VERSION
from topbill.lake import analytics, healing
from topbill.lake.analytics import LaunchLine
from topbill.lake.appending import WRITER
from topbill.lake.buckets import BUCKET, FIELD, Rows, partitions, with_buckets
from topbill.lake.causes import cause
from topbill.lake.database import Error, connect, connect_for_long
from topbill.lake.delta import (
    TablePlace,
    relation_of,
    table_of,
)
from topbill.lake.distinct import IDS, KEYS, IdHashes, RepeatedRow, take_out
from topbill.lake.files import objects_below
from topbill.lake.handle import CHECKPOINT_EVERY, TableHandle
from topbill.lake.lookup import read_decisions
from topbill.lake.places import CACHE, DATABASE, LAKE, lake_place
from topbill.lake.seals import Seals
from topbill.lake.views import PinnedTable, base_view
from topbill.log.protocol import ConclusionLine, Order, Retention
from topbill.spec import Experiment

Table = Literal["decisions", "rewards", "events"]
POSITION = "topbill.log"
"""Delta's application id: its transaction version is the last `seq` of the log that the table
holds.
"""
HISTORY = "topbill.history:"
"""Before the hash of a file of events from elsewhere, Delta's application id whose transaction
version is the last row of that file that the table holds.
"""
WIDENED = "topbill.widened"
"""Property of a table, `true` where older files lack columns: only then need DuckDB look into each
file for its columns.
"""
VERSION = "topbill.schema_version"
"""Property of a table: the version of the columns' names. 0.1.0 set none."""
_SETTINGS = {
    "delta.checkpointInterval": str(CHECKPOINT_EVERY),
    "delta.logRetentionDuration": "interval 1 hours",
    "delta.enableExpiredLogCleanup": "true",
    "delta.deletedFileRetentionDuration": "interval 1 hours",
}
"""The last is for how long a checkpoint names files that merges replaced: for a week if left out,
in which checkpoints would grow, and with them all that opens a table. `vacuum` deletes the files
before.
"""
_ATTEMPTS = 3
"""How often rows that repeat an id are looked for anew, where somebody else appends meanwhile."""
_TIERS = (8 << 20, 128 << 20)
"""Compaction targets in bytes: small files often, large files rarely, so that no row is rewritten
every minute.
"""


def schemas() -> dict[Table, pa.Schema]:
    """The Arrow schema of each table, as the columns are registered now."""
    return {
        "decisions": schema(DECISION_COLUMNS),
        "rewards": schema(REWARD_COLUMNS),
        "events": schema(EVENT_COLUMNS),
    }


class Lake:
    """The lake of a data folder: the tables `decisions`, `rewards` and `events` in `DIR/lake`, and
    the analytics database `DIR/topbill.duckdb`; or all of them below the URL that `TOPBILL_LAKE`
    says.

    For one writer at a time; a second one that appends what was appended already is refused by
    Delta itself. `keep_for`: seconds that files which a merge replaced stay, for readers that
    opened the database before. Raises LogError where tables cannot be read or written, or are of
    another schema version (see `topbill.migration`).
    """

    def __init__(self, folder: Path, *, keep_for: float = 1_800.0) -> None:
        self.folder = folder
        self._place = lake_place(folder)
        self.database_path = (folder / CACHE if self._place.is_store else folder) / DATABASE
        self.database_path.parent.mkdir(parents=True, exist_ok=True)
        self._database = analytics.DatabaseWriter(self.database_path)
        self._keep_for = keep_for
        self._places: dict[str, TablePlace] = {}
        self._tables: dict[str, TableHandle] = {}
        self._ids: dict[str, IdHashes] = {}
        # One for all, made when it is needed.
        connection = cache(connect_for_long)
        for name, columns in schemas().items():
            self._places[name] = table_of(self._place, name)
            table = self._open(self._places[name], columns)
            self._tables[name] = TableHandle(self._places[name], table)
            self._ids[name] = IdHashes((folder / LAKE / IDS / name).resolve(), name, connection)
        # What an object store has acknowledged it keeps, and as it was.
        self._seals = None if self._place.is_store else Seals(Path(self._place.root))

    def seal(self) -> dict[Table, int]:
        """Sync what lies in the lake, and note its hashes; returns the position of each table up to
        which that holds.
        """
        positions = {name: self.position(name) for name in schemas()}
        if self._seals is not None:
            self._seals.seal()
        return positions

    def note(self) -> None:
        """Note the hashes of what is new in the lake, so that its damage is told from now on."""
        if self._seals is not None:
            self._seals.note()

    def damaged(self) -> list[str]:
        """The sealed files that are not as they were written. Reads all files."""
        return [path for path, _ in self._damage()]

    def _damage(self) -> list[tuple[str, str]]:
        if self._seals is None:
            return []
        return [(str(path), what) for path, what in self._seals.damage()]

    def damage(self) -> list[str]:
        """A sentence for each file that is not as it was written, or that a table names and that is
        gone. Reads all files.
        """
        found = dict(self._damage())
        for name in schemas():
            for file in self.broken(name):
                what = "cut" if file.is_there else "missing"
                found.setdefault(file.path, f"{what}, with {file.rows:,} rows of {name}")
        return [f"{path}: {what}" for path, what in found.items()]

    def broken(self, name: Table, damaged: Collection[str] = ()) -> list[healing.BrokenFile]:
        """The table's files that are missing or not as long as they were, and those of
        `damaged`.
        """
        try:
            return healing.broken_files(self._tables[name].table(), self._places[name], damaged)
        except (OSError, DeltaError) as error:
            raise self._unusable(name, "cannot be read", error) from error

    def heal(self, name: Table, broken: Sequence[healing.BrokenFile], rows: pa.Table) -> int:
        """Replace broken files by their rows, which are among the log's `rows` of their spans;
        returns how many were written anew.

        Raises LogError where the log does not have all of them any more; then nothing is changed.
        """
        try:
            table = self._tables[name].table()
            left = [file for file in broken if not healing.is_healed(table, file)]
            lost = rows.slice(0, 0)
            if left:
                names = {file.path for file in broken}
                sound = [path for path in self.files(name) if path not in names]
                lost = healing.lost_rows(rows, left, sound, KEYS[name])
                expected = sum(file.rows for file in left)
                if len(lost) != expected:
                    raise LogError(
                        f"{left[0].path}: missing or damaged, and the log has let go of "
                        f"{expected - len(lost):,} of its {expected:,} rows; put it back from a "
                        "backup"
                    )
                healing.write_anew(table, self._as_stored(name, lost), left)
            healing.remove(table, self._places[name], broken)
        except (OSError, DeltaError) as error:
            raise self._unusable(name, "cannot be healed", error) from error
        return len(lost)

    def _unusable(self, name: str, what: str, error: Exception) -> LogError:
        return LogError(f"{self._places[name].root}: {what}: {cause(error)}")

    def _as_stored(self, name: str, rows: Rows) -> Rows:
        """The log's rows with the columns that they have in the table alone."""
        if BUCKET in self._tables[name].partitions:
            return with_buckets(rows)
        return rows

    def _open(self, place: TablePlace, columns: pa.Schema) -> DeltaTable:
        where = place.root
        try:
            if "://" not in where:
                Path(where).mkdir(parents=True, exist_ok=True)
            by_bucket = self._place.is_store
            table = DeltaTable.create(
                where,
                schema=columns.append(FIELD) if by_bucket else columns,
                mode="ignore",
                partition_by=partitions(columns.names, by_bucket=by_bucket) or None,
                configuration=dict(_SETTINGS),
                storage_options=place.options,
            )
            check_version(table, where)
            if VERSION not in table.metadata().configuration:
                # Delta takes no properties of others when it creates a table, only afterwards.
                stamp(table, SCHEMA_VERSION)
            _set(table)
            _widen(table, columns)
            return table
        except (OSError, DeltaError) as error:
            raise LogError(
                f"{where}: cannot be opened: {cause(error)}; expected a Delta table or nothing "
                "there"
            ) from error

    def position(self, name: Table) -> int:
        """The last `seq` of the log that the table holds, as the table itself says; 0 when it holds
        none.
        """
        try:
            return self._tables[name].position(POSITION)
        except (OSError, DeltaError) as error:
            raise self._unusable(name, "cannot be read", error) from error

    def append(self, name: Table, rows: Rows, through: int) -> bool:
        """Append the log's rows up to `seq` `through`; False when the table holds them already.

        Rows and position are one Delta commit: whatever dies, each row is there once. A writer that
        was killed before the commit left files that no version of the table names; one that was
        killed after it finds the position when it comes back, and appends nothing again. Of rows
        that another writer has appended in part meanwhile, the rest is appended.
        """
        table = self._tables[name]
        try:
            # The position of a moment ago is not enough: another writer may have been faster. Where
            # it is faster still, between this look and the commit, Delta refuses the commit, since
            # both mean to set the same application's version.
            table.refresh()
            position = table.position(POSITION)
            if through <= position:
                return False
            rows = self._as_stored(name, _after(rows, position))
            added = table.append(rows, Transaction(POSITION, through))
            # What came as a stream is read where it lies now, when somebody asks.
            if added is not None and isinstance(rows, pa.Table):
                self._ids[name].keep(added, rows)
        except (OSError, DeltaError) as error:
            raise self._unusable(name, f"cannot append rows through {through}", error) from error
        return True

    def append_history(self, events: pa.Table, source: str, through: int) -> int:
        """Append events that no log gave, up to row `through` of a `source`: those whose ids are
        not in the table yet; returns how many. Nothing where it has that part of the source.

        As in `append`, rows and position are one commit. Their `seq` is below 0 and falls, so that
        they come before all of the log's.
        """
        table, application = self._tables["events"], HISTORY + source
        self.distinct_tables()
        try:
            if through <= table.position(application):
                return 0
            new = self._ids["events"].without_known(events)
            mark = Transaction(application, through)
            table.append(self._as_stored("events", new), mark)
        except (OSError, DeltaError, Error) as error:
            raise LogError(
                f"{self._places['events'].root}: cannot append a history: {cause(error)}; import "
                "it again to go on"
            ) from error
        return len(new)

    def compact(self, *, thorough: bool = False) -> int:
        """Merge small files (up to 8 MB, or 128 MB if `thorough`); returns how many were merged.

        May run in a thread beside appends: Delta lets both commit, since an append takes no file
        away and a merge changes no row.
        """
        merged = 0
        for name, place in self._places.items():
            try:
                # A handle of its own: that of `append` belongs to the publishing thread.
                table = place.open()
                done = table.optimize.compact(
                    target_size=_TIERS[thorough], writer_properties=WRITER
                )
                merged += int(done["numFilesRemoved"])
            except (OSError, DeltaError) as error:
                raise self._unusable(name, "cannot be compacted", error) from error
        return merged

    def vacuum(self, *, thorough: bool = False) -> int:
        """Delete the files that merges replaced more than half an hour ago; returns how many.

        Not at once: a reader's database names the files of its version, and reads them for as long
        as it is open. `thorough` also deletes what writers that were killed left, when it is a day
        old. May run in a thread beside appends.
        """
        deleted = 0
        for name, place in self._places.items():
            try:
                table = place.open()
                gone = table.vacuum(
                    0,
                    dry_run=False,
                    enforce_retention_duration=False,
                    keep_versions=_kept_versions(table, place, self._keep_for),
                )
                deleted += len(gone)
                if thorough:
                    deleted += len(
                        table.vacuum(24, dry_run=False, enforce_retention_duration=False, full=True)
                    )
            except (OSError, DeltaError) as error:
                raise self._unusable(name, "dead files cannot be deleted", error) from error
        return deleted

    def experiments(self) -> set[str]:
        """The keys of all experiments that have a decision in the lake."""
        try:
            return self._tables["decisions"].values("experiment")
        except (OSError, DeltaError) as error:
            raise self._unusable("decisions", "cannot be read", error) from error

    def units(self, key: str) -> dict[str, int]:
        """How many units of an experiment's decisions each variant has; those that saw several are
        counted in each.
        """
        if key not in self.experiments():
            return {}
        decisions = relation_of(self._places["decisions"])
        query = f"""SELECT variant, count(DISTINCT unit) FROM {decisions}
            WHERE experiment = $key AND variant IS NOT NULL GROUP BY variant"""  # noqa: S608
        with connect() as connection:
            return dict(connection.execute(query, {"key": key}).fetchall())

    def find_decisions(self, places: Mapping[str, int]) -> dict[str, Decision]:
        """The decisions that stand at these places (id → `seq`), by id; see
        `lookup.find_decisions`. They are read from the table as it is now, whatever the analytics
        database shows.
        """
        if not places:
            return {}
        try:
            with connect(threads=1) as connection:
                files = self.files("decisions")
                connection.execute(base_view("decisions", self._pinned("decisions", files)))
                return read_decisions(connection, places)
        except Error as error:
            raise self._unusable("decisions", "cannot be read", error) from error

    def _pinned(self, name: str, files: Sequence[str]) -> PinnedTable:
        """A table as it is now, of these files."""
        table = self._tables[name]
        return PinnedTable(files, table.version, table.properties().get(WIDENED) == "true")

    def files(self, name: str) -> list[str]:
        """The absolute paths, or URLs, of the Parquet files that make up the table now."""
        table = self._tables[name]
        try:
            table.refresh()
            return table.files()
        except (OSError, DeltaError) as error:
            raise self._unusable(name, "cannot be read", error) from error

    def repeated(self) -> dict[Table, list[RepeatedRow]]:
        """The rows of each table whose id an earlier row has; tables without any are left out."""
        repeated: dict[Table, list[RepeatedRow]] = {}
        for name in schemas():
            _, rows = self._repeated(name)
            if rows:
                repeated[name] = rows
        return repeated

    def _repeated(self, name: str) -> tuple[list[str], list[RepeatedRow]]:
        """The table's files, and the rows of them whose id an earlier row has."""
        files = self.files(name)
        try:
            return files, self._ids[name].repeated(files)
        except (OSError, Error) as error:
            what = "cannot be looked through for repeated ids"
            raise self._unusable(name, what, error) from error

    def distinct_tables(
        self, note: Callable[[dict[Table, list[RepeatedRow]]], object] = lambda _: None
    ) -> dict[str, PinnedTable]:
        """The tables as they are now, with each id once: rows that repeat one (see `repeated`) are
        taken out. `note` is called with them before, so that whoever dies in between finds them
        again.
        """
        return {name: self._pinned(name, self._distinct_files(name, note)) for name in schemas()}

    def _distinct_files(
        self, name: Table, note: Callable[[dict[Table, list[RepeatedRow]]], object]
    ) -> list[str]:
        """The table's files, with each id once."""
        for _ in range(_ATTEMPTS):
            files, rows = self._repeated(name)
            if not rows:
                return files
            note({name: rows})
            try:
                take_out(self._tables[name].table(), self._places[name], rows)
            except (OSError, DeltaError, pa.ArrowException) as error:
                what = f"{len(rows):,} rows that repeat an id cannot be taken out"
                raise self._unusable(name, what, error) from error
        where = self._places[name].root
        raise LogError(f"{where}: others go on appending rows that repeat an id")

    def write_database(
        self,
        experiments: Iterable[Experiment],
        at: int,
        revisions: Iterable[analytics.AuditLine] = (),
        problems: Iterable[analytics.Problem] = (),
        removed: Collection[str] = (),
        quarantine: Sequence[QuarantinedRow] = (),
        retention: Retention | None = None,
        conclusions: Sequence[ConclusionLine] = (),
        orders: Sequence[Order] = (),
        launches: Sequence[LaunchLine] = (),
        alarms: Sequence[AlarmLine] = (),
        tables: Mapping[str, PinnedTable] | None = None,
    ) -> None:
        """Write a new analytics database pinned to the `tables`, and rename it into place; by
        default as `distinct_tables` finds them now.

        `at` (µs since the epoch): every log row stamped up to then is in the tables; what is mature
        is judged by it. `removed`: keys of those `experiments` that have no file any more.
        `quarantine`: rows that were set aside. `retention`: when rows were last removed because of
        their age. `conclusions`: how experiments ended. `orders`: what was said without a file.
        `launches`: where launches stand. `alarms`: lines of alarms, oldest first.
        """
        publication = analytics.Publication(
            self.distinct_tables() if tables is None else tables,
            list(experiments),
            at,
            list(revisions),
            list(problems),
            removed,
            quarantine,
            retention,
            conclusions,
            orders,
            launches,
            alarms,
        )
        self._database.write(publication)
        if self._place.is_store:
            objects_below(self._place).write(DATABASE, self.database_path.read_bytes())


def _after(rows: Rows, position: int) -> Rows:
    """The rows of the log after a `seq`. All of a stream are: it is of one that imports alone."""
    if not isinstance(rows, pa.Table) or not len(rows):
        return rows
    # Nearly always nobody else has appended, and then nothing is copied.
    if pc.min(rows[SEQ]).as_py() > position:
        return rows
    return rows.filter(pc.greater(rows[SEQ], position))


def _kept_versions(table: DeltaTable, place: TablePlace, seconds: float) -> list[int]:
    """Versions that together name every file that any version of the last so many seconds does.

    Appends take no file away. So the last version before each merge names all that the versions
    since the merge before it did.
    """
    since = (time.time() - seconds) * 1e3
    # Erasing takes commits away: nothing before the first one that is there can be read.
    names = [path.rpartition("/")[2].partition(".json") for path in place.log()]
    commits = [int(stem) for stem, *rest in names if stem.isdigit() and rest == [".json", ""]]
    oldest = min(commits, default=0)
    kept = []
    for commit in table.history():
        if commit["timestamp"] < since:
            break
        if commit.get("operationParameters", {}).get("mode") != "Append":
            kept.append(max(oldest, commit["version"] - 1))
    return [*kept, table.version()]


def version_of(table: DeltaTable) -> int:
    """The schema version of a table, as its property says; 1 for a table of 0.1.0.

    Its columns have the last word: a migration that was killed may have renamed them and not yet
    set the property.
    """
    names = {field.name for field in table.schema().fields}
    if "at" in names:
        return 1
    return int(table.metadata().configuration.get(VERSION) or SCHEMA_VERSION)


def _set(table: DeltaTable) -> None:
    """Give a table of an earlier release the settings of this one."""
    there = table.metadata().configuration
    missing = {name: value for name, value in _SETTINGS.items() if there.get(name) != value}
    if missing:
        table.alter.set_table_properties(missing)


def stamp(table: DeltaTable, version: int, **properties: str) -> None:
    """Set the schema version of a table, and more of our properties."""
    table.alter.set_table_properties(
        {VERSION: str(version), **properties}, raise_if_not_exists=False
    )


def check_version(table: DeltaTable, where: str) -> None:
    """Raises LogError for a table of another schema version than this code writes."""
    version = version_of(table)
    if version > SCHEMA_VERSION:
        raise LogError(
            f"{where}: is of schema version {version}; expected at most {SCHEMA_VERSION}: "
            "a newer Topbill wrote it, install that one"
        )
    if version < SCHEMA_VERSION:
        data = Path(where).parent.parent
        raise LogError(
            f"{where}: is of schema version {version}, as Topbill 0.1.0 wrote it; expected "
            f"{SCHEMA_VERSION}: run `topbill migrate --data {data}`"
        )


def _widen(table: DeltaTable, columns: pa.Schema) -> None:
    """Give a table of an earlier version the columns that it lacks; its rows have nothing there."""
    present = {field.name for field in table.schema().fields}
    missing = [field for field in Schema.from_arrow(columns).fields if field.name not in present]
    if missing:
        table.alter.add_columns(missing)
        table.alter.set_table_properties({WIDENED: "true"}, raise_if_not_exists=False)
