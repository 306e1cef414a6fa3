"""The log's own time, which never falls and never leaps, whatever the machine's clock does.

A row is stamped in log time: what must follow an order or an age (learning, barriers, letting go)
goes by it alone. While the clock is right the two are equal. Where the clock goes back, or leaps
ahead of what has passed by a clock that nobody sets, log time goes on as if nothing had happened,
and the difference is noted as a step. A row is read with the time that the clock gave it: its stamp
less the difference of then. So a day that the clock was wrong for is wrong by that day, and nothing
else is.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

TOLERANCE = 300_000_000
"""µs by which clocks may differ or be set without a word: what comes meanwhile is stamped in its
order, each group a microsecond after the one before.
"""
SETTLED = 60_000_000
"""µs after a step after which the clock is trusted again."""
_FOR_EVER = 2**62


class ClockStep(NamedTuple):
    """From log time `at` on, the log is `offset` µs ahead of the machine's clock. `decisions` and
    `events` are the last `seq`s before it."""

    at: int
    offset: int
    decisions: int
    events: int


def now_steady() -> int:
    """Microseconds of a clock that nobody sets, and that goes on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1_000


class Stamps:
    """Turns readings of the clock into stamps, in the order of the log.

    Args:
        newest: The last stamp.
        offset: How far log time is ahead of the clock, µs.
        latest: What log time can be by now, as far as anybody knows.
    """

    def __init__(self, newest: int, offset: int, latest: int = _FOR_EVER) -> None:
        self.newest = newest
        self.offset = offset
        self.latest = latest
        self.stepped = False
        """Whether the last stamp begins a step."""

    def of(self, reading: int) -> int:
        """The stamp of what the clock's reading is of."""
        stamp = reading + self.offset
        self.stepped = self.is_off(reading)
        if self.stepped:
            stamp = self.newest + 1
            if self.latest != _FOR_EVER:
                stamp = max(stamp, self.latest)
            self.offset = stamp - reading
        elif stamp < self.newest:
            stamp = self.newest + 1
        self.newest = stamp
        return stamp

    def is_off(self, reading: int) -> bool:
        """Whether a reading of the clock is neither near the last stamp nor after it as time is."""
        stamp = reading + self.offset
        return stamp < self.newest - TOLERANCE or stamp > max(self.latest, self.newest) + TOLERANCE


def boot_id() -> str:
    """What tells one boot of this machine, for which the steady clock goes on, from another; empty
    where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class LogTimePrediction:
    """What log time is by now, by the clock that nobody sets: from the first look of this process
    on, or of one before it, if the machine was not started since."""

    def __init__(self) -> None:
        self._seen: tuple[int, int] | None = None

    @property
    def is_known(self) -> bool:
        """Whether there was a look."""
        return self._seen is not None

    def latest(self, steady: int) -> int:
        """Log time at a reading of the steady clock."""
        return _FOR_EVER if self._seen is None else self._seen[0] + steady - self._seen[1]

    def see(self, stamp: int, steady: int) -> None:
        """Note log time as it is now. One that can't be is not believed."""
        if abs(stamp - self.latest(steady)) <= TOLERANCE or self._seen is None:
            self._seen = stamp, steady


def offset_at(steps: Sequence[ClockStep], at: int) -> int:
    """How far the log was ahead of the clock at a log time."""
    index = bisect_right(steps, at, key=lambda step: step.at)
    return steps[index - 1].offset if index else 0


def offset_sql(steps: Sequence[ClockStep], seq: str, kind: str) -> str:
    """SQL for how far the log was ahead of the clock at a row; `kind` is `decisions` or
    `events`."""
    sql = "0"
    for step in steps:
        sql = f"CASE WHEN {seq} > {getattr(step, kind)} THEN {step.offset} ELSE {sql} END"
    return sql


def trouble(steps: Sequence[ClockStep], now: int, within: int) -> str | None:
    """What to say of the last step, if it is not `within` µs ago at log time `now`."""
    if not steps or now - steps[-1].at >= within:
        return None
    step = steps[-1]
    jump = offset_at(steps[:-1], step.at) - step.offset
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=step.at - step.offset)
    way = "ahead" if jump > 0 else "back"
    return (
        f"the machine's clock went {way} by {timedelta(seconds=abs(jump) // 1_000_000)}, to "
        f"{moment:%Y-%m-%dT%H:%M:%SZ}; rows have the times that it gives them, the log goes on in "
        "their order. Set the clock right, if it isn't"
    )
