"""What policies know before their first decision: the log of another experiment, where a variant
says `start_from: {log: KEY, until: …}`, or what earlier experiments tell of actions, where it says
`prior: {from: [KEY, …]}`.

It is the beginning of the fold: the same decisions in the same order with the same events, whoever
folds and whenever, since only such count as were made before a fixed time, each with what came
while the objective's longest window was open.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from topbill.domain.metric import microseconds
from topbill.engine import CompiledExperiment, teach
from topbill.log import Log, Matured
from topbill.policies.linear.prior import empirical_prior
from topbill.spec import Experiment, Variant
from topbill.worker.archive import Archive, Span, next_rows
from topbill.worker.earlier import EarlierSums
from topbill.worker.setting_aside import set_aside_decisions

_BATCH = 2_000
_NO_END = 2**62


def sources(experiment: Experiment) -> tuple[str, ...]:
    """The experiments that variants of this one start from."""
    keys = [key for variant in experiment.variants for key in _sources(variant)]
    return tuple(dict.fromkeys(keys))


def _sources(variant: Variant) -> tuple[str, ...]:
    """Those of one variant."""
    if variant.prior is not None:
        return variant.prior.experiments
    if variant.start_from is not None and variant.start_from.log:
        return (variant.start_from.log,)
    return ()


def is_ready(experiment: Experiment, log: Log, barrier: int) -> bool:
    """Whether at `barrier` (µs, log time) all is known that its variants start from."""
    for variant in experiment.variants:
        reached = _reached(experiment, variant, log)
        if reached is None or reached > barrier:
            return False
    return True


def learn_first(live: CompiledExperiment, log: Log, archive: Archive | None) -> int:
    """Teach the policies what they start from; how many examples that is, or actions of which a
    prior was estimated.
    """
    learned = 0
    for variant in live.experiment.variants:
        if variant.prior is not None:
            learned += _begin(live, variant, log, archive or _nothing)
        elif _sources(variant):
            learned += _learn(live, variant, log, archive or _nothing)
    return learned


def _begin(live: CompiledExperiment, variant: Variant, log: Log, archive: Archive) -> int:
    """Let a policy expect of actions what earlier experiments tell."""
    earlier = []
    for key in _sources(variant):
        sums = EarlierSums(key, live.experiment, log)
        for rows in _rows(live.experiment, variant, key, log, archive):
            sums.add(rows)
        earlier.append(sums.result())
    prior = empirical_prior(earlier)
    if prior is None:
        return 0
    policy: Any = live.policies[variant.name]
    policy.begin(prior)
    return prior.actions


def _learn(live: CompiledExperiment, variant: Variant, log: Log, archive: Archive) -> int:
    # An experiment of this one variant: nobody else learns from what another log says.
    alone = replace(variant, control=True, training="own")
    student = CompiledExperiment(
        replace(live.experiment, variants=(alone,), overrides=(), launch=None, conclusion=None)
    )
    student.policies = {variant.name: live.policies[variant.name]}
    learned = 0
    (key,) = _sources(variant)
    for rows in _rows(live.experiment, variant, key, log, archive):
        lessons = []
        for row in rows:
            # A fallback's probabilities are none of its variant's.
            if row.decision.reason == "policy":
                # Whoever decided it, it teaches this variant.
                decision = msgspec.structs.replace(row.decision, variant=variant.name)
                lessons.append((decision, *row[2:]))
        learned += teach(student, lessons)
    return learned


def _rows(
    experiment: Experiment, variant: Variant, key: str, log: Log, archive: Archive
) -> Iterator[list[Matured]]:
    """What was decided in experiment `key` before the variant's `until`, in the order of that log,
    without what nobody learns from.
    """
    aside = set_aside_decisions(log, key)
    reached = _reached(experiment, variant, log) or 0
    after = 0
    while rows := next_rows(
        log, archive, Span(key, after, _NO_END, _age(experiment), reached), _BATCH
    ):
        after = rows[-1].seq
        yield [row for row in rows if row.seq not in aside]


def _age(experiment: Experiment) -> int:
    """µs after which no event counts in the objective any more."""
    return microseconds(max(experiment.goal.window, experiment.reward_delay))


def _reached(experiment: Experiment, variant: Variant, log: Log) -> int | None:
    """When the last decision that the variant starts from had reached `_age` (µs); 0 where there is
    none, None where nobody knows yet when the experiment began.
    """
    if not _sources(variant):
        return 0
    start = variant.prior or variant.start_from
    assert start is not None  # noqa: S101 (it has sources)
    # Before `until`, and not at it: times are whole microseconds.
    if start.until:
        return round(start.until * 1e6) - 1 + _age(experiment)
    # What had got all of its rewards when this experiment was first read: nobody waits for it.
    audit = log.revisions(experiment.key)
    return audit[0].at - 1 if audit else None


def _nothing(_span: Span, _steps: object) -> list[Matured]:
    """An archive without a lake."""
    return []
