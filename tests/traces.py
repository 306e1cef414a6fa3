"""Looking for an id in every file of a data folder, after decoding what is encoded."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq

from topbill.log import LOG_FILE
from topbill.log.bundles import decisions_of


def traces_in_files(folder: Path, mark: str) -> Iterator[str]:
    """Every file that holds `mark`: in its bytes, or in a Parquet column."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if mark.encode() in path.read_bytes():
            yield f"{path.name}: bytes"
        if path.suffix == ".parquet" and mark in str(pq.read_table(path).to_pylist()):
            yield f"{path.name}: columns"


def traces(data: Path, mark: str) -> Iterator[str]:
    """Every place of a data folder that holds `mark`: a file, or a table of SQLite."""
    yield from traces_in_files(data, mark)
    with closing(sqlite3.connect(data / LOG_FILE)) as log:
        for (table,) in log.execute("SELECT name FROM sqlite_schema WHERE type = 'table'"):
            if mark in str(log.execute(f"SELECT * FROM {table}").fetchall()):  # noqa: S608
                yield f"{table}: rows"
        for (content,) in log.execute("SELECT content FROM bundles"):
            if mark in str(decisions_of(content)):
                yield "bundles: decisions"
