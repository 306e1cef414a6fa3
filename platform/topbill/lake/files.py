"""The files of a lake, whatever it lies in: a folder, or an object store."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from topbill.domain.errors import LogError
from topbill.domain.lake_url import LAKE_VARIABLE
from topbill.lake.places import Environment, LakePlace, store_environment

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection as Connection

    from topbill.lake.filesystem import LakeFilesystem
    from topbill.lake.objects import ObjectFiles


class Files(Protocol):
    """The files below a root. Paths are relative to it, with slashes.

    All raise LogError where that fails.
    """

    root: str

    def sizes(self, folder: str) -> dict[str, int]:
        """The bytes of each file below a folder."""

    def read(self, path: str) -> bytes:
        """What a file holds."""

    def write(self, path: str, content: bytes) -> None:
        """Have a file hold this, whole or as before."""

    def add(self, path: str, content: bytes | memoryview) -> None:
        """Make a new file, which nobody reads before it is named somewhere: who is killed leaves
        any part of it.
        """

    def delete(self, path: str) -> None:
        """Delete a file, where it is there."""

    def rename(self, path: str, name: str) -> None:
        """Give a file another path."""


class LocalFiles:
    """Those of a folder; see `Files`."""

    def __init__(self, root: str) -> None:
        self.root = root

    def sizes(self, folder: str) -> dict[str, int]:
        """The bytes of each file below a folder."""
        start = len(self.root.rstrip("/")) + 1
        found = {}
        for inner, _, names in os.walk(os.path.join(self.root, folder)):
            for name in names:
                path = os.path.join(inner, name)
                try:
                    found[path[start:]] = os.stat(path).st_size
                except FileNotFoundError:  # a merge beside this has replaced it
                    continue
        return found

    def read(self, path: str) -> bytes:
        """What a file holds."""
        try:
            return Path(self.root, path).read_bytes()
        except OSError as error:
            raise LogError(f"{self.root}/{path}: cannot be read: {error.strerror}") from error

    def write(self, path: str, content: bytes) -> None:
        """Have a file hold this, whole or as before."""
        target = Path(self.root, path)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(content)
            draft.replace(target)
        except OSError as error:
            raise LogError(f"{target}: cannot be written: {error.strerror}") from error

    def add(self, path: str, content: bytes | memoryview) -> None:
        """Make a new file."""
        target = Path(self.root, path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        except OSError as error:
            raise LogError(f"{target}: cannot be written: {error.strerror}") from error

    def delete(self, path: str) -> None:
        """Delete a file, where it is there."""
        try:
            Path(self.root, path).unlink(missing_ok=True)
        except OSError as error:
            raise LogError(f"{self.root}/{path}: cannot be deleted: {error.strerror}") from error

    def rename(self, path: str, name: str) -> None:
        """Give a file another path."""
        try:
            Path(self.root, path).replace(Path(self.root, name))
        except OSError as error:
            raise LogError(f"{self.root}/{path}: cannot be renamed: {error.strerror}") from error


def files_below(place: LakePlace) -> Files:
    """The files of the lake there."""
    return objects_below(place) if place.is_store else LocalFiles(place.root)


def objects_below(place: LakePlace) -> ObjectFiles:
    """The files of a lake that was said by a URL. Raises LogError where the library for it is not
    installed, and what its environment says makes no sense.
    """
    return _objects(place.root, store_environment(), os.getpid())


@lru_cache(maxsize=4)
def _objects(root: str, _environment: Environment, _process: int) -> ObjectFiles:
    try:
        # An extra, and nobody else needs to wait for its import.
        from topbill.lake.objects import ObjectFiles
    except ImportError as error:
        raise _missing(error) from error
    return ObjectFiles(root)


def let_read(connection: Connection, url: str) -> None:
    """Have a connection of DuckDB read what lies below a URL. Raises LogError where the library for
    it is not installed.
    """
    connection.register_filesystem(_filesystem(url, store_environment(), os.getpid()))
    # A round trip for each column costs more than bytes that are copied once more.
    connection.execute("SET disable_parquet_prefetching = false")


@lru_cache(maxsize=4)
def _filesystem(url: str, environment: Environment, process: int) -> LakeFilesystem:
    files = _objects(url, environment, process)
    try:
        from topbill.lake.filesystem import LakeFilesystem
    except ImportError as error:
        raise _missing(error) from error
    return LakeFilesystem(files)


def _missing(error: ImportError) -> LogError:
    return LogError(
        f"{LAKE_VARIABLE}: a lake at a URL needs obstore and fsspec ({error}); install them: "
        "pip install 'topbill[objects]'"
    )
