"""Which units were erased, in `tombstones.jsonl` of the data folder: a salted hash of each, and
when.

A file of its own, so that a copy of it can lie beside the backups: what is restored from before an
erasure holds the unit again, and only this says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from secrets import token_hex

import msgspec

from topbill.domain.durable import with_checksum, without_checksum
from topbill.domain.errors import LogError

TOMBSTONES = "tombstones.jsonl"


class Tombstone(msgspec.Struct, frozen=True):
    """One erased unit: the hash of its id under a salt (hexadecimal digits), the type that was
    named, None for all, and when it was erased (µs since the epoch).
    """

    salt: str
    hash: str
    unit_type: str | None
    at: int

    def is_of(self, unit: str) -> bool:
        """Whether it stands for a unit of that id."""
        return self.hash == _hash(self.salt, unit)


def _hash(salt: str, unit: str) -> str:
    return blake2b(unit.encode(), key=bytes.fromhex(salt), digest_size=16).hexdigest()


def read_tombstones(path: Path) -> list[Tombstone]:
    """Those of a file; none where there is no file. Raises LogError where it can't be read."""
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [msgspec.json.decode(without_checksum(line), type=Tombstone) for line in lines]
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise LogError(
            f"{path}: cannot be read: {error}; expected the {TOMBSTONES} of a data folder"
        ) from error


def new_tombstone(data: Path, unit: str, unit_type: str | None, at: int) -> Tombstone:
    """A unit's, under the salt that the folder has, or a new one."""
    known = read_tombstones(data / TOMBSTONES)
    salt = known[0].salt if known else token_hex(16)
    return Tombstone(salt, _hash(salt, unit), unit_type, at)


def add_tombstones(data: Path, new: Iterable[Tombstone]) -> None:
    """Add some to a folder's file, a unit once; they are on the disk then. Raises LogError."""
    path = data / TOMBSTONES
    by_unit = {}
    for tombstone in (*read_tombstones(path), *new):
        by_unit[tombstone.hash, tombstone.unit_type] = tombstone
    draft = path.with_suffix(".new")
    try:
        with draft.open("wb") as file:
            for each in by_unit.values():
                file.write(with_checksum(msgspec.json.encode(each)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise LogError(f"{path}: cannot be written: {error}; run it again") from error


Mark = tuple[int, int]
"""When the file of tombstones was written, and which file it is."""


def tombstones_mark(data: Path) -> Mark | None:
    """Another answer, another file: units were erased. None where none was. Costs one `stat`."""
    try:
        status = (data / TOMBSTONES).stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino


class ErasedUnits:
    """The tombstones of a data folder, read again when their file changes: a look costs one
    `stat`. Raises LogError where they can't be read.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._mark: Mark | None = None
        self._by_salt: dict[str, dict[str, list[Tombstone]]] = {}

    def is_from_before(self, unit_type: str, unit: str, occurred_at: int | None) -> bool:
        """Whether a unit was erased after something of it happened (µs since the epoch; None for
        now).
        """
        self._follow()
        if occurred_at is None:
            return False
        for salt, by_hash in self._by_salt.items():
            for tombstone in by_hash.get(_hash(salt, unit), ()):
                if tombstone.unit_type in (None, unit_type) and occurred_at <= tombstone.at:
                    return True
        return False

    def _follow(self) -> None:
        mark = tombstones_mark(self._data)
        if mark == self._mark:
            return
        self._by_salt = {}
        for tombstone in read_tombstones(self._data / TOMBSTONES):
            by_hash = self._by_salt.setdefault(tombstone.salt, {})
            by_hash.setdefault(tombstone.hash, []).append(tombstone)
        self._mark = mark
