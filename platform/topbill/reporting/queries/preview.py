"""What would each variant show to this viewer now? The published policies asked about a context;
nothing is logged.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from topbill.domain.chance import hash64, uniform
from topbill.domain.records import Floats
from topbill.domain.slate import distribution, rank
from topbill.engine import CompiledExperiment
from topbill.entities import EntityStore
from topbill.log import has_log, open_log_of
from topbill.log.learning import as_learned
from topbill.reporting.queries.database import load_experiment
from topbill.spec import Variant


class PreviewedVariant(msgspec.Struct, frozen=True, kw_only=True):
    """One variant's answer: `slate` as drawn for this preview, `probabilities` of every action at
    the first position.

    `why` gives, per action, what each named feature adds to its score; empty where the policy has
    no such notion.
    """

    variant: str
    policy: str
    control: bool
    slate: list[str]
    propensities: list[float]
    probabilities: dict[str, float]
    scores: dict[str, float]
    why: dict[str, dict[str, float]]


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """Every variant's answer to one context, by the policies of `version` (0: nothing learned
    yet).
    """

    version: int
    variants: list[PreviewedVariant]


def load_policies(data: Path | str, key: str) -> CompiledExperiment:
    """The experiment as published with its newest policies. The lake keeps no policies: this one
    blob is the log's.

    Without a log beside the lake, or with a snapshot of other features, policies are as before any
    learning.

    Raises:
        NotFound: there is no such experiment.
    """
    experiment = load_experiment(data, key)
    tables = EntityStore(Path(data))
    tables.resume(experiment.entities)
    # A copied data folder may have the lake alone.
    if not has_log(Path(data)):
        return CompiledExperiment(experiment, tables)
    with open_log_of(Path(data)) as log:
        snapshot = log.snapshot(key)
        compiled = CompiledExperiment(as_learned(experiment, log), tables)
    if snapshot is not None:
        compiled.adopt(snapshot)
    return compiled


def preview(
    compiled: CompiledExperiment, context: dict[str, Any], draw: str = "preview-1"
) -> Preview:
    """What every variant shows in this context.

    Args:
        compiled: the experiment with its policies, as `load_policies` gives it.
        context: what is known of the viewer and the moment.
        draw: names the throw of the dice: another one draws anew.

    Raises:
        BadRequest: the context does not fit the experiment's schema.
    """
    # Through JSON, because that is what the encoder takes from a service.
    features = compiled.encoder.encode(json.loads(json.dumps(context)))
    variants = [
        _previewed(compiled, variant, features, draw) for variant in compiled.experiment.variants
    ]
    return Preview(version=compiled.version, variants=variants)


def _previewed(
    compiled: CompiledExperiment, variant: Variant, features: Floats, draw: str
) -> PreviewedVariant:
    policy, ids = compiled.policies[variant.name], compiled.actions.ids
    actions, _ = compiled.lookup.own_actions(compiled.actions, compiled.lookup.of_actions())
    # The draw's name seeds what a policy itself leaves to chance, so that asking again answers the
    # same.
    scored = policy.score(features, actions, hash64(draw))
    first = distribution(scored, compiled.rows, variant.min_probability)
    slate = rank(
        scored,
        compiled.rows,
        compiled.experiment.slots,
        variant.min_probability,
        lambda k: uniform("draw", draw, str(k)),
    )
    names = (compiled.encoder.names, compiled.action_encoder.names)
    reasons = zip(ids, policy.explain(features, actions, names), strict=True)
    # A policy that only ranks gives no scores.
    scores = [] if scored.mean is None else scored.mean.tolist()
    return PreviewedVariant(
        variant=variant.name,
        policy=variant.policy,
        control=variant.control,
        slate=[ids[row] for row in slate.rows],
        propensities=list(slate.propensities),
        probabilities=dict(zip(ids, map(float, first), strict=True)),
        scores=dict(zip(ids, scores, strict=False)),
        why={action: dict(parts) for action, parts in reasons if parts},
    )
