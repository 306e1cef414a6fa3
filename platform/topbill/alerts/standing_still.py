"""The rules that read no record: whether the record is published, and whether experiments learn.

They are deterministic, so that they have no false alarms of chance: a fault is what has lasted for
longer than a sound worker ever takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from topbill.alerts.rules import RuleReading
from topbill.log import Heartbeat

STALE_AFTER = 600.0
"""Seconds: an older record is a fault. Two or three are usual."""
SILENT_AFTER = 120.0
"""Seconds without a sign of life after which the worker hangs. It gives one a second."""
STUCK_AFTER = 600.0
"""Seconds for which learning fails, or is behind, before that is a fault: what mends itself wakes
nobody."""
_FULL = 20 * 2**20
"""Bytes below which a disk counts as full."""


def record_stale(beat: Heartbeat | None, now: int, free: Callable[[], float]) -> RuleReading:
    """Whether what services store gets into the record; `now` in µs since the epoch. `free` says
    how many bytes the disk has left."""
    sound = RuleReading("record_stale", "", "now", "sound")
    if beat is None or not beat.published_at:
        return sound._replace(state="unknown")
    age = (now - beat.published_at) / 1e6
    if age <= STALE_AFTER:
        return sound
    message = f"The record is {age / 60:,.0f} min old: nothing newer is learned from or reported."
    cause = "publishing_fails"
    if (now - beat.at) / 1e6 > SILENT_AFTER:
        cause = "worker_hangs"
    elif free() < _FULL:
        cause = "disk_full"
    return sound._replace(state="fault", cause=cause, message=message)


class LearningTrouble(NamedTuple):
    """Why an experiment does not learn as it should: a code of `domain.reasons.CAUSES`, and a
    message."""

    cause: str
    message: str


class LearningWatch:
    """How long each experiment's learning has been in trouble."""

    def __init__(self) -> None:
        self._since: dict[str, int] = {}

    def readings(
        self, keys: Iterable[str], troubles: Mapping[str, LearningTrouble], now: int
    ) -> dict[str, RuleReading]:
        """A reading of each experiment; `troubles` says what is wrong with those that do not learn
        as they should."""
        self._since = {key: self._since.get(key, now) for key in troubles}
        readings = {}
        for key in keys:
            reading = RuleReading("learning_stuck", "", "now", "sound")
            if key in troubles:
                cause, what = troubles[key]
                lasted = (now - self._since[key]) / 1e6
                reading = reading._replace(state="unknown")
                if lasted >= STUCK_AFTER:
                    message = f"No version was published for {lasted / 60:,.0f} min: {what}."
                    reading = reading._replace(state="fault", cause=cause, message=message)
            readings[key] = reading
        return readings
