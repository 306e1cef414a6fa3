"""What a million decisions of the example experiments cost: seconds of CPU, and bytes on disk.

    python -m benchmarks.cost [--decisions 100_000] [--rounds 1] [--against ../main/platform]

A service and a worker run on the examples. Decisions of three of them come over HTTP, one a
request, and a reward for each fourth; then the worker learns and publishes the rest. What the two
took of the CPU, less what they take when nothing comes, is divided by the decisions in the lake; so
are the bytes of the log, which lets rows go past every window, and of the lake. CPU and not the
clock, so that other work on the machine hardly counts. What goes by the clock and not by decisions
is left out of both: the process that keeps reports at hand, and versions of policies in the log,
whose size is told beside the table. With `--against`, another checkout does the same in turn. Needs
wrk.
"""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import pyarrow as pa
from benchmarks.service import wrk_with_others
from deltalake import DeltaTable

from topbill import lake
from topbill.cli.supervise import free_port
from topbill.domain.errors import TopbillError
from topbill.log import LOG_FILE

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "experiments"
TICKS = os.sysconf("SC_CLK_TCK")
LONGEST = 600.0
"""Seconds that a start, or what is left to learn and to publish, may take."""
IDLE = 60.0
"""Seconds in which it is seen what the two take when nothing comes any more. Whatever is done from
time to time is done once in them.
"""
BY_THE_CLOCK = b"answers"
"""The command of the worker's process that keeps reports at hand."""
STARTING = 40.0
"""Seconds after which the worker has started all that it starts: `topbill answers` comes last."""
SLICE = 5.0
"""Seconds of requests at a time."""
CONNECTIONS = 16
DECIDES = 4 / 5
"""Share of the requests that ask for a decision."""
LOAD = """
local start = os.time() .. "-" .. math.random(1000000000)
local keys = {"home-artwork", "home-rows", "home-titles"}
local json = {["content-type"] = "application/json"}
local made = 0
request = function()
  made = made + 1
  local id = start .. "-" .. made - made % 5
  if made % 5 == 4 then
    local body = '{"decision_id": "%s-1", "event": "play", "position": 0, "event_id": "e"}'
    return wrk.format("POST", "/v1/reward", json, string.format(body, id))
  end
  local body = '{"experiment": "%s", "unit": "u%d", "context": {"device": "tv", "hour": 20}, '
    .. '"decision_id": "%s-%d"}'
  body = string.format(body, keys[made % 3 + 1], math.random(20000), id, made % 5)
  return wrk.format("POST", "/v1/decide", json, body)
end
"""


def environment(checkout: Path) -> dict[str, str]:
    """That of a process which runs the code in the `platform` folder of a checkout."""
    paths = [str(checkout.resolve()), str(checkout.resolve().parent / "clients" / "python")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def family(process: int) -> Iterator[int]:
    """A process and those that it has started, but for what goes by the clock."""
    if BY_THE_CLOCK in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0"):
        return
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
    """Of so many decisions: seconds of CPU of service and worker, bytes in log and lake; and bytes
    of the versions of policies, which the log holds beside.
    """

    decisions: int
    service: float
    worker: float
    log: float
    lake: float
    versions: float

    def per_million(self) -> Cost:
        """The same of a million."""
        share = 1e6 / self.decisions
        return Cost(1_000_000, *(each * share for each in self[1:]))


def spent(checkout: Path, folder: Path, decisions: int) -> Cost:
    """What about so many cost with the code of a checkout, in an empty folder."""
    port, data, script = free_port("127.0.0.1", 8650), folder / "data", folder / "load.lua"
    script.write_text(LOAD)
    options = ["--experiments", str(EXAMPLES), "--data", str(data)]
    ready = f"http://127.0.0.1:{port}/readyz"
    with (
        running(checkout, "serve", *options, "--port", str(port), address=ready) as service,
        running(checkout, "worker", *options) as worker,
    ):
        processes = service.pid, worker.pid
        published(data, 0)
        time.sleep(STARTING)
        began, before = time.monotonic(), [cpu_seconds(process) for process in processes]
        made = 0.0
        while made < decisions:
            rate, _, refused = wrk_with_others(port, CONNECTIONS, SLICE, script)
            if refused:
                raise SystemExit(f"{refused} requests were refused")
            made += DECIDES * rate * SLICE
        count = settled(data)
        after, elapsed = [cpu_seconds(process) for process in processes], time.monotonic() - began
        time.sleep(IDLE)
        idle = [cpu_seconds(process) for process in processes]
        cpu = [
            now - then - elapsed * (later - now) / IDLE
            for then, now, later in zip(before, after, idle, strict=True)
        ]
    of_service, of_worker = cpu
    return Cost(count, of_service, of_worker, *sizes(data))


def sizes(data: Path) -> tuple[int, int, int]:
    """Bytes of a data folder's log, once nobody has it open, of the files of its lake that are
    live (those that were merged into others stay for half an hour), and of versions of policies.
    """
    live = 0
    for folder in sorted((data / "lake").glob("*/_delta_log")):
        actions = DeltaTable(str(folder.parent)).get_add_actions(flatten=True)
        live += sum(pa.table(actions)["size_bytes"].to_pylist())
    with closing(sqlite3.connect(data / LOG_FILE)) as log:
        query = "SELECT sum(pgsize * (name LIKE 'policy_%')), sum(pgsize) FROM dbstat"
        ((versions, used),) = log.execute(query).fetchall()
    return used - versions, live, versions


def settled(data: Path) -> int:
    """How many decisions the lake has once no more come, and the last are learned."""
    count, since = 0, time.monotonic()
    while time.monotonic() < since + 15:  # the last are learned 6 s after they were made
        if (now := published(data, 1)) != count:
            count, since = now, time.monotonic()
        time.sleep(1)
    return count


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
    parser.add_argument("--decisions", type=int, default=100_000)
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
                found.append(spent(checkout, Path(folder), given.decisions))
    counts = ", ".join(f"{cost.decisions:,}" for each in costs for cost in each)
    print(f"{machine()}; measured on {counts} decisions")
    print("\n".join(table(costs)))
    versions = ", ".join(f"{cost.versions / 1e6:,.0f}" for each in costs for cost in each)
    print(f"versions of policies in the log, however many decisions: {versions} MB")


if __name__ == "__main__":
    main()
