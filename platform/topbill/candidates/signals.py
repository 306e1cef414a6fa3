"""What the log says of titles: popular, trending, and watched together, and how much each kind of
evidence is worth. Made by the worker, read by those who serve."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from topbill.candidates.cowatching import FACTORS, CoWatching, Matrix
from topbill.candidates.sparse import SparseRows
from topbill.catalog import Catalog
from topbill.domain.errors import BadData
from topbill.domain.records import Floats, Indices

EVIDENCE = (
    *("popular", "regional", "trending", "new"),
    *("similar", "watched", "items", "peers", "next"),
)
"""What speaks for a title: four kinds whoever looks, and five that a viewer's history says.
`CandidateModel.evidence` and `likeness` say of each what its unit is."""
DEFAULT_WEIGHTS: tuple[float, ...] = (1.0, 0.5, 0.0, 0.0, 1.0, 2.0, 0.7, 0.4, 0.1)
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
    region, `together` what histories say of titles together.
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
    together: CoWatching
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
                **_arrays(self.together),
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
                    together=_together(arrays),
                    at=at,
                    plays=int(plays),
                    weights=_weights(arrays["weights"].tolist()),
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

    Plays of titles that the catalogue doesn't have are left out.

    Args:
        plays: What was played.
        catalog: The titles, N of them.
        now: Seconds since the epoch, from which ages are counted.
        factors: Length of the vectors of co-watching.
    """
    # Services, which only read what was found, do without it.
    from topbill.candidates.histories import History, cowatching_of

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
    number_of: dict[str, int] = {}
    viewers = np.array(
        [number_of.setdefault(play.unit, len(number_of)) for play in known_plays], dtype=np.intp
    )
    history = History(viewers, rows, weights, ages, len(number_of), size)
    return Signals(
        ids=catalog.ids,
        regions=catalog.region_names,
        trending=_sums(rows, decayed, size),
        popular=_sums(rows, weights, size),
        regional=_by_region(known_plays, rows, weights, catalog),
        together=cowatching_of(history, factors),
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


def _arrays(together: CoWatching) -> dict[str, Any]:
    """CoWatching as the arrays of a file."""
    peers, following = together.peers, together.following
    return {
        "factors": together.factors,
        "ridge_titles": together.ridge_titles,
        "ridge": together.ridge,
        "peers_played": peers.indices,
        "peers_ends": peers.indptr,
        "following": following.data,
        "following_titles": following.indices,
        "following_ends": following.indptr,
    }


def _together(arrays: Mapping[str, Any]) -> CoWatching:
    """What `_arrays` wrote; versions before 0.2 knew factors alone."""
    factors = arrays["factors"]
    size = len(factors)
    if "ridge" not in arrays:
        return replace(CoWatching.none(size), factors=factors)
    played, ends = arrays["peers_played"], arrays["peers_ends"]
    peers = SparseRows(np.ones(len(played), dtype=np.float32), played, ends, size)
    following = SparseRows(
        arrays["following"], arrays["following_titles"], arrays["following_ends"], size
    )
    # A damaged file must not say of places that are not there.
    peers.check()
    following.check()
    if following.rows != size:
        raise ValueError(f"damaged: {following.rows:,} titles are followed, of {size:,}")
    return CoWatching(factors, arrays["ridge_titles"], arrays["ridge"], peers, following)


def _weights(stored: Sequence[float]) -> tuple[float, ...]:
    """The evidence's worth; kinds that came later than the file are worth nothing in it."""
    return (*stored, *[0.0] * (len(EVIDENCE) - len(stored)))
