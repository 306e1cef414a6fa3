"""One worker at a time: on a data folder, and on a log that machines share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from topbill.domain.errors import Conflict, LogError
from topbill.domain.pausing import pause
from topbill.lake.home import check_home
from topbill.lake.shared_files import sync
from topbill.log import is_shared, open_log_of
from topbill.log.leases import FileLease
from topbill.log.protocol import Lease

_logger = logging.getLogger("topbill")
_TRY_EVERY = 0.25
"""Seconds between two tries of who stands by."""


class WorkerLease(Lease):
    """What the one worker holds: the data folder, and the log where it is a shared one.

    Raises:
        Conflict: Another worker holds one of them.
        LogError: Nobody can tell, or the log belongs to another data folder.
    """

    def __init__(self, data: Path) -> None:
        self._of_log: Lease | None = None
        with ExitStack() as taken:
            check_home(data)
            if is_shared(data):
                with open_log_of(data) as log:
                    try:
                        self._of_log = taken.enter_context(log.lease("worker"))
                    except Conflict as error:
                        raise _at_work(log.name) from error
            try:
                # The name that 0.1 gave it, so that a worker of that version is refused too.
                taken.enter_context(FileLease(data / "keeper.lock"))
            except Conflict as error:
                raise _at_work(str(data)) from error
            # What another machine has left is known before this one changes anything.
            sync(data)
            self._data = data
            self._taken = taken.pop_all()

    def check(self) -> None:
        """Raises LogError where the log's was lost: another worker may be at work by now."""
        if self._of_log is not None:
            self._of_log.check()

    def release(self) -> None:
        """Give both back, when other machines can see what was done. Raises LogError where they
        cannot.
        """
        with self._taken:
            sync(self._data)


def only_worker(data: Path) -> WorkerLease:
    """Hold a data folder's worker lock, and that of its log; the system frees both however the
    process ends.

    Raises Conflict where another worker holds it.
    """
    return WorkerLease(data)


def next_worker(data: Path, is_stopped: Callable[[], bool]) -> WorkerLease | None:
    """Stand by until no worker is at work on a log that machines share; None where stopped before.
    What keeps it from the log is said once, and tried again.

    On a log in its data folder nobody stands by. Raises Conflict there where another worker is at
    work.
    """
    if not is_shared(data):
        return only_worker(data)
    said = ""
    while not is_stopped():
        try:
            return only_worker(data)
        except Conflict as error:
            message = f"{error}; standing by"
        except LogError as error:
            message = f"{error}; trying again"
        if message != said:
            _logger.warning("%s", message)
        said = message
        pause(_TRY_EVERY)
    return None


def _at_work(where: str) -> Conflict:
    return Conflict(f"{where}: another worker is at work on it; stop it first")
