"""A catalogue's file as columns, each checked: a row with a value that can't be is set aside, and
is told with its column, what it got and what was expected.
"""

from __future__ import annotations

import codecs
import csv
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from topbill.catalog.pictures import Picture, PictureFields, Wrong, pictures_of
from topbill.domain.cells import values_of
from topbill.domain.errors import BadData, NotFound
from topbill.domain.records import Floats

REQUIRED = ("title", "year", "genres")
"""Columns that every catalogue has."""
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
"""Columns that a file may leave out: what they would say is unknown then."""
_T = TypeVar("_T")
_LISTS = ("genres", "regions")
# Characters of ids, as the API takes them.
_LONGEST_ID = 128
_LONGEST_PICTURE = 256
_LONGEST_NAME = 1_000
"""Characters of a title's name: it stands in every page that shows it."""
_LONGEST_WORD = 256
"""Characters of a genre, a region or a franchise."""
_YEARS = (1800, 2200)


def slug(text: str) -> str:
    """Text as part of an id: lower case, letters and digits with single dashes."""
    # Letters lose their accents: é is e and an accent of its own, which ASCII leaves out.
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    # A text of no Latin letter at all still needs a name.
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "x"


_RAGGED = b"topbill.ragged_rows"
"""Where a table says which rows of its file it has not."""
_TEXTS = ("id", "title", *_LISTS, "franchise", "pictures")
"""Columns of which a CSV file's numbers are texts: "007", "1984" and "2001|2010" are names."""
_VALUES = tuple(name for name in (*REQUIRED, *OPTIONAL) if name not in _TEXTS)
"""Columns of numbers and dates. What any other column of a CSV file holds, whoever declares it as a
feature says."""


def read(
    path: Path,
    table: str | None = None,
    *,
    what: str = "a catalogue",
    texts: Sequence[str] = _TEXTS,
    set_aside: bool = False,
) -> pa.Table:
    """The rows of a .csv or .parquet file, or of `table` of a DuckDB file.

    Args:
        path: The file.
        table: The table's name, where it is a DuckDB file.
        what: What it should hold, for errors.
        texts: Columns of which a CSV file's numbers are texts.
        set_aside: As catalogues are read: a CSV file's rows of too few or too many cells are left
            out, which `ragged_rows` then says, where the file can't be read because of them
            otherwise; and columns that no catalogue need have are texts too.

    Raises NotFound where there is no such file, BadData where it can't be read as one.
    """
    if not path.exists():
        raise NotFound(f"{path}: no such file; expected {what} as CSV, Parquet or DuckDB")
    try:
        if table is not None:
            rows = _read_database(path, table)
        elif path.suffix == ".parquet":
            # Not as a dataset, which has no column twice: that can be told better.
            is_file = path.is_file()
            rows = pa_parquet.ParquetFile(path).read() if is_file else pa_parquet.read_table(path)
        else:
            rows = _read_csv(path, texts, set_aside)
    except (pa.ArrowException, OSError, ValueError) as error:
        why = not_utf8(path) if path.suffix != ".parquet" and table is None else ""
        raise BadData(
            path.name,
            f"{why or error}; expected {what} as CSV, Parquet or a table of a DuckDB file",
        ) from error
    for name, times in Counter(rows.column_names).items():
        if times > 1:
            raise BadData(path.name, f"column {name!r} is there twice; expected each column once")
    return rows


def _read_csv(path: Path, texts: Sequence[str], set_aside: bool) -> pa.Table:
    ragged: dict[int, str] = {}
    # First, since a row that is told below must be text.
    if set_aside:
        if why := not_utf8(path):
            raise ValueError(why)
        texts = [*texts, *_other_columns(path)]

    def note(row: pa_csv.InvalidRow) -> str:
        # A quote that nobody closes takes all lines after it: no row can be told then.
        if not set_aside or row.number is None or "\n" in row.text:
            return "error"
        number = row.number - 1  # without the header
        cells = f"{row.actual_columns} cells ({row.text[:60]!r})"
        ragged[number] = f"row {number}: got {cells}; expected {row.expected_columns}"
        return "skip"

    rows = pa_csv.read_csv(
        path,
        # In several threads rows have no numbers.
        read_options=pa_csv.ReadOptions(use_threads=not set_aside),
        parse_options=pa_csv.ParseOptions(invalid_row_handler=note),
        convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(texts, pa.string())),
    )
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        if pa.types.is_binary(column.type):
            raise ValueError(f"column {name!r} is no text")
    last = rows.num_rows + len(ragged)
    if last in ragged and not _ends_with_a_line(path):
        # Somebody may be writing it: what is there of it must not take the last good one's place.
        raise ValueError(f"it is cut off: {ragged[last]}")
    if len(ragged) > rows.num_rows:
        # Then the header is wrong, or the file: what is left of it is no catalogue.
        reasons = "; ".join(list(ragged.values())[:3])
        raise ValueError(f"{len(ragged):,} of {rows.num_rows + len(ragged):,} rows: {reasons}")
    if ragged:
        rows = rows.replace_schema_metadata({_RAGGED: msgspec.json.encode(ragged)})
    return rows


def _other_columns(path: Path) -> list[str]:
    """The columns in a CSV file's first line beside those of `_VALUES`."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            names = next(csv.reader(file), [])
        except csv.Error:
            return []  # a quote that nobody closes, say: Arrow tells what is wrong
    return [name for name in names if name not in _VALUES]


def ragged_rows(table: pa.Table) -> dict[int, str]:
    """Rows of the file that `table` was read from, counted from 1, that it has not: what is wrong
    with each.
    """
    text = (table.schema.metadata or {}).get(_RAGGED, b"{}")
    return msgspec.json.decode(text, type=dict[int, str])


def _ends_with_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() in (b"\n", b"\r")


def not_utf8(path: Path) -> str:
    """What of a file is no UTF-8 text; "" where all is."""
    try:
        with path.open("rb") as file:
            if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                return "UTF-16 text; save it as UTF-8"
            file.seek(0)
            for number, line in enumerate(file):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    got = line[max(0, error.start - 20) : error.end + 20]
                    return f"line {number + 1}: {got!r} is no UTF-8; save the file as UTF-8"
    except OSError:
        pass
    return ""


def _read_database(path: Path, table: str) -> pa.Table:
    # Imported here, so that a service which reads files only does not load DuckDB.
    from topbill import lake

    connection = lake.connect()
    expected = "a DuckDB file"
    try:
        # Somebody's own database, and not ours: so it is attached here, without a look at whose
        # version it is. Names of files and tables can't be parameters; they are quoted.
        connection.execute(f"ATTACH {lake.quoted(str(path))} AS catalogue (READ_ONLY)")
        expected = f"a table {table}"
        query = f"SELECT * FROM catalogue.{lake.identifier(table)}"  # noqa: S608
        return connection.sql(query).to_arrow_table()
    except lake.Error as error:
        raise BadData(path.name, f"{error}; expected {expected}") from error
    finally:
        connection.close()


class CatalogColumns:
    """The columns of a table that is to become a catalogue.

    Attributes:
        set_aside: Row → why it can be no title: the first value of it that was wrong.
        without_pictures: Row → why its title has no pictures, once they were read.
        unread: Columns that mean nothing here.
        commas_in_genres: How many rows have a genre with a comma in it.
        row_numbers: The number of each row in the file, from 1.
    """

    def __init__(self, table: pa.Table, source: str) -> None:
        """Raises BadData where the table has no title, or not the columns that every catalogue
        has.
        """
        self._source, self._size = source, table.num_rows
        ragged = ragged_rows(table)
        # By its place after all others, as it is no row of the table.
        self.set_aside: dict[int, str] = {
            self._size + place: why for place, why in enumerate(ragged.values())
        }
        self.row_numbers = _numbers(self._size, sorted(ragged))
        self.without_pictures: dict[int, str] = {}
        self._picture_owner: dict[str, int] = {}
        """The row of the title whose each picture is."""
        self._columns: dict[str, list[Any]] = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            self._columns[name] = values_of(column)
        if not self._size:
            reasons = "; ".join([*self.set_aside.values()][:3])
            raise BadData(source, reasons or "no title; expected at least one row")
        read = ("id", *REQUIRED, *OPTIONAL)
        self.unread = tuple(name for name in self._columns if name not in read)
        missing = [name for name in REQUIRED if name not in self._columns]
        if missing:
            found = ", ".join(repr(name[:60]) for name in list(self._columns)[:30])
            raise BadData(
                source,
                f"no column {', '.join(missing)} among {found}; "
                f"expected title, year, genres and, if any, {', '.join(OPTIONAL)}"
                + _separated_otherwise(list(self._columns)),
            )
        self.titles = self.text("title")
        for row, title in enumerate(self.titles):
            if not 1 <= len(title) <= _LONGEST_NAME:
                self._set_aside("title", row, f"a name of 1 to {_LONGEST_NAME:,} characters")
        self.years = self.numbers("year", *_YEARS)
        for row in np.flatnonzero(np.isnan(self.years)).tolist():
            self._set_aside("year", row, _between(*_YEARS))
        self.ids = self._ids()
        self.genres: list[tuple[str, ...]] = []
        self.commas_in_genres = 0
        for words in self._words("genres"):
            self.commas_in_genres += any("," in word for word in words)
            # "Sci-Fi" and "sci fi" are one genre: what differs in spelling only is merged.
            self.genres.append(_once(slug(word) for word in words))

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def _set_aside(self, name: str, row: int, expected: str) -> None:
        """Note what is wrong at a row, counted from 1 as people count lines of data."""
        got = repr(self._columns[name][row])[:80] if name in self._columns else "nothing"
        self.set_aside.setdefault(
            row, f"row {self.row_numbers[row]}: {name}: got {got}; expected {expected}"
        )

    def refuse_if_empty(self) -> None:
        """Raise BadData where no row is a title."""
        if all(row in self.set_aside for row in range(self._size)):
            reasons = "; ".join(list(self.set_aside.values())[:3])
            raise BadData(self._source, f"no row is a title: {reasons}")

    def _ids(self) -> list[str]:
        """Each title's id: the file's, or made of its name and year. Rows that share one are all
        set aside, for nobody can tell which of them is right.
        """
        if "id" in self._columns:
            ids = self.text("id")
        else:
            ids = []
            for title, year in zip(self.titles, self.years, strict=True):
                ids.append(f"{slug(title)[:100]}-{'' if np.isnan(year) else int(year)}")
        times = Counter(name for row, name in enumerate(ids) if row not in self.set_aside)
        for row, name in enumerate(ids):
            if not 1 <= len(name) <= _LONGEST_ID:
                self._set_aside("id", row, f"1 to {_LONGEST_ID} characters")
            elif times[name] > 1:
                expected = f"an id of its own: {name!r} is there {times[name]} times"
                self._set_aside("id", row, expected)
        return ids

    def text(self, name: str) -> list[str]:
        """Texts; an empty cell is the empty text."""
        texts: list[str] = []
        for row, value in enumerate(self._columns[name]):
            if _is_nested(value):
                self._set_aside(name, row, "a text")
            texts.append("" if value is None else str(value))
        return texts

    def numbers(
        self, name: str, least: float, most: float, otherwise: Callable[[int], float] | None = None
    ) -> Floats:
        """Numbers from `least` to `most`, NaN for an empty cell. Where the file has no such column:
        those of `otherwise`, NaN without it.
        """
        if name not in self._columns:
            return self._all(otherwise, np.nan)
        numbers = np.full(self._size, np.nan)
        for row, value in enumerate(self._columns[name]):
            if _is_empty(value):
                continue
            number = _number(value)
            # NaN compares as false, so it is wrong too.
            if number is None or not least <= number <= most:
                self._set_aside(name, row, _between(least, most))
            else:
                numbers[row] = number
        return numbers

    def words(
        self, name: str, otherwise: Callable[[int], tuple[str, ...]] | None = None
    ) -> Sequence[tuple[str, ...]]:
        """Lists of words. Where the file has no such column: those of `otherwise`, none without
        it.
        """
        if name not in self._columns:
            return self._lists(otherwise)
        return self._words(name)

    def _words(self, name: str) -> list[tuple[str, ...]]:
        """Texts separated by bars, or a column of lists, each word once."""
        rows: list[tuple[str, ...]] = []
        for row, value in enumerate(self._columns[name]):
            cells = value if isinstance(value, list) else [value]
            words: list[str] = []
            if any(map(_is_nested, cells)):
                self._set_aside(name, row, "texts separated by bars, or a list of texts")
            elif isinstance(value, list):
                words = ["" if word is None else str(word) for word in value]
            elif value is not None:
                words = str(value).split("|")
            if any(len(word) > _LONGEST_WORD for word in words):
                self._set_aside(name, row, f"words of at most {_LONGEST_WORD} characters")
            # Two bars in a row, or an empty text, hold no word.
            rows.append(_once(word for word in words if word))
        return rows

    def times(self, name: str, otherwise: Callable[[int], float] | None = None) -> Floats:
        """Seconds since the epoch of dates or timestamps; an empty `available_until` is never, any
        other empty time is always. Where the file has no such column: those of `otherwise`, empty
        without it.
        """
        empty = np.inf if name == "available_until" else 0.0
        if name not in self._columns:
            return self._all(otherwise, empty)
        times = np.full(self._size, empty)
        for row, value in enumerate(self._columns[name]):
            if _is_empty(value):
                continue
            seconds = _seconds(value)
            if seconds is None:
                self._set_aside(name, row, "a date such as 2026-05-01")
            else:
                times[row] = seconds
        return times

    def _all(self, otherwise: Callable[[int], float] | None, empty: float) -> Floats:
        if otherwise is None:
            return np.full(self._size, empty)
        return np.array(list(map(otherwise, range(self._size))), dtype=np.float64)

    def _lists(self, otherwise: Callable[[int], tuple[_T, ...]] | None) -> list[tuple[_T, ...]]:
        if otherwise is None:
            return [()] * self._size
        return list(map(otherwise, range(self._size)))

    def pictures(
        self, otherwise: Callable[[int], tuple[Picture, ...]] | None = None
    ) -> Sequence[tuple[Picture, ...]]:
        """Each title's artworks, as its row names them; none where they can't be what they should,
        which `without_pictures` says. Where the file has no such column: those of `otherwise`,
        none without it.
        """
        if "pictures" not in self._columns:
            return self._lists(otherwise)
        rows: list[tuple[Picture, ...]] = []
        for row, cell in enumerate(self._columns["pictures"]):
            try:
                rows.append(self._own_pictures(row, cell))
            except Wrong as wrong:
                rows.append(self._without_pictures(row, wrong))
        fields = PictureFields(rows)
        for row, pictures in enumerate(rows):
            try:
                fields.check(pictures)
            except Wrong as wrong:
                rows[row] = self._without_pictures(row, wrong)
        return rows

    def _without_pictures(self, row: int, wrong: Wrong) -> tuple[Picture, ...]:
        self.without_pictures[row] = f"row {self.row_numbers[row]}, {self.ids[row][:80]!r}: {wrong}"
        return ()

    def _own_pictures(self, row: int, cell: Any) -> tuple[Picture, ...]:
        """A row's pictures. Raises Wrong."""
        pictures = pictures_of(self.ids[row], cell)
        for number, picture in enumerate(pictures):
            # An id is the title's and the artwork's name together, and two of them can be alike:
            # title "a" with "b/c" and title "a/b" with "c". Rewards could not tell whose was
            # played.
            is_own = self._picture_owner.setdefault(picture.id, row) == row
            if len(picture.id) > _LONGEST_PICTURE or not is_own:
                expected = f"a name with which {picture.id[:80]!r} is short and its own"
                raise Wrong(f"[{number}]", picture.payload["image"], expected)
        return tuple(pictures)


def _is_nested(value: Any) -> bool:
    """Whether it is no text, and none that a number or a date would be: a struct, say, or bytes."""
    return isinstance(value, list | tuple | dict | bytes)


def _numbers(size: int, ragged: Sequence[int]) -> list[int]:
    """The number in the file, from 1, of each row of a table that was read without some."""
    left_out = set(ragged)
    numbers = range(1, size + len(ragged) + 1)
    return [number for number in numbers if number not in left_out]


def _separated_otherwise(names: Sequence[str]) -> str:
    """A hint where a header has not come apart at its commas."""
    marks = [mark for mark in (";", "\t", "|") if len(names) == 1 and mark in names[0]]
    return f"; cells are separated by commas, and not by {marks[0]!r}" if marks else ""


def _between(least: float, most: float) -> str:
    return f"a number from {least:g} to {most:g}"


def _is_empty(value: Any) -> bool:
    return value is None or value == ""


def _number(value: Any) -> float | None:
    """A number, or a text that is one; None for anything else. One odd cell makes a whole column of
    a CSV file text.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _once(words: Iterable[str]) -> tuple[str, ...]:
    """Each word once, in the order in which they were met."""
    return tuple(dict.fromkeys(words))


def _seconds(value: Any) -> float | None:
    """Seconds since the epoch of a date or a timestamp, as such or as text, in UTC where no zone is
    said; None for anything else.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    # A timestamp is a date too, as Python sees it: so it is asked for first.
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC).timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    return None
