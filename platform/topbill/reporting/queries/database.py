"""Reading the face for dashboards: open it, ask, learn which version it shows, and what experiments
it knows.
"""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted`)

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from topbill.domain.errors import LogError, NotFound
from topbill.lake import DATABASE, Connection, Error, Problem, connect, quoted
from topbill.spec import Experiment, from_audit

SAMPLE = 200_000
"""Where a picture of what was shown would read more decisions than this, it reads an even sample of
about so many.
"""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One experiment of the lake, as a list shows it. Times are UTC."""

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


@contextmanager
def opened(data: Path | str) -> Iterator[Connection]:
    """The face of the data folder, for a few queries that see the same moment.

    Raises NotFound when nothing was published yet, LogError when a query fails.
    """
    face = Path(data) / DATABASE
    connection = connect(face)
    try:
        yield connection
    except Error as error:
        raise LogError(
            f"{face}: {error}; try again: the files may have been compacted meanwhile"
        ) from error
    finally:
        connection.close()


def rows(connection: Connection, query: str) -> list[dict[str, Any]]:
    """The answer as one dictionary a row."""
    relation = connection.sql(query)
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


def frame(connection: Connection, query: str) -> pd.DataFrame:
    """The answer as a pandas frame."""
    found: pd.DataFrame = connection.sql(query).df()
    return found


def version(data: Path | str, every: float = 10.0) -> str:
    """Names what the face shows: it changes with the lake, and at most every `every` seconds while
    that grows.

    Raises NotFound when nothing was published yet.
    """
    with opened(data) as connection:
        (found,) = rows(
            connection,
            "SELECT epoch_us(published_at) AS published_at, decisions_version d, rewards_version r FROM published",
        )
    return (
        f"{found['d']}.{found['r']}"
        if every <= 0
        else f"{int(found['published_at'] / 1e6 / every)}"
    )


def published_at(data: Path | str) -> datetime:
    """When the face was written, UTC."""
    with opened(data) as connection:
        moment: datetime = rows(connection, "SELECT published_at AS moment FROM published")[0][
            "moment"
        ]
    return moment


def problems(data: Path | str) -> list[Problem]:
    """Files that were not taken over and experiments that can't learn, when the face was
    written.
    """
    known = "SELECT 1 FROM duckdb_tables() WHERE table_name = 'problems'"  # a face of an earlier version has none
    with opened(data) as connection:
        found = rows(connection, "FROM problems") if rows(connection, known) else []
    return [Problem(**row) for row in found]


def listed(data: Path | str) -> list[Listed]:
    """Every experiment that the lake knows, running ones first, then by key."""
    query = (
        "SELECT e.key, e.title, e.owner, e.hypothesis, e.surface, e.status, e.unit, e.slots, e.revision, "
        "e.revised_at AS since, "
        "coalesce(d.decisions, 0) AS decisions, d.first_at, d.last_at FROM experiments e LEFT JOIN "
        "(SELECT experiment, count(*) AS decisions, min(decided_at) AS first_at, max(decided_at) AS last_at FROM decisions "
        "GROUP BY experiment) d ON d.experiment = e.key ORDER BY e.status <> 'running', e.key"
    )
    with opened(data) as connection:
        return [Listed(**row) for row in rows(connection, query)]


def experiment(connection: Connection, key: str) -> Experiment:
    """The experiment as it was published. Raises NotFound, and SpecError if this version cannot
    read it.
    """
    found = rows(connection, f"SELECT spec FROM experiments WHERE key = {quoted(key)}")
    if not found:
        raise NotFound(
            f"no experiment {key!r} in the lake; see the list of experiments for those that are there"
        )
    return from_audit(found[0]["spec"], f"{key} (as published)")


def load_experiment(data: Path | str, key: str) -> Experiment:
    """The same, from a data folder."""
    with opened(data) as connection:
        return experiment(connection, key)


def revisions(data: Path | str, key: str) -> pd.DataFrame:
    """The audit of an experiment, newest first: revision, revised_at, who, spec (JSON text)."""
    query = f"SELECT revision, revised_at, who, spec FROM revisions WHERE experiment = {quoted(key)} ORDER BY revised_at DESC"
    with opened(data) as connection:
        return frame(connection, query)


def every_nth(decisions: int, most: int = SAMPLE) -> int:
    """Read one decision in so many, so that about `most` are read."""
    return max(1, -(-decisions // most))


def count(connection: Connection, key: str) -> int:
    """How many decisions of an experiment the lake holds."""
    return int(
        rows(connection, f"SELECT count(*) AS n FROM decisions WHERE experiment = {quoted(key)}")[
            0
        ]["n"]
    )


def moment(connection: Connection) -> int:
    """When the face was written, in µs since the epoch."""
    return int(
        rows(connection, "SELECT epoch_us(published_at) AS published_at FROM published")[0][
            "published_at"
        ]
    )
