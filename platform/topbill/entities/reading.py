"""A table's file as rows: every id once, every value of its declared type. What does not fit is an
error with row and column, and nothing is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from topbill.domain import cells
from topbill.domain.embedding import project
from topbill.domain.entity import LONGEST_ID, MOST_BYTES, MOST_ROWS, EntitySource
from topbill.domain.errors import BadData, LogError
from topbill.domain.features import LARGEST, Encoder, Feature
from topbill.domain.records import Floats, Indices
from topbill.domain.suggestion import nearest
from topbill.domain.table_source import DATABASES, TABLES
from topbill.spec.fields import listed

_PART = 50_000
"""Rows that are in memory as Python's values at once."""
_encode = msgspec.json.Encoder().encode


class TableRows(NamedTuple):
    """A table as it was read, sorted by id.

    Attributes:
        ids: (N) of the rows.
        texts: (N) each row's features as JSON.
        missing: Feature → in which share of the rows it is unknown.
    """

    ids: list[str]
    texts: list[bytes]
    missing: dict[str, float]


def read_table(
    source: EntitySource, data: Path, stored: Callable[[str], str] | None = None
) -> TableRows:
    """What a table has now. `stored` gives the ids as the data folder has them.

    Raises BadData that names file, row (from 1) and column.
    """
    try:
        return _checked(source, data, stored)
    except BadData:
        raise
    except Exception as error:
        # Whatever a library says of a file that somebody else wrote: it is this table's trouble.
        raise BadData(
            source.described, f"{type(error).__name__}: {error}; expected a table that can be read"
        ) from error


def _checked(source: EntitySource, data: Path, stored: Callable[[str], str] | None) -> TableRows:
    path = data / TABLES / source.file
    try:
        table = _read(source, path)
    except (pa.ArrowException, OSError, ValueError, LogError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        expected = "expected a table as Parquet, CSV, DuckDB or Delta"
        raise BadData(source.described, f"{reason}; {expected}") from error
    if table.num_rows > MOST_ROWS:
        raise BadData(
            source.described, f"got {table.num_rows:,} rows; expected at most {MOST_ROWS:,}"
        )
    if not table.num_rows:
        raise BadData(source.described, "got no row; expected at least one")
    table = _plain(table)
    ids = _ids(source, table[source.key])
    texts: list[bytes] = []
    missing = dict.fromkeys((feature.name for feature in source.features), 0)
    # A part at a time: as Python's values, all of a large table would be gigabytes.
    for start in range(0, table.num_rows, _PART):
        part = table.slice(start, _PART)
        columns: dict[str, list[Any]] = {}
        for feature in source.features:
            values = _values(source, feature, part[feature.name], start)
            columns[feature.name] = values
            missing[feature.name] += values.count(None)
        texts += _texts(columns, len(part))
    if stored is not None:
        ids = [stored(each) for each in ids]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    shares = {name: count / len(ids) for name, count in missing.items()}
    return TableRows([ids[row] for row in order], [texts[row] for row in order], shares)


def _plain(table: pa.Table) -> pa.Table:
    """The table with texts as texts, however they are stored: pandas' categories, say."""
    for place, field in enumerate(table.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_string_view(kind):
            kind = pa.string()
        if kind != field.type:
            table = table.set_column(place, field.name, table[place].cast(kind))
    return table


def _at(source: EntitySource, row: int, column: str) -> str:
    """Where a value stands; rows count from 1, as people count lines of data."""
    return f"{source.described}: row {row + 1}: {column}"


# ------------------------------------------------------------------ files


def _read(source: EntitySource, path: Path) -> pa.Table:
    if not path.exists():
        raise BadData(source.described, f"got no such file; expected one in {TABLES}/")
    size = sum(each.stat().st_size for each in _files(path))
    if size > MOST_BYTES:
        raise BadData(source.described, f"got {size:,} bytes; expected at most {MOST_BYTES:,}")
    wanted = [source.key, *(feature.name for feature in source.features)]
    if path.is_dir() or path.name.endswith(DATABASES):
        return _by_duckdb(source, path, wanted)
    if path.suffix == ".parquet":
        file = pa_parquet.ParquetFile(path)
        _check_columns(source, file.schema_arrow.names, wanted)
        # Before anything is read: a small file may hold very many rows.
        if file.metadata.num_rows > MOST_ROWS:
            got = f"got {file.metadata.num_rows:,} rows; expected at most {MOST_ROWS:,}"
            raise BadData(source.described, got)
        return file.read(columns=list(dict.fromkeys(wanted)))
    # What looks like a number is text all the same, "007" and "1e5" among them: the declared type
    # decides, and not the first rows.
    options = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(wanted, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )
    table = pa_csv.read_csv(path, convert_options=options)
    _check_columns(source, table.column_names, wanted)
    return table.select(list(dict.fromkeys(wanted)))


def _files(path: Path) -> list[Path]:
    return [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]


def _by_duckdb(source: EntitySource, path: Path, wanted: Sequence[str]) -> pa.Table:
    # Imported here, so that a service without such tables does not load DuckDB.
    from topbill import lake

    connection = lake.connect()
    try:
        if path.is_dir():
            relation = lake.delta_relation(path)
        else:
            connection.execute(f"ATTACH {lake.quoted(str(path))} AS entities (READ_ONLY)")
            parts = ["entities", *(source.table or "").split(".")]
            relation = ".".join(map(lake.identifier, parts))
        names = connection.sql(f"SELECT * FROM {relation} LIMIT 0").columns  # noqa: S608 (quoted)
        _check_columns(source, names, wanted)
        columns = ", ".join(map(lake.identifier, dict.fromkeys(wanted)))
        # One more than may be, to see that there are too many, however many there are.
        query = f"SELECT {columns} FROM {relation} LIMIT {MOST_ROWS + 1}"  # noqa: S608 (quoted)
        return connection.sql(query).to_arrow_table()
    except lake.Error as error:
        reason = str(error).strip().splitlines()[0]
        expected = "a Delta table" if path.is_dir() else f"a DuckDB file with {source.table}"
        raise BadData(source.described, f"{reason}; expected {expected}") from error
    finally:
        connection.close()


def _check_columns(source: EntitySource, names: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if list(names).count(name) != 1:
            got = f"column {name!r} twice" if name in names else f"no column {name!r}"
            hint = nearest(name, names)
            raise BadData(
                source.described,
                f"got {got}; expected it once, among {listed(names)}" + f"; {hint}" * bool(hint),
            )


# ------------------------------------------------------------------ values


def _ids(source: EntitySource, column: pa.ChunkedArray) -> list[str]:
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if not (is_text or pa.types.is_integer(column.type)):
        raise BadData(
            f"{source.described}: {source.key}", f"got {column.type}; expected texts, the ids"
        )
    first: dict[str, int] = {}
    for row, value in enumerate(column.to_pylist()):
        name = "" if value is None else str(value)
        if not 1 <= len(name) <= LONGEST_ID:
            got = f"an id of {len(name)} characters" if name else "nothing"
            expected = f"an id of 1 to {LONGEST_ID} characters"
            raise BadData(_at(source, row, source.key), f"got {got}; expected {expected}")
        earlier = first.setdefault(name, row)
        if earlier != row:
            expected = f"every id once: row {earlier + 1} has it already"
            raise BadData(_at(source, row, source.key), f"got {name!r}; expected {expected}")
    return list(first)


def _values(
    source: EntitySource, feature: Feature, column: pa.ChunkedArray, start: int
) -> list[Any]:
    """A part of a column, which begins at row `start`, as JSON has its values."""
    if feature.kind == "embedding":
        return _vectors(source, feature, column, start)
    values: list[Any] = column.to_pylist()
    read = _READ[feature.kind]
    # Texts and truths fit as they are.
    encoder = None if feature.kind in ("category", "flag", "text") else Encoder((feature,))
    for row, value in enumerate(values):
        if value is None:
            continue
        try:
            values[row] = read(value)
        except ValueError as error:
            raise BadData(
                _at(source, start + row, feature.name),
                f"got {cells.shown(value)}; expected {error}",
            ) from None
        if encoder is not None:
            # The bounds of a number, say.
            for problem in encoder.problems({feature.name: values[row]}):
                raise BadData(_at(source, start + row, feature.name), str(problem))
    return values


_READ: dict[str, Callable[[Any], Any]] = {
    "category": cells.text,
    "text": cells.text,
    "number": cells.number,
    "cycle": cells.number,
    "flag": cells.flag,
    "vector": cells.mapping,
}


def _vectors(
    source: EntitySource, feature: Feature, column: pa.ChunkedArray, start: int
) -> list[list[float] | None]:
    """Vectors of the declared length, projected; None where there is none."""
    part = column.combine_chunks()
    rows = np.flatnonzero(part.is_valid().to_numpy(zero_copy_only=False))
    values: list[list[float] | None] = [None] * len(part)
    if rows.size:
        matrix = _matrix(source, feature, part.drop_null(), rows + start)
        projected = project(matrix, feature.dimension).tolist()
        for row, vector in zip(rows.tolist(), projected, strict=True):
            values[row] = vector
    return values


def _matrix(source: EntitySource, feature: Feature, vectors: pa.Array, rows: Indices) -> Floats:
    """(n × length) of n vectors that stand at these rows of the table."""
    # Few tables have embeddings, and it takes long to import.
    import pyarrow.compute as pc

    length, kind = feature.length, vectors.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        vectors = _vectors_of_json(source, feature, vectors, rows)
        kind = vectors.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (is_list or pa.types.is_fixed_size_list(kind)) or not _is_number(kind.value_type):
        raise BadData(
            f"{source.described}: {feature.name}",
            f"got {kind}; expected lists of {length} numbers",
        )
    lengths = pc.list_value_length(vectors).to_numpy()
    (wrong,) = np.nonzero(lengths != length)
    if wrong.size:
        row = int(rows[wrong[0]])
        got = f"got {lengths[wrong[0]]} numbers; expected {length}"
        raise BadData(_at(source, row, feature.name), got)
    # A null among the numbers is NaN here.
    flat = pc.list_flatten(vectors).cast(pa.float64())
    matrix: Floats = flat.to_numpy(zero_copy_only=False).reshape(-1, length)
    odd = ~(np.abs(matrix) <= LARGEST)
    if odd.any():
        place, number = (int(each[0]) for each in np.nonzero(odd))
        raise BadData(
            _at(source, int(rows[place]), feature.name),
            f"got {matrix[place, number]:g} as number {number + 1}; expected finite numbers within "
            f"±{LARGEST:,.0f}",
        )
    return matrix


def _vectors_of_json(
    source: EntitySource, feature: Feature, texts: pa.Array, rows: Indices
) -> pa.Array:
    """Lists that stand as JSON in a column of texts, as CSV has them."""
    vectors = []
    for row, text in zip(rows.tolist(), texts.to_pylist(), strict=True):
        try:
            vectors.append(msgspec.json.decode(text, type=list[float]))
        except msgspec.MsgspecError:
            expected = f"a list of {feature.length} numbers as JSON, [0.5, -1]"
            got = f"got {cells.shown(text)}; expected {expected}"
            raise BadData(_at(source, row, feature.name), got) from None
    return pa.array(vectors, pa.list_(pa.float64()))


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)
    )


def _texts(columns: dict[str, list[Any]], rows: int) -> list[bytes]:
    """Each row as JSON, without what is unknown."""
    if not columns:
        return [b"{}"] * rows
    fields = [(name, Any, None) for name in columns]
    struct = msgspec.defstruct("Row", fields, omit_defaults=True, gc=False)
    return list(map(_encode, map(struct, *columns.values())))
