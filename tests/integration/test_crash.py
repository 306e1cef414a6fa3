"""Acknowledged means durable: service and worker are killed under load, again and again, and
nothing is lost or doubled. The long form is `python -m benchmarks.kill`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
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
from topbill.cli.supervise import commands, free_port
from topbill.log import open_log

EXAMPLES = Path(__file__).parents[2] / "experiments"
often = pytest.mark.parametrize("kills", [4, pytest.param(10, marks=pytest.mark.slow)])


class Service:
    """Service and worker as processes that can be killed."""

    def __init__(self, experiments: Path, data: Path) -> None:
        self.port = free_port("127.0.0.1", 0)
        self._commands = commands(str(experiments), str(data), "127.0.0.1", self.port)
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self._children = [
            subprocess.Popen([sys.executable, *c], process_group=0) for c in self._commands.values()
        ]
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
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {"content-type": "application/json"})
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
        self.unit_events: set[tuple[str, str]] = set()

    def run(self) -> None:
        number = 0
        while not self.stopped.is_set():
            number += 1
            try:
                self.ask(f"{self.label}-{number}", number)
            except (OSError, HTTPException, ValueError):
                time.sleep(0.01)

    def ask(self, decision_id: str, number: int) -> None:
        """Decide, and reward every third."""
        body = {"experiment": "art", "unit": f"u{number % 40}", "decision_id": decision_id}
        answer = self.service.call("POST", "/v1/decide", body)
        self.decisions[decision_id] = [item["action"] for item in answer["slate"]]
        if number % 3 == 0:
            self.reward(decision_id)
            self.event(f"u{number % 40}", decision_id)

    def event(self, unit: str, event_id: str) -> None:
        event = {"unit": unit, "event": "session_start", "event_id": event_id}
        assert self.service.call("POST", "/v1/event", event)["status"] in ("stored", "duplicate")
        self.unit_events.add((unit, event_id))

    def reward(self, decision_id: str, **more: str) -> None:
        event = {"decision_id": decision_id, "event": "play", "event_id": "e", **more}
        assert self.service.call("POST", "/v1/reward", event)["status"] in ("stored", "duplicate")
        self.events.add((decision_id, "e"))


class Pages(Load):
    """The same with whole pages; every third has its first title played."""

    def ask(self, decision_id: str, number: int) -> None:
        body = {"page": "home", "profile": f"u{number % 40}", "page_id": decision_id}
        answer = self.service.call("POST", "/v1/page", body)
        page_id = answer["page_id"]
        self.decisions[page_id] = [
            tile["title"] for row in answer["rows"] for tile in row["titles"]
        ]
        for row in filter(
            lambda row: row["titles"], answer["rows"]
        ):  # nothing was decided for a row left empty
            self.decisions[f"{page_id}:{row['row']}"] = [tile["title"] for tile in row["titles"]]
            self.decisions[f"{page_id}:{row['row']}:artwork"] = [
                tile["picture"] for tile in row["titles"]
            ]
        self.decisions[f"{page_id}:rows"] = [row["row"] for row in answer["rows"]]
        if number % 3 == 0:
            self.reward(page_id, action=answer["rows"][0]["titles"][0]["title"])


@pytest.fixture
def service(folder: Path, tmp_path: Path) -> Iterator[Service]:
    service = Service(folder, tmp_path / "data")
    yield service
    service.stop(signal.SIGKILL)


def killed(service: Service, kind: type[Load], kills: int) -> list[Load]:
    """What was asked of a service that was killed so often, and which has then had time to
    settle.
    """
    chance = random.Random(5)
    loads: list[Load] = []
    for kill in range(kills):
        service.start()
        stop = threading.Event()
        running = [kind(service, f"{kill}-{thread}", stop) for thread in range(4)]
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
    return loads


@often
def test_what_was_acknowledged_is_there_once_after_kills(
    kills: int, service: Service, folder: Path, tmp_path: Path
) -> None:
    loads = killed(service, Load, kills)

    decisions = {key: shown for load in loads for key, shown in load.decisions.items()}
    events = {key for load in loads for key in load.events}
    assert len(decisions) > 40
    log = open_log(tmp_path / "data" / "log.sqlite")
    held = [decision for _, decision in log.read_decisions(0, 1_000_000)]
    stored = {d.decision_id: [p.action for p in d.slate] for d in held}
    assert len(stored) == len(held)
    assert {key: stored.get(key) for key in decisions} == decisions
    kept = [(event.decision_id, event.event_id) for _, event in log.read_events(0, 1_000_000)]
    assert len(set(kept)) == len(kept)
    assert events <= set(kept)
    acknowledged = {key for load in loads for key in load.unit_events}
    of_units = [(event.unit, event.event_id) for _, event in log.read_unit_events(0, 1_000_000)]
    assert len(set(of_units)) == len(of_units)
    assert acknowledged <= set(of_units)
    assert log.version("art") > 0
    log.close()

    rebuilt = [sys.executable, "-m", "topbill", "verify", "art", "--experiments", str(folder)]
    done = subprocess.run(
        [*rebuilt, "--data", str(tmp_path / "data")], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stdout + done.stderr

    published = lake.sql(
        tmp_path / "data" / lake.DATABASE, "SELECT decision_id FROM decisions"
    ).to_pylist()
    assert sorted(row["decision_id"] for row in published) == sorted(stored)
    joined = lake.sql(
        tmp_path / "data" / lake.DATABASE, "SELECT decision_id, event_id FROM rewards"
    ).to_pylist()
    assert sorted((row["decision_id"], row["event_id"]) for row in joined) == sorted(kept)
    view = lake.sql(
        tmp_path / "data" / lake.DATABASE, "SELECT unit, unit_type, event_id FROM events"
    ).to_pylist()
    assert {row["unit_type"] for row in view} == {"profile_id"}
    assert sorted((row["unit"], row["event_id"]) for row in view) == sorted(of_units)


@pytest.fixture
def homepage(tmp_path: Path) -> Iterator[Service]:
    """The example page, alone with its experiments."""
    folder = tmp_path / "experiments"
    shutil.copytree(EXAMPLES / "pages", folder / "pages")
    shutil.copy(EXAMPLES / "catalogue.csv", folder)
    service = Service(folder, tmp_path / "data")
    yield service
    service.stop(signal.SIGKILL)


@often
def test_every_acknowledged_page_is_there_once_and_whole_after_kills(
    kills: int, homepage: Service, tmp_path: Path
) -> None:
    loads = killed(homepage, Pages, kills)
    shown = {key: titles for load in loads for key, titles in load.decisions.items()}
    plays = {key for load in loads for key in load.events}
    assert sum(":" not in key for key in shown) >= 4
    log = open_log(tmp_path / "data" / "log.sqlite")
    held = [decision for _, decision in log.read_decisions(0, 1_000_000)]
    stored = {d.decision_id: [p.action for p in d.slate] for d in held}
    assert len(stored) == len(held)
    assert {key: stored.get(key) for key in shown} == shown
    pages = {d.decision_id for d in held if d.layer == "page"}
    assert {d.page for d in held} == pages  # no page without its own decision, acknowledged or not
    kept = [(event.decision_id, event.event_id) for _, event in log.read_events(0, 1_000_000)]
    assert len(set(kept)) == len(kept)
    assert plays <= set(kept)
    assert all((f"{page}:rows", event) in set(kept) for page, event in plays)
    log.close()
