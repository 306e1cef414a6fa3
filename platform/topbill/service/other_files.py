"""Whether another process over the same log goes by other files than this one."""

from __future__ import annotations

import time
from collections.abc import Mapping

from topbill.log import Log

EVERY = 5.0
"""Seconds between two looks."""


class OtherFiles:
    """Compares what this process runs with what was noted last in the audit, by any of them.

    A change of files or an order reaches all processes within seconds. So only what differs in the
    same way at two looks is told: then the last to note it goes by other files.
    """

    def __init__(self) -> None:
        self.revisions: dict[str, str] = {}
        """By experiment the revision that another process runs."""
        self._before: dict[str, str] = {}
        self._due = 0.0

    def look(self, log: Log, own: Mapping[str, str]) -> None:
        """Look, where it is time; `own` has the revision of each experiment that runs here."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + EVERY
        newest = log.newest_revisions()
        differing = {}
        for key, revision in own.items():
            if newest.get(key, revision) != revision:
                differing[key] = newest[key]
        self.revisions = dict(differing.items() & self._before.items())
        self._before = differing
