"""How far a worker lags behind a log that is replayed at a set rate: pages of the example homepage
are recorded once, stored again and again under ids of their own, and a worker learns and publishes
them meanwhile, each in a process of its own.

    python -m benchmarks.replay [--pages-per-second 500] [--seconds 30] [--pages 200] \\
        [--log FOLDER]

At most every second a line says how many pages were stored, by how much learning and publishing lag
behind them (s), and what CPU the worker took since the last line, in ms a page and in cores.
Learning lags by what a decision has waited beyond its `reward_delay`, publishing by how old the
record is, which is two seconds where nothing lags. `--log` keeps the recording in a folder, and
takes it from there the next time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import msgspec
from benchmarks.worker import LAYERS, cpu_seconds, examples, record_pages

from topbill.domain.collecting import collect_rarely
from topbill.domain.records import Decision, RewardEvent
from topbill.log import LOG_FILE, Entry, open_log
from topbill.worker.loop import Worker

GROUP = 0.02
"""Seconds between two commits: what came meanwhile is stored as one group."""
IDLE = 0.2
"""Seconds that a worker without work waits."""


class Page(NamedTuple):
    """What one page stored."""

    decisions: list[Decision]
    events: list[RewardEvent]


class State(msgspec.Struct):
    """What a worker says of itself: when (s, monotonic), how far learning and publishing lag (s),
    and its CPU (s).
    """

    at: float
    learning: float
    publishing: float
    seconds: float


def recorded(folder: Path, count: int) -> list[Page]:
    """The pages of the log in a folder, recorded now where there are none."""
    path = folder / "recorded" / LOG_FILE
    if not path.exists():
        (folder / "experiments").mkdir(parents=True, exist_ok=True)
        path.parent.mkdir()
        record_pages(path.parent, examples(folder / "experiments"), count)
    pages: dict[str, Page] = {}
    place: dict[str, str] = {}
    with open_log(path) as log:
        for _, decision in log.read_decisions(0, 2**40):
            pages.setdefault(decision.page, Page([], [])).decisions.append(decision)
            place[decision.decision_id] = decision.page
        for _, event in log.read_events(0, 2**40):
            pages[place[event.decision_id]].events.append(event)
    return list(pages.values())


def again(page: Page, number: int) -> list[Entry]:
    """The entries of a page under ids of its own: what was decided, and what came of it."""
    decisions = []
    for decision in page.decisions:
        decisions.append(
            msgspec.structs.replace(
                decision,
                decision_id=f"{number}-{decision.decision_id}",
                page=f"{number}-{decision.page}",
            )
        )
    events = []
    for event in page.events:
        events.append(msgspec.structs.replace(event, decision_id=f"{number}-{event.decision_id}"))
    return [Entry(decisions), Entry(events=events)]


def work(folder: Path) -> None:
    """Learn and publish as `topbill worker` does, and say how far, once a second at most."""
    worker = Worker(folder / "experiments", folder / "data")
    collect_rarely()
    told = 0.0
    while True:
        is_busy = worker.step()
        now = time.monotonic()
        if now - told >= 1.0:
            told = now
            lags = [worker.learner.lags.get(key, 0.0) for key in LAYERS]
            published = worker.publisher.published_at
            age = time.time() - published / 1e6 if published else 0.0
            state = State(now, max(lags), age, cpu_seconds())
            print(msgspec.json.encode(state).decode(), flush=True)
        if not is_busy:
            time.sleep(IDLE)


class Table:
    """Prints what a worker says of itself, beside what was stored by then."""

    def __init__(self) -> None:
        self.stored = 0
        self._before: tuple[int, State] | None = None
        print(f"{'pages':>9}{'learning':>10}{'publishing':>12}{'ms/page':>9}{'cores':>7}")

    def follow(self, lines: Iterable[str]) -> None:
        """Print a line for each; on a thread of its own, since a step of the worker takes long."""
        for line in lines:
            state, stored = msgspec.json.decode(line, type=State), self.stored
            if self._before is not None:
                pages, before = self._before
                used = state.seconds - before.seconds
                print(
                    f"{stored:>9,}{state.learning:>9.1f}s{state.publishing:>11.1f}s"
                    f"{used / max(stored - pages, 1) * 1e3:>9.2f}"
                    f"{used / (state.at - before.at):>7.2f}",
                    flush=True,
                )
            self._before = (stored, state)


def replay(folder: Path, pages: list[Page], rate: float, seconds: float) -> None:
    """Store pages at a rate, with a worker beside, and print how it follows."""
    (folder / "data").mkdir()
    with open_log(folder / "data" / LOG_FILE) as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.replay", "--work", str(folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert worker.stdout is not None
        table = Table()
        threading.Thread(target=table.follow, args=(worker.stdout,), daemon=True).start()
        try:
            began = time.monotonic()
            while (passed := time.monotonic() - began) < seconds:
                due = range(table.stored, int(passed * rate))
                entries = [e for n in due for e in again(pages[n % len(pages)], n)]
                if entries:
                    log.commit(entries)
                    table.stored = due.stop
                time.sleep(GROUP)
        finally:
            worker.kill()
            worker.wait()


def main() -> None:
    """Record, replay and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pages-per-second", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--pages", type=int, default=200, help="that are recorded")
    parser.add_argument("--log", type=Path, help="keeps what is recorded")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        return work(arguments.work)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        kept = root if arguments.log is None else arguments.log
        pages = recorded(kept, arguments.pages)
        if kept != root:
            (root / "experiments").symlink_to((kept / "experiments").resolve())
        print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs")
        replay(root, pages, arguments.pages_per_second, arguments.seconds)
    return None


if __name__ == "__main__":
    main()
