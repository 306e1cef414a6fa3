"""An experiment's policies as a fold over the log: each decision once, at the age `reward_delay`,
in the order of the log.

The state is a function of the log alone: whoever folds the same rows reaches the same bytes,
however often the worker died in between and however the rows fell into batches. Three things make
it so.

- The order is that of `seq`, which the log gave each decision when it was committed. Arrival times
  would not do: two processes' clocks may disagree, and floating-point sums depend on their order.
- A decision is read at a fixed age, with the events that had come by then and no others. What comes
  later changes nothing, so it does not matter when the worker gets round to it.
- State and watermark are written in one transaction. A worker that dies before it starts again from
  the version before, one that dies after goes on behind it: no decision is learned twice or
  skipped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from topbill.domain.metric import microseconds
from topbill.domain.records import Policy, Snapshot
from topbill.engine import CompiledExperiment, teach
from topbill.log import Log, Matured
from topbill.policies import engine_of
from topbill.spec import Experiment

_logger = logging.getLogger("topbill")
BATCH = 2_000
GROWTH = 0.01
"""A new version is published when the examples have grown by this share: what one example more
changes falls with their number, and the number of versions stays logarithmic."""
LONGEST_WAIT = 60.0
"""Seconds after which what was learned is published in any case."""


class PolicyFold:
    """The policies of one experiment, and the log position up to which they have learned.

    Attributes:
        live: The experiment compiled, with the policies that learn.
        version: The number of the newest version that was published, by whomever.
        start: The `seq` after which this fold began; above 0 for a refit, which begins with what
            the log still holds.
        watermark: The last `seq` that is folded in.
        published_through: The last `seq` that no fold has to read again, because a published
            version holds it or it had nothing to teach. The log may let go what is before it.
        refit_at: Splits the log (µs since the epoch): decisions that had reached the longest window
            of the objective by then are learned from all their rewards, later ones from those that
            came within `reward_delay`. 0 for a fold that is no refit.
        learned: How many examples this process has folded in.
    """

    def __init__(self, experiment: Experiment, start: int = 0, refit_at: int = 0) -> None:
        self.live = CompiledExperiment(experiment)
        self.version = 0
        self.start = start
        self.watermark = start
        self.published_through = start
        self.refit_at = refit_at
        self.learned = 0
        self._learned_when_published = 0
        self._published_at = 0.0

    def resume(self, log: Log) -> None:
        """Continue where the newest snapshot says; from the start of the log if it is of another
        fingerprint.
        """
        snapshot = log.snapshot(self.live.experiment.key)
        if snapshot is None:
            return
        if self.live.adopt(snapshot):
            self.watermark = snapshot.watermark
            self.published_through = snapshot.watermark
            self.start = snapshot.start
            self.refit_at = snapshot.refit_at
            for variant, engine in self.engines().items():
                before = snapshot.engines.get(variant, engine)
                if before != engine:
                    _logger.info(
                        "%s: %s goes on with %s from what %s learned",
                        snapshot.experiment,
                        variant,
                        engine,
                        before,
                    )
        # Versions count on, also over a snapshot that can't be used: readers take the highest.
        self.version = snapshot.version

    def ages(self, barrier: int) -> list[tuple[int, int]]:
        """(age at which decisions are learned, time at which they must have reached it), in µs,
        oldest part first.

        The parts are folded one after the other, and each is a range of `seq`: decisions are
        stamped in the order of the log, so those that were old enough at `refit_at` come before
        all others.
        """
        early = (microseconds(self.live.experiment.reward_delay), barrier)
        if not self.refit_at:
            return [early]
        return [(full_age(self.live.experiment), self.refit_at), early]

    def step(self, log: Log, barrier: int, through: int = 2**62, limit: int = BATCH) -> int:
        """Fold the next matured decisions (at most `limit`, none with seq > `through`); returns how
        many were read.

        `barrier` (µs) is the time up to which nothing can be committed any more: a decision that is
        old enough by then has all of its events in the log.
        """
        for age, reached in self.ages(barrier):
            rows = log.matured(self.live.experiment.key, self.watermark, age, reached, limit)
            rows = [row for row in rows if row[0] <= through]
            if rows:
                self.learn(rows)
                return len(rows)
        return 0

    def learn(self, rows: Sequence[Matured]) -> None:
        """Learn from matured decisions, the next ones in the order of the log."""
        self.learned += teach(self.live, [(decision, events) for _, decision, events in rows])
        # Last: an error above leaves the watermark where it was. Half of a batch may then be in the
        # policies, so whoever catches it must throw this fold away.
        self.watermark = rows[-1][0]
        if self.learned == self._learned_when_published:
            # Nothing was learned since: there is no version to wait for, and an experiment whose
            # decisions teach nothing (paused, or fallbacks only) doesn't keep them in the log.
            self.published_through = self.watermark

    def states(self) -> dict[str, bytes]:
        """Each variant's policy as bytes."""
        policies: dict[str, Policy] = self.live.policies
        return {name: policy.dump() for name, policy in policies.items()}

    def engines(self) -> dict[str, str]:
        """By variant the package and version of the foreign library that learns for it; variants
        that none learns for are left out.
        """
        engines = {}
        for name, policy in self.live.policies.items():
            engine = engine_of(policy)
            if engine is not None:
                engines[name] = engine
        return engines

    @property
    def should_publish(self) -> bool:
        """Whether enough was learned since the last version, or long enough ago."""
        before = self._learned_when_published
        if self.learned == before:
            return False
        grown = self.learned >= before * (1.0 + GROWTH)
        return grown or time.monotonic() - self._published_at >= LONGEST_WAIT

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
            engines=self.engines(),
            start=self.start,
            refit_at=self.refit_at,
        )
        log.write_snapshot(snapshot)
        self.version = snapshot.version
        self.published_through = self.watermark
        self._learned_when_published = self.learned
        self._published_at = time.monotonic()


def full_age(experiment: Experiment) -> int:
    """µs after which no event counts in the objective any more."""
    return microseconds(max(experiment.goal.window, experiment.reward_delay))
