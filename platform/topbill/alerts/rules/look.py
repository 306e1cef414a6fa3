"""What a rule is given, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Literal, NamedTuple

from topbill.alerts.sums import HOUR, HourSums, UsualSums, shortest_run
from topbill.domain.alarm import AlarmKind

LEVEL = 1e-7
"""The chance, at most, that one look of a rule at a sound record says that it is at fault."""
LOG_LEVEL = -log(LEVEL)
CALM_LOG_E = log(20.0)
"""Evidence below which a look is called sound."""
LEAST = 500
"""Decisions, or units, that a look has to have before it says that something is sound; a window is
the shortest run of hours with so many, an hour at least and a day at most."""

_SPANS = {"two windows": 2, "four windows": 4}


class RuleReading(NamedTuple):
    """What a rule says of one subject: `fault` with its likely cause (a code of
    `domain.reasons.CAUSES`) and a message, `sound`, or `unknown`. `span` names the hours that it
    was read of, from window to day."""

    kind: AlarmKind
    subject: str
    span: str
    state: Literal["fault", "sound", "unknown"]
    cause: str = ""
    message: str = ""


class FileChange(NamedTuple):
    """A change of an experiment's file: when (µs), and by whom."""

    at: int
    who: str


@dataclass(frozen=True)
class RecordLook:
    """One look at an experiment.

    Attributes:
        hours: The last day's sums, oldest first; the last one is new.
        usual: What was so before.
        events: The reward events that a metric reads.
        changes: The changes of its file, oldest first; its first revision is none.
        resolved: When a fault, by kind and subject, was last over, µs.
        faults: The kinds at fault, of those rules that were asked before.
    """

    hours: list[HourSums]
    usual: UsualSums = field(default_factory=UsualSums)
    events: frozenset[str] = frozenset()
    changes: Sequence[FileChange] = ()
    resolved: dict[str, int] = field(default_factory=dict)
    faults: frozenset[AlarmKind] = frozenset()

    @property
    def variants(self) -> list[str]:
        """Those with decisions, in their order of appearance."""
        names: dict[str, None] = {}
        for hour in self.hours:
            names.update(dict.fromkeys(hour.variants))
        return list(names)

    def since(self, kind: AlarmKind, subject: str) -> list[HourSums]:
        """The hours since a fault of that kind and subject was last over."""
        end = self.resolved.get(fault_key(kind, subject), 0)
        return [hour for hour in self.hours if hour.at >= end]

    def spans(
        self, kind: AlarmKind, subject: str, size: Callable[[HourSums], float]
    ) -> dict[str, list[HourSums]]:
        """The window of a rule, two and four of them, and the day, by name; `size` counts what it
        needs `LEAST` of.

        What is too little for one window is seen by the next span, before a day's sound hours
        drown it.
        """
        hours = self.since(kind, subject)
        run = shortest_run(hours, [size(hour) for hour in hours], LEAST)
        spans = {"window": run}
        if run:
            spans |= {name: hours[-times * len(run) :] for name, times in _SPANS.items()}
        return spans | {"day": hours}

    def changed_in(self, hours: Sequence[HourSums]) -> FileChange | None:
        """The last change of the file in these hours, or in the hour before them."""
        if not hours:
            return None
        first, last = hours[0].at - HOUR, hours[-1].at + HOUR
        recent = [change for change in self.changes if first <= change.at < last]
        return recent[-1] if recent else None


AlarmRule = Callable[[RecordLook], list[RuleReading]]


def fault_key(kind: AlarmKind, subject: str) -> str:
    """The name under which a fault of an experiment is remembered."""
    return f"{kind}/{subject}"
