"""A table in a file as people have it (CSV or TSV with whatever separator and decimal mark,
Parquet, Arrow; compressed or not), as a DuckDB relation of the columns that are asked for.

Nothing is guessed in silence: a value that is no number, a line of another length, or commas that
may mean either thing is refused by name; what is left out is counted by reason.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Literal, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from topbill.domain.errors import BadData, NotFound
from topbill.domain.sql import identifier, quoted
from topbill.domain.suggestion import nearest
from topbill.lake.database import Connection, connect
from topbill.lake.frames import relation_of

Kind = Literal["label", "order", "number", "time"]
"""What a column is read as: as it is written; the same, but whole numbers by their size; as a
number; or as a moment (a date, or a day's number)."""

_DELIMITERS = ",;\t|"
_HEAD = 1 << 18
_MISSING = ("", "na", "n/a", "#n/a", "nan", "null", "none", "nil", "-", "–")
"""What people write where there is no value, in lower case."""
_WORDS = {"true": 1, "false": 0, "yes": 1, "no": 0}
_SIGNED = "[+-]?"
_COMMA_IS_DECIMAL = rf"{_SIGNED}(\d+|\d{{1,3}}(\.\d{{3}})+)(,\d+)?([eE][+-]?\d+)?"
_COMMA_IS_THOUSANDS = rf"{_SIGNED}(\d+|\d{{1,3}}(,\d{{3}})+)(\.\d+)?([eE][+-]?\d+)?"
_LINE = re.compile(r"CSV Error on Line: (\d+)")
_FIELDS = re.compile(r"Expected Number of Columns: (\d+) Found: (\d+)")
_SHOWN = 3
"""So many bad values are shown."""
_MAGIC = {
    b"PK\x03\x04": "an archive or an Excel workbook; save the sheet as CSV, or unpack it",
    b"%PDF": "a PDF; expected the table that it was made of",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save the sheet as CSV",
    b"SQLite format 3": "an SQLite database; write the table to a file first",
}


@dataclass(frozen=True, slots=True)
class PlainTable:
    """The columns of a file that were asked for, and what to know of it.

    Attributes:
        relation: a DuckDB relation; its columns keep their names and the rows their order.
        rows: how many the file has, with those left out.
        excluded: rows that were left out, by reason.
        notes: what was done to read it, in sentences.
    """

    relation: Any
    rows: int
    excluded: dict[str, int]
    notes: tuple[str, ...] = ()


class _Dialect(NamedTuple):
    """How a text file is written."""

    header: tuple[str, ...]
    delimiter: str
    encoding: str
    skip: int


def read_table(
    path: Path | str, columns: Mapping[str, Kind], *, required: Iterable[str] = ()
) -> PlainTable:
    """The columns of a file by name.

    Args:
        path: CSV, TSV (comma, semicolon, tab or bar), Parquet or Arrow; .gz or not. What it is is
            told by its content, not by its name.
        columns: what to read, and as what.
        required: columns of labels whose rows are left out, and counted, where they have no value.

    Raises:
        NotFound: there is no such file, or it must not be read.
        BadData: naming the file, and the column and rows that cannot be used.
    """
    path = Path(path)
    head = _head(path)
    connection = connect()
    if head.startswith((b"PAR1", b"ARROW1")):
        source = _typed(path, head, connection)
        comma_file = True
        notes: list[str] = []
    else:
        dialect = _dialect(path, head, columns)
        source = _text(path, dialect, connection, columns)
        comma_file = dialect.delimiter != ";"
        notes = [] if dialect.encoding != "latin-1" else ["the file is no UTF-8: read as Latin-1"]
    _check_present(path, source.columns, columns)
    (rows,) = _one(source, "count(*)")
    if rows == 0:
        raise BadData(str(path), "got no rows below the header; expected one a unit or an event")
    types = dict(zip(source.columns, map(str, source.types), strict=True))
    picked = []
    for name, kind in columns.items():
        reader = _Column(path, source, name, types[name], comma_file=comma_file)
        picked.append(f"{reader.sql(kind)} AS {identifier(name)}")
        notes += reader.notes
    relation = source.query("t", f"SELECT {', '.join(picked)} FROM t")  # noqa: S608  (identifiers are quoted)
    relation, excluded = _without_missing(relation, tuple(required))
    return PlainTable(relation, int(rows), excluded, tuple(notes))


def _without_missing(relation: Any, required: Sequence[str]) -> tuple[Any, dict[str, int]]:
    """The rows that have a value in all of the columns, and how many have none in each (a row
    counts once, in the first)."""
    excluded: dict[str, int] = {}
    for name in dict.fromkeys(required):
        column = identifier(name)
        (missing,) = _one(relation, f"count(*) FILTER (WHERE {column} IS NULL)")
        if missing:
            excluded[f"no {name}"] = int(missing)
            relation = relation.query("t", f"SELECT * FROM t WHERE {column} IS NOT NULL")  # noqa: S608  (identifiers are quoted)
    return relation, excluded


def _one(relation: Any, picked: str) -> tuple[Any, ...]:
    """The one row of aggregates over all rows."""
    (row,) = relation.query("t", f"SELECT {picked} FROM t").fetchall()  # noqa: S608  (identifiers are quoted)
    return tuple(row)


# --- The file


def _head(path: Path) -> bytes:
    """The first bytes of a file, unpacked."""
    if path.is_dir():
        raise NotFound(f"{path}: got a folder; expected a file: CSV, TSV, Parquet or Arrow")
    try:
        with _opened(path) as file:
            head: bytes = file.read(_HEAD)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file; expected CSV, TSV, Parquet or Arrow") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotFound(f"{path}: cannot be read: {reason}") from error
    if not head.strip():
        raise BadData(str(path), "got an empty file; expected a header and rows")
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            raise BadData(str(path), f"got {what}")
    return head


def _opened(path: Path) -> Any:
    with path.open("rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if is_packed else path.open("rb")


def _typed(path: Path, head: bytes, connection: Connection) -> Any:
    """A file that says of what type its columns are."""
    try:
        if head.startswith(b"ARROW1"):
            with _opened(path) as file:
                return relation_of(pa.ipc.open_file(pa.BufferReader(file.read())).read_all())
        with path.open("rb") as file:
            is_plain = file.read(4) == b"PAR1"
        if is_plain:
            return connection.read_parquet(str(path))
        with _opened(path) as file:
            return relation_of(pq.read_table(pa.BufferReader(file.read())))
    except (pa.ArrowException, duckdb.Error, OSError, EOFError, zlib.error) as error:
        raise BadData(str(path), f"cannot be read: {_first_line(error)}") from error


def _dialect(path: Path, head: bytes, columns: Iterable[str]) -> _Dialect:
    """How the text is written: of the delimiters that one which gives most of the columns that are
    asked for, and of equals most columns."""
    text, encoding = _decoded(path, head)
    skip = 0
    named = re.match(r'"?sep=(.)"?\r?\n', text)
    if named:  # Excel's own first line
        text, skip = text[named.end() :], 1
    best: tuple[tuple[int, int], str, tuple[str, ...]] | None = None
    for delimiter in named[1] if named else _DELIMITERS:
        header = _header(text, delimiter)
        score = (len(set(columns) & set(header)), len(header))
        if best is None or score > best[0]:
            best = score, delimiter, header
    if best is None or not any(best[2]):
        raise BadData(str(path), "got no header; expected names of columns in the first line")
    return _Dialect(best[2], best[1], encoding, skip)


def _decoded(path: Path, head: bytes) -> tuple[str, str]:
    """The text of a file's head, and its encoding."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head.decode("utf-16", errors="ignore"), "utf-16"
    if b"\x00" in head:
        raise BadData(str(path), "got bytes that are no text; expected CSV, TSV, Parquet or Arrow")
    try:
        # The head may end within a character.
        return head.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError as error:
        if error.start >= len(head) - 4 and len(head) == _HEAD:
            return head.decode("utf-8-sig", errors="ignore"), "utf-8"
    text = head.decode("latin-1")
    odd = sum(not (c.isprintable() or c in "\r\n\t") for c in text)
    if odd > 0.01 * len(text):
        raise BadData(str(path), "got bytes that are no text; expected CSV, TSV, Parquet or Arrow")
    return text, "latin-1"


def _header(text: str, delimiter: str) -> tuple[str, ...]:
    try:
        first = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
    except csv.Error:
        return ()
    return tuple(name.strip().lstrip("\ufeff") for name in first)


def _text(path: Path, dialect: _Dialect, connection: Connection, columns: Iterable[str]) -> Any:
    """A text file's columns as they are written, read once into memory."""
    _check_present(path, dialect.header, columns)
    wanted = [name for name in columns if name in dialect.header]
    for name in wanted:
        if dialect.header.count(name) > 1:
            raise BadData(
                f"{path}: {name}",
                f"got {dialect.header.count(name)} columns of that name; expected one",
            )
    names = [name if name in wanted else f"@{i}" for i, name in enumerate(dialect.header)]
    if dialect.skip == 0:
        try:
            return _loaded(connection, path, names, wanted, dialect)
        except duckdb.Error as error:
            # Lines that end now in one way, now in another, as of files put together.
            if "invalid state" not in str(error):
                raise BadData(str(path), _csv_problem(error)) from error
    copy = _with_plain_lines(path, dialect)
    try:
        return _loaded(connection, copy, names, wanted, dialect._replace(encoding="utf-8"))
    except duckdb.Error as error:
        raise BadData(str(path), _csv_problem(error)) from error
    finally:
        copy.unlink()


def _loaded(
    connection: Connection,
    path: Path,
    names: Sequence[str],
    wanted: Sequence[str],
    dialect: _Dialect,
) -> Any:
    """The wanted columns in memory, as text."""
    source = _source(path, names, dialect)
    picked = ", ".join(identifier(name) for name in wanted)
    connection.execute(f"CREATE TEMP TABLE plain_file AS SELECT {picked} FROM {source}")  # noqa: S608  (quoted)
    return connection.table("plain_file")


def _source(path: Path, names: Sequence[str], dialect: _Dialect) -> str:
    """SQL of a text file's rows, all columns as text."""
    described = ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in names)
    options = [
        "header = true",
        "auto_detect = false",
        f"columns = {{{described}}}",
        f"delim = {quoted(dialect.delimiter)}",
        "quote = '\"'",
        "escape = '\"'",
        f"encoding = {quoted(dialect.encoding)}",
    ]
    with path.open("rb") as file:
        if file.read(2) == b"\x1f\x8b":
            options.append("compression = 'gzip'")
    return f"read_csv({quoted(str(path))}, {', '.join(options)})"


def _with_plain_lines(path: Path, dialect: _Dialect) -> Path:
    """A copy of a text file in UTF-8 whose lines all end alike, without what stands above the
    header."""
    with (
        NamedTemporaryFile(prefix="topbill-", suffix=".csv", delete=False) as copy,
        io.TextIOWrapper(_opened(path), encoding=dialect.encoding) as lines,
    ):
        for number, line in enumerate(lines):
            if number >= dialect.skip:
                copy.write(line.encode())
    return Path(copy.name)


def _csv_problem(error: Exception) -> str:
    """DuckDB's message about a line, in one sentence."""
    text = str(error)
    line, fields = _LINE.search(text), _FIELDS.search(text)
    where = f"line {line[1]}: " if line else ""
    if fields:
        return (
            f"{where}got {fields[2]} values; expected {fields[1]}, as many as the header has names"
        )
    if "unterminated quote" in text:
        return f"{where}got a quotation mark that nothing closes"
    if "unicode" in text.lower():
        return f"{where}got bytes that are no UTF-8; save the file as UTF-8"
    return f"{where}cannot be read: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_present(path: Path, present: Sequence[str], columns: Iterable[str]) -> None:
    """Raises BadData for the first column that the file does not have, with the nearest name."""
    for name in columns:
        if name in present:
            continue
        named = [column for column in present if column]
        hint = nearest(name, named)
        shown = ", ".join(named[:20]) + (", …" if len(named) > 20 else "")
        raise BadData(
            f"{path}: {name}",
            f"no such column; the file has {shown}{f'; {hint}' if hint else ''}",
        )


# --- A column


class _Column:
    """One column of a file, to be read as what it is asked for."""

    def __init__(self, path: Path, source: Any, name: str, kind: str, *, comma_file: bool) -> None:
        self._source = source
        self._where = f"{path}: {name}"
        self._column = identifier(name)
        self._name = name
        self._kind = kind
        self._comma_file = comma_file
        self._text = f"trim({self._column})"
        self.notes: list[str] = []

    def sql(self, kind: Kind) -> str:
        """SQL of its values, NULL where there is none."""
        if "[" in self._kind or self._kind.startswith(("STRUCT", "MAP", "UNION")):
            raise BadData(self._where, f"got a column of {self._kind}; expected one value a row")
        if kind == "label":
            return self._label()
        if kind == "order":
            return self._order()
        if kind == "time":
            return self._time()
        return self._number() if self._kind == "VARCHAR" else self._column

    def _label(self) -> str:
        if self._kind == "VARCHAR":
            # Nobody is called nothing: empty text, quoted or not, is where a name is missing.
            return f"nullif({self._text}, '')"
        if self._kind in ("DOUBLE", "FLOAT"):
            finite = f"CASE WHEN isfinite({self._column}) THEN {self._column} END"
            (whole,) = _one(self._source, f"count(*) FILTER (WHERE {finite} <> trunc({finite}))")
            # 3.0 is what becomes of an id 3 where others are missing.
            return finite if whole else f"CAST({finite} AS BIGINT)"
        return self._column

    def _order(self) -> str:
        label = self._label()
        if self._kind != "VARCHAR":
            return label
        whole = f"regexp_full_match({label}, '-?\\d{{1,18}}')"
        (others,) = _one(self._source, f"count(*) FILTER (WHERE NOT {whole})")
        return label if others else f"CAST({label} AS BIGINT)"

    def _present(self) -> str:
        missing = ", ".join(map(quoted, _MISSING))
        return f"{self._column} IS NOT NULL AND lower({self._text}) NOT IN ({missing})"

    def _number(self) -> str:
        """SQL of a number that is written out: with a decimal point or comma, or as true, false,
        yes or no."""
        plain = f"TRY_CAST({self._text} AS DOUBLE)"
        words = ", ".join(map(quoted, _WORDS))
        is_word = f"lower({self._text}) IN ({words})"
        decimal = f"regexp_full_match({self._text}, {quoted(_COMMA_IS_DECIMAL)})"
        thousands = f"regexp_full_match({self._text}, {quoted(_COMMA_IS_THOUSANDS)})"
        readable = f"{plain} IS NOT NULL"
        tests = ("TRUE", readable, f"{readable} OR {is_word}", decimal, thousands)
        counts = [f"count(*) FILTER (WHERE {self._present()} AND ({test}))" for test in tests]
        present, plains, with_words, decimals, thousand = _one(self._source, ", ".join(counts))
        missing = f"CASE WHEN {self._present()} THEN "
        if plains == present:
            return f"{missing}{plain} END"
        if with_words == present:
            true = ", ".join(quoted(word) for word, value in _WORDS.items() if value)
            one = f"CAST(lower({self._text}) IN ({true}) AS DOUBLE)"
            return f"{missing}CASE WHEN {is_word} THEN {one} ELSE {plain} END END"
        if decimals == thousand == present and self._comma_file:
            raise BadData(
                self._where,
                f"got values such as {self._example('TRUE')}, whose comma may mark decimals or "
                "thousands; expected a decimal point, and nothing between thousands",
            )
        if decimals == present:
            self.notes.append(f"{self._name} has decimal commas")
            return f"{missing}CAST(replace(replace({self._text}, '.', ''), ',', '.') AS DOUBLE) END"
        if thousand == present:
            self.notes.append(f"{self._name} has commas between thousands")
            return f"{missing}CAST(replace({self._text}, ',', '') AS DOUBLE) END"
        # The few that differ from the way in which most are written are the wrong ones.
        rules = {plains: readable, decimals: decimal, thousand: thousands}
        raise self._wrong(rules[max(rules)], "numbers, or nothing where there is none")

    def _time(self) -> str:
        if self._kind != "VARCHAR":
            return self._column
        day = f"TRY_CAST({self._text} AS DOUBLE)"
        # With the offset from UTC that some are written with.
        moment = f"TRY_CAST({self._text} AS TIMESTAMPTZ)"
        tests = ("TRUE", f"{day} IS NOT NULL", f"{moment} IS NOT NULL")
        counts = [f"count(*) FILTER (WHERE {self._present()} AND {test})" for test in tests]
        longest = f"max(length({self._text})) FILTER (WHERE {self._present()})"
        present, days, moments, length = _one(self._source, ", ".join([*counts, longest]))
        if days == present:
            return f"CASE WHEN {self._present()} THEN {day} END"
        if moments == present:
            kind = "DATE" if length <= len("2026-03-01") else "TIMESTAMP"
            return f"CASE WHEN {self._present()} THEN CAST({moment} AS {kind}) END"
        raise self._wrong(
            f"{moment} IS NOT NULL", "dates or times such as 2026-03-01T12:30:00Z (ISO 8601)"
        )

    def _example(self, test: str) -> str:
        values = self._source.query(
            "t",
            f"SELECT {self._text} FROM t WHERE {self._present()} AND {test} "  # noqa: S608  (identifiers are quoted)
            f"AND contains({self._text}, ',') LIMIT 1",
        ).fetchall()
        return repr(values[0][0]) if values else "these"

    def _wrong(self, rule: str, expected: str) -> BadData:
        """The error of values that break a rule: how many, where, and which."""
        numbered = f"SELECT *, row_number() OVER () AS place FROM t"  # noqa: F541
        bad = self._source.query(
            "t",
            f"SELECT place, {self._text}, count(*) OVER () FROM ({numbered}) "  # noqa: S608  (identifiers are quoted)
            f"WHERE {self._present()} AND NOT coalesce({rule}, FALSE) ORDER BY place "
            f"LIMIT {_SHOWN}",
        ).fetchall()
        shown = ", ".join(f"row {place}: {value[:40]!r}" for place, value, _ in bad)
        more = f" and {bad[0][2] - len(bad):,} more" if bad[0][2] > len(bad) else ""
        return BadData(
            self._where,
            f"got {shown}{more} (the first row below the header is 1); expected {expected}",
        )
