"""For how long does anything hold up the event loop of a service over a log in PostgreSQL?

    python -m benchmarks.shared.loop [--seconds 10] [--connections 32] [--pause 150]

Two replicas over one log. One decides, with ids of the callers' alone; to the other go the rewards
of what the first one has decided, so that it has to look up each. Both run on asyncio's own loop,
each turn of which is watched, from when it has something to do until it waits again: how long that
was, for how much of it the processor worked, and for how much of it somebody else had the
processor (`/proc/thread-self/schedstat`). What is left, the loop waited: for the disk, the network,
a lock.

Prints for each replica the longest turns, and how many were longer than 5 ms, on the wall and
without what others had of the processor; and the longest wait in any of them. Once as fast as the
callers can, where a turn has as many requests as there are connections, and once with pauses
between the requests of a connection. Exits 1 where the loop waited for more than 5 ms, where a
reward was not stored, or where no turn was watched.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvicorn.config
from benchmarks.service import LUA, PAUSE, Shape, bodies, running
from tests import postgres_server

from topbill.cli.supervise import free_port
from topbill.log import migrate_log, open_log
from topbill.service.keys import Keys
from topbill.service.run import serve

LONGEST = 5e-3
"""Seconds for which nothing may hold up the loop."""
DECIDE = """
local made = 0
request = function()
  i = i % #bodies + 1
  made = made + 1
  local body = bodies[i]:sub(1, -2) .. ', "decision_id": "NAME-' .. made .. '"}'
  return wrk.format("POST", "/v1/decide", {["content-type"] = "application/json"}, body)
end
"""
_REPLICA = "import sys; from benchmarks.shared.loop import replica; replica(*sys.argv[1:])"
REWARD = """
local made = 0
request = function()
  made = made + 1
  local id = "NAME-" .. made
  local body = '{"decision_id": "' .. id .. '", "event": "play", "event_id": "' .. id .. '"}'
  return wrk.format("POST", "/v1/reward", {["content-type"] = "application/json"}, body)
end
"""


class Turn(NamedTuple):
    """A turn of the loop, in seconds."""

    began: float
    """By the machine's monotonic clock."""
    wall: float
    worked: float
    displaced: float
    """While it could have worked, and others did."""

    @property
    def own(self) -> float:
        """As it had been if nobody else had taken the processor."""
        return max(self.worked, self.wall - self.displaced)

    @property
    def waited(self) -> float:
        """Neither worked, nor could have."""
        return max(0.0, self.wall - self.worked - self.displaced)


class WatchedSelector(selectors.EpollSelector):
    """Notes every turn of the loop that it is of."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[Turn] = []
        self._threads: dict[str, int] = {}
        """The open `schedstat` of each thread of the process."""
        self._began: tuple[float, int, int] | None = None

    def select(self, timeout: float | None = None) -> Any:
        """As every selector: until there is something to do."""
        if self._began is not None:
            began, worked, displaced = self._began
            wall = time.monotonic() - began
            now_worked, now_displaced = self._times()
            seconds = (now_worked - worked) / 1e9, (now_displaced - displaced) / 1e9
            self.turns.append(Turn(began, wall, *seconds))
        ready = super().select(timeout)
        # Before the clock, as above after it: what happens in between is the measuring's own.
        times = self._times()
        self._began = (time.monotonic(), *times)
        return ready

    def _times(self) -> tuple[int, int]:
        """Nanoseconds for which this thread has worked, and for which any of the process waited to
        be given the processor.
        """
        own = str(threading.get_native_id())
        worked = displaced = 0
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError):  # it has just ended
                if thread not in self._threads:
                    place = f"/proc/self/task/{thread}/schedstat"
                    self._threads[thread] = os.open(place, os.O_RDONLY)
                times = os.pread(self._threads[thread], 100, 0).split()
                displaced += int(times[1])
                worked += int(times[0]) if thread == own else 0
        return worked, displaced


_SELECTOR = WatchedSelector()


def watched_loops(*, use_subprocess: bool) -> Callable[[], asyncio.AbstractEventLoop]:  # noqa: ARG001 (uvicorn's)
    """Makes the loop that is watched."""
    return lambda: asyncio.SelectorEventLoop(_SELECTOR)


def replica(port: str, folder: str, told: str) -> None:
    """Serve until stopped, and then write the turns."""
    uvicorn.config.LOOP_FACTORIES["uvloop"] = "benchmarks.shared.loop:watched_loops"
    # uvicorn sends itself the signal once more when it has ended.
    signal.signal(signal.SIGTERM, lambda *_: None)
    experiments, data = Path(folder) / "experiments", Path(folder) / "data"
    serve(experiments, data, host="127.0.0.1", port=int(port), processes=1, keys=Keys())
    Path(told).write_text(json.dumps(_SELECTOR.turns))


@contextmanager
def replicas(folder: Path, names: list[str], url: str) -> Iterator[list[int]]:
    """One of each name, at the ports that are given; when they have ended, their turns are told."""
    ports = [free_port("127.0.0.1", 0) for _ in names]
    with ExitStack() as stack:
        for name, port in zip(names, ports, strict=True):
            program = (
                "import sys; from benchmarks.shared.loop import replica; replica(*sys.argv[1:])"
            )
            line = [sys.executable, "-c", program, str(port), str(folder)]
            line.append(str(folder / f"{name}.json"))
            stack.enter_context(running(line, port, TOPBILL_LOG=url))
        yield ports


def load(port: int, script: Path, connections: int, seconds: float) -> tuple[int, float]:
    """How many requests a replica has answered, all of them with a 200, and how many a second."""
    return _answered(_wrk(port, script, connections, seconds))


def _wrk(port: int, script: Path, connections: int, seconds: float) -> subprocess.Popen[str]:
    line = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "20s"]
    line += ["-s", str(script), f"http://127.0.0.1:{port}"]
    return subprocess.Popen(line, stdout=subprocess.PIPE, text=True)


def _answered(process: subprocess.Popen[str]) -> tuple[int, float]:
    said, _ = process.communicate()
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(said)
    requests = re.search(r"(\d+) requests in", said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert requests is not None
    assert rate is not None
    return int(requests[1]), float(rate[1])


def measure(folder: Path, options: argparse.Namespace, url: str, longest_pause: int) -> list[str]:
    """Load both for a while, and print how their loops did; what is wrong."""
    plain = LUA.format(bodies=folder / "bodies.txt")
    pause = PAUSE.format(longest=longest_pause) if longest_pause else ""
    wrong = []
    with open_log(url, create=False) as log:
        before = len(log.read_events(0, 10**7))
    with replicas(folder, ["decides", "takes rewards"], url) as (decides, takes):
        name = f"{longest_pause}-first"
        (folder / "first.lua").write_text(plain + DECIDE.replace("NAME", name))
        (folder / "reward.lua").write_text(REWARD.replace("NAME", name) + pause)
        then = plain + DECIDE.replace("NAME", f"{longest_pause}-then") + pause
        (folder / "then.lua").write_text(then)
        load(decides, folder / "first.lua", options.connections, options.seconds * 1.5)
        began = time.monotonic()
        both = [
            _wrk(port, folder / script, options.connections, options.seconds)
            for port, script in ((decides, "then.lua"), (takes, "reward.lua"))
        ]
        (_, decide_rate), (rewards, reward_rate) = map(_answered, both)
        ended = time.monotonic()
    how = f"pauses of up to {longest_pause} ms" if longest_pause else "as fast as they can"
    print(
        f"{how}: {decide_rate:,.0f} decisions/s at one, {reward_rate:,.0f} rewards/s at the other; "
        f"load {os.getloadavg()[0]:.1f}"
    )
    with open_log(url, create=False) as log:
        stored = len(log.read_events(0, 10**7)) - before
    if stored < rewards:
        wrong.append(f"{stored:,} of {rewards:,} rewards were stored")
    for name in ("decides", "takes rewards"):
        turns = [Turn(*each) for each in json.loads((folder / f"{name}.json").read_text())]
        # Not those of the start and the end, in which files are read and connections closed.
        wrong += _tell(name, [turn for turn in turns if began < turn.began < ended])
    return wrong


def _tell(name: str, turns: list[Turn]) -> list[str]:
    if not turns:
        return [f"{name}: no turn was watched"]
    wall, own = (np.array([getattr(turn, of) for turn in turns]) * 1e3 for of in ("wall", "own"))
    waited = max(turn.waited for turn in turns)
    over = [int((each > LONGEST * 1e3).sum()) for each in (wall, own)]
    print(
        f"  {name:14} {len(turns):>8,} turns, p99.9 {np.percentile(wall, 99.9):.1f} ms, longest "
        f"{wall.max():.1f} ms, {over[0]:,} over 5 ms; alone on the processor p99.9 "
        f"{np.percentile(own, 99.9):.1f} ms, longest {own.max():.1f} ms, {over[1]:,} over 5 ms; "
        f"longest wait {waited * 1e3:.1f} ms"
    )
    return [f"{name}: the loop waited for {waited * 1e3:.1f} ms"] if waited > LONGEST else []


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--pause", type=int, default=150, help="ms between two of a connection")
    options = parser.parse_args()
    for lacking in filter(None, (postgres_server.missing(), "" if shutil.which("wrk") else "wrk")):
        sys.exit(f"missing: {lacking}")
    shape = Shape("thompson")
    wrong = []
    with tempfile.TemporaryDirectory(prefix="loop-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "experiments").mkdir()
        (folder / "experiments" / "e.yaml").write_text(shape.text())
        lines = [json.dumps(body) for body in bodies(shape.experiment)]
        (folder / "bodies.txt").write_text("\n".join(lines) + "\n")
        url = stack.enter_context(postgres_server.running())
        migrate_log(url)
        for pause in (0, options.pause):
            wrong += measure(folder, options, url, pause)
    for each in wrong:
        print(f"error: {each}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
