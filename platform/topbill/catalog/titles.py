"""The catalogue: titles with what rules, candidates and policies need to know of them, as columns.

Read from CSV, Parquet or a table of a DuckDB file; `made_up` names the columns that such a file
leaves out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from topbill.catalog import made_up
from topbill.catalog.columns import OPTIONAL, CatalogColumns, read
from topbill.catalog.made_up import Picture
from topbill.domain.features import Encoder, Feature
from topbill.domain.records import Floats, Indices

Bools = NDArray[np.bool_]
_T = TypeVar("_T")
_LARGEST_AGE = 99


class Catalog:
    """T titles. Row i of every column is title `ids[i]`; titles lie in order of falling popularity.

    Attributes:
        ids: (T) each title's id; `index` is the way back.
        names: (T) what people call them.
        years: (T,) when they were made.
        genres: (T × G) flags under `genre_names`.
        regions: (T × R) flags under `region_names`: where each may be shown.
        maturity: (T,) the least age, in years.
        available_from, available_until, added: (T,) seconds since the epoch.
        popularity: (T,) in [0, 1].
        franchise: (T,) a number under `franchise_names`, -1 for none.
        pictures: (T) each title's artworks.
        made_up: The columns that the file leaves out.
    """

    def __init__(self, table: pa.Table, source: str) -> None:
        """Raises BadData naming column and row where the table can't be a catalogue."""
        columns = CatalogColumns(table, source)
        ids, genres = columns.ids, columns.genres
        self.made_up = tuple(name for name in OPTIONAL if name not in columns)
        popularity = columns.numbers("popularity", 0, 1, lambda i: made_up.popularity(ids[i]))
        # The order is part of what pages are: without a policy titles stand in it. Equal ones keep
        # the file's, so that every process has the same.
        order = np.argsort(-popularity, kind="stable")
        rows = order.tolist()
        self.ids: tuple[str, ...] = _reordered(ids, rows)
        self.index = {title: row for row, title in enumerate(self.ids)}
        self.popularity = popularity[order]
        self.names: tuple[str, ...] = _reordered(columns.titles, rows)
        self.years = columns.years[order].astype(np.int64)
        self.genre_names, self.genres = _flags(_reordered(genres, rows))
        self._taste = Encoder((Feature("taste", "vector", keys=self.genre_names),))
        # A title of three genres matches each a third: many genres are no advantage.
        self._share: Floats = self.genres / np.maximum(self.genres.sum(axis=1, keepdims=True), 1)
        self._read_rights(columns, order)
        self.franchise_names, self.franchise = _franchises(columns, rows)
        self.pictures: tuple[tuple[Picture, ...], ...] = _reordered(columns.pictures(), rows)
        self.version = f"{source}:{len(ids)}"

    def _read_rights(self, columns: CatalogColumns, order: Indices) -> None:
        """Who may see each title, where and when."""
        ids, genres = columns.ids, columns.genres
        ages = columns.numbers(
            "maturity", 0, _LARGEST_AGE, lambda i: made_up.age(ids[i], genres[i])
        )
        self.maturity = ages[order].astype(np.int64)
        regions = columns.words("regions", lambda i: made_up.regions(ids[i]))
        self.region_names, self.regions = _flags(_reordered(regions, order.tolist()))
        self.added = columns.times("added", lambda i: made_up.added(ids[i]))[order]
        # A title without dates is there from the day on which it was added.
        available_from = columns.times("available_from", lambda i: made_up.added(ids[i]))
        self.available_from = available_from[order]
        available_until = columns.times("available_until", lambda i: made_up.until(ids[i]))
        self.available_until = available_until[order]

    @classmethod
    def read(cls, path: Path, table: str | None = None) -> Catalog:
        """The catalogue in a .csv or .parquet file, or in `table` of a DuckDB file.

        Raises NotFound where there is no such file, BadData where it is no catalogue.
        """
        return cls(read(path, table), path.name)

    def __len__(self) -> int:
        return len(self.ids)

    def rows_of(self, titles: Iterable[str]) -> list[int]:
        """The rows of these titles, in their order, without those that the catalogue doesn't
        have.
        """
        return [self.index[title] for title in titles if title in self.index]

    def genre(self, names: Sequence[str]) -> Bools:
        """(T,) the titles that have any of these genres; of a genre that no title has there are
        none.
        """
        columns = [self.genre_names.index(name) for name in names if name in self.genre_names]
        return np.asarray(self.genres[:, columns].any(axis=1))

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
        # In a region that the catalogue doesn't know, nothing may be shown.
        in_region = np.zeros(len(self), dtype=bool)
        if region in self.region_names:
            in_region = self.regions[:, self.region_names.index(region)]
        return {
            "region": in_region,
            "maturity": self.maturity <= age,
            "availability": (self.available_from <= now) & (now < self.available_until),
        }

    def features(self, row: int) -> dict[str, Any]:
        """What policies may be told of a title whoever looks at it."""
        genres = np.flatnonzero(self.genres[row])
        return {
            "decade": int(self.years[row]) // 10 * 10,
            "genres": {self.genre_names[j]: 1 for j in genres},
            "popularity": float(self.popularity[row]),
            "maturity": int(self.maturity[row]),
        }

    def payload(self, row: int) -> dict[str, Any]:
        """What a caller needs to show a title."""
        return {"title": self.names[row], "year": int(self.years[row])}


def _reordered(values: Sequence[_T], rows: Sequence[int]) -> tuple[_T, ...]:
    """The file's values in the order of the catalogue."""
    return tuple(values[row] for row in rows)


def _flags(words_of_rows: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], Bools]:
    """The words that there are, in order, and (rows × words) which row has which."""
    words: set[str] = set()
    for own in words_of_rows:
        words.update(own)
    names = tuple(sorted(words))
    column_of = {name: j for j, name in enumerate(names)}
    flags = np.zeros((len(words_of_rows), len(names)), dtype=bool)
    for row, own in enumerate(words_of_rows):
        flags[row, [column_of[word] for word in own]] = True
    return names, flags


def _franchises(
    columns: CatalogColumns, rows: Sequence[int]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The franchises of at least two titles, and (T,) each title's number among them, -1 for none:
    a cap on a title that stands alone would hold nothing.
    """
    is_told = "franchise" in columns
    names = columns.text("franchise") if is_told else made_up.series(columns.titles)
    counts = Counter(names)
    shared = tuple(sorted(name for name in counts if name and counts[name] > 1))
    number_of = {name: number for number, name in enumerate(shared)}
    numbers = [number_of.get(name, -1) for name in _reordered(names, rows)]
    return shared, np.array(numbers, dtype=np.int64)
