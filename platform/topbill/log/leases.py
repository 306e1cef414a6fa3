"""Leases of the embedded log: locks on files, which the kernel frees however a process ends."""

from __future__ import annotations

import fcntl
from pathlib import Path

from topbill.domain.errors import Conflict, LogError
from topbill.log.file_guard import FileGuard
from topbill.log.protocol import Lease


class FileLease(Lease):
    """The lock on a file, which is made where there is none. A child process that is given the file
    has it with its parent: it is free when both have ended.

    Raises:
        Conflict: Another holder has it, alone or because this one wants it alone.
        LogError: The file cannot be opened.
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w")
        except OSError as error:
            raise LogError(
                f"{path.parent}: {error.strerror}; expected a folder to write to"
            ) from error
        try:
            fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise Conflict(f"{path}: another process holds it") from error
        self._guard = FileGuard(path)

    def fileno(self) -> int:
        """The descriptor by which it is held."""
        return self._file.fileno()

    def check(self) -> None:
        """Raises LogError where the file is another one now."""
        self._guard.check()

    def release(self) -> None:
        """Give it back."""
        self._file.close()
