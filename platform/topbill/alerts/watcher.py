"""Watches over a data folder: looks at each running experiment when an hour of its record is
published whole, at the worker all the time, and has the channels told.

It has a thread and a log handle of its own, so that neither a slow channel nor a failing look ever
holds up the worker, and a worker that hangs is told of.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from math import inf
from pathlib import Path

import msgspec

from topbill.ab import GuardrailHarm
from topbill.alerts.channels import Send, send
from topbill.alerts.measuring import measure
from topbill.alerts.outbox import Outbox
from topbill.alerts.rules import RuleReading
from topbill.alerts.rules.guarding import read_harms
from topbill.alerts.rules.look import FileChange
from topbill.alerts.standing_still import LearningTrouble, LearningWatch, record_stale
from topbill.alerts.sums import DAY_HOURS, HOUR, Memory
from topbill.alerts.watching import look_at, resolve, weigh
from topbill.domain.alarm import AlarmLine, AlarmWatch, standing
from topbill.domain.errors import FileProblem, LogError, SpecError, TopbillError
from topbill.lake import Problem, is_published
from topbill.log import Clock, Log, now_micros
from topbill.reporting.queries.database import open_database
from topbill.spec import Experiment
from topbill.spec.alerts import AlertSettings, path_of, read_settings, unknown_channels

_logger = logging.getLogger("topbill")
EVERY = 5.0
"""Seconds between two steps."""
HARM_SHARE = 0.02
"""Of the watch's time, at most, that an experiment's guardrails take."""
_LONGEST_STEP = 30.0
"""Seconds for which a step under way is waited for at the end."""
_NOT_RUNNING = "The experiment is not running any more."


class Watcher:
    """Looks, raises and has told, step by step.

    `experiments` gives the experiments as they are now, `troubles` which of them do not learn as
    they should and why. The log handle is the watcher's own.
    """

    def __init__(
        self,
        folder: Path,
        data: Path,
        log: Log,
        experiments: Callable[[], Sequence[Experiment]],
        *,
        troubles: Callable[[], Mapping[str, LearningTrouble]] = dict,
        now: Clock = now_micros,
        send: Send = send,
    ) -> None:
        self._folder, self._data, self._log = folder, data, log
        self._experiments = experiments
        self._troubled = troubles
        self._now = now
        self._outbox = Outbox(log, now, send)
        self._learning = LearningWatch()
        self._settings = AlertSettings()
        self._mark: tuple[int, int] | None = None
        self._file_problems: tuple[FileProblem, ...] = ()
        self._memories: dict[str, tuple[int, Memory]] = {}
        """Up to when each experiment was looked at, and what is remembered of it; the worker's own
        under an empty key."""
        self._troubles: dict[str, str] = {}
        self._harms_due: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.problems: tuple[Problem, ...] = ()
        """What is wrong with alerts.yaml, with channels, and with looking."""

    def step(self) -> None:
        """Look at what is due, and tell what there is to tell. Raises LogError where the log
        fails; the next step goes on from what was stored."""
        self._log.check()
        experiments = self._experiments()
        self._read_settings()
        self._look_at_worker(experiments)
        for experiment in experiments:
            self._look_at(experiment)
        self._resolve_removed({experiment.key for experiment in experiments})
        self._outbox.step(self._settings, experiments)
        self.problems = self._problems(experiments)

    def start(self) -> None:
        """Step again and again on a thread of its own, until `close`."""
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and let go of the log. What is being sent is sent again by whoever comes
        next."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_LONGEST_STEP)
        self._outbox.close()
        # Of a step that hangs the handle stays open, and ends with the process.
        if self._thread is None or not self._thread.is_alive():
            self._log.close()

    def _run(self) -> None:
        """Whatever goes wrong is logged once, and tried again."""
        last = ""
        while not self._stop.wait(EVERY):
            try:
                self.step()
                last = ""
            except Exception as error:
                if str(error) != last:
                    defect = None if isinstance(error, TopbillError) else error
                    _logger.warning("alerts: %s; trying again", error, exc_info=defect)
                last = str(error)

    def _read_settings(self) -> None:
        """Take over an edited alerts.yaml; a wrong one changes nothing, and is told."""
        path = path_of(self._folder)
        try:
            stat = None if path is None else path.stat()
        except OSError:
            stat = None
        mark = None if stat is None else (stat.st_mtime_ns, stat.st_size)
        if mark == self._mark:
            return
        self._mark = mark
        try:
            self._settings = read_settings(self._folder)
            self._file_problems = ()
        except SpecError as error:
            _logger.warning("alerts stay as they were:\n%s", error)
            self._file_problems = error.problems

    def _problems(self, experiments: Sequence[Experiment]) -> tuple[Problem, ...]:
        wrong = list(self._file_problems)
        for experiment in experiments:
            wrong += unknown_channels(self._settings, experiment.source, experiment.alerts)
        problems = [Problem("file", p.place, p.path, p.message) for p in wrong]
        for name, message in self._outbox.failures.items():
            problems.append(Problem("alerts", name, "", message))
        for key, message in self._troubles.items():
            problems.append(Problem("alerts", key, "", message))
        return tuple(problems)

    # ------------------------------------------------------------------ the worker

    def _look_at_worker(self, experiments: Sequence[Experiment]) -> None:
        now = self._now()
        stale = record_stale(self._log.heartbeat(), now, self._free)
        self._note("", [stale], now)
        running = [e.key for e in experiments if e.status == "running"]
        for key, reading in self._learning.readings(running, self._troubled(), now).items():
            self._note(key, [reading], now)

    def _free(self) -> float:
        """Bytes that the disk of the data folder has left; infinite where nobody says."""
        try:
            return shutil.disk_usage(self._data).free
        except OSError:
            return inf

    def _note(self, key: str, readings: Sequence[RuleReading], at: int) -> None:
        through, memory = self._memory(key)
        before = msgspec.json.encode(memory)
        lines = weigh(key, memory, readings, at)
        # Seldom anything has changed, and then nothing is written.
        if lines or msgspec.json.encode(memory) != before:
            self._store(key, through, memory, lines)

    # ------------------------------------------------------------------ experiments

    def _look_at(self, experiment: Experiment) -> None:
        """Look at the next hour of an experiment, where it is published whole."""
        key = experiment.key
        through, memory = self._memory(key)
        if experiment.status != "running":
            self._resolve_all(key)
            return
        beat = self._log.heartbeat()
        published_at = 0 if beat is None else beat.published_at
        newest = published_at // HOUR * HOUR
        if not published_at or not is_published(self._data):
            return
        # Looks begin now; after a longer absence, with the last day.
        at = max(through, newest - DAY_HOURS * HOUR) if through else newest
        if at + HOUR > published_at:
            if not through:
                self._store(key, at, memory, [])
            return
        self._look_at_hour(experiment, at, memory)

    def _resolve_removed(self, keys: Container[str]) -> None:
        """Of an experiment whose file is gone nothing is at fault any more."""
        for line in standing(self._log.alarms()):
            if line.experiment and line.experiment not in keys:
                self._resolve_all(line.experiment)

    def _resolve_all(self, key: str) -> None:
        through, memory = self._memory(key)
        if not memory.standing:
            return
        now, faults = self._now(), list(memory.standing)
        lines = [resolve(key, memory, fault, _NOT_RUNNING, now) for fault in faults]
        self._store(key, through, memory, lines)

    def _look_at_hour(self, experiment: Experiment, at: int, memory: Memory) -> None:
        key = experiment.key
        try:
            with open_database(self._data, on_engine=False) as database:
                hour, seqs = measure(database, experiment, at, memory.seqs)
            harms = self._harms(experiment)
        except TopbillError as error:
            if self._troubles.get(key) != str(error):
                _logger.warning("alerts: %s cannot be looked at: %s; trying again", key, error)
            self._troubles[key] = str(error)
            return
        self._troubles.pop(key, None)
        events = {metric.event for metric in experiment.metrics}
        outcome = look_at(key, memory, hour, events, self._changes(key), harms)
        outcome.memory.seqs = seqs
        self._store(key, at + HOUR, outcome.memory, outcome.lines)

    def _harms(self, experiment: Experiment) -> tuple[GuardrailHarm, ...]:
        """The experiment's guardrails, where they are due: they need all of its record."""
        started = time.monotonic()
        if not experiment.guardrails or started < self._harms_due.get(experiment.key, 0.0):
            return ()
        harms = read_harms(self._data, experiment.key)
        took = time.monotonic() - started
        self._harms_due[experiment.key] = started + took / HARM_SHARE
        return harms

    def _changes(self, key: str) -> list[FileChange]:
        return [FileChange(line.at, line.who) for line in self._log.revisions(key)[1:]]

    # ------------------------------------------------------------------ what is remembered

    def _memory(self, key: str) -> tuple[int, Memory]:
        if key not in self._memories:
            watch = self._log.alarm_watch(key)
            if watch is None:
                self._memories[key] = (0, Memory())
            else:
                self._memories[key] = (watch.through, _read(watch))
        return self._memories[key]

    def _store(self, key: str, through: int, memory: Memory, lines: list[AlarmLine]) -> None:
        """Alarms and memory in one transaction: whoever dies before it looks again and finds the
        same."""
        watch = AlarmWatch(key, through, msgspec.json.encode(memory))
        try:
            self._log.note_alarms(lines, watch)
        except LogError:
            # What is in memory is ahead of what is stored: read it again.
            self._memories.pop(key, None)
            raise
        self._memories[key] = (through, memory)
        for line in lines:
            place = key or "the worker"
            _logger.warning("alarm of %s %s: %s %s", place, line.state, line.kind, line.message)


def _read(watch: AlarmWatch) -> Memory:
    """What was remembered; nothing where another version wrote it otherwise."""
    try:
        return msgspec.json.decode(watch.memory, type=Memory)
    except msgspec.MsgspecError:
        return Memory()
