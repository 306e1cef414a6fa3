"""Any Delta table as a DuckDB relation: the files of its newest version, no extension needed."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from topbill.domain.errors import LogError
from topbill.domain.sql import quoted
from topbill.lake.causes import cause
from topbill.lake.files import Files, LocalFiles, files_below
from topbill.lake.places import LakePlace


class TablePlace(NamedTuple):
    """Where a table of a lake lies: its name, the files of the lake, and how Delta opens it."""

    name: str
    files: Files
    options: dict[str, str] | None = None

    @property
    def root(self) -> str:
        """The table's folder: an absolute path, or a URL."""
        return f"{self.files.root}/{self.name}"

    def open(self) -> DeltaTable:
        """The table's newest version. Raises OSError and DeltaError."""
        return DeltaTable(self.root, storage_options=self.options)

    def is_there(self) -> bool:
        """Whether a Delta table lies there. Raises LogError."""
        if isinstance(self.files, LocalFiles):
            return is_table(Path(self.root))
        return bool(self.log())

    def log(self) -> list[str]:
        """The paths of Delta's own files, below the lake. Raises LogError."""
        return sorted(self.files.sizes(f"{self.name}/_delta_log"))


def table_of(place: LakePlace, name: str) -> TablePlace:
    """Where the table of that name is in a lake."""
    return TablePlace(name, files_below(place), place.options)


def is_table(folder: Path) -> bool:
    """Whether a Delta table lies in the folder."""
    return (folder / "_delta_log").is_dir()


def files_of(table: DeltaTable, root: str) -> list[str]:
    """The paths or URLs of the Parquet files that make up the table in `root`. Delta names those of
    a folder with it written as in a URL (a space is %20), which is no path.
    """
    own = table.table_uri.removeprefix("file://").rstrip("/")
    return sorted(root + uri.removeprefix("file://").removeprefix(own) for uri in table.file_uris())


def delta_relation(folder: Path) -> str:
    """SQL that reads the newest version of the table in a folder, what was deleted from it left
    out. Raises LogError.
    """
    place = TablePlace(folder.name, LocalFiles(str(folder.parent)))
    relation = relation_of(place)
    if relation is None:
        raise LogError(f"{folder}: holds no rows; expected a Delta table with a log")
    return relation


def relation_of(place: TablePlace) -> str | None:
    """The same of a table of a lake; None where it holds no rows. Raises LogError."""
    try:
        files = files_of(place.open(), place.root)
    except (OSError, DeltaError) as error:
        raise LogError(
            f"{place.root}: cannot be opened: {cause(error)}; expected a Delta table"
        ) from error
    if not files:
        return None
    return f"read_parquet([{', '.join(map(quoted, files))}], hive_partitioning = true)"


class _Checkpoint(msgspec.Struct):
    version: int


_decode_checkpoint = msgspec.json.Decoder(_Checkpoint).decode


def is_newest(place: TablePlace, version: int) -> bool:
    """Whether a version of a table in a folder is known to be its newest one: nearly always it is,
    and a look for one file says so.

    Commits are numbered one after the other, and none is taken away but those that a checkpoint
    holds.
    """
    if not isinstance(place.files, LocalFiles):
        return False
    try:
        if commit_path(place, version + 1).exists():
            return False
        last = (Path(place.root) / "_delta_log" / "_last_checkpoint").read_bytes()
        return _decode_checkpoint(last).version <= version
    except FileNotFoundError:
        return True  # no checkpoint yet
    except (OSError, msgspec.DecodeError):
        return False


def commit_path(place: TablePlace, version: int) -> Path:
    """The file of a commit of a table in a folder."""
    return Path(place.root) / "_delta_log" / f"{version:020}.json"
