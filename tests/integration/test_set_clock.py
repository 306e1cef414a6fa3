"""The machine's clock is set while service and worker run under load, by libfaketime: that is
told, nothing is lost or doubled, and learning and windows go on. Nobody touches the database.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from topbill import lake
from topbill.cli.supervise import commands, free_port
from topbill.log import LOG_FILE

from ..conftest import ARTWORK, write

_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _LIBRARIES, reason="libfaketime is not here: apt-get install faketime"),
]
HOUR = 3_600
DAY = 24 * HOUR
JUMPS = (DAY, 0, -HOUR, 0, 3_650 * DAY, 0)
"""By how many seconds the clock is wrong, one after the other."""
SLOW = ARTWORK.replace("window: 1s}", "window: 30s}\nreward_delay: 1s")
"""Learned after a second, however long a loaded machine takes to bring a reward."""


class Machine:
    """Service and worker over one data folder, on a machine whose clock is wrong by `wrong`
    seconds."""

    def __init__(self, experiments: Path, folder: Path) -> None:
        self.data = folder / "data"
        self.port = free_port("127.0.0.1", 0)
        self._wrong = folder / "wrong"
        self.set(0)
        self._said = folder / "said"
        self._commands = commands(
            str(experiments), str(self.data), "127.0.0.1", self.port, ("--processes", "2")
        )
        self._environment = os.environ | {
            "LD_PRELOAD": str(_LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._wrong),
            "FAKETIME_NO_CACHE": "1",
            # As on a real machine: setting the clock does not touch the one that nobody sets.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def set(self, wrong: int) -> None:
        """Set the clock."""
        draft = self._wrong.with_suffix(".new")
        draft.write_text(f"{wrong:+d}")
        draft.replace(self._wrong)

    def start(self) -> None:
        with self._said.open("ab") as said:
            for line in self._commands.values():
                process = subprocess.Popen(
                    [sys.executable, *line], env=self._environment, stdout=said, stderr=said
                )
                self._processes.append(process)
        until(lambda: self.get("/healthz")[0] == 200, "the service answers", 300)

    def stop(self, number: int = signal.SIGTERM) -> None:
        for process in self._processes:
            process.send_signal(number)
        for process in self._processes:
            process.wait(30)
        self._processes.clear()

    def get(self, path: str) -> tuple[int, Any]:
        """Status and body; 0 where nobody answers."""
        try:
            with closing(HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())
        except (OSError, HTTPException):
            return 0, None

    def clock_trouble(self) -> str:
        """What the service says of its clock; empty where it is ready."""
        status, body = self.get("/readyz")
        if status != 503 or "troubles" not in body:
            return ""
        (trouble,) = body["troubles"]
        assert trouble["code"] == "clock_jumped"
        return str(trouble["message"])

    @property
    def version(self) -> int:
        """Of the policy that decides; -1 where nobody answers."""
        status, body = self.get("/v1/experiments/art")
        return int(body["policy_version"]) if status == 200 else -1

    @property
    def said(self) -> str:
        return self._said.read_text()


def until(holds: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not after {seconds:g} s: {what}"
        time.sleep(0.1)


class Viewer(threading.Thread):
    """Decides and plays what it is shown, and remembers what was acknowledged."""

    def __init__(self, machine: Machine, name: str) -> None:
        super().__init__(daemon=True)
        self._machine, self._label = machine, name
        self.stopped = threading.Event()
        self.shown: dict[str, list[str]] = {}
        self.played: set[str] = set()

    def run(self) -> None:
        number = 0
        while not self.stopped.is_set():
            number += 1
            decision_id = f"{self._label}-{number}"
            unit = f"u{number % 40}"
            request = {"experiment": "art", "unit": unit, "decision_id": decision_id}
            answer = self._ask("/v1/decide", request)
            self.shown[decision_id] = [item["action"] for item in answer["slate"]]
            reward = {"decision_id": decision_id, "event": "play", "event_id": "e"}
            for _ in range(1 + number % 2):
                assert self._ask("/v1/reward", reward)["status"] in ("stored", "duplicate")
            self.played.add(decision_id)

    def _ask(self, path: str, body: Any) -> Any:
        """The answer, however often it must be asked for."""
        while True:
            try:
                return self._answer(path, body)
            except (OSError, HTTPException):
                time.sleep(0.02)

    def _answer(self, path: str, body: Any) -> Any:
        with closing(HTTPConnection("127.0.0.1", self._machine.port, timeout=10)) as connection:
            connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status == 503:  # "not now" is an answer that a loaded machine may give
                raise ConnectionError
            assert answer.status == 200, content
            return json.loads(content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "experiments", SLOW)


@pytest.fixture
def machine(folder: Path, tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(folder, tmp_path)
    try:
        yield machine
    finally:
        machine.stop(signal.SIGKILL)


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_a_clock_that_is_set_under_load(restarted: bool, machine: Machine, folder: Path) -> None:
    machine.start()
    viewers = [Viewer(machine, f"v{number}") for number in range(2)]
    for viewer in viewers:
        viewer.start()
    until(lambda: machine.version > 1, "it learns")
    assert machine.clock_trouble() == ""
    wrong = number = 0
    for then_wrong in JUMPS:
        machine.set(then_wrong)
        if restarted:
            machine.stop()
            machine.start()
        way = "ahead" if then_wrong > wrong else "back"
        # For a minute: a start may take longer on a loaded machine. It is noted for good.
        told = partial(is_told, machine, f"went {way} by")
        until(lambda told=told: restarted or told(), f"it is told that it went {way}")
        wrong, number = then_wrong, number + 1
        until(partial(is_noted, machine, number), f"it is noted that it went {way}")
        learned = machine.version
        until(lambda learned=learned: machine.version > learned + 1, "it goes on learning")
    until(lambda: machine.get("/readyz")[0] == 200, "it is ready again")
    for viewer in viewers:
        viewer.stopped.set()
    for viewer in viewers:
        viewer.join(60)
    time.sleep(4)
    machine.stop()
    assert "Traceback" not in machine.said
    check_log(machine, viewers)
    check_lake(machine, viewers)
    verify = [sys.executable, "-m", "topbill", "verify", "art", "--experiments", str(folder)]
    done = subprocess.run([*verify, "--data", str(machine.data)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def is_told(machine: Machine, what: str) -> bool:
    return what in machine.clock_trouble()


def is_noted(machine: Machine, steps: int) -> bool:
    with closing(sqlite3.connect(machine.data / LOG_FILE)) as log:
        ((noted,),) = log.execute("SELECT count(*) FROM clock_steps").fetchall()
    return int(noted) == steps


def check_log(machine: Machine, viewers: list[Viewer]) -> None:
    with closing(sqlite3.connect(machine.data / LOG_FILE)) as log:
        stamps = [at for (at,) in log.execute("SELECT at FROM decisions ORDER BY seq")]
    assert stamps == sorted(stamps)
    # One stamp is that of the rows of one group, and there are as many callers.
    assert max(Counter(stamps).values()) <= len(viewers)


def check_lake(machine: Machine, viewers: list[Viewer]) -> None:
    def rows(query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = lake.sql(machine.data / lake.DATABASE, query).to_pylist()
        return found

    shown = {key: slate for viewer in viewers for key, slate in viewer.shown.items()}
    stored = rows("SELECT decision_id, slate FROM decisions")
    assert len(stored) == len(shown)
    assert {row["decision_id"]: row["slate"] for row in stored} == shown
    played = [key for viewer in viewers for key in viewer.played]
    rewards = rows("SELECT decision_id FROM rewards")
    assert sorted(row["decision_id"] for row in rewards) == sorted(played)
    # Wherever a decision and its reward did not have a jump between them, the window holds.
    (feedback,) = rows("SELECT sum(metrics['play']) AS plays FROM feedback")
    assert len(played) - feedback["plays"] <= len(viewers) * len(JUMPS)
    (published,) = rows("SELECT epoch(published_at) AS at FROM published")
    assert abs(published["at"] - time.time()) < 60
