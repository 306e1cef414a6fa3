"""The half of a worker that learns: the experiments that it holds, and what it tells of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from topbill import tracing
from topbill.alerts.standing_still import LearningTrouble
from topbill.entities import EntityStore
from topbill.lake import Problem
from topbill.log import Log
from topbill.log.protocol import Duty
from topbill.spec import Experiment
from topbill.worker import archive
from topbill.worker.experiment_files import ExperimentFiles
from topbill.worker.learner import Learner, needed_after
from topbill.worker.policy_fold import BATCH
from topbill.worker.work_share import WorkShare, learning_lease, this_worker

_logger = logging.getLogger("topbill")
TELL_EVERY = 1.0
"""Seconds between two lines in the log on how learning gets on; what is wrong is told at once."""


class Learning:
    """Learns; `step` does what is due.

    Args:
        log: The log; who gives it closes it.
        files: The experiments.
        data: The data folder.
        work_share: Says which of the experiments are this worker's; None where all are.
    """

    def __init__(
        self, log: Log, files: ExperimentFiles, data: Path, work_share: WorkShare | None = None
    ) -> None:
        self._log, self._files, self._work_share = log, files, work_share
        self._held: frozenset[str] | None = None
        own = files.experiments if work_share is None else ()
        self.learner = Learner(log, own, archive.reader(data), EntityStore(data))
        self._told: dict[str, Duty] = {}
        self._told_at = 0.0

    def step(self) -> bool:
        """Whether there is more to do at once."""
        self._share_out(self._files.reload())
        started = time.time_ns()
        read = self.learner.step()
        if read:
            tracing.finished("learn", started, decisions=read)
        self._tell()
        return read >= BATCH

    def _share_out(self, has_changed: bool) -> None:
        experiments = self._files.experiments
        if self._work_share is None:
            if has_changed:
                self.learner.reload(experiments)
            return
        held = self._work_share.look({experiment.key for experiment in experiments})
        if held == self._held and not has_changed:
            return
        self.learner.reload([one for one in experiments if one.key in held])
        if not held and held != self._held:
            _logger.warning("every experiment is learned by another worker; standing by")
        self._held = held

    def _tell(self) -> None:
        """Tell what others must know: how far it is once a second, and at once what went wrong, or
        where it begins anew and needs what it did not need before.
        """
        duties = [
            msgspec.structs.replace(duty, worker=this_worker()) for duty in self.learner.duties()
        ]
        is_due = time.monotonic() - self._told_at >= TELL_EVERY
        if is_due or any(_is_news(self._told.get(duty.name), duty) for duty in duties):
            self._log.note_duties(duties)
            self._told = {duty.name: duty for duty in duties}
            self._told_at = time.monotonic()


def _is_news(before: Duty | None, now: Duty) -> bool:
    if before is None or now.through < before.through:
        return True
    said = (before.fingerprint, before.failing, before.unreadable, bool(before.behind))
    return said != (now.fingerprint, now.failing, now.unreadable, bool(now.behind))


# ---------------------------------------------------------------------- what others read of it


def needed_by_workers(log: Log, experiments: Sequence[Experiment]) -> int:
    """Decisions up to this `seq` are in a published version of their experiment, whichever worker
    learns it: none reads them again.
    """
    positions = {}
    for experiment, duty in _duties_of(log, experiments):
        # What was told of another way to learn says nothing of this one, which begins anew.
        is_same = duty.fingerprint == experiment.learning_fingerprint
        positions[experiment.key] = duty.through if is_same else 0
    return needed_after(log, positions)


def problems(log: Log, experiments: Sequence[Experiment]) -> list[Problem]:
    """Experiments that can't learn, and versions that can't be read."""
    stuck, damaged = [], []
    for experiment, duty in _duties_of(log, experiments):
        if duty.failing:
            stuck.append(Problem("learning", experiment.key, "", duty.failing))
        if duty.unreadable:
            damaged.append(Problem("snapshot", experiment.key, "", duty.unreadable))
    return stuck + damaged


def troubles(log: Log, experiments: Sequence[Experiment]) -> Mapping[str, LearningTrouble]:
    """Which experiments don't learn as they should."""
    found = {}
    for experiment, duty in _duties_of(log, experiments):
        if duty.behind:
            found[experiment.key] = LearningTrouble("learning_behind", duty.behind)
        if duty.failing:
            found[experiment.key] = LearningTrouble("learning_fails", duty.failing)
    return found


def _duties_of(log: Log, experiments: Sequence[Experiment]) -> Iterator[tuple[Experiment, Duty]]:
    """What was told last of each experiment; of one that nobody has learned yet, nothing."""
    duties = log.duties()
    for experiment in experiments:
        name = learning_lease(experiment.key)
        yield experiment, duties.get(name) or Duty(name=name, worker="")
