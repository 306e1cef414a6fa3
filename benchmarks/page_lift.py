"""What learned pages are worth on viewers whose truth is known, and what each layer adds.

    python -m benchmarks.page_lift [--pages 4000] [--seeds 5]

Each layer's experiment gives half its viewers the control (editors' rows, popular order, first picture) and half a
policy that learns, layer by layer independently: a 2×2×2 design. A layer's own contribution is the difference between
its halves; the whole lift is that between viewers for whom all three learn and those for whom none does. Values are the
known expectation of completed plays of each page that was served; a seed's interval is over its viewers, that of the
mean over seeds.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import t

from topbill import __version__, pages, spec
from topbill.catalog import Catalog
from topbill.engine import Engine
from topbill.pages import Composer
from topbill.simulate.browse import Browsers, Visit, Ways, browse, concentration

ROOT = Path(__file__).parents[1]
CONTROLS = {"rows": "editorial", "titles": "popular", "artwork": "first"}
LAYERS = tuple(CONTROLS)


def composer(folder: Path) -> Composer:
    """The example page, smaller, every layer split in halves."""
    shutil.copytree(ROOT / "experiments" / "pages", folder / "pages")
    page = folder / "pages" / "home.yaml"
    text = page.read_text().replace("../catalogue.csv", str(ROOT / "experiments" / "catalogue.csv"))
    text = text.replace("count: 6, pinned: {picked-for-you: 0}", "count: 4")
    text = text.replace("count: 12, candidates: 60", "count: 6, candidates: 40").replace(
        "count: 5, of: genre", "count: 4, of: genre"
    )
    page.write_text(text.replace("budget_ms: 60", "budget_ms: 10000"))
    for file in (folder / "pages" / "home").glob("*.yaml"):
        halves = file.read_text().replace("share: 20%", "share: 50%").replace("share: 80%", "share: 50%")
        file.write_text(halves + "\nbudget_ms: 10000\n")
    experiments = spec.load_all(pages.sources(folder))
    (found,) = pages.load_all(folder, experiments)
    return Composer(found, Engine(experiments), Catalog.read(found.catalogue))


def by_viewer(visits: Sequence[Visit], chosen: Callable[[Visit], bool]) -> np.ndarray:
    """Each chosen viewer's pages and expected completed plays in all: (viewers × 2)."""
    sums: dict[int, list[float]] = {}
    for visit in visits:
        if chosen(visit):
            found = sums.setdefault(visit.viewer, [0.0, 0.0])
            found[0] += 1.0
            found[1] += visit.expected
    return np.array(list(sums.values())).reshape(-1, 2)


def ratio(sums: np.ndarray) -> tuple[float, float]:
    """Expected completed plays a page, and the standard error over viewers (linearised)."""
    mean = float(sums[:, 1].sum() / sums[:, 0].sum())
    return mean, float(np.sqrt(((sums[:, 1] - mean * sums[:, 0]) ** 2).sum()) / sums[:, 0].sum())


def lift(visits: Sequence[Visit], new: Callable[[Visit], bool], old: Callable[[Visit], bool]) -> tuple[float, float]:
    """Relative lift of `new` over `old`, and its standard error (delta method)."""
    (a, sa), (b, sb) = ratio(by_viewer(visits, new)), ratio(by_viewer(visits, old))
    return a / b - 1.0, float(np.hypot(sa / b, a * sb / b**2))


def learned(visit: Visit, layer: str) -> bool:
    """Whether a learning policy decided this layer."""
    return visit.variants[layer] != CONTROLS[layer]


def all_learn(visit: Visit) -> bool:
    """Whether it decided every layer."""
    return all(learned(visit, layer) for layer in LAYERS)


def none_learns(visit: Visit) -> bool:
    """The popular page."""
    return not any(learned(visit, layer) for layer in LAYERS)


def told(name: str, found: list[tuple[float, float]]) -> str:
    """The mean ratio over seeds with its 95% interval (Student's t on logarithms: every seed is another world), and
    each seed's own lift with its interval over viewers."""
    logs = np.log1p([value for value, _ in found])
    mean = float(logs.mean())
    seeds = ", ".join(f"{value:+.1%} ± {1.96 * error:.1%}" for value, error in found)
    half = float(t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))) if len(logs) > 1 else math.nan
    low, high = math.expm1(mean - half), math.expm1(mean + half)
    return f"  {name:34} {math.expm1(mean):+7.1%}  ({low:+.1%} to {high:+.1%})   seeds {seeds}"


def fair(visits: Sequence[Visit], catalog: Catalog, start: float, per_day: float) -> tuple[int | None, float, float]:
    """New titles that came while it ran: after how many placements on learned pages their running share of all
    placements was that of all open titles (None: not yet), their share in the end, and the fair one."""
    middle = start + len(visits) / 2 / per_day * 86_400.0
    new = {catalog.ids[i] for i in np.flatnonzero((catalog.added > start) & (catalog.added <= middle))}
    legal = catalog.legal("us", 99, middle)
    fair_share = len(new) / int(np.logical_and.reduce(list(legal.values())).sum())
    placed = hits = 0
    reached = None
    for visit in visits:
        if start + visit.number / per_day * 86_400.0 > middle and learned(visit, "titles"):
            placed += len(visit.titles)
            hits += sum(title in new for title in visit.titles)
            if reached is None and placed >= 500 and hits / placed >= fair_share:
                reached = placed
    return reached, hits / max(placed, 1), fair_share


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pages", type=int, default=4_000)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    print(f"topbill {__version__}, Python {platform.python_version()}, numpy {np.__version__}, {os.cpu_count()} cores")
    print(f"{options.pages:,} pages of 4 rows × 6 titles a seed, 2,004 films; the second half is judged", flush=True)
    lifts: dict[str, list[tuple[float, float]]] = {}
    for seed in range(options.seeds):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as name:
            page = composer(Path(name))
            browsers = Browsers(page.catalog, seed, Ways(pages_a_day=50.0))
            visits = browse(page, browsers, options.pages)
        late = visits[options.pages // 2 :]
        lifts.setdefault("learned page over popular page", []).append(lift(late, all_learn, none_learns))
        for layer in LAYERS:
            found = lift(late, lambda v, x=layer: learned(v, x), lambda v, x=layer: not learned(v, x))  # type: ignore[misc]
            lifts.setdefault(f"  of which {layer}", []).append(found)
        first = [visit for visit in visits[options.pages // 4 :] if visit.first]
        lifts.setdefault("a new viewer's first page", []).append(lift(first, all_learn, none_learns))
        cells = [[v for v in late if chosen(v)] for chosen in (all_learn, none_learns)]
        size = min(map(len, cells))
        (seen, top), (seen0, top0) = (concentration(cell[:size]) for cell in cells)
        reached, share, fair_share = fair(visits, page.catalog, browsers.ways.start, browsers.ways.pages_a_day)
        after = "not reached" if reached is None else f"reached after {reached:,} placements"
        print(
            f"seed {seed}: {size} pages each: titles shown {seen} (popular page {seen0}), share of the ten most shown "
            f"{top:.1%} ({top0:.1%}); new titles have {share:.1%} of placements (their fair share {fair_share:.1%}: "
            f"{after}); {time.monotonic() - began:.0f} s",
            flush=True,
        )
    for name, found in lifts.items():
        print(told(name, found))


if __name__ == "__main__":
    main()
