"""What policies learn before their first decision: the log of another experiment, where a variant
says `start_from: {log: KEY, until: …}`.

It is the beginning of the fold: the same decisions in the same order with the same events, whoever
folds and whenever, since only such count as were made before `until`, each with what came while the
objective's longest window was open.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from topbill.domain.metric import microseconds
from topbill.engine import CompiledExperiment, teach
from topbill.log import Log, Matured
from topbill.spec import Experiment, Variant
from topbill.worker.archive import Archive, Span, next_rows
from topbill.worker.setting_aside import set_aside_decisions

_BATCH = 2_000
_NO_END = 2**62


def sources(experiment: Experiment) -> tuple[str, ...]:
    """The experiments whose logs variants of this one start from."""
    keys = [v.start_from.log for v in experiment.variants if v.start_from is not None]
    return tuple(dict.fromkeys(filter(None, keys)))


def is_ready(experiment: Experiment, barrier: int) -> bool:
    """Whether at `barrier` (µs, log time) all is known that its variants start from."""
    return all(_reached(experiment, variant) <= barrier for variant in experiment.variants)


def learn_first(live: CompiledExperiment, log: Log, archive: Archive | None) -> int:
    """Teach the policies what they start from; how many examples that is."""
    learned = 0
    for variant in live.experiment.variants:
        if variant.start_from is not None and variant.start_from.log:
            learned += _learn(live, variant, log, archive or _nothing)
    return learned


def _learn(live: CompiledExperiment, variant: Variant, log: Log, archive: Archive) -> int:
    assert variant.start_from is not None  # noqa: S101 (asked by the caller)
    key, age = variant.start_from.log, _age(live.experiment)
    reached = _reached(live.experiment, variant)
    # An experiment of this one variant: nobody else learns from what another log says.
    alone = replace(variant, control=True, training="own")
    student = CompiledExperiment(
        replace(live.experiment, variants=(alone,), overrides=(), launch=None, conclusion=None)
    )
    student.policies = {variant.name: live.policies[variant.name]}
    aside = set_aside_decisions(log, key)
    learned = after = 0
    while rows := next_rows(log, archive, Span(key, after, _NO_END, age, reached), _BATCH):
        after = rows[-1].seq
        lessons = []
        for row in rows:
            # A fallback's probabilities are none of its variant's.
            if row.seq not in aside and row.decision.reason == "policy":
                # Whoever decided it, it teaches this variant.
                decision = msgspec.structs.replace(row.decision, variant=variant.name)
                lessons.append((decision, *row[2:]))
        learned += teach(student, lessons)
    return learned


def _age(experiment: Experiment) -> int:
    """µs after which no event counts in the objective any more."""
    return microseconds(max(experiment.goal.window, experiment.reward_delay))


def _reached(experiment: Experiment, variant: Variant) -> int:
    """When the last decision that the variant starts from is that old (µs); 0 where none is."""
    start = variant.start_from
    if start is None or not start.log:
        return 0
    # Before `until`, and not at it: times are whole microseconds.
    return round(start.until * 1e6) - 1 + _age(experiment)


def _nothing(_span: Span, _steps: object) -> list[Matured]:
    """An archive without a lake."""
    return []
