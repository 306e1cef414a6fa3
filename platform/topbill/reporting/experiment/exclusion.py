"""Who does not count, seen from today's file: units that `exclude:` leaves out, also those that
were assigned to a variant before it was written.

What a unit is (a bot, staff) it was before the experiment touched it. So it is judged by its first
exposure, and left out with all its decisions: nothing of that can be an effect of a variant.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from topbill.domain.exclusion import Exclusion
from topbill.domain.sql import identifier, quoted
from topbill.reporting.queries.database import (
    AnalyticsDatabase,
    experiment_row,
    open_database,
)

_EXCLUDED = "report_excluded"


class Counted(NamedTuple):
    """SQL of the decisions and the rewards that questions are about, in which every value is
    quoted; None where they are the record's."""

    decisions: str | None = None
    rewards: str | None = None

    def make_views(self, database: AnalyticsDatabase) -> None:
        """Hide the record's by views of the connection's own."""
        for name, query in zip(self._fields, self, strict=True):
            if query is not None:
                database.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {query}")


def exclusion_of(spec: str) -> Exclusion:
    """What a file, as JSON text of the record, says under `exclude`."""
    return Exclusion.of(msgspec.json.decode(spec).get("exclude") or {})


def counted_decisions(database: AnalyticsDatabase, key: str, spec: str) -> Counted | None:
    """The record's decisions, in which those of units that the file (`spec`, JSON text)
    leaves out have no variant, and say why; None where it leaves out nobody.

    Makes temporary table `report_excluded`, a row per unit with its `why`.
    """
    exclusion = exclusion_of(spec)
    if not exclusion:
        return None
    why = exclusion.reason_sql("unit", "context")
    database.execute(
        f"""CREATE OR REPLACE TEMP TABLE {_EXCLUDED} AS
        SELECT unit, why FROM (
            SELECT unit, {why} AS why FROM (
                SELECT unit, arg_min(context, seq) AS context FROM decisions
                WHERE experiment = $key AND variant IS NOT NULL GROUP BY unit
            )
        ) WHERE why IS NOT NULL""",  # noqa: S608  (values through `quoted` and `number`)
        key=key,
    )
    home = identifier(str(database.row("SELECT current_database() AS name")["name"]))
    return Counted(
        f"""SELECT d.* REPLACE (
            CASE WHEN x.why IS NULL THEN d.variant END AS variant,
            CASE WHEN d.variant IS NULL THEN d.reason ELSE coalesce(x.why, d.reason) END AS reason
        )
        FROM {home}.main.decisions d
            LEFT JOIN {_EXCLUDED} x ON d.experiment = {quoted(key)} AND x.unit = d.unit"""  # noqa: S608  (quoted)
    )


@contextmanager
def open_counted(data: Path | str, key: str) -> Iterator[AnalyticsDatabase]:
    """The analytics database, whose view `decisions` says of units that the experiment's file
    leaves out now that they are in no variant: what pages show is of the report's units.

    Raises:
        NotFound: nothing was published yet, or there is no such experiment.
        LogError: a query fails.
    """
    with open_database(data) as database:
        counted = counted_decisions(database, key, experiment_row(database, key)["spec"])
        if counted is not None:
            counted.make_views(database)
        yield database
