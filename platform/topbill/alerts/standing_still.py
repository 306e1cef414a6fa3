"""The rules that read no record: whether the record is published, and whether experiments learn.

They are deterministic, so that they have no false alarms of chance: a fault is what has lasted for
longer than a sound worker ever takes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from topbill.alerts.rules import RuleReading
from topbill.log import Heartbeat

STALE_AFTER = 600.0
"""Seconds: an older record is a fault. Two or three are usual."""
SILENT_AFTER = 120.0
"""Seconds without a sign of life after which the worker hangs. It gives one a second."""
STUCK_AFTER = 600.0
"""Seconds for which learning fails before that is a fault: what mends itself wakes nobody."""
_FULL = 20 * 2**20
"""Bytes below which a disk counts as full."""


def record_stale(data: Path, beat: Heartbeat | None, now: int) -> RuleReading:
    """Whether what services store gets into the record; `now` in µs since the epoch."""
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
    elif _is_full(data):
        cause = "disk_full"
    return sound._replace(state="fault", cause=cause, message=message)


def _is_full(data: Path) -> bool:
    try:
        return shutil.disk_usage(data).free < _FULL
    except OSError:
        return False


class LearningWatch:
    """How long each experiment's learning has failed."""

    def __init__(self) -> None:
        self._since: dict[str, int] = {}

    def readings(
        self, keys: Iterable[str], failures: dict[str, str], now: int
    ) -> dict[str, RuleReading]:
        """A reading of each experiment; `failures` says what is wrong with those that cannot
        learn."""
        self._since = {key: self._since.get(key, now) for key in failures}
        readings = {}
        for key in keys:
            reading = RuleReading("learning_stuck", "", "now", "sound")
            if key in failures:
                lasted = (now - self._since[key]) / 1e6
                reading = reading._replace(state="unknown")
                if lasted >= STUCK_AFTER:
                    message = f"Nothing was learned for {lasted / 60:,.0f} min: {failures[key]}."
                    reading = reading._replace(
                        state="fault", cause="learning_fails", message=message
                    )
            readings[key] = reading
        return readings
