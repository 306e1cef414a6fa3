"""Single decisions read back from the lake, for what comes after the log has let them go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

from topbill.domain.decision import (
    DECISION_COLUMNS,
    REWARD_COLUMNS,
    decision_of,
    event_of,
    read_sql,
)
from topbill.domain.errors import LogError, NotFound
from topbill.domain.records import Decision, RewardEvent
from topbill.lake.causes import cause
from topbill.lake.database import Connection, connect
from topbill.lake.places import lake_place
from topbill.lake.published import database_of, is_published


def find_decisions(data: Path, places: Mapping[str, int]) -> dict[str, Decision]:
    """The decisions of the lake in a data folder that stand at these places (id → `seq`), by id.
    One that is not there is left out, and so is a place where another decision stands.

    Row groups with other rows are left out by their statistics of `seq`: one decision takes some
    0.1 s, a thousand of them 0.3 s, far from the event loop. Raises LogError where the lake can't
    be read: also where there is no analytics database, as after a restore or a migration until the
    worker has written one.
    """
    if not places:
        return {}
    path = lake_place(data).database
    try:
        with connect(database_of(data), threads=1) as connection:
            return read_decisions(connection, places)
    except NotFound as error:
        # What the log has let go is in the lake: to find nothing would say that it never was.
        raise LogError(f"{path}: is not there yet; the worker writes it, try again") from error
    except duckdb.Error as error:
        raise LogError(f"{path}: cannot be read: {cause(error)}; try again") from error


def named_versions(data: Path, versions: Sequence[str]) -> set[str]:
    """Those of the versions of tables of features that some decision of the lake names; all of
    them where there is no lake to ask."""
    if not is_published(data):
        return set(versions)
    connection = connect(database_of(data))
    query = (
        "SELECT DISTINCT e.version FROM decisions, unnest(entities) AS t(e) "
        "WHERE list_contains($versions, e.version)"
    )
    try:
        rows = connection.execute(query, {"versions": list(versions)}).fetchall()
    finally:
        connection.close()
    return {version for (version,) in rows}


def find_rewards(data: Path, decision: Decision) -> list[RewardEvent]:
    """The rewards of a decision that the lake in a data folder has, in the order in which they
    came. Takes as long, and raises what `find_decisions` does.
    """
    path = lake_place(data).database
    query = f"""SELECT {read_sql(REWARD_COLUMNS)} FROM rewards
        WHERE experiment = $experiment AND decided_at = make_timestamp($decided_at)
            AND decision_id = $decision_id ORDER BY seq"""  # noqa: S608 (own names)
    values = {
        "experiment": decision.experiment,
        "decided_at": decision.decided_at,
        "decision_id": decision.decision_id,
    }
    try:
        with connect(database_of(data), threads=1) as connection:
            rows = connection.sql(query, params=values).to_arrow_table().to_pylist()
    except NotFound as error:
        raise LogError(f"{path}: is not there yet; the worker writes it, try again") from error
    except duckdb.Error as error:
        raise LogError(f"{path}: cannot be read: {cause(error)}; try again") from error
    return [event_of(row) for row in rows]


def read_decisions(connection: Connection, places: Mapping[str, int]) -> dict[str, Decision]:
    """The same of the connection's view `decisions`. Raises what DuckDB does."""
    # Numbers of our own, written out: so DuckDB knows them before it opens a file.
    seqs = ", ".join(str(int(seq)) for seq in places.values())
    query = f"SELECT {read_sql(DECISION_COLUMNS)} FROM decisions WHERE seq IN ({seqs})"  # noqa: S608
    found = {}
    for row in connection.sql(query).to_arrow_table().to_pylist():
        if places.get(row["decision_id"]) == row["seq"]:
            found[row["decision_id"]] = decision_of(row)
    return found
