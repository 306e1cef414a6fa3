"""Files of a table that are missing, cut or damaged: found, and replaced by their rows, written
anew.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from topbill.domain.sql import identifier, quoted
from topbill.lake.database import connect
from topbill.lake.delta import TablePlace

_HEALED = "topbill.healed:"
"""Before a file's path, Delta's application id that says: its rows were written anew. In the same
commit as the rows, so that whoever dies between that and the removal heals nothing twice.
"""


_OF_FILES = {"path", "size_bytes", "num_records", "partition.experiment", "min.seq", "max.seq"}
"""What Delta says of a file that is of interest here."""


class BrokenFile(NamedTuple):
    """A file that a table names and that cannot be read whole."""

    path: str
    """Its absolute path, or its URL."""
    is_there: bool
    name: str
    """As the table calls it."""
    experiment: str | None
    rows: int
    first: int
    last: int
    """The smallest and the largest `seq` of its rows."""


def broken_files(
    table: DeltaTable, place: TablePlace, damaged: Collection[str] = ()
) -> list[BrokenFile]:
    """The files of the table's newest version that are missing or of another size than was written,
    and those of `damaged`.
    """
    table.update_incremental()
    sizes = place.files.sizes(place.name)
    broken = []
    actions = pa.table(table.get_add_actions(flatten=True))
    # Of dozens of columns, the smallest and largest values of everything.
    columns = [name for name in actions.column_names if name in _OF_FILES]
    for action in actions.select(columns).to_pylist():
        name = unquote(action["path"])
        path, size = f"{place.root}/{name}", sizes.get(f"{place.name}/{name}")
        if path in damaged or size != action["size_bytes"]:
            broken.append(
                BrokenFile(
                    path,
                    size is not None,
                    action["path"],
                    action.get("partition.experiment"),
                    action["num_records"] or 0,
                    action["min.seq"] or 0,
                    action["max.seq"] or 0,
                )
            )
    return broken


def is_healed(table: DeltaTable, file: BrokenFile) -> bool:
    """Whether the file's rows were written anew, so that it only has to go."""
    return table.transaction_version(_HEALED + file.name) is not None


def lost_rows(
    rows: pa.Table, broken: Collection[BrokenFile], sound: Collection[str], keys: Sequence[str]
) -> pa.Table:
    """Those of the log's rows that only the broken files held. Rows that repeat an id were in none
    (see `topbill.lake.distinct`).

    Args:
        rows: What the log has of the spans of the broken files, as the table's rows.
        broken: The broken files of one table.
        sound: The paths of the other files of the table.
        keys: The columns by which a row is known.
    """
    here = " OR ".join(
        f"(r.seq BETWEEN {file.first} AND {file.last}"
        + (f" AND r.experiment = {quoted(file.experiment)})" if file.experiment else ")")
        for file in broken
    )
    names = ", ".join(map(identifier, keys))
    there = f"SELECT seq, {names} FROM r WHERE false"  # noqa: S608 (own names)
    if sound:
        there = f"SELECT seq, {names} FROM read_parquet([{', '.join(map(quoted, sound))}])"  # noqa: S608
    with connect() as connection:
        connection.register("r", rows)
        query = f"""
            SELECT * FROM (SELECT * FROM r WHERE {here}) r
            WHERE NOT EXISTS (SELECT 1 FROM ({there}) t WHERE t.seq = r.seq)
                AND NOT EXISTS (FROM ({there}) t
                    WHERE {" AND ".join(f"t.{name} = r.{name}" for name in names.split(", "))})
            QUALIFY row_number() OVER (PARTITION BY {names} ORDER BY seq) = 1
            ORDER BY seq"""  # noqa: S608
        found: pa.Table = connection.sql(query).to_arrow_table()
    return found.cast(rows.schema)


def write_anew(table: DeltaTable, rows: pa.Table, broken: Collection[BrokenFile]) -> None:
    """Append the rows of broken files, and note with them that they are healed."""
    notes = [Transaction(_HEALED + file.name, 1) for file in broken]
    write_deltalake(
        table,
        rows,
        mode="append",
        commit_properties=CommitProperties(app_transactions=notes, max_commit_retries=3),
    )


def remove(table: DeltaTable, place: TablePlace, broken: Collection[BrokenFile]) -> None:
    """Take broken files, whose rows lie elsewhere, out of the table; what there is of them is kept
    beside it.
    """
    for file in broken:
        if file.is_there:
            path = f"{place.name}/{unquote(file.name)}"
            place.files.rename(path, f"{path}.damaged")
    table.repair()
