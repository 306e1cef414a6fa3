"""When each experiment learns: its fold kept up to the log, versions published, refits begun and
put in force.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from topbill.domain.errors import Conflict, LogError
from topbill.domain.metric import microseconds
from topbill.entities import NO_TABLES, EntityStore
from topbill.log import Duty, Log
from topbill.spec import Experiment
from topbill.worker.archive import Archive
from topbill.worker.policy_fold import BATCH, PolicyFold, full_age
from topbill.worker.retry import RetryTracker
from topbill.worker.setting_aside import set_aside_decisions
from topbill.worker.work_share import learning_lease

DAY = 86_400_000_000
"""Microseconds between two refits."""
MOST_LAG = 5.0
"""Seconds that a decision may wait to be learned, beyond the age at which it is."""
_MEASURED = 10.0
"""Seconds after which a pace is told."""
_SPARE = 0.8
"""Of what a worker gets through, what a share may ask of it."""


class Pace(NamedTuple):
    """How far a fold was at a time (s, monotonic): it had to learn what was decided until `due`,
    and had learned what was decided until `reached` (µs, log time), that `share` of it."""

    at: float
    due: int
    reached: int
    share: float

    @property
    def lag(self) -> float:
        """Seconds that the next decision has waited to be learned."""
        return (self.due - self.reached) / 1e6


class Behind(NamedTuple):
    """An experiment that has more to learn than it gets through: where it was when that began, and
    where it is now. As text it says how far behind, and what would keep up.
    """

    since: Pace
    now: Pace

    @property
    def speed(self) -> float | None:
        """Seconds of the log that are learned in one second; None before that can be told."""
        seconds = self.now.at - self.since.at
        if seconds < _MEASURED:
            return None
        return (self.now.reached - self.since.reached) / 1e6 / seconds

    def __str__(self) -> str:
        text = f"it learns decisions that have waited for {self.now.lag:,.0f} s (lag_seconds)"
        if self.speed is None:
            return text
        if self.speed > 1.0:
            return f"{text}, and catches up: {self.speed:.1f} s of the log in a second"
        text += f", and falls behind: it gets through {self.speed:.2f} s of the log in a second"
        share = math.floor(self.now.share * self.speed * _SPARE * 100.0)
        if share < 1:
            return text
        return f"{text}; learn_share: {share}% would keep up"


class Learner:
    """Brings every experiment's policies up to the log, publishes versions, and refits those that
    ask for it.

    `failures` says which experiments can't learn for now, and why. `archive` gives what the log has
    let go, for an experiment that has to learn some of it again; `tables` the kept versions of the
    tables of features that decisions name.
    """

    def __init__(
        self,
        log: Log,
        experiments: Iterable[Experiment],
        archive: Archive | None = None,
        tables: EntityStore = NO_TABLES,
    ) -> None:
        self._log = log
        self._tables = tables
        self._archive = archive
        # Experiments that failed to learn a batch, which then learn a decision at a time until they
        # are past it.
        self._careful: set[str] = set()
        # Experiments that get through what they have to read too slowly: they publish nothing until
        # they have caught up.
        self._behind: dict[str, Behind] = {}
        self.lags: dict[str, float] = {}
        """Seconds that the next decision of each experiment has waited to be learned, after the
        last step; 0 where none is left that was due then."""
        self._set_aside = 0
        self._experiments: dict[str, Experiment] = {}
        self._folds: dict[str, PolicyFold] = {}
        self._refits: dict[str, PolicyFold] = {}
        self._erasures: dict[str, int] = {}
        """How often something had been erased from an experiment when its refit began."""
        self.failures = RetryTracker()
        self.reload(experiments)

    def reload(self, experiments: Iterable[Experiment]) -> None:
        """Take over changed experiments: what learning depends on decides whether the log is folded
        anew.
        """
        before = self._experiments
        self._experiments = {experiment.key: experiment for experiment in experiments}
        for key, experiment in before.items():
            if self._experiments.get(key) != experiment:
                # The next step begins with the newest snapshot. It is adopted where the learning
                # fingerprint is the same, so that an edit of, say, a title costs no learning.
                self._folds.pop(key, None)
                self._refits.pop(key, None)
                self._behind.pop(key, None)
                self.lags.pop(key, None)
                self.failures.forget(key)

    def positions(self) -> dict[str, int]:
        """By experiment the `seq` up to which no learner reads its decisions again."""
        # An experiment whose fold is not loaded yet needs everything: nobody knows where it stands.
        positions = {}
        for key in self._experiments:
            fold, refit = self._folds.get(key), self._refits.get(key)
            positions[key] = 0 if fold is None else fold.published_through
            # A refit reads the log a second time, behind the fold that it will replace.
            if refit is not None:
                positions[key] = min(positions[key], refit.published_through)
        return positions

    def needed_after(self) -> int:
        """Decisions up to this `seq` are in a published version of their experiment: no learner
        reads them again.
        """
        return needed_after(self._log, self.positions())

    def duties(self) -> list[Duty]:
        """What others must know of each experiment."""
        failures, unreadable = dict(self.failures), self.unreadable()
        duties = []
        for key, through in self.positions().items():
            behind = self._behind.get(key)
            duty = Duty(
                name=learning_lease(key),
                worker="",
                fingerprint=self._experiments[key].learning_fingerprint,
                through=through,
                lag=self.lags.get(key, 0.0),
                failing=failures.get(key, ""),
                behind="" if behind is None else str(behind),
                unreadable=unreadable.get(key, ""),
            )
            duties.append(duty)
        return duties

    def step(self) -> int:
        """Fold what has matured, some `BATCH` decisions at most; returns how many were read.

        Experiments take turns, a few pages each: those that learn from the same pages read them one
        after the other. One that can't learn doesn't keep the others from it: it is tried again
        later, from its newest version. Raises LogError, and Conflict when another worker was
        faster.
        """
        # One barrier for all, taken before anything is read: what is committed while this step runs
        # is left to the next.
        barrier = self._log.barrier()
        self._take_over_quarantine()
        keys = [key for key in self._experiments if not self.failures.is_waiting(key)]
        total, last = 0, dict[str, int]()
        while True:
            for key in keys:
                last[key] = self._attempt(key, self._read, barrier)
            # One that fails is out until the next step, at the earliest.
            keys = [key for key in keys if key not in self.failures]
            read = sum(last.values())
            total += read
            if not read or total >= BATCH:
                break
        for key in keys:
            self._note_pace(key, barrier, has_more=last[key] > 0)
            if key not in self._behind:
                self._attempt(key, self._publish, barrier)
        return total

    def _note_pace(self, key: str, barrier: int, *, has_more: bool) -> None:
        """Note whether an experiment falls behind."""
        fold = self._folds.get(key)
        pace = None
        if fold is not None and has_more:
            due = barrier - microseconds(fold.live.experiment.reward_delay)
            pace = Pace(time.monotonic(), due, fold.reached, fold.live.experiment.learn_share)
        self.lags[key] = 0.0 if pace is None else max(pace.lag, 0.0)
        if pace is None or pace.lag <= MOST_LAG:
            self._behind.pop(key, None)
        else:
            since = self._behind[key].since if key in self._behind else pace
            self._behind[key] = Behind(since, pace)

    def unreadable(self) -> dict[str, str]:
        """By experiment what is wrong with its newest version, where that can't be read."""
        return {key: fold.problem for key, fold in self._folds.items() if fold.problem}

    def _take_over_quarantine(self) -> None:
        """What was set aside since, nobody learns any more."""
        count = sum(self._log.quarantine_counts().values())
        if count != self._set_aside:
            self._set_aside = count
            for folds in (self._folds, self._refits):
                for key, fold in folds.items():
                    fold.set_aside = set_aside_decisions(self._log, key)

    def _attempt(self, key: str, turn: Callable[[str, PolicyFold, int], int], barrier: int) -> int:
        """One experiment's turn; 0 where it failed, which is noted."""
        try:
            if key not in self._folds or key in self.failures:
                self._folds[key] = self._begin(key)
            read = turn(key, self._folds[key], barrier)
        except LogError:
            # Not this experiment's fault: the log itself is in trouble, for all of them.
            raise
        except Conflict:
            # Another worker published this version. Its state is in the log, ours is superfluous.
            del self._folds[key]
            raise
        except Exception as error:
            # Half of a batch may be in the fold now. It stays for what the log must still hold, and
            # isn't used again.
            self._refits.pop(key, None)
            self._careful.add(key)
            self.failures.failed(key, error)
            return 0
        self.failures.succeeded(key)
        return read

    def _begin(self, key: str) -> PolicyFold:
        fold = PolicyFold(self._experiments[key], tables=self._tables)
        fold.resume(self._log, self._archive)
        fold.careful = key in self._careful
        return fold

    def _read(self, key: str, fold: PolicyFold, barrier: int) -> int:
        """Learn the next decisions; returns how many were read."""
        read = fold.step(self._log, barrier, limit=BATCH)
        return max(read, self._advance_refit(key, fold, barrier))

    def _publish(self, key: str, fold: PolicyFold, _barrier: int) -> int:
        """Publish what was learned, where it is time to. A fold that catches up publishes nothing:
        every version would be out of date, and cost a write of the whole state.
        """
        if fold.should_publish:
            fold.publish(self._log)
            # Past what it failed at, and that is behind it for good.
            self._careful.discard(key)
            fold.careful = False
        return 0

    def _advance_refit(self, key: str, fold: PolicyFold, barrier: int) -> int:
        """Fold what the log holds once more with all its rewards, a batch at a time; then let it
        take over.
        """
        refit = self._refits.get(key)
        if refit is None:
            if self._refit_is_due(fold, barrier):
                # It begins after what the log has let go: that part of the past is lost to it.
                first = self._log.first_seq() or 1
                refit = PolicyFold(
                    fold.live.experiment,
                    start=first - 1,
                    refit_at=barrier,
                    tables=self._tables,
                )
                # What is let go of while it reads is read from the lake.
                refit.read_what_is_let_go(self._archive)
                refit.set_aside, refit.careful = set(fold.set_aside), key in self._careful
                self._erasures[key] = len(self._log.erasures(key))
                self._refits[key] = refit
            return 0
        if len(self._log.erasures(key)) != self._erasures[key]:
            # Rows that it has read are gone, and nobody could fold them again: it begins anew.
            del self._refits[key]
            return 0
        # Never beyond the fold that decides: both then hold the same decisions, and the change is
        # of rewards only.
        read = refit.step(self._log, barrier, through=fold.watermark)
        if refit.watermark >= fold.watermark:
            refit.version = fold.version
            refit.publish(self._log)
            self._folds[key] = self._refits.pop(key)
        return read

    def _refit_is_due(self, fold: PolicyFold, barrier: int) -> bool:
        """Whether it asked for one a day, a day is over, and any decision has all its rewards."""
        experiment = fold.live.experiment
        if experiment.refit != "daily" or barrier - fold.refit_at < DAY:
            return False
        return bool(self._log.matured(experiment.key, 0, full_age(experiment), barrier, 1))


def needed_after(log: Log, positions: Mapping[str, int]) -> int:
    """The last `seq` of decisions that no learner reads again, by where each experiment's does not.
    Only its own decisions keep the log: one without traffic has no next `seq`.
    """
    through = 2**62
    for key, position in positions.items():
        next_seq = log.next_seq(key, position)
        if next_seq is not None:
            through = min(through, next_seq - 1)
    return through
