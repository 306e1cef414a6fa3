"""The worker's loop: learn, publish, check the log in, take over changed files; one worker at a
time.
"""

from __future__ import annotations

import gc
import logging
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType

from topbill import pages, spec, tracing
from topbill.alerts.watcher import Watcher
from topbill.domain.collecting import collect_rarely
from topbill.domain.errors import (
    BadRequest,
    FileProblem,
    LogError,
    SpecError,
    TopbillError,
)
from topbill.domain.pausing import pause
from topbill.entities import EntityStore, KeptTables
from topbill.lake import Lake, Problem, named_versions
from topbill.lake.home import check_home
from topbill.lake.places import lake_place
from topbill.lake.shared_files import keep_alike
from topbill.log import REMEMBERED_FOR, open_log_of
from topbill.log.horizon import note_horizon
from topbill.log.learning import as_learned
from topbill.log.orders import halted, obeyed
from topbill.log.protocol import Order
from topbill.log.unit_ids import unit_ids
from topbill.migration import migrate
from topbill.pages import PageFile
from topbill.worker import archive, candidate_signals, retention
from topbill.worker.launching import Launching
from topbill.worker.learner import Learner
from topbill.worker.only_worker import WorkerLease, next_worker
from topbill.worker.policy_fold import BATCH
from topbill.worker.publisher import Publisher
from topbill.worker.retention import check_keep, kept_since, remove_aged

_logger = logging.getLogger("topbill")
_PAUSE = 0.2
_CLOCK_TOLD = 86_400_000_000
"""µs for which a problem tells that the machine's clock was set."""
PUBLISH_EVERY = 2.0
"""Seconds between two publications: how old the lake is at most while the worker keeps up."""
PUBLISH_TO_STORE_EVERY = 30.0
"""The same for a lake in an object store: of each table it gets a file for every bucket of every
experiment, and each is paid for.
"""
COLLECT_EVERY = 3_600.0
"""Seconds between two looks for versions of tables that nobody needs."""
BEAT_EVERY = 1.0
"""Seconds between two signs of life that it leaves in the log for services to see."""


class Worker:
    """Learner and publisher over one log; `step` does what is due."""

    def __init__(
        self,
        experiments: Path,
        data: Path,
        *,
        remember: float = REMEMBERED_FOR,
        keep: float | None = None,
        publish_every: float | None = None,
    ) -> None:
        self._folder, self._data = experiments, data
        self._publish_every = publish_every
        self._marks = spec.marks(experiments)
        self._unit_ids = unit_ids(data)
        self._files = self._load()
        """The experiments as their files say, without orders."""
        self._orders: list[Order] = []
        self._experiments = self._files
        self._pages: list[PageFile] = []
        self._notes: list[tuple[str, str]] = []
        self._refused = self._wrong_pages()
        # Opened when the files are known to be good: nobody would close it otherwise.
        self._log = open_log_of(data)
        self._experiments = self._as_they_run([])
        self.learner = Learner(
            self._log, self._experiments, archive.reader(data), EntityStore(data)
        )
        self.launching = Launching(self._log, data)
        self.publisher = Publisher(
            self._log,
            Lake(data),
            lambda: self._experiments,
            learned=self.learner.needed_after,
            problems=self.problems,
            launches=lambda: list(self.launching.lines.values()),
            progressed=self._beat,
            remember=remember,
        )
        note_horizon(data, remember)
        self.watcher = Watcher(
            experiments,
            data,
            open_log_of(data),
            lambda: self._experiments,
            troubles=self.learner.troubles,
        )
        """Raises alarms; `run_worker` runs it on a thread of its own."""
        self._keep = keep
        self._not_retained = ""
        """Why nothing is removed because of its age, where it was said."""
        self._published_at = 0.0
        self._signals_due = 0.0
        self._kept_tables = KeptTables(data)
        self._collect_due = 0.0
        self._beat_at = 0.0
        before = self._log.heartbeat()
        if before is not None:
            # How old the record is doesn't begin anew with the worker.
            self.publisher.published_at = before.published_at

    def check(self) -> None:
        """Raises BadRequest where rows would be removed that are still needed."""
        if self._keep is not None:
            check_keep(self._keep, self._experiments)

    def step(self) -> bool:
        """Whether there is more to do at once."""
        # First of all: where the log's files were replaced under it, nothing below may be written.
        self._log.check()
        self._beat()
        self._reload()
        # Learning before publishing: the log lets go of what the learner has behind it, and what
        # was learned in this step is behind it already.
        started = time.time_ns()
        read = self.learner.step()
        if read:
            tracing.finished("learn", started, decisions=read)
        if time.monotonic() - self._published_at >= self._between_publications:
            started = time.time_ns()
            rows = self.publisher.step()
            tracing.finished("publish", started, rows=rows)
            self.launching.step(self._files)
            self._retain()
            self._collect_tables()
            self._log.tend(thorough=True)
            self._published_at = time.monotonic()
        if time.monotonic() >= self._signals_due:
            started_at = time.monotonic()
            merges = self._log.merges()
            candidate_signals.refresh(
                self._folder, self._data, self._experiments, time.time(), merges
            )
            # Titles come and go while the worker runs.
            self._notes = _notes(self._pages, self._experiments)
            took = time.monotonic() - started_at
            wait = max(candidate_signals.EVERY, took / candidate_signals.SHARE)
            self._signals_due = time.monotonic() + wait
        return read >= BATCH

    @property
    def _between_publications(self) -> float:
        if self._publish_every is not None:
            return self._publish_every
        return PUBLISH_TO_STORE_EVERY if lake_place(self._data).is_store else PUBLISH_EVERY

    def finish(self) -> None:
        """Publish what is committed, then close."""
        try:
            self._log.check()
            self.publisher.step()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of everything; what is committed is not published."""
        self.launching.close()
        self.watcher.close()
        self._log.close()

    def problems(self) -> list[Problem]:
        """What is wrong now: files that were not taken over, experiments that can't learn, and
        versions that can't be read; where the clock was set; what must be known of pages; and why
        old rows stay.
        """
        files = [Problem("file", p.file, p.path, p.message) for p in self._refused]
        files += self._refused_tables()
        stuck = [Problem("learning", key, "", message) for key, message in self.learner.failures]
        damaged = [Problem("snapshot", key, "", text) for key, text in self.learner.unreadable()]
        noted = [Problem("page", name, "", note) for name, note in self._notes]
        clock = self._log.clock_trouble(_CLOCK_TOLD)
        jumped = [] if clock is None else [Problem("clock", "clock", "", clock)]
        kept = []
        if self._not_retained:
            kept.append(Problem("retention", "keep", "", self._not_retained))
        return [*files, *noted, *stuck, *damaged, *jumped, *kept, *self.watcher.problems]

    def _refused_tables(self) -> list[Problem]:
        """Tables of features whose newest content the services refused."""
        found = []
        for experiment in self._experiments:
            for source in experiment.entities:
                state = self._kept_tables.state(source.declaration)
                if state.refused is not None:
                    place = f"entities.{source.name}"
                    message = f"{state.refused.refused}; its last good version goes on"
                    if state.current is None:
                        message = f"{state.refused.refused}; every id is unknown"
                    found.append(Problem("file", experiment.source, place, message))
        return found

    def _collect_tables(self) -> None:
        """Remove versions of tables that no decision names any more, once an hour at most. What is
        committed is published now, and what is not yet names versions of today."""
        if time.monotonic() < self._collect_due:
            return
        self._collect_due = time.monotonic() + COLLECT_EVERY
        of_actions = self._kept_tables.candidates()
        needed = named_versions(self._data, of_actions) if of_actions else set()
        for version in self._kept_tables.collect(needed):
            _logger.info("version %s of a table: no decision names it; removed", version)

    def _retain(self) -> None:
        """Remove what is older than is kept, with the first publication of a day. It must keep
        nobody from learning and publishing: what stands against it is logged once, and shown.
        """
        if self._keep is None or self.publisher.is_compacting:
            return
        try:
            since = kept_since(self._log, self._keep, self.publisher.published_at)
            last = self._log.retention()
            if last is not None and last.kept_since == since:
                self._not_retained = ""
                return
            check_keep(self._keep, self._experiments)
            retention.refuse_to_empty(self._data, since)
            self.learner.abandon_refits()
            removed = remove_aged(self._data, self._log, since)
            self._not_retained = ""
            _logger.info("removed %s", retention.sentence(removed))
        except (BadRequest, LogError) as error:
            if str(error) != self._not_retained:
                _logger.warning("%s", error)
            self._not_retained = str(error)

    def _beat(self) -> None:
        """Leave a sign of life, once a second at most."""
        if time.monotonic() - self._beat_at >= BEAT_EVERY:
            self._log.beat(self.publisher.published_at)
            self._beat_at = time.monotonic()

    def _reload(self) -> None:
        """Take over edited files. Where one of them is wrong, all stay as they were: half of an
        edit (a layer's shares in two files) may be worse than none."""
        marks, orders = spec.marks(self._folder), self._log.orders()
        if (marks, orders) == (self._marks, self._orders):
            return
        # Noted before the files are read: one that changes meanwhile is read again in the next
        # step.
        self._marks, self._orders = marks, orders
        try:
            self._files = self._load()
        except SpecError as error:
            _logger.warning("experiments stay as they were:\n%s", error)
            self._refused = error.problems
            readable = spec.readable(pages.experiment_folders(self._folder))
            self._files = halted(self._files, readable)
            self._experiments = self._as_they_run(orders)
        else:
            self._experiments = self._as_they_run(orders)
            self._refused = self._wrong_pages()
        self.learner.reload(self._experiments)

    def _as_they_run(self, orders: Sequence[Order]) -> list[spec.Experiment]:
        return [as_learned(one, self._log) for one in obeyed(self._files, orders)]

    def _load(self) -> list[spec.Experiment]:
        return self._unit_ids.in_experiments(pages.experiments_of(self._folder))

    def _wrong_pages(self) -> tuple[FileProblem, ...]:
        try:
            self._pages = pages.load_all(self._folder, self._experiments)
        except SpecError as error:
            _logger.warning("pages stay as they were:\n%s", error)
            return error.problems
        self._notes = _notes(self._pages, self._experiments)
        return ()


def _notes(
    files: Sequence[PageFile], experiments: Sequence[spec.Experiment]
) -> list[tuple[str, str]]:
    """What must be known of the pages and their catalogues: file and sentence."""
    found = []
    for file in files:
        try:
            catalog, tables = file.read_catalog(), pages.read_tables(file)
        except TopbillError:
            continue  # the services say what is wrong with them, and go on with the last good ones
        found += [(file.source, note) for note in pages.notes(file, catalog, experiments, tables)]
    return found


def run_worker(
    experiments: Path,
    data: Path,
    *,
    remember: float = REMEMBERED_FOR,
    keep: float | None = None,
    publish_every: float | None = None,
    beside: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Run until SIGINT or SIGTERM; what a signal finds under way is finished or not done at all.

    On a log that machines share, several may be started: one is at work, the others stand by, and
    one of them goes on where it ends.

    Args:
        experiments: Folder of the files.
        data: The data folder.
        remember: Seconds for which ids are known, see `Publisher`.
        keep: Seconds after which rows are removed from the lake; None for never.
        publish_every: Seconds between two publications; None for 2, and 30 where the lake is at a
            URL.
        beside: What goes on while it is at work.

    Raises:
        BadRequest: Experiments wait for rewards as long as `keep`.
        Conflict: Another worker is at work on the data folder.
        LogError: The log cannot be opened.
    """
    stop = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal stop
        stop = True

    def is_stopped() -> bool:
        return stop

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    for sentence in migrate(data):
        _logger.warning("%s", sentence)
    # What is wrong with them is said at once; later they may be gone for a while.
    check_home(data)
    keep_alike(data)
    while (lease := next_worker(data, is_stopped)) is not None:
        with lease, beside():
            worker = Worker(
                experiments, data, remember=remember, keep=keep, publish_every=publish_every
            )
            worker.check()
            collect_rarely()
            _work(worker, lease, is_stopped)
            gc.unfreeze()
        if stop:
            break


def _work(worker: Worker, lease: WorkerLease, is_stopped: Callable[[], bool]) -> None:
    """Work until stopped, or until another worker may be at work."""
    worker.watcher.start()
    last_message = ""
    while not is_stopped():
        busy = False
        try:
            lease.check()
        except LogError as error:
            _logger.warning("%s; standing by", error)
            worker.close()
            return
        try:
            busy = worker.step()
            last_message = ""
        except Exception as error:
            # Whatever it was, what is committed is as it was: the next step goes on from there.
            if str(error) != last_message:
                defect = None if isinstance(error, TopbillError) else error
                _logger.warning("%s; trying again", error, exc_info=defect)
            last_message = str(error)
        if not busy:
            pause(_PAUSE)
    worker.finish()
