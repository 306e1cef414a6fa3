"""What would another policy have earned? Candidates to choose from, and their evaluation on the
published log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import yaml

from topbill.domain.errors import BadRequest
from topbill.ope import ESTIMATORS, SLATE_ESTIMATORS, Evaluation, evaluate
from topbill.ope.evaluation import RANKING, SINGLE
from topbill.policies import KINDS
from topbill.reporting.queries.database import load_experiment
from topbill.spec import Experiment, Variant, renames

PUBLISHED, UNIFORM, ALWAYS = "the published policies, as they are", "pure chance", "always the same"


@dataclass(frozen=True)
class CandidatePolicy:
    """A policy to be evaluated, and how.

    Attributes:
        policy: one of `candidates()`.
        parameters: of a kind of policy that learns, as YAML: `alpha: 0.3, model: shared`.
        action: what "always the same" shows.
        min_probability: the least probability of any action.
        estimators: by which the log is weighed; none are the usual ones.
        most: about how many decisions are read at most (of a sample of units); None for all.
    """

    policy: str
    parameters: str = ""
    action: str = ""
    min_probability: float = 0.0
    estimators: tuple[str, ...] = ()
    most: int | None = None


def candidates() -> list[str]:
    """What may be evaluated: any kind of policy, learning from the log as it goes, and three that
    don't learn.
    """
    learning = [kind for kind in KINDS if kind not in ("uniform", "fixed", "scored")]
    return [*learning, PUBLISHED, UNIFORM, ALWAYS]


def estimators(experiment: Experiment) -> dict[str, str]:
    """The estimators that a log of this experiment can feed, each with what it is; the usual ones
    first.
    """
    names = list(usual(experiment))
    registry: Mapping[str, Any] = SLATE_ESTIMATORS if experiment.slots > 1 else ESTIMATORS
    if experiment.slots == 1:
        # What actions look like is needed to say which of them look alike.
        more = [name for name in registry if name != "mips" or experiment.action_features]
        names = list(dict.fromkeys([*names, *more]))
    return {name: registry[name].title for name in names}


def usual(experiment: Experiment) -> tuple[str, ...]:
    """The estimators of an evaluation that names none. Of rankings they are all that there are: the
    log's propensities are given the items above, which the others cannot use.
    """
    return RANKING if experiment.slots > 1 else SINGLE


def parameters(kind: str, text: str) -> msgspec.Struct:
    """A policy's parameters from YAML text such as `alpha: 0.3, model: shared`.

    Raises:
        BadRequest: the text is no such list, or the policy has no such parameter.
    """
    # Braces make a mapping of `name: value, name: value`, however it was typed.
    try:
        values = yaml.safe_load("{" + text.strip().strip("{}") + "}") or {}
        struct: msgspec.Struct = msgspec.convert(values, KINDS[kind].Params)
    except (yaml.YAMLError, msgspec.ValidationError, TypeError) as error:
        names = ", ".join(KINDS[kind].Params.__struct_fields__) or "none"
        hint = "write `name: value, name: value`"
        for old, name in renames.VARIANT.items():
            if re.search(rf"\b{old}:", text):
                hint = f"write {name} instead of {old}"
        raise BadRequest("parameters", f"{error}; expected some of: {names}; {hint}") from error
    return struct


def evaluate_candidate(
    data: Path | str,
    key: str,
    candidate: CandidatePolicy,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate a candidate on the log of an experiment.

    Args:
        data: the data folder.
        key: the experiment's key.
        candidate: which policy, and how.
        progress: is told how many decisions were read, of how many.

    Raises:
        BadRequest: parameters that the policy does not have.
        BadData: the log cannot be evaluated.
        NotFound: there is no such experiment.
    """
    fixed = {
        PUBLISHED: "snapshot",
        UNIFORM: "uniform",
        ALWAYS: f"always {candidate.action}",
    }
    policy: str | Experiment
    if candidate.policy in fixed:
        policy = fixed[candidate.policy]
    else:
        policy = _learning(load_experiment(data, key), candidate)
    return evaluate(
        key,
        policy,
        data,
        estimators=candidate.estimators or None,
        progress=progress,
        most=candidate.most,
    )


def _learning(experiment: Experiment, candidate: CandidatePolicy) -> Experiment:
    """The experiment with one variant: the candidate."""
    # Alone in the experiment, with its schema, actions and objective.
    only = Variant(
        name=candidate.policy,
        policy=candidate.policy,
        params=parameters(candidate.policy, candidate.parameters),
        share=1.0,
        control=True,
        min_probability=candidate.min_probability,
    )
    return replace(experiment, variants=(only,), source="")
