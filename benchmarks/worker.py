"""What the worker takes to learn and to publish: µs of CPU a decision, of all threads and processes
together, for each example experiment and for whole pages.

    python -m benchmarks.worker [--decisions 4000] [--pages 200] [--rounds 5] \\
        [--against ../main/platform]

The examples decide in process first, each into a log of its own. A worker's fold then reads such a
log from its start, as `topbill verify` does. A publisher moves the same decisions, again and again
under new ids, into a new lake: a full step of 20,000 at once, and the ordinary rhythm, 2,000 (what
1,000 a second make in two seconds) in each of 31 steps, with all that a step does: the tables, the
analytics database, merging small files, forgetting. With `--against`, another
checkout does the same in turn, and the last column says whether both came to the same policies, to
the last byte. Figures are medians of the rounds.

CPU seconds for a million decisions are the same numbers. Beside them stands what a decision with
its rewards takes on the disk, in the log and in the lake.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import msgspec

import topbill
from topbill import pages
from topbill.domain.records import Decision, RewardEvent
from topbill.engine import DecideRequest, Engine
from topbill.lake import Lake
from topbill.log import LOG_FILE, Entry, Log, open_log
from topbill.pages import CompiledPage
from topbill.simulation.environment import Environment
from topbill.simulation.page_viewers import PageViewers
from topbill.simulation.page_visits import credited_events
from topbill.spec import Experiment
from topbill.worker.policy_fold import PolicyFold
from topbill.worker.publisher import MINOR, Publisher

ROOT = Path(__file__).parents[1]
PAGE = "home"
LAYERS = ("page-rows", "page-titles", "page-artwork")
EXPERIMENTS = ("home-artwork", "home-rows", "home-titles")
START = 1_790_000_000_000_000
"""µs since the epoch."""
STEP = 20_000
"""µs from one request to the next."""
DAY = 86_400_000_000


RHYTHMS = ((20_000, 1), (2_000, MINOR + 1))
"""Decisions of a step, and steps: so many that small files are merged once."""


class Asked(NamedTuple):
    """What one process is to do with the log of a folder: learn experiments, or, where it names
    none, publish so many decisions in each of so many steps.
    """

    folder: str
    experiments: tuple[str, ...] = ()
    decisions: int = 0
    steps: int = 0


class Answer(NamedTuple):
    """CPU seconds that it took, how many decisions it read, and what came of it: the digest of the
    policies, or the bytes of the lake.
    """

    seconds: float
    decisions: int
    result: str


# ------------------------------------------------------------------ the logs


class Recorder:
    """Writes a log whose clock goes from request to request."""

    def __init__(self, folder: Path) -> None:
        self.now = START
        self.log = open_log(folder / LOG_FILE, clock=lambda: self.now)

    def store(self, decisions: tuple[Decision, ...], events: list[RewardEvent]) -> None:
        """Commit what one request decided, and then what came of it."""
        self.now += STEP
        self.log.commit([Entry(decisions)])
        if events:
            self.log.commit([Entry(events=events)])

    def finish(self) -> None:
        """Leave all of it in the tables."""
        self.log.tend(thorough=True)
        self.log.close()


def examples(folder: Path) -> list[Experiment]:
    """The example experiments, in a folder of their own, with all the time that they need: a busy
    machine must not have the controls step in.
    """
    for name in ("pages", "artwork"):
        shutil.copytree(ROOT / "experiments" / name, folder / name)
    shutil.copy(ROOT / "experiments" / "catalogue.csv", folder)
    page = folder / "pages" / f"{PAGE}.yaml"
    page.write_text(page.read_text().replace("budget_ms: 60", "budget_ms: 10000"))
    for key in EXPERIMENTS:
        shutil.copy(ROOT / "experiments" / f"{key}.yaml", folder)
    for file in (*folder.glob("*.yaml"), *(folder / "pages" / PAGE).glob("*.yaml")):
        file.write_text(file.read_text() + "\nbudget_ms: 10000\n")
    return pages.load_experiments(folder)


def record_decisions(folder: Path, experiment: Experiment, count: int) -> int:
    """A log of single decisions of an experiment; returns how many."""
    environment, engine = Environment(experiment), Engine([experiment])
    recorder = Recorder(folder)
    for number in range(count):
        visit = environment.visit(number)
        request = DecideRequest(
            experiment=experiment.key,
            unit=visit.unit,
            context=msgspec.Raw(msgspec.json.encode(visit.context)),
        )
        decision = engine.decide(request)
        slate = [placement.action for placement in decision.slate]
        events = []
        truth = environment.truth(visit)
        for response in environment.respond(visit, truth, slate):
            events.append(
                RewardEvent(
                    decision_id=decision.decision_id,
                    event_id=response.event,
                    event=response.event,
                    value=response.value,
                    position=response.position,
                )
            )
        recorder.store((decision,), events)
    recorder.finish()
    return count


def record_pages(folder: Path, experiments: list[Experiment], count: int) -> int:
    """A log of whole pages; returns how many decisions."""
    (file,) = pages.load_all(folder.parent / "experiments", experiments)
    page = CompiledPage(file, Engine(experiments), file.read_catalog())
    viewers = PageViewers(page.catalog, sources=file.sources)
    declared = {feature.name for e in experiments for feature in e.context if e.key in LAYERS}
    recorder, decided = Recorder(folder), 0
    for number in range(count):
        viewer, now = number % 500, recorder.now / 1e6
        context = viewers.context(viewer)
        request = pages.PageRequest(
            page=PAGE,
            profile=f"viewer-{viewer}",
            region=file.region,
            context=msgspec.Raw(
                msgspec.json.encode({name: context[name] for name in context if name in declared})
            ),
        )
        page_id = f"page-{number}"
        composed = pages.compose(page, request, page.viewer(request, page_id), page_id, now)
        title, share = viewers.react(viewer, composed.answer)
        played = {} if title is None else {title: share}
        events = []
        for own in credited_events(composed.answer, played, now).values():
            events += own
        recorder.store(composed.decisions, events)
        decided += len(composed.decisions)
    recorder.finish()
    return decided


# ------------------------------------------------------------------ the process that is measured


def cpu_seconds() -> float:
    """Of this process, all its threads, and the processes that it has started and seen end."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        used = resource.getrusage(who)
        total += used.ru_utime + used.ru_stime
    return total


def learn(log: Log, experiments: list[Experiment]) -> Answer:
    """Fold all of the log, the experiments by turns, as a worker does."""
    folds, barrier, decisions = [PolicyFold(one) for one in experiments], log.barrier(), 0
    began = cpu_seconds()
    while read := sum([fold.step(log, barrier) for fold in folds]):
        decisions += read
    seconds = cpu_seconds() - began
    digest = blake2b(digest_size=8)
    for fold in folds:
        for name, state in sorted(fold.states().items()):
            digest.update(name.encode() + state)
    return Answer(seconds, decisions, digest.hexdigest())


def publish(log: Log, experiments: list[Experiment], decisions: int, steps: int) -> Answer:
    """Publish what the log holds, again and again, so many decisions in each step."""
    source = repeated_entries(log)
    with tempfile.TemporaryDirectory() as name:
        recorder = Recorder(Path(name))
        lake = Lake(Path(name))
        publisher = Publisher(recorder.log, lake, lambda: experiments)
        # An empty one first: what is made once is made then.
        publisher.step()
        seconds, published = 0.0, 0
        for _ in range(steps):
            recorder.now += 2_000_000
            entries, count = [], 0
            while count < decisions:
                entries.append(next(source))
                count += len(entries[-1].decisions)
            recorder.log.commit(entries)
            recorder.log.tend(thorough=True)
            began = cpu_seconds()
            publisher.step()
            seconds += cpu_seconds() - began
            published += count
        began = cpu_seconds()
        while publisher.is_compacting:
            time.sleep(0.01)
        seconds += cpu_seconds() - began
        files = (Path(name) / "lake").rglob("*.parquet")
        size = sum(file.stat().st_size for file in files)
        recorder.log.close()
    return Answer(seconds, published, str(size))


def repeated_entries(log: Log) -> Iterator[Entry]:
    """What each request of a log decided and what came of it, without an end: each time under new
    ids.
    """
    events: dict[str, list[RewardEvent]] = {}
    for _, event in log.read_events(0, 2**31):
        events.setdefault(event.decision_id, []).append(event)
    requests: dict[str, list[Decision]] = {}
    for _, decision in log.read_decisions(0, 2**31):
        requests.setdefault(decision.page or decision.decision_id, []).append(decision)
    for time_ in itertools.count():
        for decisions in requests.values():
            own, theirs = [], []
            for decision in decisions:
                decision_id = f"{decision.decision_id}-{time_}"
                own.append(msgspec.structs.replace(decision, decision_id=decision_id))
                for event in events.get(decision.decision_id, ()):
                    theirs.append(msgspec.structs.replace(event, decision_id=decision_id))
            yield Entry(tuple(own), theirs)


def serve() -> None:
    """Answer each line of standard input."""
    # As a worker does, or did in an earlier checkout.
    try:
        from topbill.domain.collecting import collect_rarely
    except ImportError:
        gc.freeze()
    else:
        collect_rarely()
    for line in sys.stdin:
        asked = msgspec.json.decode(line, type=Asked)
        folder = Path(asked.folder)
        experiments = pages.load_experiments(folder.parent / "experiments")
        with open_log(folder / LOG_FILE, clock=lambda: START + DAY) as log:
            if asked.experiments:
                answer = learn(log, [e for e in experiments if e.key in asked.experiments])
            else:
                answer = publish(log, experiments, asked.decisions, asked.steps)
        print(msgspec.json.encode(answer).decode(), flush=True)
    gc.unfreeze()


# ------------------------------------------------------------------ the one that asks


class Checkout:
    """A process that measures the package of one folder."""

    def __init__(self, folder: Path) -> None:
        path = os.pathsep.join((str(folder.resolve()), str(ROOT)))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", "--serve"],
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, asked: Asked) -> Answer:
        """What it takes this time."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(asked) + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise SystemExit("a process that measures has ended; see above")
        return msgspec.json.decode(line, type=Answer)


class Measured(NamedTuple):
    """µs of CPU a decision in each checkout, this one first; how many decisions; and whether all
    came to the same.
    """

    micros: list[float]
    decisions: int
    results: set[str]

    def line(self, label: str) -> str:
        """A line of the table."""
        text = f"{label:<36}{self.decisions:>9,}"
        text += "".join(f"{micros:>10.1f} µs" for micros in self.micros)
        if len(self.micros) > 1:
            text += f"{self.micros[1] / self.micros[0]:>8.2f} ×"
        return text


def measure(checkouts: list[Checkout], asked: Asked, rounds: int) -> Measured:
    """The medians of the rounds, after one that is not counted: what is compiled and made once
    is made then.
    """
    answers = [[checkout.ask(asked) for checkout in checkouts] for _ in range(rounds + 1)]
    micros = []
    for own in zip(*answers[1:], strict=True):
        micros.append(statistics.median(answer.seconds / answer.decisions * 1e6 for answer in own))
    results = {answer.result for row in answers for answer in row}
    return Measured(micros, answers[0][0].decisions, results)


def measure_log(
    checkouts: list[Checkout], folder: Path, decisions: int, keys: tuple[str, ...], rounds: int
) -> list[float]:
    """Print what it takes to learn each experiment of a log of so many decisions, and all of them
    by turns, and to publish the log. Returns the µs that learning and publishing all takes
    together, by checkout.
    """
    together = [keys] if len(keys) > 1 else []
    for asked in [*[(key,) for key in keys], *together]:
        learned = measure(checkouts, Asked(str(folder), asked), rounds)
        same = "" if len(checkouts) == 1 else "  same" if len(learned.results) == 1 else "  DIFFERS"
        label = asked[0] if len(asked) == 1 else f"{folder.name}, by turns"
        print(learned.line(f"learn {label}") + same, flush=True)
    log_size = (folder / LOG_FILE).stat().st_size / decisions
    for size, steps in RHYTHMS:
        published = measure(checkouts, Asked(str(folder), (), size, steps), 1)
        lake_size = float(min(published.results)) / published.decisions
        print(
            f"{published.line(f'publish {folder.name}, {size:,} a step')}  "
            f"{log_size:,.0f} B in the log, {lake_size:,.0f} B in the lake",
            flush=True,
        )
    totals = []
    for of_learning, of_publishing in zip(learned.micros, published.micros, strict=True):
        totals.append(of_learning * learned.decisions + of_publishing * decisions)
    return totals


def main() -> None:
    """Record, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--against", type=Path, help="the `platform` folder of another checkout")
    parser.add_argument("--decisions", type=int, default=4_000, help="of each experiment")
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="one of the experiments, or `pages`")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve()
    names = ("numpy", "numba", "msgspec", "pyarrow", "deltalake")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    print(f"Python {platform.python_version()}, {versions}, {os.cpu_count()} CPUs")
    print(f"load {os.getloadavg()[0]:.1f}; µs of CPU a decision: now, before, faster")
    folders = [Path(topbill.__file__).parents[1]]
    if arguments.against is not None:
        folders.append(arguments.against)
    checkouts = [Checkout(folder) for folder in folders]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "experiments").mkdir()
        experiments = examples(root / "experiments")
        for experiment in experiments:
            if experiment.key in EXPERIMENTS and arguments.only in (None, experiment.key):
                (root / experiment.key).mkdir()
                count = record_decisions(root / experiment.key, experiment, arguments.decisions)
                keys = (experiment.key,)
                measure_log(checkouts, root / experiment.key, count, keys, arguments.rounds)
        if arguments.only in (None, "pages"):
            (root / "pages").mkdir()
            count = record_pages(root / "pages", experiments, arguments.pages)
            totals = measure_log(checkouts, root / "pages", count, LAYERS, arguments.rounds)
            each = ", before ".join(f"{total / arguments.pages / 1e3:.2f}" for total in totals)
            print(f"a page, learned and published: {each} ms of CPU")
    return None


if __name__ == "__main__":
    main()
