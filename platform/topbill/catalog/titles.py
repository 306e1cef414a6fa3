"""The catalogue: titles with what rules, candidates and policies need to know of them, as columns.

Read from CSV, Parquet or a table of a DuckDB file; `made_up` names the columns that such a file
leaves out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from topbill.catalog import made_up
from topbill.catalog.columns import OPTIONAL, Columns, read
from topbill.catalog.made_up import Picture
from topbill.domain.features import Encoder, Feature
from topbill.domain.records import Floats

Bools = NDArray[np.bool_]
_LARGEST_AGE = 99


class Catalog:
    """T titles. Row i of every column is title `ids[i]`; titles lie in order of falling popularity.

    `genres` (T × G) and `regions` (T × R) are flags under `genre_names` and `region_names`;
    `maturity` the least age; `available_from`, `available_until`, `added` seconds since the epoch;
    `popularity` in [0, 1]; `franchise` a number (-1 for none); `pictures` each title's artworks.
    """

    def __init__(self, table: pa.Table, source: str) -> None:
        """Raises BadData naming column and row where the table can't be a catalogue."""
        columns = Columns(table, source)
        ids, genres = columns.ids, columns.genres
        self.made_up = tuple(name for name in OPTIONAL if name not in columns)
        popularity = columns.numbers("popularity", 0, 1, lambda i: made_up.popularity(ids[i]))
        order = np.argsort(-popularity, kind="stable")
        rows = order.tolist()
        self.ids: tuple[str, ...] = tuple(ids[i] for i in rows)
        self.index = {title: row for row, title in enumerate(self.ids)}
        self.popularity = popularity[order]
        self.names: tuple[str, ...] = tuple(columns.titles[i] for i in rows)
        self.years = columns.years[order].astype(np.int64)
        self.genre_names, self.genres = _flags([genres[i] for i in rows])
        self._taste = Encoder((Feature("taste", "vector", keys=self.genre_names),))
        self._share: Floats = self.genres / np.maximum(self.genres.sum(axis=1, keepdims=True), 1)
        ages = columns.numbers(
            "maturity", 0, _LARGEST_AGE, lambda i: made_up.age(ids[i], genres[i])
        )
        self.maturity = ages[order].astype(np.int64)
        regions = columns.words("regions", lambda i: made_up.regions(ids[i]))
        self.region_names, self.regions = _flags([regions[i] for i in rows])
        self.added = columns.times("added", lambda i: made_up.added(ids[i]))[order]
        self.available_from = columns.times("available_from", lambda i: made_up.added(ids[i]))[
            order
        ]
        self.available_until = columns.times("available_until", lambda i: made_up.until(ids[i]))[
            order
        ]
        franchises = (
            columns.text("franchise") if "franchise" in columns else made_up.series(columns.titles)
        )
        self.franchise_names, self.franchise = _codes([franchises[i] for i in rows])
        pictures = columns.pictures()
        self.pictures: tuple[tuple[Picture, ...], ...] = tuple(pictures[i] for i in rows)
        self.version = f"{source}:{len(ids)}"

    @classmethod
    def read(cls, path: Path, table: str | None = None) -> Catalog:
        """The catalogue in a .csv or .parquet file, or in `table` of a DuckDB file.

        Raises NotFound where there is no such file, BadData where it is no catalogue.
        """
        return cls(read(path, table), path.name)

    def __len__(self) -> int:
        return len(self.ids)

    def rows_of(self, titles: Iterable[str]) -> list[int]:
        """The rows of these titles, in their order; of those that the catalogue doesn't have none."""
        return [self.index[title] for title in titles if title in self.index]

    def genre(self, names: Sequence[str]) -> Bools:
        """(T,) the titles that have any of these genres."""
        known = [self.genre_names.index(name) for name in names if name in self.genre_names]
        return np.asarray(self.genres[:, known].any(axis=1))

    def match(self, taste: Any) -> Floats:
        """(T,) how much of a taste, a mapping from genre to weight, each title's genres have: the
        mean of theirs.

        Raises BadRequest for a weight that is no number, of a genre that the catalogue has.
        """
        return np.asarray(self._share @ self._taste.encode({"taste": taste}))

    def legal(self, region: str, age: int, now: float) -> dict[str, Bools]:
        """(T,) each: the titles that region, maturity and availability let through, apart; `now` in
        seconds.
        """
        column = self.region_names.index(region) if region in self.region_names else None
        return {
            "region": self.regions[:, column]
            if column is not None
            else np.zeros(len(self), dtype=bool),
            "maturity": self.maturity <= age,
            "availability": (self.available_from <= now) & (now < self.available_until),
        }

    def features(self, row: int) -> dict[str, Any]:
        """What policies may be told of a title whoever looks at it."""
        return {
            "decade": int(self.years[row]) // 10 * 10,
            "genres": {
                name: 1
                for name, has in zip(self.genre_names, self.genres[row].tolist(), strict=True)
                if has
            },
            "popularity": float(self.popularity[row]),
            "maturity": int(self.maturity[row]),
        }

    def payload(self, row: int) -> dict[str, Any]:
        """What a caller needs to show a title."""
        return {"title": self.names[row], "year": int(self.years[row])}


def _flags(listed: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], Bools]:
    names = tuple(sorted({name for words in listed for name in words}))
    column = {name: j for j, name in enumerate(names)}
    flags = np.zeros((len(listed), len(names)), dtype=bool)
    for row, words in enumerate(listed):
        flags[row, [column[word] for word in words]] = True
    return names, flags


def _codes(names: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Numbers for the names that at least two titles share; -1 for the others."""
    shared = tuple(sorted(name for name, count in Counter(names).items() if name and count > 1))
    code = {name: i for i, name in enumerate(shared)}
    return shared, np.array([code.get(name, -1) for name in names], dtype=np.int64)
