"""The rules of a page file: their form, and which of them contradict each other or the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from topbill.spec.fields import (
    Choice,
    CountRange,
    Duration,
    Id,
    Key,
    ListOf,
    Location,
    Name,
    Number,
    Section,
    Tagged,
    Verbatim,
)

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
                "position": Key(
                    Number(0, 199, whole=True), "Its position there; 0 is the first.", True
                ),
            }
        ),
        "at_most": Section(
            {
                "count": Key(_COUNT, "How many.", True),
                "of": Key(
                    Choice(("genre", "franchise")), "Of each genre, or of each franchise.", True
                ),
                "value": Key(Name, "Only of this genre or franchise."),
                "per": Key(Choice(("row", "page")), "In a row (default) or on the whole page."),
                "except": Key(_ROWS, "Rows in which it does not hold, such as a genre's own."),
            }
        ),
        "fresh": Section(
            {
                "count": Key(
                    _COUNT,
                    "At least so many titles of a row are new, as far as there are any.",
                    True,
                ),
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
        "seen": Section(
            {
                "again_after": Key(
                    Duration(), "When a title that was watched may come again (default: never)."
                ),
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

    @property
    def subject(self) -> tuple[Any, ...]:
        """All but the count: two caps of one subject contradict each other, or one is idle."""
        return self.of, self.value, self.per, frozenset(self.exempt)


@dataclass(frozen=True)
class Rules:
    """The rules of a page file.

    Attributes:
        blocked: Titles that stand nowhere.
        blocked_genres: Genres that stand nowhere.
        pins: Row → position → title.
        caps: How many of a kind there may be.
        fresh: Row → (how many new titles it has, for how many seconds a title is new).
        fatigue: (After how many pages, for how many seconds a title rests), or None.
        again_after: Seconds after which a title that a viewer has watched may come again.
    """

    blocked: frozenset[str]
    blocked_genres: tuple[str, ...]
    pins: Mapping[str, Mapping[int, str]]
    caps: tuple[Cap, ...]
    fresh: Mapping[str, tuple[int, float]]
    fatigue: tuple[int, float] | None
    again_after: float = math.inf


@dataclass(frozen=True)
class PageShape:
    """What rules need to know of their page: `genres` of each row (empty for a row that is made of
    other things), and how many `titles` stand in a row, at least and at most.
    """

    genres: Mapping[str, Sequence[str]]
    titles: CountRange


def build(
    read: Sequence[Mapping[str, Any]],
    at: Location,
    page: PageShape,
) -> Rules:
    """The rules of what was read of a file, after noting which contradict each other or the page.

    Args:
        read: The rules as RULE read them. One that lacks a key is noted already, and left out.
        at: Where they stand in the file.
        page: What the page is like.
    """
    builder = _Builder(read, page)
    for index, rule in enumerate(read):
        builder.add(rule, at.item(index))
    rules = builder.rules()
    _check_rows(rules, builder.page, at)
    return rules


class _Builder:
    """The rules up to now: each is checked against those above it."""

    def __init__(self, read: Sequence[Mapping[str, Any]], page: PageShape) -> None:
        self.page = page
        self.pins: dict[str, dict[int, str]] = {}
        self.caps: list[Cap] = []
        self.fresh: dict[str, tuple[int, float]] = {}
        self.fatigue: tuple[int, float] | None = None
        self.again_after: float | None = None
        # Blocks first, wherever they stand: a pin above a block contradicts it too.
        self.blocked: set[str] = set()
        self.blocked_genres: list[str] = []
        for rule in read:
            if rule["rule"] == "block":
                self.blocked.update(rule.get("titles", ()))
                self.blocked_genres += rule.get("genres", ())

    def rules(self) -> Rules:
        """What was added."""
        return Rules(
            blocked=frozenset(self.blocked),
            blocked_genres=tuple(self.blocked_genres),
            pins=self.pins,
            caps=tuple(self.caps),
            fresh=self.fresh,
            fatigue=self.fatigue,
            again_after=math.inf if self.again_after is None else self.again_after,
        )

    def add(self, rule: Mapping[str, Any], at: Location) -> None:
        """One rule, as far as all its keys could be read."""
        self._check_row_names(rule, at)
        # A key that could not be read is missing, and noted: what is left of its rule is no rule.
        kind, keys = rule["rule"], rule.keys()
        if kind == "pin" and {"title", "row", "position"} <= keys:
            self._add_pin(rule["title"], rule["row"], rule["position"], at)
        elif kind == "at_most" and {"count", "of"} <= keys:
            cap = Cap(
                count=rule["count"],
                of=rule["of"],
                value=rule.get("value", ""),
                per=rule.get("per", "row"),
                exempt=rule.get("except", ()),
            )
            _check_cap(cap, self.caps, self.page, at)
            self.caps.append(cap)
        elif kind == "fresh" and {"count", "within", "rows"} <= keys:
            self._add_fresh(rule["count"], rule["within"], rule["rows"], at)
        elif kind == "fatigue" and {"shown", "rest"} <= keys:
            if self.fatigue is not None:
                at.wrong(Verbatim("a second fatigue rule"), "one")
            self.fatigue = (rule["shown"], rule["rest"])
        elif kind == "seen":
            if self.again_after is not None:
                at.wrong(Verbatim("a second seen rule"), "one")
            self.again_after = rule.get("again_after", math.inf)

    def _check_row_names(self, rule: Mapping[str, Any], at: Location) -> None:
        names = [*rule.get("except", ()), *rule.get("rows", ())]
        if "row" in rule:
            names.append(rule["row"])
        for name in names:
            if name not in self.page.genres:
                at.wrong(name, f"one of the page's rows {', '.join(self.page.genres)}")

    def _add_pin(self, title: str, row: str, position: int, at: Location) -> None:
        titles = self.page.titles.most
        own_row = self.pins.setdefault(row, {})
        if title in self.blocked:
            at.key("title").wrong(
                title, "a title that is not blocked", "remove the pin or the block"
            )
        if any(title in pins.values() for pins in self.pins.values()):
            at.key("title").wrong(title, "a title pinned once: no title stands on a page twice")
        if position in own_row:
            at.key("position").wrong(
                position, f"a free position: {own_row[position]} is pinned there"
            )
        if position >= titles:
            at.key("position").wrong(position, f"0 to {titles - 1}: a row has {titles} titles")
        own_row[position] = title

    def _add_fresh(self, count: int, within: float, rows: Sequence[str], at: Location) -> None:
        titles = self.page.titles.least
        if count > titles:
            at.key("count").wrong(count, f"at most {titles}, the titles of a row")
        for row in rows:
            if row in self.fresh:
                at.key("rows").wrong(row, "a row that no other fresh rule names")
            self.fresh[row] = (count, within)


def _check_rows(rules: Rules, page: PageShape, at: Location) -> None:
    """Rows of which blocks leave nothing, and those whose quota finds too few places beside the
    pins.
    """
    for row, genres in page.genres.items():
        if genres and set(genres) <= set(rules.blocked_genres):
            at.wrong(
                Verbatim(f"a block of {', '.join(genres)}"),
                f"something to show in row {row}, which is made of that",
            )
    titles = page.titles.least
    for row, (count, _) in rules.fresh.items():
        pinned = len(rules.pins.get(row, ()))
        # A count above the titles of a row is noted at its own rule.
        if count <= titles < count + pinned:
            at.wrong(
                Verbatim(f"fresh: {count}"),
                f"at most {titles - pinned}: {pinned} of {titles} places in row {row} are pinned",
            )


def _check_cap(cap: Cap, earlier: Sequence[Cap], page: PageShape, at: Location) -> None:
    """A cap that another contradicts, that holds nowhere, or that a row could never meet."""
    for other in earlier:
        if other.subject == cap.subject:
            at.key("count").wrong(
                cap.count, f"a rule of its own: another says at most {other.count} of the same"
            )
            break
    if page.genres and not set(page.genres) - set(cap.exempt):
        at.key("except").wrong(Verbatim("every row of the page"), "a row in which it holds")
    if cap.of == "genre":
        _check_cap_of_rows(cap, page, at)


def _check_cap_of_rows(cap: Cap, page: PageShape, at: Location) -> None:
    """A cap of genres under which a row that is made of some of them could never be full."""
    for row, genres in page.genres.items():
        # Every title of such a row counts in one of its genres at least: so it can't have more than
        # the caps of all of them take.
        only_counted = bool(genres) and (not cap.value or list(genres) == [cap.value])
        if only_counted and row not in cap.exempt and cap.count * len(genres) < page.titles.least:
            needed = -(-page.titles.least // len(genres))
            at.wrong(
                Verbatim(
                    f"at most {cap.count} of {' or '.join(genres)} in row {row}, "
                    f"which has {page.titles.least} titles of that only"
                ),
                f"{needed} or more, or except: [{row}]",
            )
