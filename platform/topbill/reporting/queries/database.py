"""The one place that opens the analytics database, asks it and closes it again; and what it says of
itself: how new it is, and which experiments it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from topbill.domain.alarm import AlarmKind
from topbill.domain.errors import LogError, NotFound
from topbill.domain.zones import UTC
from topbill.lake import (
    DuckDBEngine,
    Error,
    Problem,
    RecordEngine,
    connect,
    database_of,
    open_engine,
)
from topbill.lake.causes import cause
from topbill.lake.database import OutOfMemoryError
from topbill.spec import Experiment, from_audit

if TYPE_CHECKING:
    import pandas as pd

SAMPLE = 200_000
"""Where a picture of what was shown would read more decisions than this, it reads an even sample of
about so many.
"""


LARGE = 1_000_000
"""Decisions of an experiment from which on reports keep what days add up to: of fewer, all are read
as fast.
"""


class AnalyticsDatabase:
    """The analytics database, open for a few questions that all see the same moment.

    Values enter a query as parameters (`$key`), never as text. Names of columns, which SQL has no
    parameters for, go through `topbill.lake.identifier`.
    """

    def __init__(self, connection: RecordEngine, folder: Path | None = None) -> None:
        self.connection = connection
        self.folder = folder
        """The data folder, where it is one's."""

    def rows(self, query: str, /, **parameters: object) -> list[dict[str, Any]]:
        """The answer, a dictionary for each row."""
        relation = self.connection.sql(query, params=parameters or None)
        names = relation.columns
        return [dict(zip(names, row, strict=True)) for row in relation.fetchall()]

    def row(self, query: str, /, **parameters: object) -> dict[str, Any]:
        """The answer to a query that has exactly one row."""
        (row,) = self.rows(query, **parameters)
        return row

    def frame(self, query: str, /, **parameters: object) -> pd.DataFrame:
        """The answer as a pandas frame."""
        answer: pd.DataFrame = self.connection.sql(query, params=parameters or None).df()
        return answer

    def execute(self, statement: str, /, **parameters: object) -> None:
        """Run a statement that answers nothing, such as the making of a temporary table."""
        # CREATE answers with a count, and DuckDB wants every answer fetched before the next
        # statement.
        self.connection.execute(statement, parameters or None).fetchall()

    def keep(self, name: str, query: str) -> None:
        """Make a temporary table of an answer that is small."""
        self.connection.keep(name, query)


class DayPart(NamedTuple):
    """A query over the views `decisions` and `rewards` as at a moment (µs since the epoch), whose
    answers over several days, side by side, are an answer over all of them. It is written once,
    whatever the views show: all of the record, a part of it, or a day. The rewards of a decision
    are of its day."""

    name: str
    sql: Callable[[int], str]


class DayParts(Protocol):
    """Where the answers come from."""

    def relation(self, part: DayPart) -> str:
        """SQL of the answer, to stand after FROM."""


class WholeRecord:
    """They are asked of all that the views show, as at `now` (µs since the epoch)."""

    def __init__(self, database: AnalyticsDatabase, now: int) -> None:
        self._database = database
        self._now = now

    def relation(self, part: DayPart) -> str:
        """See `DayParts`: a temporary table, since it is small and asked several times."""
        self._database.keep(part.name, part.sql(self._now))
        return part.name


@contextmanager
def open_database(data: Path | str, *, on_engine: bool = True) -> Iterator[AnalyticsDatabase]:
    """The analytics database of a data folder.

    Args:
        data: the data folder.
        on_engine: whether the engine that this process is to ask answers (see
            `lake.open_engine`). Without it DuckDB does: for what services and workers ask on the
            way, of few rows.

    Raises:
        NotFound: nothing was published yet.
        LogError: a query fails, such as when files that it reads were compacted meanwhile.
    """
    path = database_of(Path(data))
    # Opened anew for each question: the worker replaces the file, and whoever keeps it open would
    # see the old one.
    connection = open_engine(path) if on_engine else DuckDBEngine(connect(path))
    try:
        yield AnalyticsDatabase(connection, Path(data))
    except OutOfMemoryError as error:
        raise LogError(f"{path}: {cause(error)}") from error
    except Error as error:
        raise LogError(
            f"{path}: {cause(error)}; try again: the files may have been compacted meanwhile"
        ) from error
    finally:
        connection.close()


class ListedExperiment(msgspec.Struct, frozen=True, kw_only=True):
    """One experiment of the record, as a list shows it. Times are UTC.

    `decisions`, `first_at` and `last_at` are of decisions in a variant: requests outside the
    experiment, or of its holdout, say nothing of how long it has run or how busy it is.
    """

    key: str
    title: str
    owner: str
    hypothesis: str
    surface: str
    status: str
    unit: str | None
    slots: int
    revision: str
    since: datetime | None
    decisions: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None


def version(data: Path | str, every: float = 10.0) -> str:
    """Names the state that the database shows: another name as soon as the record has changed.

    Args:
        data: the data folder.
        every: while the record grows, the name changes at most once in so many seconds; 0 for
            every change.

    Raises:
        NotFound: nothing was published yet.
    """
    with open_database(data) as database:
        published = database.row("SELECT epoch_us(published_at) AS published_us, * FROM published")
    # By the clock while the record grows, so that answers are kept for a while at least.
    if every > 0:
        return f"{int(published['published_us'] / 1e6 / every)}"
    # A database of an earlier version has no events until the worker publishes.
    events = published.get("events_version", 0)
    return f"{published['decisions_version']}.{published['rewards_version']}.{events}"


def published_at(data: Path | str) -> datetime:
    """When the worker last published, UTC."""
    with open_database(data) as database:
        moment: datetime = database.row("SELECT published_at FROM published")["published_at"]
    return moment


class RecordedAlarm(NamedTuple):
    """A fault that was found at `raised_at` (UTC), and stands where there is no `resolved_at`; of
    the worker where there is no experiment."""

    kind: AlarmKind
    experiment: str | None
    subject: str | None
    message: str
    raised_at: datetime
    resolved_at: datetime | None


class Retained(NamedTuple):
    """From when on the record has rows (`kept_since`), since older ones were removed, and when that
    was done last; both UTC.
    """

    kept_since: datetime
    retained_at: datetime


def retained(data: Path | str) -> Retained | None:
    """What was removed because of its age; None where nothing ever was."""
    with open_database(data) as database:
        return retained_of(database)


def retained_of(database: AnalyticsDatabase) -> Retained | None:
    """The same, of an open database."""
    # All columns: a database that an earlier version wrote does not have these.
    row = database.row("FROM published")
    since = row.get("kept_since")
    return None if since is None else Retained(since, row["retained_at"])


def problems(data: Path | str) -> list[Problem]:
    """Files that were refused and experiments that can't learn, as of the last publication."""
    with open_database(data) as database:
        return [Problem(**row) for row in database.rows("FROM problems")]


def has_table(database: AnalyticsDatabase, name: str) -> bool:
    """Whether a table is there: a database of an earlier version lacks some until it is published
    again."""
    query = "FROM information_schema.tables WHERE table_name = $name"
    return bool(database.rows(query, name=name))


def recorded_alarms(data: Path | str) -> list[RecordedAlarm]:
    """The alarms that stand as of the last publication and the last ones before, the oldest
    first."""
    with open_database(data) as database:
        if not has_table(database, "alarms"):
            return []
        rows = database.rows(
            """SELECT kind, experiment, subject, message, raised_at, resolved_at FROM alarms
            ORDER BY raised_at, kind"""
        )
    return [RecordedAlarm(**row) for row in rows]


def standing_alarms(data: Path | str) -> list[RecordedAlarm]:
    """Those that stand, the oldest first."""
    return [alarm for alarm in recorded_alarms(data) if alarm.resolved_at is None]


def experiments(data: Path | str) -> list[ListedExperiment]:
    """Every experiment that the record knows, running ones first, then by key."""
    query = """
        SELECT e.key, e.title, e.owner, e.hypothesis, e.surface, e.status, e.unit, e.slots,
            e.revision, e.revised_at AS since,
            coalesce(d.decisions, 0) AS decisions, d.first_at, d.last_at
        FROM experiments e LEFT JOIN (
            SELECT experiment, count(*) AS decisions,
                min(decided_at) AS first_at, max(decided_at) AS last_at
            FROM decisions WHERE variant IS NOT NULL GROUP BY experiment
        ) d ON d.experiment = e.key
        ORDER BY e.status <> 'running', e.key"""
    with open_database(data) as database:
        return [ListedExperiment(**row) for row in database.rows(query)]


def concluded_keys(database: AnalyticsDatabase) -> list[str]:
    """The experiments whose report was kept once."""
    if not has_table(database, "conclusions"):
        return []
    rows = database.rows("SELECT DISTINCT experiment FROM conclusions ORDER BY experiment")
    return [str(row["experiment"]) for row in rows]


def may_be_concluded(database: AnalyticsDatabase, key: str) -> bool:
    """Whether a conclusion was ever drawn from an experiment, by a command or in its file."""
    query = """FROM experiments
    WHERE key = $key AND (spec -> '$.conclusion') IS NOT NULL"""
    return key in concluded_keys(database) or bool(database.rows(query, key=key))


def experiment_row(database: AnalyticsDatabase, key: str) -> dict[str, Any]:
    """The experiment's row of table `experiments`.

    Raises:
        NotFound: the record has no such experiment; the message names those that it has.
    """
    rows = database.rows("SELECT * FROM experiments WHERE key = $key", key=key)
    if rows:
        return rows[0]
    keys = [row["key"] for row in database.rows("SELECT key FROM experiments ORDER BY key")]
    raise NotFound(
        f"no experiment {key!r} in the lake; expected one of: "
        f"{', '.join(keys) or 'none was published yet'}"
    )


def zone_of(database: AnalyticsDatabase, key: str) -> str:
    """The time zone whose days the experiment counts; UTC unless its file says otherwise."""
    content = msgspec.json.decode(experiment_row(database, key)["spec"])
    return str(content.get("time_zone", UTC))


def published_experiment(database: AnalyticsDatabase, key: str) -> Experiment:
    """The experiment as it was published.

    Raises:
        NotFound: the record has no such experiment.
        SpecError: this version of Topbill cannot read it.
    """
    row = experiment_row(database, key)
    return from_audit(row["spec"], f"{key} (as published)", row["revision"])


def load_experiment(data: Path | str, key: str) -> Experiment:
    """The same, from a data folder."""
    with open_database(data) as database:
        return published_experiment(database, key)


def published_us(database: AnalyticsDatabase) -> int:
    """When the worker last published, in µs since the epoch."""
    return int(
        database.row("SELECT epoch_us(published_at) AS published_us FROM published")["published_us"]
    )


def decisions_of(database: AnalyticsDatabase, key: str) -> int:
    """How many decisions the record has of an experiment."""
    # Counting is cheap: files answer it from their statistics.
    query = "SELECT count(*) AS decisions FROM decisions WHERE experiment = $key"
    return int(database.row(query, key=key)["decisions"])


_PRIME = 2_147_483_647
_SQUARED = f"(seq % {_PRIME}) * (seq % {_PRIME}) % {_PRIME}"
IN_SAMPLE = f"({_SQUARED} * 48271 + seq) % {_PRIME} % $one_in = 0"
"""SQL of whether a decision is in a sample of one in `$one_in`: even over time, and the same
decisions each time it is asked, on every engine. An engine's own `hash` would be another on each; a
square takes from numbers that follow one another whatever rhythm they have.
"""


def sampled_one_in(database: AnalyticsDatabase, key: str, most: int = SAMPLE) -> int:
    """Read one of so many of an experiment's decisions, by `IN_SAMPLE`, so that about `most` are
    read.
    """
    return max(1, -(-decisions_of(database, key) // most))
