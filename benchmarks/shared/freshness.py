"""How soon what viewers did decides: from the moment at which a decision's rewards are complete
until eight replicas serve a policy version that has learned it.

    python -m benchmarks.shared.freshness [--seconds 40] [--replicas 8] [--rate 40] [--poll]

Starts a PostgreSQL, a worker, and replicas: a process each, that adopts versions as a service does,
and does nothing else. Decisions come at a rate, each with a reward. For every version it is noted
when the last decision that it has learned was old enough, when the version was written, and when
the last replica served it. Prints medians and 99th percentiles in seconds. With --poll nobody tells
replicas of versions, and they look for them at each of their steps.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.kill_processes import FORKS
from tests import postgres_server
from tests.conftest import ARTWORK, write

from topbill import spec
from topbill.domain.log_url import LOG_VARIABLE
from topbill.domain.records import RewardEvent
from topbill.engine import DecideRequest, Engine
from topbill.log import Log, migrate_log, open_log
from topbill.service.follower import Follower, follow
from topbill.service.settings import Settings

KEYS = [f"art-{number}" for number in range(4)]
DELAY = 1_000_000
"""µs after which a decision of theirs is learned."""
LONGEST = 120.0


class TimedFollower(Follower):
    """A follower that notes when it has adopted each version."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        super().__init__(settings, engine)
        self.served: dict[tuple[str, int], float] = {}

    def adopt(self) -> None:
        """As every follower."""
        super().adopt()
        for key in KEYS:
            self.served.setdefault((key, self._engine.find(key).version), time.time())


def replica(folder: str, polls: bool, ready: Any, end: Any, told: Any) -> None:
    """Adopt versions until `end`, then put when each was into `told`."""
    experiments = Path(folder) / "experiments"
    settings = Settings(experiments, Path(folder) / "data")
    if polls:
        Follower.listen = lambda *_: None  # type: ignore[method-assign]

    async def run() -> None:
        with closing(TimedFollower(settings, Engine(spec.load_all([experiments])))) as follower:
            follower.step()
            stopped = asyncio.Event()
            following = asyncio.create_task(follow(follower, stopped, _nothing))
            ready.release()
            await asyncio.to_thread(end.wait)
            stopped.set()
            await following
            told.put(follower.served)

    asyncio.run(run())


async def _nothing() -> None:
    """There are no viewers to forget."""


def decide(log: Log, engine: Engine, seconds: float, rate: float) -> None:
    """Decide and reward at a rate, for so long."""
    start, count = time.monotonic(), 0
    while (now := time.monotonic() - start) < seconds:
        decisions, events = [], []
        while count < now * rate:
            count += 1
            key, name = KEYS[count % len(KEYS)], f"d{count}"
            request = DecideRequest(experiment=key, unit=name, decision_id=name)
            decisions.append(engine.decide(request))
            events.append(RewardEvent(decision_id=name, event_id="e", event="play"))
        log.append(decisions, events)
        time.sleep(0.02)


def chain(log: Log, served: list[dict[tuple[str, int], float]]) -> dict[str, list[float]]:
    """Seconds of each link, of every version that all replicas served."""
    decided = {seq: decision.decided_at for seq, decision in log.read_decisions(0, 10**6)}
    links: dict[str, list[float]] = {"learned and written": [], "served by all": [], "both": []}
    for key in KEYS:
        for head in log.snapshot_heads(key):
            snapshot = log.snapshot(key, head.version)
            # Of versions that follow each other closely a replica adopts the last.
            times = [
                min(
                    (t for (k, v), t in one.items() if k == key and v >= head.version),
                    default=np.inf,
                )
                for one in served
            ]
            if snapshot is None or not np.isfinite(times).all():
                continue
            mature = (decided[head.watermark] + DELAY) / 1e6
            links["learned and written"].append(snapshot.at / 1e6 - mature)
            links["served by all"].append(max(times) - snapshot.at / 1e6)
            links["both"].append(max(times) - mature)
    return links


def run(folder: Path, options: argparse.Namespace, stack: ExitStack) -> None:
    """Everything in a folder."""
    url = stack.enter_context(postgres_server.running())
    migrate_log(url)
    os.environ[LOG_VARIABLE] = url
    for key in KEYS:
        text = ARTWORK.replace("experiment: art", f"experiment: {key}")
        write(folder / "experiments", text, f"{key}.yaml")
    engine = Engine(spec.load_all([folder / "experiments"]))
    ready, end, told = FORKS.Semaphore(0), FORKS.Event(), FORKS.Queue()
    FORKS.set_forkserver_preload(["topbill.service.follower"])
    replicas = []
    for _ in range(options.replicas):
        arguments = (str(folder), options.poll, ready, end, told)
        replicas.append(FORKS.Process(target=replica, args=arguments, daemon=True))
        replicas[-1].start()
    for _ in replicas:
        assert ready.acquire(timeout=LONGEST)
    line = [sys.executable, "-m", "topbill", "worker", "--experiments", f"{folder}/experiments"]
    worker = subprocess.Popen([*line, "--data", f"{folder}/data"])
    stack.callback(worker.wait)
    stack.callback(worker.terminate)
    with open_log(url) as log:
        while "publish" not in log.duties():
            time.sleep(0.1)
        decide(log, engine, options.seconds, options.rate)
        time.sleep(2.0)
        end.set()
        links = chain(log, [told.get(timeout=LONGEST) for _ in replicas])
    print(
        f"{len(links['both'])} versions, {options.replicas} replicas; load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'':22}{'median':>8}{'p99':>8}{'worst':>8}")
    for name, seconds in links.items():
        median, high, worst = np.percentile(seconds, [50, 99, 100])
        print(f"{name:22}{median:8.2f}{high:8.2f}{worst:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--rate", type=float, default=40.0)
    parser.add_argument("--poll", action="store_true")
    options = parser.parse_args()
    lacking = postgres_server.missing()
    if lacking:
        sys.exit(lacking)
    with tempfile.TemporaryDirectory(prefix="freshness-") as folder, ExitStack() as stack:
        run(Path(folder), options, stack)


if __name__ == "__main__":
    main()
