"""How soon artwork learns which kind of picture earns more, over a catalogue with pictures of its
own.

    python -m benchmarks.artwork [--titles 60] [--placements 200] [--seed 1]

The catalogue is a Parquet file as a service might have it: its titles' pictures are structs of an
address and features under names of its own (`scene`, `people`, `palette`). Viewers play a title the
likelier where its picture shows action. Each page is composed by the page pipeline, with its plays
credited as the service does, and learned from as the worker does. Two artwork experiments are
measured, each over a page that has learned nothing yet: the example's, which declares the features
(`model: shared`), and the recipe for pictures of which nothing is known (`model: hybrid`), over the
same pictures without their features. What is told is the share of the pictures with action among
those that the learned variant showed, by how often it had shown each title; a uniform choice has a
quarter.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # before NumPy: matrices here are small, threads only spin

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from topbill import pages, spec
from topbill.engine import Engine
from topbill.pages import CompiledPage, PageRequest, compose
from topbill.simulation.page_viewers import tiles_of
from topbill.simulation.page_visits import Lessons, credited_events

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
SCENES = ("portrait", "landscape", "action", "object")
BEST = "action"
PLAYS = {True: 0.30, False: 0.10}
"""The chance of a play by whether the picture shows the best scene."""
STEP = 25
"""Placements of each title that make a point of the curve."""
LEARN_EVERY = 40
NOW = 1_790_000_000.0
FEATURES = """action_features:
  scene:   {type: category, values: [portrait, landscape, action, object]}
  people:  {type: number, min: 0, max: 5}
  palette: {type: vector, keys: ["0", "1"]}
"""
OTHER_LAYER = """
experiment: {key}
surface: {key}
unit: profile_id
budget_ms: 10000
actions: {actions}
metrics: {{play: {{event: play, kind: binary, window: 1h}}}}
objective: {{play: 1.0}}
variants: {{even: {{policy: uniform, share: 100%, control: true}}}}
"""
PAGE = """
page: home
catalogue: titles.parquet
region: us
budget_ms: 10000
rows: {experiment: rows, count: 4}
titles: {experiment: titles, count: 6, candidates: 60}
artwork: {experiment: page-artwork}
sources:
  best: {source: popular}
  mixed: {source: mixed}
  liked: {source: watched}
  alike: {source: similar}
"""
ROWS = "[{id: best}, {id: mixed}, {id: liked}, {id: alike}]"


class Point(NamedTuple):
    """The share of the best scene among the placements up to the `placements`-th of each title,
    from the point before on.
    """

    placements: int
    share: float


def catalogue(titles: int, seed: int, *, with_features: bool) -> pa.Table:
    """So many films of the example's list, each with a picture of each scene."""
    films = pa_csv.read_csv(EXPERIMENTS / "catalogue.csv").slice(1_000, titles)
    chance = np.random.default_rng(seed)
    cells = []
    for number in range(titles):
        cells.append([])
        for scene in chance.permutation(SCENES).tolist():
            picture: dict[str, Any] = {"url": f"https://img.example.com/{number}/{scene}.webp"}
            if with_features:
                palette = chance.random(2).round(3).tolist()
                people = int(chance.integers(6))
                picture |= {"scene": scene, "people": people, "palette": palette}
            cells[-1].append(picture)
    ids = [f"film-{number}" for number in range(titles)]
    return films.append_column("id", pa.array(ids)).append_column("pictures", pa.array(cells))


def artwork(*, with_features: bool) -> str:
    """The shipped artwork experiment, with the catalogue's own features declared; or the recipe."""
    if not with_features:
        return (EXPERIMENTS / "recipes" / "artwork-without-features.yaml").read_text()
    text = (EXPERIMENTS / "pages" / "home" / "artwork.yaml").read_text()
    before, rest = text.split("action_features:\n", 1)
    return before + FEATURES + "\nactions: []" + rest.split("actions: []", 1)[1]


def compiled_page(folder: Path, table: pa.Table, artwork_file: str) -> CompiledPage:
    """A page that has learned nothing yet."""
    own = folder / "pages" / "home"
    own.mkdir(parents=True)
    (folder / "pages" / "home.yaml").write_text(PAGE)
    pa_parquet.write_table(table, folder / "pages" / "titles.parquet")
    (own / "rows.yaml").write_text(OTHER_LAYER.format(key="rows", actions=ROWS))
    (own / "titles.yaml").write_text(OTHER_LAYER.format(key="titles", actions="[]"))
    (own / "artwork.yaml").write_text(f"{artwork_file}\nbudget_ms: 10000\n")
    experiments = spec.load_all([own])
    (found,) = pages.load_all(folder, experiments)
    return CompiledPage(found, Engine(experiments), found.read_catalog())


def learn(page: CompiledPage, placements: int, seed: int) -> list[Point]:
    """Serve and teach until each title has been placed so often by the learned variant, on
    average.
    """
    chance = np.random.default_rng(seed)
    lessons = Lessons(page)
    size = len(page.catalog)
    shown = best = number = 0
    points: list[Point] = []
    while len(points) * STEP < placements:
        profile, device = int(chance.integers(2_000)), ("tv", "mobile", "web")[number % 3]
        context = msgspec.Raw(msgspec.json.encode({"device": device}))
        request = PageRequest(page="home", profile=f"viewer-{profile}", context=context)
        page_id = f"page-{seed}-{number}"
        composed = compose(page, request, page.viewer(request, page_id), page_id, NOW + number)
        number += 1
        played: dict[str, float] = {}
        own = [layer.variant for layer in composed.answer.layers if layer.layer == "artwork"]
        for tile in tiles_of(composed.answer):
            is_best = f"/{BEST}." in str(tile.picture)
            if own != ["first"]:
                shown, best = shown + 1, best + is_best
            if chance.random() < PLAYS[is_best]:
                played[tile.title] = 1.0
        lessons.note(composed, credited_events(composed.answer, played, NOW), NOW + number)
        if number % LEARN_EVERY == 0:
            lessons.learn()
        if shown >= STEP * size:
            points.append(Point((len(points) + 1) * STEP, best / shown))
            shown = best = 0
    return points


def measure(titles: int, placements: int, seed: int, *, with_features: bool) -> list[Point]:
    """The curve of one of the two experiments."""
    with tempfile.TemporaryDirectory() as name:
        table = catalogue(titles, seed, with_features=with_features)
        page = compiled_page(Path(name), table, artwork(with_features=with_features))
        return learn(page, placements, seed)


def main() -> None:
    """Measure both and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--titles", type=int, default=60)
    parser.add_argument("--placements", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for with_features, name in ((True, "features, shared"), (False, "no features, hybrid")):
        points = measure(
            options.titles, options.placements, options.seed, with_features=with_features
        )
        shares = ", ".join(f"{point.placements}: {point.share:.0%}" for point in points)
        passed = next((point.placements for point in points if point.share > 0.8), None)
        after = "not passed" if passed is None else f"passed within {passed} placements a title"
        print(f"{name}: {shares}; 80% {after}", flush=True)


if __name__ == "__main__":
    main()
