"""A/B analysis: seconds for 5M units × 4 metrics × 3 variants from Parquet beside tea-tasting's
in-database analysis, and how many units a true +5% takes with and without CUPED.

python benchmarks/ab.py [--units 5000000] [--peer-python PYTHON]

The peer (tea-tasting with ibis-framework[duckdb]) is no dependency of Topbill: give the Python of
an environment that has it. Both open the same file with a connection of their own, in turn, several
times, each in a process of its own. The peer takes every row for a unit and does not read the
column of units. So does topbill where it is told "each row a unit"; by default it reads that column
too and proves that no unit has two rows. Of a million units (`--units 1000000`) it is to take no
longer than the peer even so. Seconds of all processors are printed too: they say the same on a busy
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from topbill import lake
from topbill.ab import Mean, compare
from topbill.stats.sequential import always_valid_p

METRICS = ("minutes", "plays", "sessions", "spend")
REPEATS, ROUNDS = 5, 3

PEER = """
import json, sys
from importlib.metadata import version
from time import perf_counter, process_time
try:
    import ibis, tea_tasting as tt
except ImportError as error:
    print(json.dumps({"missing": str(error)}))
    raise SystemExit
path, metrics, repeats = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3])
experiment = tt.Experiment({m: tt.Mean(m) for m in metrics}, variant="variant")
seconds, work = [], []
for _ in range(repeats):
    start, cpu = perf_counter(), process_time()
    table = ibis.duckdb.connect().read_parquet(path)
    result = experiment.analyze(table, control="control", all_variants=True)
    numbers = {str(v): {m: float(r[m].effect_size) for m in metrics} for v, r in result.items()}
    seconds.append(perf_counter() - start)
    work.append(process_time() - cpu)
names = ("tea-tasting", "ibis-framework", "duckdb")
versions = {n: version(n) for n in names}
print(json.dumps({"seconds": seconds, "work": work, "numbers": numbers, "versions": versions}))
"""


def write(path: Path, units: int) -> None:
    """A row per unit in random order, as a table of a day's units would be."""
    rng = np.random.default_rng(1)
    arms = np.array(["control", "thompson", "linucb"])
    pq.write_table(
        pa.table(
            {
                "unit": rng.permutation(units),
                "variant": pa.array(arms[rng.integers(0, 3, units)]),
                "minutes": rng.lognormal(0.0, 1.0, units),
                "plays": (rng.random(units) < 0.05).astype(float),
                "sessions": rng.poisson(2.0, units).astype(float),
                "spend": rng.normal(10.0, 3.0, units),
            }
        ),
        path,
    )


def ours(
    path: Path, unit: str | None
) -> tuple[list[float], list[float], dict[str, dict[str, float]]]:
    """Seconds and processor seconds of each repeat, and the differences by variant and metric.

    With `unit`, rows are first proved to be one a unit (and would be grouped if not); without, they
    are taken for units, as the peer does."""
    seconds, work, numbers = [], [], {}
    for _ in range(REPEATS):
        start, cpu = perf_counter(), process_time()
        rows = lake.connect().read_parquet(str(path))
        metrics = {m: Mean(m) for m in METRICS}
        table = compare(rows, unit=unit, variant="variant", control="control", metrics=metrics)
        seconds.append(perf_counter() - start)
        work.append(process_time() - cpu)
    for line in table.itertuples():
        numbers.setdefault(str(line.variant), {})[str(line.metric)] = float(line.difference)
    return seconds, work, numbers


def speed(units: int, peer_python: str) -> None:
    taken: dict[str, tuple[list[float], list[float]]] = {}

    def add(name: str, seconds: list[float], work: list[float]) -> None:
        both = taken.setdefault(name, ([], []))
        both[0].extend(seconds)
        both[1].extend(work)

    mine, careful, theirs = (
        "topbill, each row a unit",
        "topbill, units checked (default)",
        "tea-tasting, in the database",
    )
    peer = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "units.parquet"
        write(path, units)
        for _ in range(ROUNDS):
            *times, numbers = ours(path, "unit")
            add(careful, *times)
            *times, _ = ours(path, None)
            add(mine, *times)
            command = [peer_python, "-c", PEER, str(path), ",".join(METRICS), str(REPEATS)]
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            if answer.returncode != 0 or "missing" in answer.stdout:
                why = (
                    json.loads(answer.stdout)["missing"]
                    if answer.stdout
                    else answer.stderr.strip().splitlines()[-1]
                )
                print(f"tea-tasting skipped: {why} (give --peer-python an environment that has it)")
                break
            peer = json.loads(answer.stdout)
            add(theirs, peer["seconds"], peer["work"])
    print(
        f"{units:,} units × {len(METRICS)} metrics × 3 variants from Parquet, {ROUNDS} rounds of "
        f"{REPEATS} in turn:"
    )
    print(f"  {'':<34} best      median    processors'")
    for name, (seconds, work) in taken.items():
        print(
            f"  {name:<34} {min(seconds):6.3f} s  {np.median(seconds):6.3f} s  {min(work):6.3f} s"
        )
    if theirs not in taken:
        return
    for name, why in ((mine, "like for like"), (careful, "with the check")):
        best, middle, work = (
            f(taken[name][k]) / f(taken[theirs][k]) for f, k in ((min, 0), (np.median, 0), (min, 1))
        )
        print(
            f"  ratio {why}: best {best:.2f}, median {middle:.2f}, processors' {work:.2f} (below "
            f"1 is faster)"
        )
    apart = max(
        abs(numbers[v][m] - peer["numbers"][f"('control', '{v}')"][m])
        for v in numbers
        for m in METRICS
    )
    print(f"  largest disagreement of a difference {apart:.1e}")
    print(f"  {', '.join(f'{k} {v}' for k, v in peer['versions'].items())}")


def decisions(correlation: float, lift: float = 0.05, experiments: int = 300) -> None:
    """Units (both arms) until the default display calls a true lift; the metric's deviation is half
    its mean.
    """
    rng = np.random.default_rng(2)
    looks, each = 200, 100
    x = rng.normal(size=(2, experiments, looks * each))
    y = 10.0 + 5.0 * (correlation * x + np.sqrt(1.0 - correlation**2) * rng.normal(size=x.shape))
    y[1] *= 1.0 + lift
    units = each * np.arange(1.0, looks + 1.0)
    medians = []
    for name, values in (("without CUPED", y), ("with CUPED", y - 5.0 * correlation * x)):
        s, q = (a.cumsum(axis=2)[..., each - 1 :: each] for a in (values, values**2))
        z = (
            (s[1] - s[0])
            / units
            / np.sqrt(np.sum((q / units - (s / units) ** 2) / (units - 1.0), axis=0))
        )
        called = always_valid_p(z, 2.0 * units) <= 0.05
        first = np.where(called.any(axis=1), 2.0 * units[called.argmax(axis=1)], np.inf)
        medians.append(float(np.median(first)))
        tenth = float(np.quantile(first, 0.9))
        print(
            f"  {name:<14} half of {experiments} decided by {medians[-1]:,.0f} units, nine "
            f"tenths by {tenth:,.0f}"
        )
    left = 1.0 - correlation**2
    print(
        f"  ratio {medians[1] / medians[0]:.2f} (correlation {correlation}, so {left:.2f} of the "
        f"variance is left)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=5_000_000)
    parser.add_argument("--peer-python", default=sys.executable)
    arguments = parser.parse_args()
    speed(arguments.units, arguments.peer_python)
    print("a true +5%, looked at 200 times with the default confidence sequence:")
    decisions(0.7)
    print(
        f"duckdb {version('duckdb')}, numpy {version('numpy')}, Python {platform.python_version()},"
    )
    print(f"{os.cpu_count()} × {_processor()}")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0].partition(":")[2].strip() if names else platform.processor()


if __name__ == "__main__":
    main()
