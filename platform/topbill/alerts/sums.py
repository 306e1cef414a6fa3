"""What is counted of an hour of an experiment's record, and what is remembered of the hours before:
all that the rules look at. Plain sums, so that hours add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

HOUR = 3_600_000_000
"""Microseconds."""
DAY_HOURS = 24
KEPT_DAYS = 7
"""What is usual is of about so many days: each day that comes takes the place of as much."""


class ActionSums(msgspec.Struct):
    """How often an action was drawn first, and Σp and Σp(1 − p) of the probabilities logged."""

    drawn: int = 0
    expected: float = 0.0
    variance: float = 0.0
    impossible: int = 0
    """Times it was drawn although its probability was 0, or it was not eligible."""


class VariantSums(msgspec.Struct):
    """Decisions of a variant in an hour.

    Attributes:
        decisions: By its policy or by the fallback.
        fallbacks: Those for which the control's order stepped in.
        single: Those with one eligible action.
        entropy: Σ of the entropies of the first position's probabilities, each over the largest
            that it could have: 1 is uniform, 0 certain.
        entropy_squares: Σ of their squares.
        units: Units that came for the first time, by the shares then in force (as JSON).
        actions: By action; those that could be drawn.
    """

    decisions: int = 0
    fallbacks: int = 0
    single: int = 0
    entropy: float = 0.0
    entropy_squares: float = 0.0
    units: dict[str, int] = {}
    actions: dict[str, ActionSums] = {}


class HourSums(msgspec.Struct):
    """An hour of an experiment: it began at `at`, µs since the epoch.

    Attributes:
        variants: By variant.
        fresh: Reward events of decisions of this hour and the one before, by event.
        features: Units by group of each context feature.
        revisions: The revisions that decided.
    """

    at: int
    variants: dict[str, VariantSums] = {}
    fresh: dict[str, int] = {}
    features: dict[str, dict[str, int]] = {}
    revisions: list[str] = []

    @property
    def decisions(self) -> int:
        """Of all variants."""
        return sum(variant.decisions for variant in self.variants.values())

    @property
    def clock_hour(self) -> int:
        """The hour of the day, UTC, from 0 to 23."""
        return self.at // HOUR % DAY_HOURS


class EventRate(msgspec.Struct):
    """Fresh events of a name, and of how many decisions."""

    events: float = 0.0
    decisions: float = 0.0


class UsualSums(msgspec.Struct):
    """What was so in hours without that fault.

    Attributes:
        rates: By event.
        entropies: Of each variant the mean entropies of its last day's hours.
        learned: Decisions of each variant so far.
        features: By hour of the day, feature and group: units.
    """

    rates: dict[str, EventRate] = {}
    entropies: dict[str, list[float]] = {}
    learned: dict[str, int] = {}
    features: dict[int, dict[str, dict[str, float]]] = {}


class StandingFault(msgspec.Struct):
    """A fault that stands, and since which look it seems over.

    Attributes:
        alarm: Its id.
        span: The span by which it was found, and by which it has to look sound.
        since: The hour in which it was found, µs.
        calm: Sound looks since the last one with the fault.
    """

    alarm: str
    span: str
    since: int
    calm: int = 0


class Memory(msgspec.Struct):
    """What is remembered of an experiment between two looks.

    Attributes:
        seqs: Up to which `seq` its decisions and rewards were read.
        hours: The last day, oldest first.
        usual: What was so before.
        standing: The faults that stand, by kind and subject.
        resolved: When a fault of that kind and subject was last over, µs: what was before does not
            count any more.
    """

    seqs: dict[str, int] = {}
    hours: list[HourSums] = []
    usual: UsualSums = msgspec.field(default_factory=UsualSums)
    standing: dict[str, StandingFault] = {}
    resolved: dict[str, int] = {}


def merged_actions(parts: Iterable[VariantSums]) -> dict[str, ActionSums]:
    """The actions' sums of several hours."""
    total: dict[str, ActionSums] = {}
    for part in parts:
        for action, sums in part.actions.items():
            own = total.setdefault(action, ActionSums())
            own.drawn += sums.drawn
            own.expected += sums.expected
            own.variance += sums.variance
            own.impossible += sums.impossible
    return total


def merged_units(hours: Iterable[HourSums]) -> dict[str, Counter[str]]:
    """New units of several hours: by shares in force, then by variant."""
    total: dict[str, Counter[str]] = {}
    for hour in hours:
        for name, variant in hour.variants.items():
            for shares, units in variant.units.items():
                total.setdefault(shares, Counter())[name] += units
    return total


def added(total: dict[str, float], part: Mapping[str, float], factor: float = 1.0) -> None:
    """Add a part's numbers to a total's, times a factor."""
    for name, number in part.items():
        total[name] = total.get(name, 0.0) + factor * number


def shortest_run(hours: list[HourSums], sizes: list[float], least: float) -> list[HourSums]:
    """The fewest last hours that have `least` together; none where a day has less. An hour's size
    stands at its place in `sizes`."""
    total = 0.0
    for length in range(1, min(len(hours), DAY_HOURS) + 1):
        total += sizes[-length]
        if total >= least:
            return hours[-length:]
    return []
