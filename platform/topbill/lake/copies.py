"""What a copy of a Delta table consists of, and what of it is kept."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from topbill.domain.errors import LogError
from topbill.lake.database import connect
from topbill.lake.delta import delta_relation, is_table
from topbill.lake.tables import POSITION

_TIMES = {"decisions": "decided_at", "rewards": "received_at", "events": "received_at"}
"""By which column it is told when a row came."""


def files_through(folder: Path, seq: int) -> list[str]:
    """The files, relative to the table's folder, that make up its newest version whose rows are all
    of the log's up to `seq`: those that hold rows, and Delta's own.

    Raises LogError.
    """
    if not is_table(folder):
        return []
    try:
        table = DeltaTable(str(folder))
        while (table.transaction_version(POSITION) or 0) > seq:
            table.load_as_version(table.version() - 1)
        version = table.version()
        actions = pa.table(table.get_add_actions())
        rows = [unquote(path) for path in actions.column("path").to_pylist()]
    except (OSError, DeltaError) as error:
        raise LogError(f"{folder}: cannot be read: {error}") from error
    # Commits and checkpoints are named by their version; hints to newer ones are left out.
    names = sorted(os.listdir(folder / "_delta_log"))
    own = [f"_delta_log/{n}" for n in names if n[:20].isdigit() and int(n[:20]) <= version]
    return [*rows, *own]


def forget_after(folder: Path, at: int) -> None:
    """Delete the rows that came after `at` (µs since the epoch), with their files. Raises
    LogError.
    """
    if not is_table(folder):
        return
    time = _TIMES[folder.name]
    try:
        table = DeltaTable(str(folder))
        if not table.file_uris():
            return
        query = f"SELECT max(seq) FROM {delta_relation(folder)} WHERE epoch_us({time}) <= {at}"  # noqa: S608
        with connect() as connection:
            ((last,),) = connection.sql(query).fetchall()
        table.delete(f"seq > {last or 0}")
        table.vacuum(0, dry_run=False, enforce_retention_duration=False)
    except (OSError, DeltaError) as error:
        raise LogError(f"{folder}: cannot be cut: {error}") from error
