"""The Parquet files of rows that are appended to a Delta table: written by Arrow, a file for each
partition, with the names, the content and the statistics that Delta's own writer would give them.
That one takes several times as long for the few thousand rows of a publication.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import ColumnProperties, WriterProperties

from topbill.lake.delta import TablePlace

_COMPRESSION = "zstd"
_ROW_GROUP = 250_000
_TEXTS = frozenset({"context", "actions"})
"""Columns of JSON text: nobody looks for the smallest and the largest, each as long as a page."""
_DISTINCT = frozenset({"seq", "decision_id"}) | _TEXTS
"""Columns whose values hardly ever repeat: a dictionary is made in vain."""
WRITER = WriterProperties(
    compression="ZSTD",
    max_row_group_size=_ROW_GROUP,
    column_properties={
        name: ColumnProperties(
            dictionary_enabled=False, statistics_enabled="NONE" if name in _TEXTS else None
        )
        for name in sorted(_DISTINCT)
    },
)
"""How Delta's own writer is to write such files: of streams, and those that it merges."""
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
"""What stands in a path for a partition without a value."""
_RUN = 16
"""Rows that stand together on average, from which on a partition's are taken as slices."""
_encode = msgspec.json.Encoder().encode


class AddedFile(NamedTuple):
    """A Parquet file that a commit adds: its path below the table, its partition, how many rows it
    has, its bytes, and what Delta's log says of its values, as JSON.
    """

    path: str
    partition: dict[str, str | None]
    rows: int
    size: int
    statistics: str


def write_files(place: TablePlace, rows: pa.Table, columns: Sequence[str]) -> list[AddedFile]:
    """Write the rows of a table that is partitioned by these columns. No version of the table names
    the files before they are committed. Raises LogError.
    """
    added = []
    for number, (partition, own) in enumerate(_by_partition(rows, columns)):
        name = f"part-{number:05}-{uuid.uuid4()}-c000.{_COMPRESSION}.parquet"
        path = "".join(f"{_folder(*value)}/" for value in partition.items()) + name
        content = _parquet(own.drop_columns(columns))
        place.files.add(f"{place.name}/{path}", content)
        added.append(AddedFile(path, partition, len(own), len(content), _statistics(own)))
    return added


def _by_partition(
    rows: pa.Table, columns: Sequence[str]
) -> Iterator[tuple[dict[str, str | None], pa.Table]]:
    """The rows of each partition, in their order. Those that stand together, as those of a
    publication do, are not copied.
    """
    if not len(rows):
        return
    codes = np.zeros(len(rows), dtype=np.int64)
    for column in columns:
        encoded = rows[column].combine_chunks().dictionary_encode()
        places = pc.fill_null(encoded.indices, -1).to_numpy()
        codes = codes * (len(encoded.dictionary) + 1) + places + 1
    starts = _starts(codes)
    if len(starts) * _RUN > len(rows):
        order = np.argsort(codes, kind="stable")
        rows, codes = rows.take(order), codes[order]
        starts = _starts(codes)
    slices: dict[int, list[pa.Table]] = {}
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        slices.setdefault(int(codes[start]), []).append(rows.slice(start, end - start))
    for parts in slices.values():
        own = pa.concat_tables(parts)
        values = {column: own[column][0].as_py() for column in columns}
        # A commit has every value as text.
        yield {c: None if value is None else str(value) for c, value in values.items()}, own


def _starts(codes: np.ndarray[Any, np.dtype[np.int64]]) -> list[int]:
    """Where another value begins."""
    return [0, *(np.flatnonzero(codes[1:] != codes[:-1]) + 1).tolist()]


def _folder(column: str, value: str | None) -> str:
    """The folder of a partition's value, as Delta's own writer calls it."""
    return f"{column}={NULL_PARTITION if value is None else quote(value, safe='')}"


def _parquet(rows: pa.Table) -> memoryview:
    """The rows as a Parquet file."""
    repeating, ordered = _leaves(rows.schema)
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows,
        sink,
        compression=_COMPRESSION,
        row_group_size=_ROW_GROUP,
        use_dictionary=repeating,
        write_statistics=ordered,
        store_schema=False,
    )
    # As bytes, which stores take: Arrow shows them as numbers with a sign.
    return memoryview(sink.getvalue()).cast("B")


@cache
def _leaves(schema: pa.Schema) -> tuple[list[str], list[str]]:
    """The columns of a Parquet file, those inside of lists each by itself: those of which
    dictionaries are made, and those of which it notes the smallest and the largest value.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    columns = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    paths = [columns.column(i).path for i in range(len(columns))]
    return [p for p in paths if p not in _DISTINCT], [p for p in paths if p not in _TEXTS]


def _statistics(rows: pa.Table) -> str:
    """What Delta's log says of a file: how many rows it has, and between which values those columns
    are along which it is looked for.
    """
    least, most, missing = {}, {}, {}
    for field in rows.schema:
        if not (pa.types.is_integer(field.type) or pa.types.is_timestamp(field.type)):
            continue
        column = rows[field.name]
        missing[field.name] = column.null_count
        if column.null_count < len(column):
            ends = pc.min_max(column).as_py()
            least[field.name], most[field.name] = _text(ends["min"]), _text(ends["max"])
    counts = {"minValues": least, "maxValues": most, "nullCount": missing}
    return _encode({"numRecords": len(rows), **counts}).decode()


def _text(value: Any) -> Any:
    """A moment as Delta writes it; a number as it is."""
    return value if isinstance(value, int) else value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
