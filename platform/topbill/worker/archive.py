"""What the log has let go, read back from the lake as it was, so that a fold can begin at the
beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from topbill import lake
from topbill.domain.decision import (
    DECISION_COLUMNS,
    decision_of,
    event_of,
    events_sql,
    read_sql,
)
from topbill.domain.errors import NotFound
from topbill.log import Matured

BATCH = 5_000


def _query() -> str:
    """What is read of the lake, as the columns are registered now."""
    # The conditions are those of the log's own `matured`, word for word: by the time of receipt,
    # not of the event, so that a decision comes back with the very events that were learned from.
    return f"""
WITH part AS (
    SELECT * FROM decisions d
    WHERE experiment = $key AND seq > $after AND seq <= $through
        AND epoch_us(d.decided_at) <= $reached - $age
    ORDER BY seq LIMIT $batch),
came AS (
    SELECT r.decision_id, {events_sql("r")} AS events
    FROM rewards r JOIN part d ON d.decision_id = r.decision_id
    WHERE r.experiment = $key AND epoch_us(r.received_at) <= epoch_us(d.decided_at) + $age
    GROUP BY r.decision_id)
SELECT {read_sql(DECISION_COLUMNS, "part")}, came.events
FROM part LEFT JOIN came ON came.decision_id = part.decision_id ORDER BY part.seq
"""  # noqa: S608  (our own text)


def reader(data: Path) -> Callable[[str, int, int, int, int], list[Matured]]:
    """A function (experiment, after seq, through seq, age µs, reached by µs) → the next matured
    decisions of the lake.

    Raises NotFound when there is no lake.
    """

    def read(key: str, after: int, through: int, age: int, reached: int) -> list[Matured]:
        database = data / lake.DATABASE
        if not database.exists():
            raise NotFound(
                f"{database}: the log has let decisions go and there is no lake to read them from"
            )
        connection = lake.connect(database)
        try:
            values = {
                "key": key,
                "after": after,
                "through": through,
                "age": age,
                "reached": reached,
                "batch": BATCH,
            }
            rows = connection.sql(_query(), params=values).to_arrow_table().to_pylist()
        finally:
            connection.close()
        return [_matured(row) for row in rows]

    return read


def _matured(row: dict[str, Any]) -> Matured:
    events = [event_of(event) for event in row["events"] or ()]
    return Matured(row["seq"], decision_of(row), events)
