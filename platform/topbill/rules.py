"""The house's rules: what may stand on a page at all, and what may stand at a position given what stands above it.

Every rule narrows the eligible set before the draw, so that the logged propensity stays the probability of the draw.
Region, maturity and availability always hold, and no title stands on a page twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topbill.catalog import Bools, Catalog
from topbill.errors import Problem, SpecError
from topbill.records import Indices, Mask
from topbill.spec.forms import At, Choice, Duration, Id, Name, Number, Said, nearest
from topbill.spec.sections import Key, ListOf, Section, Tagged

Counts = NDArray[np.int64]
_FREE = 1_000_000
_COUNT = Number(1, 200, whole=True)
_ROWS = ListOf(Name, 100, 1, unique=True)
RULE = Tagged(
    "rule",
    {
        "block": Section(
            {
                "titles": Key(ListOf(Id, 5000, 1, unique=True), "Titles that stand nowhere."),
                "genres": Key(ListOf(Name, 100, 1, unique=True), "Genres that stand nowhere."),
            }
        ),
        "pin": Section(
            {
                "title": Key(Id, "The title that editors put there.", True),
                "row": Key(Name, "The row it stands in.", True),
                "position": Key(Number(0, 199, whole=True), "Its position there; 0 is the first.", True),
            }
        ),
        "at_most": Section(
            {
                "count": Key(_COUNT, "How many.", True),
                "of": Key(Choice(("genre", "franchise")), "Of each genre, or of each franchise.", True),
                "value": Key(Name, "Only of this genre or franchise."),
                "per": Key(Choice(("row", "page")), "In a row (default) or on the whole page."),
                "except": Key(_ROWS, "Rows in which it does not hold, such as a genre's own."),
            }
        ),
        "fresh": Section(
            {
                "count": Key(_COUNT, "At least so many titles of a row are new, as far as there are any.", True),
                "within": Key(Duration(), "How long a title is new after it was added.", True),
                "rows": Key(_ROWS, "The rows in which it holds.", True),
            }
        ),
        "fatigue": Section(
            {
                "shown": Key(_COUNT, "After so many pages with it and no play,", True),
                "rest": Key(Duration(), "a title rests this long.", True),
            }
        ),
    },
    "What the rule does.",
)


@dataclass(frozen=True)
class Cap:
    """At most `count` of each genre or franchise (or of `value`) in a row or on the page."""

    count: int
    of: str
    value: str = ""
    per: str = "row"
    exempt: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rules:
    """The rules of a page file. `pins`: row → position → title; `fresh`: row → (count, seconds); `fatigue`: (shown,
    seconds of rest) or None."""

    blocked: frozenset[str]
    blocked_genres: tuple[str, ...]
    pins: Mapping[str, Mapping[int, str]]
    caps: tuple[Cap, ...]
    fresh: Mapping[str, tuple[int, float]]
    fatigue: tuple[int, float] | None


def build(read: Sequence[Mapping[str, Any]], at: At, rows: Mapping[str, Sequence[str]], titles: int) -> Rules:
    """The rules of what was read of a file, after noting which contradict each other or the page.

    `rows` maps each row to the genres that it is made of, `titles` is how many titles stand in a row.
    """
    pins: dict[str, dict[int, str]] = {}
    caps: list[Cap] = []
    fresh: dict[str, tuple[int, float]] = {}
    fatigue = None
    blocked = frozenset(title for rule in read for title in rule.get("titles", ()) if rule["rule"] == "block")
    genres = tuple(name for rule in read for name in rule.get("genres", ()) if rule["rule"] == "block")
    for index, rule in enumerate(read):
        where = at.item(index)
        for name in (*rule.get("except", ()), *rule.get("rows", ()), *([rule["row"]] if "row" in rule else [])):
            if name not in rows:
                where.wrong(name, f"one of the page's rows {', '.join(rows)}")
        if rule["rule"] == "pin" and {"title", "row", "position"} <= rule.keys():
            _pin(rule, pins, blocked, titles, where)
        elif rule["rule"] == "at_most" and {"count", "of"} <= rule.keys():
            exempt = rule.get("except", ())
            caps.append(Cap(rule["count"], rule["of"], rule.get("value", ""), rule.get("per", "row"), exempt))
            _check_cap(caps[-1], rows, titles, where)
        elif rule["rule"] == "fresh" and {"count", "within", "rows"} <= rule.keys():
            if rule["count"] > titles:
                where.key("count").wrong(rule["count"], f"at most {titles}, the titles of a row")
            for row in rule["rows"]:
                if row in fresh:
                    where.key("rows").wrong(row, "a row that no other fresh rule names")
                fresh[row] = (rule["count"], rule["within"])
        elif rule["rule"] == "fatigue" and {"shown", "rest"} <= rule.keys():
            if fatigue is not None:
                where.wrong(Said("a second fatigue rule"), "one")
            fatigue = (rule["shown"], rule["rest"])
    for row, named in rows.items():
        if named and set(named) <= set(genres):
            at.wrong(Said(f"a block of {', '.join(named)}"), f"something to show in row {row}, which is made of that")
    for row, (count, _) in fresh.items():
        pinned = len(pins.get(row, ()))
        if count <= titles < count + pinned:
            expected = f"at most {titles - pinned}: {pinned} of {titles} places in row {row} are pinned"
            at.wrong(Said(f"fresh: {count}"), expected)
    return Rules(blocked, genres, pins, tuple(caps), fresh, fatigue)


def _pin(
    rule: Mapping[str, Any], pins: dict[str, dict[int, str]], blocked: frozenset[str], titles: int, at: At
) -> None:
    title, row, position = rule["title"], rule["row"], rule["position"]
    held = pins.setdefault(row, {})
    if title in blocked:
        at.key("title").wrong(title, "a title that is not blocked", "remove the pin or the block")
    if any(title in found.values() for found in pins.values()):
        at.key("title").wrong(title, "a title pinned once: no title stands on a page twice")
    if position in held:
        at.key("position").wrong(position, f"a free position: {held[position]} is pinned there")
    if position >= titles:
        at.key("position").wrong(position, f"0 to {titles - 1}: a row has {titles} titles")
    held[position] = title


def _check_cap(cap: Cap, rows: Mapping[str, Sequence[str]], titles: int, at: At) -> None:
    for row, genres in rows.items():
        own = len(genres) == 1 and cap.of == "genre" and cap.value in ("", genres[0])
        if own and cap.per == "row" and row not in cap.exempt and cap.count < titles:
            got = f"at most {cap.count} of {genres[0]} in row {row}, which has {titles} titles of that genre only"
            at.wrong(Said(got), f"{titles} or more, or except: [{row}]")


class House:
    """Rules compiled for one catalogue: `groups` (T × C) says which caps each title falls under, `members` lists
    them."""

    def __init__(self, rules: Rules, catalog: Catalog) -> None:
        self.rules, self.catalog = rules, catalog
        self.blocked: Bools = catalog.genre(rules.blocked_genres)
        self.blocked[[catalog.index[title] for title in rules.blocked if title in catalog.index]] = True
        self.pins = {
            row: {k: catalog.index[title] for k, title in sorted(held.items()) if title in catalog.index}
            for row, held in rules.pins.items()
        }
        columns: list[Bools] = []
        self.names: list[str] = []
        self.caps: list[Cap] = []
        for cap in rules.caps:
            for name, column in _members(cap, catalog):
                columns.append(column)
                self.names.append(f"at most {cap.count} {name} a {cap.per}")
                self.caps.append(cap)
        self.groups: Bools = np.stack(columns, axis=1) if columns else np.zeros((len(catalog), 0), dtype=bool)
        self.limits: Counts = np.array([cap.count for cap in self.caps], dtype=np.int64)
        self.members: list[list[int]] = [[] for _ in range(len(catalog))]
        for title, group in zip(*(found.tolist() for found in self.groups.nonzero()), strict=True):
            self.members[title].append(group)
        self._of_page = np.array([cap.per == "page" for cap in self.caps], dtype=bool)
        self._exempt: dict[str, Bools] = {}

    def check(self, file: str) -> None:
        """Raises SpecError for pins and blocks of titles that the catalogue doesn't have, and pins beyond a cap."""
        catalog = self.catalog
        problems: list[Problem] = []
        pinned = [title for held in self.rules.pins.values() for title in held.values()]
        problems += [
            Problem(file, "rules", repr(title), "a title of the catalogue", nearest(title, catalog.ids))
            for title in sorted({*self.rules.blocked, *pinned} - catalog.index.keys())
        ]
        for row, held in self.pins.items():
            for name, left in zip(self.names, self._after(row, held), strict=True):
                if left < 0:
                    problems.append(Problem(file, "rules", f"pins in row {row}", name, "pin fewer, or raise the cap"))
        everywhere = [title for held in self.pins.values() for title in held.values()]
        over = (self.page_left() - self.groups[everywhere].sum(axis=0)) < 0
        problems += [
            Problem(file, "rules", "pins of the page", name, "pin fewer, or raise the cap")
            for name, found in zip(self.names, over.tolist(), strict=True)
            if found
        ]
        if problems:
            raise SpecError(problems)

    def _after(self, row: str, held: Mapping[int, int]) -> Counts:
        """(C,) what a row's caps still take beside its pins."""
        left = self.row_left(row, np.full_like(self.limits, _FREE))
        return np.asarray(left - self.groups[list(held.values())].sum(axis=0))

    def before(self, region: str, age: int, now: float, tired: Iterable[int]) -> dict[str, Bools]:
        """(T,) each: what a rule lets through for this viewer wherever it stands."""
        rested = np.ones(len(self.catalog), dtype=bool)
        rested[list(tired)] = False
        return {**self.catalog.legal(region, age, now), "block": ~self.blocked, "fatigue": rested}

    def page_left(self) -> Counts:
        """(C,) how many of each cap an empty page still takes; those of a row are free here."""
        return np.where(self._of_page, self.limits, _FREE)

    def row_left(self, row: str, page_left: Counts) -> Counts:
        """(C,) how many of each cap this row still takes."""
        exempt = self._exempt.get(row)
        if exempt is None:
            exempt = self._exempt[row] = np.array([row in cap.exempt for cap in self.caps], dtype=bool)
        return np.where(exempt, _FREE, np.where(self._of_page, page_left, self.limits))


def _members(cap: Cap, catalog: Catalog) -> Iterable[tuple[str, Bools]]:
    """The groups a cap counts: name and (T,) members."""
    if cap.of == "genre":
        for j, name in enumerate(catalog.genre_names):
            if cap.value in ("", name):
                yield name, catalog.genres[:, j]
    else:
        for code, name in enumerate(catalog.franchise_names):
            if cap.value in ("", name):
                yield name, catalog.franchise == code


class Filling:
    """One row while it is filled from a pool of titles: says what may stand at the next position (`slates.Allowed`).

    What goes in and out are places in the pool of P titles. `groups` (P × C) says which caps (`names`) each falls
    under, and so does `members`, as a list for each; `left` (C) what they still take. `pins`: position → place; they
    are counted at once, so that no draw can take what an editor needs. `fresh`: how many new titles the row must have,
    and (P,) which are.
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
        self._left: list[int] = left.tolist()
        self._open: Bools = np.ones(len(groups), dtype=bool)
        self._seen = 0
        self._masks: list[Mask] = []
        self._quota: int = 0 if fresh is None else fresh[0]
        self._fresh: Bools = np.zeros(0, dtype=bool) if fresh is None else fresh[1]
        self._open[list(self._pins.values())] = False
        for position, place in self._pins.items():
            for group in members[place]:
                self._left[group] -= 1
            self._quota -= bool(self._quota and self._fresh[place])
            if position:
                self._masks.append(Mask("pin", 0, position, (place,)))
        for group, count in enumerate(self._left):
            if count <= 0:
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
        if self._quota > 0 and self._quota >= self._slots - position - sum(k > position for k in self._pins):
            new = may[self._fresh[may]]
            if new.size:
                self._masks.append(Mask("fresh", position, position + 1, tuple(new.tolist()), only=True))
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


class Turns:
    """A slate of which every position has its own choices (`slates.Allowed`): the pictures of one title each."""

    def __init__(self, names: Sequence[str], turns: Sequence[Indices]) -> None:
        self._names, self._turns = names, turns
        self._asked = 0

    @property
    def masks(self) -> tuple[Mask, ...]:
        """One for each position asked for."""
        return tuple(
            Mask(self._names[k], k, k + 1, tuple(self._turns[k].tolist()), only=True) for k in range(self._asked)
        )

    def rows(self, position: int, placed: Sequence[int]) -> Indices:  # noqa: ARG002
        """The choices of this position."""
        if position >= len(self._turns):
            return np.zeros(0, dtype=np.intp)
        self._asked = max(self._asked, position + 1)
        return self._turns[position]
