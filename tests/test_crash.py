"""Acknowledged means durable: service and keeper are killed ten times under load, and nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from topbill import lake
from topbill.log.sqlite import SqliteLog
from topbill.supervise import commands, free_port

KILLS = 10


class Service:
    """Service and keeper as processes that can be killed."""

    def __init__(self, experiments: Path, data: Path) -> None:
        self.port = free_port("127.0.0.1", 0)
        self._commands = commands(str(experiments), str(data), "127.0.0.1", self.port)
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self._children = [subprocess.Popen([sys.executable, *c], process_group=0) for c in self._commands.values()]
        for _ in range(600):
            try:
                return self.call("GET", "/healthz")
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the service did not start")

    def stop(self, number: int) -> None:
        for child in self._children:
            child.send_signal(number)
        for child in self._children:
            child.wait(30)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            content = json.loads(answer.read())
            assert answer.status == 200, content
            return content
        finally:
            connection.close()


class Load(threading.Thread):
    """Decides and rewards as fast as it can, and remembers what was acknowledged."""

    def __init__(self, service: Service, name: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.service, self.label, self.stopped = service, name, stop
        self.decisions: dict[str, list[str]] = {}
        self.events: set[tuple[str, str]] = set()

    def run(self) -> None:
        number = 0
        while not self.stopped.is_set():
            number += 1
            decision_id = f"{self.label}-{number}"
            try:
                body = {"experiment": "art", "unit": f"u{number % 40}", "decision_id": decision_id}
                answer = self.service.call("POST", "/v1/decide", body)
                self.decisions[decision_id] = [item["action"] for item in answer["slate"]]
                if number % 3 == 0:
                    event = {"decision_id": decision_id, "event": "play", "event_id": "e"}
                    assert self.service.call("POST", "/v1/reward", event)["status"] in ("stored", "duplicate")
                    self.events.add((decision_id, "e"))
            except (OSError, HTTPException, ValueError):
                time.sleep(0.01)


@pytest.fixture
def service(folder: Path, tmp_path: Path) -> Iterator[Service]:
    service = Service(folder, tmp_path / "data")
    yield service
    service.stop(signal.SIGKILL)


def test_what_was_acknowledged_is_there_once_after_ten_kills(service: Service, folder: Path, tmp_path: Path) -> None:
    chance = random.Random(5)
    loads: list[Load] = []
    for kill in range(KILLS):
        service.start()
        stop = threading.Event()
        running = [Load(service, f"{kill}-{thread}", stop) for thread in range(4)]
        for load in running:
            load.start()
        time.sleep(0.4 + chance.random())
        service.stop(signal.SIGKILL)
        stop.set()
        for load in running:
            load.join(20)
        loads += running
    service.start()
    time.sleep(3.5)
    service.stop(signal.SIGTERM)

    decisions = {key: shown for load in loads for key, shown in load.decisions.items()}
    events = {key for load in loads for key in load.events}
    assert len(decisions) > 100
    log = SqliteLog(tmp_path / "data" / "log.sqlite")
    held = [decision for _, decision in log.read_decisions(0, 1_000_000)]
    stored = {d.decision_id: [p.action for p in d.slate] for d in held}
    assert len(stored) == len(held)
    assert {key: stored.get(key) for key in decisions} == decisions
    kept = [(event.decision_id, event.event_id) for _, event in log.read_events(0, 1_000_000)]
    assert len(set(kept)) == len(kept)
    assert events <= set(kept)
    assert log.version("art") > 0
    log.close()

    rebuilt = [sys.executable, "-m", "topbill", "rebuild", "art", "--experiments", str(folder)]
    done = subprocess.run([*rebuilt, "--data", str(tmp_path / "data")], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr

    published = lake.sql(tmp_path / "data" / lake.FACE, "SELECT decision_id FROM decisions").to_pylist()
    assert sorted(row["decision_id"] for row in published) == sorted(stored)
    joined = lake.sql(tmp_path / "data" / lake.FACE, "SELECT decision_id, event_id FROM rewards").to_pylist()
    assert sorted((row["decision_id"], row["event_id"]) for row in joined) == sorted(kept)
