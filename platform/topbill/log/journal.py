"""The head of the log: what was acknowledged and is not in the tables yet, in one preallocated
file.

A group of rows is one frame, and making it durable is one write and one `fdatasync`: no page of a
B-tree, no lock but the file's. All processes of a data folder append to the same file under an
advisory lock; whoever needs the tables complete drains it into them and starts it anew under the
next generation.

    log.journal   ┌ frame ┬ frame ┬ frame ┬──── what an earlier generation left, or zeros ────┐
                  0                       end
    frame         length | checksum | generation | stamp | payload
    log.state     generation | end        (memory-mapped: 16 bytes that all processes share)

The state file is a hint that lives in the page cache. What counts is what the tables say was
drained and what a frame's checksum proves, so that a power cut at any moment loses nothing
acknowledged:

- before the frame is synced: nobody was told that it is stored, and its checksum fails;
- between the sync and the state: `_recover` finds the frame, which nobody relies on and nobody
  misses, since its caller sends the same ids again;
- while draining: the rows and the next generation are one transaction of the tables. If it did not
  happen, the frames are still of the current generation; if it did, they are of an older one.
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
from typing import NamedTuple, TypeAlias

import msgspec

from topbill.domain.errors import LogError
from topbill.log.entries import Rows

_HEAD = struct.Struct("<IIQQ")
"""Payload's length, checksum, generation, stamp (µs)."""
_CHECKED = struct.Struct("<QQQ")
"""What the checksum covers beside the payload: generation, start, stamp."""
_STATE = struct.Struct("<QQ")
"""Generation, end."""
_UNSURE = 2**64 - 1
"""The end that says: ask the tables which generation they hold."""
_STEP = 1 << 20
"""Bytes by which the file grows."""
_LARGEST = 64 << 20
"""A journal that nobody drains takes no more than this: at some 700 bytes a decision, 90,000 of
them.
"""

Position: TypeAlias = tuple[int, int]
"""A generation, and a byte of its frames."""


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
        self.paths = (path, path.with_suffix(".state"))
        self._drained = drained
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._lock = os.open(self.paths[1], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            os.close(self._file)
            raise
        try:
            self._attach()
        except BaseException:
            os.close(self._lock)
            os.close(self._file)
            raise

    def _attach(self) -> None:
        """Map the state and find the end, alone among all processes."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            if os.fstat(self._lock).st_size < _STATE.size:
                os.ftruncate(self._lock, _STATE.size)
            self._state = mmap.mmap(self._lock, _STATE.size)
            self._size = os.fstat(self._file).st_size
            # Whatever the state says: it may be of before a power cut, or of another folder.
            self._recover()
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the files; what was written is durable already."""
        self._state.close()
        os.close(self._lock)
        os.close(self._file)

    @property
    def position(self) -> Position:
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
            # The kernel takes the lock back from a process that dies, however it dies.
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
        generation, start = self.position
        # Without its last field where that is empty: so an earlier version, which knows no events
        # of units, reads what a later one wrote as long as none came.
        payload = _pack(rows if rows.unit_events else rows[:2])
        checksum = _checksum(generation, start, at, payload)
        frame = _HEAD.pack(len(payload), checksum, generation, at) + payload
        end = start + len(frame)
        # Back-pressure: a journal that grows means that nobody drains. One frame is always taken,
        # so that a group larger than the limit is not refused for ever.
        if start and end > _LARGEST:
            raise LogError(
                f"{self.path}: {start:,} bytes wait to be moved into the log, which doesn't keep "
                "up; try later"
            )
        try:
            if end > self._size:
                self._grow(end)
            if os.pwrite(self._file, frame, start) != len(frame):
                raise OSError("the disk took a part of it only")
            os.fdatasync(self._file)
        except OSError as error:
            # The end stays where it was, so the next frame goes over what got there of this one.
            raise LogError(
                f"{self.path}: cannot write: {error}; nothing of this batch was stored"
            ) from error
        # Last, for other processes read up to here without the lock.
        _STATE.pack_into(self._state, 0, generation, end)

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
            head = os.pread(self._file, _HEAD.size, start)
            length, checksum, frame_generation, at = _HEAD.unpack(head)
            frame_end = start + _HEAD.size + length
            # The length is not proven yet: an older generation's bytes, or torn ones, may say
            # anything, and must not make us read gigabytes.
            if frame_generation != generation or frame_end > end:
                return
            payload = os.pread(self._file, length, start + _HEAD.size)
            if _checksum(generation, start, at, payload) != checksum:
                return
            yield Frame(frame_end, at, _rows.decode(payload))
            start = frame_end

    def _grow(self, needed: int) -> None:
        """More of the file, written with zeros: a write into what is there already changes no
        metadata, and `fdatasync` then syncs the data alone.
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
    return zlib.crc32(payload, zlib.crc32(_CHECKED.pack(generation, start, at)))
