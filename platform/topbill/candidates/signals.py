"""What the log says of titles: popular, trending, and watched together. Made by the keeper, read by those who serve."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from topbill.catalog import Catalog
from topbill.errors import BadData
from topbill.records import Floats, Indices

Matrix = NDArray[np.float32]
FACTORS = 32
HALF_LIFE = 2 * 86_400.0
"""Seconds after which a play counts half in what is trending."""


class Play(NamedTuple):
    """A viewer played a title: `unit` who, `at` seconds since the epoch, `region` where known."""

    unit: str
    title: str
    at: float
    region: str = ""


@dataclass(frozen=True)
class Signals:
    """What the log says of titles `ids` (N): `trending` (N) and `popular` (N) decayed and plain plays, `regional`
    (R × N) plays by region, `factors` (N × f) unit vectors of titles that are watched together lie close."""

    ids: tuple[str, ...]
    regions: tuple[str, ...]
    trending: Floats
    popular: Floats
    regional: Floats
    factors: Matrix
    at: float = 0.0
    plays: int = 0

    def save(self, path: Path) -> None:
        """Write to `path`, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        with fresh.open("wb") as file:
            np.savez(
                file,
                ids=np.array(self.ids),
                regions=np.array(self.regions),
                trending=self.trending,
                popular=self.popular,
                regional=self.regional,
                factors=self.factors,
                numbers=np.array([self.at, float(self.plays)]),
            )
        os.replace(fresh, path)

    @classmethod
    def load(cls, path: Path) -> Signals:
        """What `save` wrote. Raises BadData where it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as held:
                at, plays = held["numbers"].tolist()
                return cls(
                    tuple(held["ids"].tolist()),
                    tuple(held["regions"].tolist()),
                    held["trending"],
                    held["popular"],
                    held["regional"],
                    held["factors"],
                    at,
                    int(plays),
                )
        except (OSError, ValueError, KeyError, EOFError, zlib.error) as error:
            raise BadData(path.name, f"{error}; expected what the keeper writes; delete the file") from error


def signals_path(data: Path, page: str) -> Path:
    """Where in the data folder the keeper leaves a page's signals."""
    return data / "pages" / f"{page}.npz"


def learn(plays: Iterable[Play], catalog: Catalog, now: float, factors: int = FACTORS) -> Signals:
    """Signals of plays, in any order; plays of titles that the catalogue doesn't have are left out.

    Co-watching is a truncated SVD of the log-damped, viewer-normalised play matrix (PureSVD: Cremonesi, Koren and
    Turrin 2010), which ranks as well as weighted implicit factorisations and needs no library beside SciPy.
    """
    index = catalog.index
    known = [play for play in plays if play.title in index]
    size, regions = len(catalog), catalog.region_names
    rows = np.array([index[play.title] for play in known], dtype=np.intp)
    ages = np.array([max(0.0, now - play.at) for play in known])
    region = {name: j for j, name in enumerate(regions)}
    regional = np.zeros((len(regions), size))
    for play, row in zip(known, rows.tolist(), strict=True):
        if play.region in region:
            regional[region[play.region], row] += 1.0
    return Signals(
        catalog.ids,
        regions,
        _sums(rows, np.exp2(-ages / HALF_LIFE), size),
        _sums(rows, np.ones(len(rows)), size),
        regional,
        _factors([play.unit for play in known], rows, size, factors),
        now,
        len(known),
    )


def _sums(rows: Indices, weights: Floats, size: int) -> Floats:
    return np.asarray(np.bincount(rows, weights=weights, minlength=size), dtype=np.float64)


def _factors(units: Sequence[str], rows: Indices, size: int, factors: int) -> Matrix:
    """(size × factors) unit vectors; zero for titles without plays, and everywhere when there is too little to tell."""
    out = np.zeros((size, factors), dtype=np.float32)
    names, who = np.unique(np.array(units), return_inverse=True) if units else (np.zeros(0), np.zeros(0, dtype=np.intp))
    played = np.unique(rows)
    k = min(factors, len(names) - 1, len(played) - 1)
    if k < 1:
        return out
    column = np.searchsorted(played, rows)
    counts = csr_array((np.ones(len(rows)), (who, column)), shape=(len(names), len(played)))
    counts.sum_duplicates()
    damped = np.log1p(counts.data)
    viewer = np.repeat(np.arange(len(names)), np.diff(counts.indptr))
    norm = np.sqrt(np.bincount(viewer, weights=damped * damped, minlength=len(names)))
    scaled = csr_array((damped / norm[viewer], counts.indices, counts.indptr), shape=counts.shape)
    start = np.random.default_rng(0).standard_normal(min(scaled.shape))
    _, values, right = svds(scaled, k=k, v0=start)
    out[played, :k] = unit_length((right.T * values).astype(np.float32))
    return out


def unit_length(vectors: Matrix) -> Matrix:
    """Vectors of length 1; those of length 0 stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 1e-12, length, 1.0), dtype=np.float32)
