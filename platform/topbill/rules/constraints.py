"""What may stand at each position of a slate, given what stands above (`slate.Allowed`): a row of
titles, and the pictures of some titles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import repeat

import numpy as np

from topbill.catalog import Bools
from topbill.domain.records import Indices, Mask
from topbill.domain.slate import SlateRules
from topbill.policies.linear.drawing import load
from topbill.rules.compiled import Counts, PoolCaps

_NOTHING: Indices = np.zeros(0, dtype=np.intp)


class RowConstraints:
    """One row while it is filled from a pool of titles: says what may stand at the next position
    (`slate.Allowed`).

    What goes in and out are places in the pool of P titles. What the rules do is noted as masks:
    with them alone the log can tell what could have been drawn at each position.
    """

    def __init__(
        self,
        caps: PoolCaps,
        slots: int,
        *,
        cap_left: Counts,
        pins: Mapping[int, int] | None = None,
        fresh: tuple[int, Bools] | None = None,
        least: int | None = None,
    ) -> None:
        """Begin a row.

        Args:
            caps: The caps that the titles count in.
            slots: How many positions the row has.
            cap_left: (c,) how many titles each cap still takes.
            pins: Position → place of what editors put there.
            fresh: How many new titles the row must have, and (P,) which ones are new.
            least: How many positions the row has at least, where that is drawn: by then the new
                titles are there.
        """
        self._least = slots if least is None else min(least, slots)
        self._caps, self._slots = caps, slots
        self._pins = {} if pins is None else pins
        # (P,) what may still be drawn; it only ever loses titles.
        self._open: Bools = np.ones(len(caps.ends), dtype=bool)
        # How many of the placed titles are counted already.
        self._accounted = 0
        self._masks: list[Mask] = []
        # How many new titles are still to come.
        self._quota = 0
        self._is_new: Bools = np.zeros(0, dtype=bool)
        if fresh is not None:
            self._quota, self._is_new = fresh
        # Pins are counted before anything is drawn, so that no draw can take what an editor needs:
        # neither the title nor its part of a cap.
        left = self._left = np.array(cap_left, dtype=np.intp)
        for position, place in self._pins.items():
            self._open[place] = False
            for group in self._groups(place):
                left[group] -= 1
            if self._quota and self._is_new[place]:
                self._quota -= 1
            # Above its position the title could not be drawn: the log must say so.
            if position:
                self._masks.append(Mask("pin", 0, position, (place,)))
        # What rows above, or the pins, have used up already takes nothing from the start.
        if min(left.tolist(), default=1) <= 0:
            for group in (left <= 0).nonzero()[0].tolist():
                self._close(group, 0)

    def _groups(self, place: int) -> list[int]:
        """The caps that a title counts in."""
        start = self._caps.ends[place - 1] if place else 0
        groups: list[int] = self._caps.members[start : self._caps.ends[place]].tolist()
        return groups

    @cached_property
    def _place_of_member(self) -> Indices:
        """The place of each title, once for each cap that it counts in."""
        return self._caps.ends.searchsorted(np.arange(len(self._caps.members)), side="right")

    @property
    def masks(self) -> tuple[Mask, ...]:
        """What the rules did up to now."""
        return tuple(self._masks)

    def rows(self, position: int, placed: Sequence[int]) -> Indices:
        """The places in the pool that may be drawn at `position`, below those `placed`."""
        while self._accounted < len(placed):
            self._account(self._accounted, placed[self._accounted])
            self._accounted += 1
        only = self._only(position)
        return self._open.nonzero()[0] if only is None else only

    def ahead(self) -> SlateRules:
        """What the row's rules say before its first draw (`slate.AllowedAhead`)."""
        only, starts = _NOTHING, np.zeros(self._slots + 1, dtype=np.intp)
        if self._pins:
            pinned = sorted(self._pins.items())
            only = np.array([place for _, place in pinned], dtype=np.intp)
            starts[[position + 1 for position, _ in pinned]] = 1
            starts = starts.cumsum()
        size = len(self._open)
        is_new = self._is_new if self._quota > 0 else np.zeros(size, dtype=np.intp)
        return SlateRules(
            only=only,
            starts=starts,
            is_open=self._open.astype(np.intp),
            caps=self._caps.members,
            caps_end=self._caps.ends,
            left=self._left.copy(),
            fresh=is_new.astype(np.intp, copy=False),
            quota=self._quota,
            due=self._least,
        )

    def note(self, placed: Sequence[int]) -> None:
        """Do what asking for each position's rows would have done (`slate.AllowedAhead`)."""
        asked = min(len(placed) + 1, self._slots)
        if not self._pins and self._quota <= 0:
            # Nothing stands at a position of its own: what is left to do is to count.
            self._count(placed[: asked - 1])
        else:
            for position in range(asked):
                if position:
                    self._account(position - 1, placed[position - 1])
                self._only(position)
        self._accounted = max(0, asked - 1)

    def _count(self, placed: Sequence[int]) -> None:
        """Count titles that were placed, from the first position on."""
        compiled = load()
        if compiled is None:
            for position, place in enumerate(placed):
                self._account(position, place)
            return
        is_open, caps = self._open.astype(np.intp), self._caps
        told: list[int] = compiled.closings(
            np.array(placed, dtype=np.intp), is_open, caps.members, caps.ends, self._left
        ).tolist()
        self._open = is_open.astype(bool)
        start = 0
        while start < len(told):
            position, cap, size = told[start : start + 3]
            start += 3 + size
            places = tuple(told[start - size : start])
            self._masks.append(Mask(caps.names[cap], position, self._slots, places))

    def _only(self, position: int) -> Indices | None:
        """The places that alone may be drawn at `position`, where a pin or the quota says so."""
        pin = self._pins.get(position)
        if pin is not None:
            # A choice of one: the engine draws it with probability 1, and logs that.
            self._masks.append(Mask("pin", position, position + 1, (pin,), only=True))
            return np.array([pin], dtype=np.intp)
        if self._quota > 0 and self._must_be_new(position):
            # `nonzero` does without the checks of `flatnonzero`.
            new = (self._open & self._is_new).nonzero()[0]
            # Where no new title is left, the row has as many as there were.
            if new.size:
                places = tuple(new.tolist())
                self._masks.append(Mask("fresh", position, position + 1, places, only=True))
                return new
        return None

    def _must_be_new(self, position: int) -> bool:
        """Whether the quota needs every position that is left, this one included. Positions of pins
        are none: what is pinned was counted at the start.
        """
        pinned_below = sum(position < pinned < self._least for pinned in self._pins)
        return self._quota >= self._least - position - pinned_below

    def _account(self, position: int, place: int) -> None:
        """Count a title that was placed."""
        # Pins were counted at the start.
        if position in self._pins:
            return
        self._open[place] = False
        if self._quota > 0 and self._is_new[place]:
            self._quota -= 1
        for group in self._groups(place):
            self._left[group] -= 1
            # At 0 exactly: below it the cap was closed already.
            if self._left[group] == 0:
                self._close(group, position + 1)

    def _close(self, group: int, start: int) -> None:
        """A cap takes no more: keep out, from position `start` on, all that counts in it."""
        of_cap = self._place_of_member[self._caps.members == group]
        places = of_cap[self._open[of_cap]].tolist()
        if places:
            self._masks.append(Mask(self._caps.names[group], start, self._slots, tuple(places)))
            self._open[places] = False


class PoolOrder:
    """A row whose order is its pool's (`slate.Allowed`): at each position the first place that its
    constraints let through, and no other.
    """

    def __init__(self, constraints: RowConstraints) -> None:
        self._constraints = constraints
        self._order: list[Mask] = []

    @property
    def masks(self) -> tuple[Mask, ...]:
        """What the constraints did, and the order."""
        return (*self._constraints.masks, *self._order)

    def rows(self, position: int, placed: Sequence[int]) -> Indices:
        """The first place that may stand at `position`."""
        first = self._constraints.rows(position, placed)[:1]
        if len(first):
            mask = Mask("order", position, position + 1, tuple(first.tolist()), only=True)
            self._order.append(mask)
        return first


class PositionChoices:
    """A slate of which every position has its own choices (`slate.Allowed`): the pictures of one
    title each. `names` says what each position is for. Its choices lie side by side: they are the
    rows from its one of `starts` to the next one, of which there is one more than positions.
    """

    def __init__(self, names: Sequence[str], starts: Sequence[int]) -> None:
        self._names, self._starts = names, starts
        # How many positions were asked for: only these have a mask.
        self._positions = 0

    @property
    def masks(self) -> tuple[Mask, ...]:
        """One for each position asked for."""
        positions = self._positions
        starts = self._starts[: positions + 1]
        # A page has hundreds: `map` keeps them in C.
        rows = map(tuple, map(range, starts, starts[1:]))
        return tuple(
            map(Mask, self._names, range(positions), range(1, positions + 1), rows, repeat(True))
        )

    def ahead(self) -> SlateRules:
        """The choices of all positions (`slate.AllowedAhead`)."""
        starts = np.array(self._starts, dtype=np.intp)
        nothing = np.zeros(self._starts[-1], dtype=np.intp)
        return SlateRules(
            only=np.arange(self._starts[-1]),
            starts=starts,
            is_open=nothing,
            caps=nothing,
            caps_end=nothing,
            left=nothing,
            fresh=nothing,
        )

    def note(self, placed: Sequence[int]) -> None:
        """Remember the positions that were asked for (`slate.AllowedAhead`)."""
        self._positions = min(len(placed) + 1, len(self._names))

    def rows(self, position: int, placed: Sequence[int]) -> Indices:  # noqa: ARG002
        """The choices of this position. They are its alone, so nothing above takes any away."""
        if position >= len(self._names):
            return np.zeros(0, dtype=np.intp)
        self._positions = max(self._positions, position + 1)
        return np.arange(self._starts[position], self._starts[position + 1])
