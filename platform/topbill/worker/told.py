"""What workers told of how they learn, for whoever publishes: it may be another one that learns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from topbill.alerts.standing_still import LearningTrouble
from topbill.lake import Problem
from topbill.log import Duty, Log
from topbill.spec import Experiment
from topbill.worker.learner import needed_after
from topbill.worker.work_share import learning_lease


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
