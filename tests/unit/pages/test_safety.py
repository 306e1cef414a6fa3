"""Whatever a catalogue leaves out or says wrong: no title above a viewer's age, outside its region
or dates, blocked or watched; nothing invented; no empty page that doesn't say so. Lengths are
drawn, scores boosted, titles brought from outside, limits set of the profile, and viewers scroll
on.

The file is read here a second time, by Python's own csv module and by rules written anew. All of
the 100,000 pages: python -m pytest -p no:xdist -m slow tests/unit/pages/test_safety.py
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
from topbill.domain.profile import ProfileLimits
from topbill.domain.records import RewardEvent
from topbill.engine import Engine, examples
from topbill.pages import CompiledPage, ComposedPage, PageAnswer, PageFile, PageRequest, compose
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


LENGTHS = PAGE.replace("count: 3}", "count: {min: 3, max: 8}, row_cost: 0.02}").replace(
    "count: 6, candidates: 16",
    "count: {min: 2, max: 6}, title_cost: 0.05, candidates: 16, diversity: 1.5",
)
# The best odds of all are of what is blocked.
BOOSTS = """
boosts:
  - {genre: short, by: 5}
  - {genre: drama, by: -2, until: 2026-10-01}
  - {genre: comedy, by: 1, until: 2026-01-01}
"""
POLICY = "policy: thompson, min_probability: 3%"
TAUGHT = 40
"""Pages that policies learn from, so that they know what one more is worth."""


class Served:
    """The page file and its engine, over one catalogue after the other."""

    def __init__(self, home: Home) -> None:
        page = LENGTHS.replace("sources:\n", f"sources:\n{OWN}")
        home.write(RULES + BOOSTS, page, f"{POLICY}, model: shared")
        rows = layer("rows", "rows", POLICY, actions=f"{ROWS[:-1]}, {OWN_ROWS}]")
        own = home.folder / "pages" / "home"
        (own / "rows.yaml").write_text(rows)
        self.csv = home.folder / "pages" / "titles.csv"
        self.file: PageFile = home.file()
        self.engine = Engine(home.experiments(), clock=lambda: 0.0)
        self.pages = self.lengths = 0

    def page(self, catalog: Catalog) -> CompiledPage:
        """Over a catalogue."""
        return CompiledPage(self.file, self.engine, catalog)

    def note(self, page: ComposedPage) -> None:
        """Count a page, and learn from the first ones, of which every third title was played."""
        self.pages += 1
        self.lengths += any(decision.stops for decision in page.decisions)
        if self.pages > TAUGHT:
            return
        for decision in page.decisions[1:]:
            live = self.engine.find(decision.experiment)
            events = [
                RewardEvent(
                    decision_id=decision.decision_id,
                    event_id=str(k),
                    event="play",
                    action=placed.action,
                    position=k,
                )
                for k, placed in enumerate(decision.slate)
                if k % 3 == 0
            ]
            if decision.variant is not None:
                live.policies[decision.variant].update(list(examples(live, decision, events)))


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


def look_at_pages(served: Served, chance: random.Random, viewers: int) -> None:
    """Compose pages over one messy catalogue and hold each against the file.

    A catalogue that is refused has said so by name.
    """
    rows = messy(chance, served.csv)
    try:
        catalog = Catalog.read(served.csv)
        page = served.page(catalog)
    except TopbillError:
        return
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
        if chance.random() < 0.3:
            asked["kids"], age = True, 7
        if chance.random() < 0.3:
            asked["maturity"] = chance.choice((0, 7, 12, 15, 16, 18))
            age = min(age, asked["maturity"])
        known = somebody(chance, [*titles, "gone"])
        asked |= brought(chance, [*titles, "gone"])
        request = msgspec.convert({"page": "home", "profile": f"u{viewer}", **asked}, PageRequest)
        limits = limits_of(chance)
        request = request.within(limits)
        age = min(age, 7 if limits.kids else 99)
        age = age if limits.maturity is None else min(age, limits.maturity)
        above: list[PageAnswer] = []
        # A page, and often those below it.
        while len(above) < 3 and (not above or chance.random() < 0.3):
            page_id = f"page-{viewer}-{len(above)}"
            asking = page.viewer(request, page_id, known)
            composed = compose(page, request, asking, page_id, NOW, above=above)
            served.note(composed)
            answer = composed.answer
            theirs = (request.candidates or {}).get("theirs", [])
            look_at_rows(answer, known, theirs, titles, asked["region"], age)
            look_at_lengths(answer, served.file)
            shown = [tile.title for row_ in answer.rows for tile in row_.titles]
            for title in shown:
                assert may_see(titles[title], asked["region"], age), str((titles[title], asked))
            assert answer.made_up == ()
            # Below a page that had all there is, no rows are no surprise.
            assert ("empty" in answer.fallbacks) == (not shown and not (above and not answer.rows))
            above.append(answer)
        look_at_all_of_it(above, titles)


def limits_of(chance: random.Random) -> ProfileLimits:
    """What may be set of a profile."""
    maturity = chance.choice((None, None, None, 0, 7, 12, 16))
    return ProfileLimits(kids=chance.random() < 0.2, maturity=maturity)


def look_at_lengths(answer: PageAnswer, file: PageFile) -> None:
    """Between the least and the most, or what is missing is said."""
    assert len(answer.rows) <= file.rows
    for row in answer.rows:
        assert len(row.titles) <= file.titles
        assert len(row.titles) + row.missing >= 2
        assert row.titles or row.removed or any(f"row {row.row}" in n for n in answer.notes)


def look_at_all_of_it(pages: list[PageAnswer], titles: dict[str, Any]) -> None:
    """All that a viewer saw, scrolling: nothing twice, and no more of a kind than the rules say."""
    rows = [row for page in pages for row in page.rows]
    shown = [tile.title for row in rows for tile in row.titles]
    assert len(shown) == len(set(shown))
    assert len({row.row for row in rows}) == len(rows)
    franchises = [titles[title].get("franchise") for title in shown]
    for franchise in {name for name in franchises if name}:
        assert franchises.count(franchise) <= 1
    for row in rows:
        genres = [g for tile in row.titles for g in titles[tile.title]["genres"].split("|")]
        if row.row not in ("fun", "tension"):
            assert all(genres.count(genre) <= 4 for genre in {*genres} - {""})


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
    "pages", [200, pytest.param(100_000, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_no_page_shows_what_the_catalogue_does_not_allow(home: Home, pages: int) -> None:
    served = Served(home)
    tried = 0
    while served.pages < pages:
        look_at_pages(served, random.Random(tried), viewers=10)
        tried += 1
        assert tried < pages, "catalogues are refused too often to say anything"
    assert served.lengths > pages / 4, "lengths are drawn too seldom to say anything"
