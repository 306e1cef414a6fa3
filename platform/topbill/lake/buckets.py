"""By what, beside the experiment, the tables of a lake in an object store are partitioned: a bucket
of units.

All rows of a unit are in the bucket that its id says, so that a cluster takes any question by unit
apart without sending a row from one machine to another. Computed here, since no two engines hash
alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BUCKET = "bucket"
"""The column."""
BUCKETS = 64
FIELD = pa.field(BUCKET, pa.int32())
Rows: TypeAlias = pa.Table | pa.RecordBatchReader
"""Rows at once, or as they come."""


class BucketWalk(Protocol):
    """Goes through the rows of one bucket of units, in the order of `seq`."""

    def take(self, row: Mapping[str, Any]) -> None:
        """The next row."""

    def finish(self) -> bytes:
        """What came of it, after the last one."""


def bucket(unit: str, buckets: int = BUCKETS) -> int:
    """The bucket of a unit, from 0 on.

    >>> bucket("viewer-1")
    36
    """
    return crc32(unit.encode()) % buckets


def with_buckets(rows: Rows) -> Rows:
    """The rows with their units' buckets; those without a unit are of their decision's."""
    if isinstance(rows, pa.Table):
        return _with_buckets(rows)
    batches = (
        batch
        for part in rows
        for batch in _with_buckets(pa.Table.from_batches([part])).to_batches()
    )
    return pa.RecordBatchReader.from_batches(rows.schema.append(FIELD), batches)


def _with_buckets(rows: pa.Table) -> pa.Table:
    units = rows["unit"]
    if units.null_count and "decision_id" in rows.column_names:
        units = pc.coalesce(units, rows["decision_id"])
    # A unit has many rows: hashed once.
    encoded = pc.dictionary_encode(units).unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # without any chunk
        return rows.append_column(FIELD, pa.array([], FIELD.type))
    of = np.array([bucket(unit or "") for unit in encoded.dictionary.to_pylist()], dtype=np.int32)
    places = encoded.indices.to_numpy(zero_copy_only=False)
    return rows.append_column(FIELD, pa.array(of[places] if len(of) else places.astype(np.int32)))


def partitions(columns: Sequence[str], *, by_bucket: bool) -> list[str]:
    """The columns by which a table of these columns is partitioned."""
    # An event of a unit belongs to no experiment: those of tomorrow read it as well.
    names = ["experiment"] if "experiment" in columns else []
    return [*names, BUCKET] if by_bucket else names
