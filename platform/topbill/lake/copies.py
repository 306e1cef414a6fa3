"""What a copy of a Delta table consists of, and what of it is kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
from deltalake.exceptions import DeltaError

from topbill.domain.errors import BadRequest, LogError
from topbill.domain.lake_url import LAKE_VARIABLE
from topbill.lake.causes import cause
from topbill.lake.database import connect
from topbill.lake.delta import TablePlace, relation_of, table_of
from topbill.lake.files import LocalFiles, objects_below
from topbill.lake.places import LAKE, lake_place
from topbill.lake.tables import POSITION

_TIMES = {"decisions": "decided_at", "rewards": "received_at", "events": "received_at"}
"""By which column it is told when a row came."""


def table_in(data: Path, name: str) -> TablePlace:
    """The table of a data folder's lake, wherever that lies. Raises LogError."""
    return table_of(lake_place(data), name)


def files_through(place: TablePlace, seq: int) -> dict[str, int]:
    """The files that make up a table's newest version whose rows are all of the log's up to `seq`:
    those that hold rows, and Delta's own; their paths below the lake, and their bytes.

    Raises LogError.
    """
    if not place.is_there():
        return {}
    try:
        table = place.open()
        while (table.transaction_version(POSITION) or 0) > seq:
            table.load_as_version(table.version() - 1)
        version = table.version()
        actions = pa.table(table.get_add_actions())
        rows = [unquote(path) for path in actions.column("path").to_pylist()]
        sizes = actions.column("size_bytes").to_pylist()
    except (OSError, DeltaError) as error:
        raise LogError(f"{place.root}: cannot be read: {cause(error)}") from error
    files = {f"{place.name}/{path}": int(size) for path, size in zip(rows, sizes, strict=True)}
    # Commits and checkpoints are named by their version; hints to newer ones are left out.
    for path, size in sorted(place.files.sizes(f"{place.name}/_delta_log").items()):
        number = path.rpartition("/")[2][:20]
        if number.isdigit() and int(number) <= version:
            files[path] = size
    return files


def refuse_filled(data: Path) -> None:
    """Raises BadRequest where a lake at a URL is to be restored, and something lies there."""
    place = lake_place(data)
    if place.is_store and objects_below(place).sizes(""):
        raise BadRequest(
            LAKE_VARIABLE, f"{place.root} is not empty; expected a new prefix to restore into"
        )


def put_in_place(draft: Path, data: Path) -> None:
    """Have what a restored folder holds of the lake lie where that of the data folder is: at the
    URL, if there is one. Raises LogError.
    """
    place = lake_place(data)
    if not place.is_store:
        return
    objects, here = objects_below(place), LocalFiles(str(draft / LAKE))
    # What holds rows first: killed in between, no table names what is not there.
    for path in sorted(here.sizes(""), key=lambda path: ("/_delta_log/" in path, path)):
        objects.write(path, here.read(path))
    shutil.rmtree(draft / LAKE, ignore_errors=True)


def forget_after(draft: Path, name: str, at: int) -> None:
    """Delete the rows of a table of a restored folder that came after `at` (µs since the epoch),
    with their files. Raises LogError.
    """
    folder = draft / LAKE / name
    place = TablePlace(name, LocalFiles(str(folder.parent)))
    if not place.is_there():
        return
    time = _TIMES[name]
    try:
        table, relation = place.open(), relation_of(place)
        if relation is None:
            return
        query = f"SELECT max(seq) FROM {relation} WHERE epoch_us({time}) <= {at}"  # noqa: S608
        with connect() as connection:
            ((last,),) = connection.sql(query).fetchall()
        table.delete(f"seq > {last or 0}")
        table.vacuum(0, dry_run=False, enforce_retention_duration=False)
    except (OSError, DeltaError) as error:
        raise LogError(f"{folder}: cannot be cut: {cause(error)}") from error
