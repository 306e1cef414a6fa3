"""Delta tables of other people: read in batches, and appended to with a mark of how far an export
has come.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from topbill.domain.errors import LogError

_APP = "topbill.export"


def read_delta(path: Path, rows: int) -> Iterator[pa.RecordBatch]:
    """The table at `path`, at most `rows` rows at a time, file by file in the order of their first
    rows' `decided_at`.

    Raises LogError where it cannot be read.
    """
    try:
        dataset = DeltaTable(str(path)).to_pyarrow_dataset()
        # Exports of 0.1.0 called it `at`.
        time = "decided_at" if "decided_at" in dataset.schema.names else "at"
        files = list(dataset.get_fragments())
        files.sort(key=lambda file: file.head(1, columns=[time])[time].to_pylist())
        for file in files:
            yield from file.to_batches(batch_size=rows)
    except (OSError, DeltaError, pa.ArrowException) as error:
        raise LogError(f"{path}: cannot be read: {error}; expected a Delta table") from error


def delta_position(path: Path) -> int:
    """The `seq` of the last decision that an export to `path` has written; 0 where there is no
    table yet.
    """
    try:
        return DeltaTable(str(path)).transaction_version(_APP) or 0
    except TableNotFoundError:
        return 0
    except (OSError, DeltaError) as error:
        raise LogError(
            f"{path}: cannot be read: {error}; expected a Delta table or nothing there"
        ) from error


def append_delta(path: Path, table: pa.Table, through: int) -> None:
    """Append rows and the `seq` that they reach, as one commit."""
    mark = CommitProperties(app_transactions=[Transaction(_APP, through)])
    try:
        write_deltalake(str(path), table, mode="append", commit_properties=mark)
    except (OSError, DeltaError) as error:
        raise LogError(f"{path}: cannot append rows through {through}: {error}") from error
