"""Matured decisions from the beginning on: from the log, and what it has let go from the lake, read
back as it was, so that a fold can begin at the beginning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from topbill import lake
from topbill.domain.decision import (
    DECISION_COLUMNS,
    decision_of,
    event_of,
    events_sql,
    read_sql,
)
from topbill.domain.errors import LogError, NotFound
from topbill.lake.causes import cause
from topbill.log import Log, Matured
from topbill.log.log_time import ClockStep, offset_sql

BATCH = 5_000
ATTEMPTS, PAUSE = 4, 1.0
"""How often the lake is asked, with so many seconds between: a publication takes two."""


def _query(steps: Sequence[ClockStep]) -> str:
    """What is read of the lake, as the columns are registered now, in log time."""
    decisions, rewards = "decisions", "rewards"
    if steps:
        decisions = _in_log_time(decisions, steps, "decisions", ("decided_at",))
        rewards = _in_log_time(rewards, steps, "events", ("received_at", "occurred_at"))
    # The conditions are those of the log's own `matured`, word for word: by the time of receipt,
    # not of the event, so that a decision comes back with the very events that were learned from.
    return f"""
WITH part AS (
    SELECT * FROM {decisions} d
    WHERE experiment = $key AND seq > $after AND seq <= $through
        AND epoch_us(d.decided_at) <= $reached - $age
    ORDER BY seq LIMIT $batch),
came AS (
    SELECT r.decision_id, {events_sql("r")} AS events
    FROM {rewards} r JOIN part d ON d.decision_id = r.decision_id
    WHERE r.experiment = $key AND epoch_us(r.received_at) <= epoch_us(d.decided_at) + $age
    GROUP BY r.decision_id)
SELECT {read_sql(DECISION_COLUMNS, "part")}, came.events
FROM part LEFT JOIN came ON came.decision_id = part.decision_id ORDER BY part.seq
"""  # noqa: S608  (our own text)


def _in_log_time(view: str, steps: Sequence[ClockStep], kind: str, columns: Sequence[str]) -> str:
    """A view whose times are those of the log, as `Log.matured` has them."""
    offset = offset_sql(steps, "seq", kind)
    replaced = [f"make_timestamp(epoch_us({name}) + {offset}) AS {name}" for name in columns]
    return f"(SELECT * REPLACE ({', '.join(replaced)}) FROM {view})"  # noqa: S608  (our own text)


class Span(NamedTuple):
    """What is read: an experiment's decisions with `after` < seq ≤ `through` that had reached an
    `age` (µs) by a time `reached` (µs since the epoch)."""

    experiment: str
    after: int
    through: int
    age: int
    reached: int


Archive = Callable[[Span, Sequence[ClockStep]], list[Matured]]
"""Gives what the log has let go: (span, where the clock was set) → the next matured decisions."""


def next_rows(log: Log, archive: Archive, span: Span, limit: int) -> list[Matured]:
    """The next rows of a span, some `limit` at most; empty where there are no more.

    The log lets go from its beginning, so that what is missing there is one range of `seq` before
    what it still holds, and the lake has that range.
    """
    key, after, through, age, reached = span
    while after < through:
        first = log.first_seq()
        gone = through if first is None else min(first - 1, through)
        if after < gone:
            rows = archive(Span(key, after, gone, age, reached), log.clock_steps())
            if rows:
                return rows
        rows = log.matured(key, after, age, reached, limit)
        # A worker beside this one may let go of decisions between the two questions. They would be
        # missing from `rows` without a trace, so both are put again.
        if log.first_seq() == first:
            return [row for row in rows if row.seq <= through]
    return []


def reader(data: Path) -> Archive:
    """Reads the lake of a data folder. Raises NotFound when there is none, LogError when it cannot
    be read.
    """

    def read(span: Span, steps: Sequence[ClockStep]) -> list[Matured]:
        if not lake.is_published(data):
            raise NotFound(
                f"{lake.lake_place(data).database}: the log has let decisions go and there is no "
                "lake to read them from"
            )
        values: dict[str, object] = {
            "key": span.experiment,
            "after": span.after,
            "through": span.through,
            "age": span.age,
            "reached": span.reached,
            "batch": BATCH,
        }
        return [_matured(row) for row in _asked(data, _query(steps), values)]

    return read


def _asked(
    data: Path, query: str, values: dict[str, object], left: int = ATTEMPTS
) -> list[dict[str, Any]]:
    """What the lake answers; asked again where files were merged into others meanwhile, which the
    next publication knows of. Raises LogError.
    """
    database = lake.database_of(data)
    connection = lake.connect(database)
    try:
        rows: list[dict[str, Any]] = (
            connection.sql(query, params=values).to_arrow_table().to_pylist()
        )
        return rows
    except lake.Error as error:
        if left == 1:
            raise LogError(
                f"{database}: cannot be read: {cause(error)}; run it again with the worker at "
                "work, and `topbill verify --files` where it stays so"
            ) from error
    finally:
        connection.close()
    time.sleep(PAUSE)
    return _asked(data, query, values, left - 1)


def _matured(row: dict[str, Any]) -> Matured:
    events = [event_of(event) for event in row["events"] or ()]
    return Matured(row["seq"], decision_of(row), events)
