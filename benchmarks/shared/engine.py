"""The numbers of a report and of an evaluation from DuckDB and from a Spark Connect server, and how
long each took.

    python -m benchmarks.shared.engine --decisions 1000000 [--engine sc://HOST:15002]
    python -m benchmarks.shared.engine --lake FOLDER

Without `--engine` it starts Sail (`pip install pysail`). The record is made for it: half as many
units as decisions, two variants, a play for some; SQL passes are those of a report, and the walk
is that of an evaluation of `uniform` over 64 buckets of units. The record is written, and each
engine asked, by a process of its own, and the most memory of each is told.

With `--lake` it is the record that `benchmarks.large_lake` wrote into FOLDER: 90 days, reported on
twice by each engine. The first time what days add up to is worked out, then it is read.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tests import sail_server

from topbill import reporting
from topbill.domain.decision import Origin, decision_rows, reward_rows
from topbill.domain.engine_url import ENGINE_VARIABLE, SCRATCH_VARIABLE
from topbill.domain.records import Placement, RewardEvent
from topbill.lake import Lake, lake_place
from topbill.lake.kept import forget
from topbill.lake.kept_tables import forget_tables
from topbill.ope import evaluate
from topbill.testing import a_decision, an_experiment

AT = 1_790_000_000_000_000
KEY = "home"
BATCH = 500_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=1_000_000)
    parser.add_argument("--walk", type=int, default=0, help="also evaluate a sample of so many")
    parser.add_argument("--no-report", action="store_true", help="the walk alone")
    parser.add_argument("--engine", default="")
    parser.add_argument("--lake", type=Path, help="a record of benchmarks.large_lake instead")
    options = parser.parse_args()
    if options.lake is not None:
        of_days(options.lake, options.engine)
        return
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        _, seconds, memory = apart(publish, data, options.decisions)
        print(f"{options.decisions:,} decisions written in {seconds:.0f} s, {memory:.1f} GB")
        os.environ[SCRATCH_VARIABLE] = f"{folder}/scratch"
        Path(folder, "scratch").mkdir()
        with server(options.engine) as url:
            if not options.no_report:
                compare("report", url, report, data)
            if options.walk:
                compare("evaluate", url, walk, data, options.walk)
            for process, memory in children():
                print(f"most memory of the server, process {process}: {memory:.1f} GB")


def of_days(data: Path, engine: str) -> None:
    """Reports of a record of many days, the first and the next one."""
    forget(data)
    forget_tables(lake_place(data))
    with tempfile.TemporaryDirectory(dir=data) as scratch, server(engine) as url:
        os.environ[SCRATCH_VARIABLE] = scratch
        for what in ("first report", "next report"):
            compare(what, url, whole_report, data)
            for process, memory in children():
                print(f"most memory of the server, process {process}: {memory:.1f} GB", flush=True)


def apart(function: Callable[..., Any], *given: Any) -> tuple[Any, float, float]:
    """What a function returns in a process of its own, in how many seconds, and with how many GB of
    memory at most."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_measured, function, *given).result()


def _measured(function: Callable[..., Any], *given: Any) -> tuple[Any, float, float]:
    began = time.perf_counter()
    answer = function(*given)
    seconds = time.perf_counter() - began
    return answer, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def children() -> Iterator[tuple[int, float]]:
    """The processes that this one started and that run, with the GB of memory that each had at
    most."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
            if int(lines["PPid"]) == os.getpid() and "VmHWM" in lines:
                yield int(lines["Pid"]), int(lines["VmHWM"].split()[0]) / 1e6


def report(data: Path) -> Any:
    answer = reporting.load_experiment_report(KEY, data, segments=[])
    return json.loads(reporting.to_json(answer))


def whole_report(data: Path) -> Any:
    return json.loads(reporting.to_json(reporting.load_experiment_report(KEY, data)))


def walk(data: Path, most: int) -> Any:
    return json.loads(json.dumps(evaluate(KEY, "uniform", data, most=most, buckets=64).as_dict()))


def publish(data: Path, decisions: int) -> None:
    """A few decisions, as often as there are to be, with ids and units of their own."""
    rng = np.random.default_rng(7)
    experiment = an_experiment(KEY)
    few = [
        a_decision(
            f"d{i}",
            revision=experiment.fingerprint,
            variant="ab"[i % 2],
            eligible=("x", "y"),
            slate=(Placement(0, "xy"[i // 2 % 2], 0.5),),
            propensity=0.5,
            probabilities=((0.5, 0.5),),
            context=b"{}",
        )
        for i in range(4)
    ]
    pattern = decision_rows(list(enumerate(few)))
    event = RewardEvent(decision_id="d0", event_id="e", event="play", received_at=AT)
    played = reward_rows([(1, event, Origin.of(few[0]))])
    lake, rewards = Lake(data), 0
    for first in range(0, decisions, BATCH):
        seq = np.arange(first + 1, min(first + BATCH, decisions) + 1)
        unit = (seq * 2_654_435_761) % max(1, decisions // 2)
        # A unit keeps its variant; what it is shown is drawn.
        kind = unit % 2 + 2 * rng.integers(2, size=seq.size)
        rows = pattern.take(pa.array(kind))
        decided = AT + seq * 1_000
        rows = _with(rows, seq, unit, decided, decision_id=seq)
        lake.append("decisions", rows, int(seq[-1]))
        hit = rng.random(seq.size) < np.where(kind % 2, 0.22, 0.2)
        number = np.arange(rewards + 1, rewards + 1 + hit.sum())
        rows = played.take(pa.array(np.zeros(number.size, dtype=np.int64)))
        rows = _with(rows, number, unit[hit], decided[hit], decision_id=seq[hit])
        rows = _set(rows, "event_id", pa.array(number.astype(str)))
        rows = _set(rows, "variant", pa.array(np.where(kind[hit] % 2, "b", "a")))
        for name in ("occurred_at", "received_at"):
            if name in rows.column_names:
                rows = _set(rows, name, pa.array(decided[hit] + 1_000_000).cast(pa.timestamp("us")))
        lake.append("rewards", rows, int(number[-1]))
        rewards += number.size
    lake.write_database([experiment], AT + decisions * 1_000 + 120_000_000)


def _with(rows: Any, seq: Any, unit: Any, decided: Any, decision_id: Any) -> Any:
    rows = _set(rows, "seq", pa.array(seq))
    rows = _set(rows, "unit", pa.array(np.char.add("u", unit.astype(str))))
    rows = _set(rows, "decided_at", pa.array(decided).cast(pa.timestamp("us")))
    return _set(rows, "decision_id", pa.array(np.char.add("d", decision_id.astype(str))))


def _set(rows: Any, name: str, column: Any) -> Any:
    place = rows.schema.get_field_index(name)
    return rows.set_column(
        place, rows.schema.field(place), column.cast(rows.schema.field(place).type)
    )


def compare(what: str, url: str, question: Callable[..., Any], *given: Any) -> None:
    answers = []
    for engine in ("", url):
        os.environ[ENGINE_VARIABLE] = engine
        answer, seconds, memory = apart(question, *given)
        answers.append(answer)
        name = "Spark Connect" if engine else "DuckDB"
        print(f"{what}: {name} {seconds:.1f} s, {memory:.1f} GB here", flush=True)
    worst, numbers = difference(*answers)
    print(f"{what}: {numbers} numbers, worst difference {worst:.1e}", flush=True)


def difference(one: Any, other: Any) -> tuple[float, int]:
    """The largest relative difference of two answers, and how many numbers they have. Raises
    ValueError where they differ in more."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        parts = [difference(one[name], other[name]) for name in one]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        parts = [difference(*pair) for pair in zip(one, other, strict=True)]
    elif isinstance(one, float) and isinstance(other, float):
        return abs(one - other) / max(1.0, abs(one), abs(other)), 1
    elif one == other:
        return 0.0, int(isinstance(one, int) and not isinstance(one, bool))
    else:
        raise ValueError(f"{one!r} and {other!r}")
    return max((worst for worst, _ in parts), default=0.0), sum(n for _, n in parts)


@contextmanager
def server(url: str) -> Iterator[str]:
    """The server at a URL, or Sail on a free port."""
    if url:
        yield url
        return
    with sail_server.running() as own:
        yield own


if __name__ == "__main__":
    main()
