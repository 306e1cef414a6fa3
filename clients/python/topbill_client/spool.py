"""Rewards and events on disk until the service has them: a file a sender, which the next sender of
the same kind takes over when its own has ended.

A line is the body of one with its event id, so that sending one twice stores it once. What was
added survives the process, however it ends; it is not forced to the disk, so the machine must not
lose its power.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from io import FileIO
from pathlib import Path

import msgspec

from topbill_client.errors import BadRequest

try:
    import fcntl
except (
    ImportError
):  # Windows has no file locks of this kind: the client works there, its spool doesn't
    fcntl = None  # type: ignore[assignment]

_WORTH_SHRINKING = 1_000_000
"""Bytes of what was sent that a file may hold before it is written anew."""
_logger = logging.getLogger("topbill")


class Spool:
    """One sender's file in a folder that senders share. A lock on the file says that its sender is
    alive. `kind` is what its lines are, and the end of its name: `rewards` or `events`.

    Raises BadRequest where the folder cannot be written. Later failures of the disk are said in the
    log once; what is queued then waits in memory only.
    """

    def __init__(self, folder: Path, kind: str = "rewards") -> None:
        if fcntl is None:
            raise BadRequest("spool", "this system has no file locks; expected Linux or macOS")
        self._folder = folder
        self._kind = kind
        self._path = folder / f"{os.getpid()}-{os.urandom(6).hex()}.{kind}"
        self._sent = 0
        self._failed = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._fresh(b"")
        except OSError as error:
            raise BadRequest("spool", f"{error}; expected a folder that can be written") from error

    def take_over(self) -> list[bytes]:
        """What senders left behind; from now on it is this one's."""
        found: list[bytes] = []
        for path in sorted(self._folder.glob(f"*.{self._kind}")):
            if path != self._path:
                found += self._take(path)
        return found

    def _take(self, path: Path) -> list[bytes]:
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file.fileno()).st_nlink == 0:
                    return []
                lines = [line for line in file.read().splitlines() if _whole(line)]
                self.add(*lines)
                if not self._failed:
                    path.unlink()
                return lines
        except OSError:
            return []

    def add(self, *lines: bytes) -> None:
        """Keep what waits."""
        try:
            _write(self._file.fileno(), b"".join(line + b"\n" for line in lines))
        except OSError as error:
            self._give_up(error)

    def sent(self, gone: Iterable[bytes], waiting: Iterable[bytes], empty: bool) -> None:
        """Forget what the service has; `waiting` is what it has not."""
        self._sent += sum(len(line) + 1 for line in gone)
        try:
            if empty:
                os.ftruncate(self._file.fileno(), 0)
                self._sent = 0
            elif (
                self._sent > _WORTH_SHRINKING
                and self._sent > os.fstat(self._file.fileno()).st_size / 2
            ):
                old, self._file = (
                    self._file,
                    self._fresh(b"".join(line + b"\n" for line in waiting)),
                )
                old.close()
                self._sent = 0
        except OSError as error:
            self._give_up(error)

    def close(self, empty: bool) -> None:
        """Leave what waits to the next sender."""
        if empty:
            self._path.unlink(missing_ok=True)
        self._file.close()

    def _fresh(self, content: bytes) -> FileIO:
        """A locked file in place of this sender's. It gets its name once it is locked: others take
        what is not.
        """
        # Senders of both kinds share the folder, so the whole name stands before its new end.
        unnamed = self._path.with_name(f"{self._path.name}.tmp")
        file = unnamed.open("ab", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.ftruncate(file.fileno(), 0)
            _write(file.fileno(), content)
            unnamed.replace(self._path)
        except OSError:
            file.close()
            raise
        return file

    def _give_up(self, error: OSError) -> None:
        if not self._failed:
            _logger.warning("%s: %s; %s wait in memory only", self._path, error, self._kind)
        self._failed = True


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


def _whole(line: bytes) -> bool:
    """Whether it is a body: the last line of a file may be torn, where the disk was full."""
    try:
        return isinstance(msgspec.json.decode(line), dict)
    except msgspec.DecodeError:
        return False
