"""Mixed load at half of what the machine can: does anything grow that should not?

    python -m benchmarks.soak [--run-in 35] [--minutes 30] [--folder DIR [--resume]]

A service and a worker run on the examples. Decides with ids of the caller's, their rewards (each
twice), events of units and whole pages come at half of the rate that they reach without a pause:
first for a run-in, in which what is bounded fills to its bounds and the first files of the lake
come to their end, then for as long as is asked for. Printed at even times: resident memory and open
files of each process, files in the lake and how many of them are live (the others are deleted half
an hour after they were merged), bytes of log and lake a decision, and how many requests were shed;
at the end, how much each grew after the run-in. `--resume` goes on with what an earlier run left in
its folder: an hour old, a lake has reached all its bounds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from benchmarks.service import PAUSE, running, wrk, wrk_with_others
from deltalake import DeltaTable

from topbill import lake
from topbill.cli.supervise import free_port

EXAMPLES = Path(__file__).parents[1] / "experiments"
CONNECTIONS = 32
LINES = 20
MIX = """
local start = os.time() .. "-" .. math.random(1000000000)
local made = 0
local json = {["content-type"] = "application/json"}
request = function()
  made = made + 1
  local turn = made % 20
  local unit = "u" .. math.random(20000)
  if turn == 0 then
    local body = string.format('{"page": "home", "profile": "%s"}', unit)
    return wrk.format("POST", "/v1/page", json, body)
  elseif turn == 1 then
    local body = string.format(
      '{"unit": "%s", "unit_type": "profile_id", "event": "session_start", "event_id": "%s-%d"}',
      unit, start, made)
    return wrk.format("POST", "/v1/event", json, body)
  elseif turn % 4 == 2 or turn % 4 == 3 then
    -- Of the decision before it; the second of the two is the first once more.
    local body = string.format(
      '{"decision_id": "%s-%d", "event": "play", "event_id": "e"}', start, made - turn % 4 + 1)
    return wrk.format("POST", "/v1/reward", json, body)
  end
  local body = string.format(
    '{"experiment": "home-artwork", "unit": "%s", "context": {"device": "tv"}, '
    .. '"decision_id": "%s-%d"}', unit, start, made)
  return wrk.format("POST", "/v1/decide", json, body)
end
"""


@contextmanager
def _worker(options: list[str]) -> Iterator[int]:
    line = [sys.executable, "-m", "topbill", "worker", *options]
    with subprocess.Popen(line) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


def resident(pid: int) -> float:
    """Resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def open_files(pid: int) -> int:
    """How many files a process holds open; connections come and go, and are none."""
    held = 0
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            held += not os.readlink(handle).startswith("socket:")
    return held


def decisions(data: Path) -> int:
    """How many decisions are published."""
    with closing(lake.connect(data / lake.DATABASE)) as connection:
        return int(connection.sql("SELECT count(*) FROM decisions").fetchall()[0][0])


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; one that goes meanwhile has none."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def sample(processes: dict[str, int], data: Path) -> dict[str, float]:
    """Everything that is watched, now."""
    found: dict[str, float] = {}
    for name, pid in processes.items():
        found[f"{name} MB"] = resident(pid)
        found[f"{name} files"] = open_files(pid)
    count = decisions(data)
    found["lake files"] = sum(1 for path in (data / "lake").rglob("*") if path.is_file())
    tables = ("decisions", "rewards", "events")
    found["live"] = sum(len(DeltaTable(data / "lake" / name).file_uris()) for name in tables)
    found["lake B/decision"] = size_of(data / "lake") / count
    log = sum(path.stat().st_size for path in data.glob("log.*"))
    found["log B/decision"] = log / count
    found["decisions"] = count
    return found


def listening(port: int) -> int:
    """The process that listens on a port of loopback."""
    inodes = {
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
    }
    for handle in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(handle).removeprefix("socket:[").rstrip("]") in inodes:
                return int(handle.parts[2])
        except OSError:
            continue
    raise SystemExit(f"nobody listens on port {port}")


def soak(folder: Path, run_in: float, minutes: float) -> None:
    """Run everything in `folder` and print what is seen; times in minutes."""
    data, port = folder / "data", free_port("127.0.0.1", 0)
    options = ["--experiments", str(EXAMPLES), "--data", str(data)]
    serve = [sys.executable, "-m", "topbill", "serve", *options, "--port", str(port)]
    script = folder / "mix.lua"
    script.write_text(MIX)
    with running(serve, port), _worker(options) as worker:
        most, _ = wrk(port, CONNECTIONS, 10, script)
        # Each connection sends one request, waits for its answer, and then so long on average.
        pause = CONNECTIONS / (most / 2) - CONNECTIONS / most
        script.write_text(MIX + PAUSE.format(longest=max(1, round(2_000 * pause))))
        print(f"{most:,.0f} requests a second at most, {CONNECTIONS} connections")
        time.sleep(5)
        processes = {"service": listening(port), "worker": worker}
        print("run-in:")
        watch(port, processes, data, script, run_in)
        print("after it:")
        samples = watch(port, processes, data, script, minutes)
    print("last third against the first third, means:")
    third = max(1, len(samples) // 3)
    for name in samples[0]:
        first = sum(s[name] for s in samples[:third]) / third
        last = sum(s[name] for s in samples[-third:]) / third
        change = f" ({last / first - 1:+.1%})" if first else ""
        print(f"  {name}: {first:,.0f} → {last:,.0f}{change}")


def watch(
    port: int, processes: dict[str, int], data: Path, script: Path, minutes: float
) -> list[dict[str, float]]:
    """Samples at even times under the load, printed as they are taken."""
    samples: list[dict[str, float]] = []
    for _ in range(LINES):
        rate, p99, refused = wrk_with_others(port, CONNECTIONS, minutes * 60 / LINES, script)
        load = {"requests/s": rate, "p99 ms": p99, "refused": float(refused)}
        samples.append(sample(processes, data) | load)
        if len(samples) == 1:
            print("  ".join(samples[0]))
        print("  ".join(f"{v:>{len(k)},.0f}" for k, v in samples[-1].items()), flush=True)
    return samples


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run-in", type=float, default=35.0)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not installed; install your system's package wrk and run again")
    if arguments.folder is not None:
        if not arguments.resume:
            shutil.rmtree(arguments.folder, ignore_errors=True)
        arguments.folder.mkdir(parents=True, exist_ok=True)
        soak(arguments.folder, arguments.run_in, arguments.minutes)
        return
    with tempfile.TemporaryDirectory() as name:
        soak(Path(name), arguments.run_in, arguments.minutes)


if __name__ == "__main__":
    main()
