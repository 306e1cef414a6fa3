"""A catalogue's file as columns, each checked: an error names the column, the row, what it got and
what it expected.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from topbill.catalog import made_up
from topbill.catalog.made_up import Picture
from topbill.domain.errors import BadData, LogError, NotFound
from topbill.domain.records import Floats

OPTIONAL = (
    "franchise",
    "maturity",
    "regions",
    "available_from",
    "available_until",
    "added",
    "popularity",
    "pictures",
)
"""Columns that are made up where the file has none."""
_LISTS = ("genres", "regions", "pictures")
_LONGEST_ID = 128
_LONGEST_PICTURE = 256


def slug(text: str) -> str:
    """Text as part of an id: lower case, letters and digits with single dashes."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "x"


def read(path: Path, table: str | None = None) -> pa.Table:
    """The rows of a .csv or .parquet file, or of `table` of a DuckDB file.

    Raises NotFound where there is no such file, BadData where it can't be read as one.
    """
    if not path.exists():
        raise NotFound(f"{path}: no such file; expected a catalogue as CSV, Parquet or DuckDB")
    try:
        return _read(path, table)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadData(
            path.name, f"{error}; expected a catalogue as CSV, Parquet or a table of a DuckDB file"
        ) from error


def _read(path: Path, table: str | None) -> pa.Table:
    if table is not None:
        from topbill import (
            lake,  # here, so that a service which reads files only does not load DuckDB
        )

        try:
            connection = lake.connect(path)
        except LogError as error:
            raise BadData(path.name, f"{error}; expected a DuckDB file") from error
        try:
            return connection.sql(f"SELECT * FROM {lake.identifier(table)}").to_arrow_table()  # noqa: S608 (quoted)
        except lake.Error as error:
            raise BadData(path.name, f"{error}; expected a table {table}") from error
        finally:
            connection.close()
    if path.suffix == ".parquet":
        return pa_parquet.read_table(path)
    as_text = {name: pa.string() for name in ("id", "title", *_LISTS, "franchise")}
    return pa_csv.read_csv(path, convert_options=pa_csv.ConvertOptions(column_types=as_text))


class Columns:
    """The columns of a table that is to become a catalogue; each reader says which row is wrong."""

    def __init__(self, table: pa.Table, source: str) -> None:
        """Raises BadData where the table has no title, or not the columns that every catalogue
        has.
        """
        self._source, self._size = source, table.num_rows
        try:
            self._columns: dict[str, list[Any]] = table.to_pydict()
        except (pa.ArrowException, ValueError, OverflowError) as error:
            raise BadData(source, f"{error}; expected texts, numbers and dates") from error
        if not self._size:
            raise BadData(source, "no title; expected at least one row")
        if missing := [name for name in ("title", "year", "genres") if name not in self._columns]:
            optional = ", ".join(OPTIONAL)
            raise BadData(
                source,
                f"no column {', '.join(missing)}; expected title, year, genres and, if any, {optional}",
            )
        self.titles = self.text("title")
        self.years = self.numbers("year", 1800, 2200)
        self.ids = self._ids()
        self.genres = [tuple(dict.fromkeys(map(slug, words))) for words in self._words("genres")]

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def _wrong(self, name: str, row: int, expected: str) -> BadData:
        got = repr(self._columns[name][row])[:80] if name in self._columns else "nothing"
        return BadData(f"{self._source}: row {row + 1}: {name}", f"got {got}; expected {expected}")

    def _ids(self) -> list[str]:
        if "id" in self._columns:
            ids = self.text("id")
        else:
            ids = [
                f"{slug(t)[:100]}-{int(y)}" for t, y in zip(self.titles, self.years, strict=True)
            ]
        for row, name in enumerate(ids):
            if not 1 <= len(name) <= _LONGEST_ID:
                raise self._wrong("id", row, f"1 to {_LONGEST_ID} characters")
        seen = Counter(ids)
        if len(seen) < len(ids):
            twice = next(i for i in ids if seen[i] > 1)
            raise BadData(
                self._source, f"id {twice!r} is there {seen[twice]} times; expected each id once"
            )
        return ids

    def text(self, name: str) -> list[str]:
        return ["" if value is None else str(value) for value in self._columns[name]]

    def numbers(
        self, name: str, least: float, most: float, otherwise: Callable[[int], float] | None = None
    ) -> Floats:
        """Numbers from `least` to `most`; those of `otherwise` where the file has no such
        column.
        """
        if name not in self._columns and otherwise is not None:
            return np.array([otherwise(i) for i in range(self._size)], dtype=np.float64)
        found = np.empty(self._size)
        for row, value in enumerate(self._columns[name]):
            if not isinstance(value, int | float | Decimal) or not least <= value <= most:
                raise self._wrong(name, row, f"a number from {least:g} to {most:g}")
            found[row] = value
        return found

    def words(
        self, name: str, otherwise: Callable[[int], tuple[str, ...]]
    ) -> list[tuple[str, ...]]:
        """Lists of words; those of `otherwise` where the file has no such column."""
        if name not in self._columns:
            return [otherwise(i) for i in range(self._size)]
        return self._words(name)

    def _words(self, name: str) -> list[tuple[str, ...]]:
        """Texts separated by bars, or a column of lists, each word once."""
        found = []
        for value in self._columns[name]:
            words = (
                value if isinstance(value, list) else [] if value is None else str(value).split("|")
            )
            found.append(tuple(dict.fromkeys(str(word) for word in words if word)))
        return found

    def times(self, name: str, otherwise: Callable[[int], float]) -> Floats:
        """Seconds since the epoch of dates or timestamps; an empty `available_until` is never."""
        if name not in self._columns:
            return np.array([otherwise(i) for i in range(self._size)], dtype=np.float64)
        found = np.empty(self._size)
        for row, value in enumerate(self._columns[name]):
            if value is None:
                found[row] = np.inf if name == "available_until" else 0.0
            elif isinstance(value, datetime):
                found[row] = value.replace(tzinfo=value.tzinfo or UTC).timestamp()
            elif isinstance(value, date):
                found[row] = datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
            else:
                raise self._wrong(name, row, "a date such as 2026-05-01")
        return found

    def pictures(self) -> list[tuple[Picture, ...]]:
        """Each title's: the artworks named in its row, or made-up ones where the file names
        none.
        """
        if "pictures" not in self._columns:
            return [
                made_up.pictures(title, genres)
                for title, genres in zip(self.ids, self.genres, strict=True)
            ]
        found = [
            tuple(Picture(f"{title}/{name}", {}, {"image": name}) for name in names)
            for title, names in zip(self.ids, self._words("pictures"), strict=True)
        ]
        owner: dict[str, int] = {}
        for row, pictures in enumerate(found):
            for picture in pictures:
                if len(picture.id) > _LONGEST_PICTURE or owner.setdefault(picture.id, row) != row:
                    raise self._wrong(
                        "pictures",
                        row,
                        f"names with which {picture.id[:80]!r} is short and its own",
                    )
        return found
