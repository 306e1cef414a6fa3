"""Whether files that are open still lie where they were opened: what goes into a deleted one is
lost without a word.
"""

from __future__ import annotations

import os
from pathlib import Path

from topbill.domain.errors import LogError


class Place:
    """Files as they lie at their paths now."""

    def __init__(self, *paths: Path) -> None:
        self._held = {str(path): _identity(str(path)) for path in paths}

    def check(self) -> None:
        """Raises LogError where a path leads to another file now, or to none."""
        for path, held in self._held.items():
            if _identity(path) != held:
                raise LogError(
                    f"{path}: was deleted, moved or replaced while in use; nothing is stored there until it is back; "
                    "to go on with what lies there now, start Topbill again"
                )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
