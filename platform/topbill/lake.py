"""The analytical record: Delta tables that the keeper appends to, and `topbill.duckdb`, the face that all read."""

from __future__ import annotations

from pathlib import Path

import duckdb

from topbill.errors import LogError, NotFound


def connect(
    path: Path | str | None = None, *, memory_limit: str = "4GB", threads: int | None = None
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection: in memory, or read-only on the database file at `path`. Times are UTC.

    Many processes may hold one file open at once, and a writer replaces the file rather than changing it.
    Raises NotFound when nothing was published yet, LogError when the file cannot be read.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit,
        "autoinstall_known_extensions": False,
    }
    if threads is not None:
        config["threads"] = threads
    if path is not None and not Path(path).exists():
        raise NotFound(f"{path}: no such lake; expected a file that `topbill keep` writes; start the keeper first")
    try:
        connection = duckdb.connect(str(path or ":memory:"), read_only=path is not None, config=config)
        connection.execute("SET TimeZone = 'UTC'")
    except duckdb.Error as error:
        raise LogError(f"{path}: cannot be opened: {error}") from error
    return connection
