"""The head of the log: what was acknowledged and is not in the tables yet, in one preallocated
file.

A group of rows is one frame, and making it durable is one write and one `fdatasync`: no page of a
B-tree, no lock but the file's. All processes of a data folder append to the same file under an
advisory lock; whoever needs the tables complete drains it into them and starts it anew under the
next generation.

    log.journal   ┌ frame ┬ frame ┬ frame ┬──── what an earlier generation left, or zeros ────┐
                  0                       end
    log.state     generation | end | damage | moved    (memory-mapped: 32 bytes that all
                                                         processes share)

Draining moves the frames up to a byte, which the tables note in the same transaction; meanwhile
others go on writing behind it. Only once in many megabytes does it wait for nobody to write, and
start the file anew.

The state file is a hint that lives in the page cache. What counts is what the tables say was
drained and what a frame's checksum proves, so that a power cut at any moment loses nothing
acknowledged:

- before the frame is synced: nobody was told that it is stored, and its checksum fails;
- between the sync and the state: `_recover` finds the frame, which nobody relies on and nobody
  misses, since its caller sends the same ids again;
- while draining: the rows, and the byte up to which they were moved or the next generation, are one
  transaction of the tables. If it did not happen, the frames lie behind what was moved before; if
  it did, they lie before that byte or are of an older generation.

A frame that was made durable and cannot be read any more is damage, and damage is an error for
everybody until it is mended: what is written behind it would look safe and be found by nobody. It
shows in three ways: frames of this generation lie behind the place (each was written when all
before it were durable); the state, of this generation, knows of a later end; or the first frame is
neither of this generation nor of the one before, so that the file belongs to other tables.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from topbill.domain.errors import LogError
from topbill.log import frames
from topbill.log.entries import Rows

_STATE = struct.Struct("<QQ")
"""Generation, end."""
_DAMAGE = struct.Struct("<Q")
"""Behind the state: 0, or one more than the byte from which frames cannot be read."""
_MOVED = struct.Struct("<Q")
"""Behind that: up to which byte the tables hold the generation's frames."""
_MOVED_AT = _STATE.size + _DAMAGE.size
_SHARED = _MOVED_AT + _MOVED.size
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


class Journal:
    """One process's handle on the file. Everything but `empty` and `read` is for the holder of
    `locked`.

    `drained` asks the tables up to where they hold its frames: all of earlier generations, and that
    one's up to that byte.
    """

    def __init__(self, path: Path, drained: Callable[[], Position]) -> None:
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
            if os.fstat(self._lock).st_size < _SHARED:
                os.ftruncate(self._lock, _SHARED)
            self._state = mmap.mmap(self._lock, _SHARED)
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
    def drained(self) -> Position:
        """Up to where the tables hold its frames. Without the lock, of a moment ago: they may hold
        more.
        """
        # In this order: what was moved of a later generation is never more than is there of it, and
        # who reads frames by it looks again with the lock.
        generation = self.position[0]
        (moved,) = _MOVED.unpack_from(self._state, _MOVED_AT)
        return generation, moved

    @property
    def empty(self) -> bool:
        """Whether the tables hold all there is. Without the lock, of a moment ago."""
        return self.position == self.drained

    @property
    def is_long(self) -> bool:
        """Whether it should be started anew, long before it is full."""
        return self.position[1] >= _LARGEST // 8

    def check(self) -> None:
        """Raises LogError where somebody found it damaged."""
        (damaged,) = _DAMAGE.unpack_from(self._state, _STATE.size)
        if damaged:
            raise self._damage(damaged - 1)

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
            self.check()
            if not self.certain:
                self._recover()
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def write(self, rows: Rows, at: int) -> None:
        """Make rows durable. Raises LogError, then nothing of them is stored."""
        generation, start = self.position
        frame = frames.pack(generation, start, at, frames.payload_of(rows))
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

    def read(self, start: int, end: int) -> Iterator[frames.Frame]:
        """The frames of this generation from `start` to `end`. Raises LogError where one is
        damaged, and from then on nobody writes.
        """
        generation = self.position[0]
        reached = start
        for frame in frames.frames(self._file, generation, start, end):
            reached = frame.end
            yield frame
        if reached != end:
            raise self._damage(reached)

    def doubt(self) -> None:
        """Until `restart`, only the tables know which generation they hold: who takes the lock next
        has to ask them.
        """
        _STATE.pack_into(self._state, 0, self.position[0], _UNSURE)

    def note_moved(self, end: int) -> None:
        """The tables hold its frames up to that byte."""
        _MOVED.pack_into(self._state, _MOVED_AT, end)

    def restart(self, generation: int) -> None:
        """Begin anew at the start of the file: the tables hold all that was there."""
        # In this order: who looks in between takes what the tables hold for what they may not.
        self.note_moved(0)
        _STATE.pack_into(self._state, 0, generation, 0)

    def wipe(self) -> None:
        """Overwrite with zeros what earlier generations left behind the end. Raises LogError."""
        try:
            size = os.fstat(self._file).st_size
            for start in range(self.position[1], size, _STEP):
                os.pwrite(self._file, bytes(min(_STEP, size - start)), start)
            os.fsync(self._file)
        except OSError as error:
            raise LogError(f"{self.path}: cannot be overwritten: {error}; run it again") from error

    def _recover(self) -> None:
        """Find the end: past the last frame of what the tables don't hold yet. Raises LogError
        where there is damage.
        """
        generation, moved = self._drained()
        # What the tables hold need not be there any more.
        end = moved
        size = os.fstat(self._file).st_size
        for frame in frames.frames(self._file, generation, moved, size):
            end = frame.end
        noted, noted_end = self.position
        is_cut = noted == generation and noted_end != _UNSURE and noted_end > end
        if is_cut or next(frames.frames_behind(self._file, generation, end), None) is not None:
            raise self._damage(end)
        first = frames.frame_at(self._file, 0, size)
        # None of this generation is there yet: then the first is what was drained last.
        of_these = (generation - 1,) if moved == 0 else (generation - 1, generation)
        if end == moved and first is not None and first.generation not in of_these:
            raise LogError(
                f"{self.path}: belongs to another log: it holds rows that "
                f"{self.path.with_suffix('.sqlite').name} does not know of; put the two files that "
                "belong together back, or take what it holds over with `topbill verify --files "
                "--repair`"
            )
        _DAMAGE.pack_into(self._state, _STATE.size, 0)
        self.note_moved(moved)
        _STATE.pack_into(self._state, 0, generation, end)

    def _damage(self, byte: int) -> LogError:
        """Note for all processes that frames cannot be read from `byte` on."""
        _DAMAGE.pack_into(self._state, _STATE.size, byte + 1)
        return LogError(
            f"{self.path}: damaged at byte {byte:,}; what was stored before that is sure, and "
            "nothing more is stored; take over what can still be read with `topbill verify "
            "--files --repair`"
        )

    def _grow(self, needed: int) -> None:
        """More of the file, written with zeros: a write into what is there already changes no
        metadata, and `fdatasync` then syncs the data alone.
        """
        size = os.fstat(self._file).st_size
        while size < needed:
            size += os.pwrite(self._file, bytes(_STEP), size)
        os.fsync(self._file)
        self._size = size


def reset_state(file: int, generation: int) -> None:
    """Let who takes the lock next look for the end, in the file that lies there then. `file` is the
    state's descriptor, locked.
    """
    os.pwrite(file, _STATE.pack(generation, _UNSURE) + bytes(_SHARED - _STATE.size), 0)
