"""A table's rows read by Arrow alone, in the order of the log, for whoever writes them again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable

from topbill.lake.delta import files_of

_BATCH = 50_000


def dataset_of(table: DeltaTable, where: Path) -> ds.FileSystemDataset:
    """The table's files, read by Arrow alone: while Delta writes, it can't read through itself."""
    partitions = ds.partitioning(pa.schema({"experiment": pa.string()}), flavor="hive")
    return ds.dataset(
        files_of(table, str(where)),
        schema=table.to_pyarrow_dataset().schema,
        format="parquet",
        partitioning=partitions,
    )


def batches(
    dataset: ds.FileSystemDataset, columns: list[str], renamed: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """The rows, each file's as they are, in the order of the files' first rows: so that what was
    written together stays together, and a condition on `seq` or time still leaves files out."""
    fragments = list(dataset.get_fragments())
    fragments.sort(key=_first_seq)
    ordered = ds.FileSystemDataset(
        fragments, dataset.schema, dataset.format, filesystem=dataset.filesystem
    )
    # One thread, in order: what is held in memory is some batches, however large the table is.
    for batch in ordered.to_batches(columns=columns, batch_size=_BATCH, use_threads=False):
        yield pa.RecordBatch.from_arrays(batch.columns, schema=renamed)


def _first_seq(fragment: ds.Fragment) -> int:
    rows = fragment.head(1, columns=["seq"])["seq"].to_pylist()
    return int(rows[0]) if rows else 0
