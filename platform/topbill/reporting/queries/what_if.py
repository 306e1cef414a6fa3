"""What would another policy have earned? Candidates to choose from, and their evaluation on the
published log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import yaml

from topbill.domain.errors import BadRequest
from topbill.ope import ESTIMATORS, SLATE_ESTIMATORS, Evaluation, evaluate
from topbill.ope.evaluate import RANKING, SINGLE
from topbill.policies import KINDS
from topbill.reporting.queries.database import load_experiment
from topbill.spec import Experiment, Variant

PUBLISHED, UNIFORM, ALWAYS = "the published policies, as they are", "pure chance", "always the same"


def candidates() -> list[str]:
    """What may be evaluated: any kind of policy, learning from the log as it goes, and three that
    don't learn.
    """
    return [
        *(kind for kind in KINDS if kind not in ("uniform", "fixed")),
        PUBLISHED,
        UNIFORM,
        ALWAYS,
    ]


def estimators(experiment: Experiment) -> dict[str, str]:
    """The estimators that can evaluate this experiment, each with what it is; those of the default
    first.
    """
    known: Mapping[str, Any] = SLATE_ESTIMATORS if experiment.slots > 1 else ESTIMATORS
    usual = RANKING if experiment.slots > 1 else SINGLE
    return {
        name: known[name].title
        for name in [*usual, *(n for n in known if n not in usual)]
        if name in known
    }


def parameters(kind: str, text: str) -> msgspec.Struct:
    """A policy's parameters from YAML text such as `alpha: 0.3, model: shared`. Raises
    BadRequest.
    """
    try:
        given = yaml.safe_load("{" + text.strip().strip("{}") + "}") or {}
        found: msgspec.Struct = msgspec.convert(given, KINDS[kind].Params)
    except (yaml.YAMLError, msgspec.ValidationError, TypeError) as error:
        names = ", ".join(KINDS[kind].Params.__struct_fields__) or "none"
        raise BadRequest(
            "parameters", f"{error}; expected some of: {names}; write `name: value, name: value`"
        ) from error
    return found


def run(
    data: Path | str,
    key: str,
    candidate: str,
    *,
    text: str = "",
    action: str = "",
    min_probability: float = 0.0,
    chosen: Sequence[str] = (),
    most: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate a candidate of `candidates()` on the log of experiment `key`.

    `text` gives a kind's parameters, `action` what "always the same" shows, `min_probability` the least
    probability of any action, `chosen` the estimators (default: the usual ones), `most` about how
    many decisions are read at most (of a sample of units). Raises BadRequest, BadData, NotFound.
    """
    policy: Any = {PUBLISHED: "snapshot", UNIFORM: "uniform", ALWAYS: f"always {action}"}.get(
        candidate
    )
    if policy is None:
        policy = _learning(
            load_experiment(data, key), candidate, parameters(candidate, text), min_probability
        )
    return evaluate(
        key, policy, data, estimators=tuple(chosen) or None, progress=progress, most=most
    )


def _learning(
    experiment: Experiment, kind: str, params: msgspec.Struct, min_probability: float
) -> Experiment:
    """The experiment with one variant: the candidate."""
    only = Variant(
        name=kind,
        policy=kind,
        params=params,
        share=1.0,
        control=True,
        min_probability=min_probability,
    )
    return replace(experiment, variants=(only,), source="")
