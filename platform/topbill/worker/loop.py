"""The worker's loops: one learns, another publishes; in a process each, or on a log in its data
folder in the same one.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from topbill.domain.collecting import collect_rarely
from topbill.domain.errors import LogError, TopbillError
from topbill.domain.pausing import pause
from topbill.lake.home import check_home
from topbill.lake.shared_files import keep_alike
from topbill.log import REMEMBERED_FOR, Log, open_log_of
from topbill.log.protocol import Lease
from topbill.migration import migrate
from topbill.worker.experiment_files import ExperimentFiles
from topbill.worker.learning import Learning
from topbill.worker.only_worker import PublisherLease, WorkerLease, next_worker
from topbill.worker.publisher_process import PublisherProcess
from topbill.worker.work_share import WorkShare

if TYPE_CHECKING:
    from topbill.lake import Problem

_logger = logging.getLogger("topbill")
_PAUSE = 0.2


class Worker:
    """Both halves over one log, in one process; `step` does what is due."""

    def __init__(
        self,
        experiments: Path,
        data: Path,
        *,
        remember: float = REMEMBERED_FOR,
        keep: float | None = None,
        publish_every: float | None = None,
    ) -> None:
        from topbill.worker.publishing import Publishing

        self._log = open_log_of(data)
        try:
            self._files = ExperimentFiles(experiments, data, self._log)
            self._learning = Learning(self._log, self._files, data)
            self._publishing = Publishing(
                self._log,
                self._files,
                experiments,
                data,
                remember=remember,
                keep=keep,
                publish_every=publish_every,
            )
        except BaseException:
            self._log.close()
            raise
        self.learner = self._learning.learner
        self.publisher = self._publishing.publisher
        self.launching = self._publishing.launching
        self.watcher = self._publishing.watcher

    def check(self) -> None:
        """Raises BadRequest where rows would be removed that are still needed."""
        self._publishing.check()

    def step(self) -> bool:
        """Whether there is more to do at once."""
        # First of all: where the log's files were replaced under it, nothing below may be written.
        self._log.check()
        # Learning before publishing: the log lets go of what the learner has behind it, and what
        # was learned in this step is behind it already.
        is_busy = self._learning.step()
        self._publishing.step()
        return is_busy

    def problems(self) -> list[Problem]:
        """What is wrong now; see `Publishing.problems`."""
        return self._publishing.problems()

    def finish(self) -> None:
        """Publish what is committed, then close."""
        try:
            self._log.check()
            self._publishing.finish()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of everything; what is committed is not published."""
        self._publishing.close()
        self._log.close()


def run_worker(
    experiments: Path,
    data: Path,
    *,
    remember: float = REMEMBERED_FOR,
    keep: float | None = None,
    publish_every: float | None = None,
    publisher: Sequence[str] | None = None,
) -> None:
    """Run until SIGINT or SIGTERM; what a signal finds under way is finished or not done at all.

    On a log that machines share several may be started: they share the experiments between them.

    Args:
        experiments: Folder of the files.
        data: The data folder.
        remember: Seconds for which ids are known, see `Publisher`.
        keep: Seconds after which rows are removed from the lake; None for never.
        publish_every: Seconds between two publications; None for 2, and 30 where the lake is at a
            URL.
        publisher: The command line of a process that calls `run_publisher`, to be started beside
            it; empty where somebody else sees to that. None: this process publishes too, for which
            the log must lie in its data folder.

    Raises:
        BadRequest: Experiments wait for rewards as long as `keep`.
        Conflict: Another worker is at work on the data folder.
        LogError: The log cannot be opened.
    """
    is_stopped = _stopped_by_signals()
    for sentence in migrate(data):
        _logger.warning("%s", sentence)
    # What is wrong with them is said at once; later they may be gone for a while.
    check_home(data)
    keep_alike(data)
    while (lease := next_worker(data, is_stopped)) is not None:
        with lease:
            if publisher is not None:
                _learn(experiments, data, lease, keep, publisher, is_stopped)
            else:
                worker = Worker(
                    experiments, data, remember=remember, keep=keep, publish_every=publish_every
                )
                _do_both(worker, is_stopped)
        if is_stopped():
            break


def run_publisher(
    experiments: Path,
    data: Path,
    *,
    remember: float = REMEMBERED_FOR,
    keep: float | None = None,
    publish_every: float | None = None,
    beside: Callable[[], AbstractContextManager[None]] = nullcontext,
    parent: int | None = None,
) -> None:
    """Publish until SIGTERM, or until whoever started it ends. Of several on a shared log one
    publishes, and another goes on within seconds where it ends.

    Args:
        experiments: Folder of the files.
        data: The data folder, which whoever started it holds.
        remember: As of `run_worker`.
        keep: As of `run_worker`.
        publish_every: As of `run_worker`.
        beside: What goes on while it publishes.
        parent: A descriptor that can be read until the end when the parent ends.

    Raises:
        BadRequest: Experiments wait for rewards as long as `keep`.
        LogError: The log cannot be opened.
    """
    # Who learns does without the record's libraries.
    from topbill.worker.publishing import Publishing

    if parent is not None:
        end_with(parent)
    is_stopped = _stopped_by_signals()
    lease, ready = PublisherLease(data), _Ready(experiments, data)
    while lease.wait(is_stopped, ready.prepare):
        with lease, beside(), ready.opened() as (log, files):
            publishing = Publishing(
                log,
                files,
                experiments,
                data,
                remember=remember,
                keep=keep,
                publish_every=publish_every,
            )
            with closing(publishing):
                publishing.check()
                publishing.watcher.start()

                with _rare_collections():
                    if _go_on(publishing.step_alone, lease, is_stopped):
                        log.check()
                        publishing.finish()
    ready.close()


class _Ready:
    """The log and the experiments of who stands by: what takes longest is done before it is to
    publish, and where files or orders change meanwhile, its first step takes them over.
    """

    def __init__(self, experiments: Path, data: Path) -> None:
        self._experiments, self._data = experiments, data
        self._opened: tuple[Log, ExperimentFiles] | None = None

    def prepare(self) -> tuple[Log, ExperimentFiles]:
        """Open both, once. Raises LogError, and SpecError where the files are wrong."""
        if self._opened is None:
            log = open_log_of(self._data)
            try:
                self._opened = log, ExperimentFiles(self._experiments, self._data, log)
            except BaseException:
                log.close()
                raise
        return self._opened

    @contextmanager
    def opened(self) -> Iterator[tuple[Log, ExperimentFiles]]:
        """Both, for who publishes now; closed afterwards."""
        opened = self.prepare()
        try:
            yield opened
        finally:
            self.close()

    def close(self) -> None:
        """Close what was not used."""
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None


def end_with(descriptor: int) -> None:
    """End this process at once, as a kill would, when what is written to a descriptor ends: as a
    rule because whoever had its other end was killed.
    """

    def wait() -> None:
        while os.read(descriptor, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def _learn(
    experiments: Path,
    data: Path,
    lease: WorkerLease,
    keep: float | None,
    publisher: Sequence[str],
    is_stopped: Callable[[], bool],
) -> None:
    """Learn, beside a process that publishes."""
    work_share = None if lease.of_log is None else WorkShare(lease.of_log)
    with closing(open_log_of(data)) as log:
        files = ExperimentFiles(experiments, data, log)
        if keep is not None:
            from topbill.worker.retention import check_keep

            check_keep(keep, files.experiments)
        learning = Learning(log, files, data, work_share)
        with PublisherProcess(publisher, lease.fileno()) as publishing, _rare_collections():

            def step() -> bool:
                publishing.tend()
                log.check()
                return learning.step()

            _go_on(step, lease, is_stopped)


def _do_both(worker: Worker, is_stopped: Callable[[], bool]) -> None:
    worker.check()
    with _rare_collections():
        worker.watcher.start()
        _go_on(worker.step, None, is_stopped)
        worker.finish()


def _go_on(
    step: Callable[[], bool | None], lease: Lease | None, is_stopped: Callable[[], bool]
) -> bool:
    """Step again and again, at once where a step says that there is more to do: until stopped, or
    until others may be at work on what it holds, which is False.
    """
    last_message = ""
    while not is_stopped():
        is_busy: bool | None = False
        try:
            if lease is not None:
                lease.check()
        except LogError as error:
            _logger.warning("%s; standing by", error)
            return False
        try:
            is_busy = step()
            last_message = ""
        except Exception as error:
            # Whatever it was, what is committed is as it was: the next step goes on from there.
            if str(error) != last_message:
                defect = None if isinstance(error, TopbillError) else error
                _logger.warning("%s; trying again", error, exc_info=defect)
            last_message = str(error)
        if not is_busy:
            pause(_PAUSE)
    return True


def _stopped_by_signals() -> Callable[[], bool]:
    """Whether SIGINT or SIGTERM came."""
    stop = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return lambda: stop


@contextmanager
def _rare_collections() -> Iterator[None]:
    collect_rarely()
    try:
        yield
    finally:
        gc.unfreeze()
