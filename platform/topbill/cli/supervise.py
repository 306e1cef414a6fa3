"""Several processes as one: started together, started again where one ends by itself, ended
together.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.error import URLError
from urllib.request import urlopen

from topbill.cli.dashboard import launch
from topbill.cli.shell import say
from topbill.domain.errors import TopbillError
from topbill.domain.pausing import pause
from topbill.policies.linear import library

_logger = logging.getLogger("topbill")
_GRACE = 15.0
"""Seconds that processes have to end by themselves before they are killed."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds until what ended is started again: doubled each time, up to the longest."""
_AT_ONCE = 3.0
"""Seconds after which it is said what is waited for."""
_STEADY = 60.0
"""Seconds that a process must have run for its next pause to be the first again."""
_GUARD = f"""
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.stdin.buffer.read()
os.killpg(0, signal.SIGTERM)
time.sleep({_GRACE})
os.killpg(0, signal.SIGKILL)
"""
"""Leads the children's process group and reads a pipe that only their parent holds open: however
that one ends, the pipe closes, and the guard ends the group."""


@dataclass
class _Child:
    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] | None
    quiet: bool
    process: subprocess.Popen[bytes]
    started: float
    pause: float = _FIRST_PAUSE
    due: float | None = None
    """When it is to be started again."""


class Processes:
    """Child processes of this one. Leaving the `with` block ends them: politely, then for good. So
    does the end of this process, whatever ended it."""

    def __init__(self) -> None:
        self._children: list[_Child] = []
        self._guard = _start_guard()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_problem: object) -> None:
        # All are asked first and then waited for together, so that slow ones don't add up.
        for child in self._children:
            child.process.terminate()
        deadline = time.monotonic() + _GRACE
        for child in self._children:
            while child.process.poll() is None and time.monotonic() < deadline:
                pause(0.02)
        # What is left of the group, and its guard.
        with suppress(ProcessLookupError):
            os.killpg(self._guard.pid, signal.SIGKILL)
        for child in self._children:
            child.process.wait()
        self._guard.communicate()

    def start(
        self,
        name: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        quiet: bool = False,
    ) -> None:
        """Start `python ARGUMENTS`. Children don't get the terminal's Ctrl-C: their parent ends
        them in order. A `quiet` one says on standard error what goes wrong, and nothing else."""
        process = self._run(arguments, environment, quiet)
        self._children.append(
            _Child(name, arguments, environment, quiet, process, time.monotonic())
        )

    def _run(
        self, arguments: Sequence[str], environment: Mapping[str, str] | None, quiet: bool
    ) -> subprocess.Popen[bytes]:
        # In the guard's group, so that it ends with it; without keys to wait for.
        return subprocess.Popen(  # noqa: S603
            [sys.executable, *arguments],
            process_group=self._guard.pid,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if quiet else None,
        )

    def compile(self) -> None:
        """Compile what services and workers decide with, where there is no library of it and no
        cache has it: each of them would do so by itself, all at the same time."""
        if library.load() is not None:
            return
        process = self._run(("-c", "import topbill.policies.linear.ruled"), None, quiet=True)
        try:
            process.wait(_AT_ONCE)
        except subprocess.TimeoutExpired:
            say("Compiling what decides: once, some 20 s")
            process.wait()

    def start_dashboard(self, experiments: Path, data: Path, port: int) -> None:
        """Start the dashboards on loopback."""
        # Streamlit greets on standard output and logs what it does; `up` says where it is.
        arguments, environment = launch(experiments, data, port=port)
        self.start(
            "dashboard", *arguments, "--logger.level", "error", environment=environment, quiet=True
        )

    def check(self) -> None:
        """Raises TopbillError where a process has ended by itself; it has said why on standard
        error.
        """
        for child in self._children:
            if child.process.poll() is not None:
                raise TopbillError(
                    f"{child.name} {_ending(child.process.returncode)}; see its message above"
                )

    def tend(self) -> None:
        """Start again what has ended by itself: after a second, then ever later where it keeps
        ending.
        """
        now = time.monotonic()
        for child in self._children:
            if child.process.poll() is None:
                continue
            if child.due is None:
                _plan_restart(child, now)
            elif now >= child.due:
                # A guard that is gone could not end the new process if this one is killed.
                if self._guard.poll() is not None:
                    self._guard = _start_guard()
                child.process = self._run(child.arguments, child.environment, child.quiet)
                child.started, child.due = now, None

    def wait_until(self, url: str, seconds: float = 300.0) -> None:
        """Wait until `url` answers. Raises TopbillError where it doesn't, or where a process
        ends.
        """
        # Long, as a busy machine starts slowly; what cannot start ends, and that is told at once.
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            try:
                with urlopen(url, timeout=2):  # noqa: S310 (an address of ours)
                    return
            except (URLError, OSError):
                pause(0.1)
        raise TopbillError(f"{url} does not answer after {seconds:.0f} s")


def _plan_restart(child: _Child, now: float) -> None:
    """Note when a process that has ended is to be started again, and say so."""
    if now - child.started >= _STEADY:
        child.pause = _FIRST_PAUSE
    ending = _ending(child.process.returncode)
    _logger.warning("%s %s; starting it again in %g s", child.name, ending, child.pause)
    child.due = now + child.pause
    child.pause = min(2.0 * child.pause, _LONGEST_PAUSE)


def _start_guard() -> subprocess.Popen[bytes]:
    """A new process group and its guard. Its pipe is closed in every other child, as Python does by
    itself.
    """
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-ISc", _GUARD],
        process_group=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )


def _ending(status: int) -> str:
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does; SIGINT does so also where a shell's background job
    would ignore it.
    """

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def free_port(host: str, wanted: int) -> int:
    """`wanted`, or a port that is free where something listens on it already."""
    with socket.socket() as probe:
        # As servers do, so that a port whose last server has just ended counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted))
        except (OSError, OverflowError):  # taken, or past the last port there is
            probe.bind((host, 0))
        return int(probe.getsockname()[1])


def commands(
    experiments: str,
    data: str,
    host: str,
    port: int,
    more: Sequence[str] = (),
    both: Sequence[str] = (),
) -> dict[str, list[str]]:
    """The command lines of the service and of the worker over one data folder; `more` are options
    of the service, `both` of either.
    """
    where = ["--experiments", experiments, "--data", data, *both]
    return {
        "service": ["-m", "topbill", "serve", *where, "--host", host, "--port", str(port), *more],
        "worker": ["-m", "topbill", "worker", *where],
    }
