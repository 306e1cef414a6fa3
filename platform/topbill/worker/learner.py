"""Folds the log into policies: each decision once, at the age `reward_delay`, in the order of the
log.

The state is a function of the log alone: whoever folds the same rows reaches the same bytes,
however often the worker died in between and however the rows fell into batches.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from topbill.domain.errors import Conflict, LogError, NotFound
from topbill.domain.metric import microseconds
from topbill.domain.records import Example, Policy, Snapshot
from topbill.engine import CompiledExperiment, examples
from topbill.log import Log, Matured
from topbill.spec import Experiment
from topbill.worker.retry import Stuck

_logger = logging.getLogger("topbill")
BATCH = 2_000
GROWTH = 0.01
"""A new version is published when the examples have grown by this share: what one example more
changes falls with their number, and the number of versions stays logarithmic."""
LONGEST_WAIT = 60.0
"""Seconds after which what was learned is published in any case."""
DAY = 86_400_000_000
"""Microseconds between two refits."""

Archive = Callable[[str, int, int, int, int], list[Matured]]


class Fold:
    """The policies of one experiment, and the log position up to which they have learned.

    `refit_at` (µs) splits the log: decisions that had reached the longest window of the objective
    by then are learned from all their rewards, later ones from those that came within
    `reward_delay`. `start` is where a refit began.
    """

    def __init__(self, experiment: Experiment, start: int = 0, refit_at: int = 0) -> None:
        self.live = CompiledExperiment(experiment)
        self.version = 0
        self.start = self.watermark = self.safe = start
        self.refit_at = refit_at
        self.learned = 0
        self._published = (0, 0.0)

    def resume(self, log: Log) -> None:
        """Continue where the newest snapshot says; from the start of the log if it is of another
        fingerprint.
        """
        snapshot = log.snapshot(self.live.experiment.key)
        if snapshot is None:
            return
        if self.live.adopt(snapshot):
            self.watermark = self.safe = snapshot.watermark
            self.start, self.refit_at = snapshot.start, snapshot.refit_at
        self.version = snapshot.version

    def ages(self, barrier: int) -> list[tuple[int, int]]:
        """(age at which decisions are learned, time at which they must have reached it), in µs,
        oldest part first.
        """
        early = (microseconds(self.live.experiment.reward_delay), barrier)
        return (
            [(_full_age(self.live.experiment), self.refit_at), early] if self.refit_at else [early]
        )

    def step(self, log: Log, barrier: int, through: int = 2**62, limit: int = BATCH) -> int:
        """Fold the next matured decisions (at most `limit`, none with seq > `through`); returns how
        many were read.
        """
        for age, reached in self.ages(barrier):
            rows = log.matured(self.live.experiment.key, self.watermark, age, reached, limit)
            rows = [row for row in rows if row[0] <= through]
            if rows:
                self.absorb(rows)
                return len(rows)
        return 0

    def absorb(self, rows: list[Matured]) -> None:
        """Learn from matured decisions, the next ones in the order of the log."""
        batches: dict[str, list[Example]] = {name: [] for name in self.live.policies}
        shared = [v.name for v in self.live.experiment.variants if v.training == "shared"]
        for _, decision, events in rows:
            if decision.reason == "policy" and decision.variant in batches:
                found = list(examples(self.live, decision, events))
                for name in {decision.variant, *shared}:
                    batches[name] += found
        for name, batch in batches.items():
            if batch:
                self.live.policies[name].update(batch)
                self.learned += len(batch)
        self.watermark = rows[-1][0]
        if self.learned == self._published[0]:
            self.safe = self.watermark  # nothing in between that a version would have to hold

    def states(self) -> dict[str, bytes]:
        """Each variant's policy as bytes."""
        policies: dict[str, Policy] = self.live.policies
        return {name: policy.dump() for name, policy in policies.items()}

    @property
    def due(self) -> bool:
        """Whether enough was learned since the last version, or long enough ago."""
        learned, at = self._published
        return self.learned > learned and (
            self.learned >= learned * (1.0 + GROWTH) or time.monotonic() - at >= LONGEST_WAIT
        )

    def publish(self, log: Log) -> None:
        """Write state, watermark and version at once. Raises Conflict when another worker was
        faster.
        """
        snapshot = Snapshot(
            experiment=self.live.experiment.key,
            version=self.version + 1,
            watermark=self.watermark,
            fingerprint=self.live.experiment.learning_fingerprint,
            states=self.states(),
            start=self.start,
            refit_at=self.refit_at,
        )
        log.write_snapshot(snapshot)
        self.version, self.safe = snapshot.version, self.watermark
        self._published = (self.learned, time.monotonic())


class Learner:
    """Keeps every experiment's fold up to the log, publishes versions, and refits those that ask
    for it.
    """

    def __init__(self, log: Log, experiments: Iterable[Experiment]) -> None:
        self._log = log
        self._experiments: dict[str, Experiment] = {}
        self._folds: dict[str, Fold] = {}
        self._refits: dict[str, Fold] = {}
        self.stuck = Stuck()
        """Which experiments can't learn for now, and why."""
        self.reload(experiments)

    def reload(self, experiments: Iterable[Experiment]) -> None:
        """Take over changed experiments: what learning depends on decides whether the log is folded
        anew.
        """
        before, self._experiments = (
            self._experiments,
            {experiment.key: experiment for experiment in experiments},
        )
        for key, experiment in before.items():
            if self._experiments.get(key) != experiment:
                self._folds.pop(key, None)
                self._refits.pop(key, None)
                self.stuck.forget(key)

    def needed_after(self) -> int:
        """Decisions up to this `seq` are in a published version of their experiment: no learner
        reads them again.
        """
        safe = {
            key: self._folds[key].safe if key in self._folds else 0 for key in self._experiments
        }
        started = [(key, fold.safe) for key, fold in self._refits.items()]
        needed = [self._log.next_seq(key, after) for key, after in (*safe.items(), *started)]
        return min((seq - 1 for seq in needed if seq is not None), default=2**62)

    def step(self) -> int:
        """Fold what has matured, at most a batch an experiment; returns the number of decisions
        read.

        An experiment that can't learn doesn't keep the others from it: it is tried again later,
        from its newest version. Raises LogError, and Conflict when another worker was faster.
        """
        barrier = self._log.barrier()
        return sum(
            self._attempt(key, barrier) for key in self._experiments if not self.stuck.rests(key)
        )

    def _attempt(self, key: str, barrier: int) -> int:
        try:
            if key not in self._folds or key in self.stuck:
                self._folds[key] = self._begin(key)
            read = self._step(key, self._folds[key], barrier)
        except LogError:
            raise
        except Conflict:
            del self._folds[key]
            raise
        except Exception as error:
            # Half of a batch may be in the fold now. It stays for what the log must still hold, and
            # isn't used again.
            self._refits.pop(key, None)
            self.stuck.failed(key, error)
            return 0
        self.stuck.over(key)
        return read

    def _begin(self, key: str) -> Fold:
        fold = Fold(self._experiments[key])
        fold.resume(self._log)
        return fold

    def _step(self, key: str, fold: Fold, barrier: int) -> int:
        read = fold.step(self._log, barrier)
        if read < BATCH and fold.due:
            fold.publish(self._log)
        return max(read, self._refit(key, fold, barrier))

    def _refit(self, key: str, fold: Fold, barrier: int) -> int:
        """Fold what the log holds once more with all its rewards, a batch at a time; then let it
        take over.
        """
        refit = self._refits.get(key)
        if refit is None:
            experiment = fold.live.experiment
            first = self._log.first_seq()
            matured = first is not None and self._log.matured(
                key, 0, _full_age(experiment), barrier, 1
            )
            if experiment.refit == "daily" and matured and barrier - fold.refit_at >= DAY:
                self._refits[key] = Fold(experiment, start=(first or 1) - 1, refit_at=barrier)
            return 0
        read = refit.step(self._log, barrier, through=fold.watermark)
        if refit.watermark >= fold.watermark:
            refit.version = fold.version
            refit.publish(self._log)
            self._folds[key] = self._refits.pop(key)
        return read


def _full_age(experiment: Experiment) -> int:
    """µs after which no event counts in the objective any more."""
    return microseconds(max(experiment.goal.window, experiment.reward_delay))


def rebuild(
    log: Log, experiment: Experiment, archive: Archive
) -> tuple[Snapshot, dict[str, bytes]]:
    """The newest snapshot, and the states reached by folding everything from its start up to the
    same watermark.

    `archive` gives what the log has already let go: (experiment, after seq, through seq, age in µs,
    reached by µs). Raises NotFound where nothing was learned yet, or where the experiment learns
    otherwise than the snapshot did.
    """
    held = log.snapshot(experiment.key)
    if held is None:
        raise NotFound(
            f"{experiment.key}: no policy version in the log yet; start `topbill worker` and send rewards"
        )
    if held.fingerprint != experiment.learning_fingerprint:
        raise NotFound(
            f"{experiment.key}: version {held.version} was learned under other features, metrics or policies than the "
            "file has now; let `topbill worker` learn the new ones first"
        )
    fold = Fold(experiment, held.start, held.refit_at)
    barrier = log.barrier()
    first = log.first_seq()
    gone = held.watermark if first is None else min(first - 1, held.watermark)
    for age, reached in fold.ages(barrier):
        while fold.watermark < gone:
            rows = archive(experiment.key, fold.watermark, gone, age, reached)
            if not rows:
                break
            fold.absorb(rows)
    while fold.watermark < held.watermark and fold.step(log, barrier, through=held.watermark):
        pass
    return held, fold.states()
