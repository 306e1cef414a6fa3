"""Candidates that a team's own model has left in a file: titles with scores, for each viewer or for
everybody.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from topbill import catalog
from topbill.domain.cells import values_of
from topbill.domain.errors import BadData, FileProblem, SpecError, TopbillError
from topbill.domain.records import Floats
from topbill.pages.files import PageFile
from topbill.pages.request import LARGEST_SCORE, MOST_CANDIDATES, ScoredTitle

_logger = logging.getLogger("topbill")

MOST_ROWS = 5_000_000
"""Rows that a table may have."""
_COLUMNS = ("title", "score")
_TEXTS = ("title", "unit")
_LONGEST_ID = 128
_EVERYBODY = ""
"""The unit of rows that are for every viewer who has none of one's own."""


class CandidateTable:
    """One table of candidates, in memory: some 20 bytes a row, and its texts once each.

    Attributes:
        titles: The titles that it names.
        set_aside: Why some of its rows are no candidates, one sentence each.
    """

    def __init__(self, table: pa.Table, source: str) -> None:
        """Raises BadData where the table lacks a column, or holds too many rows."""
        missing = [name for name in _COLUMNS if name not in table.column_names]
        if missing:
            raise BadData(
                source, f"no column {', '.join(missing)}; expected title, score and, if any, unit"
            )
        if table.num_rows > MOST_ROWS:
            raise BadData(source, f"{table.num_rows:,} rows; expected at most {MOST_ROWS:,}")
        titles, self.titles = _codes(table, "title")
        units, unit_names = _codes(table, "unit")
        scores = _scores(table["score"])
        is_title = np.array([0 < len(title) <= _LONGEST_ID for title in self.titles], dtype=bool)
        # NaN fails the comparison.
        is_score = np.abs(scores) <= LARGEST_SCORE
        self.set_aside = (
            *_told("title", ~is_title[titles], table, f"1 to {_LONGEST_ID} characters"),
            *_told(
                "score", ~is_score, table, f"a number from -{LARGEST_SCORE:g} to {LARGEST_SCORE:g}"
            ),
        )
        kept = np.flatnonzero(is_title[titles] & is_score)
        titles, units, scores = titles[kept], units[kept], scores[kept]
        # By viewer, and each one's highest score first; equal scores keep the file's order.
        order = np.lexsort((-scores, units))
        self._titles, self._scores = titles[order], scores[order]
        ends = np.cumsum(np.bincount(units, minlength=len(unit_names))).tolist()
        self._slices = dict(zip(unit_names, zip([0, *ends], ends, strict=False), strict=True))

    def of(self, unit: str | None) -> list[ScoredTitle]:
        """A viewer's candidates, the highest score first; those for everybody where there are none
        of the viewer's own.

        Args:
            unit: The profile as pages randomise it, as services send it; None for nobody.
        """
        start, stop = self._slices.get(unit or _EVERYBODY, (0, 0))
        if start == stop:
            start, stop = self._slices.get(_EVERYBODY, (0, 0))
        stop = min(stop, start + MOST_CANDIDATES)
        names = [self.titles[code] for code in self._titles[start:stop].tolist()]
        return list(map(ScoredTitle, names, self._scores[start:stop].tolist()))


def read_table(path: Path, table: str | None) -> CandidateTable:
    """The candidates in a .csv or .parquet file, or in `table` of a DuckDB file.

    Raises NotFound where there is no such file, BadData where it holds no candidates.
    """
    rows = catalog.read(path, table, what="candidates", texts=_TEXTS)
    try:
        return CandidateTable(rows, path.name)
    except pa.ArrowException as error:
        raise BadData(path.name, f"{error}; expected texts and numbers") from error


def read_tables(file: PageFile) -> dict[str, CandidateTable]:
    """Row → its table of candidates, for each row of the page that has one.

    Raises SpecError with all that is wrong with them.
    """
    tables: dict[str, CandidateTable] = {}
    problems: list[FileProblem] = []
    for row, (path, table) in file.candidate_files.items():
        try:
            tables[row] = read_table(path, table)
        except TopbillError as error:
            expected = "a table of candidates that can be read"
            problems.append(FileProblem(file.source, f"sources.{row}.file", str(error), expected))
    if problems:
        raise SpecError(problems)
    return tables


class LastGoodTables:
    """The tables of candidates of a service's pages: read anew when a file has changed; where it
    can't be, the last good one goes on.

    Attributes:
        problems: (Page, row) → what is wrong with its file.
    """

    def __init__(self) -> None:
        self._tables: dict[tuple[str, str], CandidateTable] = {}
        self.problems: dict[tuple[str, str], str] = {}

    def read(self, file: PageFile) -> dict[str, CandidateTable]:
        """Row → its table, for each row of the page that has a good one."""
        tables: dict[str, CandidateTable] = {}
        for row, (path, table) in file.candidate_files.items():
            key = (file.key, row)
            self.problems.pop(key, None)
            try:
                self._tables[key] = read_table(path, table)
            except TopbillError as error:
                self.problems[key] = str(error)
                _logger.warning("page %s: row %s: %s", file.key, row, error)
            if key in self._tables:
                tables[row] = self._tables[key]
        return tables


def _codes(table: pa.Table, name: str) -> tuple[np.ndarray, list[str]]:
    """(rows,) numbers of a column's texts, and the texts; all are "" where there is no column."""
    if name not in table.column_names:
        return np.zeros(table.num_rows, dtype=np.intp), [_EVERYBODY]
    # Few pages have such a table, and it takes long to import.
    import pyarrow.compute as pc

    column = pc.fill_null(table[name].cast(pa.string()), "").combine_chunks()
    encoded = column.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.intp)
    return codes, encoded.dictionary.to_pylist()


def _scores(column: pa.ChunkedArray) -> Floats:
    """(rows,) the scores; NaN where there is no number."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
    return np.array([_number(value) for value in values_of(column)], dtype=np.float64)


def _number(value: object) -> float:
    # True would be 1: a flag is no score.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    return float("nan")


def _told(column: str, wrong: np.ndarray, table: pa.Table, expected: str) -> Sequence[str]:
    """Each row with a wrong value, up to three, and how many more there are."""
    rows = np.flatnonzero(wrong).tolist()
    told = []
    for row in rows[:3]:
        (got,) = values_of(table[column].slice(row, 1))
        told.append(f"row {row + 1}: {column} is {str(got)[:60]!r}; expected {expected}")
    if len(rows) > 3:
        told.append(f"{len(rows) - 3:,} more rows with such a {column}")
    return told
