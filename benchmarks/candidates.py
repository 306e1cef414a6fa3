"""The first stage of a page: what it finds of held-out plays, and how long it takes, from tens of thousands of titles.

    python -m benchmarks.candidates [--titles 50000] [--viewers 3000]

Viewers whose taste is known look for titles themselves (nothing is shown to them, so no page decides what they can
play): of each title the odds are its popularity's times those of their wish. The last play of each is held out. Recall
is the share of those among the first 200 candidates of all sources together; beside it the 200 most popular titles, and
the most that any 200 titles could reach, which the known odds tell.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from benchmarks.page import catalogue

from topbill import __version__
from topbill.candidates import Play, Row, Stage, learn, recall
from topbill.catalog import Catalog
from topbill.simulate.browse import Browsers, Ways

PLAYS, MOST, ROWS, POOL = 20, 200, 10, 60
LIMIT = 10.0
"""Milliseconds that the stage may take."""
MADE_OF = [Row("mixed"), Row("trending"), Row("watched"), Row("similar"), Row("new"), Row("popular")] + [
    Row("genre", genres) for genres in (("comedy",), ("action", "crime", "thriller"), ("science-fiction",), ("drama",))
]


def timed(stage: Stage, histories: list[list[int]], now: float) -> tuple[list[float], list[float]]:
    """Milliseconds of wall clock and of processor time for each viewer's candidates and ten rows' pools."""
    open_ = np.logical_and.reduce(list(stage.catalog.legal("us", 99, now).values()))
    wall, cpu = [], []
    for number, watched in enumerate(histories):
        began, used = time.perf_counter(), time.process_time()
        sight = stage.look("us", watched[-10:], open_, now, str(number))
        taken = np.zeros(len(open_), dtype=bool)
        for k, made_of in enumerate(MADE_OF):
            taken[sight.pool(f"row{k}", made_of, taken, POOL)[:20]] = True
        wall.append((time.perf_counter() - began) * 1e3)
        cpu.append((time.process_time() - used) * 1e3)
    return wall, cpu


def main() -> None:
    """Learn, look, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--titles", type=int, default=50_000)
    parser.add_argument("--viewers", type=int, default=3_000)
    options = parser.parse_args()
    print(f"topbill {__version__}, Python {platform.python_version()}, numpy {np.__version__}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "catalogue.csv"
        catalogue(path, options.titles)
        catalog = Catalog.read(path)
    ways = Ways(viewers=options.viewers)
    browsers, luck, now = Browsers(catalog, 0, ways), np.random.default_rng(0), ways.start
    histories, possible = [], []
    for viewer in range(options.viewers):
        histories.append(browsers.choose(viewer, PLAYS, luck))
        possible.append(float(np.sort(browsers.reach(viewer))[-MOST:].sum()))
    plays = [
        Play(f"u{viewer}", catalog.ids[row], now - 3600.0 * (PLAYS - k), "us")
        for viewer, own in enumerate(histories)
        for k, row in enumerate(own[:-1])
    ]
    began = time.perf_counter()
    signals = learn(plays, catalog, now)
    took = time.perf_counter() - began
    stage = Stage(catalog, signals)
    held_out = [(own[:-1], own[-1]) for own in histories]
    found, asked = recall(stage, held_out, now, MOST)
    popular = set(stage.popular[:MOST].tolist())
    by_chance = sum(played in popular for _, played in held_out) / asked
    print(
        f"{len(catalog):,} titles, {len(plays):,} plays of {options.viewers:,} viewers; signals learned in {took:.1f} s"
    )
    print(
        f"  recall@{MOST} {found / asked:.1%} of {asked:,} held-out plays; the {MOST} most popular {by_chance:.1%}; "
        f"the most that {MOST} titles could reach {np.mean(possible):.1%}"
    )
    wall, cpu = timed(stage, histories[:400], now)
    for what, times in (("wall clock", wall), ("processor time", cpu)):
        p50, p99 = np.percentile(times[20:], [50, 99])
        print(
            f"  {what:14} p50 {p50:5.2f}   p99 {p99:5.2f} ms a page ({p50 / LIMIT:.2f} and {p99 / LIMIT:.2f} of 10 ms)"
        )


if __name__ == "__main__":
    main()
