"""A page file beside its catalogue: rules that name what is not there or forbid what others demand,
and rows or viewers for whom nothing is left."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from topbill.candidates import RowSource
from topbill.catalog import Bools, Catalog
from topbill.domain.errors import BadData, FileProblem, NotFound, SpecError
from topbill.pages.files import PageFile, verdicts
from topbill.rules import CompiledRules
from topbill.spec import Experiment
from topbill.spec.forms import At, Said, nearest


def check(file: PageFile, house: CompiledRules) -> None:
    """Raises SpecError with every contradiction between the page, its rules, and the catalogue of
    `house`.
    """
    at = At(file.source)
    _names(file, house.catalog, at)
    _rows(file, house, at.key("sources"))
    _viewers(file, house, at)
    _pins(file, house, at)
    if at.problems:
        raise SpecError(at.problems)


def validate(
    experiments: Path, known: Sequence[Experiment]
) -> list[tuple[Path, PageFile | SpecError]]:
    """Every page file of an experiments' folder, checked with its catalogue too, or all that is
    wrong with it.
    """
    return [(path, _with_catalogue(path, found)) for path, found in verdicts(experiments, known)]


def _with_catalogue(path: Path, found: PageFile | SpecError) -> PageFile | SpecError:
    if isinstance(found, SpecError):
        return found
    try:
        check(found, CompiledRules(found.rules, Catalog.read(found.catalogue, found.table)))
    except SpecError as error:
        return error
    except (BadData, NotFound) as error:
        return SpecError(
            [FileProblem(path.name, "catalogue", str(error), "a catalogue that can be read")]
        )
    return found


def _rules(file: PageFile, at: At) -> Iterator[tuple[Mapping[str, Any], At]]:
    """Each rule as the file has it, and its place there."""
    for index, rule in enumerate(file.raw.get("rules") or ()):
        yield rule, at.key("rules").item(index)


def _names(file: PageFile, catalog: Catalog, at: At) -> None:
    """Titles, genres, franchises and regions that the catalogue doesn't have."""

    def known(names: Sequence[str], among: Collection[str], what: str, where: At) -> None:
        for index, name in enumerate(names):
            if name not in among:
                where.item(index).wrong(name, what, nearest(name, among))

    title, genre = "a title of the catalogue", "a genre of the catalogue"
    for name, row in file.sources.items():
        known(row.titles, catalog.index, title, at.key("sources").key(name).key("titles"))
        known(row.genres, catalog.genre_names, genre, at.key("sources").key(name).key("genres"))
    for rule, where in _rules(file, at):
        known(rule.get("titles", ()), catalog.index, title, where.key("titles"))
        known(rule.get("genres", ()), catalog.genre_names, genre, where.key("genres"))
        if "title" in rule and rule["title"] not in catalog.index:
            where.key("title").wrong(rule["title"], title, nearest(rule["title"], catalog.ids))
        among = catalog.genre_names if rule.get("of") == "genre" else catalog.franchise_names
        if "value" in rule and rule["value"] not in among:
            where.key("value").wrong(
                rule["value"], f"a {rule['of']} of the catalogue", nearest(rule["value"], among)
            )
    if file.region not in catalog.region_names:
        hint = nearest(file.region, catalog.region_names)
        at.key("region").wrong(file.region, "a region of the catalogue, else pages are empty", hint)


def _rows(file: PageFile, house: CompiledRules, at: At) -> None:
    """Rows of which blocks or pins leave nothing, or of which they take what editors listed."""
    pinned = {title: row for row, held in file.rules.pins.items() for title in held.values()}
    for name, row in file.sources.items():
        of = _members(row, house.catalog)
        if of.any() and not (of & ~house.blocked).any():
            at.key(name).wrong(Said("a row of blocked titles only"), "a title that no rule blocks")
        for index, title in enumerate(row.titles):
            where = at.key(name).key("titles").item(index)
            if title in house.catalog.index and house.blocked[house.catalog.index[title]]:
                where.wrong(
                    title, "a title that no rule blocks", "take it off the list, or the block away"
                )
            if pinned.get(title, name) != name:
                where.wrong(
                    title, f"a title of this row alone: it is pinned in row {pinned[title]}"
                )


def _members(row: RowSource, catalog: Catalog) -> Bools:
    """(T,) the titles that a row may be made of."""
    if row.source == "genre":
        return catalog.genre(row.genres)
    found = np.full(len(catalog), row.source != "titles")
    found[[catalog.index[title] for title in row.titles if title in catalog.index]] = True
    return found


def _viewers(file: PageFile, house: CompiledRules, at: At) -> None:
    """Age limits that the file sets, below which nothing is left. One that it doesn't set may be of
    nobody.
    """
    catalog = house.catalog
    open_ = ~house.blocked
    if not open_.any():
        at.key("rules").wrong(Said("a block of every title"), "something to show")
        return
    least = int(catalog.maturity[open_].min())
    for who, age in (("kids_max_age", file.kids_max_age), ("guest_max_age", file.guest_max_age)):
        if who in file.raw and age < least:
            at.key(who).wrong(age, f"{least} or more: no title is for {age}-year-olds")


def _pins(file: PageFile, house: CompiledRules, at: At) -> None:
    """Pins that could never be seen, and more of them than caps take."""
    catalog, rules = house.catalog, file.rules
    for rule, where in _rules(file, at):
        if rule["rule"] != "pin" or rule["title"] not in catalog.index:
            continue
        title = catalog.index[rule["title"]]
        where = where.key("title")
        if house.blocked[title] and rule["title"] not in rules.blocked:
            where.wrong(
                rule["title"], "a title whose genres are not blocked", "remove the pin or the block"
            )
        if not catalog.regions[title].any():
            where.wrong(rule["title"], "a title that some region may show")
        if catalog.available_until[title] <= catalog.available_from[title]:
            where.wrong(
                rule["title"], "a title that is available some time; it goes before it comes"
            )
    where = at.key("rules")
    for row, held in house.pins.items():
        for name, left in zip(house.names, house.after_pins(row, held), strict=True):
            if left < 0:
                where.wrong(Said(f"pins in row {row}"), name, "pin fewer, or raise the cap")
    everywhere = [title for held in house.pins.values() for title in held.values()]
    over = (house.page_left() - house.groups[everywhere].sum(axis=0)) < 0
    for name, found in zip(house.names, over.tolist(), strict=True):
        if found:
            where.wrong(Said("pins of the page"), name, "pin fewer, or raise the cap")
