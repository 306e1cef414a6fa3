"""The rules compiled for one catalogue: what a viewer may see at all, and what caps and pins a page
begins with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from topbill.catalog import Bools, Catalog
from topbill.rules.schema import Cap, Rules

Counts = NDArray[np.int64]
_FREE = 1_000_000


class CompiledRules:
    """Rules compiled for one catalogue: `groups` (T × C) says which caps each title falls under,
    `members` lists them."""

    def __init__(self, rules: Rules, catalog: Catalog) -> None:
        self.rules, self.catalog = rules, catalog
        self.blocked: Bools = catalog.genre(rules.blocked_genres)
        self.blocked[
            [catalog.index[title] for title in rules.blocked if title in catalog.index]
        ] = True
        self.pins = {
            row: {
                k: catalog.index[title]
                for k, title in sorted(held.items())
                if title in catalog.index
            }
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
        self.groups: Bools = (
            np.stack(columns, axis=1) if columns else np.zeros((len(catalog), 0), dtype=bool)
        )
        self.limits: Counts = np.array([cap.count for cap in self.caps], dtype=np.int64)
        self.members: list[list[int]] = [[] for _ in range(len(catalog))]
        for title, group in zip(*(found.tolist() for found in self.groups.nonzero()), strict=True):
            self.members[title].append(group)
        self._of_page = np.array([cap.per == "page" for cap in self.caps], dtype=bool)
        self._exempt: dict[str, Bools] = {}

    def after_pins(self, row: str, held: Mapping[int, int]) -> Counts:
        """(C,) what a row's caps still take beside its pins; below 0 where these are too many."""
        left = self.row_left(row, np.full_like(self.limits, _FREE))
        return np.asarray(left - self.groups[list(held.values())].sum(axis=0))

    def allowed_by_rule(
        self, region: str, age: int, now: float, tired: Iterable[int]
    ) -> dict[str, Bools]:
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
            exempt = self._exempt[row] = np.array(
                [row in cap.exempt for cap in self.caps], dtype=bool
            )
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
