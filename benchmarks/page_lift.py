"""What learned pages are worth on viewers whose truth is known, what each layer adds, and how the
new fares.

    python -m benchmarks.page_lift [--pages 4000] [--seeds 5] [--first-seed 50]

The example page's experiments run as they are: most viewers get what learns, some the controls
(editors' rows, popular order, first picture), layer by layer. In the second half every sixth visit,
and every third of a viewer's first ones, is judged: for the same viewer, at the same moment and
with the same luck, the learned page, the popular page with fixed artwork, the learned page with one
layer at its control, and pages by one who knows the truth are composed too, and the known
expectation of completed plays of each is compared. So viewers differ in nothing but the page. A
seed is a world of its own (other viewers, other truths); its interval is over viewers, that of the
mean is over seeds (Student's t on logarithms). In the middle a third of the titles get a new
picture; titles are added all along. What is fair to either is what one who knows the truth gives
them: of the places on the page, and of those of the titles with a new picture. A new title's even
share, as many of the places as it is of the titles that may stand there, is told too: who knows the
truth knows what nothing tells of a title that nobody has seen.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # before NumPy: matrices here are small, threads only spin

import numpy as np
from scipy.stats import t

from topbill import __version__, pages
from topbill.catalog import Catalog
from topbill.engine import Engine
from topbill.pages import CompiledPage
from topbill.simulation.page_oracle import Choice, Oracle
from topbill.simulation.page_viewers import Browsing, PageViewers
from topbill.simulation.page_visits import JudgedPage, PageRun, PageVisit, browse, concentration

ROOT = Path(__file__).parents[1]
CONTROLS = {"rows": "editorial", "titles": "popular", "artwork": "first"}
LEARNERS = {"rows": "linucb", "titles": "linucb", "artwork": "linucb"}
NEARLY = 0.9
"""What part of the fair share counts as having reached it."""
LEAST = 100
"""Placements before which no share is told."""
WAYS = Browsing(viewers=1500, pages_a_day=75.0)


def compiled_page(
    catalog: Catalog | None = None, *, rows: str = "count: 4", titles: str = "count: 6"
) -> CompiledPage:
    """The example page, smaller, that has learned nothing yet; over another catalogue where one is
    given. `rows` and `titles` say how many of each, as the page file does.
    """
    with tempfile.TemporaryDirectory() as name:
        return _compiled_page(Path(name), catalog, rows, titles)


def _compiled_page(folder: Path, catalog: Catalog | None, rows: str, titles: str) -> CompiledPage:
    shutil.copytree(ROOT / "experiments" / "pages", folder / "pages")
    page = folder / "pages" / "home.yaml"
    text = page.read_text().replace("../catalogue.csv", str(ROOT / "experiments" / "catalogue.csv"))
    text = text.replace("count: 6, pinned: {picked-for-you: 0}", rows)
    text = text.replace("count: 12, candidates: 60", f"{titles}, candidates: 40").replace(
        "count: 5, of: genre", "count: 4, of: genre"
    )
    page.write_text(text.replace("budget_ms: 60", "budget_ms: 10000"))
    for file in (folder / "pages" / "home").glob("*.yaml"):
        file.write_text(file.read_text() + "\nbudget_ms: 10000\n")
    experiments = pages.load_experiments(folder)
    (found,) = pages.load_all(folder, experiments)
    return CompiledPage(found, Engine(experiments), catalog or found.read_catalog())


def without_new(catalog: Catalog) -> Catalog:
    """The catalogue before every third title has its last picture."""
    before = copy.copy(catalog)
    before.pictures = tuple(
        own[:-1] if row % 3 == 0 else own for row, own in enumerate(catalog.pictures)
    )
    return before


def arms(viewers: PageViewers) -> dict[str, Choice]:
    """The pages that are compared."""
    knowing = {layer: Oracle(layer, viewers) for layer in CONTROLS}
    found: dict[str, Choice] = {"popular": CONTROLS, "learned": LEARNERS, "best": knowing}
    found |= {f"without {layer}": {**LEARNERS, layer: CONTROLS[layer]} for layer in CONTROLS}
    found |= {f"best {layer}": {**LEARNERS, layer: knowing[layer]} for layer in CONTROLS}
    return found


def lift(visits: Iterable[PageVisit], new: str, old: str) -> tuple[float, float]:
    """Relative lift in expected completed plays of one arm over another on the same visits, and its
    standard error (linearised, clustered by viewer)."""
    sums: dict[int, list[float]] = {}
    for visit in visits:
        found = sums.setdefault(visit.viewer, [0.0, 0.0])
        found[0] += visit.arms[new].expected
        found[1] += visit.arms[old].expected
    both = np.array(list(sums.values()))
    total = both.sum(axis=0)
    ratio = total[0] / total[1]
    return float(ratio - 1.0), float(
        np.sqrt(((both[:, 0] - ratio * both[:, 1]) ** 2).sum()) / total[1]
    )


def told(name: str, found: list[tuple[float, float]]) -> str:
    """The mean ratio over seeds with its 95% interval, and each seed's own lift with its interval
    over viewers.
    """
    logs = np.log1p([value for value, _ in found])
    mean = float(logs.mean())
    seeds = ", ".join(f"{value:+.1%} ± {1.96 * error:.1%}" for value, error in found)
    half = (
        float(t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs)))
        if len(logs) > 1
        else math.nan
    )
    low, high = math.expm1(mean - half), math.expm1(mean + half)
    return f"  {name:36} {math.expm1(mean):+7.1%}  ({low:+.1%} to {high:+.1%})   seeds {seeds}"


def reached(hits: Sequence[tuple[int, int]], **shares: float) -> str:
    """The share of hits, (hits, placements) page by page, in the end, and after how many placements
    the share so far was nearly each of these."""
    got, placed = np.cumsum(hits, axis=0).T
    told = []
    for name, share in shares.items():
        there = placed[(placed >= LEAST) & (got >= NEARLY * share * placed)]
        told.append(
            f"{name} {share:.1%}: "
            + (f"after {there[0]:,} placements" if there.size else "not reached")
        )
    return f"{got[-1] / placed[-1]:.1%} ({', '.join(told)})"


def new_titles(
    late: Sequence[PageVisit], judged: Sequence[PageVisit], before: float, catalog: Catalog
) -> str:
    """How titles that came in the first half, `before` its end, fare in the second."""
    legal = np.logical_and.reduce(list(catalog.legal("us", 99, before).values()))
    added = legal & (catalog.added > WAYS.start) & (catalog.added <= before)
    new = {catalog.ids[row] for row in np.flatnonzero(added)}
    knowing = np.mean([title in new for visit in judged for title in visit.arms["best"].titles])
    pages_ = [visit.seen.titles for visit in late if visit.variants["titles"] == LEARNERS["titles"]]
    hits = [(sum(x in new for x in page), len(page)) for page in pages_]
    return reached(hits, even=float(added.sum() / legal.sum()), fair=float(knowing))


def new_pictures(late: Sequence[PageVisit], viewers: PageViewers, before: Catalog) -> str:
    """How pictures fare that came in the middle, on the places of their titles."""
    after = viewers.catalog
    both = zip(after.ids, after.pictures, before.pictures, strict=True)
    new = {title: own[-1].id for title, own, old in both if len(own) > len(old)}
    hits: list[tuple[int, int]] = []
    deserved = 0
    for visit in late:
        if visit.variants["artwork"] == LEARNERS["artwork"]:
            places = [
                (x, p)
                for x, p in zip(visit.seen.titles, visit.seen.pictures, strict=True)
                if x in new
            ]
            hits.append((sum(picture == new[title] for title, picture in places), len(places)))
            deserved += sum(
                viewers.best_picture(visit.viewer, title) == new[title] for title, _ in places
            )
    return reached(hits, fair=deserved / sum(of for _, of in hits))


def simulate(seed: int, number: int, lifts: dict[str, list[tuple[float, float]]]) -> str:
    """One seed: add its lifts, and tell the rest."""
    began = time.process_time()
    home, half = compiled_page(), number // 2
    before = without_new(home.catalog)
    viewers = PageViewers(home.catalog, seed, WAYS, home.file.sources)

    def judged(n: int, first: bool) -> bool:
        return n >= half and (n % 6 == 0 or (first and n % 3 == 0))

    course = PageRun(catalogues={half: home.catalog}, arms=arms(viewers), judged=judged)
    visits = browse(compiled_page(before), viewers, number, course)
    late = [visit for visit in visits[half:] if visit.number % 6 == 0]
    first = [visit for visit in visits if visit.arms and visit.first]
    for name, group, new, old in (
        ("learned page over popular page", late, "learned", "popular"),
        *((f"  of which {layer}", late, "learned", f"without {layer}") for layer in CONTROLS),
        ("a new viewer's first page", first, "learned", "popular"),
        ("best known page over popular page", late, "best", "popular"),
        *(
            (f"  best known {layer} over its control", late, f"best {layer}", f"without {layer}")
            for layer in CONTROLS
        ),
        *(
            (f"  best known {layer} over learned", late, f"best {layer}", "learned")
            for layer in CONTROLS
        ),
    ):
        lifts.setdefault(name, []).append(lift(group, new, old))
    sides: list[list[JudgedPage]] = [
        [visit.arms[arm] for visit in late] for arm in ("learned", "popular")
    ]
    (seen, top), (seen0, top0) = map(concentration, sides)
    return (
        f"seed {seed}: {len(late)} visits judged, {len(first)} first ones; titles shown {seen} "
        f"(popular page {seen0}), "
        f"the ten most shown have {top:.1%} ({top0:.1%})\n"
        f"    new titles {new_titles(visits[half:], late, visits[half].at, home.catalog)}, "
        f"new pictures {new_pictures(visits[half:], viewers, before)}\n    "
        f"{sum(v.played is not None for v in visits) / number:.0%} of pages played; "
        f"{time.process_time() - began:.0f} s of processor time"
    )


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pages", type=int, default=4_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=50)
    options = parser.parse_args()
    print(
        f"topbill {__version__}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"{os.cpu_count()} cores"
    )
    print(
        f"{options.pages:,} pages of 4 rows × 6 titles a seed, 2,004 films; the second half is "
        f"judged",
        flush=True,
    )
    lifts: dict[str, list[tuple[float, float]]] = {}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        print(simulate(seed, options.pages, lifts), flush=True)
    for name, found in lifts.items():
        print(told(name, found))


if __name__ == "__main__":
    main()
