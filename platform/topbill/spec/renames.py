"""Keys that 0.1 called otherwise, and defaults that it had. One table for everything that must know
of them: the error that names a key's name of today, the audits of older data folders, and the
canonical form that fingerprints are made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EXPERIMENT = {"learn_after": "reward_delay"}
METRIC = {"before": "covariate"}
GUARDRAIL = {"worse_by_at_most": "margin"}
# A variant's keys and the parameters of its policy stand side by side in a file.
VARIANT = {"floor": "min_probability", "curves": "fourier_features"}
PAGE = {
    "made_of": "sources",
    "sticky": "session_ttl",
    "kids": "kids_max_age",
    "guests": "guest_max_age",
}


def modern(raw: Any) -> Any:
    """An experiment file's content with today's keys, where 0.1 wrote it: what an audit holds was
    valid when it was written, and nobody can edit it.
    """
    # Whatever isn't shaped like a file is left to the loader, which says what is wrong with it.
    if not isinstance(raw, dict):
        return raw
    content = rename(raw, EXPERIMENT)
    for section, names in (("metrics", METRIC), ("variants", VARIANT)):
        if isinstance(content.get(section), dict):
            content[section] = {
                name: rename(parts, names) for name, parts in content[section].items()
            }
    if isinstance(content.get("guardrails"), list):
        content["guardrails"] = [rename(parts, GUARDRAIL) for parts in content["guardrails"]]
        _write_directions(content)
    _drop_contradictions(content)
    return content


def _drop_contradictions(content: dict[str, Any]) -> None:
    """Leave out a direction that the objective's weight contradicts, which 0.1 took: policies went
    by the weight.
    """
    objective = content.get("objective")
    if not isinstance(objective, dict):
        return
    metrics = content.get("metrics")
    guardrails = content.get("guardrails")
    named = list(metrics.items()) if isinstance(metrics, dict) else []
    if isinstance(guardrails, list):
        named += [(g.get("metric"), g) for g in guardrails if isinstance(g, dict)]
    for name, parts in named:
        weight = objective.get(name, 0.0)
        by_weight = "lower" if weight < 0.0 else "higher"
        if weight and isinstance(parts, dict) and parts.get("better", by_weight) != by_weight:
            del parts["better"]


def _write_directions(content: dict[str, Any]) -> None:
    """Write what went without saying when the audit was written: what was only a guardrail was
    better when lower.
    """
    metrics, objective = content.get("metrics"), content.get("objective")
    if not isinstance(metrics, dict) or not isinstance(objective, dict):
        return
    for guardrail in content["guardrails"]:
        name = guardrail.get("metric") if isinstance(guardrail, dict) else None
        parts = metrics.get(name)
        if isinstance(parts, dict) and name not in objective:
            metrics[name] = {"better": guardrail.get("better", "lower"), **parts}


def with_defaults_of_first_version(content: dict[str, Any]) -> dict[str, Any]:
    """The content with what 0.1 took where a file said nothing, and today's version does not:
    `thompson` had no least probability.
    """
    variants = {}
    for name, parts in content["variants"].items():
        if parts.get("policy") == "thompson":
            parts = {"min_probability": "0%", **parts}
        variants[name] = parts
    return {**content, "variants": variants}


def rename(parts: Any, names: Mapping[str, str]) -> Any:
    """A mapping with its keys renamed, in their order; anything else as it is. A key whose new name
    is there as well stays, so that nothing is lost.
    """
    if not isinstance(parts, dict):
        return parts
    return {
        names[key] if key in names and names[key] not in parts else key: value
        for key, value in parts.items()
    }
