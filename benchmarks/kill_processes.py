"""The processes that the kill benchmark strikes: services, a worker in haste, and verbs of the
command line. All are forks of one that has imported what takes long: a start takes a tenth of a
second, not five, and a strike hits the work, not the imports.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
PRELOADED = [
    "topbill.service.app",
    "topbill.service.run",
    "topbill.cli",
    # What a service does without, and other verbs wait for.
    "pandas",
    "pyarrow.dataset",
    "topbill.reporting.experiment.build",
    "topbill.worker.loop",
    "topbill.worker.publishing",
]
"""`deltalake` comes with them. It starts the threads that it works with when it is used, not before
the fork, which they would not survive.
"""
KEPT_IN_LOG = 120.0
"""Seconds until the log may forget what is published."""
_DAY = 86_400_000_000
_KEPT_FILES = 60.0
"""Seconds for which files stay that a merge replaced; longer than a backup takes."""


def command(*arguments: str) -> None:
    """The command line with these arguments, in this process."""
    from topbill.cli import main

    sys.argv = ["topbill", *arguments]
    main()


def hasty_worker(experiments: str, data: str) -> None:
    """A worker beside a process of its own that publishes."""
    from topbill.worker import loop

    loop.run_worker(Path(experiments), Path(data), publisher=())


def hasty_publisher(compacts: Any, experiments: str, data: str) -> None:
    """What publishes beside a worker; it also compacts, vacuums and forgets as often as it can.
    `compacts` is 1 while it compacts.
    """
    from topbill.lake import Lake
    from topbill.worker import loop, publisher, publishing

    class HastyLake(Lake):
        def compact(self, *, thorough: bool = False) -> int:
            compacts.value = 1
            try:
                merged = super().compact(thorough=thorough)
                self.vacuum(thorough=thorough)
            finally:
                compacts.value = 0
            return merged

    publishing.PUBLISH_EVERY = 0.3
    publisher.MINOR, publisher.MAJOR = 2, 6
    vars(publishing)["Publisher"] = partial(publisher.Publisher, keep_log=KEPT_IN_LOG)
    vars(publishing)["Lake"] = partial(HastyLake, keep_for=_KEPT_FILES)
    loop.run_publisher(Path(experiments), Path(data))


def store_past(experiments: str, data: str, first: int, last: int) -> None:
    """Have a decision with a reward on each day from `first` to `last` days ago."""
    from topbill import spec
    from topbill.domain.records import RewardEvent
    from topbill.engine import DecideRequest, Engine
    from topbill.log import LOG_FILE, now_micros, open_log

    engine = Engine([spec.load(Path(experiments) / "home-artwork.yaml")])
    now = now_micros()
    days = first
    with open_log(Path(data) / LOG_FILE, clock=lambda: now - days * _DAY) as log:
        for days in range(first, last - 1, -1):
            name = old_id(days)
            request = DecideRequest(experiment="home-artwork", unit=name, decision_id=name)
            play = RewardEvent(decision_id=name, event_id="e", event="play")
            log.append([engine.decide(request)], [play])


def old_id(days: int) -> str:
    """The id of the decision of so many days ago."""
    return f"old-{days}"


def publish_all(data: str) -> None:
    """Publish what a restored folder's log has, as a worker would."""
    from topbill.lake import Lake
    from topbill.log import LOG_FILE, open_log
    from topbill.worker.publisher import Publisher

    with open_log(Path(data) / LOG_FILE) as log:
        Publisher(log, Lake(Path(data)), list).publish()


def _said(begun: Any, output: str, run: Callable[..., None], *arguments: str) -> None:
    """Run with what it says at the end of a file; `begun` is 1 when its work begins."""
    with Path(output).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    begun.value = 1
    run(*arguments)


class Part:
    """One process that is killed and started again; what it says is added to `output`."""

    def __init__(self, output: Path, run: Callable[..., None], *arguments: Any) -> None:
        self.output = output
        self._run, self._arguments = run, arguments
        self._begun = FORKS.RawValue("b", 0)
        self._process: Any = None

    def start(self) -> None:
        self._begun.value = 0
        arguments = (self._begun, str(self.output), self._run, *self._arguments)
        self._process = FORKS.Process(target=_said, args=arguments)
        self._process.start()

    def has_begun(self) -> bool:
        return bool(self._begun.value) or not self.is_alive()

    def is_alive(self) -> bool:
        return bool(self._process.is_alive())

    def strike(self) -> bool:
        """Kill it; False where it had ended by itself."""
        if self._process is None:
            return False
        self._process.kill()
        self._process.join()
        return bool(self._process.exitcode == -signal.SIGKILL)

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit status when it has ended; None where it has not within so many seconds."""
        self._process.join(seconds)
        status: int | None = self._process.exitcode
        return status

    def end(self) -> int | None:
        """In order, as a stop of the machine would; its exit status."""
        self._process.terminate()
        return self.wait(60)

    def said(self) -> str:
        """The end of what it said."""
        return (
            self.output.read_text(errors="replace").strip()[-600:] if self.output.exists() else ""
        )
