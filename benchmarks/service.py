"""A full durable decision beside an endpoint that only echoes: requests per second over HTTP, in
one run.

    make bench              (or: python -m benchmarks.service [--seconds 5] [--rounds 3])

The echo is FastAPI + pydantic with the same bodies; both run in one uvicorn process with httptools
and uvloop, and wrk loads them in turn (A B A B), so that the machine's drift falls on both. The
decision has 12 actions, is made by a policy that has learned, and is answered only when its commit
is on disk.
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
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np

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
experiment: bench
surface: artwork
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
POLICIES = ("thompson", "vw", "linucb, min_probability: 2%", "uniform")


def bodies(count: int = 2_000) -> list[dict[str, Any]]:
    """Requests of different viewers."""
    rng = np.random.default_rng(1)
    keys = ("action", "comedy", "crime", "drama", "romance", "scifi")
    return [
        {
            "experiment": "bench",
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
def running(command: list[str], port: int, **environment: str) -> Iterator[None]:
    """A server process, ready before and ended after."""
    process = subprocess.Popen(command, env=os.environ | environment)
    try:
        for _ in range(1_200):
            try:
                urlopen(Request(f"http://127.0.0.1:{port}/openapi.json"), timeout=1).read()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise SystemExit(f"nothing answers on port {port} after two minutes: {command}")
        yield
    finally:
        process.terminate()
        process.wait(20)


def post(port: int, path: str, body: Any) -> Any:
    """One JSON request."""
    json_body = {"content-type": "application/json"}
    request = Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), json_body)
    return json.loads(urlopen(request, timeout=10).read())  # noqa: S310


def teach(port: int, rounds: int = 4) -> None:
    """Let the policy learn from real decisions and rewards, until a version is served."""
    requests = bodies()
    rng = np.random.default_rng(2)
    for _ in range(rounds):
        for start in range(0, len(requests), 500):
            answers = post(port, "/v1/decide/batch", {"decisions": requests[start : start + 500]})[
                "decisions"
            ]
            clicks = [
                a
                for a in answers
                if rng.random() < 0.02 + 0.08 * (a["slate"][0]["action"] in ("a1", "a5"))
            ]
            rewards = [{"decision_id": a["decision_id"], "event": "play"} for a in clicks]
            if rewards:
                post(port, "/v1/reward/batch", {"rewards": rewards})
    time.sleep(4)
    answer = post(port, "/v1/decide", requests[0])
    print(f"  policy {answer['policy']} v{answer['policy_version']}", flush=True)


def wrk(port: int, connections: int, seconds: float, script: Path) -> tuple[float, float]:
    """Requests per second and p99 in ms. Fails when any answer is not 2xx."""
    rate, p99, others = wrk_with_others(port, connections, seconds, script)
    if others:
        raise SystemExit(f"{others} answers were not 2xx")
    return rate, p99


def wrk_with_others(
    port: int, connections: int, seconds: float, script: Path
) -> tuple[float, float, int]:
    """Requests per second, p99 in ms, and how many answers were not 2xx. Fails where a connection
    does."""
    done = subprocess.run(
        [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds:.0f}s",
            "--latency",
            "-s",
            str(script),
            f"http://127.0.0.1:{port}",
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    if "Socket errors" in done.stdout:
        raise SystemExit(done.stdout)
    others = re.search(r"Non-2xx or 3xx responses:\s+(\d+)", done.stdout)
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])  # type: ignore[index]
    value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", done.stdout).groups()  # type: ignore[union-attr]
    p99 = float(value) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]
    return rate, p99, int(others[1]) if others else 0


def measure(policy: str, folder: Path, seconds: float, rounds: int) -> None:
    """Print the ratio to the echo for one policy."""
    from topbill import __version__

    experiments, data = folder / "experiments", folder / "data"
    shutil.rmtree(data, ignore_errors=True)
    experiments.mkdir(exist_ok=True)
    actions = "\n".join(
        f"  - {{id: a{i}, features: {{tone: {('warm', 'cold', 'dark')[i % 3]}}}, payload: "
        f"{{image: a{i}.svg}}}}"
        for i in range(12)
    )
    (experiments / "bench.yaml").write_text(SPEC.format(actions=actions, policy=policy))
    options = ["--experiments", str(experiments), "--data", str(data)]
    topbill = [sys.executable, "-m", "topbill"]
    uvicorn = [
        sys.executable,
        "-m",
        "uvicorn",
        "echo:app",
        "--log-level",
        "warning",
        "--no-access-log",
    ]
    script = folder / "load.lua"
    print(f"\n{policy}: topbill {__version__}", flush=True)
    with running([*topbill, "serve", *options, "--port", "8651"], 8651):
        worker = subprocess.Popen([*topbill, "worker", *options])
        teach(8651)
        worker.terminate()
        worker.wait(20)
        with running(
            [
                *uvicorn,
                "--app-dir",
                str(folder),
                "--port",
                "8652",
                "--loop",
                "uvloop",
                "--http",
                "httptools",
            ],
            8652,
        ):
            for connections in (16, 64):
                pairs = []
                for _ in range(rounds):
                    ours, ours_p99 = wrk(8651, connections, seconds, script)
                    echo, echo_p99 = wrk(8652, connections, seconds, script)
                    pairs.append((ours, echo, ours_p99, echo_p99))
                ratio = statistics.median(a / b for a, b, _, _ in pairs)
                spread = sorted(a / b for a, b, _, _ in pairs)
                medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
                print(
                    f"  {connections:3d} connections: decide {medians[0]:7.0f}/s p99 "
                    f"{medians[2]:6.2f} ms   "
                    f"echo {medians[1]:7.0f}/s p99 {medians[3]:6.2f} ms   "
                    f"ratio {ratio:.2f} ({spread[0]:.2f} to {spread[-1]:.2f})",
                    flush=True,
                )
            keyed = folder / "keyed.lua"
            keyed.write_text(script.read_text() + KEYED)
            rates = [
                wrk(8651, 64, seconds, keyed)[0] / wrk(8652, 64, seconds, script)[0]
                for _ in range(rounds)
            ]
            print(
                f"   64 connections, ids of the caller's: ratio {statistics.median(rates):.2f}",
                flush=True,
            )
            half = folder / "half.lua"
            pause = (
                2 * (64 / (medians[0] / 2) - medians[2] / 4e3) * 1e3
            )  # mean pause: the cycle less a typical answer
            half.write_text(script.read_text() + PAUSE.format(longest=max(1, round(pause))))
            calm = sorted(
                (wrk(8651, 64, seconds, half) for _ in range(rounds)), key=lambda found: found[1]
            )
            rate, p99 = calm[len(calm) // 2]
            print(
                f"   64 connections, at {rate:.0f}/s: decide p99 {p99:.2f} ms (aim at half load: "
                f"10)",
                flush=True,
            )
    print(f"  decisions on disk afterwards: {_stored(data):,}")


def _stored(data: Path) -> int:
    import sqlite3

    with closing(sqlite3.connect(data / "log.sqlite")) as log:
        return int(log.execute("SELECT count(*) FROM decisions").fetchone()[0])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--policies", default=",".join(POLICIES[:2]))
    arguments = parser.parse_args()
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not installed; install your system's package wrk and run again")
    packages = (
        "fastapi",
        "pydantic",
        "uvicorn",
        "httptools",
        "uvloop",
        "msgspec",
        "numpy",
        "vowpal-wabbit-next",
    )
    machine = f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}"
    print(f"Python {platform.python_version()}, {machine}")
    print(", ".join(f"{name} {version(name)}" for name in packages))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "echo.py").write_text(ECHO)
        lines = folder / "bodies.txt"
        lines.write_text("\n".join(json.dumps(body) for body in bodies()) + "\n")
        (folder / "load.lua").write_text(LUA.format(bodies=lines))
        for policy in arguments.policies.split(";" if ";" in arguments.policies else ","):
            measure(policy, folder, arguments.seconds, arguments.rounds)


if __name__ == "__main__":
    main()
