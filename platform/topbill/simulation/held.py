"""Whether the decisions that a demo was answered are in the log and in the record."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from topbill import lake
from topbill.domain.errors import TopbillError
from topbill.domain.pausing import pause
from topbill.log import open_log_of
from topbill.simulation.driver import Driver

LONGEST = 120.0
"""Seconds that the worker may take to publish the last of them."""
_AT_ONCE = 1_000
"""How many ids are looked up in the log at once."""
_AGAIN = 0.5


class Held(NamedTuple):
    """How many decisions were answered (a whole page is one), and how many of these are where."""

    answered: int
    in_log: int
    in_record: int

    @property
    def lost(self) -> int:
        """How many of those that were answered are not in both."""
        return self.answered - min(self.in_log, self.in_record)

    def sentence(self) -> str:
        """All of it in words."""
        return (
            f"{self.answered:,} decisions answered: {self.in_log:,} in the log, "
            f"{self.in_record:,} in the record, {self.lost:,} lost."
        )


def held(driver: Driver, data: Path, longest: float = LONGEST) -> Held:
    """Look for what a driver was answered in the log of a data folder and in its lake, which gets
    that long (seconds) to have all of it.
    """
    answered, in_log = 0, 0
    ids = iter(driver.decision_ids())
    with open_log_of(data, create=False) as log:
        while some := list(islice(ids, _AT_ONCE)):
            answered += len(some)
            in_log += len(log.decisions(some))
    deadline = time.monotonic() + longest
    while True:
        in_record = _in_record(driver, data)
        if in_record >= answered or time.monotonic() >= deadline:
            return Held(answered, in_log, in_record)
        pause(_AGAIN)


def _in_record(driver: Driver, data: Path) -> int:
    """How many of the answered decisions the lake has."""
    # Each id has the name of the run in it.
    query = f"SELECT decision_id FROM decisions WHERE contains(decision_id, '{driver.name}')"  # noqa: S608
    try:
        found = set(lake.sql(lake.database_of(data), query)["decision_id"].to_pylist())
    except TopbillError:
        return 0  # nothing was published yet
    return sum(decision_id in found for decision_id in driver.decision_ids())
