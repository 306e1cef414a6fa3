"""Any Delta table as a DuckDB relation: the files of its newest version, no extension needed."""

from __future__ import annotations

from pathlib import Path

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from topbill.domain.errors import LogError
from topbill.domain.sql import quoted


def is_table(folder: Path) -> bool:
    """Whether a Delta table lies in the folder."""
    return (folder / "_delta_log").is_dir()


def files_of(table: DeltaTable, folder: Path) -> list[str]:
    """The paths of the Parquet files that make up the table in `folder`. Delta names them with the
    folder written as in a URL (a space is %20), which is no path."""
    root = table.table_uri.removeprefix("file://").rstrip("/")
    return sorted(
        str(folder) + uri.removeprefix("file://").removeprefix(root) for uri in table.file_uris()
    )


def delta_relation(folder: Path) -> str:
    """SQL that reads the table's newest version, what was deleted from it left out. Raises
    LogError.
    """
    try:
        files = files_of(DeltaTable(str(folder)), folder)
    except (OSError, DeltaError) as error:
        raise LogError(f"{folder}: cannot be opened: {error}; expected a Delta table") from error
    if not files:
        raise LogError(f"{folder}: holds no rows; expected a Delta table with a log")
    return f"read_parquet([{', '.join(map(quoted, files))}], hive_partitioning = true)"
