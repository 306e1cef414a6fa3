"""The head of the log: what was acknowledged and is not in the tables yet, in one preallocated
file.

A group of rows is one frame, and making it durable is one write and one `fdatasync`: no page of a
B-tree, no lock but the file's. All processes of a data folder append to the same file under an
advisory lock; whoever needs the tables complete drains it into them and starts it anew under the
next generation.

The state file beside it (generation and end) is a hint that lives in the page cache. What counts is
what the tables say was drained and what a frame's checksum proves, so that a power cut at any
moment loses nothing acknowledged.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from topbill.domain.errors import LogError

_HEAD = struct.Struct("<IIQQ")
"""Payload's length, checksum, generation, stamp (µs)."""
_STATE = struct.Struct("<QQ")
_UNSURE = 2**64 - 1
_STEP = 1 << 20
_LARGEST = 64 << 20
"""A journal that nobody drains takes no more than this: at some 700 bytes a decision, 90,000 of
them.
"""


class Rows(NamedTuple):
    """What is to be stored: decisions as (decision_id, experiment, body), events as (decision_id,
    event_id, body).
    """

    decisions: list[tuple[str, str, bytes]]
    events: list[tuple[str, str, bytes]]


class Frame(NamedTuple):
    """Rows that were made durable together at `at` (µs), and where in the file their frame ends."""

    end: int
    at: int
    rows: Rows


_pack = msgspec.msgpack.Encoder().encode
_rows = msgspec.msgpack.Decoder(Rows)


class Journal:
    """One process's handle on the file. Everything but `empty` and `read` is for the holder of
    `locked`.

    `drained` asks the tables for the generation whose frames they do not hold yet.
    """

    def __init__(self, path: Path, drained: Callable[[], int]) -> None:
        self.path = path
        self._drained = drained
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.paths = (path, path.with_suffix(".state"))
        self._lock = os.open(self.paths[1], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            if os.fstat(self._lock).st_size < _STATE.size:
                os.ftruncate(self._lock, _STATE.size)
            self._state = mmap.mmap(self._lock, _STATE.size)
            self._size = os.fstat(self._file).st_size
            self._recover()
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the files; what was written is durable already."""
        self._state.close()
        os.close(self._lock)
        os.close(self._file)

    @property
    def position(self) -> tuple[int, int]:
        """The generation, and where its last frame ends."""
        generation, end = _STATE.unpack_from(self._state)
        return generation, end

    @property
    def certain(self) -> bool:
        """Whether the position can be trusted without the lock."""
        return self.position[1] != _UNSURE

    @property
    def empty(self) -> bool:
        """Whether the tables hold all there is. Without the lock, of a moment ago."""
        return self.position[1] == 0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among all processes; with the end of the file known, whatever the last holder died
        of.
        """
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError as error:
            raise LogError(
                f"{self.path}: cannot lock: {error}; expected a file system that can"
            ) from error
        try:
            if not self.certain:
                self._recover()
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def write(self, rows: Rows, at: int) -> None:
        """Make rows durable. Raises LogError, then nothing of them is stored."""
        generation, end = self.position
        payload = _pack(rows)
        frame = (
            _HEAD.pack(len(payload), _checksum(generation, end, at, payload), generation, at)
            + payload
        )
        after = end + len(frame)
        if end and after > _LARGEST:
            raise LogError(
                f"{self.path}: {end:,} bytes wait to be moved into the log, which doesn't keep up; try later"
            )
        try:
            if after > self._size:
                self._grow(after)
            if os.pwrite(self._file, frame, end) != len(frame):
                raise OSError("the disk took a part of it only")
            os.fdatasync(self._file)
        except OSError as error:
            where = f"{self.path}: cannot write: {error}"
            raise LogError(f"{where}; nothing of this batch was stored") from error
        _STATE.pack_into(self._state, 0, generation, after)

    def read(self, start: int, end: int) -> Iterator[Frame]:
        """The frames of this generation from `start` to `end`. Raises LogError where one is
        damaged.
        """
        generation = self.position[0]
        reached = start
        for frame in self._frames(generation, start, end):
            reached = frame.end
            yield frame
        if reached != end:
            raise LogError(
                f"{self.path}: damaged at byte {reached:,} of {end:,}; the rows before it were read"
            )

    def doubt(self) -> None:
        """Until `restart`, only the tables know which generation they hold: who takes the lock next
        has to ask them.
        """
        _STATE.pack_into(self._state, 0, self.position[0], _UNSURE)

    def restart(self, generation: int) -> None:
        """Begin anew at the start of the file: the tables hold all that was there."""
        _STATE.pack_into(self._state, 0, generation, 0)

    def _recover(self) -> None:
        """Find the end: past the last frame of what the tables don't hold yet."""
        generation, end = self._drained(), 0
        for frame in self._frames(generation, 0, os.fstat(self._file).st_size):
            end = frame.end
        _STATE.pack_into(self._state, 0, generation, end)

    def _frames(self, generation: int, start: int, end: int) -> Iterator[Frame]:
        """Frame after frame, up to the first that is none."""
        while start + _HEAD.size <= end:
            length, checksum, held, at = _HEAD.unpack(os.pread(self._file, _HEAD.size, start))
            after = start + _HEAD.size + length
            if held != generation or after > end:
                return
            payload = os.pread(self._file, length, start + _HEAD.size)
            if _checksum(generation, start, at, payload) != checksum:
                return
            yield Frame(after, at, _rows.decode(payload))
            start = after

    def _grow(self, needed: int) -> None:
        """More of the file, written with zeros: a write into what is there already changes no
        metadata.
        """
        size = os.fstat(self._file).st_size
        while size < needed:
            size += os.pwrite(self._file, bytes(_STEP), size)
        os.fsync(self._file)
        self._size = size


def _checksum(generation: int, start: int, at: int, payload: bytes) -> int:
    """Of the payload at that very place in that very generation: what an older one left there
    doesn't pass.
    """
    return zlib.crc32(payload, zlib.crc32(struct.pack("<QQQ", generation, start, at)))
