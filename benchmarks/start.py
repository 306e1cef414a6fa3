"""How long commands and services take to start, and what memory they take, beside an empty FastAPI.

    python -m benchmarks.start [--rounds 3] [--against ../main/platform]

Each is a process of its own, on the example experiments and a small data folder: commands until
they end, services until they answer 200 (`topbill serve` at /readyz), and the dashboard's first
Preview: where it is the first page that anybody opens, with all that the process does before, and
after Home, from its opening on. Seconds are of CPU and on the wall: other work on the machine
makes the wall's longer, hardly those of CPU. Memory is what is resident then; of commands, at
most. Medians of the rounds, in which all take turns; with `--against`, another checkout too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.cost import (
    EXAMPLES,
    ROOT,
    cpu_seconds,
    environment,
    machine,
    published,
    running,
    wait_for,
)
from benchmarks.service import ECHO
from rich.console import Console

from topbill import spec
from topbill.cli.supervise import free_port
from topbill.simulation.demo import run_demo

SECONDS = 5.0
"""Of viewers, whom the data folder has in it."""
PREVIEW = """
import json, os, sys, time
sys.path.insert(0, sys.argv[1])
from streamlit.testing.v1 import AppTest
app = AppTest.from_file(os.path.join(sys.argv[1], "app.py"), default_timeout=600)
app.query_params["refresh"] = "Off"
app.query_params["experiment"] = "home-artwork"
if len(sys.argv) > 2:
    app.run()
    time.sleep(10)  # somebody looks at Home
began, cpu = time.monotonic(), time.process_time()
app.switch_page("views/preview.py").run()
with open("/proc/self/statm") as file:
    memory = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
print(json.dumps([time.process_time() - cpu, time.monotonic() - began, memory]))
said = [element.value for element in (*app.title, *app.subheader)]
if app.exception or app.error or "What each variant would show" not in said:
    sys.exit(f"no Preview: {said}, {app.exception}, {app.error}")
"""


SMALL = """
import json, resource, subprocess, sys, time
began = time.monotonic()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
wall = time.monotonic() - began
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1e3]))
"""
"""A process counts what its parent had in memory as its own: this one has little."""


class Took(NamedTuple):
    """Seconds of CPU and on the wall, and megabytes."""

    cpu: float
    wall: float
    memory: float


def command(checkout: Path, *arguments: str, **more: str) -> Took:
    """`python ARGUMENTS` to its end, with the code of a checkout."""
    done = subprocess.run(
        [sys.executable, "-c", SMALL, sys.executable, *arguments],
        env=environment(checkout) | more,
        stdout=subprocess.PIPE,
        check=True,
    )
    return Took(*json.loads(done.stdout))


def service(checkout: Path, address: str, *arguments: str) -> Took:
    """`python ARGUMENTS` until the address answers; then it is ended."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, *arguments], env=environment(checkout))
    try:
        wait_for(address, process)
        wall = time.monotonic() - began
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return Took(cpu_seconds(process.pid), wall, int(resident.split()[1]) / 1e3)
    finally:
        process.terminate()
        process.wait(60)


def cases(folder: Path) -> dict[str, Callable[[Path], Took]]:
    """What is measured, by its label."""
    (folder / "echo.py").write_text(ECHO)
    data = ["--data", str(folder / "data")]
    topbill = ["-m", "topbill"]

    def echo(checkout: Path) -> Took:
        port = str(free_port("127.0.0.1", 8670))
        options = ["--app-dir", str(folder), "--loop", "uvloop", "--log-level", "warning"]
        address = f"http://127.0.0.1:{port}/openapi.json"
        return service(checkout, address, "-m", "uvicorn", "echo:app", "--port", port, *options)

    def serve(checkout: Path, data: Path = folder / "data") -> Took:
        port = str(free_port("127.0.0.1", 8670))
        options = ["--experiments", str(EXAMPLES), "--data", str(data), "--port", port]
        return service(checkout, f"http://127.0.0.1:{port}/readyz", *topbill, "serve", *options)

    where = {"TOPBILL_DATA": str(folder / "data"), "TOPBILL_EXPERIMENTS": str(EXAMPLES)}

    def preview(checkout: Path) -> Took:
        return command(checkout, "-c", PREVIEW, dashboards_of(checkout), **where)

    def after_home(checkout: Path) -> Took:
        said = subprocess.run(
            [sys.executable, "-c", PREVIEW, dashboards_of(checkout), "after Home"],
            env=environment(checkout) | where,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        return Took(*json.loads(said.stdout))

    return {
        "an empty FastAPI with uvicorn": echo,
        "`topbill serve`, new folder": lambda checkout: serve(
            checkout, Path(tempfile.mkdtemp(dir=folder))
        ),
        "`topbill serve`, with a record": serve,
        "`topbill --help`": lambda checkout: command(checkout, *topbill, "--help"),
        "`topbill validate`": lambda checkout: command(
            checkout, *topbill, "validate", str(EXAMPLES)
        ),
        "`topbill status`": lambda checkout: command(checkout, *topbill, "status", *data),
        "dashboard, Preview first": preview,
        "dashboard, Preview after Home": after_home,
    }


def dashboards_of(checkout: Path) -> str:
    """The dashboards' folder beside the `platform` folder of a checkout."""
    return str(checkout.resolve().parent / "dashboards")


def fill(data: Path) -> None:
    """Have the record of some seconds of viewers in a data folder."""
    port = free_port("127.0.0.1", 8670)
    options = ["--experiments", str(EXAMPLES), "--data", str(data)]
    address = f"http://127.0.0.1:{port}"
    platform = ROOT / "platform"
    with (
        running(platform, "serve", *options, "--port", str(port), address=f"{address}/readyz"),
        running(platform, "worker", *options),
    ):
        experiments = spec.load_all([EXAMPLES])
        driver = run_demo(address, experiments, Console(quiet=True), seconds=SECONDS)
        published(data, driver.scoreboard.decisions)
        time.sleep(10)  # until something was learned


def table(found: dict[str, list[list[Took]]]) -> Iterator[str]:
    """Lines of a table, the other checkout's first."""
    sides = ["before: ", "now: "] if len(next(iter(found.values()))) == 2 else [""]
    heads = [f"{side}{what}" for side in sides for what in ("CPU s", "wall s", "MB")]
    yield f"| start of | {' | '.join(heads)} |"
    yield f"|---|{'---:|' * len(heads)}"
    for label, each in found.items():
        cells = []
        for took in each:
            cpu, wall, memory = (statistics.median(column) for column in zip(*took, strict=True))
            cells += [f"{cpu:.2f}", f"{wall:.2f}", f"{memory:.0f}"]
        yield f"| {label} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="the `platform` folder of another checkout")
    given = parser.parse_args()
    checkouts = [ROOT / "platform"]
    if given.against is not None:
        checkouts.insert(0, given.against)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder / "data")
        found: dict[str, list[list[Took]]] = {}
        for _ in range(given.rounds):
            for label, measured in cases(folder).items():
                sides = found.setdefault(label, [[] for _ in checkouts])
                for checkout, took in zip(checkouts, sides, strict=True):
                    took.append(measured(checkout))
    print(machine())
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
