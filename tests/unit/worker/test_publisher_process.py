"""The process beside a worker that publishes: there as long as the worker is, and no longer."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from topbill.domain.errors import Conflict
from topbill.log.leases import FileLease
from topbill.worker.publisher_process import PublisherProcess

LONGEST = 60.0
SAYS_WHO = """
import os, sys
with open(sys.argv[1], "a") as file:
    print(os.getpid(), file=file)
"""
ENDS_WITH_ITS_PARENT = "import os\nwhile os.read(0, 1): pass"
# A worker that starts the process, says so, and is killed.
WORKER = f"""
import sys, time
from pathlib import Path
from topbill.log.leases import FileLease
from topbill.worker.publisher_process import PublisherProcess
lease = FileLease(Path(sys.argv[1]))
process = PublisherProcess([sys.executable, "-c", {ENDS_WITH_ITS_PARENT!r}], lease.fileno())
print("started", flush=True)
time.sleep(600)
"""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def can_be_taken(path: Path) -> bool:
    try:
        FileLease(path).release()
    except Conflict:
        return False
    return True


def test_it_is_started_again_where_it_ends_ever_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("topbill.worker.publisher_process._FIRST_PAUSE", 0.01)
    said = tmp_path / "said"
    command = [sys.executable, "-c", SAYS_WHO, str(said)]
    with FileLease(tmp_path / "lock") as lease, PublisherProcess(command, lease.fileno()) as beside:

        def has_run_thrice() -> bool:
            beside.tend()
            return said.exists() and len(set(said.read_text().split())) >= 3

        wait_for(has_run_thrice)
    assert "ended with status 0; starting it again in 0.01 s" in caplog.text
    assert "starting it again in 0.02 s" in caplog.text


def test_what_it_holds_is_free_when_both_have_ended_in_order(tmp_path: Path) -> None:
    lease = FileLease(tmp_path / "lock")
    command = [sys.executable, "-c", ENDS_WITH_ITS_PARENT]
    with PublisherProcess(command, lease.fileno()):
        lease.release()
        assert not can_be_taken(tmp_path / "lock"), "it is still held by the other one"
    assert can_be_taken(tmp_path / "lock")


def test_it_ends_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    line = [sys.executable, "-c", WORKER, str(tmp_path / "lock")]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "started\n"
        assert not can_be_taken(tmp_path / "lock")
        worker.kill()
    wait_for(lambda: can_be_taken(tmp_path / "lock"))
