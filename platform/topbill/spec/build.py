"""What was read of a file → `Experiment`, after checking what no single key can show: sums,
references, fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from topbill.domain.features import Encoder, Feature
from topbill.domain.metric import METRIC_KINDS, Metric
from topbill.domain.records import Action
from topbill.policies import KINDS
from topbill.spec.format import DEFAULT_POLICY
from topbill.spec.forms import At, Said, listed, nearest, percent
from topbill.spec.model import Experiment, Guardrail, Variant

AUTO_EXPLORES = 0.02
"""Share of decisions that `auto` spreads over all actions unless told otherwise, so that its log
can be evaluated.
"""
_COMMON = ("policy", "share", "control", "min_probability", "evaluable", "training")
_AS_READ = (
    "surface",
    "title",
    "owner",
    "hypothesis",
    "unit",
    "status",
    "traffic",
    "holdout",
    "slots",
)
_AS_READ_TOO = ("feedback", "click_model", "refit", "personalizer", "budget_ms")

Read = Mapping[str, Any]


def build(read: Read, raw: dict[str, Any], at: At) -> Experiment | None:
    """The experiment, or None after noting problems. `read` holds what the format could read, maybe
    not all.
    """
    context = _features(read.get("context", {}), at.key("context"))
    action_features = _features(read.get("action_features", {}), at.key("action_features"))
    actions = _actions(read.get("actions", ()), action_features, at.key("actions"))
    metrics = _metrics(read, at)
    _check_goals(read, at)
    variants = _variants(read, raw, at.key("variants"))
    _check_slots(read, at)
    _check_personalizer(read, at)
    if at.problems:
        return None
    objective: dict[str, float] = read["objective"]
    return Experiment(
        key=read["experiment"],
        source=at.file,
        raw=raw,
        layer=read.get("layer", read["experiment"]),
        context=context,
        action_features=action_features,
        actions=actions,
        metrics=metrics,
        objective=objective,
        guardrails=tuple(Guardrail(**guardrail) for guardrail in read.get("guardrails", ())),
        variants=variants,
        reward_delay=read.get(
            "reward_delay", min(m.window for m in metrics if m.name in objective)
        ),
        **{name: read[name] for name in _AS_READ + _AS_READ_TOO if name in read},
    )


def _features(read: Read, at: At) -> tuple[Feature, ...]:
    features = []
    for name, parts in read.items():
        low, high = parts.get("min"), parts.get("max")
        if (low is None) != (high is None):
            at.key(name).wrong(
                Said("only one of min and max"), "both, to scale the number, or neither"
            )
        elif low is not None and low >= high:
            at.key(name).wrong(Said(f"min {low:g} and max {high:g}"), "min below max")
        elif "type" in parts:
            rest = {
                key: value
                for key, value in parts.items()
                if key in ("values", "keys", "period", "size")
            }
            features.append(Feature(name, parts["type"], low=low, high=high, **rest))
    return tuple(features)


def _actions(read: tuple[Read, ...], features: tuple[Feature, ...], at: At) -> tuple[Action, ...]:
    first: dict[str, int] = {}
    for index, parts in enumerate(read):
        if "id" in parts and first.setdefault(parts["id"], index) != index:
            other = f"actions[{first[parts['id']]}]"
            at.item(index).key("id").wrong(
                parts["id"], f"an id of its own: {other} has this one already"
            )
    if not any(problem.path.startswith("action_features") for problem in at.problems):
        encoder = Encoder(features)
        for index, parts in enumerate(read):
            _check_features(parts.get("features", {}), features, encoder, at.item(index))
    return tuple(Action(**parts) for parts in read if "id" in parts)


def _check_features(read: Read, features: tuple[Feature, ...], encoder: Encoder, at: At) -> None:
    """Stricter than for requests: in the file, a value or key that its feature doesn't list is a
    slip of the pen.
    """
    for fault in encoder.faults(read):
        at.key(f"features{fault.path}").wrong(Said(fault.got), fault.expected, fault.hint)
    for feature in features:
        value, where = read.get(feature.name), at.key("features").key(feature.name)
        if feature.kind == "category" and isinstance(value, str) and value not in feature.values:
            where.wrong(value, "one of " + listed(feature.values), nearest(value, feature.values))
        if feature.kind == "vector" and isinstance(value, dict):
            for key in [key for key in value if key not in feature.keys]:
                expected = "one of " + listed(feature.keys)
                where.key(key[:64]).wrong(
                    Said("an unknown key"), expected, nearest(key, feature.keys)
                )


def _metrics(read: Read, at: At) -> tuple[Metric, ...]:
    objective = read.get("objective", {})
    guarded = {guardrail.get("metric") for guardrail in read.get("guardrails", ())}
    metrics = []
    first: dict[str, str] = {}
    for name, parts in read.get("metrics", {}).items():
        if (other := first.setdefault(name.lower(), name)) != name:
            at.key("metrics").key(name).wrong(
                Said("a name"), f"one that differs from {other} by more than its capitals"
            )
        if "kind" in parts:
            _check_kind(parts, name in objective, at.key("metrics").key(name))
        if isinstance(covariate := parts.get("covariate"), str):
            _check_covariate(
                covariate, read.get("context", {}), at.key("metrics").key(name).key("covariate")
            )
        better = "lower" if name in guarded and name not in objective else "higher"
        if {"event", "kind", "window"} <= parts.keys():
            metrics.append(Metric(name, **{"better": better} | parts))
    return tuple(metrics)


def _check_kind(parts: Read, in_objective: bool, at: At) -> None:
    """A metric's `cap` and `default` fit what its kind computes."""
    kind = METRIC_KINDS[parts["kind"]]
    if kind.cap == "required" and in_objective and "cap" not in parts:
        expected = f"the value that counts as 1, since a {parts['kind']} has no upper end"
        at.key("cap").wrong(Said("nothing"), expected, "for example cap: 10")
    if kind.cap == "fixed" and parts.get("cap", 1.0) != 1.0:
        at.key("cap").wrong(parts["cap"], f"no cap: a {parts['kind']} metric is 0 or 1 already")
    if not kind.takes_value and "default" in parts:
        at.key("default").wrong(
            parts["default"], f"no default: without an event a {parts['kind']} is 0"
        )


def _check_covariate(feature: str, context: Read, at: At) -> None:
    """A metric's `covariate` is a number of the context, unless it is a duration."""
    numbers = [name for name, parts in context.items() if parts.get("type") == "number"]
    if feature not in numbers:
        known = (
            f"one of the numbers in context ({listed(numbers)})"
            if numbers
            else "a number in context: there is none"
        )
        at.wrong(feature, f"{known}, or a duration such as 28d", nearest(feature, numbers))


def _check_goals(read: Read, at: At) -> None:
    """The objective and the guardrails name metrics, and there is something to win."""
    metrics = read.get("metrics", {})
    objective = read.get("objective", {})
    for name in objective:
        if metrics and name not in metrics:
            at.key("objective").key(name).wrong(
                Said("an unknown metric"), _a_metric(metrics), nearest(name, metrics)
            )
    if objective and not any(weight > 0 for weight in objective.values()):
        at.key("objective").wrong(Said("no weight above 0"), "at least one metric to raise")
    seen: set[str] = set()
    for index, guardrail in enumerate(read.get("guardrails", ())):
        name, where = guardrail.get("metric"), at.key("guardrails").item(index).key("metric")
        if name and metrics and name not in metrics:
            where.wrong(name, _a_metric(metrics), nearest(name, metrics))
        elif name in seen:
            where.wrong(name, "one guardrail a metric")
        seen.add(name)


def _a_metric(metrics: Read) -> str:
    return "one of the metrics " + listed(metrics)


def _check_slots(read: Read, at: At) -> None:
    slots, actions = read.get("slots", 1), read.get("actions", ())
    if actions and slots > len(actions):
        at.key("slots").wrong(slots, f"at most {len(actions)}, the number of actions")


def _check_personalizer(read: Read, at: At) -> None:
    """Personalizer's requests bring their actions and features of any shape, and rewards called
    `reward`.
    """
    if not read.get("personalizer"):
        return
    for section in ("context", "action_features"):
        declared = {name: parts.get("type") for name, parts in read.get(section, {}).items()}
        if declared != {"features": "hashed"}:
            expected = (
                "features: {type: hashed, size: 32} and nothing else, since personalizer: true"
            )
            at.key(section).wrong(
                Said("other features"), expected, "its requests declare no features"
            )
    if read.get("actions"):
        at.key("actions").wrong(
            Said("actions"), "[], since personalizer: true", "its requests bring their own"
        )
    if read.get("slots", 1) != 1:
        at.key("slots").wrong(
            read["slots"], "1, since personalizer: true", "multi-slot requests say their own slots"
        )
    metrics = [
        parts
        for name, parts in read.get("metrics", {}).items()
        if name in read.get("objective", {})
    ]
    if metrics and not any(parts.get("event") == "reward" for parts in metrics):
        at.key("objective").wrong(
            Said("no metric of it"), "a metric of event reward, since personalizer: true"
        )


def _variants(read: Read, raw: Read, at: At) -> tuple[Variant, ...]:
    variants = read.get("variants", {})
    ids = [parts.get("id", "") for parts in read.get("actions", ())]
    built = [_variant(name, parts, ids, at.key(name)) for name, parts in variants.items()]
    _check_split(variants, raw.get("variants", {}), at)
    return tuple(variant for variant in built if variant)


def _check_split(variants: Read, raw: Read, at: At) -> None:
    """One control, and shares that sum to 100%; silent where a share or control was unreadable,
    which was said.
    """
    if not variants or len(variants) < len(raw):
        return
    controls = [name for name, parts in variants.items() if parts.get("control")]
    if len(controls) != 1 and all(
        "control" in parts or "control" not in raw[name] for name, parts in variants.items()
    ):
        got = f"{' and '.join(controls)} as controls" if controls else "no control"
        at.wrong(
            Said(got), "exactly one variant with control: true", "the others are compared with it"
        )
    for name in controls:
        if variants[name].get("share") == 0.0:
            at.key(name).key("share").wrong(
                Said("0%"), "a share above 0%, since this is the control"
            )
    if all("share" in parts for parts in variants.values()):
        millionths = sum(round(parts["share"] * 1_000_000) for parts in variants.values())
        if millionths != 1_000_000:
            at.wrong(
                Said(f"shares that sum to {percent(millionths / 1_000_000)}"),
                "shares that sum to 100%",
            )


def _variant(name: str, parts: Read, ids: list[str], at: At) -> Variant | None:
    kind = parts.get("policy", DEFAULT_POLICY)
    policy = KINDS[kind]
    evaluable = parts.get("evaluable", True)
    min_probability = parts.get(
        "min_probability", AUTO_EXPLORES / max(len(ids), 1) if kind == "auto" and evaluable else 0.0
    )
    unreadable = at.has_problem("min_probability") or at.has_problem("floor")
    needed = policy.deterministic and kind != "fixed" and evaluable
    if needed and min_probability == 0.0 and not unreadable:
        expected = f"a min_probability above 0%, since {kind} is deterministic and its log could not be evaluated"
        at.key("min_probability").wrong(
            Said("nothing"),
            expected,
            "write min_probability: 2%, or evaluable: false to go without",
        )
    if ids and min_probability * len(ids) > 1.0:
        at.key("min_probability").wrong(
            Said(percent(min_probability)),
            f"at most {percent(1 / len(ids))}: one of {len(ids)} actions",
        )
    known = set(ids)
    unknown = [
        (index, action)
        for index, action in enumerate(parts.get("order", ()))
        if known and action not in known
    ]
    for index, action in unknown[:10]:
        at.key("order").item(index).wrong(
            action, "the id of one of the actions", nearest(action, ids)
        )
    try:
        params = msgspec.convert(
            {key: value for key, value in parts.items() if key not in _COMMON}, policy.Params
        )
    except msgspec.ValidationError as error:
        if "missing required field" not in str(error):
            at.wrong(Said(str(error)), f"parameters that {kind} can work with")
        return None
    common = {key: parts[key] for key in ("control", "evaluable", "training") if key in parts}
    return Variant(
        name, kind, params, parts.get("share", 0.0), min_probability=min_probability, **common
    )
