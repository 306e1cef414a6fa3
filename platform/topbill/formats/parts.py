"""Our own columns in Parquet, Arrow and Delta: a file, a folder of parts, a table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

from topbill.domain.errors import BadData
from topbill.formats import arrow_rows
from topbill.formats.rows import Progress, ReadNotes, Row
from topbill.formats.validate_row import validate_row
from topbill.formats.writers import DeltaWriter, Export, PartsWriter
from topbill.lake.exchange import read_delta as delta_batches

# Rows read at once.
_AT_ONCE = 2_000


def read_parquet(
    source: Path,
    key: str,  # noqa: ARG001 (rows name their experiment)
    skip: int,
    progress: Progress,
    notes: ReadNotes,  # noqa: ARG001 (every row is one)
) -> Iterator[Row]:
    """A Parquet file, or a folder of them."""
    batches, total = _parts(source, "parquet")
    return _rows(batches, total, source, "parquet", skip, progress)


def read_arrow(
    source: Path,
    key: str,  # noqa: ARG001
    skip: int,
    progress: Progress,
    notes: ReadNotes,  # noqa: ARG001
) -> Iterator[Row]:
    """An Arrow file, or a folder of them."""
    batches, total = _parts(source, "arrow")
    return _rows(batches, total, source, "arrow", skip, progress)


def read_delta(
    source: Path,
    key: str,  # noqa: ARG001
    skip: int,
    progress: Progress,
    notes: ReadNotes,  # noqa: ARG001
) -> Iterator[Row]:
    """A Delta table."""
    return _rows(delta_batches(source, _AT_ONCE), None, source, "delta", skip, progress)


def write_parquet(export: Export) -> PartsWriter:
    """A folder of Parquet files."""
    return PartsWriter(export.target, ".parquet", write_parquet_file)


def write_arrow(export: Export) -> PartsWriter:
    """A folder of Arrow files."""
    return PartsWriter(export.target, ".arrow", write_arrow_file)


def write_delta(export: Export) -> DeltaWriter:
    """A Delta table."""
    return DeltaWriter(export.target)


def write_parquet_file(table: pa.Table, path: Path) -> None:
    """A table as a Parquet file."""
    pyarrow.parquet.write_table(table, path, compression="zstd")


def write_arrow_file(table: pa.Table, path: Path) -> None:
    """A table as an Arrow file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _parts(source: Path, kind: str) -> tuple[Iterator[pa.RecordBatch], int]:
    """The batches of a file, or of a folder's parts in order, and how many rows there are."""
    try:
        parts = sorted(source.glob(f"*.{kind}")) if source.is_dir() else [source]
        if not parts:
            raise BadData(str(source), f"has no file called *.{kind}; expected an export's parts")
        dataset = pyarrow.dataset.dataset(
            [str(part) for part in parts], format="ipc" if kind == "arrow" else kind
        )
        # One batch and one part ahead, no more: else a large part would fill the memory.
        batches = dataset.to_batches(batch_size=_AT_ONCE, batch_readahead=1, fragment_readahead=1)
        return batches, dataset.count_rows()
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(source, kind, error) from None


def _rows(
    batches: Iterator[pa.RecordBatch],
    total: int | None,
    source: Path,
    kind: str,
    skip: int,
    progress: Progress,
) -> Iterator[Row]:
    """The rows after the first `skip`, checked."""
    rows_read = 0
    while (batch := _next(batches, source, kind)) is not None:
        if rows_read + batch.num_rows > skip:
            rows = arrow_rows.from_table(batch, rows_read)
            for number, row in enumerate(rows, rows_read):
                if number >= skip:
                    yield validate_row(row, f"row {number}")
        rows_read += batch.num_rows
        progress(rows_read, total)


def _next(batches: Iterator[pa.RecordBatch], source: Path, kind: str) -> pa.RecordBatch | None:
    """The next batch. A damaged file is often noticed only here, when its bytes are read."""
    try:
        return next(batches, None)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(source, kind, error) from None


def _unreadable(source: Path, kind: str, error: Exception) -> BadData:
    return BadData(str(source), f"cannot be read ({error}); expected {kind}")
