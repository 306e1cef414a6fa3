"""What the engine takes to decide, without HTTP and without a disk: µs of CPU a decision, and how
many times faster that is than another checkout.

    python -m benchmarks.decide [--against ../main/platform] [--rounds 15] [--policies auto,fixed]

With `--against`, two processes run the same requests in turn, in blocks of some 30 ms, and what is
printed is the median of the blocks' ratios: what else the machine does falls on both. Both must
also make the same decisions, to the last bit, and the last column says whether they did. Without
it, one process is measured alone. CPU time of the deciding thread is counted, not the clock's.

The last lines are what a group of decisions takes to become the journal's bytes.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from topbill import spec
from topbill.domain.records import RewardEvent
from topbill.engine import DecideRequest, Engine, teach
from topbill.log.entries import Entry, KeyedIds, Rows, admit
from topbill.log.frames import payload_of

SPEC = """
experiment: bench
surface: artwork
slots: {slots}
budget_ms: 9000
context:
  device: {{type: category, values: [tv, mobile, web]}}
  hour: {{type: cycle, period: 24}}
  taste: {{type: vector, keys: [action, comedy, crime, drama, romance, scifi]}}
{features}
actions:
{actions}
metrics:
  play: {{event: play, kind: binary, window: 1s}}
objective: {{play: 1.0}}
variants:
  bench: {{policy: {policy}, share: 100%, control: true}}
"""
FEATURES = "action_features:\n  tone: {type: category, values: [warm, cold, dark]}"
TONES = ("warm", "cold", "dark")
KEYS = ("action", "comedy", "crime", "drama", "romance", "scifi")
POLICIES = {
    "thompson": "thompson",
    "thompson-disjoint": "thompson, model: disjoint",
    "linucb": "linucb, min_probability: 0.2%",
    "auto": "auto, min_probability: 0.2%",
    "epsilon": "epsilon_greedy",
    "squarecb": "squarecb",
    "fixed": "fixed",
    "uniform": "uniform",
}
SHAPES = ((12, 1), (10, 6), (200, 1), (200, 20))
"""Actions and slots."""
LESSONS = 300
GROUP = 16
BLOCK = 0.03
"""Seconds of a block."""


class Case(NamedTuple):
    """A policy over so many actions, of which so many are shown; or, with `is_log`, what it takes
    to make the journal's bytes of its decisions.
    """

    policy: str
    actions: int
    slots: int
    is_log: bool = False

    @property
    def label(self) -> str:
        """What it is called in the table."""
        what = "to bytes" if self.is_log else self.policy
        return f"{what:<18}{self.actions:>5} actions {self.slots:>3} slots"


def cases(policies: Iterable[str]) -> list[Case]:
    """All that is measured."""
    every = []
    for actions, slots in SHAPES:
        every += [Case(policy, actions, slots) for policy in policies]
    every += [Case("thompson", actions, slots, is_log=True) for actions, slots in SHAPES]
    return every


# ------------------------------------------------------------------ the process that is measured


def engine_of(case: Case) -> Engine:
    """An engine with one policy that has learned a little."""
    lines = []
    for i in range(case.actions):
        lines.append(f"  - {{id: picture-{i}, features: {{tone: {TONES[i % 3]}}}}}")
    text = SPEC.format(
        slots=case.slots,
        features=FEATURES,
        actions="\n".join(lines),
        policy=POLICIES[case.policy],
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "bench.yaml")
        file.write_text(text)
        engine = Engine([spec.load(file)])
    lessons = []
    for number, request in enumerate(requests(LESSONS, keyed=True)):
        decision = engine.decide(request)
        first = decision.slate[0]
        if number % 3 == 0:
            events = [
                RewardEvent(
                    decision_id=decision.decision_id,
                    event_id="e",
                    event="play",
                    action=first.action,
                )
            ]
        else:
            events = []
        lessons.append((decision, events))
    teach(engine.find("bench"), lessons)
    return engine


def requests(count: int, keyed: bool) -> list[DecideRequest]:
    """Requests of different viewers; with ids of theirs, so that they are decided alike."""
    rng = np.random.default_rng(1)
    made = []
    for i in range(count):
        taste = {key: round(float(v), 3) for key, v in zip(KEYS, rng.random(6), strict=True)}
        context = {
            "device": ("tv", "mobile", "web")[int(rng.integers(3))],
            "hour": int(rng.integers(24)),
            "taste": taste,
        }
        made.append(
            DecideRequest(
                experiment="bench",
                unit=f"profile-{i}",
                context=msgspec.Raw(msgspec.json.encode(context)),
                decision_id=f"decision-{i}" if keyed else None,
            )
        )
    return made


def digest(engine: Engine) -> str:
    """Of what is decided, but for the time that it took."""
    made = blake2b(digest_size=12)
    for request in requests(100, keyed=True):
        decision = msgspec.structs.replace(engine.decide(request), latency_us=0)
        made.update(msgspec.json.encode(decision))
    return made.hexdigest()


def block_of(case: Case, engine: Engine) -> Callable[[], float]:
    """What runs one block, and says how many µs of CPU one decision took."""
    asked = requests(256, keyed=False)
    run = _to_bytes(engine, asked) if case.is_log else _decide(engine, asked)

    def timed(repetitions: int) -> float:
        start = time.thread_time()
        count = sum(run() for _ in range(repetitions))
        return (time.thread_time() - start) / count

    run()  # what is made once, is made
    repetitions = max(1, round(BLOCK / (timed(1) * len(asked))))
    return lambda: timed(repetitions) * 1e6


def _decide(engine: Engine, asked: list[DecideRequest]) -> Callable[[], int]:
    def run() -> int:
        for request in asked:
            engine.decide(request)
        return len(asked)

    return run


class _Nothing:
    """What is stored: nothing yet."""

    def __init__(self) -> None:
        self.decisions: dict[str, object] = {}
        self.events: set[object] = set()
        self.unit_events: set[object] = set()
        self.let_go: set[str] = set()


def _to_bytes(engine: Engine, asked: list[DecideRequest]) -> Callable[[], int]:
    decisions = [engine.decide(request) for request in asked]

    def run() -> int:
        for start in range(0, len(decisions), GROUP):
            entries = [Entry((decision,)) for decision in decisions[start : start + GROUP]]
            KeyedIds.of(entries)
            rows, stored = Rows.none(), _Nothing()
            for entry in entries:
                admit(entry, 1, stored, rows)  # type: ignore[arg-type]  # as Stored as it needs
            payload_of(rows)
        return len(decisions)

    return run


def serve() -> None:
    """Answer each line of standard input, a case, with the digest or the µs of a block."""
    blocks: dict[Case, Callable[[], float]] = {}
    for line in sys.stdin:
        case = msgspec.json.decode(line, type=Case)
        if case in blocks:
            answer: object = blocks[case]()
        else:
            engine = engine_of(case)
            blocks[case] = block_of(case, engine)
            answer = digest(engine)
        print(msgspec.json.encode(answer).decode(), flush=True)


# ------------------------------------------------------------------ the one that asks


class Checkout:
    """A process that measures the package of one folder."""

    def __init__(self, folder: Path) -> None:
        path = os.pathsep.join((str(folder.resolve()), str(Path(__file__).parents[1])))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.decide", "--serve"],
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, case: Case) -> str:
        """The digest of a case that is new; µs of a block of one that is not."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(case).decode() + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise SystemExit("a process that measures has ended; see above")
        return answer.strip()


def measure(case: Case, checkouts: list[Checkout], rounds: int) -> str:
    """A line of the table."""
    digests = {checkout.ask(case) for checkout in checkouts}
    times = [[float(checkout.ask(case)) for checkout in checkouts] for _ in range(rounds)]
    now = statistics.median(row[0] for row in times)
    line = f"{case.label}{now:>9.1f} µs"
    if len(checkouts) > 1:
        before = statistics.median(row[1] for row in times)
        ratios = [row[1] / row[0] for row in times]
        low, middle, high = statistics.quantiles(ratios, n=4)
        same = "same" if len(digests) == 1 else "DIFFERS"
        line += f"{before:>9.1f} µs{middle:>8.2f} × ({low:.2f} to {high:.2f})  {same}"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--against", type=Path, help="the `platform` folder of another checkout")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve()
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "msgspec"))
    print(f"Python {platform.python_version()}, {versions}, {os.cpu_count()} CPUs")
    print(f"load {os.getloadavg()[0]:.1f}; now" + (", before, faster" if arguments.against else ""))
    folders = [Path(spec.__file__).parents[2]]
    if arguments.against is not None:
        folders.append(arguments.against)
    checkouts = [Checkout(folder) for folder in folders]
    for case in cases(arguments.policies.split(",")):
        print(measure(case, checkouts, arguments.rounds), flush=True)
    return None


if __name__ == "__main__":
    main()
