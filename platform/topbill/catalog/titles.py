"""The catalogue: titles with what rules, candidates and policies need to know of them, as columns.

Read from CSV, Parquet or a table of a DuckDB file. What a file doesn't say is unknown: without a
column a title may be shown everywhere and always, but one of unknown age never to kids. Only a
demonstration makes values up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from topbill.catalog import made_up
from topbill.catalog.column_features import ColumnFeature, read_column
from topbill.catalog.columns import OPTIONAL, CatalogColumns, read
from topbill.catalog.pictures import FieldKind, Picture, PictureFields
from topbill.catalog.tables import lost_pictures
from topbill.domain.cells import values_of
from topbill.domain.features import Encoder, Feature
from topbill.domain.records import Floats

Bools = NDArray[np.bool_]
_T = TypeVar("_T")
UNKNOWN_AGE = 16
"""The least age, in years, at which a title whose own is unknown may be seen: no child's."""
_LARGEST_AGE = 99


class Catalog:
    """T titles. Row i of every column is title `ids[i]`; titles lie in order of falling popularity.

    Attributes:
        ids: (T) each title's id; `index` is the way back.
        names: (T) what people call them.
        years: (T,) when they were made.
        genres: (T × G) flags under `genre_names`.
        regions: (T × R) flags under `region_names`: where each may be shown.
        maturity: (T,) the least age, in years; NaN where it is unknown.
        available_from, available_until, added: (T,) seconds since the epoch.
        popularity: (T,) in [0, 1]; 0 where it is unknown.
        franchise: (T,) a number under `franchise_names`, -1 for none.
        pictures: (T) each title's artworks.
        picture_fields: Feature of the pictures → what it holds.
        without_pictures: Why titles go without their pictures, one sentence each.
        lost_pictures: What is said of pictures of titles that are not there; "" where none are.
        everywhere: Whether the file names no regions: titles may be shown in any then.
        columns: The file's columns.
        unread: Those that mean nothing here.
        commas_in_genres: How many rows have a genre with a comma in it.
        made_up: The columns that are made up, in a demonstration.
        missing: The OPTIONAL columns that the file leaves out.
        set_aside: Why rows of the file are no titles, one sentence each.
    """

    def __init__(self, table: pa.Table, source: str, *, demo: bool = False) -> None:
        """`demo` makes up the columns that the file leaves out.

        Raises BadData where the table can't be a catalogue, naming column and row.
        """
        columns = CatalogColumns(table, source)
        self.columns: tuple[str, ...] = tuple(table.column_names)
        self.unread = columns.unread
        self.commas_in_genres = columns.commas_in_genres
        self.missing = tuple(name for name in OPTIONAL if name not in columns)
        self.made_up = self.missing if demo else ()
        self.everywhere = "regions" in self.missing and not demo
        ids, genres = columns.ids, columns.genres

        def in_demo(make: Callable[[int], _T]) -> Callable[[int], _T] | None:
            return make if demo else None

        popularity = columns.numbers(
            "popularity", 0, 1, in_demo(lambda i: made_up.popularity(ids[i]))
        )
        maturity = columns.numbers(
            "maturity", 0, _LARGEST_AGE, in_demo(lambda i: made_up.age(ids[i], genres[i]))
        )
        regions = columns.words("regions", in_demo(lambda i: made_up.regions(ids[i])))
        added = columns.times("added", in_demo(lambda i: made_up.added(ids[i])))
        # A title without dates is there from the day on which it was added.
        available_from = columns.times("available_from", lambda i: float(added[i]))
        available_until = columns.times("available_until", in_demo(lambda i: made_up.until(ids[i])))
        pictures = columns.pictures(in_demo(lambda i: made_up.pictures(ids[i], genres[i])))
        if "franchise" in columns:
            franchises = columns.text("franchise")
        else:
            franchises = made_up.series(columns.titles) if demo else [""] * len(ids)

        columns.refuse_if_empty()
        self.set_aside = tuple(columns.set_aside.values())
        # The order is part of what pages are: without a policy titles stand in it. Equal ones keep
        # the file's, so that every process has the same.
        self.popularity: Floats = np.nan_to_num(popularity)
        by_popularity = np.argsort(-self.popularity, kind="stable").tolist()
        rows = [row for row in by_popularity if row not in columns.set_aside]
        self._table, self._rows = table, rows
        self._row_numbers: tuple[int, ...] = _reordered(columns.row_numbers, rows)
        self._read_columns: dict[Feature, ColumnFeature] = {}
        self.ids: tuple[str, ...] = _reordered(ids, rows)
        self.index = {title: row for row, title in enumerate(self.ids)}
        self.popularity = self.popularity[rows]
        self._unknown_popularity: Bools = np.isnan(popularity[rows])
        self.names: tuple[str, ...] = _reordered(columns.titles, rows)
        self.years = columns.years[rows].astype(np.int64)
        self.genre_names, self.genres = _flags(_reordered(genres, rows))
        self._taste = Encoder((Feature("taste", "vector", keys=self.genre_names),))
        # A title of three genres matches each a third: many genres are no advantage.
        self._share: Floats = self.genres / np.maximum(self.genres.sum(axis=1, keepdims=True), 1)
        self.maturity = maturity[rows]
        self.region_names, self.regions = _flags(_reordered(regions, rows))
        self.added, self.available_from = added[rows], available_from[rows]
        self.available_until = available_until[rows]
        self.franchise_names, self.franchise = _franchises(_reordered(franchises, rows))
        self.pictures: tuple[tuple[Picture, ...], ...] = _reordered(pictures, rows)
        self.picture_fields: dict[str, FieldKind] = PictureFields(self.pictures).kinds
        self.without_pictures = tuple(columns.without_pictures.values())
        self.lost_pictures = lost_pictures(table)
        self.version = f"{source}:{len(rows)}"

    @classmethod
    def read(cls, path: Path, table: str | None = None, *, demo: bool = False) -> Catalog:
        """The catalogue in a .csv or .parquet file, or in `table` of a DuckDB file.

        Raises NotFound where there is no such file, BadData where it is no catalogue.
        """
        return cls(read(path, table, set_aside=True), path.name, demo=demo)

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
        # In a region that the catalogue doesn't name, nothing may be shown.
        in_region = np.full(len(self), self.everywhere)
        if region in self.region_names:
            in_region = self.regions[:, self.region_names.index(region)]
        return {
            "region": in_region,
            "maturity": self.least_age <= age,
            "availability": (self.available_from <= now) & (now < self.available_until),
        }

    @property
    def least_age(self) -> Floats:
        """(T,) from which age on each title may be seen: UNKNOWN_AGE where the file doesn't say."""
        return np.where(np.isnan(self.maturity), UNKNOWN_AGE, self.maturity)

    def features(self, row: int) -> dict[str, Any]:
        """What policies may be told of a title whoever looks at it; None for what is unknown."""
        genres = np.flatnonzero(self.genres[row])
        maturity = float(self.maturity[row])
        return {
            "decade": int(self.years[row]) // 10 * 10,
            "genres": {self.genre_names[j]: 1 for j in genres},
            "popularity": None if self._unknown_popularity[row] else float(self.popularity[row]),
            "maturity": None if np.isnan(maturity) else maturity,
        }

    def cells(self, name: str) -> tuple[Any, ...]:
        """(T) what a column of the file has for each title, None where it says nothing, or there is
        no such column.
        """
        if name not in self.columns:
            return (None,) * len(self)
        return _reordered(values_of(self._table[name]), self._rows)

    def column(self, feature: Feature) -> ColumnFeature:
        """The column of the feature's name, read as that is declared; unknown of every title where
        there is no such column.
        """
        # A page asks for what its check has read already.
        if feature not in self._read_columns:
            self._read_columns[feature] = read_column(
                feature, self.cells(feature.name), self._row_numbers
            )
        return self._read_columns[feature]

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


def _franchises(names: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The franchises of at least two titles, and (T,) each title's number among them, -1 for none:
    a cap on a title that stands alone would hold nothing.
    """
    counts = Counter(names)
    shared = tuple(sorted(name for name in counts if name and counts[name] > 1))
    number_of = {name: number for number, name in enumerate(shared)}
    return shared, np.array([number_of.get(name, -1) for name in names], dtype=np.int64)
