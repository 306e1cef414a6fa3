"""How DuckDB reads the files of a lake in an object store: as few requests as there can be.

Files of Parquet never change. So their sizes are known from one list of their folder, and small
ones are fetched whole, once, where DuckDB would ask for the end, for the middle, and for the
beginning, each time anew.

Nothing else in Topbill imports `fsspec`.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from datetime import UTC, datetime
from threading import Lock
from typing import Any

from fsspec import AbstractFileSystem

from topbill.lake.objects import ObjectFiles

_SMALL = 8 << 20
"""Bytes up to which a file is fetched whole."""
_KEPT = 128 << 20
"""Bytes of small files that a process keeps."""
_UNCHANGED = datetime(1970, 1, 1, tzinfo=UTC)


class LakeFilesystem(AbstractFileSystem):  # type: ignore[misc]
    """The files below a URL, to be registered in DuckDB; it sees nothing beside them. For any
    number of threads.
    """

    cachable = False

    def __init__(self, files: ObjectFiles) -> None:
        scheme, _, below = files.root.partition("://")
        self.protocol = scheme
        super().__init__()
        self._files = files
        self._start = f"{below}/"
        self._lock = Lock()
        self._sizes: dict[str, int] = {}
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def glob(self, path: str, **_: Any) -> list[str]:
        """A file by its own name; no name stands for several. Raises LogError."""
        return [path] if self.exists(path) else []

    def exists(self, path: str, **_: Any) -> bool:
        """Whether there is such a file. Raises LogError."""
        try:
            self._size(path)
        except FileNotFoundError:
            return False
        return True

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """What fsspec says of a file. Raises FileNotFoundError and LogError."""
        return {"name": path, "size": self._size(path), "type": "file"}

    def unstrip_protocol(self, name: str) -> str:
        """A file's URL."""
        return f"{self.protocol}://{name.removeprefix(f'{self.protocol}://')}"

    def modified(self, _path: str) -> datetime:
        """They never are."""
        return _UNCHANGED

    def open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        """A file to read from. Raises FileNotFoundError, PermissionError and LogError."""
        if mode != "rb":
            raise PermissionError(f"{path}: is only read")
        size, name = self._size(path), self._name(path)
        if size > _SMALL:
            return self._files.reader(name, size)
        with self._lock:
            content = self._kept.get(name)
        if content is None:
            content = self._files.read(name)
            self._keep(name, content)
        return io.BytesIO(content)

    def _keep(self, name: str, content: bytes) -> None:
        with self._lock:
            if name not in self._kept:
                self._kept[name] = content
                self._bytes += len(content)
            while self._bytes > _KEPT:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= len(oldest)

    def _name(self, path: str) -> str:
        """The file's path below the lake."""
        stripped = path.removeprefix(f"{self.protocol}://")
        if not stripped.startswith(self._start):
            raise FileNotFoundError(f"{path}: is not below {self._files.root}")
        return stripped.removeprefix(self._start)

    def _size(self, path: str) -> int:
        name = self._name(path)
        if name not in self._sizes:
            # All of its table: whoever asks for one file asks for the others next.
            self._sizes.update(self._files.sizes(name.partition("/")[0]))
        if name not in self._sizes:
            raise FileNotFoundError(f"{path}: no such file")
        return self._sizes[name]
