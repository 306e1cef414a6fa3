"""What the client adds to a decide, and what a caller waits when the service dies.

    python -m benchmarks.client [--calls 3000] [--deadline 0.1]

Overhead: `Client.decide` beside a bare httpx post of the same body to the same live service, in
turn, one thread. Death: calls go on while the service is killed (SIGKILL) under them, and while it
is stopped (SIGSTOP: it accepts connections and never answers); printed are the share of fallbacks
and the longest waits. Queueing: what a reward costs its caller, with and without a spool.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import httpx
import msgspec

from topbill.cli.supervise import commands, free_port
from topbill_client import Client

ROOT = Path(__file__).parents[1]
CONTEXT = {"device": "tv", "hour": 20}


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A service on the example experiments, ready."""
    (folder / "experiments").mkdir(exist_ok=True)
    shutil.copy(ROOT / "experiments" / "home-artwork.yaml", folder / "experiments")
    command = commands(str(folder / "experiments"), str(folder / "data"), "127.0.0.1", port)[
        "service"
    ]
    process = subprocess.Popen([sys.executable, *command])
    for _ in range(300):
        try:
            httpx.get(f"http://127.0.0.1:{port}/healthz")
            break
        except httpx.TransportError:
            time.sleep(0.1)
    return process


def percentile(values: list[float], p: float) -> float:
    """The p-quantile, in ms."""
    return sorted(values)[min(len(values) - 1, int(p * len(values)))] * 1e3


def overhead(address: str, calls: int) -> None:
    """The two ways in turn, so that the machine's drift falls on both."""
    took: dict[str, list[float]] = {"bare httpx": [], "topbill_client": []}
    with httpx.Client(base_url=address) as bare, Client(address, deadline=5.0) as client:
        for i in range(calls + 200):
            start_ = time.perf_counter()
            body = {
                "experiment": "home-artwork",
                "unit": f"u{i}",
                "context": CONTEXT,
                "decision_id": f"bare-{i}",
            }
            bare.post("/v1/decide", content=msgspec.json.encode(body)).json()
            middle = time.perf_counter()
            choice = client.decide("home-artwork", unit=f"u{i}", context=CONTEXT)
            end = time.perf_counter()
            assert not choice.fallback, choice.problem
            if i >= 200:
                took["bare httpx"].append(middle - start_)
                took["topbill_client"].append(end - middle)
    for name, times in took.items():
        print(
            f"  {name:15} median {percentile(times, 0.5):6.3f} ms  p99 "
            f"{percentile(times, 0.99):6.2f} ms"
        )
    ratio = percentile(took["topbill_client"], 0.5) / percentile(took["bare httpx"], 0.5)
    print(f"  client's median over bare httpx: {ratio:.3f}")


def queueing(folder: Path, calls: int) -> None:
    """What queueing a reward takes, with and without a spool; nothing listens, so that nothing else
    happens.
    """
    took = {}
    for name, spool in (("memory", None), ("spool", folder / "spool")):
        client = Client("http://127.0.0.1:9", spool=spool)
        begin = time.perf_counter()
        for i in range(calls):
            client.reward(f"decision-{i}", "play")
        took[name] = (time.perf_counter() - begin) / calls * 1e6
        client.close(0.0)
    print(
        f"  in memory {took['memory']:.1f} µs, on disk as well {took['spool']:.1f} µs a reward",
        end="; ",
    )
    print(f"ratio {took['spool'] / took['memory']:.2f}")


def death(
    address: str, process: subprocess.Popen[bytes], how: signal.Signals, deadline: float, calls: int
) -> None:
    """Calls around the moment when the service is struck."""
    took: list[float] = []
    fallbacks = 0
    with Client(address, deadline=deadline) as client:
        for i in range(calls):
            if i == calls // 4:
                process.send_signal(how)
            begin = time.perf_counter()
            choice = client.decide(
                "home-artwork", unit=f"u{i}", context=CONTEXT, default=["close-up"]
            )
            took.append(time.perf_counter() - begin)
            fallbacks += choice.fallback
            time.sleep(0.002)
    print(
        f"  {how.name}: {calls:,} decides, {fallbacks / calls:.0%} fallbacks, nothing raised; "
        f"p99 {percentile(took, 0.99):.1f} ms, longest {max(took) * 1e3:.1f} ms (deadline "
        f"{deadline * 1e3:.0f} ms)"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=3_000)
    parser.add_argument("--deadline", type=float, default=0.1)
    arguments = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}"
    )
    print(f"httpx {version('httpx')}, topbill {version('topbill')}")
    with tempfile.TemporaryDirectory() as folder:
        port = free_port("127.0.0.1", 8950)
        address = f"http://127.0.0.1:{port}"
        process = start(Path(folder), port)
        try:
            print("overhead of a decide")
            overhead(address, arguments.calls)
            print("queueing a reward")
            queueing(Path(folder), 20_000)
            print("the service is struck at a quarter of the way")
            death(address, process, signal.SIGSTOP, arguments.deadline, 1_000)
            process.send_signal(signal.SIGCONT)
            time.sleep(1.5)
            death(address, process, signal.SIGKILL, arguments.deadline, 1_000)
        finally:
            process.kill()
            process.wait(10)


if __name__ == "__main__":
    main()
