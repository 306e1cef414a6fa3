"""What the log says of titles: popular, trending, and watched together, and how much each kind of
evidence is worth. Made by the worker, read by those who serve."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from topbill.catalog import Catalog
from topbill.domain.errors import BadData
from topbill.domain.records import Floats, Indices

Matrix = NDArray[np.float32]
FACTORS = 48
DAMPING = 5.0
"""Plays of a title that are worth half of what co-watching says of it: a title with fewer is
damped.
"""
EVIDENCE = ("popular", "regional", "trending", "new", "similar", "watched")
"""What speaks for a title; `CandidateModel.evidence` says of each what its unit is."""
DEFAULT_WEIGHTS: tuple[float, ...] = (1.0, 0.5, 0.2, 0.0, 1.0, 1.5)
"""What each kind of evidence is worth before anything was fitted."""
_TORN = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What reading a damaged archive of arrays raises."""
HALF_LIFE = 2 * 86_400.0
"""Seconds after which a play counts half in what is trending."""
MOST_REGIONS = 64
"""Regions of which it is known what is trending there: those with the most plays of late."""
TASTE_HALF_LIFE = 180 * 86_400.0
"""Seconds before a viewer's last play at which one says half as much of the viewer's taste: tastes
change, and old plays still count.
"""


class Play(NamedTuple):
    """A viewer played a title: `unit` who, `at` seconds since the epoch, `region` where known,
    `weight` how many plays it is worth.
    """

    unit: str
    title: str
    at: float
    region: str = ""
    weight: float = 1.0


@dataclass(frozen=True)
class Recall:
    """How well the candidates find plays that were held out.

    Of `held_out` plays, `hits` were among the first `most` candidates, and `popular` among the
    `most` most popular titles.
    """

    hits: int
    popular: int
    held_out: int
    most: int


@dataclass(frozen=True)
class Signals:
    """What the log says of titles `ids` (N).

    `trending` (N) and `popular` (N) are decayed and plain plays, `regional` (R × N) plays by
    region, `factors` (N × f) unit vectors: those of titles that are watched together lie close.
    `trending_in` are the regions with plays of late, whether the catalogue names them or not, and
    `regional_trending` (their number × N) the decayed plays there.
    `weights`: what each kind of EVIDENCE is worth; `recall`: how well that finds held-out plays,
    None for too few.
    """

    ids: tuple[str, ...]
    regions: tuple[str, ...]
    trending: Floats
    popular: Floats
    regional: Floats
    factors: Matrix
    at: float = 0.0
    plays: int = 0
    weights: tuple[float, ...] = DEFAULT_WEIGHTS
    recall: Recall | None = None
    trending_in: tuple[str, ...] = ()
    regional_trending: Matrix = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))

    def save(self, path: Path) -> None:
        """Write to `path`, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        # The number of the process keeps two workers from writing into one file; the rename at the
        # end is atomic, so that no reader ever sees half of it.
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            np.savez(
                file,
                ids=np.array(self.ids),
                regions=np.array(self.regions),
                trending=self.trending,
                popular=self.popular,
                regional=self.regional,
                factors=self.factors,
                numbers=np.array([self.at, float(self.plays)]),
                weights=np.array(self.weights),
                recall=np.array(astuple(self.recall) if self.recall else (), dtype=np.int64),
                trending_in=np.array(self.trending_in, dtype=np.str_),
                regional_trending=self.regional_trending,
            )
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: Path) -> Signals:
        """What `save` wrote. Raises BadData where it is damaged."""
        try:
            # Never pickle: the file lies in a folder that others may write to. Opened here: NumPy
            # leaves a damaged one open.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                at, plays = arrays["numbers"].tolist()
                recall = arrays["recall"].tolist()
                trending: dict[str, Any] = {}
                if "trending_in" in arrays.files:  # it is not where an earlier version wrote it
                    trending["trending_in"] = tuple(arrays["trending_in"].tolist())
                    trending["regional_trending"] = arrays["regional_trending"]
                return cls(
                    ids=tuple(arrays["ids"].tolist()),
                    regions=tuple(arrays["regions"].tolist()),
                    trending=arrays["trending"],
                    popular=arrays["popular"],
                    regional=arrays["regional"],
                    factors=arrays["factors"],
                    at=at,
                    plays=int(plays),
                    weights=tuple(arrays["weights"].tolist()),
                    recall=Recall(*recall) if recall else None,
                    **trending,
                )
        except _TORN as error:
            raise BadData(
                path.name, f"{error}; expected what the worker writes; delete the file"
            ) from error


def signals_path(data: Path, page: str) -> Path:
    """Where in the data folder the worker leaves a page's signals."""
    return data / "pages" / f"{page}.npz"


def count(plays: Iterable[Play], catalog: Catalog, now: float, factors: int = FACTORS) -> Signals:
    """Signals of plays, in any order, with the evidence's worth as it is before any fit.

    Plays of titles that the catalogue doesn't have are left out. Co-watching is a truncated SVD
    (PureSVD: Cremonesi, Koren and Turrin 2010) of the play matrix, normalised by viewer and by
    title as in spectral co-clustering (Dhillon 2001), so that what is played much does not lie
    close to everything. It finds as much as alternating least squares does (benchmarks) and needs
    no library beside SciPy.

    Args:
        plays: What was played.
        catalog: The titles, N of them.
        now: Seconds since the epoch, from which ages are counted.
        factors: Length of the vectors of co-watching.
    """
    row_of = catalog.index
    known_plays = [play for play in plays if play.title in row_of]
    size = len(catalog)
    rows = np.array([row_of[play.title] for play in known_plays], dtype=np.intp)
    # A play from a clock that runs ahead counts as one of now.
    ages = np.array([max(0.0, now - play.at) for play in known_plays])
    weights = np.array([play.weight for play in known_plays])
    decayed = weights * np.exp2(-ages / HALF_LIFE)
    regions = [play.region for play in known_plays]
    trending_in, regional_trending = _trending_by_region(regions, rows, decayed, size)
    return Signals(
        ids=catalog.ids,
        regions=catalog.region_names,
        trending=_sums(rows, decayed, size),
        popular=_sums(rows, weights, size),
        regional=_by_region(known_plays, rows, weights, catalog),
        factors=_factors([play.unit for play in known_plays], rows, weights, ages, size, factors),
        at=now,
        plays=len(known_plays),
        trending_in=trending_in,
        regional_trending=regional_trending,
    )


def _trending_by_region(
    regions: Sequence[str], rows: Indices, decayed: Floats, size: int
) -> tuple[tuple[str, ...], Matrix]:
    """The regions with the most of these decayed plays, and (their number × size) what each title
    has there. What is said of no region counts in none.
    """
    total: Counter[str] = Counter()
    for region, weight in zip(regions, decayed.tolist(), strict=True):
        total[region] += weight
    del total[""]
    named = tuple(region for region, _ in total.most_common(MOST_REGIONS))
    number_of = {region: number for number, region in enumerate(named)}
    numbers = np.array([number_of.get(region, -1) for region in regions], dtype=np.intp)
    out = np.zeros((len(named), size), dtype=np.float32)
    for number in range(len(named)):
        out[number] = _sums(rows[numbers == number], decayed[numbers == number], size)
    return named, out


def _by_region(plays: Sequence[Play], rows: Indices, weights: Floats, catalog: Catalog) -> Floats:
    """(R × N) plays of each title in each region; those of regions that it doesn't have in none."""
    names = catalog.region_names
    number_of = {name: j for j, name in enumerate(names)}
    regions = np.array([number_of.get(play.region, -1) for play in plays], dtype=np.intp)
    out = np.zeros((len(names), len(catalog)))
    for j in range(len(names)):
        local = regions == j
        out[j] = _sums(rows[local], weights[local], len(catalog))
    return out


def _sums(rows: Indices, weights: Floats, size: int) -> Floats:
    return np.asarray(np.bincount(rows, weights=weights, minlength=size), dtype=np.float64)


def _factors(
    units: Sequence[str], rows: Indices, weights: Floats, ages: Floats, size: int, factors: int
) -> Matrix:
    """(size × factors) unit vectors; zero for titles without plays, and everywhere when there is
    too little to tell.
    """
    out = np.zeros((size, factors), dtype=np.float32)
    number_of: dict[str, int] = {}
    viewers = np.array(
        [number_of.setdefault(unit, len(number_of)) for unit in units], dtype=np.intp
    )
    played = np.unique(rows)
    # svds finds fewer singular vectors than the smaller side has.
    k = min(factors, len(number_of) - 1, len(played) - 1)
    if k < 1:
        return out
    # As old as a play is beside the viewer's last one: who is away for a year has the same taste.
    last = np.full(len(number_of), np.inf)
    np.minimum.at(last, viewers, ages)
    worth = weights * np.exp2(-(ages - last[viewers]) / TASTE_HALF_LIFE)
    counts = csr_array(
        (worth, (viewers, np.searchsorted(played, rows))),
        shape=(len(number_of), len(played)),
    )
    counts.sum_duplicates()
    # A tenth play of the same title says less than the first one.
    damped = np.log1p(counts.data)
    viewer = np.repeat(np.arange(len(number_of)), np.diff(counts.indptr))
    by_viewer = np.bincount(viewer, weights=damped * damped, minlength=len(number_of))
    by_title = np.bincount(counts.indices, weights=damped * damped, minlength=len(played))
    scaled = damped / np.sqrt(by_viewer[viewer] * (by_title[counts.indices] + DAMPING))
    # A fixed start makes the same plays give the same factors.
    start = np.random.default_rng(0).standard_normal(min(counts.shape))
    _, values, right = svds(
        csr_array((scaled, counts.indices, counts.indptr), shape=counts.shape), k=k, v0=start
    )
    out[played, :k] = unit_length((right.T * values).astype(np.float32))
    return out


def unit_length(vectors: Matrix) -> Matrix:
    """Vectors of length 1; those of length 0 stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 1e-12, length, 1.0), dtype=np.float32)
