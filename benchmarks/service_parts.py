"""What a decision takes of the processor in the service, beside the sum of its parts alone: what is
lost between them is no part's.

    python -m benchmarks.service_parts [--seconds 3] [--rounds 5]

The parts: HTTP, the service's protocol around an application that answers at once; deciding, from
a body's bytes to the answer's; committing groups as large as there are connections, sync included;
draining these from the journal into the tables. Round by round each is measured once, and so is
the service. CPU of user and system, in µs a decision. In the service, parts share the caches; alone
each has them for itself.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
from benchmarks.service import Bench, Server, Shape, bodies, on_core, running, teach
from rich.console import Console
from rich.table import Table

from topbill import spec
from topbill.cli.supervise import free_port
from topbill.domain.json_text import check_json
from topbill.engine import DecideRequest, Engine, adopt_newest
from topbill.log import Entry, open_log

PARTS = ("HTTP", "deciding", "committing", "draining")
EMPTY = """
import uvicorn
from topbill.service.asgi import Reply, respond
from topbill.service.connections import BoundedProtocol

class Application:
    def route_of(self, path):
        return path

    def take(self, requests):
        for request in requests:
            request.answer(Reply(200, b"x" * 250, ((b"x-request-id", b"0" * 32),)))

    async def __call__(self, scope, receive, send):
        await receive()
        await respond(send, 200, b"{}")

uvicorn.run(
    Application(), port=PORT, http=BoundedProtocol, loop="uvloop", lifespan="off",
    access_log=False, log_level="warning", server_header=False, proxy_headers=False,
)
"""


@contextmanager
def empty_server(bench: Bench) -> Iterator[Server]:
    """The service's protocol, and nothing behind it."""
    port = free_port("127.0.0.1", 0)
    command = [sys.executable, "-c", EMPTY.replace("PORT", str(port))]
    with running(on_core(bench.server_core, command), port) as process:
        yield Server(port, process.pid)


def in_process(folder: Path, shape: Shape, group: int) -> tuple[float, float, float]:
    """µs of deciding, committing and draining a decision, with the log of a service."""
    engine = Engine([spec.load(folder / "experiments" / f"{shape.experiment}.yaml")])
    raws = [msgspec.json.encode(body) for body in bodies(shape.experiment)]
    decode, encode = msgspec.json.Decoder(DecideRequest).decode, msgspec.json.encode
    shutil.rmtree(folder / "alone", ignore_errors=True)
    shutil.copytree(folder / "data", folder / "alone")
    with closing(open_log(folder / "alone" / "log.sqlite")) as log:
        adopt_newest(log, engine.find(shape.experiment))
        engine.decide(decode(raws[0]))
        start = time.thread_time()
        decisions = []
        for raw in raws:
            check_json(raw)
            decisions.append(engine.decide(decode(raw)))
            encode(engine.answer(decisions[-1]))
        decided = time.thread_time()
        for first in range(0, len(decisions), group):
            log.commit([Entry((one,)) for one in decisions[first : first + group]])
        committed = time.thread_time()
        log.tend()
        ends = decided, committed, time.thread_time()
    times = [end - begin for begin, end in zip((start, *ends), ends, strict=False)]
    deciding, committing, draining = (seconds / len(raws) * 1e6 for seconds in times)
    return deciding, committing, draining


def alone(folder: Path, shape: Shape, group: int, core: int | None) -> list[float]:
    """The same in a process of its own, on the core of the servers."""
    call = f"in_process(Path({str(folder)!r}), Shape(*{tuple(shape)!r}), {group})"
    program = f"from benchmarks.service_parts import *\nprint(*{call})"
    command = on_core(core, [sys.executable, "-c", program])
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [float(number) for number in done.stdout.split()]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=3, help="of load in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--policy", default="thompson")
    arguments = parser.parse_args()
    shape = Shape(arguments.policy)
    connections = arguments.connections
    rounds: list[list[float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cores = (0, 1) if shutil.which("taskset") else None
        bench = Bench(
            folder,
            seconds=arguments.seconds,
            rest=0.5,
            rounds=arguments.rounds,
            cores=cores,
            say=print,
        )
        bench.add(shape)
        with bench.service("data") as service, empty_server(bench) as empty:
            with bench.worker("data"):
                teach(service.port, [shape])
            for _ in range(arguments.rounds):
                whole = bench.load(service, connections, bench.script(shape)).cpu_us
                http = bench.load(empty, connections, bench.script(shape)).cpu_us
                parts = alone(folder, shape, connections, bench.server_core)
                rounds.append([whole, http, *parts])
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    table = Table(title=f"{shape.experiment}, {connections} connections, µs of CPU a decision")
    for heading in (*PARTS, "sum", "in the service", "ratio"):
        table.add_column(heading, justify="right")
    ratios = [whole / sum(parts) for whole, *parts in rounds]
    cells = [f"{number:.1f}" for number in (*medians[1:], sum(medians[1:]), medians[0])]
    table.add_row(*cells, f"{statistics.median(ratios):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
