"""Folding an experiment's log once more from the start, to see that the stored state follows from
it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from topbill.domain.errors import DamagedSnapshot, NotFound, PolicyError
from topbill.domain.records import Snapshot
from topbill.entities import NO_TABLES, EntityStore
from topbill.log import Erasure, Log
from topbill.log.learning import as_learned
from topbill.policies import StateComparison, compare_states
from topbill.spec import Experiment
from topbill.worker.archive import Archive, Span, next_rows
from topbill.worker.policy_fold import BATCH, PolicyFold
from topbill.worker.setting_aside import set_aside_decisions
from topbill.worker.warm_start import learn_first, sources

_ENGINE_OF_0_1 = "vowpal-wabbit-next"
"""What learned the states of Vowpal Wabbit that no engine is stored beside."""


@dataclass(frozen=True)
class Verification:
    """The stored snapshot, the states that the log leads to, and by variant how the two compare.

    `engines` names by variant the foreign library that folded the log again, where there is one;
    `erasure` the one from which it was folded, None for a fold from the start.
    """

    snapshot: Snapshot
    states: dict[str, bytes]
    comparisons: dict[str, StateComparison]
    engines: dict[str, str]
    erasure: Erasure | None = None

    @property
    def same(self) -> bool:
        """Whether no variant was found to differ."""
        return all(comparison.same is not False for comparison in self.comparisons.values())


def verify(
    log: Log, experiment: Experiment, archive: Archive, tables: EntityStore = NO_TABLES
) -> Verification:
    """Fold an experiment's log again from where its newest version began, and compare: byte for
    byte, but for what a foreign library keeps beside what it has learned.

    Args:
        log: The log.
        experiment: What learned, as `fold_again` takes it.
        archive: Gives what the log has already let go.
        tables: Gives the versions of tables that decisions name.

    Raises:
        NotFound: Nothing was learned yet, or the experiment learns otherwise than the snapshot did.
    """
    experiment = as_learned(experiment, log)
    snapshot, states = fold_again(log, experiment, archive, tables)
    fold = PolicyFold(experiment)
    engines = fold.engines()
    comparisons: dict[str, StateComparison] = {}
    for variant, policy in fold.live.policies.items():
        stored = snapshot.states.get(variant)
        if stored is None:
            comparisons[variant] = StateComparison(
                same=False, note="nothing that can be read is stored of it"
            )
            continue
        try:
            comparison = compare_states(policy, stored, states[variant], experiment.encoded_actions)
        except PolicyError as error:
            comparison = StateComparison(same=False, note=f"what is stored of it: {error}")
        engine = engines.get(variant)
        if engine is not None and comparison.same is False:
            before = snapshot.engines.get(variant, _ENGINE_OF_0_1)
            comparison = _between_engines(comparison, before, engine)
        comparisons[variant] = comparison
    for variant in snapshot.states.keys() - comparisons.keys():
        comparisons[variant] = StateComparison(
            same=False, note="the experiment has no such variant"
        )
    checkpoint = _checkpoint(log, experiment, snapshot)
    erasure = None if checkpoint is None else checkpoint[0]
    return Verification(snapshot, states, comparisons, engines, erasure)


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
    log: Log, experiment: Experiment, archive: Archive, tables: EntityStore = NO_TABLES
) -> tuple[Snapshot, dict[str, bytes]]:
    """The newest snapshot (without states where those can't be read), and the states reached by
    folding everything from its start up to the same watermark; from the version that stood at the
    last erasure, where there was one, since what was erased is in that state and nowhere else.

    Raises NotFound where nothing was learned yet, or where the experiment learns otherwise than the
    snapshot did.
    """
    snapshot = _newest(log, experiment.key)
    if snapshot.fingerprint != experiment.learning_fingerprint:
        raise NotFound(
            f"{experiment.key}: version {snapshot.version} was learned under other features, "
            "metrics or policies than the file has now; "
            "let `topbill worker` learn the new ones first"
        )

    fold = PolicyFold(experiment, snapshot.start, snapshot.refit_at, tables)
    fold.set_aside = set_aside_decisions(log, experiment.key)
    checkpoint = _checkpoint(log, experiment, snapshot)
    if checkpoint is not None and fold.live.adopt(checkpoint[1]):
        fold.watermark = checkpoint[1].watermark
    else:
        learn_first(fold.live, log, archive)
    # The parts of a refit follow each other in the log: the older one is over before the other.
    for age, reached in fold.ages(log.barrier()):
        while True:
            span = Span(experiment.key, fold.watermark, snapshot.watermark, age, reached)
            rows = next_rows(log, archive, span, BATCH)
            if not rows:
                break
            fold.learn(rows)
    return snapshot, fold.states()


def _checkpoint(
    log: Log, experiment: Experiment, newest: Snapshot
) -> tuple[Erasure, Snapshot] | None:
    """The last erasure during the fold that led to a snapshot, and the version that stood then.
    One that began later, such as a refit, never saw what was erased. None likewise where that
    version cannot be read.
    """
    for erasure in reversed(log.erasures(newest.experiment)):
        try:
            snapshot = log.snapshot(newest.experiment, erasure.version)
        except DamagedSnapshot:
            continue
        if snapshot is not None and _is_of_fold(snapshot, newest):
            return erasure, snapshot
    return _before_erasure_of_sources(log, experiment, newest)


def _before_erasure_of_sources(
    log: Log, experiment: Experiment, newest: Snapshot
) -> tuple[Erasure, Snapshot] | None:
    """The same where rows were erased of a log that variants started from: the newest version that
    stood before.
    """
    for key in sources(experiment):
        for erasure in reversed(log.erasures(key)):
            for head in log.snapshot_heads(newest.experiment):
                try:
                    snapshot = log.snapshot(newest.experiment, head.version)
                except DamagedSnapshot:
                    continue
                if snapshot and snapshot.at <= erasure.at and _is_of_fold(snapshot, newest):
                    return erasure._replace(version=snapshot.version), snapshot
    return None


def _is_of_fold(earlier: Snapshot, later: Snapshot) -> bool:
    same = (earlier.fingerprint, earlier.start, earlier.refit_at) == (
        later.fingerprint,
        later.start,
        later.refit_at,
    )
    return same and earlier.watermark <= later.watermark


def _newest(log: Log, key: str) -> Snapshot:
    heads = log.snapshot_heads(key)
    if not heads:
        raise NotFound(
            f"{key}: no policy version in the log yet; start `topbill worker` and send rewards"
        )
    head = heads[0]
    try:
        snapshot = log.snapshot(key, head.version)
    except DamagedSnapshot:
        snapshot = None
    return snapshot or Snapshot(experiment=key, states={}, **head._asdict())


def repair(log: Log, verification: Verification) -> Snapshot:
    """Write what the fold says as the experiment's next version; services and worker go on from it.

    Raises:
        Conflict: A worker wrote a version meanwhile; verify again.
        LogError: Nothing was stored.
    """
    repaired = msgspec.structs.replace(
        verification.snapshot,
        version=verification.snapshot.version + 1,
        states=verification.states,
        engines=verification.engines,
    )
    log.write_snapshot(repaired)
    return repaired
