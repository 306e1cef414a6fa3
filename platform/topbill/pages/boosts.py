"""Boosts and buries of a page file: what editors add to the scores of titles, from one day to
another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from topbill.catalog import Bools, Catalog, names_in
from topbill.domain.records import Floats
from topbill.domain.suggestion import nearest
from topbill.spec.fields import Id, Key, Location, Moment, Name, Number, Section, Text, Verbatim

SUBJECTS = ("title", "genre", "franchise", "column")
MOST = 5.0
"""Logits that a boost adds or takes away at most: 150 times the odds."""
BOOST = Section(
    {
        "title": Key(Id, "The title that it is for,"),
        "genre": Key(Name, "or all titles of this genre,"),
        "franchise": Key(Name, "or of this franchise,"),
        "column": Key(
            Text(128), "or with a value in this column of the catalogue, such as provider."
        ),
        "value": Key(Text(256), "Of a column: which."),
        "by": Key(
            Number(-MOST, MOST),
            "What is added to the scores, in logits: 0.7 doubles the odds, below 0 it buries.",
            True,
        ),
        "from": Key(Moment(), "When it begins (default: it has)."),
        "until": Key(Moment(), "When it ends (default: never)."),
    }
)


@dataclass(frozen=True)
class Boost:
    """`by` logits more for the titles of a subject (of SUBJECTS, `name`), from `start` until `end`
    (seconds since the epoch); of a column for those of its `value`.
    """

    subject: str
    name: str
    by: float
    start: float = -math.inf
    end: float = math.inf
    value: str = ""

    def titles(self, catalog: Catalog) -> Bools:
        """(T,) the titles that it is for."""
        if self.subject == "genre":
            return catalog.genre([self.name])
        if self.subject == "column":
            cells = catalog.cells(self.name)
            return np.array([self.value in _values(cell) for cell in cells], dtype=bool)
        found: Bools = np.zeros(len(catalog), dtype=bool)
        if self.subject == "title":
            found[catalog.rows_of([self.name])] = True
        elif self.name in catalog.franchise_names:
            found = catalog.franchise == catalog.franchise_names.index(self.name)
        return found

    @property
    def told(self) -> dict[str, Any]:
        """For the log."""
        value = {"value": self.value} if self.subject == "column" else {}
        return {self.subject: self.name, **value, "by": self.by}


def _values(cell: Any) -> list[str]:
    """What a cell names: one value, or a list of them; nothing where it holds anything else."""
    if cell is None:
        return []
    try:
        return list(names_in(cell))
    except ValueError:
        return []


def build(read: Sequence[Mapping[str, Any]], at: Location) -> tuple[Boost, ...]:
    """The boosts of what was read, after noting what can be none."""
    boosts: list[Boost] = []
    for index, part in enumerate(read):
        where = at.item(index)
        subjects = [subject for subject in SUBJECTS if subject in part]
        if len(subjects) != 1:
            got = Verbatim(" and ".join(subjects) or "nothing")
            where.wrong(got, f"one of {', '.join(SUBJECTS)}")
            continue
        start, end = part.get("from", -math.inf), part.get("until", math.inf)
        if start >= end:
            where.key("until").wrong(Verbatim("no later than from"), "a time after from")
        if ("column" in part) != ("value" in part):
            got = Verbatim("nothing" if "column" in part else "one without a column")
            where.key("value").wrong(got, "a column and its value")
        name, by, value = part[subjects[0]], part.get("by", 0.0), part.get("value", "")
        boosts.append(Boost(subjects[0], name, by, start, end, value))
    return tuple(boosts)


def check(boosts: Sequence[Boost], catalog: Catalog, at: Location) -> None:
    """Note what boosts name that the catalogue doesn't have."""
    known = {
        "title": catalog.index,
        "genre": catalog.genre_names,
        "franchise": catalog.franchise_names,
        "column": catalog.columns,
    }
    for index, boost in enumerate(boosts):
        where = at.item(index)
        if boost.name not in known[boost.subject]:
            hint = nearest(boost.name, known[boost.subject])
            expected = f"a {boost.subject} of the catalogue"
            where.key(boost.subject).wrong(boost.name, expected, hint)
        elif boost.subject == "column" and not boost.titles(catalog).any():
            values = {value for cell in catalog.cells(boost.name) for value in _values(cell)}
            expected = f"a value of column {boost.name}"
            where.key("value").wrong(boost.value, expected, nearest(boost.value, sorted(values)))


class CompiledBoosts:
    """The boosts of a page file over its catalogue of T titles."""

    def __init__(self, boosts: Sequence[Boost], catalog: Catalog) -> None:
        self._boosts = [(boost, boost.titles(catalog)) for boost in boosts]
        self._size = len(catalog)

    def at(self, now: float) -> Floats | None:
        """(T,) what is added to each title's score at `now`; None where nothing is."""
        total: Floats | None = None
        for boost, titles in self._in_force(now):
            total = np.zeros(self._size) if total is None else total
            total[titles] += boost.by
        return None if total is None else np.clip(total, -MOST, MOST)

    def told(self, now: float) -> list[dict[str, Any]]:
        """What is in force at `now`, for the log."""
        return [boost.told for boost, _ in self._in_force(now)]

    def _in_force(self, now: float) -> Iterator[tuple[Boost, Bools]]:
        for boost, titles in self._boosts:
            if boost.start <= now < boost.end:
                yield boost, titles
