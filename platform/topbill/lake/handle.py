"""A Delta table at its newest version, for whoever appends to it again and again.

A commit is a file of JSON lines whose name is its number
(https://github.com/delta-io/delta/blob/master/PROTOCOL.md): whoever makes that file has committed.
In a folder a handle makes it itself, and knows what its own appends added. Delta's library takes
some ms for a commit, as long to read it back, and longer with each commit that lies there, of which
a publisher leaves 1,800 an hour. All but such appends is left to it: streams, object stores,
checkpoints, merges, and reading what others have committed.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from topbill.lake.appending import NULL_PARTITION, WRITER, AddedFile, write_files
from topbill.lake.buckets import Rows
from topbill.lake.delta import TablePlace, commit_path, files_of, is_newest
from topbill.lake.files import LocalFiles

CHECKPOINT_EVERY = 30
"""Commits of a table from one checkpoint to the next. Whoever opens the table reads all commits
since the last one, some 0.3 ms each; a checkpoint costs some 5 ms.
"""
_ATTEMPTS = 4
"""How often a commit is tried, where others commit meanwhile."""
_encode = msgspec.json.Encoder().encode


class TableHandle:
    """For one thread. All raise OSError, DeltaError and LogError."""

    def __init__(self, place: TablePlace, table: DeltaTable) -> None:
        self.place = place
        self._table = table
        self._partitions: list[str] = table.metadata().partition_columns
        self._read()

    def _read(self) -> None:
        """Know what the library's handle knows."""
        self.version = self._table.version()
        """The table's version, as of the last look."""
        self._files: list[str] | None = None
        self._positions: dict[str, int] = {}

    def refresh(self) -> None:
        """Come to the table's newest version. Nearly always it is there, since nobody else commits,
        and one look for the next commit says so.
        """
        if not is_newest(self.place, self.version):
            self.table()

    def table(self) -> DeltaTable:
        """The newest version as Delta's library has it, to read and to commit with."""
        self._table.update_incremental()
        self._read()
        return self._table

    def properties(self) -> dict[str, str]:
        """The table's properties. They change with the versions of others alone."""
        return dict(self._table.metadata().configuration)

    @property
    def partitions(self) -> list[str]:
        """The columns by which it is partitioned."""
        return self._partitions

    def files(self) -> list[str]:
        """The absolute paths, or URLs, of the Parquet files that make up this version, sorted."""
        if self._files is None:
            self._files = files_of(self._table, self.place.root)
        return self._files

    def values(self, partition: str) -> set[str]:
        """What that partition column has in this version, where it has something."""
        folder, found = f"/{partition}=", set()
        for path in self.files():
            _, _, after = path.removeprefix(self.place.root).partition(folder)
            value = after.partition("/")[0]
            if value != NULL_PARTITION:
                found.add(unquote(value))
        return found

    def position(self, application: str) -> int:
        """The version of an application's transactions that the table holds; 0 for none."""
        if application not in self._positions:
            # It stands in the commits, and looking there takes a while.
            self._positions[application] = self._table.transaction_version(application) or 0
        return self._positions[application]

    def append(self, rows: Rows, mark: Transaction) -> list[AddedFile] | None:
        """Append rows in one commit, which sets an application's version too; returns the files
        that it added, where they are known. Whoever is killed before the commit leaves files that
        no version of the table names.

        Raises CommitFailedError too, where others have set that application's version meanwhile.
        """
        properties = CommitProperties(app_transactions=[mark], max_commit_retries=_ATTEMPTS - 1)
        before = self.position(mark.app_id)
        if not isinstance(rows, pa.Table):
            # It may be more than memory holds.
            write_deltalake(
                self._caught_up(mark, before),
                rows,
                mode="append",
                commit_properties=properties,
                writer_properties=WRITER,
            )
            self._read()
            return None
        added = write_files(self.place, rows, self._partitions)
        is_folder = isinstance(self.place.files, LocalFiles)
        if not is_folder or not self._commit(added, mark, before):
            now = int(time.time() * 1e3)
            actions: list[AddAction | RemoveAction] = [
                AddAction(file.path, file.size, file.partition, now, True, file.statistics)
                for file in added
            ]
            self._caught_up(mark, before).create_write_transaction(
                actions,
                "append",
                self._table.schema(),
                self._partitions,
                commit_properties=properties,
            )
            self.table()
        return added

    def _caught_up(self, mark: Transaction, before: int) -> DeltaTable:
        """The newest version, to which Delta's library then compares what others commit still."""
        table = self.table()
        self._refuse_another(mark, before)
        return table

    def _refuse_another(self, mark: Transaction, before: int) -> None:
        """Raises CommitFailedError where an application's version is not that of before any more:
        the rows that are to be appended may be there.
        """
        if self.position(mark.app_id) != before:
            where = self.place.root
            raise CommitFailedError(f"{where}: others have appended as {mark.app_id} meanwhile")

    def _commit(self, added: Sequence[AddedFile], mark: Transaction, before: int) -> bool:
        """Commit files of a folder; False where it takes no links, by which a commit is made."""
        content = self._lines(added, mark)
        for _ in range(_ATTEMPTS):
            path = commit_path(self.place, self.version + 1)
            try:
                if _make(path, content):
                    break
            except OSError:
                return False
            # A merge was faster, of which an append need know nothing; or somebody who appends.
            self.refresh()
            self._refuse_another(mark, before)
        else:
            raise CommitFailedError(f"{path}: others commit again and again")
        files = self.files()
        self.version += 1
        self._files = sorted([*files, *(f"{self.place.root}/{file.path}" for file in added)])
        self._positions[mark.app_id] = mark.version
        if (self.version + 1) % CHECKPOINT_EVERY == 0:
            # A handle never lets go of the commits that it has read; one that is opened now begins
            # at a checkpoint the next time.
            self._table = self.place.open()
            self._table.create_checkpoint()
            self._table.cleanup_metadata()
            self._read()
        return True

    def _lines(self, added: Sequence[AddedFile], mark: Transaction) -> bytes:
        now = int(time.time() * 1e3)
        about = {
            "timestamp": now,
            "operation": "WRITE",
            "operationParameters": {
                "mode": "Append",
                "partitionBy": _encode(self._partitions).decode(),
            },
            "engineInfo": "topbill",
        }
        lines = [_encode({"commitInfo": about})]
        for file in added:
            add = {
                "path": quote(file.path, safe="/="),
                "partitionValues": file.partition,
                "size": file.size,
                "modificationTime": now,
                "dataChange": True,
                "stats": file.statistics,
            }
            lines.append(_encode({"add": add}))
        lines.append(_encode({"txn": {"appId": mark.app_id, "version": mark.version}}))
        return b"\n".join(lines)


def _make(path: Path, content: bytes) -> bool:
    """Make a file that holds this from its first moment on; False where there is one already."""
    draft = path.with_name(f"_commit_{uuid.uuid4()}.json.tmp")
    try:
        draft.write_bytes(content)
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True
