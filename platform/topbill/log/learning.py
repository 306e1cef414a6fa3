"""In which order an experiment goes on learning: features and metrics are a model's columns, so a
file that only names them in another order goes on in that of before."""

from __future__ import annotations

import dataclasses

from topbill.domain.errors import SpecError
from topbill.log.protocol import Log
from topbill.spec import Experiment, from_audit
from topbill.spec.model import LearnedAs


def as_learned(experiment: Experiment, log: Log) -> Experiment:
    """The experiment, learning in the order of the newest stored version that learned the same; in
    its own where there is none. Follows from the log alone, so that worker and services find the
    same.
    """
    own = dataclasses.replace(experiment, learned_as=None)
    stored = dict.fromkeys(head.fingerprint for head in log.snapshot_heads(experiment.key))
    if not stored or next(iter(stored)) == own.learning_fingerprint:
        return own
    earlier = _revisions(experiment.key, log)
    for fingerprint in stored:
        if fingerprint == own.learning_fingerprint:
            return own
        revision = earlier.get(fingerprint)
        if revision is not None and _learn_the_same(own, revision):
            order = (revision.context, revision.action_features, revision.metrics)
            return dataclasses.replace(own, learned_as=LearnedAs(fingerprint, *order))
    return own


def _revisions(key: str, log: Log) -> dict[str, Experiment]:
    """The revisions of the audit that this version can read, by learning fingerprint."""
    revisions = {}
    for line in log.revisions(key):
        try:
            revision = from_audit(line.spec, f"{key} (as it was)", line.revision)
        except SpecError:
            continue
        revisions[revision.learning_fingerprint] = revision
    return revisions


def _learn_the_same(one: Experiment, other: Experiment) -> bool:
    # What tables give stands in their order, which is none of the features'.
    return one.learning_content == other.learning_content and one.entities == other.entities
