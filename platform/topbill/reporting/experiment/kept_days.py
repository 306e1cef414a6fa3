"""Answers to parts of a report, kept for the days that are over. DuckDB's are in `DIR/sums`, a
folder for each experiment, a Parquet file for each part and day; those of a Spark Connect server in
the lake, a Delta table for each part. A report over many days reads those and asks the record for
the last days alone.

A day's answer is called by all that it depends on: the query (and so every metric's definition),
the day's very rows in the lake, and the audit's lines that they are read by. So a late reward, an
erased viewer, rows removed by age, an import or another definition make another name: that day is
asked anew, and what was kept under the old one is deleted. Which days are over, and which rows they
have, DuckDB finds here, whoever answers, and reads but the files that are new since. Nothing here
is a record: all of it can be deleted at any time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec

from topbill.domain.sql import identifier, quoted
from topbill.domain.zones import local_sql
from topbill.lake import DuckDBEngine, lake_place, view_files
from topbill.lake.kept import KeptFiles, KeptIndex
from topbill.lake.kept_tables import KeptTable, kept_name, new_name
from topbill.reporting.experiment.phases import Occurrence
from topbill.reporting.queries.database import AnalyticsDatabase, DayPart

if TYPE_CHECKING:
    from topbill.lake.spark import SparkEngine

_TOGETHER = 60.0
"""Seconds of a server's work that one commit keeps: as much is lost where a report is cut off."""
FOREVER = 253_370_764_800_000_000
"""µs since the epoch of a moment at which every window of every decision is over."""
_DAYS_OF_FILES = """
SELECT parse_filename(filename) AS file, {day} AS day, count(*) AS n, bit_xor(hash(seq)) AS hash,
    min(seq) AS first, max(seq) AS last, max(epoch_us(decided_at)) AS until,
    {revisions} AS revisions
FROM (
    SELECT * REPLACE (make_timestamp(epoch_us(decided_at)) AS decided_at)
    FROM read_parquet([{files}], filename = true, hive_partitioning = true,
        hive_types = {{'experiment': VARCHAR}})
    WHERE experiment = {key}
) GROUP BY ALL"""


class _Rows(NamedTuple):
    """What one table has of some days: how many rows, a hash of their places in the log, and the
    first and the last of those."""

    n: int = 0
    hash: int = 0
    first: int = 0
    last: int = -1

    @classmethod
    def of(cls, row: _DayRows | None) -> _Rows:
        return cls() if row is None else cls(row.n, row.hash, row.first, row.last)

    @classmethod
    def around(cls, rows: Sequence[_Rows]) -> _Rows:
        """A span that holds all of them."""
        there = [one for one in rows if one.n]
        if not there:
            return cls()
        n = sum(one.n for one in there)
        return cls(n, 0, min(one.first for one in there), max(one.last for one in there))


class _DayRows(msgspec.Struct, frozen=True):
    """What one table, or a file of it, has of a day; `until` is when its last decision was (µs),
    `revisions` those of its decisions. No day where a row does not say."""

    day: date | None
    n: int
    hash: int
    first: int
    last: int
    until: int | None
    revisions: list[str] = []

    def __add__(self, other: _DayRows) -> _DayRows:
        return _DayRows(
            self.day,
            self.n + other.n,
            self.hash ^ other.hash,
            min(self.first, other.first),
            max(self.last, other.last),
            max(self.until or 0, other.until or 0),
            sorted({*self.revisions, *other.revisions}),
        )


class _Span(NamedTuple):
    """Days of the record: SQL that is true of them, and where their rows are."""

    is_inside: str
    decisions: _Rows
    rewards: _Rows


_Index = dict[str, list[_DayRows]]
"""By a file's name, what it has of each day."""


class _Day(NamedTuple):
    """One day; `state` is all that an answer for it depends on, beside the query."""

    day: date
    span: _Span
    state: str


class KeptDays:
    """The kept answers of one experiment, which the connection must show whole: in files of a data
    folder, or where a server answers, in tables of the lake.

    Days are those of `zone`. A day is over when it is past at `now`, and so are all windows of its
    decisions (of at most `longest`); all times in µs. Of the others parts are asked as at `now`.

    Raises:
        OSError, DamagedSumsError, lake.Error: where files cannot be written or read.
    """

    def __init__(
        self,
        database: AnalyticsDatabase,
        data: Path,
        key: str,
        *,
        zone: str,
        now: int,
        longest: int,
        occurrences: Sequence[Occurrence],
    ) -> None:
        self._database = database
        self._key = key
        self._now = now
        self._zone = zone
        self._local_day = f"CAST({local_sql('decided_at', zone)} AS DATE)"
        self._home = identifier(str(database.row("SELECT current_database() AS n")["n"]))
        self._version = database.row("SELECT version() AS v")["v"]
        self._data = data
        self._over, self._open = self._days(now - longest, occurrences)

    def _days(self, mature: int, occurrences: Sequence[Occurrence]) -> tuple[list[_Day], _Span]:
        """The days that are over, the oldest first; and the others as one."""
        moment = local_sql(f"make_timestamp({self._now})", self._zone)
        today = self._database.row(f"SELECT CAST({moment} AS DATE) AS day")["day"]
        decisions = self._by_day("decisions", "list_sort(list(DISTINCT revision))")
        rewards = self._by_day("rewards", "[]::VARCHAR[]")
        over: list[_Day] = []
        for day, row in decisions.items():
            if day is None or day >= today or (row.until or 0) >= mature:
                continue
            read_by = []
            for number, one in enumerate(occurrences):
                # A later line of the audit says nothing of the day (which ends a day after that of
                # UTC at most), but for the first of one of its revisions, which holds from the
                # beginning.
                is_earlier = one.since.date() <= day + timedelta(days=1)
                if is_earlier or one.revision in row.revisions:
                    read_by.append((number, one.revision, one.since))
            own = _Rows.of(row), _Rows.of(rewards.get(day))
            state = msgspec.json.encode([self._zone, self._version, *own, read_by]).decode()
            span = _Span(f"{self._local_day} = DATE {quoted(str(day))}", *own)
            over.append(_Day(day, span, state))
        days = {one.day for one in over}
        listed = ", ".join(quoted(str(day)) for day in sorted(days))
        is_open = f"coalesce({self._local_day} NOT IN ({listed}), true)" if listed else "true"
        others = [
            _Rows.around([_Rows.of(row) for day, row in table.items() if day not in days])
            for table in (decisions, rewards)
        ]
        return sorted(over), _Span(is_open, *others)

    def _by_day(self, table: str, revisions: str) -> dict[date | None, _DayRows]:
        """What a table has of each day: of files that were looked at before, as that was kept,
        since the lake never changes a file."""
        paths = {Path(path).name: path for path in view_files(self._database.connection, table)}
        kept = KeptIndex(self._data, self._key, f"{table} {self._zone} {self._version}", _Index)
        index = {name: rows for name, rows in kept.read().items() if name in paths}
        new = [path for name, path in paths.items() if name not in index]
        if new:
            query = _DAYS_OF_FILES.format(
                day=self._local_day,
                revisions=revisions,
                files=", ".join(map(quoted, new)),
                key=quoted(self._key),
            )
            index.update({Path(path).name: [] for path in new})
            for row in self._database.rows(query):
                index[row.pop("file")].append(_DayRows(**row))
            kept.write(index)
        by_day: dict[date | None, _DayRows] = {}
        for rows in index.values():
            for one in rows:
                by_day[one.day] = by_day[one.day] + one if one.day in by_day else one
        return by_day

    def relation(self, part: DayPart) -> str:
        """SQL of a part's answer, to stand after FROM."""
        text = part.sql(FOREVER)
        engine = self._database.connection
        if isinstance(engine, DuckDBEngine):
            kept = self._files(part.name, text)
        else:
            kept = self._table(cast("SparkEngine", engine), part.name, text)
        with self._showing(self._open):
            self._database.execute(
                f"CREATE OR REPLACE TEMP TABLE {part.name} AS {part.sql(self._now)}"
            )
        return f"({kept} UNION ALL SELECT * FROM {part.name})" if kept else part.name  # noqa: S608  (our own name)

    def _files(self, part: str, text: str) -> str:
        """SQL of the kept answers, in files; nothing where no day is over."""
        files = KeptFiles(self._data, self._key, part)
        paths = [
            files.path(one.day, _state(one, text), partial(self._write, one.span, text))
            for one in self._over
        ]
        files.delete_others(paths)
        if not paths:
            return ""
        listed = ", ".join(quoted(str(path)) for path in paths)
        return f"SELECT * FROM read_parquet([{listed}], hive_partitioning = false)"  # noqa: S608  (quoted)

    def _write(self, span: _Span, text: str, path: Path) -> None:
        with self._showing(span):
            self._database.execute(f"COPY ({text}) TO {quoted(str(path))} (FORMAT parquet)")

    def _table(self, engine: SparkEngine, part: str, text: str) -> str:
        """The same, in a table."""
        if not self._over:
            return ""
        table = KeptTable(lake_place(self._data), self._key, part, text)
        wanted = {kept_name(one.day, _state(one, text)): one for one in self._over}
        self._ask_missing(engine, table, text, wanted)
        # A day of which there is no row may have no partition.
        names = [table.names[name] for name in wanted if name in table.names]
        table.delete_others(names)
        if table.schema is None or not names:
            return ""
        engine.show(f"kept_{part}", table.paths(names), table.schema)
        return f"SELECT * FROM kept_{part}"  # noqa: S608  (our own name)

    def _ask_missing(
        self, engine: SparkEngine, table: KeptTable, text: str, wanted: Mapping[str, _Day]
    ) -> None:
        """Have the table hold all days that are wanted."""
        written: list[str] = []
        began = time.monotonic()
        missing = [name for name in wanted if name not in table.names]
        for name in missing:
            written.append(new_name(name))
            # Day by day, so that the server needs memory for the rows of one alone.
            with self._showing(wanted[name].span):
                schema = engine.write(text, table.folder(written[-1]))
            if name == missing[-1] or time.monotonic() - began > _TOGETHER:
                table.commit(written, schema)
                written, began = [], time.monotonic()

    @contextmanager
    def _showing(self, span: _Span) -> Iterator[None]:
        """Let the views show a span of days alone."""
        for table, rows in (("decisions", span.decisions), ("rewards", span.rewards)):
            # By their places, by which files and parts of files are left out unread.
            self._database.execute(
                f"""CREATE OR REPLACE TEMP VIEW {table} AS SELECT * FROM {self._home}.main.{table}
                WHERE experiment = {quoted(self._key)}
                    AND seq BETWEEN {rows.first} AND {rows.last} AND {span.is_inside}"""  # noqa: S608  (quoted)
            )
        try:
            yield
        finally:
            for table in ("decisions", "rewards"):
                whole = f"SELECT * FROM {self._home}.main.{table}"  # noqa: S608  (our own names)
                self._database.execute(f"CREATE OR REPLACE TEMP VIEW {table} AS {whole}")


def _state(day: _Day, text: str) -> str:
    return blake2b(f"{text}\n{day.state}".encode(), digest_size=16).hexdigest()
