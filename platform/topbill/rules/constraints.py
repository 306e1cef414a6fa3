"""What may stand at each position of a slate, given what stands above (`slates.Allowed`): a row of
titles, and the pictures of some titles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from topbill.catalog import Bools
from topbill.domain.records import Indices, Mask
from topbill.rules.compiled import Counts


class RowConstraints:
    """One row while it is filled from a pool of titles: says what may stand at the next position
    (`slates.Allowed`).

    What goes in and out are places in the pool of P titles. `groups` (P × C) says which caps
    (`names`) each falls under, and so does `members`, as a list for each; `left` (C) what they
    still take. `pins`: position → place; they are counted at once, so that no draw can take what an
    editor needs. `fresh`: how many new titles the row must have, and (P,) which are.
    """

    def __init__(
        self,
        groups: Bools,
        members: Sequence[Sequence[int]],
        names: Sequence[str],
        slots: int,
        *,
        left: Counts,
        pins: Mapping[int, int] | None = None,
        fresh: tuple[int, Bools] | None = None,
    ) -> None:
        self._groups, self._members, self._names, self._slots = groups, members, names, slots
        self._pins = {} if pins is None else pins
        self._open: Bools = np.ones(len(groups), dtype=bool)
        self._seen = 0
        self._masks: list[Mask] = []
        self._quota: int = 0 if fresh is None else fresh[0]
        self._fresh: Bools = np.zeros(0, dtype=bool) if fresh is None else fresh[1]
        self._open[list(self._pins.values())] = False
        for position, place in self._pins.items():
            left = left - groups[place]
            self._quota -= bool(self._quota and self._fresh[place])
            if position:
                self._masks.append(Mask("pin", 0, position, (place,)))
        self._left: list[int] = left.tolist()
        for group in (left <= 0).nonzero()[0].tolist():
            self._bar(group, 0)

    @property
    def masks(self) -> tuple[Mask, ...]:
        """What the rules did up to now."""
        return tuple(self._masks)

    def rows(self, position: int, placed: Sequence[int]) -> Indices:
        """The places in the pool that may be drawn at `position`, below those `placed`."""
        while self._seen < len(placed):
            self._take(self._seen, placed[self._seen])
            self._seen += 1
        pin = self._pins.get(position)
        if pin is not None:
            self._masks.append(Mask("pin", position, position + 1, (pin,), only=True))
            return np.array([pin], dtype=np.intp)
        may = self._open.nonzero()[0]
        if self._quota > 0 and self._quota >= self._slots - position - sum(
            k > position for k in self._pins
        ):
            new = may[self._fresh[may]]
            if new.size:
                self._masks.append(
                    Mask("fresh", position, position + 1, tuple(new.tolist()), only=True)
                )
                return new
        return may

    def _take(self, position: int, place: int) -> None:
        if position in self._pins:
            return
        self._open[place] = False
        if self._quota > 0 and self._fresh[place]:
            self._quota -= 1
        for group in self._members[place]:
            self._left[group] -= 1
            if self._left[group] == 0:
                self._bar(group, position + 1)

    def _bar(self, group: int, start: int) -> None:
        barred = np.flatnonzero(self._groups[:, group] & self._open)
        if barred.size:
            self._masks.append(Mask(self._names[group], start, self._slots, tuple(barred.tolist())))
            self._open[barred] = False


class PositionChoices:
    """A slate of which every position has its own choices (`slates.Allowed`): the pictures of one
    title each.
    """

    def __init__(self, names: Sequence[str], turns: Sequence[Indices]) -> None:
        self._names, self._turns = names, turns
        self._asked = 0

    @property
    def masks(self) -> tuple[Mask, ...]:
        """One for each position asked for."""
        return tuple(
            Mask(self._names[k], k, k + 1, tuple(self._turns[k].tolist()), only=True)
            for k in range(self._asked)
        )

    def rows(self, position: int, placed: Sequence[int]) -> Indices:  # noqa: ARG002
        """The choices of this position."""
        if position >= len(self._turns):
            return np.zeros(0, dtype=np.intp)
        self._asked = max(self._asked, position + 1)
        return self._turns[position]
