"""Two API processes and two workers over one log in PostgreSQL, any of which may be killed: nothing
that was acknowledged is lost, nothing is there twice, and what was learned can be verified.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests import postgres_server
from tests.conftest import ARTWORK, write

from topbill import lake
from topbill.domain.errors import LogError
from topbill.domain.log_url import LOG_VARIABLE
from topbill.log import Log, migrate_log

LONGEST = 60.0
"""Seconds to wait for anything, on a machine that is busy."""


class Site:
    """Processes over one log and one data folder."""

    def __init__(self, folder: Path) -> None:
        self.experiments = write(folder / "experiments", ARTWORK)
        self.data = folder / "data"
        self._said = folder / "said"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ports = {name: _free_port() for name in ("serve-1", "serve-2")}

    def start(self, name: str) -> None:
        where = ["--experiments", str(self.experiments), "--data", str(self.data)]
        port = ["--port", str(self.ports[name])] if name in self.ports else []
        line = [sys.executable, "-m", "topbill", name.partition("-")[0], *where, *port]
        with self._said.open("ab") as said:
            self.processes[name] = subprocess.Popen(line, stdout=said, stderr=said)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(LONGEST)

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def wait_until_ready(self, name: str) -> None:
        def is_ready() -> bool:
            with suppress(httpx.TransportError):
                return httpx.get(f"{self.address(name)}/readyz").status_code == 200
            return False

        wait_for(is_ready, f"{name}: {self._said.read_text()}")

    def said(self) -> str:
        return self._said.read_text()


class Viewers:
    """Decide at one process, reward at the other; ask again with the same id until there is an
    answer. `decisions` and `rewards` are what was acknowledged.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(4)]
        self.decisions: set[str] = set()
        self.rewards: set[tuple[str, str]] = set()
        self.refused = 0
        self.wrong: list[str] = []

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        names = list(self._site.ports)
        count = 0
        with httpx.Client(timeout=30.0) as client:
            while not self._stop.is_set():
                count += 1
                decided_by, rewarded_by = chance.sample(names, 2)
                unit = f"u{chance.randrange(500)}"
                body = {"experiment": "art", "unit": unit, "decision_id": f"d{number}-{count}"}
                made = self._sure(client, "/v1/decide", body, decided_by)
                self.decisions.add(made["decision_id"])
                if chance.random() < 0.5:
                    ids = {"decision_id": made["decision_id"], "event_id": "play"}
                    told = self._sure(client, "/v1/reward", {**ids, "event": "play"}, rewarded_by)
                    if told["status"] not in ("stored", "duplicate"):
                        self.wrong.append(str(told))
                    self.rewards.add((ids["decision_id"], ids["event_id"]))

    def _sure(self, client: httpx.Client, path: str, body: dict[str, Any], name: str) -> Any:
        """What is answered in the end, by whichever process is there."""
        while True:
            with suppress(httpx.TransportError):
                answer = client.post(f"{self._site.address(name)}{path}", json=body)
                if answer.status_code == 200:
                    return answer.json()
                if answer.status_code != 503 or "retry-after" not in answer.headers:
                    self.wrong.append(answer.text)
            self.refused += 1
            time.sleep(0.05)
            name = "serve-1" if name == "serve-2" else "serve-2"


def wait_for(condition: Any, what: str) -> float:
    """Seconds until it holds."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + LONGEST, what
        time.sleep(0.02)
    return time.monotonic() - start


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class StartedAgain:
    """A server that is killed, and comes back by itself."""

    def __init__(self, stack: ExitStack) -> None:
        self._server = stack.enter_context(postgres_server.cluster(fsync="on"))
        self.url = self._server.url

    def kill(self) -> None:
        self._server.kill()

    def come_back(self) -> None:
        self._server.start()


@pytest.fixture(params=[StartedAgain, postgres_server.FailoverPair])
def server(request: pytest.FixtureRequest) -> Iterator[StartedAgain | postgres_server.FailoverPair]:
    """A server of its own, which syncs what it acknowledges, and its end."""
    lacking = postgres_server.missing()
    if lacking:
        pytest.skip(lacking)
    with ExitStack() as stack:
        yield request.param(stack)


@pytest.fixture
def url(
    server: StartedAgain | postgres_server.FailoverPair, monkeypatch: pytest.MonkeyPatch
) -> str:
    migrate_log(server.url)
    monkeypatch.setenv(LOG_VARIABLE, server.url)
    return server.url


@pytest.fixture
def site(url: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    for process in site.processes.values():
        process.kill()
        process.wait()


def beats_after(log: Log, moment: int) -> bool:
    beat = log.heartbeat()
    return beat is not None and beat.at > moment


def has_time(log: Log) -> bool:
    """Whether the log can be asked."""
    with suppress(LogError):
        return log.now() > 0
    return False


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_whichever_process_is_killed(
    site: Site, log: Log, server: StartedAgain | postgres_server.FailoverPair
) -> None:
    for name in ("serve-1", "serve-2", "worker-1"):
        site.start(name)
    for name in site.ports:
        site.wait_until_ready(name)
    wait_for(lambda: log.heartbeat() is not None, site.said())
    site.start("worker-2")
    wait_for(lambda: "standing by" in site.said(), site.said())
    viewers = Viewers(site)
    viewers.start()

    wait_for(lambda: log.version("art") > 0, site.said())
    site.kill("serve-1")
    time.sleep(1.0)
    site.start("serve-1")
    site.wait_until_ready("serve-1")

    killed = log.now()
    site.kill("worker-1")
    taken_over = wait_for(lambda: beats_after(log, killed + 300_000), site.said())
    site.start("worker-1")
    version = log.version("art")
    wait_for(lambda: log.version("art") > version, site.said())

    acknowledged = len(viewers.decisions)
    server.kill()
    time.sleep(1.0)
    server.come_back()
    wait_for(lambda: has_time(log), site.said())
    back = log.now()
    paused = wait_for(lambda: len(viewers.decisions) > acknowledged + 20, site.said())
    wait_for(lambda: beats_after(log, back + 1_000_000), site.said())
    time.sleep(2.0)
    viewers.stop()

    assert viewers.wrong == []
    decisions = log.read_decisions(0, 10**6)
    names = [decision.decision_id for _, decision in decisions]
    assert len(names) == len(set(names))
    assert viewers.decisions == set(names), "each was asked for until it was acknowledged"
    events = [(event.decision_id, event.event_id) for _, event in log.read_events(0, 10**6)]
    assert len(events) == len(set(events))
    assert viewers.rewards == set(events)
    assert len(names) > 200

    last = decisions[-1][1].decided_at
    wait_for(lambda: (log.heartbeat() or (0, 0))[1] > last, site.said())
    site.stop()
    record = lake.sql(site.data / lake.DATABASE, "SELECT decision_id FROM decisions").to_pylist()
    assert sorted(row["decision_id"] for row in record) == sorted(names)
    verified = subprocess.run(
        [sys.executable, "-m", "topbill", "verify", "art", "--data", str(site.data)],
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    print(
        f"{len(names):,} decisions, {len(events):,} rewards, taken over in {taken_over:.1f} s, "
        f"decided again {paused:.1f} s after the server was back"
    )
