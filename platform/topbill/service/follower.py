"""What keeps a running service up to date: files, policy snapshots, and what viewers did."""

from __future__ import annotations

import asyncio
import dataclasses
import getpass
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from topbill import pages, process_log, spec
from topbill.domain.assignment import Assignment, assignment_changes, moves_units
from topbill.domain.errors import FileProblem, SpecError, TopbillError
from topbill.domain.formatting import condition
from topbill.engine import CompiledExperiment, Engine, adopt_newest, adopt_newest_of
from topbill.log.former import with_formers
from topbill.log.learning import as_learned
from topbill.log.orders import as_its_file, halted, obeyed
from topbill.log.protocol import Order, Revision
from topbill.log.tombstones import tombstones_mark
from topbill.log.unit_ids import unit_ids
from topbill.reporting.experiment.differences import spec_differences
from topbill.service import telemetry, worker_health
from topbill.service.announcements import Announcements
from topbill.service.launch_meters import LaunchMeters
from topbill.service.other_files import OtherFiles
from topbill.service.page import PageService
from topbill.service.settings import Settings
from topbill.spec.checkout import author_in
from topbill.worker.experiment_files import foreign_policies

_logger = logging.getLogger("topbill")
_changes = logging.getLogger(process_log.CHANGES)
_POLL_SECONDS = 0.3
_LOOK_EVERY = 5.0
"""Seconds between two looks for new versions where the log announces them."""
_TEND_EVERY = 10
"""Beside a worker the service tends the log in one step of so many: a worker does it every second.
Well before a journal is full, should the worker have stopped."""
_LATEST = 20
"""So many of an experiment's revisions are looked at for when its shares were changed."""


_NEW_PHASE = (
    "units change variant, and the report takes what comes from now on for a phase of its own"
)


class AssignmentChange(NamedTuple):
    """When a revision came in force that gives units other variants, and in what it differs."""

    revision: str
    at: int
    """µs since the epoch."""
    changed: list[str]

    @property
    def when(self) -> str:
        """ISO 8601, UTC."""
        return f"{datetime.fromtimestamp(self.at // 1_000_000, UTC):%Y-%m-%dT%H:%M:%S}Z"


def last_change(revisions: Sequence[Revision]) -> AssignmentChange | None:
    """The last of an experiment's revisions (oldest first) that gives units other variants; None
    where none does, or none of the latest."""
    after: Assignment | None = None
    later: Revision | None = None
    for revision in reversed(revisions[-_LATEST:]):
        before = _assignment(revision.spec)
        if before is not None and after is not None and later is not None:
            changed = moves_units(assignment_changes(before, after))
            if changed:
                return AssignmentChange(later.revision, later.at, changed)
        after, later = before, revision
    return None


def change_line(experiment: spec.Experiment, revisions: Sequence[Revision]) -> str:
    """What the newest of an experiment's revisions (oldest first) brought, in a line: what differs,
    and of shares what follows for the report."""
    line = f"{experiment.key}: is {condition(experiment.status)}"
    if len(revisions) < 2:
        return f"{line}, as its new file says"
    before, now = (msgspec.json.decode(each.spec) for each in revisions[-2:])
    clauses = spec_differences(before, now)
    moved = last_change(revisions)
    if moved is not None and moved.revision == revisions[-1].revision:
        clauses.append(_NEW_PHASE)
    return "; ".join([f"{line} in revision {revisions[-1].revision}", *clauses])


def _assignment(text: str) -> Assignment | None:
    """How a revision gives units to variants; None where this version cannot read it, and where it
    was concluded: then nothing is compared any more."""
    try:
        experiment = spec.from_audit(text, "as it was")
    except SpecError:
        return None
    if experiment.conclusion is not None:
        return None
    control, traffic = experiment.control.name, experiment.traffic_in_force
    return Assignment(experiment.shares_in_force, control, traffic)


class Follower:
    """Keeps an engine and its pages up to date with the files, the newest policy snapshots and what
    viewers did.

    It has a handle of its own on the log, since it works in a thread beside the event loop.
    """

    def __init__(
        self, settings: Settings, engine: Engine, page_service: PageService | None = None
    ) -> None:
        self._settings = settings
        self._folder = settings.experiments
        self._engine = engine
        self._page_service = page_service
        self._log = settings.open_log()
        self._marks: dict[Path, tuple[int, int]] = {}
        self._newest: dict[str, str] = {}
        """The newest revision of each experiment, by whichever process, at the last look."""
        self._own: dict[str, str] = {}
        """By experiment the revision of its file here, once taken over."""
        self._others: dict[str, str] = {}
        """The same of another process's file, where that was taken over later."""
        self._catalogues: list[Path] = []
        """Those beside which files were refused: it may be these that change. Pages that go on
        follow their own."""
        self._catalogue_marks: dict[Path, tuple[int, int]] = {}
        self._orders: list[Order] = []
        self._files = [compiled.experiment for compiled in engine.experiments.values()]
        """The experiments as their files say, without orders."""
        self._tried: dict[str, tuple[CompiledExperiment, int]] = {}
        """Which version was last tried on which compiled experiment."""
        self._tried_of_formers: dict[str, tuple[CompiledExperiment, int]] = {}
        """The same of what ran before a launch, by the experiment's key."""
        self._data = settings.data
        self._launch_meters = LaunchMeters(self._data)
        self._unit_ids = unit_ids(self._data)
        self._erased = tombstones_mark(self._data)
        self._clock_trouble: str | None = None
        self.other_files = OtherFiles()
        self._has_worker = False
        self._steps = 0
        self.announcements: Announcements | None = None
        """Of new versions, once somebody listens."""
        self._looked_at = 0.0
        self._file_problems: tuple[FileProblem, ...] = ()
        self.unreadable: dict[str, str] = {}
        """Why the newest version of an experiment can't be read, by experiment."""
        self.changes: dict[str, AssignmentChange | None] = {}
        """When units were last given other variants, by experiment; None where never."""

    def close(self) -> None:
        """Let go of the log."""
        if self.announcements is not None:
            self.announcements.close()
        self._log.close()

    def listen(self, heard: Callable[[], None]) -> None:
        """Have `heard` called, on another thread, when `adopt` is to be; never where the log is
        here, and to look for new versions often costs nothing.
        """
        if not self._log.is_remote:
            return
        self.announcements = Announcements(self._settings.open_log, heard)
        self.announcements.start()

    @property
    def problems(self) -> tuple[FileProblem, ...]:
        """What is wrong with the files as they are now, catalogues with them; what was there before
        is served.
        """
        stale = () if self._page_service is None else self._page_service.stale
        return (*self._file_problems, *stale, *self._engine.tables.problems.values())

    def step(self) -> None:
        """Tend the log, reload changed files (a broken one leaves all as they
        were), note revisions, adopt new snapshots."""
        self._log.check()
        self._steps += 1
        if not self._has_worker or self._steps % _TEND_EVERY == 0:
            self._log.tend()
        clock = self._log.clock_trouble()
        if clock is not None and clock != self._clock_trouble:
            _logger.warning("%s", clock)
        self._clock_trouble = clock
        has_changed = self._take_over_files()
        self.other_files.look(self._others)
        if has_changed or self._looks_for_versions():
            self.adopt()
        if self._engine.follow_tables() and self._page_service is not None:
            self._page_service.renew_features()
        health = worker_health.worker_health(self._log)
        self._has_worker = health.alive
        worker_health.count(health)
        worker_health.count_learning(worker_health.duties(self._log), self._engine.experiments)
        worker_health.count_alarms(self._log.alarms())
        self._launch_meters.step(any(file.launch is not None for file in self._files))
        if self._page_service is not None:
            # To move rows into the tables is the worker's, where there is one.
            with self._log.unhurried() if self._has_worker else nullcontext():
                self._page_service.follow(self._log)

    def sees_erasure(self) -> bool:
        """Whether units were erased since the last call."""
        before, self._erased = self._erased, tombstones_mark(self._data)
        if self._erased != before:
            self._log.forget_recent()
        return self._erased != before

    def _looks_for_versions(self) -> bool:
        """Whether to look for new ones: always, but where they are announced once in a while."""
        if self.announcements is None or not self.announcements.are_heard:
            return True
        return time.monotonic() - self._looked_at >= _LOOK_EVERY

    def _take_over_files(self) -> bool:
        """Whether files or orders were others than before."""
        marks, orders = spec.marks(self._folder), self._log.orders()
        newest = self._log.newest_revisions()
        is_same = (marks, orders, newest) == (self._marks, self._orders, self._newest)
        if is_same and spec.marks_of(self._catalogues) == self._catalogue_marks:
            return False
        before, is_first = self._own, not self._marks
        was_refused = bool(self._file_problems)
        try:
            self._reload(orders, newest)
            self._file_problems = ()
        except TopbillError as error:
            _logger.warning("experiments stay as they were:\n%s", error)
            self._file_problems = _problems_of(error)
            self._halt(orders)
        files = {file.key: file.fingerprint for file in self._files}
        for key, compiled in self._engine.experiments.items():
            is_own = before.get(key) != files[key] and key not in self._others
            if is_own or self._is_of(files[key], key, newest):
                self._note(key, compiled, orders, is_told=not is_first)
                newest[key] = compiled.revision
            self.changes[key] = last_change(self._log.revisions(key))
        for key in before:
            if key not in files:
                _changes.info("%s: its file was taken away; it decides no more (404)", key)
        if was_refused and not self._file_problems:
            _changes.info("files are in order again: what they say is in force")
        # Only now: where the log could not take a revision, the next step tries again.
        self._marks, self._orders, self._newest = marks, orders, newest
        return True

    def _is_of(self, file: str, key: str, newest: Mapping[str, str]) -> bool:
        """Whether the newest revision of an experiment is that of its file as it runs here, or what
        orders made of it. Else another process took another file over, and what runs here must not
        become the newest again."""
        return key not in newest or as_its_file(self._log, key).fingerprint == file

    def _note(
        self,
        key: str,
        compiled: CompiledExperiment,
        orders: Sequence[Order],
        *,
        is_told: bool,
    ) -> None:
        """Note what an experiment is now. What is new where the service starts for the first time
        is not told: all of it would be."""
        text = msgspec.json.encode(compiled.experiment.raw).decode()
        ordered = {order.made: order.who for order in orders if order.experiment == key}
        who = ordered.get(compiled.revision) or self._author(compiled)
        if not self._log.revise(key, compiled.revision, who, text):
            return
        # Of several processes only the one that noted the revision says so.
        revisions = self._log.revisions(key)
        if is_told or len(revisions) > 1:
            _changes.info("%s", change_line(compiled.experiment, revisions))

    def _author(self, compiled: CompiledExperiment) -> str:
        """Who wrote a revision that is new: the author of the file's last commit, or else who runs
        the service."""
        experiment = compiled.experiment
        noted = self._log.revisions(experiment.key)
        if noted and noted[-1].revision == compiled.revision:
            return noted[-1].who
        folders = pages.experiment_folders(self._folder)
        return author_in(folders, experiment.source) or _user()

    def _halt(self, orders: Sequence[Order]) -> None:
        """Obey what was said of stopping, by orders and in files that can be read: it must get
        through whatever is wrong with others."""
        readable = spec.readable(pages.experiment_folders(self._folder))
        self._files = halted(self._files, readable)
        self._engine.reload(self._as_they_run(self._files, orders))

    def _reload(self, orders: Sequence[Order], newest: Mapping[str, str]) -> None:
        own = self._unit_ids.in_experiments(pages.experiments_of(self._folder))
        others = self._taken_over_elsewhere(own, newest)
        files = [others.get(file.key, file) for file in own]
        experiments = self._as_they_run(files, orders)
        # Pages are read before anything is taken over: a bad edit must not leave a page without an
        # experiment of its layers.
        self._catalogues, self._catalogue_marks = [], {}
        page_files = pages.load_all(self._folder, experiments)
        before = self._engine.experiments
        self._engine.reload(experiments)
        if self._page_service is not None:
            catalogues = [path for file in page_files for path in file.catalogue_files]
            # Before they are read: what is written meanwhile is looked at in the next step.
            catalogue_marks = spec.marks_of(catalogues)
            try:
                self._page_service.reload(page_files)
            except TopbillError:
                # Pages stay as they were, and so do the experiments that they were made with.
                self._engine.experiments = before
                self._catalogues, self._catalogue_marks = catalogues, catalogue_marks
                raise
        # Last: what was refused is not what goes on.
        self._files = files
        self._own = {file.key: file.fingerprint for file in own}
        self._others = {key: file.fingerprint for key, file in others.items()}

    def _taken_over_elsewhere(
        self, own: Sequence[spec.Experiment], newest: Mapping[str, str]
    ) -> dict[str, spec.Experiment]:
        """By experiment the file that runs in the place of its own: where another process took
        another one over since this one read its own. So all run the same, and a word to stop, which
        is said of what was taken over last, reaches all of them.
        """
        others = {}
        for file in own:
            if file.key not in newest or self._own.get(file.key) != file.fingerprint:
                continue
            other = as_its_file(self._log, file.key)
            if other.fingerprint != file.fingerprint:
                _refuse_foreign(other, file)
                others[file.key] = dataclasses.replace(other, source=file.source)
        return others

    def _as_they_run(
        self, files: Sequence[spec.Experiment], orders: Sequence[Order]
    ) -> list[spec.Experiment]:
        """Files under the orders on them, with what the log says of each."""
        experiments = [as_learned(one, self._log) for one in obeyed(files, orders)]
        return with_formers(experiments, files, self._log)

    def adopt(self) -> None:
        """Adopt the newest policy versions that there are."""
        self._looked_at = time.monotonic()
        versions = self._log.versions()
        for key, compiled in self._engine.experiments.items():
            newest = versions.get(key, 0)
            # One that does not fit is not read again at every step, but it is when the file
            # changes: then the experiment is another object.
            if newest > compiled.version and self._tried.get(key) != (compiled, newest):
                self._tried[key] = (compiled, newest)
                adoption = adopt_newest(self._log, compiled, after=compiled.version)
                self._note_unreadable(key, adoption.problem)
                if adoption.snapshot is None and not adoption.problem:
                    # The worker may have published it in another order of the same features, just
                    # when the file changed: the next step looks whether it goes on in that.
                    self._marks = {}
            former = compiled.former
            if former is not None and self._tried_of_formers.get(key) != (former, newest):
                self._tried_of_formers[key] = (former, newest)
                adopt_newest_of(self._log, former)
            telemetry.POLICY_VERSION.labels(key).set(compiled.version)

    def _note_unreadable(self, key: str, problem: str) -> None:
        """One experiment's damaged version is its own trouble: the others adopt theirs."""
        if problem:
            _logger.warning("%s: %s", key, problem)
            self.unreadable[key] = problem
        else:
            self.unreadable.pop(key, None)


async def follow(
    follower: Follower, stopped: asyncio.Event, forget_viewers: Callable[[], Awaitable[None]]
) -> None:
    """Let a follower step until `stopped`, and adopt at once what is announced meanwhile; what is
    under way is finished. `forget_viewers` is called when units were erased.
    """
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def heard() -> None:
        loop.call_soon_threadsafe(told.set)

    follower.listen(heard)
    last_message = ""
    step_at = loop.time() + _POLL_SECONDS
    while not await _first_of(stopped, told, step_at - loop.time()):
        try:
            if told.is_set():
                told.clear()
                await asyncio.to_thread(follower.adopt)
            if loop.time() < step_at:
                continue
            telemetry.flush()
            await asyncio.to_thread(follower.step)
            # Here, on the loop's thread, which owns most of what is in memory.
            if follower.sees_erasure():
                await forget_viewers()
            last_message = ""
        except Exception as error:
            # It must never end: the service would go on deciding, for ever, with what it has now.
            message = str(error)
            if message != last_message:
                defect = None if isinstance(error, TopbillError) else error
                _logger.warning("%s; trying again", error, exc_info=defect)
            last_message = message
        step_at = loop.time() + _POLL_SECONDS
    telemetry.flush()


async def _first_of(stopped: asyncio.Event, told: asyncio.Event, seconds: float) -> bool:
    """Wait until stopped or told, or for so long; whether it is stopped."""
    waits = [asyncio.create_task(event.wait()) for event in (stopped, told)]
    try:
        await asyncio.wait(waits, timeout=max(seconds, 0.0), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return stopped.is_set()


def _refuse_foreign(other: spec.Experiment, file: spec.Experiment) -> None:
    """Raises SpecError for an experiment of another process that scores by what is not in the
    audit: a model's file, or a package that may not be here.
    """
    own = foreign_policies(other)
    if own:
        got = f"another process took over revision {other.fingerprint}, with {', '.join(own)}"
        expected = "the same files as there: what it decides by is not in the log"
        raise SpecError([FileProblem(file.source, "file", got, expected)])


def _problems_of(error: TopbillError) -> tuple[FileProblem, ...]:
    if isinstance(error, SpecError):
        return error.problems
    return (FileProblem("pages", "catalogue", str(error), "a catalogue that can be read"),)


def _user() -> str:
    """Who runs the service: who changed the files isn't known."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
