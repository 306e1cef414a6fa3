"""How far pages follow what their viewers watch: the share of a viewer's own taste among what was
placed, how much is new to them, and whose titles are placed, by the variant that chose them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.markup import escape
from rich.table import Table

from topbill.catalog import Catalog, names_in
from topbill.domain.errors import NotFound
from topbill.domain.page_answer import PageAnswer
from topbill.reporting.queries.database import AnalyticsDatabase, open_database
from topbill.stats.intervals import normal

_PAGES = """SELECT unit, epoch_us(decided_at) AS micros, actions FROM decisions
WHERE experiment = $page AND actions IS NOT NULL ORDER BY seq"""
_PLAYS = """SELECT unit, action, epoch_us(occurred_at) AS micros FROM (
    SELECT unit, action, occurred_at, event FROM rewards WHERE experiment = $page
    UNION ALL SELECT unit, action, occurred_at, event FROM events
) WHERE event = 'play' AND action IS NOT NULL AND occurred_at IS NOT NULL ORDER BY micros"""
SMOOTHING = 0.01
"""Share of the viewer's taste that is mixed into what was placed, so that a genre which was not
placed at all makes no infinite divergence (Steck 2018, "Calibrated recommendations")."""
_ALPHA = 0.05
MOST_PROVIDERS = 20
"""Providers of a variant that a table for people has."""
PROVIDER = "provider"
"""The column of a catalogue that says whose a title is; several share it."""


@dataclass(frozen=True)
class ViewerMean:
    """A mean over viewers, each with the mean of their pages, and its 95% interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class PageCalibration:
    """The pages whose titles one variant chose, for viewers who had played something before.

    Attributes:
        variant: The titles' variant.
        viewers, pages: How many.
        divergence: KL of what was placed from the viewer's taste, both as shares of genres, in
            nats: 0 where a page has each genre as often as the viewer plays it.
        own: Share of the placements, by genre, that lie in genres the viewer has played.
        new: Share of the titles placed none of whose genres the viewer has played.
    """

    variant: str
    viewers: int
    pages: int
    divergence: ViewerMean
    own: ViewerMean
    new: ViewerMean


@dataclass(frozen=True)
class ProviderExposure:
    """One provider's share of the places on pages whose titles one variant chose.

    Attributes:
        variant: The titles' variant.
        provider: Whose titles; "" for those of which the catalogue doesn't say.
        catalogue: Its share of the catalogue's titles.
        placed: Its share of a page's places.
    """

    variant: str
    provider: str
    catalogue: float
    placed: ViewerMean


def page_calibration(page: str, data: Path | str, catalog: Catalog) -> tuple[PageCalibration, ...]:
    """The calibration of a page by the variants of its titles, in the order of their names.

    A viewer's taste is the genres of what they had played before the page, whatever page or place
    it came from; a title of several genres counts a part in each.

    Args:
        page: The page's key.
        data: The data folder.
        catalog: Where the genres of titles are said; what it doesn't have is left out.

    Raises:
        NotFound: There is no lake yet, or no such page in it.
        LogError: The lake cannot be read.
    """
    with open_database(data) as database:
        pages = _pages(database, page)
        plays = _plays(database, page)
    genres = _genres(catalog)
    decode = msgspec.json.Decoder(PageAnswer).decode
    # Variant → viewer → (divergence, own, new) of each page.
    found: dict[str, dict[str, list[tuple[float, float, float]]]] = defaultdict(dict)
    for row in pages:
        times, titles = plays.get(row["unit"], ((), ()))
        taste = _shares(titles[: bisect_left(times, row["micros"])], genres)
        answer = decode(row["actions"])
        placed = _placed(answer)
        if taste and placed:
            variant = _variant(answer)
            own = found[variant].setdefault(row["unit"], [])
            own.append(_measured(taste, placed, genres))
    return tuple(_calibration(variant, found[variant]) for variant in sorted(found))


def page_exposure(page: str, data: Path | str, catalog: Catalog) -> tuple[ProviderExposure, ...]:
    """The exposure of each provider by the variants of titles, over all pages, the greatest first;
    none where the catalogue has no column `provider`. A title of several counts a part in each.

    Args and errors: as those of `page_calibration`.
    """
    with open_database(data) as database:
        pages = _pages(database, page)
    if PROVIDER not in catalog.columns:
        return ()
    providers = dict(zip(catalog.ids, map(_providers, catalog.cells(PROVIDER)), strict=True))
    of_catalogue = _shares(catalog.ids, providers)
    decode = msgspec.json.Decoder(PageAnswer).decode
    # Variant → viewer → the shares on each page.
    found: dict[str, dict[str, list[list[float]]]] = defaultdict(dict)
    for row in pages:
        answer = decode(row["actions"])
        shares = _shares(_placed(answer), providers)
        if shares:
            own = found[_variant(answer)].setdefault(row["unit"], [])
            own.append([shares.get(name, 0.0) for name in of_catalogue])
    exposures = []
    for variant, of_viewers in sorted(found.items()):
        means = np.array([np.mean(pages, axis=0) for pages in of_viewers.values()])
        for (name, share), column in zip(of_catalogue.items(), means.T, strict=True):
            exposures.append(ProviderExposure(variant, name, share, _mean(column)))
    return tuple(sorted(exposures, key=lambda one: (one.variant, -one.placed.mean)))


def _providers(cell: Any) -> list[str]:
    try:
        return list(dict.fromkeys(names_in(cell))) or [""]
    except ValueError:  # nothing, or what is no name
        return [""]


def calibration_table(found: Sequence[PageCalibration]) -> Table:
    """The calibration for people: a row for each variant."""
    table = Table(
        title="Over viewers who had played something before, with 95% intervals",
        caption="from taste: KL in nats, 0 where each genre is as often as its viewer plays it",
    )
    for heading in ("titles", "viewers", "pages", "from taste", "own genres", "new titles"):
        table.add_column(heading)
    for one in found:
        table.add_row(
            one.variant,
            f"{one.viewers:,}",
            f"{one.pages:,}",
            _cell(one.divergence, "{:.3f}"),
            _cell(one.own, "{:.1%}"),
            _cell(one.new, "{:.1%}"),
        )
    return table


def exposure_table(found: Sequence[ProviderExposure]) -> Table:
    """The exposure for people: the providers with the most places of each variant."""
    table = Table(
        title="Whose titles have the places, over all viewers, with 95% intervals",
        caption=f"the {MOST_PROVIDERS} with the most places of each variant; --json has all",
    )
    for heading in ("titles", "provider", "of the catalogue", "of the places"):
        table.add_column(heading)
    told: Counter[str] = Counter()
    for one in found:
        told[one.variant] += 1
        if told[one.variant] <= MOST_PROVIDERS:
            name = one.provider[:60] or "(unknown)"
            share = f"{one.catalogue:.1%}"
            table.add_row(one.variant, escape(name), share, _cell(one.placed, "{:.1%}"))
    return table


def _cell(mean: ViewerMean, form: str) -> str:
    if not math.isfinite(mean.low):
        return form.format(mean.mean) + " (one viewer)"
    low, high = form.format(mean.low), form.format(mean.high)
    return f"{form.format(mean.mean)} ({low} to {high})"


def _pages(database: AnalyticsDatabase, page: str) -> list[dict[str, Any]]:
    """The page's own decisions. Raises NotFound where there are none."""
    pages = database.rows(_PAGES, page=page)
    if not pages:
        raise NotFound(f"no page {page!r} in the lake; expected one that was served and published")
    return pages


def _placed(answer: PageAnswer) -> list[str]:
    return [tile.title for row in answer.rows for tile in row.titles]


def _plays(database: AnalyticsDatabase, page: str) -> Mapping[str, tuple[list[int], list[str]]]:
    """Viewer → (when each play was, in µs, and its title), the first one first."""
    plays: dict[str, tuple[list[int], list[str]]] = defaultdict(lambda: ([], []))
    for row in database.rows(_PLAYS, page=page):
        times, titles = plays[row["unit"]]
        times.append(row["micros"])
        titles.append(row["action"])
    return plays


def _genres(catalog: Catalog) -> dict[str, list[str]]:
    """Title → its genres."""
    names = np.array(catalog.genre_names, dtype=object)
    genres: dict[str, list[str]] = {}
    for title, own in zip(catalog.ids, catalog.genres, strict=True):
        genres[title] = names[own].tolist()
    return genres


def _variant(answer: PageAnswer) -> str:
    variants = [layer.variant for layer in answer.layers if layer.layer == "titles"]
    return variants[0] or "" if variants else ""


def _shares(titles: Any, genres: Mapping[str, list[str]]) -> dict[str, float]:
    """Genre → its share of these titles, each counted once in all."""
    sums: defaultdict[str, float] = defaultdict(float)
    for title in titles:
        own = genres.get(title, ())
        for genre in own:
            sums[genre] += 1 / len(own)
    total = sum(sums.values())
    return {genre: count / total for genre, count in sums.items()}


def _measured(
    taste: Mapping[str, float], placed: list[str], genres: Mapping[str, list[str]]
) -> tuple[float, float, float]:
    """(divergence, own, new) of one page."""
    shown = _shares(placed, genres)
    divergence = 0.0
    for genre, share in taste.items():
        mixed = (1.0 - SMOOTHING) * shown.get(genre, 0.0) + SMOOTHING * share
        divergence += share * math.log(share / mixed)
    own = sum(share for genre, share in shown.items() if genre in taste)
    known = [title for title in placed if genres.get(title)]
    new = sum(not any(genre in taste for genre in genres[title]) for title in known)
    return divergence, own, new / max(len(known), 1)


def _calibration(
    variant: str, of_viewers: Mapping[str, list[tuple[float, float, float]]]
) -> PageCalibration:
    means = np.array([np.mean(pages, axis=0) for pages in of_viewers.values()])
    return PageCalibration(
        variant,
        len(of_viewers),
        sum(map(len, of_viewers.values())),
        *(_mean(column) for column in means.T),
    )


def _mean(values: np.ndarray) -> ViewerMean:
    mean = float(values.mean())
    # Of one viewer nobody knows how much others differ.
    sd = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return ViewerMean(mean, *normal(mean, sd, _ALPHA))
