"""Worker and service are killed (kill -9) at any moment of a launch: it goes on where it was, no
unit changes its variant or is without one that it had before, and no step comes twice.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
import pytest

from topbill.cli.supervise import free_port
from topbill.launch.launch_state import state_of
from topbill.log import LOG_FILE, open_log
from topbill.log.orders import as_its_file, orders_of, under

from ..conftest import ARTWORK, write
from ..processes import COMMAND_LINE, start

pytestmark = pytest.mark.end_to_end

RAMP = ("5%", "20%", "40%", "60%", "80%", "100%")
LAUNCH = f"""
launch:
  ramp: [{", ".join(RAMP)}]
  hold: {{at_least: 500ms}}
  advance_if: {{sample_ratio: any, health: any}}
"""
TRAFFIC = [0.05, 0.2, 0.4, 0.6, 0.8, 1.0]
UNITS = [f"u{number}" for number in range(30)]
# A worker as it is, that publishes and looks as fast as it can.
WORKER = """
import sys
from pathlib import Path
from topbill.worker import launching, loop, publishing
publishing.PUBLISH_EVERY = 0.1
launching.LOOK_EVERY = 0.1
loop.run_worker(Path(sys.argv[1]), Path(sys.argv[2]))
"""
LONGEST = 120.0
"""Seconds within which what is awaited has to happen, on whatever machine."""


class Site:
    """A folder with an experiment that runs and is launched anew, its service and its worker, which
    are killed."""

    def __init__(self, root: Path) -> None:
        self.folder, self.data = write(root / "experiments"), root / "data"
        self.port = free_port("127.0.0.1", 0)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}")
        self.variants: dict[str, str] = {}
        self.processes: list[BaseProcess] = []
        self.title = 0
        self.decisions = 0

    def launch_anew(self) -> None:
        """Change the file: its launch begins from the first step."""
        self.title += 1
        write(self.folder, f"{ARTWORK}title: Launch {self.title}\n{LAUNCH}")

    def start(self) -> None:
        where = ["--experiments", self.folder, "--data", self.data, "--port", self.port]
        said = self.data.with_name("said")
        self.processes.append(start(COMMAND_LINE, "serve", *where, said=said))
        self.processes.append(start(WORKER, self.folder, self.data, said=said))
        self.wait(lambda: self.client.get("/healthz").status_code == 200)

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()
        self.processes.clear()

    def wait(self, happened: Any) -> None:
        end = time.monotonic() + LONGEST
        while time.monotonic() < end:
            try:
                if happened():
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        raise AssertionError("it did not happen")

    def ask(self) -> int:
        """Decide for each unit: whoever was in a variant once is in no other one. Returns how many
        are in one now."""
        taking_part = 0
        for unit in UNITS:
            self.decisions += 1
            body = {"experiment": "art", "unit": unit, "decision_id": f"d{self.decisions}"}
            answer = self.client.post("/v1/decide", json=body).json()
            variant = answer["variant"]
            if variant is not None:
                taking_part += 1
                assert self.variants.setdefault(unit, variant) == variant
        return taking_part

    def steps(self) -> list[float]:
        """The traffic of each step so far, after a look at whether each came once, in its order,
        and all are what the log's fold says."""
        if not (self.data / LOG_FILE).exists():
            return []
        with open_log(self.data / LOG_FILE) as log:
            if not log.revisions("art"):
                return []
            orders = orders_of(log, as_its_file(log, "art"))
        traffic = [order.traffic for order in orders if order.traffic is not None]
        assert [order.step for order in orders] == list(range(1, len(orders) + 1))
        assert traffic == TRAFFIC[: len(traffic)]
        assert state_of(orders).traffic == (traffic[-1] if traffic else None)
        return traffic

    def serves(self, steps: int) -> bool:
        """Whether the service runs what so many steps made of the file."""
        with open_log(self.data / LOG_FILE) as log:
            file = as_its_file(log, "art")
            orders = orders_of(log, file)
            expected = under(file, orders[-1]) if orders else file
        running = self.client.get("/v1/experiments").json()["experiments"]
        (own,) = [one for one in running if one["key"] == "art"]
        return len(orders) >= steps and bool(own["revision"] == expected.fingerprint)


@contextmanager
def site_in(root: Path) -> Iterator[Site]:
    site = Site(root)
    try:
        yield site
    finally:
        site.kill()
        site.client.close()


@pytest.mark.parametrize("kills", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_a_launch_goes_on_where_it_was_killed(kills: int, tmp_path: Path) -> None:
    chance = random.Random(17)
    struck_at: set[int] = set()
    known = 0
    with site_in(tmp_path) as site:
        for number in range(kills):
            site.start()
            # What was in the log before it was killed holds again.
            site.wait(lambda known=known: site.serves(known))
            # What ran before goes on for whoever the launch has not come to.
            assert site.ask() == len(UNITS)
            if number == 0:
                site.launch_anew()
            if number % 2:
                # Strike in the making of the next step, or soon after.
                site.wait(lambda known=known: len(site.steps()) > known)
            time.sleep(chance.uniform(0.0, 0.6))
            site.kill()
            steps = len(site.steps())
            assert steps >= known
            struck_at.add(steps)
            known = steps
            if steps == len(TRAFFIC):
                site.launch_anew()
                known = 0
        site.start()
        site.wait(lambda: len(site.steps()) == len(TRAFFIC))
        site.wait(lambda: site.serves(len(TRAFFIC)))
        assert site.ask() == len(UNITS)
    assert kills < 50 or struck_at >= set(range(1, len(TRAFFIC) + 1))
