"""Events of units in a table of somebody else's, CSV or Parquet: read batch by batch, checked
column by column, and what cannot be an event named by row and column.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from topbill.domain.cells import values_of
from topbill.domain.errors import BadData
from topbill.domain.suggestion import nearest
from topbill.spec.fields import NAME, listed

REQUIRED = ("unit", "event", "action", "value", "at")
OPTIONAL = ("unit_type", "event_id")
MOST_NAMED = 10
"""Bad rows that are told one by one; all are counted."""
_BATCH = 250_000
_BLOCK = 8 << 20
"""Bytes of a CSV file that are parsed at once: more than any of its lines may have."""
_MOST_LISTED = 30
_TIME = pa.timestamp("us", tz="UTC")
_NUMBER = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?\s*$"
_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_ZONE = r"(Z|z|[+-][0-9]{2}(:?[0-9]{2})?)$"
_LARGEST_VALUE = 1e12
_MILLISECONDS, _MICROSECONDS = 1e11, 1e14
"""From where on a number since 1970 counts milliseconds, and microseconds: as seconds it would be
in the year 5138 and later.
"""
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_AHEAD = timedelta(days=1)
"""How far a row may be ahead of this machine's clock: what names no offset may be of any zone."""
_AT = "a time from 1970 to now (RFC 3339, UTC where it names no offset), or seconds since 1970"
_Array = Any
"""An Arrow array."""


class _Checked(NamedTuple):
    """A column as events have it, and which of its values can be one's."""

    values: _Array
    is_good: _Array


class EventRows:
    """The rows of a file, and what was wrong with some of them.

    Attributes:
        rows: How many were read.
        bad: How many were left out, by what was expected of them.
        named: The first of these, a sentence each.
        has_types: Whether it says the type of each unit.
        unread: Columns that no event has.
    """

    def __init__(self, path: Path) -> None:
        """Open the file. Raises BadData where it cannot be read or lacks a column."""
        self.path = path
        self.rows = 0
        self.bad: Counter[str] = Counter()
        self.named: list[str] = []
        self.torn: list[int] = []
        """Rows with too many or too few columns, which are in no batch, by their places."""
        try:
            names, self._read = self._opened()
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise self._unreadable(error) from error
        _check_columns(path, names)
        self.has_types = "unit_type" in names
        self.unread = [name for name in names if name not in _CHECKS]

    def _opened(self) -> tuple[list[str], Callable[[], Iterator[pa.RecordBatch]]]:
        with self.path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        if is_parquet:
            parquet = pq.ParquetFile(self.path)
            names = list(parquet.schema_arrow.names)
            wanted = [name for name in names if name in _CHECKS]
            return names, lambda: parquet.iter_batches(_BATCH, columns=wanted)
        delimiter, names = _header(self.path)
        return names, lambda: self._csv_batches(delimiter, names)

    def _csv_batches(self, delimiter: str, names: list[str]) -> Iterator[pa.RecordBatch]:
        """Text throughout: what it means is said when it is checked, row by row."""
        wanted = [name for name in names if name in _CHECKS]
        reader = pa_csv.open_csv(
            pa.input_stream(str(self.path), compression="detect"),
            # In one thread, as only that counts the rows that it leaves out.
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=_BLOCK),
            parse_options=pa_csv.ParseOptions(
                delimiter=delimiter,
                newlines_in_values=True,
                invalid_row_handler=self._leave_out_torn,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.string()),
                include_columns=wanted,
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
        while True:
            try:
                yield reader.read_next_batch()
            except StopIteration:
                return

    def _leave_out_torn(self, row: Any) -> str:
        # Counted from the header on.
        place = row.number - 1
        self.torn.append(place)
        expected = f"{row.expected_columns} columns"
        self._note(place, f"row: expected {expected}", f"{row.actual_columns} columns", expected)
        return "skip"

    def batches(self) -> Iterator[pa.Table]:
        """The good rows in the order of the file: `number`, which of the rows read it is, from 1,
        and the columns REQUIRED and, where the file has them, OPTIONAL. After each batch `rows`
        says how far it went. Raises BadData.
        """
        waiting: list[pa.RecordBatch] = []
        try:
            for batch in self._read():
                waiting.append(batch)
                if sum(map(len, waiting)) >= _BATCH:
                    yield self._checked(pa.Table.from_batches(waiting))
                    waiting = []
        except (pa.ArrowException, OSError, EOFError) as error:
            raise self._unreadable(error) from error
        if waiting:
            yield self._checked(pa.Table.from_batches(waiting))

    def _checked(self, table: pa.Table) -> pa.Table:
        before, self.rows = self.rows, self.rows + len(table)
        columns = {"number": pa.array(np.arange(before + 1, self.rows + 1))}
        is_good = pa.array(np.ones(len(table), dtype=bool))
        for name, (check, expected) in _CHECKS.items():
            if name not in table.column_names:
                continue
            values = _plain(table[name])
            try:
                checked = check(values)
            except pa.ArrowException as error:
                problem = f"holds {values.type}, which cannot be read: {error}"
                raise BadData(f"{self.path}: {name}", f"{problem}; expected {expected}") from error
            good = pc.fill_null(checked.is_good, False)
            # A row counts once, by the first of its columns that is wrong.
            places = np.flatnonzero(pc.and_(is_good, pc.invert(good)))
            for place in places[: MOST_NAMED - len(self.named)].tolist():
                (got,) = values_of(pa.chunked_array([values.slice(place, 1)]))
                shown = "nothing" if got is None else repr(str(got)[:60])
                self._name(self._place(before + place + 1), f"{name}: got {shown}", expected)
            if len(places):
                self.bad[f"{name}: expected {expected}"] += len(places)
            is_good = pc.and_(is_good, good)
            columns[name] = checked.values
        return pa.table(columns).filter(is_good)

    def _place(self, number: int) -> int:
        """Which row of the file the one is that was read as `number`th."""
        for torn in sorted(self.torn):
            if torn > number:
                break
            number += 1
        return number

    def _note(self, place: int, reason: str, got: str, expected: str) -> None:
        self.bad[reason] += 1
        if len(self.named) < MOST_NAMED:
            self._name(place, f"got {got}", expected)

    def _name(self, place: int, got: str, expected: str) -> None:
        self.named.append(f"{self.path}: row {place:,}: {got}; expected {expected}")

    def _unreadable(self, error: Exception) -> BadData:
        after = f" after row {self.rows:,}" if self.rows else ""
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return BadData(
            str(self.path),
            f"cannot be read{after}: {reason}; expected CSV (UTF-8, a header, commas) or Parquet",
        )


def _header(path: Path) -> tuple[str, list[str]]:
    """The delimiter of a CSV file, and the names in its first line."""
    with pa.input_stream(str(path), compression="detect") as file:
        start = file.read(_BLOCK)
    line = start.partition(b"\n")[0].decode("utf-8-sig").strip("\r")
    delimiter = max(",;\t", key=line.count)
    (names,) = csv.reader([line], delimiter=delimiter) if line else ([],)
    return delimiter, names


def _check_columns(path: Path, names: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in names]
    twice = [name for name, count in Counter(names).items() if count > 1 and name in _CHECKS]
    if twice:
        raise BadData(str(path), f"has two columns {twice[0]!r}; expected each once")
    if missing:
        hint = nearest(missing[0], names)
        raise BadData(
            str(path),
            f"got the columns {listed(names, _MOST_LISTED) or '(none)'}; expected "
            f"{missing[0]!r} too{f' ({hint})' if hint else ''}: {', '.join(REQUIRED)}, and where "
            f"there are any {' and '.join(OPTIONAL)}",
        )


def _plain(column: Any) -> _Array:
    """A column in one piece, without a dictionary."""
    values = pa.concat_arrays(list(column.chunks)) if column.num_chunks else None
    if values is None:
        return pa.array([], column.type)
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _id(longest: int, *, may_be_missing: bool = False) -> Callable[[_Array], _Checked]:
    """Texts of 1 to so many characters; whole numbers are written out."""

    def check(values: _Array) -> _Checked:
        if pa.types.is_floating(values.type):
            # What pandas makes of whole numbers some of which are missing.
            values = values.cast(pa.int64())
        texts = values.cast(pa.string())
        length = pc.utf8_length(texts)
        is_good = pc.and_(pc.greater(length, 0), pc.less_equal(length, longest))
        return _Checked(texts, pc.fill_null(is_good, may_be_missing))

    return check


def _check_type(values: _Array) -> _Checked:
    texts = values.cast(pa.string())
    return _Checked(texts, pc.match_substring_regex(texts, NAME))


def _check_value(values: _Array) -> _Checked:
    """Where nothing is said, the event was there once."""
    is_good = pa.array(np.ones(len(values), dtype=bool))
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        is_good = pc.fill_null(pc.match_substring_regex(values, _NUMBER), True)
        values = pc.utf8_trim_whitespace(pc.if_else(is_good, values, None))
    numbers = pc.fill_null(values.cast(pa.float64()), 1.0)
    is_small = pc.less_equal(pc.abs(numbers), _LARGEST_VALUE)
    return _Checked(numbers, pc.and_(is_good, is_small))


def _check_at(values: _Array) -> _Checked:
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        times = _times_of_texts(values)
    elif pa.types.is_temporal(values.type):
        times = values.cast(_TIME, safe=False)
    else:
        times = _times_of_numbers(values.cast(pa.float64()))
    after = pc.greater_equal(times, pa.scalar(_FIRST, _TIME))
    latest = pa.scalar(datetime.now(UTC) + _AHEAD, _TIME)
    return _Checked(times, pc.and_(after, pc.less(times, latest)))


def _times_of_texts(texts: _Array) -> _Array:
    """Times; null where a text is none."""
    texts = pc.utf8_trim_whitespace(texts)
    is_number = pc.match_substring_regex(texts, _NUMBER)
    numbers = _times_of_numbers(pc.if_else(is_number, texts, None).cast(pa.float64()))
    # A day is its beginning, and what names no offset is UTC.
    is_day = pc.match_substring_regex(texts, _DAY)
    whole = pc.if_else(is_day, pc.binary_join_element_wise(texts, "00:00:00", "T"), texts)
    whole = pc.replace_substring_regex(whole, r"z$", "Z")
    has_zone = pc.match_substring_regex(pc.utf8_slice_codeunits(whole, 10), _ZONE)
    whole = pc.if_else(has_zone, whole, pc.binary_join_element_wise(whole, "Z", ""))
    whole = pc.if_else(is_number, None, whole)
    try:
        times = whole.cast(_TIME)
    except pa.ArrowInvalid:
        # One of them is none, and Arrow doesn't say which.
        times = pa.array([_time(text) for text in whole.to_pylist()], _TIME)
    return pc.coalesce(times, numbers)


def _time(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _times_of_numbers(numbers: _Array) -> _Array:
    """Times of seconds, milliseconds or microseconds since 1970, told apart by their size."""
    size = pc.abs(numbers)
    unit = pc.if_else(
        pc.greater_equal(size, _MICROSECONDS),
        1.0,
        pc.if_else(pc.greater_equal(size, _MILLISECONDS), 1e3, 1e6),
    )
    micros = pc.round(pc.multiply(numbers, unit))
    is_told = pc.less(pc.abs(micros), 2.0**62)
    return pc.if_else(is_told, micros, None).cast(pa.int64()).cast(pa.timestamp("us")).cast(_TIME)


_CHECKS: dict[str, tuple[Callable[[_Array], _Checked], str]] = {
    "unit": (_id(256), "1 to 256 characters"),
    "unit_type": (_check_type, "letters, digits, - and _, such as profile_id"),
    "event": (_id(64), "1 to 64 characters"),
    "action": (_id(128, may_be_missing=True), "up to 128 characters"),
    "value": (_check_value, "a number from -1e12 to 1e12"),
    "at": (_check_at, _AT),
    "event_id": (_id(128, may_be_missing=True), "up to 128 characters"),
}
"""How each column is checked, and what is expected there."""
