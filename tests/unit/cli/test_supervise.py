"""Several processes as one: what ends by itself is started again, and none outlives its parent."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from topbill.cli import supervise
from topbill.cli.supervise import Processes
from topbill.domain.errors import TopbillError
from topbill.policies.linear import library

ONCE = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(3)"
FOR_EVER = "import time; time.sleep(600)"
OUTLIVES = "import time; time.sleep(20); print('outlived')"
PARENT = f"""
import sys, time
from topbill.cli.supervise import Processes

with Processes() as processes:
    for name in "ab":
        processes.start(name, "-c", {OUTLIVES!r})
    print("started", flush=True)
    time.sleep(600)
"""


class Clock:
    """Stands for the module `time`: moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_keeps_ending_is_started_again_ever_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs, clock = tmp_path / "runs", Clock()
    with Processes() as processes, monkeypatch.context() as patched:
        patched.setattr("topbill.cli.supervise.time", clock)
        processes.start("worker", "-c", ONCE, str(runs))
        processes.start("other", "-c", FOR_EVER)
        for count, pause in enumerate((1.0, 2.0, 4.0), 1):
            until(lambda: len(caplog.messages) == count or processes.tend() is not None)  # noqa: B023
            clock.now += 0.9 * pause
            processes.tend()
            assert runs.read_text() == count * "x"
            clock.now += 0.2 * pause
            processes.tend()
            until(lambda: runs.read_text() == (count + 1) * "x")  # noqa: B023
    assert caplog.messages == [
        f"worker ended with status 3; starting it again in {s} s" for s in (1, 2, 4)
    ]
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_a_process_that_ran_well_for_a_while_is_back_after_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    with Processes() as processes, monkeypatch.context() as patched:
        patched.setattr("topbill.cli.supervise.time", clock)
        processes.start("worker", "-c", ONCE, str(tmp_path / "runs"))
        for wait in (10.0, 10.0, 70.0):
            before = len(caplog.messages)
            clock.now += wait
            until(lambda: len(caplog.messages) > before or processes.tend() is not None)  # noqa: B023
            clock.now += 5.0
            processes.tend()
    assert [message.split()[-2] for message in caplog.messages] == ["1", "2", "1"]


def test_an_end_before_all_is_up_is_an_error(tmp_path: Path) -> None:
    with Processes() as processes:
        processes.start("service", "-c", ONCE, str(tmp_path / "runs"))
        with pytest.raises(TopbillError, match="service ended with status 3"):
            processes.wait_until("http://127.0.0.1:9/")


def test_leaving_the_block_ends_also_who_will_not_hear_the_signal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("topbill.cli.supervise._GRACE", 0.3)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    with Processes() as processes:
        processes.start("deaf", "-c", deaf)
        time.sleep(0.3)
    assert processes._children[0].process.returncode is not None


def test_killed_the_parent_leaves_no_orphans() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        parent.send_signal(signal.SIGKILL)
        assert (
            parent.stdout.read() == ""
        )  # its end comes when the last child that holds the pipe is gone


def test_what_decides_is_compiled_before_several_would(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[Any] = []
    begin = Processes._run

    def noted(self: Processes, arguments: Any, environment: Any, quiet: bool) -> Any:
        started.append(arguments)
        return begin(self, arguments, environment, quiet)

    monkeypatch.setattr(Processes, "_run", noted)
    monkeypatch.setattr(supervise, "_AT_ONCE", 0.0)
    with Processes() as processes:
        monkeypatch.setattr(library, "load", lambda: object())
        processes.compile()
        assert not started, "a library holds it"
        monkeypatch.setattr(library, "load", lambda: None)
        processes.compile()
    assert started == [("-c", "import topbill.policies.linear.ruled")]
    assert "Compiling what decides" in capsys.readouterr().out
