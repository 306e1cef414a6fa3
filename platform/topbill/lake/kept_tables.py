"""What days add up to, kept in the lake for reports that a Spark Connect server answers: Delta
tables `LAKE/sums/EXPERIMENT/PART-QUESTION`, of which every partition is a day's answer, called
`DAY-STATE-WRITER`. The server writes a day's files into a folder of that name; one commit, made
here, says of many days that they count. Whoever is killed before it leaves files that no version of
the table names.

As the files of `kept` they are no record: all of them can be deleted at any time, and reports make
them anew. They hold units (hashed), so whatever takes units out of the record deletes them.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from hashlib import blake2b
from urllib.parse import quote, unquote
from uuid import uuid4

import pyarrow as pa
from deltalake import DeltaTable
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from topbill.domain.errors import LogError
from topbill.domain.sql import identifier, quoted
from topbill.lake.causes import cause
from topbill.lake.files import files_below
from topbill.lake.kept import OTHERS, SUMS, folder_of
from topbill.lake.places import LakePlace

KEPT = "@kept"
"""The column of a partition's name, which no metric and no feature can have."""
_LOG = "/_delta_log/"
_UNNAMED = 1
"""Hours for which files that no version names stay, since somebody may be writing them."""


class KeptTable:
    """The table of one part of an experiment's report, asked by one question.

    Attributes:
        root: The table's folder, or its URL.
        schema: The columns of its files, which is all of them but the partition's name; None of no
            table.
        names: What the partition is called that counts, by the start of its name: of two that were
            written at the same time, the first by name.

    Raises LogError where it cannot be read.
    """

    def __init__(self, place: LakePlace, key: str, part: str, question: str) -> None:
        asked = blake2b(question.encode(), digest_size=12).hexdigest()
        self._options = place.options
        self._files = files_below(place)
        self._folder = f"{SUMS}/{folder_of(key)}/{part}-{asked}"
        self.root = f"{place.root}/{self._folder}"
        self.read()

    def read(self) -> None:
        """Look at the newest version. Raises LogError."""
        self.schema: pa.Schema | None = None
        self._written, self._paths = dict[str, float](), dict[str, dict[str, int]]()
        with _named(self.root):
            table = _opened(self.root, self._options)
            if table is not None:
                columns = pa.schema(table.schema().to_arrow())
                self.schema = columns.remove(columns.get_field_index(KEPT))
                self._written, self._paths = _written(table), _paths(table)
        self.names: dict[str, str] = {}
        for name in sorted(self._written):
            self.names.setdefault(name.rpartition("-")[0], name)

    def paths(self, names: Collection[str]) -> list[str]:
        """Where the files of these partitions are. Raises LogError where one of them is not there,
        or not whole: there are servers that take it for one without rows.
        """
        sizes = self._files.sizes(self._folder)
        paths = []
        for name in names:
            for path, size in self._paths[name].items():
                if sizes.get(f"{self._folder}/{path}") != size:
                    raise LogError(f"{self.root}/{path}: is not as it was written")
                paths.append(f"{self.root}/{path}")
        return paths

    def folder(self, name: str) -> str:
        """Where the files of a new partition of that name are to be written."""
        return f"{self.root}/{name}"

    def commit(self, names: Collection[str], schema: pa.Schema) -> None:
        """Let new partitions count, whose files have these columns; all of them in one commit.
        Raises LogError.
        """
        start, now = len(self._folder) + 1, int(time.time() * 1e3)
        actions: list[AddAction | RemoveAction] = []
        for path, size in sorted(self._files.sizes(self._folder).items()):
            name, _, file = path[start:].partition("/")
            if name in names and file.endswith(".parquet"):
                values = {KEPT: name}
                actions.append(AddAction(quote(path[start:]), size, values, now, True, "{}"))
        if actions:
            with _named(self.root):
                self._commit(actions, schema.append(pa.field(KEPT, pa.string())))
        self.read()

    def _commit(self, actions: Sequence[AddAction | RemoveAction], schema: pa.Schema) -> None:
        columns = DeltaSchema.from_arrow(schema)
        table = _opened(self.root, self._options)
        if table is None:
            try:
                create_table_with_add_actions(
                    self.root,
                    columns,
                    [action for action in actions if isinstance(action, AddAction)],
                    partition_by=[KEPT],
                    storage_options=self._options,
                )
            except DeltaError:
                # Another report was faster; or it cannot be written, which is said below.
                table = DeltaTable(self.root, storage_options=self._options)
        if table is not None:
            table.create_write_transaction(list(actions), "append", table.schema(), [KEPT])

    def delete_others(self, names: Collection[str]) -> None:
        """Delete what was kept in other states. What is new stays, as another report may be reading
        it. Raises LogError.
        """
        before = time.time() - OTHERS
        old = [name for name, at in self._written.items() if name not in names and at < before]
        if old:
            with _named(self.root):
                _delete(DeltaTable(self.root, storage_options=self._options), old)


def kept_name(day: date, state: str) -> str:
    """The start of a partition's name."""
    return f"{day}-{state}"


def new_name(start: str) -> str:
    """A name with that start which nobody else gives."""
    return f"{start}-{uuid4().hex}"


def forget_tables(place: LakePlace, key: str | None = None) -> None:
    """Delete what is kept in a lake of an experiment, or of all. Raises LogError."""
    files = files_below(place)
    folder = SUMS if key is None else f"{SUMS}/{folder_of(key)}"
    # Delta's own files first: what has none is no table any more.
    for path in sorted(files.sizes(folder), key=lambda path: (_LOG not in path, path)):
        files.delete(path)


def forget_tables_until(place: LakePlace, last: date) -> None:
    """Delete what is kept in a lake of days up to `last`. Raises LogError."""
    logs = [path for path in files_below(place).sizes(SUMS) if _LOG in path]
    for folder in sorted({path.partition(_LOG)[0] for path in logs}):
        root = f"{place.root}/{folder}"
        with _named(root):
            table = DeltaTable(root, storage_options=place.options)
            old = [name for name in _written(table) if name[: len(str(last))] <= str(last)]
            if old:
                _delete(table, old)


def _opened(root: str, options: dict[str, str] | None) -> DeltaTable | None:
    """The table, where there is one."""
    if not DeltaTable.is_deltatable(root, options):
        return None
    return DeltaTable(root, storage_options=options)


def _written(table: DeltaTable) -> dict[str, float]:
    """When each partition was written, in seconds since the epoch."""
    files = pa.table(table.get_add_actions(flatten=True))
    names = files[f"partition.{KEPT}"].to_pylist()
    times = files["modification_time"].to_pylist()
    return {name: at / 1e3 for name, at in zip(names, times, strict=True)}


def _paths(table: DeltaTable) -> dict[str, dict[str, int]]:
    """The bytes of each file of each partition, by its path below the table's folder."""
    paths: dict[str, dict[str, int]] = {}
    for file in pa.table(table.get_add_actions(flatten=True)).to_pylist():
        path = unquote(file["path"])
        paths.setdefault(file[f"partition.{KEPT}"], {})[path] = file["size_bytes"]
    return paths


def _delete(table: DeltaTable, names: Collection[str]) -> None:
    table.delete(f"{identifier(KEPT)} IN ({', '.join(map(quoted, sorted(names)))})")
    table.vacuum(_UNNAMED, dry_run=False, enforce_retention_duration=False)


@contextmanager
def _named(root: str) -> Iterator[None]:
    try:
        yield
    except (OSError, DeltaError) as error:
        raise LogError(
            f"{root}: cannot be used: {cause(error)}; delete it: reports make it anew"
        ) from error
