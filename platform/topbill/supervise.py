"""Several processes as one: started together, ended together, whoever ends first."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from urllib.error import URLError
from urllib.request import urlopen

from topbill.dashboard import launch
from topbill.errors import TopbillError

_GRACE = 15.0


class Processes:
    """Child processes of this one. Leaving the `with` block ends them: politely, then for good."""

    def __init__(self) -> None:
        self._children: list[tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_problem: object) -> None:
        for _, child in self._children:
            child.terminate()
        deadline = time.monotonic() + _GRACE
        for _, child in self._children:
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def start(
        self, name: str, *arguments: str, environment: Mapping[str, str] | None = None, quiet: bool = False
    ) -> None:
        """Start `python ARGUMENTS`. Children don't get the terminal's Ctrl-C: their parent ends them in order.
        A `quiet` one says on standard error what goes wrong, and nothing else."""
        chatter = subprocess.DEVNULL if quiet else None
        child = subprocess.Popen(  # noqa: S603
            [sys.executable, *arguments], process_group=0, env=environment, stdout=chatter
        )
        self._children.append((name, child))

    def start_dashboard(self, experiments: Path, data: Path, port: int) -> None:
        """Start the dashboards on loopback."""
        arguments, environment = launch(experiments, data, port=port)
        self.start("dashboard", *arguments, "--logger.level", "error", environment=environment, quiet=True)

    def check(self) -> None:
        """Raises TopbillError where a process has ended by itself; it has said why on standard error."""
        for name, child in self._children:
            if child.poll() is not None:
                raise TopbillError(f"{name} ended with status {child.returncode}; see its message above")

    def wait_until(self, url: str, seconds: float = 60.0) -> None:
        """Wait until `url` answers. Raises TopbillError where it doesn't, or where a process ends."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            try:
                with urlopen(url, timeout=2):  # noqa: S310 (an address of ours)
                    return
            except (URLError, OSError):
                time.sleep(0.1)
        raise TopbillError(f"{url} does not answer after {seconds:.0f} s")


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does; SIGINT does so also where a shell's background job would ignore it."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def free_port(host: str, wanted: int) -> int:
    """`wanted`, or a port that is free where something listens on it already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted))
        except (OSError, OverflowError):  # taken, or past the last port there is
            probe.bind((host, 0))
        return int(probe.getsockname()[1])


def commands(experiments: str, data: str, host: str, port: int, more: Sequence[str] = ()) -> dict[str, list[str]]:
    """The command lines of the service and of the keeper over one data folder."""
    where = ["--experiments", experiments, "--data", data]
    return {
        "service": ["-m", "topbill", "serve", *where, "--host", host, "--port", str(port), *more],
        "keeper": ["-m", "topbill", "keep", *where],
    }
