"""Whether files that are open still lie where they were opened: what goes into a deleted one is
lost without a word.
"""

from __future__ import annotations

import os
from pathlib import Path

from topbill.domain.errors import LogError

_Identity = tuple[int, int]
"""Device and inode: two files that have both in common are one."""


class FileGuard:
    """Remembers which files lay at some paths when they were opened."""

    def __init__(self, *paths: Path) -> None:
        self._opened = {str(path): _identity(str(path)) for path in paths}

    def check(self) -> None:
        """Raises LogError where a path leads to another file now, or to none."""
        for path, identity in self._opened.items():
            if _identity(path) != identity:
                raise LogError(
                    f"{path}: was deleted, moved or replaced while in use; nothing is stored there "
                    "until it is back; to go on with what lies there now, start Topbill again"
                )


def _identity(path: str) -> _Identity | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
