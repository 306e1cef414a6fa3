"""A page file beside its catalogue: rules that name what is not there or forbid what others demand,
and rows or viewers for whom nothing is left."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from topbill.candidates import RowSource
from topbill.catalog import Bools, Catalog
from topbill.domain.errors import SpecError
from topbill.domain.suggestion import nearest
from topbill.pages import boosts
from topbill.pages.features import PICTURE_KINDS, TITLE_FEATURES, column_features
from topbill.pages.files import PageFile
from topbill.rules import CompiledRules
from topbill.spec import Experiment
from topbill.spec.fields import Location, Verbatim, listed

_NO_LAYERS: Mapping[str, Experiment] = {}
_TITLE = "a title of the catalogue"
_GENRE = "a genre of the catalogue"


def check(
    file: PageFile, compiled_rules: CompiledRules, layers: Mapping[str, Experiment] = _NO_LAYERS
) -> None:
    """Check a page file, and the experiments of its layers, against a catalogue, that of
    `compiled_rules`.

    Raises:
        SpecError: With every contradiction between the page, its rules, and the catalogue.
    """
    at = Location(file.source)
    _check_names(file, compiled_rules.catalog, at)
    boosts.check(file.boosts, compiled_rules.catalog, at.key("boosts"))
    _check_rows(file, compiled_rules, at.key("sources"))
    _check_viewers(file, compiled_rules, at)
    _check_pinned_titles(file, compiled_rules, at)
    _check_pins_under_caps(compiled_rules, at.key("rules"))
    for layer, check_layer in (("titles", _check_columns), ("artwork", _check_pictures)):
        if layer in layers:
            where = at.key(layer).key("experiment")
            check_layer(layers[layer], compiled_rules.catalog, where)
    if at.problems:
        # A title or a genre may be missing because the only row that has it was set aside.
        for why in compiled_rules.catalog.set_aside[:3]:
            at.key("catalogue").wrong(Verbatim(f"no title in {why}"), "rows that are titles")
        raise SpecError(at.problems)


def _rules(file: PageFile, at: Location) -> Iterator[tuple[Mapping[str, Any], Location]]:
    """Each rule as the file has it, and its place there."""
    for index, rule in enumerate(file.raw.get("rules") or ()):
        yield rule, at.key("rules").item(index)


def _check_names(file: PageFile, catalog: Catalog, at: Location) -> None:
    """Titles, genres, franchises and regions that the catalogue doesn't have."""
    for name, row in file.sources.items():
        where = at.key("sources").key(name)
        _check_each(row.titles, catalog.index, _TITLE, where.key("titles"))
        _check_each(row.genres, catalog.genre_names, _GENRE, where.key("genres"))
    for rule, where in _rules(file, at):
        _check_names_of_rule(rule, catalog, where)
    if file.region not in catalog.region_names and not catalog.everywhere:
        hint = nearest(file.region, catalog.region_names)
        at.key("region").wrong(file.region, "a region of the catalogue, else pages are empty", hint)


def _check_names_of_rule(rule: Mapping[str, Any], catalog: Catalog, at: Location) -> None:
    _check_each(rule.get("titles", ()), catalog.index, _TITLE, at.key("titles"))
    _check_each(rule.get("genres", ()), catalog.genre_names, _GENRE, at.key("genres"))
    if "title" in rule and rule["title"] not in catalog.index:
        at.key("title").wrong(rule["title"], _TITLE, nearest(rule["title"], catalog.ids))
    if "value" in rule:
        group, name = rule.get("of"), rule["value"]
        names = catalog.genre_names if group == "genre" else catalog.franchise_names
        if name not in names:
            at.key("value").wrong(name, f"a {group} of the catalogue", nearest(name, names))


def _check_each(names: Sequence[str], known: Collection[str], expected: str, at: Location) -> None:
    """Note each of the names that is not known, at its index."""
    for index, name in enumerate(names):
        if name not in known:
            at.item(index).wrong(name, expected, nearest(name, known))


def _check_rows(file: PageFile, rules: CompiledRules, at: Location) -> None:
    """Rows of which blocks or pins leave nothing, or of which they take what editors listed."""
    pinned_in: dict[str, str] = {}
    for row, pins in file.rules.pins.items():
        pinned_in.update(dict.fromkeys(pins.values(), row))
    for name, source in file.sources.items():
        members = _members(source, rules.catalog)
        # A row without members is of names that the catalogue doesn't have: that is noted already.
        if members.any() and not (members & ~rules.blocked).any():
            at.key(name).wrong(
                Verbatim("a row of blocked titles only"), "a title that no rule blocks"
            )
        for index, title in enumerate(source.titles):
            where = at.key(name).key("titles").item(index)
            if _is_blocked(title, rules):
                where.wrong(
                    title, "a title that no rule blocks", "take it off the list, or the block away"
                )
            # Composing gives a pinned title to the row that it is pinned in, and to no other.
            if pinned_in.get(title, name) != name:
                where.wrong(
                    title, f"a title of this row alone: it is pinned in row {pinned_in[title]}"
                )


def _is_blocked(title: str, rules: CompiledRules) -> bool:
    row = rules.catalog.index.get(title)
    return row is not None and bool(rules.blocked[row])


def _members(source: RowSource, catalog: Catalog) -> Bools:
    """(T,) the titles that a row may be made of."""
    if source.source == "genre":
        return catalog.genre(source.genres)
    if source.source != "titles":
        return np.ones(len(catalog), dtype=bool)
    members = np.zeros(len(catalog), dtype=bool)
    members[catalog.rows_of(source.titles)] = True
    return members


def _check_viewers(file: PageFile, rules: CompiledRules, at: Location) -> None:
    """Age limits that the file sets, below which nothing is left. One that it doesn't set may be of
    nobody.
    """
    not_blocked = ~rules.blocked
    if not not_blocked.any():
        at.key("rules").wrong(Verbatim("a block of every title"), "something to show")
        return
    catalog = rules.catalog
    if np.isnan(catalog.maturity[not_blocked]).any():
        # A title whose age is unknown may be for anybody: that is told (`notes`), and no mistake.
        return
    youngest = int(catalog.maturity[not_blocked].min())
    limits = {"kids_max_age": file.kids_max_age, "guest_max_age": file.guest_max_age}
    for key, age in limits.items():
        if key in file.raw and age < youngest:
            at.key(key).wrong(age, f"{youngest} or more: no title is for {age}-year-olds")


def _check_pinned_titles(file: PageFile, rules: CompiledRules, at: Location) -> None:
    """Pins that could never be seen."""
    catalog = rules.catalog
    for rule, where in _rules(file, at):
        if rule["rule"] != "pin" or rule["title"] not in catalog.index:
            continue
        name, where = rule["title"], where.key("title")
        title = catalog.index[name]
        # A pin of a title that is blocked by name is noted where rules are read.
        if rules.blocked[title] and name not in file.rules.blocked:
            where.wrong(name, "a title whose genres are not blocked", "remove the pin or the block")
        if not catalog.everywhere and not catalog.regions[title].any():
            where.wrong(name, "a title that some region may show")
        if catalog.available_until[title] <= catalog.available_from[title]:
            where.wrong(name, "a title that is available some time; it goes before it comes")


def _check_columns(titles: Experiment, catalog: Catalog, at: Location) -> None:
    """Features of titles that are neither the page's nor a column that can be read so."""
    for feature in column_features(titles.sent_action_features):
        name = f"action feature {feature.name} ({feature.kind})"
        if feature.name not in catalog.columns:
            columns = [column for column in catalog.columns if column not in TITLE_FEATURES]
            expected = f"a column of the catalogue ({listed(columns)}), or what pages fill "
            expected += f"themselves: {', '.join(TITLE_FEATURES)}"
            hint = nearest(feature.name, [*columns, *TITLE_FEATURES])
            at.wrong(Verbatim(name), expected, hint)
            continue
        column = catalog.column(feature)
        if column.is_unfit:
            first, known = column.wrong[0], len(catalog) - column.unknown
            of_all = f"{len(column.wrong):,} of {len(column.wrong) + known:,} cells that do not fit"
            at.wrong(
                Verbatim(f"{name} with {of_all}: row {first.row}: {first.got}"), first.expected
            )


def _check_pictures(artwork: Experiment, catalog: Catalog, at: Location) -> None:
    """Features that the experiment declares as what the pictures' can't be."""
    for feature in artwork.sent_action_features:
        field = catalog.picture_fields.get(feature.name)
        # What no picture has is no mistake here: that is told (`notes`).
        if field is not None and feature.kind not in PICTURE_KINDS[field]:
            at.wrong(
                Verbatim(f"action feature {feature.name} ({feature.kind})"),
                f"type {' or '.join(PICTURE_KINDS[field])}, since pictures have {field} there",
            )


def _check_pins_under_caps(rules: CompiledRules, at: Location) -> None:
    """More pins than caps take: in a row, and on the page."""
    pinned: list[int] = []
    for row, pins in rules.pins.items():
        pinned += pins.values()
        for cap, remaining in zip(rules.names, rules.after_pins(row, pins), strict=True):
            if remaining < 0:
                at.wrong(Verbatim(f"pins in row {row}"), cap, "pin fewer, or raise the cap")
    page_left = rules.page_left() - rules.used(pinned)
    for cap, remaining in zip(rules.names, page_left.tolist(), strict=True):
        if remaining < 0:
            at.wrong(Verbatim("pins of the page"), cap, "pin fewer, or raise the cap")
