"""Whether another process over the same log goes by other files than this one."""

from __future__ import annotations

import time
from collections.abc import Mapping

EVERY = 5.0
"""Seconds between two looks."""


class OtherFiles:
    """Tells which experiments run by another process's file.

    A change of files reaches all processes within seconds. So only what differs in the same way at
    two looks is told: then this one goes by other files.
    """

    def __init__(self) -> None:
        self.revisions: dict[str, str] = {}
        """By experiment the revision of the other's file."""
        self._before: dict[str, str] = {}
        self._due = 0.0

    def look(self, differing: Mapping[str, str]) -> None:
        """Look, where it is time; `differing` has what is in the place of a file here."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + EVERY
        self.revisions = dict(differing.items() & self._before.items())
        self._before = dict(differing)
