"""Whatever a catalogue leaves out or says wrong: no title above a viewer's age, outside its region
or dates, blocked or watched; nothing invented; no empty page that doesn't say so.

The file is read here a second time, by Python's own csv module and by rules written anew.
"""

from __future__ import annotations

import csv
import math
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from topbill.catalog import Catalog
from topbill.domain.errors import TopbillError
from topbill.engine import Engine
from topbill.pages import CompiledPage, PageAnswer, PageRequest, compose
from topbill.pages.request import ScoredTitle
from topbill.pages.viewing_history import KnownViewer

from ...small_page import NOW, PAGE, ROWS, Home, layer

REGIONS = ("us", "de", "fr")
# What people write into such a column, right or wrong.
VALUES: dict[str, tuple[str, ...]] = {
    "id": ("a", "b/c", "ключ", "d|e", "7", "x" * 130, ""),
    "title": ("Heat", "Amélie", "火", "Heat ", ""),
    "year": ("1995", "2026", "19900", "", "MCM", "1995.0"),
    "genres": ("comedy", "drama|action", "Sci-Fi", "", "short", "comedy|short"),
    "maturity": ("0", "7", "12", "16", "18", "", "PG", "-1", "7.5", "nan", "1e9"),
    "regions": ("us", "us|de", "de", "", "|", "US"),
    "available_from": ("2020-01-01", "2030-01-01", "", "soon"),
    "available_until": ("2026-01-01", "2040-01-01", "", "never"),
    "added": ("2026-09-01", "2020-01-01", "", "2031-01-01"),
    "popularity": ("0.5", "1", "0", "", "much", "2", "-0.1"),
    "franchise": ("saga", "", "other"),
    "pictures": ("warm", "warm|cold", "", "c"),
}
OWN = """  on: {source: unfinished, within: 30d}
  mine: {source: list}
  again: {source: again, after: 60d}
  because: {source: because, of: last 2}
  theirs: {source: external}
"""
OWN_ROWS = "{id: on}, {id: mine}, {id: again}, {id: because}, {id: theirs}"
DAY = 86_400.0
NEEDED = ("title", "year", "genres")
RULES = """
rules:
  - {rule: at_most, count: 4, of: genre, per: row, except: [fun, tension]}
  - {rule: at_most, count: 1, of: franchise, per: page}
  - {rule: fresh, count: 1, within: 60d, rows: [best]}
  - {rule: block, genres: [short]}
"""


def messy(chance: random.Random, path: Path) -> list[dict[str, str]]:
    """Write a catalogue with some columns left out and some values wrong; its rows."""
    optional = [name for name in VALUES if name not in NEEDED and chance.random() < 0.6]
    names = [*NEEDED, *optional]
    rows = []
    for number in range(chance.randrange(1, 60)):
        row = {}
        for name in names:
            # Sound values more often than not, so that there is something to show.
            values = VALUES[name] if chance.random() < 0.3 else VALUES[name][:2]
            row[name] = chance.choice(values)
        if "id" in row and chance.random() < 0.9:
            row["id"] = f"t{number}"
        rows.append(row)
    # A title that has every genre of which the page speaks, and is blocked: without it the file
    # would be refused for a genre that no title has.
    known = {name: VALUES[name][0] for name in names}
    every = {"id": "every", "title": "Every", "genres": "comedy|drama|action|short"}
    rows.append({**known, **{name: v for name, v in every.items() if name in names}})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return rows


def number(text: str | None) -> float | None:
    """The number that a cell says, if any."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return None if math.isnan(value) else value


def day(text: str | None, empty: float) -> float:
    """Seconds since the epoch of a cell; `empty` where it says nothing."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() if text else empty


def may_see(row: dict[str, str], region: str, age: int) -> bool:
    """Whether the row's own words let a viewer of that age see it there, now."""
    least = number(row.get("maturity"))
    of_age = age >= 16 if least is None else least <= age
    there = "regions" not in row or region in row["regions"].split("|")
    since = day(row.get("available_from", row.get("added")), 0.0)
    return (
        of_age
        and there
        and "short" not in row["genres"]
        and since <= NOW < day(row.get("available_until"), float("inf"))
    )


def look_at_pages(home: Home, chance: random.Random, viewers: int) -> int:
    """Compose pages over one messy catalogue and hold each against the file; how many there were.

    A catalogue that is refused has said so by name.
    """
    rows = messy(chance, home.folder / "pages" / "titles.csv")
    try:
        catalog = Catalog.read(home.folder / "pages" / "titles.csv")
        page = CompiledPage(home.file(), Engine(home.experiments(), clock=lambda: 0.0), catalog)
    except TopbillError:
        return 0
    told = {int(note.split(":")[0].removeprefix("row ")) - 1 for note in catalog.set_aside}
    titles: dict[str, dict[str, str]] = {}
    for place, row in enumerate(rows):
        if place not in told:
            name = row.get("id") or catalog_id(catalog, row)
            assert name not in titles
            titles[name] = row
    assert set(catalog.ids) == set(titles)
    for viewer in range(viewers):
        asked: dict[str, Any] = {"region": chance.choice(REGIONS)}
        age = 99
        if chance.random() < 0.4:
            asked["kids"], age = True, 7
        if chance.random() < 0.4:
            asked["maturity"] = chance.choice((0, 7, 12, 15, 16, 18))
            age = min(age, asked["maturity"])
        known = somebody(chance, [*titles, "gone"])
        asked |= brought(chance, [*titles, "gone"])
        request = msgspec.convert({"page": "home", "profile": f"u{viewer}", **asked}, PageRequest)
        asking = page.viewer(request, f"page-{viewer}", known)
        answer = compose(page, request, asking, f"page-{viewer}", NOW).answer
        shown = [tile.title for row_ in answer.rows for tile in row_.titles]
        assert len(shown) == len(set(shown))
        for title in shown:
            assert may_see(titles[title], asked["region"], age), str((titles[title], asked))
        theirs = (request.candidates or {}).get("theirs", [])
        look_at_rows(answer, known, theirs, titles, asked["region"], age)
        assert answer.made_up == ()
        assert ("empty" in answer.fallbacks) == (not shown)
    return viewers


def somebody(chance: random.Random, titles: list[str]) -> KnownViewer:
    """A viewer who watched, began, disliked and listed some of these titles."""

    def some() -> list[str]:
        return chance.sample(titles, chance.randrange(min(4, len(titles)) + 1))

    watched = some()
    begun = [title for title in some() if title not in watched]
    resting = {"seen": watched, "disliked": some(), "fatigue": some()}
    finished = [(title, chance.choice((1.0, 99.0)) * DAY) for title in watched]
    unfinished = [(title, chance.choice((1.0, 99.0)) * DAY) for title in begun]
    return KnownViewer((*watched, *begun), resting, unfinished, finished, some())


def brought(chance: random.Random, titles: list[str]) -> dict[str, Any]:
    """Candidates and scores from outside, some of titles that there are not."""
    named = [title for title in titles if 0 < len(title) <= 128]
    candidates: list[dict[str, Any]] = []
    for title in chance.choices(named, k=chance.randrange(6)):
        scored = {"score": chance.choice((-1e9, -1.0, 0.0, 2.5))} if chance.random() < 0.8 else {}
        candidates.append({"title": title, **scored})
    scores = {title: chance.gauss(0.0, 9.0) for title in chance.choices(named, k=3)}
    return {"candidates": {"theirs": candidates}, "scores": scores}


def look_at_rows(
    answer: PageAnswer,
    known: KnownViewer,
    theirs: list[ScoredTitle],
    titles: dict[str, Any],
    region: str,
    age: int,
) -> None:
    """Hold a page's rows against what the viewer did."""
    aged = {"on": dict(known.unfinished), "again": dict(known.finished)}
    for row in answer.rows:
        shown = [tile.title for tile in row.titles]
        assert not set(shown) & set(known.resting["disliked"])
        if row.row == "again":
            assert all(aged["again"][title] >= 60 * DAY for title in shown)
        else:
            assert not set(shown) & set(known.resting["seen"])
        if row.row == "on":
            assert all(aged["on"][title] < 30 * DAY for title in shown)
        elif row.row == "theirs":
            assert set(shown) <= {candidate.title for candidate in theirs}
        elif row.row == "mine":
            assert set(shown) <= set(known.listed)
        elif row.row != "again":
            assert not set(shown) & set(known.resting["fatigue"])
        if row.row.startswith("because"):
            # The heading names it: so it is one that the viewer may see.
            seed = msgspec.json.decode(row.payload)["because"]["id"]
            assert seed in known.watched
            assert may_see(titles[seed], region, age)


def catalog_id(catalog: Catalog, row: dict[str, str]) -> str:
    """The id that a row without one was given: it is known by name and year."""
    (name,) = (
        title
        for title, place in catalog.index.items()
        if catalog.names[place] == row["title"] and catalog.years[place] == float(row["year"])
    )
    return name


@pytest.mark.parametrize(
    "pages", [150, pytest.param(20_000, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_no_page_shows_what_the_catalogue_does_not_allow(home: Home, pages: int) -> None:
    page = PAGE.replace("count: 3}", "count: 8}").replace("sources:\n", f"sources:\n{OWN}")
    home.write(RULES, page, "policy: uniform")
    rows = layer("rows", "rows", "policy: uniform", actions=f"{ROWS[:-1]}, {OWN_ROWS}]")
    (home.folder / "pages" / "home" / "rows.yaml").write_text(rows)
    composed = tried = 0
    while composed < pages:
        composed += look_at_pages(home, random.Random(tried), viewers=10)
        tried += 1
        assert tried < pages, "catalogues are refused too often to say anything"
