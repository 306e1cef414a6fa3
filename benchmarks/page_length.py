"""What it is worth to decide how many rows a page has and how many titles a row, on viewers whose
truth is known: beside every fixed number of them, net of what rows and titles cost.

    python -m benchmarks.page_length [--pages 3000] [--seeds 5] [--first-seed 60]

The example page's experiments run as they are, with 2 to 8 rows of 3 to 16 titles, as many as the
page decides (worlds as in `benchmarks.page_lift`). In the second half every sixth visit is judged:
for the same viewer, at the same moment and with the same luck and the same learned policies, the
page as decided and pages of every fixed size of a grid are composed, and what each is worth is
compared: the known expectation of the titles' objective, less `row_cost` for each row and
`title_cost` for each title. A seed is a world of its own; the interval of the mean is over seeds
(Student's t). `best fixed` is the size of the grid that turned out best over all worlds together,
which nobody knows before.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from benchmarks.page_lift import LEARNERS, WAYS, compiled_page
from scipy.stats import t

from topbill import __version__
from topbill.pages import CompiledPage
from topbill.simulation.page_oracle import LENGTHS, Choice, FixedLengths
from topbill.simulation.page_viewers import PageViewers
from topbill.simulation.page_visits import JudgedPage, PageRun, browse

ROW_COST, TITLE_COST = 0.02, 0.002
"""In units of the objective, which is 1 for a title played and watched."""
ROWS, TITLES = (2, 4, 6, 8), (3, 6, 10, 16)
"""The fixed sizes."""
DECIDED = "decided"


def page() -> CompiledPage:
    """The example page with lengths that it decides."""
    return compiled_page(
        rows=f"count: {{min: {ROWS[0]}, max: {ROWS[-1]}}}, row_cost: {ROW_COST}",
        titles=f"count: {{min: {TITLES[0]}, max: {TITLES[-1]}}}, title_cost: {TITLE_COST}",
    )


def arms() -> dict[str, Choice]:
    """The page as decided, and with every fixed size."""
    found: dict[str, Choice] = {DECIDED: LEARNERS}
    for rows in ROWS:
        for titles in TITLES:
            found[f"{rows} × {titles}"] = {**LEARNERS, LENGTHS: FixedLengths(rows, titles)}
    return found


def net(judged: JudgedPage) -> float:
    """What a page is worth, less what it costs."""
    return judged.objective - ROW_COST * judged.rows - TITLE_COST * len(judged.titles)


def simulate(seed: int, number: int) -> dict[str, np.ndarray]:
    """One world: by arm, (visits × 3) what each judged page is worth net of its cost, its rows, and
    its titles.
    """
    home = page()
    viewers = PageViewers(home.catalog, seed, WAYS, home.file.sources)

    def judged(n: int, first: bool) -> bool:  # noqa: ARG001
        return n >= number // 2 and n % 6 == 0

    visits = browse(home, viewers, number, PageRun(arms=arms(), judged=judged))
    found: dict[str, np.ndarray] = {}
    for name in arms():
        pages = [visit.arms[name] for visit in visits if visit.arms]
        found[name] = np.array([(net(one), one.rows, len(one.titles)) for one in pages])
    return found


def gain(worlds: Sequence[dict[str, np.ndarray]], other: str) -> tuple[float, float, float]:
    """The mean gain of the page as decided over another size, and its 95% interval over worlds."""
    gains = [float((w[DECIDED][:, 0] - w[other][:, 0]).mean()) for w in worlds]
    mean = float(np.mean(gains))
    if len(gains) < 2:
        return mean, -np.inf, np.inf
    half = float(t.ppf(0.975, len(gains) - 1) * np.std(gains, ddof=1) / np.sqrt(len(gains)))
    return mean, mean - half, mean + half


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pages", type=int, default=3_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=60)
    options = parser.parse_args()
    print(
        f"topbill {__version__}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"{os.cpu_count()} cores; {options.pages:,} pages a seed; "
        f"row_cost {ROW_COST}, title_cost {TITLE_COST}",
        flush=True,
    )
    worlds = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        began = time.process_time()
        worlds.append(simulate(seed, options.pages))
        decided = worlds[-1][DECIDED]
        print(
            f"seed {seed}: decided {decided[:, 0].mean():.4f} net, {decided[:, 1].mean():.1f} rows "
            f"(sd {decided[:, 1].std():.1f}), {decided[:, 2].mean():.1f} titles a page "
            f"(sd {decided[:, 2].std():.1f}); "
            f"{time.process_time() - began:.0f} s of processor time",
            flush=True,
        )
    means = {name: np.mean([world[name][:, 0].mean() for world in worlds]) for name in arms()}
    fixed = [name for name in means if name != DECIDED]
    best = max(fixed, key=lambda name: means[name])
    print(f"best fixed of all worlds together: {best}")
    for name in fixed:
        mean, low, high = gain(worlds, name)
        print(f"  {name:8} {means[name]:.4f} net; decided {mean:+.4f} ({low:+.4f} to {high:+.4f})")


if __name__ == "__main__":
    main()
