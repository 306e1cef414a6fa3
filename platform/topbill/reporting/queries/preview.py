"""What would each variant show to this viewer now? The published policies asked about a context;
nothing is logged.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from topbill.domain.chance import hash64, uniform
from topbill.domain.slate import distribution, rank
from topbill.engine import CompiledExperiment
from topbill.log import LOG_FILE, open_log
from topbill.reporting.queries.database import load_experiment


class Shown(msgspec.Struct, frozen=True, kw_only=True):
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
    shown: list[Shown]


def load_policies(data: Path | str, key: str) -> CompiledExperiment:
    """The experiment as published with its newest policies. The lake keeps no policies: this one
    blob is the log's.

    Without a log beside the lake, or with a snapshot of other features, policies are as before any
    learning. Raises NotFound for an unknown experiment.
    """
    live = CompiledExperiment(load_experiment(data, key))
    path = Path(data) / LOG_FILE
    if path.exists():
        log = open_log(path)
        try:
            snapshot = log.snapshot(key)
        finally:
            log.close()
        if snapshot is not None:
            live.adopt(snapshot)
    return live


def preview(live: CompiledExperiment, context: dict[str, Any], draw: str = "preview-1") -> Preview:
    """What every variant shows in this context. `draw` names the throw of the dice: another one
    draws anew.

    Raises BadRequest when the context does not fit the experiment's schema.
    """
    x = live.encoder.encode(json.loads(json.dumps(context)))
    names = (live.encoder.names, live.action_encoder.names)
    ids = live.actions.ids
    found = []
    for variant in live.experiment.variants:
        policy = live.policies[variant.name]
        scored = policy.score(x, live.actions, hash64(draw))
        first = distribution(scored, live.rows, variant.min_probability)
        slate = rank(
            scored,
            live.rows,
            live.experiment.slots,
            variant.min_probability,
            lambda k: uniform("draw", draw, str(k)),
        )
        why = policy.explain(x, live.actions, names)
        scores = np.array([]) if scored.mean is None else scored.mean
        found.append(
            Shown(
                variant=variant.name,
                policy=variant.policy,
                control=variant.control,
                slate=[ids[row] for row in slate.rows],
                propensities=list(slate.propensities),
                probabilities={a: float(p) for a, p in zip(ids, first, strict=True)},
                scores={a: float(s) for a, s in zip(ids, scores, strict=False)},
                why={a: dict(w) for a, w in zip(ids, why, strict=True) if w},
            )
        )
    return Preview(version=live.version, shown=found)
