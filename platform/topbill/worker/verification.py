"""Folding an experiment's log once more from the start, to see that the stored state follows from
it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from topbill.domain.errors import NotFound
from topbill.domain.records import Snapshot
from topbill.log import Log, Matured
from topbill.policies import StateComparison, compare_states
from topbill.spec import Experiment
from topbill.worker.policy_fold import BATCH, PolicyFold

Archive = Callable[[str, int, int, int, int], list[Matured]]
"""Gives what the log has let go: (experiment, after seq, through seq, age in µs, reached by µs) →
the next matured decisions."""

_ENGINE_OF_0_1 = "vowpal-wabbit-next"
"""What learned the states of Vowpal Wabbit that no engine is stored beside."""


@dataclass(frozen=True)
class Verification:
    """The stored snapshot, and by variant how it compares with what the log leads to.

    `engines` names by variant the foreign library that folded the log again, where there is one.
    """

    snapshot: Snapshot
    comparisons: dict[str, StateComparison]
    engines: dict[str, str]

    @property
    def same(self) -> bool:
        """Whether no variant was found to differ."""
        return all(comparison.same is not False for comparison in self.comparisons.values())


def verify(log: Log, experiment: Experiment, archive: Archive) -> Verification:
    """Fold an experiment's log again from where its newest version began, and compare: byte for
    byte, but for what a foreign library keeps beside what it has learned.

    Args:
        log: The log.
        experiment: What learned, as `fold_again` takes it.
        archive: Gives what the log has already let go.

    Raises:
        NotFound: Nothing was learned yet, or the experiment learns otherwise than the snapshot did.
    """
    snapshot, states = fold_again(log, experiment, archive)
    fold = PolicyFold(experiment)
    engines = fold.engines()
    comparisons: dict[str, StateComparison] = {}
    for variant, policy in fold.live.policies.items():
        stored = snapshot.states.get(variant)
        if stored is None:
            comparisons[variant] = StateComparison(same=False, note="nothing is stored of it")
            continue
        comparison = compare_states(policy, stored, states[variant], experiment.encoded_actions)
        engine = engines.get(variant)
        if engine is not None and comparison.same is False:
            before = snapshot.engines.get(variant, _ENGINE_OF_0_1)
            comparison = _between_engines(comparison, before, engine)
        comparisons[variant] = comparison
    for variant in snapshot.states.keys() - comparisons.keys():
        comparisons[variant] = StateComparison(
            same=False, note="the experiment has no such variant"
        )
    return Verification(snapshot, comparisons, engines)


def _between_engines(comparison: StateComparison, before: str, now: str) -> StateComparison:
    """A difference as what it is where the stored state was learned by another foreign library.

    Two builds of Vowpal Wabbit learn alike while no feature is 0. Where some are, as all but one of
    a category are, their learning rates differ, and so does all that follows.
    """
    if before.split()[0] == now.split()[0]:
        return comparison
    return StateComparison(
        same=None,
        note=f"{comparison.note}: {before} learned what is stored and {now} folded the log again, "
        "which may learn otherwise; verify it where the former is installed",
    )


def fold_again(
    log: Log, experiment: Experiment, archive: Archive
) -> tuple[Snapshot, dict[str, bytes]]:
    """The newest snapshot, and the states reached by folding everything from its start up to the
    same watermark.

    Raises NotFound where nothing was learned yet, or where the experiment learns otherwise than the
    snapshot did.
    """
    snapshot = log.snapshot(experiment.key)
    if snapshot is None:
        raise NotFound(
            f"{experiment.key}: no policy version in the log yet; "
            "start `topbill worker` and send rewards"
        )
    if snapshot.fingerprint != experiment.learning_fingerprint:
        raise NotFound(
            f"{experiment.key}: version {snapshot.version} was learned under other features, "
            "metrics or policies than the file has now; "
            "let `topbill worker` learn the new ones first"
        )

    fold = PolicyFold(experiment, snapshot.start, snapshot.refit_at)
    # The parts of a refit follow each other in the log: the older one is over before the other.
    for age, reached in fold.ages(log.barrier()):
        while rows := _next_rows(log, archive, fold, age, reached, snapshot.watermark):
            fold.learn(rows)
    return snapshot, fold.states()


def _next_rows(
    log: Log, archive: Archive, fold: PolicyFold, age: int, reached: int, through: int
) -> list[Matured]:
    """What the fold learns next, up to the `seq` called `through`; empty where there is no more.

    The log lets go from its beginning, so that what is missing there is one range of `seq` before
    what it still holds, and the lake has that range.
    """
    key = fold.live.experiment.key
    while fold.watermark < through:
        first = log.first_seq()
        gone = through if first is None else min(first - 1, through)
        if fold.watermark < gone:
            rows = archive(key, fold.watermark, gone, age, reached)
            if rows:
                return rows
        rows = log.matured(key, fold.watermark, age, reached, BATCH)
        # A worker beside this one may let go of decisions between the two questions. They would be
        # missing from `rows` without a trace, so both are put again.
        if log.first_seq() == first:
            return [row for row in rows if row.seq <= through]
    return []
