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

import msgspec

from topbill.domain.chance import is_learned
from topbill.domain.errors import LogError, NotFound, PolicyError
from topbill.domain.metric import microseconds
from topbill.domain.records import (
    NULL,
    Decision,
    Placement,
    Policy,
    QuarantinedRow,
    RewardEvent,
    Snapshot,
)
from topbill.engine import CompiledExperiment, adopt_newest, teach
from topbill.entities import NO_TABLES, EntityStore
from topbill.log import Log, Matured
from topbill.policies import engine_of
from topbill.spec import Experiment
from topbill.worker import warm_start
from topbill.worker.archive import Archive, Span, next_rows
from topbill.worker.setting_aside import quarantined, set_aside, set_aside_decisions

_logger = logging.getLogger("topbill")
BATCH = 2_000
_NO_END = 2**62
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
        reached: When the last decision was made that is folded in (µs, log time); 0 before any.
        published_through: The last `seq` that no fold has to read again, because a published
            version holds it or it had nothing to teach. The log may let go what is before it.
        refit_at: Splits the log (µs since the epoch): decisions that had reached the longest window
            of the objective by then are learned from all their rewards, later ones from those that
            came within `reward_delay`. 0 for a fold that is no refit.
        learned: How many examples this process has folded in.
        set_aside: The `seq` of decisions that nobody learns from.
        careful: Whether decisions are learned one at a time, so that one that a policy cannot learn
            is set aside: for an experiment that failed to learn a batch.
        problem: Why the newest version could not be read; "" once there is a newer one.
    """

    def __init__(
        self,
        experiment: Experiment,
        start: int = 0,
        refit_at: int = 0,
        tables: EntityStore = NO_TABLES,
    ) -> None:
        self.live = CompiledExperiment(experiment, tables)
        self.version = 0
        self.start = start
        self.watermark = start
        self.reached = 0
        self.published_through = start
        self.refit_at = refit_at
        self.learned = 0
        self.set_aside: set[int] = set()
        self.careful = False
        self.problem = ""
        self._begins_anew = False
        # What variants start from is learned before their first decision.
        self._starts_warm = bool(warm_start.sources(experiment))
        # Up to here it reads from the lake what the log has let go: where a version that held it
        # can't be read, and while it reads what nobody keeps for it yet.
        self._recovers_through = 0
        self._archive: Archive | None = None
        self._learned_when_published = 0
        self._published_at = 0.0

    def resume(self, log: Log, archive: Archive | None = None) -> None:
        """Continue where the newest snapshot says; from the start of the log if it is of another
        fingerprint. Where it can't be read, from the newest one that can, or from where it began;
        what the log has let go since then is learned from the `archive`.
        """
        self.set_aside = set_aside_decisions(log, self.live.experiment.key)
        adoption = adopt_newest(log, self.live)
        newest, snapshot = adoption.newest, adoption.snapshot
        if newest is None:
            self._begin_anew(archive)
            return
        if snapshot is not None:
            # It holds what its variants started from, too.
            self._starts_warm = False
            self._begin_at(snapshot.watermark, snapshot.start, snapshot.refit_at)
            self._note_engines(snapshot)
        if adoption.problem and newest.fingerprint == self.live.experiment.learning_fingerprint:
            if snapshot is None:
                self._begin_at(newest.start, newest.start, newest.refit_at)
            self.problem = adoption.problem
            _logger.warning("%s: %s", self.live.experiment.key, adoption.problem)
            self._recovers_through, self._archive = newest.watermark, archive
        elif snapshot is None:
            self._begin_anew(archive)
        # Versions count on, also over a snapshot that can't be used: readers take the highest.
        self.version = newest.version

    def _begin_anew(self, archive: Archive | None) -> None:
        """Learn what the log holds when there first is something."""
        self._begins_anew = True
        self.read_what_is_let_go(archive)

    def read_what_is_let_go(self, archive: Archive | None) -> None:
        """Read from the lake what the log lets go of, until all is read that is there: who lets go
        does not know at once that this fold needs it.
        """
        self._recovers_through, self._archive = _NO_END, archive

    def _begin_at(self, watermark: int, start: int, refit_at: int) -> None:
        self.watermark = self.published_through = watermark
        self.start, self.refit_at = start, refit_at

    def _note_engines(self, snapshot: Snapshot) -> None:
        """Say where another build of a foreign library goes on with what one has learned."""
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
        if self._starts_warm and not warm_start.is_ready(self.live.experiment, log, barrier):
            return 0
        if self._begins_anew:
            first = log.first_seq()
            if first is None:
                return 0
            # What the log had let go of before is not learned: whoever verifies begins here too.
            self._begin_at(first - 1, first - 1, 0)
            self._begins_anew = False
        if self._starts_warm:
            self.learned += warm_start.learn_first(self.live, log, self._archive)
            self._starts_warm = False
        for age, reached in self.ages(barrier):
            rows = self._next_rows(log, age, reached, limit)
            rows = [row for row in rows if row[0] <= through]
            if not rows and self.live.experiment.learn_share < 1.0:
                self._pass_unlearned(log, age, reached, through)
            if rows and self.careful:
                self._learn_carefully(log, rows)
            elif rows:
                self.learn(rows)
            if rows:
                return len(rows)
        if self._recovers_through == _NO_END and not self._begins_anew:
            self._recovers_through = 0
        return 0

    def _pass_unlearned(self, log: Log, age: int, reached: int, through: int) -> None:
        """Be past the decisions that are left, none of which is in the share that is learned: the
        log need not keep them.
        """
        last = log.last_matured(self.live.experiment.key, self.watermark, age, reached)
        if last is not None and last <= through:
            self._move_to(last)

    def _next_rows(self, log: Log, age: int, reached: int, limit: int) -> list[Matured]:
        key = self.live.experiment.key
        if self.watermark < self._recovers_through and self._archive is not None:
            span = Span(key, self.watermark, self._recovers_through, age, reached)
            try:
                rows = next_rows(log, self._archive, span, limit)[:limit]
            except NotFound as error:
                self._archive = None
                _logger.warning("%s: %s; it learns what the log holds", key, error)
                rows = []
            except LogError as error:
                # The lake's, as a rule: no other experiment needs it, and the log says its own.
                raise PolicyError(f"what the log has let go is not there yet: {error}") from error
            if rows:
                return rows
        share = self.live.experiment.learn_share
        return log.matured(key, self.watermark, age, reached, limit, share)

    def learn(self, rows: Sequence[Matured]) -> None:
        """Learn from matured decisions, the next ones in the order of the log: from those of the
        experiment's `learn_share`.
        """
        share = self.live.experiment.learn_share
        lessons = []
        for row in rows:
            seq, decision = row[:2]
            if seq not in self.set_aside and is_learned(decision.decision_id, share):
                lessons.append(row[1:])
        self.learned += teach(self.live, lessons)
        # Last: an error above leaves the watermark where it was. Half of a batch may then be in the
        # policies, so whoever catches it must throw this fold away.
        seq, decision, *_ = rows[-1]
        self.reached = decision.decided_at
        self._move_to(seq)

    def _move_to(self, seq: int) -> None:
        self.watermark = seq
        if self.learned == self._learned_when_published:
            # Nothing was learned since: there is no version to wait for, and an experiment whose
            # decisions teach nothing (paused, or fallbacks only) doesn't keep them in the log.
            self.published_through = self.watermark

    def _learn_carefully(self, log: Log, rows: Sequence[Matured]) -> None:
        """Learn decisions one at a time. One that a policy cannot learn leaves no trace in any, and
        is set aside.

        Raises whatever the first one raises where the experiment can learn nothing at all: that is
        no decision's fault, and none is set aside.
        """
        refused: list[QuarantinedRow] = []
        before, learned_since = self.snapshot(), list[Matured]()
        for row in rows:
            learned = self.learned
            learned_since.append(row)
            try:
                self.learn([row])
            except MemoryError:
                raise
            except Exception as error:
                if not refused and not can_learn(self.live.experiment, before):
                    raise
                refused.append(quarantined(row.seq, row.decision, "learn", error))
                self.set_aside.add(row.seq)
                # Half of what it teaches may be in the policies: back to before, and again without.
                self.live.adopt(before)
                self.learn(learned_since)
                self.learned = learned
                before, learned_since = self.snapshot(), []
        set_aside(log, refused)

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
        if self.problem:
            # A version that can be read takes the place of one that can't, once it holds as much.
            return self.watermark >= self._recovers_through
        if self.learned == before:
            return False
        grown = self.learned >= before * (1.0 + GROWTH)
        return grown or time.monotonic() - self._published_at >= LONGEST_WAIT

    def snapshot(self) -> Snapshot:
        """What it has learned, as the version after the newest."""
        return Snapshot(
            experiment=self.live.experiment.key,
            version=self.version + 1,
            watermark=self.watermark,
            fingerprint=self.live.experiment.learning_fingerprint,
            states=self.states(),
            engines=self.engines(),
            start=self.start,
            refit_at=self.refit_at,
        )

    def publish(self, log: Log) -> None:
        """Write state, watermark and version at once. Raises Conflict when another worker was
        faster.
        """
        snapshot = self.snapshot()
        log.write_snapshot(snapshot)
        self.version = snapshot.version
        self.published_through = self.watermark
        self.problem = ""
        self._learned_when_published = self.learned
        self._published_at = time.monotonic()


def can_learn(experiment: Experiment, snapshot: Snapshot) -> bool:
    """Whether each variant can learn the plainest decision that there is: nothing of it is kept."""
    live = CompiledExperiment(experiment)
    if not live.adopt(snapshot):
        return False
    offered = NULL if experiment.actions else msgspec.Raw(b'[{"id":"probe"}]')
    ids = live.actions.ids or ("probe",)
    events = []
    for name in live.events:
        events.append(RewardEvent(decision_id="probe", event_id=name, event=name, position=0))
    for variant in experiment.variants:
        decision = Decision(
            decision_id="probe",
            experiment=experiment.key,
            revision=live.revision,
            variant=variant.name,
            unit="probe",
            actions=offered,
            eligible=ids,
            slate=(Placement(0, ids[0], 1.0 / len(ids)),),
            policy=variant.policy,
            reason="policy",
        )
        try:
            teach(live, [(decision, events)])
        except Exception:
            return False
    return True


def full_age(experiment: Experiment) -> int:
    """µs after which no event counts in the objective any more."""
    return microseconds(max(experiment.goal.window, experiment.reward_delay))
