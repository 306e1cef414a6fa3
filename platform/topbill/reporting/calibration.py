"""How far pages follow what their viewers watch: the share of a viewer's own taste among what was
placed, and how much is new to them, by the variant that chose the titles.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.table import Table

from topbill.catalog import Catalog
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
        pages = database.rows(_PAGES, page=page)
        plays = _plays(database, page)
    if not pages:
        raise NotFound(f"no page {page!r} in the lake; expected one that was served and published")
    genres = _genres(catalog)
    decode = msgspec.json.Decoder(PageAnswer).decode
    # Variant → viewer → (divergence, own, new) of each page.
    found: dict[str, dict[str, list[tuple[float, float, float]]]] = defaultdict(dict)
    for row in pages:
        times, titles = plays.get(row["unit"], ((), ()))
        taste = _shares(titles[: bisect_left(times, row["micros"])], genres)
        answer = decode(row["actions"])
        placed = [tile.title for of_page in answer.rows for tile in of_page.titles]
        if taste and placed:
            variant = _variant(answer)
            own = found[variant].setdefault(row["unit"], [])
            own.append(_measured(taste, placed, genres))
    return tuple(_calibration(variant, found[variant]) for variant in sorted(found))


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


def _cell(mean: ViewerMean, form: str) -> str:
    if not math.isfinite(mean.low):
        return form.format(mean.mean) + " (one viewer)"
    low, high = form.format(mean.low), form.format(mean.high)
    return f"{form.format(mean.mean)} ({low} to {high})"


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
