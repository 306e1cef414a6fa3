"""How fast the dashboards' pages open on ten million decisions, beside the report that they are drawn from.

    python -m benchmarks.dashboard [--decisions 10_000_000] [--data FOLDER] [--pages home,health]

Each page is run as Streamlit runs it: cold, by a dashboard that was just started beside a keeper that works answers out
in advance; asking for itself, where there are none; and warm. The browser's part is not in it. The peer is
`topbill.report.load` of the same experiment in the same run. With --data the folder is
filled once, and used again by the next run.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import streamlit as st
from benchmarks.lake import fill
from streamlit.testing.v1 import AppTest

from topbill import report, spec
from topbill.lake import FACE
from topbill.report import kept

DASHBOARDS = Path(__file__).parents[1] / "dashboards"
PAGES = "home,experiment,bandit,artwork,preview,decisions,health"
LIMIT = 3.0
EXPERIMENT = """
experiment: home
surface: artwork
unit: profile_id
context:
  device: {type: category, values: [tv, mobile, web]}
  hour: {type: cycle, period: 24}
actions: [{id: a0}, {id: a1}, {id: a2}, {id: a3}, {id: a4}, {id: a5},
          {id: a6}, {id: a7}, {id: a8}, {id: a9}, {id: a10}, {id: a11}]
metrics:
  play: {event: play, kind: binary, window: 30m}
  watched: {event: watch_fraction, kind: max, window: 6h}
  returned: {event: session_start, kind: binary, window: 48h}
  abandon: {event: abandon, kind: binary, window: 30m, better: lower}
objective: {play: 0.2, watched: 1.0, returned: 0.5}
variants:
  editorial: {policy: fixed, order: [a0], share: 20%, control: true}
  thompson: {policy: thompson, share: 40%}
  linucb: {policy: linucb, share: 40%, floor: 1%}
"""


def filled(folder: Path, decisions: int) -> None:
    """Make the lake in `folder`, unless it is there."""
    if (folder / FACE).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "home.yaml").write_text(EXPERIMENT)
    started = time.perf_counter()
    lake = fill(folder, decisions)
    lake.compact(thorough=True)
    lake.face([spec.load(folder / "home.yaml")], 1_790_000_000_000_000 + decisions * 100_000 + 86_400_000_000 * 3)
    print(f"filled in {time.perf_counter() - started:.0f} s")


def opened(page: str) -> tuple[float, float]:
    """Seconds on the wall and of CPU until the page has run in a new session."""
    app = AppTest.from_file(str(DASHBOARDS / "app.py"), default_timeout=600)
    app.query_params["refresh"] = "Off"
    app.query_params["experiment"] = "home"
    if page != "home":
        app.switch_page(f"views/{page}.py")
    wall, cpu = time.perf_counter(), time.process_time()
    app.run()
    took = time.perf_counter() - wall, time.process_time() - cpu
    problems = [e.message for e in app.exception] + [e.value for e in app.error]
    if problems:
        raise SystemExit(f"{page}: {problems}")
    return took


def cold(page: str) -> tuple[float, float]:
    """The same with nothing in memory from before."""
    st.cache_data.clear()
    st.cache_resource.clear()
    return opened(page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=10_000_000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--pages", default=PAGES)
    given = parser.parse_args()
    sys.path.insert(0, str(DASHBOARDS))
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.data or Path(scratch) / "data"
        filled(folder, given.decisions)
        shutil.rmtree(folder / "answers", ignore_errors=True)
        os.environ["TOPBILL_DATA"] = str(folder)
        versions = ", ".join(f"{name} {version(name)}" for name in ("duckdb", "streamlit", "altair"))
        print(f"{platform.platform()}, {os.cpu_count()} cores, {versions}")
        wall, cpu = time.perf_counter(), time.process_time()
        found = report.load("home", folder)
        peer = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{found.decisions:,} decisions of {found.units:,} units; limit {LIMIT:.0f} s a page")
        print(f"{'report.load':12} {peer[0]:6.2f} s ({peer[1]:.2f} s of CPU)")
        opened("preview")  # imports
        asking = {page: cold(page) for page in given.pages.split(",")}
        print(f"answers worked out in advance in {kept.work_out(folder):.0f} s")
        for page, alone in asking.items():
            first, again = cold(page), opened(page)
            print(
                f"{page:12} cold {first[0]:5.2f} s ({first[1]:.2f} s of CPU, {first[0] / LIMIT:.2f} × the limit); "
                f"asking for itself {alone[0]:5.2f} s ({alone[1] / peer[1]:.1f} × report.load's CPU); "
                f"warm {again[0]:.2f} s"
            )


if __name__ == "__main__":
    main()
