"""Single decisions read back from the lake, for what comes after the log has let them go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb

from topbill.domain.decision import DECISION_COLUMNS, decision_of, read_sql
from topbill.domain.errors import LogError
from topbill.domain.records import Decision
from topbill.lake.database import DATABASE, connect


def find_decisions(data: Path, places: Mapping[str, int]) -> dict[str, Decision]:
    """The decisions of the lake in a data folder that stand at these places (id → `seq`), by id.
    One that is not there is left out, and so is a place where another decision stands.

    Row groups with other rows are left out by their statistics of `seq`: one decision takes some
    0.1 s, a thousand of them 0.3 s, far from the event loop. Raises LogError where the lake can't
    be read.
    """
    path = data / DATABASE
    if not places or not path.exists():
        return {}
    # Numbers of our own, written out: so DuckDB knows them before it opens a file.
    seqs = ", ".join(str(int(seq)) for seq in places.values())
    query = f"SELECT {read_sql(DECISION_COLUMNS)} FROM decisions WHERE seq IN ({seqs})"  # noqa: S608
    connection = connect(path, threads=1)
    try:
        rows = connection.sql(query).to_arrow_table().to_pylist()
    except duckdb.Error as error:
        raise LogError(f"{path}: cannot be read: {error}; try again") from error
    finally:
        connection.close()
    found = {}
    for row in rows:
        if places.get(row["decision_id"]) == row["seq"]:
            found[row["decision_id"]] = decision_of(row)
    return found
