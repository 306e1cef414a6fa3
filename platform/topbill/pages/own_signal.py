"""Rows that are made of a candidate signal of an installed package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from topbill.catalog import Bools, Catalog
from topbill.domain.errors import FileProblem, PolicyError, SpecError
from topbill.domain.patience import Patience
from topbill.plugins.asking import Asked
from topbill.plugins.discovery import SIGNALS, checked_params, installed, load
from topbill.plugins.signal import OwnSignal, PageTitles, PageViewer

MOST = 200
"""Candidates of a row, the best ones of those that rules allow."""
_LARGEST = 1e9


class SignalRow:
    """A package's signal over one catalogue. Whatever it raises is a PolicyError that names the
    package. `patience` is with one that is slow, `problem` why its last answer could not be used.
    """

    def __init__(self, name: str, params: Mapping[str, Any], titles: PageTitles) -> None:
        """Raises PolicyError where it is not installed, can't be built, or can't score for
        nobody.
        """
        entries = installed(SIGNALS)
        if name not in entries:
            known = ", ".join(f"{each} ({entry.package})" for each, entry in entries.items())
            raise PolicyError(
                f"signal {name}: no installed package brings it; installed are {known or 'none'}"
            )
        self.name, self.package = name, entries[name].package
        self.patience = Patience()
        self.problem = ""
        self._size = len(titles.ids)
        own = load(SIGNALS, name, OwnSignal)
        struct = checked_params(self.package, name, own.Params)
        self._asked = Asked(self.package, name)
        given = self._asked.ask("with", lambda: msgspec.convert(dict(params), struct))
        self._own = self._asked.ask("building it", lambda: own(given, titles))
        self.best(PageViewer((), "", {}, 0.0), np.ones(self._size, dtype=bool))

    def best(self, viewer: PageViewer, allowed: Bools) -> dict[int, float]:
        """The MOST best of the allowed titles with their scores, the highest first. Raises
        PolicyError.
        """
        asked = self._asked
        scores = asked.numbers("scores", lambda: self._own.scores(viewer), self._size, "title")
        if (np.abs(scores) > _LARGEST).any():
            raise asked.wrong("scores", "a number beyond 1e9 or infinity; expected smaller ones")
        rows = np.flatnonzero(allowed & ~np.isnan(scores))
        # Stable: equal scores keep the catalogue's order.
        rows = rows[np.argsort(-scores[rows], kind="stable")][:MOST]
        return dict(zip(rows.tolist(), scores[rows].tolist(), strict=True))


def signal_rows(
    rows: Mapping[str, tuple[str, Mapping[str, Any]]], catalog: Catalog, source: str
) -> dict[str, SignalRow]:
    """Row → its signal, over a catalogue.

    Args:
        rows: Row → the signal that the page file names, and what it says under `with`.
        catalog: The page's titles.
        source: The page file's name.

    Raises:
        SpecError: With each that can't be used.
    """
    if not rows:
        return {}
    genres = np.array(catalog.genre_names, dtype=object)
    titles = PageTitles(
        catalog.ids,
        tuple(catalog.names),
        tuple(int(year) for year in catalog.years),
        tuple(tuple(genres[own]) for own in catalog.genres.astype(bool)),
    )
    made: dict[str, SignalRow] = {}
    problems = []
    for row, (name, params) in rows.items():
        try:
            made[row] = SignalRow(name, params, titles)
        except PolicyError as error:
            path = f"sources.{row}.signal"
            problems.append(FileProblem(source, path, str(error), "a signal that can be used"))
    if problems:
        raise SpecError(problems)
    return made
