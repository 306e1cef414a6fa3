"""What a million decisions of the example experiments cost: seconds of CPU, and bytes on disk.

    python -m benchmarks.cost [--seconds 30] [--rounds 1] [--against ../main/platform]

A service and a worker run on the examples, each on its own; simulated viewers open homepages, of
which each is three decisions, send what comes of them, and stop. The worker then learns and
publishes the rest. What the two took of the CPU from ready to the end is divided by the decisions
in the lake, as are the bytes that lie in the data folder at the end: in the log, which lets them go
past every window, and in the lake. CPU and not the clock, so that other work on the machine hardly
counts. With `--against`, another checkout does the same in turn.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

from rich.console import Console

from topbill import lake, spec
from topbill.cli.supervise import free_port
from topbill.domain.errors import TopbillError
from topbill.simulation.demo import run_demo

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "experiments"
TICKS = os.sysconf("SC_CLK_TCK")
LONGEST = 600.0
"""Seconds that a start, or what is left to learn and to publish, may take."""
PACE = 1_000.0
"""Homepages a second, where the service takes them."""


def environment(checkout: Path) -> dict[str, str]:
    """That of a process which runs the code in the `platform` folder of a checkout."""
    paths = [str(checkout.resolve()), str(checkout.resolve().parent / "clients" / "python")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def family(process: int) -> Iterator[int]:
    """A process and those that it has started."""
    yield process
    for thread in Path(f"/proc/{process}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield from family(int(child))


def cpu_seconds(process: int) -> float:
    """What a process and those that it has started took of the CPU so far."""
    total = 0
    for each in family(process):
        # After the name, which may hold spaces: user and system, and that of children that ended.
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += sum(int(field) for field in fields[11:15])
    return total / TICKS


@contextmanager
def running(
    checkout: Path, *arguments: str, address: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """`topbill ARGUMENTS`, ended after the block; with an address, ready before it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "topbill", *arguments], env=environment(checkout)
    )
    try:
        if address:
            wait_for(address, process)
        yield process
    finally:
        process.terminate()
        process.wait(60)


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    """Until the address answers 200."""
    until = time.monotonic() + LONGEST
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), urlopen(address, timeout=10):  # noqa: S310
            return
        time.sleep(0.02)
    raise SystemExit(f"{address} does not answer")


class Cost(NamedTuple):
    """Of so many decisions: seconds of CPU of service and worker, bytes in log and lake."""

    decisions: int
    service: float
    worker: float
    log: float
    lake: float

    def per_million(self) -> Cost:
        """The same of a million."""
        share = 1e6 / self.decisions
        return Cost(1_000_000, *(each * share for each in self[1:]))


def spent(checkout: Path, data: Path, seconds: float) -> Cost:
    """What viewers of so many seconds cost with the code of a checkout, in an empty data folder."""
    port = free_port("127.0.0.1", 8650)
    options = ["--experiments", str(EXAMPLES), "--data", str(data)]
    address = f"http://127.0.0.1:{port}"
    with (
        running(
            checkout, "serve", *options, "--port", str(port), address=f"{address}/readyz"
        ) as service,
        running(checkout, "worker", *options) as worker,
    ):
        published(data, 0)
        before = cpu_seconds(service.pid), cpu_seconds(worker.pid)
        driver = run_demo(
            address,
            spec.load_all([EXAMPLES]),
            Console(quiet=True),
            seconds=seconds,
            pages_per_second=PACE,
        )
        decisions = published(data, driver.scoreboard.decisions)
        time.sleep(10)  # the last are learned 6 s after they were made
        after = cpu_seconds(service.pid), cpu_seconds(worker.pid)
    in_lake = size(data / "lake") + (data / lake.DATABASE).stat().st_size
    return Cost(
        decisions, after[0] - before[0], after[1] - before[1], size(data) - in_lake, in_lake
    )


def published(data: Path, least: int) -> int:
    """How many decisions the lake has, once it has so many."""
    until = time.monotonic() + LONGEST
    while time.monotonic() < until:
        with suppress(TopbillError):
            table = lake.sql(data / lake.DATABASE, "SELECT count(*) AS n FROM decisions")
            if (count := int(table["n"][0].as_py())) >= least:
                return count
        time.sleep(1)
    raise SystemExit(f"{data}: {least:,} decisions are not published after {LONGEST:.0f} s")


def size(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def table(costs: Sequence[Sequence[Cost]]) -> Iterator[str]:
    """Lines of a table: a million decisions of each checkout, and how much the last took of what
    the first did.
    """
    rows = {
        "service, CPU s": ("service", 1.0),
        "worker, CPU s": ("worker", 1.0),
        "log, MB": ("log", 1e-6),
        "lake, MB": ("lake", 1e-6),
    }
    heads = ["now"] if len(costs) == 1 else ["before", "now", "now / before"]
    yield f"| a million decisions | {' | '.join(heads)} |"
    yield f"|---|{'---:|' * len(heads)}"
    for label, (field, unit) in rows.items():
        values = [
            statistics.median(getattr(cost.per_million(), field) for cost in each) * unit
            for each in costs
        ]
        cells = [f"{value:,.0f}" for value in values]
        if len(values) > 1:
            cells.append(f"{values[1] / values[0]:.2f}")
        yield f"| {label} | {' | '.join(cells)} |"


def machine() -> str:
    """What it ran on, in one line."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return (
        f"{os.cpu_count()} cores ({name}), Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--against", type=Path, help="the `platform` folder of another checkout")
    given = parser.parse_args()
    checkouts = [ROOT / "platform"]
    if given.against is not None:
        checkouts.insert(0, given.against)
    costs: list[list[Cost]] = [[] for _ in checkouts]
    for _ in range(given.rounds):
        for checkout, found in zip(checkouts, costs, strict=True):
            with tempfile.TemporaryDirectory() as folder:
                found.append(spent(checkout, Path(folder) / "data", given.seconds))
    counts = ", ".join(f"{cost.decisions:,}" for each in costs for cost in each)
    print(f"{machine()}; measured on {counts} decisions")
    print("\n".join(table(costs)))


if __name__ == "__main__":
    main()
