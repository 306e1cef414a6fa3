"""How fast the dashboards' pages open on ten million decisions, beside the report that they are
drawn from.

    python -m benchmarks.large_dashboard [--decisions 10_000_000] [--data FOLDER]
    [--pages home,health] [--alone]

Each page is run as Streamlit runs it: cold, by a dashboard that was just started beside a worker
that works answers out in advance; with --alone also asking for itself, where there are none; and
warm. The browser's part is not in it. The peer is `topbill.reporting.load` of the same experiment
in the same run. At last What if evaluates a policy, on the sample that it takes unless told
otherwise. With --data the folder is filled once, and used again by the next run.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import streamlit as st
from benchmarks.dashboard_lake import filled
from streamlit.testing.v1 import AppTest

from topbill import reporting
from topbill.reporting import answer_cache

DASHBOARDS = Path(__file__).parents[1] / "dashboards"
HEADINGS = {
    "home": "Experiments",
    "verdict": "Lift of objective",
    "experiment": "Every metric",
    "bandit": "Estimated regret vs best variant",
    "artwork": "In numbers",
    "page": "Each layer against its control",
    "what_if": "Evaluate",
    "preview": "What each variant would show",
    "decisions": "The latest decisions",
    "health": "Covariate drift (PSI)",
    "library": "Library",
    "glossary": "States",
}
"""Each page, and a title, heading or button that no other page has."""
LIMIT = 1.0
"""Seconds for a page whose answers are kept."""


class Took(NamedTuple):
    """Seconds on the wall, and of CPU."""

    wall: float
    cpu: float


def timed(work: Callable[[], object]) -> Took:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


def started() -> AppTest:
    """The app with its navigation, on Home."""
    app = AppTest.from_file(str(DASHBOARDS / "app.py"), default_timeout=900)
    app.query_params["refresh"] = "Off"
    app.query_params["experiment"] = "home"
    return app.run()


def opened(app: AppTest, page: str) -> Took:
    """How long the page took to run. Ends the benchmark where it says anything but its own."""
    app.switch_page(f"views/{page}.py")
    took = timed(app.run)
    problems = [e.message for e in app.exception] + [e.value for e in (*app.error, *app.warning)]
    said = [e.value for e in (*app.title, *app.subheader)] + [e.label for e in app.button]
    if problems or HEADINGS[page] not in said:
        raise SystemExit(f"{page}: expected {HEADINGS[page]!r}; got {said}, {problems}")
    return took


def cold(app: AppTest, page: str) -> Took:
    """The same with nothing in memory from before."""
    st.cache_data.clear()
    st.cache_resource.clear()
    return opened(app, page)


def evaluated(app: AppTest) -> Took:
    """What if, pressed: linucb on the sample that the page takes by itself."""
    opened(app, "what_if")
    app.selectbox(key="candidate").set_value("linucb").run()
    took = timed(app.button[0].click().run)
    problems = [e.message for e in app.exception] + [e.value for e in (*app.error, *app.warning)]
    said = [c.value for c in app.caption if "a sample of" in c.value]
    if problems or not said:
        raise SystemExit(f"what_if: expected to be told of the sample; got {problems}")
    print(said[0])
    return took


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--decisions", type=int, default=10_000_000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--pages", default=",".join(HEADINGS))
    parser.add_argument("--alone", action="store_true")
    given = parser.parse_args()
    sys.path.insert(0, str(DASHBOARDS))
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.data or Path(scratch) / "data"
        filled(folder, given.decisions)
        os.environ["TOPBILL_DATA"] = str(folder)
        versions = ", ".join(
            f"{name} {version(name)}" for name in ("duckdb", "streamlit", "altair")
        )
        print(f"{platform.platform()}, {os.cpu_count()} cores, {versions}")
        measured(folder, given.pages.split(","), given.alone)


def measured(folder: Path, pages: list[str], alone: bool) -> None:
    found = []
    peer = timed(lambda: found.append(reporting.load("home", folder)))
    print(
        f"{found[0].decisions:,} decisions of {found[0].units:,} units; limit {LIMIT:.0f} s a page"
    )
    print(f"{'report.load':12} {peer.wall:6.2f} s ({peer.cpu:.2f} s of CPU)")
    by_itself: dict[str, Took] = {}
    if alone:
        shutil.rmtree(folder / "answers", ignore_errors=True)
        app = started()
        by_itself = {page: cold(app, page) for page in pages}
    print(f"answers worked out in advance in {answer_cache.refresh(folder):.0f} s")
    app = started()
    for page in pages:
        first, again = cold(app, page), opened(app, page)
        told = (
            f"{page:12} cold {first.wall:5.2f} s ({first.cpu:.2f} s of CPU, "
            f"{first.wall / LIMIT:.2f} × the limit)"
        )
        if page in by_itself:
            told += (
                f"; by itself {by_itself[page].wall:5.2f} s "
                f"({by_itself[page].cpu / peer.cpu:.1f} × the peer's CPU)"
            )
        print(f"{told}; warm {again.wall:.2f} s")
    if "what_if" in pages:
        took = evaluated(app)
        print(f"{'Evaluate':12} {took.wall:6.2f} s ({took.cpu:.2f} s of CPU)")


if __name__ == "__main__":
    main()
