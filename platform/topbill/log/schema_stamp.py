"""The schema version of the embedded log: SQLite's own `user_version`, 0 in a log of 0.1.0."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from topbill.domain.errors import LogError
from topbill.domain.schema_version import SCHEMA_VERSION


def version(path: Path) -> int | None:
    """The stamp of a log; None where there is no log. Raises LogError where it can't be read."""
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(path, timeout=30.0)) as connection:
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            return _read(connection) if tables else None
    except sqlite3.Error as error:
        raise LogError(f"{path}: cannot be read: {error}; expected a SQLite file") from error


def stamp(path: Path, number: int) -> None:
    """Set the stamp: one page, in one transaction. Readers and writers may be at work."""
    try:
        with closing(sqlite3.connect(path, timeout=30.0)) as connection:
            connection.execute(f"PRAGMA user_version = {int(number)}")
    except sqlite3.Error as error:
        raise LogError(f"{path}: cannot be stamped: {error}; expected a SQLite file") from error


def check_or_stamp(connection: sqlite3.Connection, path: Path) -> None:
    """Stamp a log that has no tables yet. Raises LogError for one of a newer version.

    A log of 0.1.0 is left as it is: its rows are the same, and its stamp says that the folder's
    lake has not been migrated.
    """
    number = _read(connection)
    if number > SCHEMA_VERSION:
        raise LogError(
            f"{path}: is of schema version {number}; expected at most {SCHEMA_VERSION}: "
            "a newer Topbill wrote it, install that one"
        )
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not tables:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _read(connection: sqlite3.Connection) -> int:
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    return int(number)
