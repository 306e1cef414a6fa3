"""The rules compiled for one catalogue: what a viewer may see at all, and what caps and pins a page
begins with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topbill.catalog import Bools, Catalog
from topbill.domain.records import Indices
from topbill.policies.linear.drawing import load
from topbill.rules.schema import Cap, Rules

Counts = NDArray[np.int64]
# What a cap takes where it does not hold: more than any page has titles, and far from where sums
# of it would overflow.
_UNLIMITED = 1_000_000
_NOTHING: Mapping[str, Iterable[int]] = {}


class PoolCaps(NamedTuple):
    """The caps that a pool of P titles counts in, few of all C.

    Attributes:
        caps: (c,) which, in their order.
        names: (c) what they are called.
        members: The places among them of those that a title counts in, of one title after the
            other,
        ends: (P,) where those of each title end.
    """

    caps: Indices
    names: Sequence[str]
    members: Indices
    ends: Indices


class CompiledRules:
    """Rules compiled for one catalogue of T titles.

    A cap of the file is a rule for each genre or franchise that it counts: "at most 2 of a
    franchise" is one for every franchise. So the file's caps become C counted groups of titles.

    Attributes:
        blocked: (T,) the titles that stand nowhere.
        pins: Row → position → title; pins of titles that the catalogue doesn't have are left out.
        names: (C) what each group's cap is called, for the log and for people.
        caps: (C) the cap of the file that each comes from.
        members: Which of them each title counts in, of one title after the other: a few of what may
            be thousands.
        ends: (T + 1,) where those of each title end, after a 0.
        limits: (C,) how many titles each takes.
    """

    def __init__(self, rules: Rules, catalog: Catalog) -> None:
        self.rules, self.catalog = rules, catalog
        self.blocked: Bools = catalog.genre(rules.blocked_genres)
        self.blocked[catalog.rows_of(rules.blocked)] = True
        self.pins: dict[str, dict[int, int]] = {}
        for row, pins in rules.pins.items():
            self.pins[row] = _pinned_rows(pins, catalog)
        self._expand_caps()
        self.limits: Counts = np.array([cap.count for cap in self.caps], dtype=np.int64)
        self._of_page = np.array([cap.per == "page" for cap in self.caps], dtype=bool)
        # Row → (C,) the caps that don't hold in it; worked out when first asked for.
        self._exempt: dict[str, Bools] = {}

    def _expand_caps(self) -> None:
        """A group for each genre or franchise that a cap counts."""
        self.names: list[str] = []
        self.caps: list[Cap] = []
        members: list[list[int]] = [[] for _ in range(len(self.catalog))]
        for cap in self.rules.caps:
            for name, titles in _counted(cap, self.catalog):
                for title in titles.nonzero()[0].tolist():
                    members[title].append(len(self.names))
                self.names.append(f"at most {cap.count} {name} a {cap.per}")
                self.caps.append(cap)
        self._names = np.array(self.names, dtype=object)
        self.members: Indices = np.array([cap for own in members for cap in own], dtype=np.intp)
        self.ends: Indices = np.cumsum([0, *map(len, members)])

    def allowed_by_rule(
        self, region: str, age: int, now: float, resting: Mapping[str, Iterable[int]] = _NOTHING
    ) -> dict[str, Bools]:
        """What each rule lets through for a viewer, wherever it stands.

        Args:
            region: Where the viewer is.
            age: The viewer's age limit.
            now: Seconds since the epoch.
            resting: Rule → the titles that it keeps from this viewer for now.

        Returns:
            Rule → (T,) the titles that it lets through; what all of them let through may be shown.
        """
        allowed = {**self.catalog.legal(region, age, now), "block": ~self.blocked}
        for rule, titles in resting.items():
            allowed[rule] = np.ones(len(self.catalog), dtype=bool)
            allowed[rule][list(titles)] = False
        return allowed

    def after_pins(self, row: str, pins: Mapping[int, int]) -> Counts:
        """(C,) what a row's caps still take beside its pins; below 0 where these are too many."""
        unlimited = np.full_like(self.limits, _UNLIMITED)
        row_left = self.row_left(row, unlimited)
        return np.asarray(row_left - self.used([*pins.values()]))

    def used(self, titles: Sequence[int] | Indices) -> Counts:
        """(C,) how many of these titles count in each cap."""
        caps, _ = self._members_of(np.array(titles, dtype=np.intp))
        return np.bincount(caps, minlength=len(self.names))

    def caps_of(self, titles: Indices) -> PoolCaps:
        """The caps that concern some titles."""
        compiled = load()
        if compiled is not None:
            told = compiled.caps_of_pool(titles, self.members, self.ends, len(self.names))
            end = 1 + int(told[0])
            caps, last = told[1:end], end + len(titles)
            return PoolCaps(caps, self._names[caps].tolist(), told[last:], told[end:last])
        members, ends = self._members_of(titles)
        # `np.unique` says the same, but sorts.
        is_there = np.zeros(len(self.names), dtype=bool)
        is_there[members] = True
        caps = is_there.nonzero()[0]
        column = np.empty(len(self.names), dtype=np.intp)
        column[caps] = np.arange(len(caps))
        return PoolCaps(caps, self._names[caps].tolist(), column[members], ends)

    def _members_of(self, titles: Indices) -> tuple[Indices, Indices]:
        """The caps of these titles, of one after the other, and where those of each end."""
        compiled = load()
        if compiled is not None and len(titles):
            told = compiled.stretches(titles, self.ends)
            return self.members[told[: -len(titles)]], told[-len(titles) :]
        last = self.ends[titles + 1]
        counts = last - self.ends[titles]
        ends = counts.cumsum()
        # Each title's are a stretch of all: its last one stands at the sum of the counts so far.
        shift = np.repeat(last - ends, counts)
        return self.members[np.arange(len(shift)) + shift], ends

    def page_left(self) -> Counts:
        """(C,) how many of each cap an empty page still takes; those of a row are free here."""
        return np.where(self._of_page, self.limits, _UNLIMITED)

    def row_left(self, row: str, page_left: Counts) -> Counts:
        """(C,) how many of each cap this row still takes, where the page takes `page_left`."""
        exempt = self._exempt.get(row)
        if exempt is None:
            exempt = np.array([row in cap.exempt for cap in self.caps], dtype=bool)
            self._exempt[row] = exempt
        # A cap of the page has been used up by the rows above; one of a row begins anew.
        limits = np.where(self._of_page, page_left, self.limits)
        return np.where(exempt, _UNLIMITED, limits)


def _pinned_rows(pins: Mapping[int, str], catalog: Catalog) -> dict[int, int]:
    """Position → title of those pins that the catalogue has, from the first position downwards."""
    rows: dict[int, int] = {}
    for position, title in sorted(pins.items()):
        if title in catalog.index:
            rows[position] = catalog.index[title]
    return rows


def _counted(cap: Cap, catalog: Catalog) -> Iterator[tuple[str, Bools]]:
    """The genres or franchises that a cap counts: name and (T,) the titles that count."""
    if cap.of == "genre":
        for j, name in enumerate(catalog.genre_names):
            if cap.value in ("", name):
                yield name, catalog.genres[:, j]
    else:
        for code, name in enumerate(catalog.franchise_names):
            if cap.value in ("", name):
                yield name, catalog.franchise == code
