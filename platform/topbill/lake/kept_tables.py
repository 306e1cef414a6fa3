"""What days add up to, kept in the lake for reports that a Spark Connect server answers: Delta
tables `LAKE/sums/EXPERIMENT/PART-QUESTION`, of which every partition is a day's answer, called
`DAY-STATE-WRITER`.

As the files of `kept` they are no record: all of them can be deleted at any time, and reports make
them anew. They hold units (hashed), so whatever takes units out of the record deletes them.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import date
from hashlib import blake2b
from uuid import uuid4

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

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
        version: Its newest version as of the last look; -1 of no table.
        names: What the partition is called that counts, by the start of its name: of two that were
            written at the same time, the first by name.

    Raises LogError where it cannot be read.
    """

    def __init__(self, place: LakePlace, key: str, part: str, question: str) -> None:
        asked = blake2b(question.encode(), digest_size=12).hexdigest()
        self._options = place.options
        self.root = f"{place.root}/{SUMS}/{folder_of(key)}/{part}-{asked}"
        self.read()

    def read(self) -> None:
        """Look at the newest version. Raises LogError."""
        self.version, self._written = -1, dict[str, float]()
        with _named(self.root):
            table = _opened(self.root, self._options)
            if table is not None:
                self.version, self._written = table.version(), _written(table)
        self.names: dict[str, str] = {}
        for name in sorted(self._written):
            self.names.setdefault(name.rpartition("-")[0], name)

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
