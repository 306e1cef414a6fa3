"""How far a worker lags behind a log that is replayed at a set rate: pages of the example homepage
are recorded once and laid out as the log stores them, each time under ids of its own. Then they are
written to a log at that rate, which takes next to nothing, and a worker's two processes learn and
publish them meanwhile.

    python -m benchmarks.replay [--pages-per-second 500] [--seconds 30] [--pages 200] \\
        [--log FOLDER]

Every two seconds a line says how many pages were stored, by how much learning and publishing lag
behind them (s), and what CPU each of the two took since the last line, in ms a page and in cores.
Learning lags by what a decision has waited beyond its `reward_delay`, publishing by how old the
record is, which is two seconds where nothing lags; the last line has the worst of both. Pages are
stored from when both have started. A log that takes no more for now is tried again: then fewer are
stored than were to be. `--log` keeps the recording in a folder, and takes it from there the next
time. A page takes some 16 kB of memory.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import msgspec
from benchmarks.worker import LAYERS, cpu_seconds, examples, record_pages

from topbill.domain.collecting import collect_rarely
from topbill.domain.errors import LogError
from topbill.domain.records import Decision, RewardEvent
from topbill.log import LOG_FILE, Entry, Log, now_micros, open_log, open_log_of
from topbill.log.entries import Rows, admit
from topbill.log.recent_ids import RecentIds
from topbill.log.sqlite import SqliteLog
from topbill.worker.experiment_files import ExperimentFiles
from topbill.worker.learning import Learning
from topbill.worker.publishing import Publishing

GROUP = 0.02
"""Seconds between two commits: what came meanwhile is stored as one group."""
MOST = 0.5
"""Seconds of pages that are stored at once, where they are late."""
EVERY = 2.0
"""Seconds from one line to the next: as long as from one publication to the next."""
IDLE = 0.2
"""Seconds that a worker without work waits."""


class Page(NamedTuple):
    """What one page stored."""

    decisions: list[Decision]
    events: list[RewardEvent]


class State(msgspec.Struct):
    """What one of the two processes says of itself: its CPU (s), and how far it lags (s) or when it
    published last (µs since the epoch).
    """

    seconds: float
    lag: float = 0.0
    published_at: int = 0


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


def laid_out(pages: list[Page], count: int) -> list[Rows]:
    """The rows of so many pages as a log stores them. Its own ids are new, and so none is looked
    up.
    """
    no_ids = RecentIds()
    laid = []
    for number in range(count):
        rows = Rows.none()
        for entry in again(pages[number % len(pages)], number):
            admit(entry, 0, no_ids, rows)
        no_ids.events.clear()
        laid.append(rows)
    return laid


def store(log: SqliteLog, pages: Iterable[Rows]) -> None:
    """Store pages as one group, as `commit` does once it has laid them out. Raises LogError."""
    together = Rows.none()
    for rows in pages:
        for group, own in zip(together, rows, strict=True):
            group.extend(own)
    if together:
        journal = log._journal
        with journal.locked():
            journal.write(together, now_micros())


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


HALVES = ("learn", "publish")


def work(folder: Path, half: str) -> None:
    """Do one half of what `topbill worker` does, and say how far it is, once a second at most."""
    log = open_log_of(folder / "data")
    files = ExperimentFiles(folder / "experiments", folder / "data", log)
    step, state = (learner if half == "learn" else publisher)(log, files, folder)
    collect_rarely()
    told = 0.0
    while True:
        is_busy = step()
        if time.monotonic() - told >= 1.0:
            told = time.monotonic()
            print(msgspec.json.encode(state()).decode(), flush=True)
        if not is_busy:
            time.sleep(IDLE)


Steps = tuple[Callable[[], object], Callable[[], State]]
"""What a process does again and again, and what it says of itself."""


def learner(log: Log, files: ExperimentFiles, folder: Path) -> Steps:
    """Learning."""
    learning = Learning(log, files, folder / "data")

    def state() -> State:
        lags = learning.learner.lags
        return State(cpu_seconds(), lag=max(lags.get(key, 0.0) for key in LAYERS))

    return learning.step, state


def publisher(log: Log, files: ExperimentFiles, folder: Path) -> Steps:
    """Publishing."""
    publishing = Publishing(log, files, folder / "experiments", folder / "data")

    def state() -> State:
        return State(cpu_seconds(), published_at=publishing.publisher.published_at)

    return publishing.step_alone, state


class Table:
    """Prints what the two say of themselves, beside what was stored by then."""

    def __init__(self) -> None:
        self.stored = 0
        self.worst = (0.0, 0.0)
        self.states: dict[str, State] = {}
        self._first: tuple[float, int, list[float]] | None = None
        self._before: tuple[float, int, list[float]] | None = None
        head = f"{'pages':>9}{'learning':>10}{'publishing':>12}{'ms/page':>16}{'cores':>12}"
        print(head, flush=True)

    def follow(self, half: str, lines: Iterable[str]) -> None:
        """Take what one of them says; on a thread of its own, since a step may take long."""
        for line in lines:
            self.states[half] = msgspec.json.decode(line, type=State)

    def print(self) -> None:
        """A line of what was said last."""
        now = self._now()
        if self._before is None:
            self._first = self._before = now
            return
        lag, age = self.states["learn"].lag, time.time() - self.states["publish"].published_at / 1e6
        self.worst = max(self.worst[0], lag), max(self.worst[1], age)
        lags = f"{lag:>9.1f}s{age:>11.1f}s"
        print(f"{self.stored:>9,}{lags}{self._taken(self._before, now)}", flush=True)
        self._before = now

    def print_all(self) -> None:
        """What all of it took."""
        if self._first is not None:
            lags = f"{self.worst[0]:>9.1f}s{self.worst[1]:>11.1f}s"
            print(f"{'all':>9}{lags}{self._taken(self._first, self._now())}", flush=True)

    def _now(self) -> tuple[float, int, list[float]]:
        used = [self.states[half].seconds for half in HALVES]
        return time.monotonic(), self.stored, used

    def _taken(
        self, before: tuple[float, int, list[float]], now: tuple[float, int, list[float]]
    ) -> str:
        """ms of CPU a page, and cores, of each of the two."""
        pages, seconds = max(now[1] - before[1], 1), now[0] - before[0]
        taken = [later - sooner for sooner, later in zip(before[2], now[2], strict=True)]
        each = " + ".join(f"{cpu / pages * 1e3:.2f}" for cpu in taken)
        cores = " + ".join(f"{cpu / seconds:.2f}" for cpu in taken)
        return f"{each:>16}{cores:>12}"


def replay(folder: Path, pages: list[Rows], rate: float, seconds: float) -> None:
    """Store pages at a rate, with a worker beside, and print how it follows."""
    (folder / "data").mkdir()
    table, workers = Table(), []
    with SqliteLog(folder / "data" / LOG_FILE) as log:
        try:
            for half in HALVES:
                command = [sys.executable, "-m", "benchmarks.replay", "--work", str(folder), half]
                worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
                workers.append(worker)
                threading.Thread(
                    target=table.follow, args=(half, worker.stdout), daemon=True
                ).start()
            while len(table.states) < len(HALVES):
                time.sleep(GROUP)
            began = printed = time.monotonic()
            while (passed := time.monotonic() - began) < seconds:
                due = range(table.stored, int(passed * rate))[: int(MOST * rate)]
                with suppress(LogError):
                    store(log, pages[due.start : due.stop])
                    table.stored = due.stop
                if time.monotonic() - printed >= EVERY:
                    printed = time.monotonic()
                    table.print()
                time.sleep(GROUP)
            table.print_all()
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()


def main() -> None:
    """Record, replay and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pages-per-second", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--pages", type=int, default=200, help="that are recorded")
    parser.add_argument("--log", type=Path, help="keeps what is recorded")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        return work(Path(arguments.work[0]), arguments.work[1])
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        kept = root if arguments.log is None else arguments.log
        pages = recorded(kept, arguments.pages)
        if kept != root:
            (root / "experiments").symlink_to((kept / "experiments").resolve())
        rate, seconds = arguments.pages_per_second, arguments.seconds
        laid = laid_out(pages, int(rate * seconds))
        print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs", flush=True)
        replay(root, laid, rate, seconds)
    return None


if __name__ == "__main__":
    main()
