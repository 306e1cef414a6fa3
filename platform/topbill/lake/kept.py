"""Files of what days add up to, kept beside the lake for reports: `DIR/sums/EXPERIMENT/PART`, a
Parquet file a day, called `DAY-STATE-CHECKSUM.parquet`.

They are no record. All of them can be deleted at any time, and reports make them anew; they hold
units (hashed), so whatever takes units out of the record deletes them.
"""

from __future__ import annotations

import shutil
import time
import zlib
from collections.abc import Callable, Collection, Iterator
from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from topbill.domain.durable import sealed, unsealed

Index = TypeVar("Index", bound=dict[str, Any])
SUMS = "sums"
"""The folder inside a data folder."""
OTHERS = 600.0
"""Seconds for which files that one report does not read stay, as another one may."""
_PATTERN = "*/*/*.parquet"


class DamagedSumsError(Exception):
    """A kept file is not as it was written."""


class KeptFiles:
    """The files of one part of an experiment's report.

    Raises:
        OSError: where the folder cannot be made or read.
    """

    def __init__(self, data: Path, key: str, part: str) -> None:
        self._folder = _folder(data, key) / part
        self._folder.mkdir(parents=True, exist_ok=True)
        self._present = {_name_of(path): path for path in self._folder.glob("*.parquet")}

    def path(self, day: date, state: str, write: Callable[[Path], None]) -> Path:
        """The file of a day in a state, which `write` writes where there is none yet.

        Raises:
            DamagedSumsError: It is not as it was written.
        """
        name = f"{day}-{state}"
        path = self._present.get(name)
        if path is not None:
            check(path)
            return path
        temporary = self._folder / f".{name}-{time.time_ns()}"
        write(temporary)
        path = self._folder / f"{name}-{_checksum(temporary)}.parquet"
        # What a power cut leaves of it has another checksum.
        temporary.replace(path)
        self._present[name] = path
        return path

    def delete_others(self, paths: Collection[Path]) -> None:
        """Delete what was kept in other states."""
        before = time.time() - OTHERS
        for path in set(self._folder.iterdir()).difference(paths):
            try:
                if path.stat().st_mtime < before:
                    path.unlink()
            except FileNotFoundError:  # another report was faster
                continue


class KeptIndex(Generic[Index]):
    """What is kept of the lake's own files, for an experiment and a question: one file of a type,
    behind its checksum."""

    def __init__(self, data: Path, key: str, question: str, kind: type[Index]) -> None:
        name = blake2b(question.encode(), digest_size=12).hexdigest()
        self._path = _folder(data, key) / f"{name}.index"
        self._kind = kind

    def read(self) -> Index:
        """What was kept; nothing where there is none, or it is damaged."""
        try:
            content = unsealed(self._path.read_bytes())
            kept: Index = msgspec.msgpack.decode(content, type=self._kind)
        except (FileNotFoundError, ValueError, msgspec.DecodeError):
            return self._kind()
        return kept

    def write(self, content: Index) -> None:
        """Keep this instead. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(f".{time.time_ns()}")
        temporary.write_bytes(sealed(msgspec.msgpack.encode(content)))
        temporary.replace(self._path)


def check(path: Path) -> None:
    """Raises DamagedSumsError where a kept file is not as it was written."""
    if path.stem.rpartition("-")[2] != _checksum(path):
        raise DamagedSumsError(f"{path}: is not as it was written; the next report makes it anew")


def kept_files(data: Path) -> Iterator[Path]:
    """All that is kept in a data folder."""
    yield from sorted((data / SUMS).glob(_PATTERN))


def forget(data: Path, key: str | None = None) -> None:
    """Delete what is kept of an experiment, or of all."""
    shutil.rmtree(data / SUMS if key is None else _folder(data, key), ignore_errors=True)


def forget_until(data: Path, last: date) -> None:
    """Delete what is kept of days up to `last`."""
    for path in kept_files(data):
        if path.name[: len(str(last))] <= str(last):
            path.unlink(missing_ok=True)


def folder_of(key: str) -> str:
    """What an experiment's folder is called: by a hash, as a key may be too long for a name, or no
    name that a system allows."""
    return blake2b(key.encode(), digest_size=12).hexdigest()


def _folder(data: Path, key: str) -> Path:
    return data / SUMS / folder_of(key)


def _name_of(path: Path) -> str:
    return path.stem.rpartition("-")[0]


def _checksum(path: Path) -> str:
    return f"{zlib.crc32(path.read_bytes()):08x}"
