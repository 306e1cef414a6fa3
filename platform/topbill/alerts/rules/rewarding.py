"""Reward silence: events stop although decisions go on.

Of each event only those are counted whose decision is of the hour in which they came, or of the one
before. As many are expected for each decision as is usual, of the smaller of the two hours, so that
growing traffic expects nothing that cannot have come yet. The count is compared with a Poisson of a
quarter of that: a false alarm has a chance of `LEVEL` a look wherever rewards stay above a quarter
of what is usual, whatever the hour of the day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from scipy.special import pdtr

from topbill.alerts.rules.look import LEVEL, RecordLook, RuleReading
from topbill.alerts.sums import EventRate, HourSums, shortest_run

SILENT, SOUND = 0.25, 0.5
"""Of what is usual: below the first part an event has stopped, from the second on it comes."""
EXPECTED = 80.0
"""Events that a window expects: without any, their chance at a quarter is below `LEVEL`."""
_NEW, _MORE = 0.02, 4.0
"""An unread event that comes so often for each decision, and so many times as often as is usual, is
one that was renamed."""


class _Count(NamedTuple):
    """Events of a window, and how many were to be expected."""

    event: str
    hours: list[HourSums]
    came: int
    expected: float

    @property
    def is_silent(self) -> bool:
        chance = float(pdtr(self.came, SILENT * self.expected))
        return self.expected >= EXPECTED and chance <= LEVEL

    @property
    def is_sound(self) -> bool:
        return self.expected >= EXPECTED and self.came >= SOUND * self.expected


def reward_silence(look: RecordLook) -> list[RuleReading]:
    """One reading of all events: which of them have stopped."""
    counts = [_count(look, event) for event in sorted(look.events & look.usual.rates.keys())]
    silent = [count for count in counts if count.is_silent]
    if not silent:
        is_sound = any(count.is_sound for count in counts)
        return [RuleReading("reward_silence", "", "window", "sound" if is_sound else "unknown")]
    worst = silent[0]
    listed = ", ".join(
        f"{count.came:,} {count.event} where {count.expected:,.0f} are usual" for count in silent
    )
    cause = _cause(look, counts, silent)
    message = f"Of the decisions of the last {len(worst.hours)} h: {listed}."
    return [RuleReading("reward_silence", "", "window", "fault", cause, message)]


def usual_decisions(before: HourSums | None, hour: HourSums) -> int:
    """Of how many decisions an hour's fresh events are."""
    return hour.decisions if before is None else min(before.decisions, hour.decisions)


def _per_decision(look: RecordLook, event: str) -> float:
    rate = look.usual.rates.get(event, EventRate())
    return rate.events / rate.decisions if rate.decisions else 0.0


def _count(look: RecordLook, event: str) -> _Count:
    per_decision = _per_decision(look, event)
    befores: Sequence[HourSums | None] = [None, *look.hours[:-1]]
    expected = []
    for before, hour in zip(befores, look.hours, strict=True):
        expected.append(per_decision * usual_decisions(before, hour))
    run = shortest_run(look.hours, expected, EXPECTED)
    came = sum(hour.fresh.get(event, 0) for hour in run)
    return _Count(event, run, came, sum(expected[len(expected) - len(run) :]) if run else 0.0)


def _cause(look: RecordLook, counts: Sequence[_Count], silent: Sequence[_Count]) -> str:
    hours = silent[0].hours
    decisions = sum(hour.decisions for hour in hours)
    # An event that nothing reads, and that comes much more often as another stops, is that one.
    unread: Counter[str] = Counter()
    for hour in hours:
        unread.update({event: n for event, n in hour.fresh.items() if event not in look.events})
    for event, came in unread.items():
        if came > decisions * max(_NEW, _MORE * _per_decision(look, event)):
            return "event_renamed"
    others = [count for count in counts if count.is_sound]
    return "event_stopped" if others else "rewards_not_sent"
