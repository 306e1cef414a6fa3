"""Phases: the spans of an experiment within which variants, shares and traffic stayed as they were.

Within a phase units are split by one set of shares; over several phases they are not, and who came
when differs in more than chance. So the split is tested by the shares that were in force when a
unit came, and effects are taken within strata of equal shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from topbill.domain.assignment import PLACES, assignment_changes, moves_units


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A span of one set of variants, shares and traffic.

    `since` and `until` are ISO 8601 in UTC, from the first up to but not including the second; None
    where nothing says when it began, or it is not over. `shares` by variant, empty where the record
    does not hold them. `changed` says in what it differs from the phase before. `units` are those
    that came first in this phase, by variant, and `srm_p` the chi-square p-value that they were
    split by its shares; None where that cannot be tested.
    """

    since: str | None = None
    until: str | None = None
    shares: dict[str, float] = {}
    units: dict[str, int] = {}
    srm_p: float | None = None
    control: str = ""
    traffic: float = 1.0
    changed: list[str] = []
    revisions: list[str] = []

    @property
    def served(self) -> list[str]:
        """The variants that get units."""
        return [name for name, share in self.shares.items() if share > 0.0]

    @property
    def compares(self) -> bool:
        """Whether there is more than one variant to get; of unknown shares that is assumed."""
        return not self.shares or len(self.served) > 1

    def stratum(self, names: Sequence[str]) -> tuple[float, ...] | None:
        """What effects are stratified by: the shares of all `names`, which do not depend on their
        order; None where they are unknown."""
        if not self.shares:
            return None
        whole = sum(self.shares.values())
        return tuple(round(self.shares.get(name, 0.0) / whole, PLACES) for name in sorted(names))


@dataclass(frozen=True, slots=True)
class Reading:
    """Which of the phases are read, by number, and the last of them.

    Attributes:
        phases: All phases, the oldest first.
        numbers: Those with several variants: what came while there was one tells no variant from
            another.
        names: The variants that the phases read ever had, those of the last one first.
    """

    phases: tuple[Phase, ...]
    numbers: tuple[int, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, phases: Sequence[Phase]) -> Reading:
        """All phases with several variants of known shares, and of unknown ones where a known one
        says what the variants are."""
        numbers = tuple(i for i, phase in enumerate(phases) if phase.compares)
        names: dict[str, None] = {}
        for i in reversed(numbers):
            names.update(dict.fromkeys(phases[i].shares))
        return cls(tuple(phases), numbers, tuple(names))

    @property
    def last(self) -> Phase | None:
        """The last phase with several variants; None where there is none whose shares are
        known."""
        for i in reversed(self.numbers):
            if self.phases[i].shares:
                return self.phases[i]
        return None

    @property
    def is_all(self) -> bool:
        """Whether all phases are read."""
        return len(self.numbers) == len(self.phases)

    @property
    def ended(self) -> str | None:
        """When the last phase with several variants ended ("" where nothing says when); None while
        it is in force."""
        if not self.numbers or self.numbers[-1] == len(self.phases) - 1:
            return None
        return self.phases[self.numbers[-1]].until or ""

    def splits(self) -> dict[int, int]:
        """Which of the phases read are one to the split: those of equal shares, as it does not
        matter to it when a unit came; each of unknown shares is one by itself."""
        order: dict[object, int] = {}
        splits = {}
        for i in self.numbers:
            key = self.phases[i].stratum(self.names)
            splits[i] = order.setdefault(("unknown", i) if key is None else key, len(order))
        return splits

    def strata(self, numbers: Sequence[int]) -> dict[int, int]:
        """The stratum of each of some phases: those that follow each other with equal shares are
        one. Equal shares that come back are a stratum of their own, since base rates have moved
        meanwhile, which would only be noise within one."""
        strata: dict[int, int] = {}
        before: object = None
        for i in numbers:
            key = self.phases[i].stratum(self.names)
            is_new = not strata or key is None or key != before
            strata[i] = max(strata.values(), default=-1) + 1 if is_new else max(strata.values())
            before = key
        return strata

    def shares(self) -> dict[int, list[float]]:
        """The shares of each phase read, in the order of `names`; all 0 where they are unknown."""
        shares = {}
        for i in self.numbers:
            phase = self.phases[i]
            shares[i] = [phase.shares.get(name, 0.0) for name in self.names]
        return shares

    def with_both(self, one: str, other: str) -> tuple[int, ...]:
        """The phases in which units could get either of two variants."""
        both = []
        for i in self.numbers:
            served = self.phases[i].served
            if not self.phases[i].shares or (one in served and other in served):
                both.append(i)
        return tuple(both)


def with_changes(phases: Sequence[Phase]) -> list[Phase]:
    """The phases, each with what changed from the one before."""
    results: list[Phase] = []
    for number, phase in enumerate(phases):
        changed = assignment_changes(phases[number - 1], phase) if number else []
        results.append(msgspec.structs.replace(phase, changed=phase.changed or changed))
    return results


def shares_changed(phases: Sequence[Phase]) -> list[tuple[str, list[str]]]:
    """When shares or variants were changed, and how: (since, what changed) of each phase that
    traffic alone does not set apart."""
    changes = []
    for phase in phases:
        changed = moves_units(phase.changed)
        if changed and phase.since:
            changes.append((phase.since, changed))
    return changes
