"""The rules of a page file: their form, and which of them contradict each other or the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from topbill.spec.forms import At, Choice, Duration, Id, Name, Number, Said
from topbill.spec.sections import Key, ListOf, Section, Tagged

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
    """The rules of a page file. `pins`: row → position → title; `fresh`: row → (count, seconds);
    `fatigue`: (shown, seconds of rest) or None."""

    blocked: frozenset[str]
    blocked_genres: tuple[str, ...]
    pins: Mapping[str, Mapping[int, str]]
    caps: tuple[Cap, ...]
    fresh: Mapping[str, tuple[int, float]]
    fatigue: tuple[int, float] | None


def build(
    read: Sequence[Mapping[str, Any]], at: At, rows: Mapping[str, Sequence[str]], titles: int
) -> Rules:
    """The rules of what was read of a file, after noting which contradict each other or the page.

    `rows` maps each row to the genres that it is made of, `titles` is how many titles stand in a
    row.
    """
    pins: dict[str, dict[int, str]] = {}
    caps: list[Cap] = []
    fresh: dict[str, tuple[int, float]] = {}
    fatigue = None
    blocked = frozenset(
        title for rule in read for title in rule.get("titles", ()) if rule["rule"] == "block"
    )
    genres = tuple(
        name for rule in read for name in rule.get("genres", ()) if rule["rule"] == "block"
    )
    for index, rule in enumerate(read):
        where = at.item(index)
        for name in (
            *rule.get("except", ()),
            *rule.get("rows", ()),
            *([rule["row"]] if "row" in rule else []),
        ):
            if name not in rows:
                where.wrong(name, f"one of the page's rows {', '.join(rows)}")
        if rule["rule"] == "pin" and {"title", "row", "position"} <= rule.keys():
            _pin(rule, pins, blocked, titles, where)
        elif rule["rule"] == "at_most" and {"count", "of"} <= rule.keys():
            exempt = rule.get("except", ())
            caps.append(
                Cap(
                    rule["count"], rule["of"], rule.get("value", ""), rule.get("per", "row"), exempt
                )
            )
            _check_cap(caps[-1], caps[:-1], rows, titles, where)
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
    rules = Rules(blocked, genres, pins, tuple(caps), fresh, fatigue)
    _check_rows(rules, rows, titles, at)
    return rules


def _check_rows(rules: Rules, rows: Mapping[str, Sequence[str]], titles: int, at: At) -> None:
    """Rows of which blocks leave nothing, and those whose quota finds too few places beside the
    pins.
    """
    for row, named in rows.items():
        if named and set(named) <= set(rules.blocked_genres):
            at.wrong(
                Said(f"a block of {', '.join(named)}"),
                f"something to show in row {row}, which is made of that",
            )
    for row, (count, _) in rules.fresh.items():
        pinned = len(rules.pins.get(row, ()))
        if count <= titles < count + pinned:
            expected = (
                f"at most {titles - pinned}: {pinned} of {titles} places in row {row} are pinned"
            )
            at.wrong(Said(f"fresh: {count}"), expected)


def _pin(
    rule: Mapping[str, Any],
    pins: dict[str, dict[int, str]],
    blocked: frozenset[str],
    titles: int,
    at: At,
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


def _check_cap(
    cap: Cap, earlier: Sequence[Cap], rows: Mapping[str, Sequence[str]], titles: int, at: At
) -> None:
    """A cap that another contradicts, that holds nowhere, or under which a row of some genres could
    never be full.
    """
    held = (cap.of, cap.value, cap.per, set(cap.exempt))
    if other := next((c for c in earlier if (c.of, c.value, c.per, set(c.exempt)) == held), None):
        at.key("count").wrong(
            cap.count, f"a rule of its own: another says at most {other.count} of the same"
        )
    if rows and not set(rows) - set(cap.exempt):
        at.key("except").wrong(Said("every row of the page"), "a row in which it holds")
    for row, genres in rows.items():
        capped = (
            bool(genres) and cap.of == "genre" and (not cap.value or list(genres) == [cap.value])
        )
        if capped and row not in cap.exempt and cap.count * len(genres) < titles:
            got = f"at most {cap.count} of {' or '.join(genres)} in row {row}, which has {titles} titles of that only"
            at.wrong(Said(got), f"{-(-titles // len(genres))} or more, or except: [{row}]")
