"""The first stage of a page: what it finds of held-out plays, and how long it takes, from tens of
thousands of titles.

    python -m benchmarks.candidates [--titles 30000] [--viewers 3000] [--clubs]

Viewers whose taste is known look for titles themselves (nothing is shown to them, so no page
decides what they can play): of each title the odds are its popularity's times those of their wish.
With `--clubs` taste has nothing to do with what the catalogue says: each viewer likes two of forty
clubs of titles. The last play of each viewer is held out, and nothing of it is in what is learned.
Recall is the share of those among the first 200 candidates; beside it the 200 most popular titles,
and the most that any 200 titles could reach, which the known odds tell.

Where they are installed (`pip install implicit usearch`), two peers step in: alternating least
squares of `implicit` for the factors, and the approximate neighbours of `usearch` for the exact
product with all of them.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from benchmarks.page import catalogue
from scipy.sparse import csr_array, csr_matrix

from topbill import __version__
from topbill.candidates import (
    EVIDENCE,
    CandidateModel,
    Play,
    Recall,
    RowSource,
    Signals,
    count,
)
from topbill.candidates.cowatching import FACTORS, unit_length
from topbill.candidates.fitting import HeldOutPlay, choices, fit, hold_out, learn, recall
from topbill.catalog import Catalog
from topbill.domain.records import Floats
from topbill.simulation.page_viewers import Browsing, PageViewers

PLAYS, MOST, POOL = 20, 200, 60
LIMIT = 10.0
"""Milliseconds that the first stage may take."""
MADE_OF = [
    RowSource("mixed"),
    RowSource("trending"),
    RowSource("watched"),
    RowSource("similar"),
    RowSource("new"),
    RowSource("popular"),
] + [
    RowSource("genre", genres)
    for genres in (("comedy",), ("action", "crime", "thriller"), ("science-fiction",), ("drama",))
]
CLUBS, OWN = 40, 2


def odds_of(catalog: Catalog, ways: Browsing, clubs: bool) -> Callable[[int], Floats]:
    """What gives the probabilities (T,) with which a viewer plays each title."""
    if not clubs:
        return PageViewers(catalog, 0, ways).reach
    club = np.random.default_rng(5).integers(CLUBS, size=len(catalog))

    def reach(viewer: int) -> Floats:
        own = np.random.default_rng([6, viewer]).choice(CLUBS, size=OWN, replace=False)
        odds = (0.02 + catalog.popularity) * np.where(np.isin(club, own), 30.0, 1.0)
        return np.asarray(odds / odds.sum())

    return reach


def timed(
    model: CandidateModel, histories: list[list[int]], now: float
) -> tuple[list[float], list[float]]:
    """Milliseconds of wall clock and of processor time for each viewer's candidates and ten rows'
    pools.
    """
    open_ = np.logical_and.reduce(list(model.catalog.legal("us", 99, now).values()))
    wall, cpu = [], []
    for number, watched in enumerate(histories):
        began, used = time.perf_counter(), time.process_time()
        candidates = model.candidates_for("us", watched, open_, now, str(number))
        taken = np.zeros(len(open_), dtype=bool)
        for k, definition in enumerate(MADE_OF):
            taken[candidates.pool(f"row{k}", definition, taken, POOL)[:20]] = True
        wall.append((time.perf_counter() - began) * 1e3)
        cpu.append((time.process_time() - used) * 1e3)
    return wall, cpu


def told(name: str, found: Recall) -> str:
    """Recall in a line."""
    return f"  {name:44} {found.hits / found.held_out:.1%}"


def least_squares(plays: Sequence[Play], signals: Signals) -> Signals:
    """The same signals with factors of implicit's alternating least squares (Hu, Koren and Volinsky
    2008).
    """
    index = {title: row for row, title in enumerate(signals.ids)}
    place: dict[str, int] = {}
    who = [place.setdefault(play.unit, len(place)) for play in plays]
    rows = [index[play.title] for play in plays]
    played = csr_matrix(
        csr_array((np.ones(len(rows)), (who, rows)), shape=(len(place), len(signals.ids)))
    )
    als = importlib.import_module("implicit.als")
    model = als.AlternatingLeastSquares(
        factors=FACTORS, iterations=15, random_state=0, num_threads=1
    )
    model.fit(played, show_progress=False)
    factors = unit_length(np.asarray(model.item_factors, dtype=np.float32))
    return replace(signals, together=replace(signals.together, factors=factors))


def neighbours(usearch: Any, model: CandidateModel, histories: list[list[int]]) -> str:
    """How many of the true 200 nearest an approximate index finds, and what each takes."""
    index = importlib.import_module("usearch.index").Index(
        ndim=model.factors.shape[1], metric="ip", dtype="f32"
    )
    index.add(np.arange(len(model.factors)), model.factors)
    shared, took = 0, {"exact": 0.0, "index": 0.0}
    for watched in histories:
        mean = unit_length(model.factors[watched].sum(axis=0, keepdims=True))[0]
        began = time.perf_counter()
        true = np.argpartition(-(model.factors @ mean), MOST)[:MOST]
        between = time.perf_counter()
        found = index.search(mean, MOST).keys
        took["exact"] += between - began
        took["index"] += time.perf_counter() - between
        shared += len(np.intersect1d(true, found))
    each = 1e3 / len(histories)
    return (
        f"  usearch {usearch.__version__} finds {shared / MOST / len(histories):.0%} of the true "
        f"nearest {MOST} in "
        f"{took['index'] * each:.2f} ms; the exact product takes {took['exact'] * each:.2f} ms"
    )


def peer(name: str) -> Any:
    """A peer's module, None where it isn't installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"  {name} is not installed: pip install {name}")
        return None


def main() -> None:
    """Learn, look, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--titles", type=int, default=30_000)
    parser.add_argument("--viewers", type=int, default=3_000)
    parser.add_argument(
        "--clubs", action="store_true", help="taste that the catalogue says nothing of"
    )
    options = parser.parse_args()
    print(
        f"topbill {__version__}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"{os.cpu_count()} cores"
    )
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "catalogue.csv"
        catalogue(path, options.titles)
        # A world of its own: what the file leaves out is made up, as in a demonstration.
        catalog = Catalog.read(path, demo=True)
    ways = Browsing(viewers=options.viewers)
    reach, luck, now = odds_of(catalog, ways, options.clubs), np.random.default_rng(0), ways.start
    histories, possible = [], []
    for viewer in range(options.viewers):
        odds = reach(viewer)
        histories.append(
            [int(row) for row in luck.choice(len(odds), size=PLAYS, replace=False, p=odds)]
        )
        possible.append(float(np.sort(odds)[-MOST:].sum()))
    plays = [
        Play(f"u{viewer}", catalog.ids[row], now - 3600.0 * (PLAYS - k), "us")
        for viewer, own in enumerate(histories)
        for k, row in enumerate(own[:-1])
    ]
    held = [HeldOutPlay(own[:-1], own[-1], "us") for own in histories]
    began = time.perf_counter()
    signals = learn(plays, catalog, now)
    took = time.perf_counter() - began
    model = CandidateModel(catalog, signals)
    found = recall(model, held, now, MOST)
    print(
        f"{len(catalog):,} titles, {len(plays):,} plays of {options.viewers:,} viewers, "
        f"{'clubs' if options.clubs else 'genres'}; signals learned in {took:.1f} s\n"
        f"recall@{MOST} of {found.held_out:,} held-out plays (± "
        f"{196 * (0.25 / found.held_out) ** 0.5:.1f} points at most):"
    )
    worth = ", ".join(
        f"{kind} {weight:.2f}" for kind, weight in zip(EVIDENCE, model.weights, strict=True)
    )
    print(told(f"the {MOST} most popular", replace(found, hits=found.popular)))
    print(told(f"the first {MOST} candidates", found) + f"   ({worth})")
    print(f"  {f'the most that any {MOST} titles could reach':44} {np.mean(possible):.1%}")
    if signals.recall is not None:
        print(told("as learning measured it on plays of its own", signals.recall))
    if (implicit := peer("implicit")) is not None:
        kept, own = hold_out(plays, catalog)
        inner = CandidateModel(catalog, least_squares(kept, count(kept, catalog, now)))
        other = replace(least_squares(plays, signals), weights=fit(choices(inner, own, now)))
        name = f"with implicit {implicit.__version__}'s factors"
        print(told(name, recall(CandidateModel(catalog, other), held, now, MOST)))
    if (usearch := peer("usearch")) is not None:
        print(neighbours(usearch, model, [own[:-1] for own in histories[:400]]))
    wall, cpu = timed(model, histories[:400], now)
    for what, times in (("wall clock", wall), ("processor time", cpu)):
        p50, p99 = np.percentile(times[20:], [50, 99])
        print(
            f"  {what:14} p50 {p50:5.2f}   p99 {p99:5.2f} ms a page ({p50 / LIMIT:.2f} and "
            f"{p99 / LIMIT:.2f} of 10 ms)"
        )


if __name__ == "__main__":
    main()
