"""A full durable decision beside an endpoint that only echoes: requests per second over HTTP, and
the processor's time for each, in one run.

    make bench              (or: python -m benchmarks.service [--seconds 3] [--rounds 5] [--json])

The echo is FastAPI + pydantic with the same bodies, in one uvicorn process with httptools and
uvloop. wrk loads one server and then the other, round by round with a rest between, so that the
machine's drift falls on both; the servers have one core and wrk has another. A decision is made by
a policy that has learned, and is answered only when its commit is on disk.

Of each pair two ratios are told, as the median of the rounds with their spread: of the requests
per second, which needs a quiet machine, and of the processor's time a request (user and system, of
all threads), which can be compared while others work on it. Above 1 the first of the pair is
quicker. `--json` prints the same as one document.

With `--log postgresql://…`, an empty database, a service whose log lies there is measured beside
one whose log is in its data folder, and nothing else. The time of the database's processes is not
among the service's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import numpy as np
from benchmarks.paced import Paced

from topbill.cli.supervise import free_port

ECHO = """
from typing import Any
from fastapi import FastAPI
from pydantic import BaseModel

class Body(BaseModel):
    experiment: str
    unit: str | None = None
    context: dict[str, Any] = {}

app = FastAPI()

@app.post("/v1/decide")
async def echo(body: Body) -> Body:
    return body
"""
SPEC = """
experiment: {experiment}
surface: artwork
slots: {slots}
context:
  device: {{type: category, values: [tv, mobile, web]}}
  hour: {{type: cycle, period: 24}}
  taste: {{type: vector, keys: [action, comedy, crime, drama, romance, scifi]}}
action_features:
  tone: {{type: category, values: [warm, cold, dark]}}
actions:
{actions}
metrics:
  play: {{event: play, kind: binary, window: 1s}}
objective: {{play: 1.0}}
variants:
  bench: {{policy: {policy}, share: 100%, control: true}}
"""
LUA = """
local bodies = {{}}
for line in io.lines("{bodies}") do bodies[#bodies + 1] = line end
local i = math.random(#bodies)
request = function()
  i = i % #bodies + 1
  return wrk.format("POST", "/v1/decide", {{["content-type"] = "application/json"}}, bodies[i])
end
"""
KEYED = """
local made = 0
local start = os.time() .. "-" .. math.random(1000000000)
request = function()
  i = i % #bodies + 1
  made = made + 1
  local body = bodies[i]:sub(1, -2) .. ', "decision_id": "' .. start .. "-" .. made .. '"}'
  return wrk.format("POST", "/v1/decide", {["content-type"] = "application/json"}, body)
end
"""
PAUSE = """
function delay() return math.random(0, {longest}) end
"""
POLICIES = {
    "thompson": "thompson",
    "linucb": "linucb, min_probability: {least}",
    "auto": "auto, min_probability: {least}",
    "vw": "vw",
}
CONNECTIONS = (16, 64)
PACKAGES = (
    "topbill",
    "fastapi",
    "pydantic",
    "uvicorn",
    "httptools",
    "uvloop",
    "msgspec",
    "numpy",
    "vowpal-wabbit-next",
)
Say = Callable[[str], None]


class Shape(NamedTuple):
    """An experiment of the service that is measured."""

    policy: str
    actions: int = 12
    slots: int = 1

    @property
    def experiment(self) -> str:
        """Its key."""
        return f"{self.policy}-{self.actions}-{self.slots}"

    def text(self) -> str:
        """Its file."""
        actions = []
        for i in range(self.actions):
            tone = ("warm", "cold", "dark")[i % 3]
            payload = f"{{image: a{i}.svg}}"
            actions.append(f"  - {{id: a{i}, features: {{tone: {tone}}}, payload: {payload}}}")
        return SPEC.format(
            experiment=self.experiment,
            slots=self.slots,
            actions="\n".join(actions),
            # All actions together have at most the whole.
            policy=POLICIES[self.policy].format(least="2%" if self.actions <= 50 else "0.2%"),
        )


class Load(NamedTuple):
    """What a server did under wrk."""

    rate: float
    """Answers a second."""
    p99_ms: float
    cpu_us: float
    """The processor's time for an answer."""


@dataclass
class Comparison:
    """Rounds of one server beside another."""

    name: str
    connections: int
    first: list[Load] = field(default_factory=list)
    second: list[Load] = field(default_factory=list)

    def ratios(self) -> dict[str, list[float]]:
        """Of each round; above 1 the first one is quicker."""
        rates, times = [], []
        for one, other in zip(self.first, self.second, strict=True):
            rates.append(one.rate / other.rate)
            times.append(other.cpu_us / one.cpu_us)
        return {"rate": rates, "cpu": times}

    def line(self) -> str:
        """As it is printed."""
        one, other = _medians(self.first), _medians(self.second)
        of = {kind: _with_spread(ratios) for kind, ratios in self.ratios().items()}
        return (
            f"{self.name:<32}{self.connections:4d}  rate {of['rate']}  cpu {of['cpu']}   "
            f"{one.rate:6.0f} and {other.rate:6.0f}/s, {one.cpu_us:5.1f} and {other.cpu_us:5.1f} "
            f"µs, p99 {one.p99_ms:.1f} and {other.p99_ms:.1f} ms"
        )

    def summary(self) -> dict[str, Any]:
        """As JSON has it."""
        ratios = {}
        for kind, rounds in self.ratios().items():
            ratios[kind] = {"median": statistics.median(rounds), "rounds": rounds}
        return {
            "name": self.name,
            "connections": self.connections,
            "ratio": ratios,
            "first": _medians(self.first)._asdict(),
            "second": _medians(self.second)._asdict(),
        }


def _medians(loads: Iterable[Load]) -> Load:
    return Load(*(statistics.median(column) for column in zip(*loads, strict=True)))


def _with_spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


@dataclass(frozen=True)
class Server:
    """A server that is running, with all processes that it has started."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """The processor's time, of users and system, up to now."""
        ticks = 0
        for pid in _family(self.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def settle(self) -> None:
        """Wait until all its processes have started: the first one answers before the others."""
        for _ in range(120):
            before = self.cpu_seconds()
            time.sleep(1)
            if self.cpu_seconds() - before < 0.1:
                return


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _family(int(child))


def on_core(core: int | None, command: list[str]) -> list[str]:
    """The command, kept to one core; as it is where there is none to keep it to."""
    return command if core is None else ["taskset", "-c", str(core), *command]


def bodies(experiment: str = "bench", count: int = 2_000) -> list[dict[str, Any]]:
    """Requests of different viewers."""
    rng = np.random.default_rng(1)
    keys = ("action", "comedy", "crime", "drama", "romance", "scifi")
    return [
        {
            "experiment": experiment,
            "unit": f"profile-{i}",
            "context": {
                "device": ("tv", "mobile", "web")[int(rng.integers(3))],
                "hour": int(rng.integers(24)),
                "taste": {
                    key: round(float(v), 3) for key, v in zip(keys, rng.random(6), strict=True)
                },
            },
        }
        for i in range(count)
    ]


@contextmanager
def running(command: list[str], port: int, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server process, ready before and ended after."""
    process = subprocess.Popen(command, env=os.environ | environment)
    try:
        for _ in range(1_200):
            try:
                urlopen(Request(f"http://127.0.0.1:{port}/openapi.json"), timeout=1).read()
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(f"it has ended, see above: {command}") from None
                time.sleep(0.1)
        else:
            raise SystemExit(f"nothing answers on port {port} after two minutes: {command}")
        yield process
    finally:
        process.terminate()
        process.wait(20)


def post(port: int, path: str, body: Any) -> Any:
    """One JSON request."""
    json_body = {"content-type": "application/json"}
    request = Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), json_body)
    return json.loads(urlopen(request, timeout=30).read())  # noqa: S310


def teach(port: int, shapes: Iterable[Shape]) -> dict[str, int]:
    """Let each policy learn from real decisions and rewards, until a version is served; returns
    the versions."""
    rng = np.random.default_rng(2)
    shapes = list(shapes)
    for shape in shapes:
        requests = bodies(shape.experiment)
        for start in range(0, len(requests), 500):
            batch = {"decisions": requests[start : start + 500]}
            answers = post(port, "/v1/decide/batch", batch)["decisions"]
            clicks = []
            for answer in answers:
                is_good = answer["slate"][0]["action"] in ("a1", "a5")
                if rng.random() < 0.02 + 0.08 * is_good:
                    clicks.append({"decision_id": answer["decision_id"], "event": "play"})
            if clicks:
                post(port, "/v1/reward/batch", {"rewards": clicks})
    versions: dict[str, int] = {}
    for _ in range(120):
        time.sleep(1)
        for shape in shapes:
            answer = post(port, "/v1/decide", bodies(shape.experiment, 1)[0])
            versions[shape.experiment] = answer["policy_version"]
        if all(versions.values()):
            return versions
    raise SystemExit(f"nothing was learned in two minutes: {versions}")


def wrk(
    port: int, connections: int, seconds: float, script: Path, core: int | None = None
) -> tuple[float, float]:
    """Requests per second and p99 in ms. Fails when any answer is not 2xx."""
    rate, p99, others = wrk_with_others(port, connections, seconds, script, core)
    if others:
        raise SystemExit(f"{others} answers were not 2xx")
    return rate, p99


def wrk_with_others(
    port: int, connections: int, seconds: float, script: Path, core: int | None = None
) -> tuple[float, float, int]:
    """Requests per second, p99 in ms, and how many answers were not 2xx. Fails where a connection
    does."""
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds:.0f}s",
        "--timeout",
        "20s",
        "--latency",
    ]
    command += ["-s", str(script), f"http://127.0.0.1:{port}"]
    done = subprocess.run(on_core(core, command), stdout=subprocess.PIPE, text=True, check=True)
    if "Socket errors" in done.stdout:
        raise SystemExit(done.stdout)
    others = re.search(r"Non-2xx or 3xx responses:\s+(\d+)", done.stdout)
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])  # type: ignore[index]
    value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", done.stdout).groups()  # type: ignore[union-attr]
    p99 = float(value) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]
    return rate, p99, int(others[1]) if others else 0


class Bench:
    """Servers to be compared, and how long each is loaded.

    Args:
        folder: For experiments, data and scripts.
        cores: Of the servers, and of wrk; None where nobody is kept to one.
        say: Prints a line as soon as it is known.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seconds: float,
        rest: float,
        rounds: int,
        cores: tuple[int, int] | None,
        say: Say,
    ) -> None:
        self.folder = folder
        self.seconds, self.rest, self.rounds = seconds, rest, rounds
        self.server_core, self.load_core = cores or (None, None)
        self.say = say
        (folder / "experiments").mkdir()
        (folder / "echo.py").write_text(ECHO)

    def add(self, shape: Shape) -> None:
        """Write the shape's experiment, and its scripts for wrk."""
        (self.folder / "experiments" / f"{shape.experiment}.yaml").write_text(shape.text())
        lines = self.bodies(shape)
        lines.write_text("\n".join(json.dumps(body) for body in bodies(shape.experiment)) + "\n")
        plain = LUA.format(bodies=lines)
        self.script(shape).write_text(plain)
        self.script(shape, keyed=True).write_text(plain + KEYED)

    def bodies(self, shape: Shape) -> Path:
        """Requests for a shape, one a line."""
        return self.folder / f"{shape.experiment}.txt"

    def script(self, shape: Shape, *, keyed: bool = False) -> Path:
        """wrk's, for a shape; `keyed` sends ids of the caller's."""
        return self.folder / f"{shape.experiment}{'-keyed' if keyed else ''}.lua"

    @contextmanager
    def service(self, data: str, processes: int = 1, log: str = "") -> Iterator[Server]:
        """Topbill, over a data folder of that name, and over a log at a URL where one is said."""
        port = free_port("127.0.0.1", 0)
        command = [sys.executable, "-m", "topbill", "serve", *self.places(data)]
        command += ["--port", str(port), "--processes", str(processes)]
        with running(on_core(self.server_core, command), port, TOPBILL_LOG=log) as process:
            server = Server(port, process.pid)
            server.settle()
            yield server

    @contextmanager
    def echo(self) -> Iterator[Server]:
        """What it is measured beside."""
        port = free_port("127.0.0.1", 0)
        command = [sys.executable, "-m", "uvicorn", "echo:app", "--app-dir", str(self.folder)]
        command += ["--log-level", "warning", "--no-access-log", "--port", str(port)]
        command += ["--loop", "uvloop", "--http", "httptools"]
        with running(on_core(self.server_core, command), port) as process:
            yield Server(port, process.pid)

    @contextmanager
    def worker(self, data: str, log: str = "") -> Iterator[None]:
        """The worker beside it, on whichever core is free."""
        command = [sys.executable, "-m", "topbill", "worker", *self.places(data)]
        process = subprocess.Popen(command, env=os.environ | {"TOPBILL_LOG": log})
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)

    def places(self, data: str) -> list[str]:
        """The options of topbill."""
        experiments = self.folder / "experiments"
        return ["--experiments", str(experiments), "--data", str(self.folder / data)]

    def load(self, server: Server, connections: int, script: Path) -> Load:
        """Load it once, after a rest."""
        time.sleep(self.rest)
        before = server.cpu_seconds()
        rate, p99 = wrk(server.port, connections, self.seconds, script, self.load_core)
        return Load(rate, p99, (server.cpu_seconds() - before) / (rate * self.seconds) * 1e6)

    def compare(
        self,
        name: str,
        connections: int,
        first: tuple[Server, Path],
        second: tuple[Server, Path],
    ) -> Comparison:
        """Load the two in turn."""
        comparison = Comparison(name, connections)
        for _ in range(self.rounds):
            comparison.first.append(self.load(first[0], connections, first[1]))
            comparison.second.append(self.load(second[0], connections, second[1]))
        self.say(comparison.line())
        return comparison

    def half_load(self, server: Server, shape: Shape, full: Load) -> Paced:
        """64 connections that pause between their requests, so that there are half as many as with
        `full`."""
        # A connection's share of the time, less a typical answer.
        pause = 64 / (full.rate / 2) * 1e3 - 1
        command = [sys.executable, "-m", "benchmarks.paced", str(server.port)]
        command += [str(self.bodies(shape)), "--connections", "64", "--pause", f"{pause:.2f}"]
        # Long enough to have a percentile of.
        command += ["--seconds", str(2 * self.seconds)]
        rounds = []
        for _ in range(self.rounds):
            time.sleep(self.rest)
            done = subprocess.run(
                on_core(self.load_core, command), stdout=subprocess.PIPE, check=True
            )
            rounds.append(Paced(**json.loads(done.stdout)))
        calm = Paced(*(statistics.median(column) for column in zip(*rounds, strict=True)))
        self.say(f"{shape.experiment}, half load: {calm.line()}")
        return calm


def measure_flag(bench: Bench, service: Server, shape: Shape) -> Comparison:
    """A flag evaluated by OFREP beside a plain decision of the same experiment and viewers."""
    lines = []
    for body in bodies(shape.experiment):
        context = body["context"] | {"targetingKey": body["unit"]}
        lines.append(json.dumps({"context": context}))
    file = bench.folder / f"{shape.experiment}-flag.txt"
    file.write_text("\n".join(lines) + "\n")
    script = bench.folder / f"{shape.experiment}-flag.lua"
    path = f"/ofrep/v1/evaluate/flags/{shape.experiment}"
    script.write_text(LUA.format(bodies=file).replace("/v1/decide", path))
    pair = (service, script), (service, bench.script(shape))
    return bench.compare("a flag of OFREP ÷ a decision", 64, *pair)


def measure(bench: Bench, policies: list[str]) -> dict[str, Any]:
    """All comparisons, and the p99 at half load."""
    base = Shape(policies[0])
    single, many = Shape(base.policy, actions=1), Shape(base.policy, actions=200)
    six, many_six = Shape(base.policy, slots=6), Shape(base.policy, actions=200, slots=6)
    shapes = [*map(Shape, policies), single, many, six, many_six]
    for shape in shapes:
        bench.add(shape)
    compared: list[Comparison] = []
    with ExitStack() as stack:
        service = stack.enter_context(bench.service("data"))
        echo = stack.enter_context(bench.echo())
        with bench.worker("data"):
            versions = teach(service.port, shapes)
        bench.say(f"versions served: {versions}")

        def beside_echo(shape: Shape, connections: int, note: str = "") -> Comparison:
            script = bench.script(shape)
            name = f"{shape.experiment} ÷ echo{note}"
            pair = (service, script), (echo, script)
            compared.append(bench.compare(name, connections, *pair))
            return compared[-1]

        calm = {}
        for policy in policies:
            for connections in CONNECTIONS:
                full = beside_echo(Shape(policy), connections)
            calm[policy] = bench.half_load(service, Shape(policy), _medians(full.first))
        for shape in (single, many, six, many_six):
            beside_echo(shape, 64)
        keyed = (service, bench.script(base, keyed=True)), (service, bench.script(base))
        compared.append(bench.compare("callers' ids ÷ own ids", 64, *keyed))
        compared.append(measure_flag(bench, service, base))
        with bench.worker("data"):
            time.sleep(5)  # it has begun by then
            beside_echo(base, 64, ", worker beside")
        two = stack.enter_context(bench.service("data-of-two", processes=2))
        script = bench.script(base)
        pair = (two, script), (service, script)
        compared.append(bench.compare("two processes ÷ one", 64, *pair))
    return {
        "comparisons": [comparison.summary() for comparison in compared],
        "half_load": {policy: load._asdict() for policy, load in calm.items()},
    }


def measure_log(bench: Bench, policy: str, url: str) -> dict[str, Any]:
    """A service over a shared log beside one over its own."""
    subprocess.run([sys.executable, "-m", "topbill", "migrate", "--log", url], check=True)
    shape = Shape(policy)
    bench.add(shape)
    own_ids, keyed = bench.script(shape), bench.script(shape, keyed=True)
    compared = []
    with ExitStack() as stack:
        shared = stack.enter_context(bench.service("shared", log=url))
        own = stack.enter_context(bench.service("own"))
        for server, data, log in ((shared, "shared", url), (own, "own", "")):
            with bench.worker(data, log):
                teach(server.port, [shape])
        for connections in CONNECTIONS:
            pair = (shared, own_ids), (own, own_ids)
            compared.append(bench.compare("shared log ÷ own", connections, *pair))
        pair = (shared, keyed), (own, keyed)
        compared.append(bench.compare("shared log ÷ own, callers' ids", 64, *pair))
        other = stack.enter_context(bench.service("shared", log=url, processes=2))
        pair = (other, own_ids), (shared, own_ids)
        compared.append(bench.compare("shared log, two processes ÷ one", 64, *pair))
    return {"comparisons": [comparison.summary() for comparison in compared]}


def machine() -> dict[str, Any]:
    """Where it is measured."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=3, help="of load in each round")
    parser.add_argument("--rest", type=float, default=1, help="seconds before each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--cores", default="0,1", help="of the servers, and of wrk; or none")
    parser.add_argument("--folder", help="where data lie; one in memory leaves the disk out")
    parser.add_argument("--log", help="URL of an empty log: measure it beside a service's own")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not installed; install your system's package wrk and run again")
    server_core, _, load_core = arguments.cores.partition(",")
    is_pinned = shutil.which("taskset") and arguments.cores != "none"
    out = sys.stderr if arguments.json else sys.stdout

    def say(line: str) -> None:
        print(line, file=out, flush=True)

    where = machine()
    say(json.dumps(where))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        bench = Bench(
            Path(name),
            seconds=arguments.seconds,
            rest=arguments.rest,
            rounds=arguments.rounds,
            cores=(int(server_core), int(load_core)) if is_pinned else None,
            say=say,
        )
        policies = arguments.policies.split(",")
        if arguments.log:
            results = measure_log(bench, policies[0], arguments.log)
        else:
            results = measure(bench, policies)
    say(f"load at the end: {os.getloadavg()[0]:.1f}")
    if arguments.json:
        print(json.dumps({"machine": where, **results}, indent=2))


if __name__ == "__main__":
    main()
