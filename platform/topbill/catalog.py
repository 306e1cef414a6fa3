"""The catalogue: titles with what rules, candidates and policies need to know of them, as columns.

Read from CSV, Parquet or a table of a DuckDB file. What such a file leaves out is made up deterministically from the
title's id, so that a plain list of films can be tried at once; `made_up` names those columns.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
from numpy.typing import NDArray

from topbill.chance import uniform
from topbill.errors import BadData, NotFound
from topbill.records import Floats

Bools = NDArray[np.bool_]
REGIONS = ("us", "gb", "de", "br", "in")
"""Regions of a catalogue that names none."""
_RATINGS = (0, 7, 12, 16, 18)
_GROWN_UP = {"horror", "slasher", "crime", "thriller", "war", "noir"}
_FOR_ALL = {"family", "animated", "musical"}
_OPTIONAL = ("franchise", "maturity", "regions", "available_from", "available_until", "added", "popularity", "pictures")
_DAY = 86_400.0
_START = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
_SPAN = 6 * 365 * _DAY
_TONES = ("warm", "cold", "dark")


class Picture(NamedTuple):
    """One artwork of a title: its id (unique in the catalogue), raw features, and payload."""

    id: str
    features: dict[str, Any]
    payload: dict[str, Any]


class Catalog:
    """T titles. Row i of every column is title `ids[i]`; titles lie in order of falling popularity.

    `genres` (T × G) and `regions` (T × R) are flags under `genre_names` and `region_names`; `maturity` the least age;
    `available_from`, `available_until`, `added` seconds since the epoch; `popularity` in [0, 1]; `franchise` a number
    (-1 for none); `pictures` each title's artworks.
    """

    def __init__(self, table: pa.Table, source: str) -> None:
        """Raises BadData naming column and row where the table can't be a catalogue."""
        columns = _Columns(table, source)
        self.made_up = tuple(name for name in _OPTIONAL if name not in columns)
        ids = columns.ids()
        popularity = columns.numbers("popularity", lambda i: round(uniform("popularity", ids[i]) ** 3, 4))
        order = np.argsort(-popularity, kind="stable")
        rows = order.tolist()
        self.ids: tuple[str, ...] = tuple(ids[i] for i in rows)
        self.index = {title: row for row, title in enumerate(self.ids)}
        self.popularity = popularity[order]
        self.names: tuple[str, ...] = tuple(columns.text("title")[i] for i in rows)
        self.years = columns.numbers("year", None)[order].astype(np.int64)
        listed = [tuple(slug(g) for g in value.split("|") if g) for value in columns.text("genres")]
        self.genre_names, self.genres = _flags([listed[i] for i in rows])
        self._share: Floats = self.genres / np.maximum(self.genres.sum(axis=1, keepdims=True), 1)
        ages = columns.numbers("maturity", lambda i: _age(ids[i], listed[i]))
        self.maturity = ages[order].astype(np.int64)
        regions = columns.words("regions", lambda i: _regions(ids[i]))
        self.region_names, self.regions = _flags([regions[i] for i in rows])
        self.added = columns.times("added", lambda i: _added(ids[i]))[order]
        self.available_from = columns.times("available_from", lambda i: _added(ids[i]))[order]
        self.available_until = columns.times("available_until", lambda i: _until(ids[i]))[order]
        franchises = columns.text("franchise") if "franchise" in columns else _series(columns.text("title"))
        self.franchise_names, self.franchise = _codes([franchises[i] for i in rows])
        self.pictures: tuple[tuple[Picture, ...], ...] = tuple(columns.pictures(i, listed[i]) for i in rows)
        self.version = f"{source}:{len(ids)}"

    @classmethod
    def read(cls, path: Path, table: str | None = None) -> Catalog:
        """The catalogue in a .csv or .parquet file, or in `table` of a DuckDB file.

        Raises NotFound where there is no such file, BadData where it is no catalogue.
        """
        if not path.exists():
            raise NotFound(f"{path}: no such file; expected a catalogue as CSV, Parquet or DuckDB")
        try:
            return cls(_load(path, table), path.name)
        except pa.ArrowException as error:
            raise BadData(
                path.name, f"{error}; expected a catalogue as CSV, Parquet or a table of a DuckDB file"
            ) from error

    def __len__(self) -> int:
        return len(self.ids)

    def genre(self, names: Sequence[str]) -> Bools:
        """(T,) the titles that have any of these genres."""
        known = [self.genre_names.index(name) for name in names if name in self.genre_names]
        return np.asarray(self.genres[:, known].any(axis=1))

    def match(self, taste: Any) -> Floats:
        """(T,) how much of a taste, a mapping from genre to weight, each title's genres have: the mean of theirs."""
        weights = np.zeros(len(self.genre_names))
        if isinstance(taste, dict):
            for j, name in enumerate(self.genre_names):
                weights[j] = taste.get(name) or 0.0
        return np.asarray(self._share @ weights)

    def legal(self, region: str, age: int, now: float) -> dict[str, Bools]:
        """(T,) each: the titles that region, maturity and availability let through, apart; `now` in seconds."""
        column = self.region_names.index(region) if region in self.region_names else None
        return {
            "region": self.regions[:, column] if column is not None else np.zeros(len(self), dtype=bool),
            "maturity": self.maturity <= age,
            "availability": (self.available_from <= now) & (now < self.available_until),
        }

    def features(self, row: int) -> dict[str, Any]:
        """What policies may be told of a title whoever looks at it."""
        return {
            "decade": int(self.years[row]) // 10 * 10,
            "genres": {name: 1 for name, has in zip(self.genre_names, self.genres[row].tolist(), strict=True) if has},
            "popularity": float(self.popularity[row]),
            "maturity": int(self.maturity[row]),
        }

    def payload(self, row: int) -> dict[str, Any]:
        """What a caller needs to show a title."""
        return {"title": self.names[row], "year": int(self.years[row])}


def slug(text: str) -> str:
    """Text as part of an id: lower case, letters and digits with single dashes."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "x"


def _load(path: Path, table: str | None) -> pa.Table:
    if table is not None:
        from topbill import lake  # here, so that a service which reads files only does not load DuckDB

        connection = lake.connect(path)
        try:
            return connection.sql(f"SELECT * FROM {lake.identifier(table)}").to_arrow_table()  # noqa: S608 (quoted)
        except lake.Error as error:
            raise BadData(path.name, f"{error}; expected a table {table}") from error
        finally:
            connection.close()
    if path.suffix == ".parquet":
        return pa_parquet.read_table(path)
    as_text = {name: pa.string() for name in ("id", "title", "genres", "regions", "franchise", "pictures")}
    return pa_csv.read_csv(path, convert_options=pa_csv.ConvertOptions(column_types=as_text))


class _Columns:
    """The columns of a table that is to become a catalogue; each reader says which row is wrong."""

    def __init__(self, table: pa.Table, source: str) -> None:
        self._columns: dict[str, list[Any]] = table.to_pydict()
        self._source, self._size = source, table.num_rows
        if not self._size:
            raise BadData(source, "no title; expected at least one row")
        if missing := [name for name in ("title", "year", "genres") if name not in self._columns]:
            raise BadData(source, f"no column {', '.join(missing)}; expected title, year, genres and {_OPTIONAL}")

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def _wrong(self, name: str, row: int, expected: str) -> BadData:
        return BadData(
            f"{self._source}: row {row + 1}: {name}", f"got {self._columns[name][row]!r}; expected {expected}"
        )

    def ids(self) -> list[str]:
        if "id" in self._columns:
            ids = self.text("id")
        else:
            ids = [f"{slug(t)}-{y}" for t, y in zip(self.text("title"), self._columns["year"], strict=True)]
        seen = Counter(ids)
        if len(seen) < len(ids):
            twice = next(i for i in ids if seen[i] > 1)
            raise BadData(self._source, f"id {twice!r} is there {seen[twice]} times; expected each id once")
        return ids

    def text(self, name: str) -> list[str]:
        return ["" if value is None else str(value) for value in self._columns[name]]

    def numbers(self, name: str, otherwise: Callable[[int], float] | None) -> Floats:
        if name not in self._columns and otherwise is not None:
            return np.array([otherwise(i) for i in range(self._size)], dtype=np.float64)
        for row, value in enumerate(self._columns[name]):
            if not isinstance(value, int | float) or value != value:
                raise self._wrong(name, row, "a number")
        return np.array(self._columns[name], dtype=np.float64)

    def words(self, name: str, otherwise: Callable[[int], tuple[str, ...]]) -> list[tuple[str, ...]]:
        if name not in self._columns:
            return [otherwise(i) for i in range(self._size)]
        return [tuple(word for word in value.split("|") if word) for value in self.text(name)]

    def times(self, name: str, otherwise: Callable[[int], float]) -> Floats:
        """Seconds since the epoch of dates or timestamps; an empty `available_until` is never."""
        if name not in self._columns:
            return np.array([otherwise(i) for i in range(self._size)], dtype=np.float64)
        found = np.empty(self._size)
        for row, value in enumerate(self._columns[name]):
            if value is None:
                found[row] = np.inf if name == "available_until" else 0.0
            elif isinstance(value, datetime):
                found[row] = value.replace(tzinfo=value.tzinfo or UTC).timestamp()
            elif isinstance(value, date):
                found[row] = datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
            else:
                raise self._wrong(name, row, "a date such as 2026-05-01")
        return found

    def pictures(self, row: int, genres: tuple[str, ...]) -> tuple[Picture, ...]:
        """The artworks named in the row, or three made-up ones that differ in tone and faces."""
        title = self.ids_once[row]
        if "pictures" in self._columns:
            names = [name for name in str(self._columns["pictures"][row] or "").split("|") if name]
            return tuple(Picture(f"{title}/{name}", {}, {"image": name}) for name in names)
        mood = dict.fromkeys(genres[:1], 1)
        return tuple(
            Picture(
                f"{title}/{tone}",
                {"tone": tone, "faces": int(3 * uniform("faces", title, tone)), "mood": mood if tone == "warm" else {}},
                {"image": f"{title}/{tone}.svg"},
            )
            for tone in _TONES
        )

    @property
    def ids_once(self) -> list[str]:
        """The ids, worked out once."""
        if not hasattr(self, "_ids"):
            self._ids = self.ids()
        return self._ids


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


def _series(titles: Sequence[str]) -> list[str]:
    """The name that sequels share: the title up to a colon, without a number at its end."""
    return [re.sub(r"\s+(\d{1,2}|[IVX]+|Part \w+)$", "", title.split(":")[0]).strip() for title in titles]


def _age(title: str, genres: tuple[str, ...]) -> int:
    """A made-up least age: low for family films, high for crime and horror."""
    u = uniform("maturity", title)
    if _FOR_ALL.intersection(genres):
        return _RATINGS[int(2 * u)]
    if _GROWN_UP.intersection(genres):
        return _RATINGS[2 + int(3 * u)]
    return _RATINGS[1 + int(3 * u)]


def _regions(title: str) -> tuple[str, ...]:
    if uniform("everywhere", title) < 0.85:
        return REGIONS
    return tuple(region for region in REGIONS if uniform("region", title, region) < 0.6)


def _added(title: str) -> float:
    """Two in five titles are added some day of 2024 to 2029, the others were there before."""
    u = uniform("added", title)
    return _START + np.floor(u / 0.4 * _SPAN / _DAY) * _DAY if u < 0.4 else _START - 365 * _DAY


def _until(title: str) -> float:
    u = uniform("until", title)
    return _START + 3 * 365 * _DAY + np.floor(u / 0.05 * 730) * _DAY if u < 0.05 else np.inf
