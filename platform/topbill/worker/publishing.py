"""The half of a worker that publishes, and sees to what is done once for all: launches, alarms,
signals of candidates, and removing what is old.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from topbill import tracing
from topbill.alerts.watcher import Watcher
from topbill.domain.errors import BadRequest, LogError
from topbill.entities import KeptTables
from topbill.lake import Lake, Problem, named_versions
from topbill.lake.places import lake_place
from topbill.log import REMEMBERED_FOR, Duty, Log, open_log_of
from topbill.log.horizon import note_horizon
from topbill.worker import candidate_signals, retention, told
from topbill.worker.experiment_files import ExperimentFiles
from topbill.worker.launching import Launching
from topbill.worker.publisher import Publisher
from topbill.worker.retention import check_keep, kept_since, remove_aged
from topbill.worker.work_share import PUBLISH, this_worker

_logger = logging.getLogger("topbill")
_CLOCK_TOLD = 86_400_000_000
"""µs for which a problem tells that the machine's clock was set."""
PUBLISH_EVERY = 2.0
"""Seconds from one publication to the next: how old the lake is at most while it keeps up, but for
what a publication takes.
"""
PUBLISH_TO_STORE_EVERY = 30.0
"""The same for a lake in an object store: of each table it gets a file for every bucket of every
experiment, and each is paid for.
"""
COLLECT_EVERY = 3_600.0
"""Seconds between two looks for versions of tables that nobody needs."""
BEAT_EVERY = 1.0
"""Seconds between two signs of life that it leaves in the log for services to see."""

TELL_EVERY = 10.0
"""Seconds between two lines in the log that say who publishes."""


class Publishing:
    """Publishes, and what goes with it; `step` does what is due.

    Args:
        log: The log; who gives it closes it.
        files: The experiments, which others take over anew.
        folder: Their folder.
        data: The data folder.
        remember: Seconds for which ids are known, see `Publisher`.
        keep: Seconds after which rows are removed from the lake; None for never.
        publish_every: Seconds between two publications; None for what fits the lake.
    """

    def __init__(
        self,
        log: Log,
        files: ExperimentFiles,
        folder: Path,
        data: Path,
        *,
        remember: float = REMEMBERED_FOR,
        keep: float | None = None,
        publish_every: float | None = None,
    ) -> None:
        self._publish_every = publish_every
        self._log, self._files = log, files
        self._folder, self._data, self._keep = folder, data, keep
        self.launching = Launching(log, data)
        self.publisher = Publisher(
            log,
            Lake(data),
            lambda: files.experiments,
            learned=lambda: told.needed_by_workers(log, files.experiments),
            problems=self.problems,
            launches=lambda: list(self.launching.lines.values()),
            progressed=self._beat,
            remember=remember,
        )
        self._horizon = 0.0
        self._note_horizon()
        # The watch for alarms is on a thread of its own, and so needs a handle of its own.
        watched = open_log_of(data)
        self.watcher = Watcher(
            folder,
            data,
            watched,
            lambda: files.experiments,
            troubles=lambda: told.troubles(watched, files.experiments),
        )
        """Raises alarms, once it is started."""
        self._not_retained = ""
        """Why nothing is removed because of its age, where it was said."""
        self._publication_due = 0.0
        self._signals_due = 0.0
        self._kept_tables = KeptTables(data)
        self._collect_due = 0.0
        self._beat_at = self._told_at = 0.0
        before = log.heartbeat()
        if before is not None:
            # How old the record is doesn't begin anew with the worker.
            self.publisher.published_at = before.published_at

    def check(self) -> None:
        """Raises BadRequest where rows would be removed that are still needed."""
        if self._keep is not None:
            check_keep(self._keep, self._files.experiments)

    def step(self) -> None:
        """Publish, and see to launches, old rows and signals, each where it is time to. From the
        end of one publication to the next, whoever learns in this process has its turn.
        """
        self._step(rests=True)

    def _step(self, *, rests: bool) -> None:
        self._beat()
        began = time.monotonic()
        if began >= self._publication_due:
            started = time.time_ns()
            self._note_horizon()
            rows = self.publisher.step()
            tracing.finished("publish", started, rows=rows)
            self.launching.step(self._files.files)
            self._retain()
            self._collect_tables()
            self._log.tend(thorough=True)
            rested_from = time.monotonic() if rests else began
            self._publication_due = rested_from + self._between_publications
        if time.monotonic() >= self._signals_due:
            self._refresh_signals()

    def _note_horizon(self) -> None:
        """Tell services for how long ids are known, where that has changed."""
        horizon = self.publisher.known_for(self._files.experiments)
        if horizon != self._horizon:
            note_horizon(self._data, horizon)
            self._horizon = horizon

    @property
    def _between_publications(self) -> float:
        if self._publish_every is not None:
            return self._publish_every
        return PUBLISH_TO_STORE_EVERY if lake_place(self._data).is_store else PUBLISH_EVERY

    def step_alone(self) -> None:
        """Step where no other half takes over changed files, nor learns meanwhile: a publication
        begins two seconds after the last one began. Two after its end, and one that takes 0.85 of
        the time in which its rows came would find ever more of them, up to 13 seconds' worth.
        """
        # First of all: where the log's files were replaced under it, nothing below may be written.
        self._log.check()
        self._files.reload()
        self._step(rests=False)

    def finish(self) -> None:
        """Publish what is committed."""
        self.publisher.step()

    def close(self) -> None:
        """Let go of everything but the log."""
        self.launching.close()
        self.watcher.close()

    def problems(self) -> list[Problem]:
        """What is wrong now: files that were not taken over, experiments that can't learn, and
        versions that can't be read; where the clock was set; what must be known of pages; and why
        old rows stay.
        """
        clock = self._log.clock_trouble(_CLOCK_TOLD)
        jumped = [] if clock is None else [Problem("clock", "clock", "", clock)]
        kept = []
        if self._not_retained:
            kept.append(Problem("retention", "keep", "", self._not_retained))
        return [
            *self._files.problems(),
            *self._refused_tables(),
            *told.problems(self._log, self._files.experiments),
            *jumped,
            *kept,
            *self.watcher.problems,
        ]

    def _refresh_signals(self) -> None:
        started_at = time.monotonic()
        merges, experiments = self._log.merges(), self._files.experiments
        candidate_signals.refresh(self._folder, self._data, experiments, time.time(), merges)
        self._files.look_at_pages()
        took = time.monotonic() - started_at
        wait = max(candidate_signals.EVERY, took / candidate_signals.SHARE)
        self._signals_due = time.monotonic() + wait

    def _refused_tables(self) -> list[Problem]:
        """Tables of features whose newest content the services refused."""
        found = []
        for experiment in self._files.experiments:
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
            check_keep(self._keep, self._files.experiments)
            retention.refuse_to_empty(self._data, since)
            removed = remove_aged(self._data, self._log, since)
            self._not_retained = ""
            _logger.info("removed %s", retention.sentence(removed))
        except (BadRequest, LogError) as error:
            if str(error) != self._not_retained:
                _logger.warning("%s", error)
            self._not_retained = str(error)

    def _beat(self) -> None:
        """Leave a sign of life, once a second at most, and who gives it."""
        if time.monotonic() - self._told_at >= TELL_EVERY:
            self._log.note_duties([Duty(name=PUBLISH, worker=this_worker())])
            self._told_at = time.monotonic()
        if time.monotonic() - self._beat_at >= BEAT_EVERY:
            self._log.beat(self.publisher.published_at)
            self._beat_at = time.monotonic()
