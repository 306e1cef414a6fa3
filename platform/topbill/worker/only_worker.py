"""Who may be at work on a data folder, and on a log that machines share: one worker on a log in its
folder, any number on a shared one, and none beside whoever wants to be alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from topbill.domain.errors import Conflict, LogError
from topbill.domain.pausing import pause
from topbill.lake.home import check_home
from topbill.lake.shared_files import sync
from topbill.log import is_shared, leases_of
from topbill.log.leases import FileLease
from topbill.log.protocol import Lease, Leases
from topbill.worker.work_share import PUBLISH, WORKER

_logger = logging.getLogger("topbill")
_TRY_EVERY = 0.25
"""Seconds between two tries of who stands by."""
_ENDING = 1.0
"""Seconds in which the children of a worker that was killed end too."""


class WorkerLease(Lease):
    """What a worker holds: the data folder, and the log where it is a shared one. The system frees
    both however the process ends.

    Args:
        data: The data folder.
        alone: Whether nobody else may be at work. On a log in its folder it is always so.

    Raises:
        Conflict: Another one is at work, or wants to be alone.
        LogError: Nobody can tell, or the log belongs to another data folder.
    """

    def __init__(self, data: Path, *, alone: bool) -> None:
        self.of_log: Leases | None = None
        """Those on the log, where it is a shared one."""
        with ExitStack() as taken:
            check_home(data)
            self.of_log = leases_of(data)
            if self.of_log is not None:
                taken.callback(self.of_log.close)
                # Who publishes holds that for itself, also after a worker that was killed.
                names = (WORKER, PUBLISH) if alone else (WORKER,)
                if not all(self.of_log.take(name, shared=not alone) for name in names):
                    raise _at_work(self.of_log.name)
            try:
                # The name that 0.1 gave it, so that a worker of that version is refused too.
                shared = self.of_log is not None and not alone
                self._of_folder = FileLease(data / "keeper.lock", shared=shared)
                taken.push(self._of_folder)
            except Conflict as error:
                raise _at_work(str(data)) from error
            # What another machine has left is known before this one changes anything.
            sync(data)
            self._data = data
            self._taken = taken.pop_all()

    def fileno(self) -> int:
        """The descriptor by which it holds the folder: a child that is given it holds the folder
        too, for as long as it lives.
        """
        return self._of_folder.fileno()

    def check(self) -> None:
        """Raises LogError where those of the log were lost: others may hold them by now."""
        if self.of_log is not None:
            self.of_log.check()

    def release(self) -> None:
        """Give both back, when other machines can see what was done. Raises LogError where they
        cannot.
        """
        with self._taken:
            sync(self._data)


class PublisherLease(Lease):
    """What the one holds that publishes on a log that machines share. On a log in its data folder,
    whoever started it holds the folder for it.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._of_log: Leases | None = None

    def wait(
        self, is_stopped: Callable[[], bool], prepare: Callable[[], object] = lambda: None
    ) -> bool:
        """Stand by until nobody else publishes; False where stopped before. What is wrong with the
        log, the worker says. `prepare` is called while it stands by, so that it goes on at once
        where another one ends.
        """
        while not is_stopped():
            try:
                if self._of_log is None:
                    self._of_log = leases_of(self._data)
                if self._of_log is not None:
                    prepare()
                if self._of_log is None or self._of_log.take(PUBLISH):
                    # What another machine has left is known before this one changes anything.
                    sync(self._data)
                    return True
            except LogError:
                self._let_go()
            pause(_TRY_EVERY)
        return False

    def check(self) -> None:
        """Raises LogError where it was lost: another one may publish by now."""
        if self._of_log is not None:
            self._of_log.check()

    def release(self) -> None:
        """Give it back, when other machines can see what was done. Raises LogError where they
        cannot.
        """
        try:
            sync(self._data)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._of_log is not None:
            self._of_log.close()
            self._of_log = None


def only_worker(data: Path) -> WorkerLease:
    """Have no worker be at work on a data folder, nor on its log.

    Raises Conflict where one is.
    """
    return WorkerLease(data, alone=True)


def next_worker(data: Path, is_stopped: Callable[[], bool]) -> WorkerLease | None:
    """Be at work on a log that machines share, beside others; stand by while somebody wants to be
    alone, and while the log cannot be reached. None where stopped before. What keeps it from the
    log is said once, and tried again.

    On a log in its data folder nobody stands by. Raises Conflict there where another worker is at
    work.
    """
    if not is_shared(data):
        return _next_of_folder(data)
    said = ""
    while not is_stopped():
        try:
            return WorkerLease(data, alone=False)
        except Conflict as error:
            message = f"{error}; standing by"
        except LogError as error:
            message = f"{error}; trying again"
        if message != said:
            _logger.warning("%s", message)
        said = message
        pause(_TRY_EVERY)
    return None


def _next_of_folder(data: Path) -> WorkerLease:
    deadline = time.monotonic() + _ENDING
    while True:
        try:
            return WorkerLease(data, alone=True)
        except Conflict:
            if time.monotonic() > deadline:
                raise
        pause(_TRY_EVERY / 5)


def _at_work(where: str) -> Conflict:
    return Conflict(f"{where}: another worker is at work on it; stop it first")
