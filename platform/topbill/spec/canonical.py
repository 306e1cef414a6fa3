"""The canonical form of an experiment: what its fingerprints are made of.

Fingerprints stand in logs and beside policies' states. If one changed because a key got another
name, or because a later version knows one key more, every policy would begin anew, and every log
would show a new revision although nobody changed a file. So the form is fixed here: fields stand by
the names of `CANONICAL` in the order of `FIELDS`, and a field that is not listed there is part of
the form only where it differs from its default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import msgspec

from topbill.spec import renames

CANONICAL = {
    today: canonical
    for table in (renames.EXPERIMENT, renames.METRIC, renames.GUARDRAIL, renames.VARIANT)
    for canonical, today in table.items()
}
"""A field's name today → its name in the canonical form, for those where the two differ."""

_LINEAR = ("model", "link", "half_life", "half_life_seconds", "prior_scale", "fourier_features")
FIELDS: dict[str, tuple[str, ...]] = {
    "Action": ("id", "features", "payload"),
    "Feature": ("name", "kind", "values", "keys", "period", "low", "high", "size"),
    "EntitySource": ("name", "file", "key", "of", "features"),
    "Metric": ("name", "event", "kind", "window", "cap", "better", "default", "covariate"),
    "Guardrail": ("metric", "margin"),
    "Variant": (
        *("name", "policy", "params", "share", "control"),
        *("min_probability", "evaluable", "training"),
    ),
    "StartFrom": (),
    "PriorFrom": (),
    "Experiment": (
        *("key", "surface", "actions", "metrics", "objective", "variants", "title", "owner"),
        *("hypothesis", "unit", "status", "traffic", "layer", "holdout", "slots", "context"),
        *("action_features", "guardrails", "feedback", "click_model", "reward_delay", "refit"),
        *("personalizer", "budget_ms"),
    ),
    "Launch": (
        *("ramp", "start", "gate", "shadow", "hold", "advance_if", "on_harm", "approve_at"),
    ),
    "Gate": ("log", "variant", "versus", "margin", "estimator", "on_refusal"),
    "Hold": ("at_least", "units"),
    "AdvanceIf": ("guardrails", "sample_ratio", "health"),
    "Conclusion": ("winner", "because", "by"),
    "auto": ("alpha",),
    "fixed": ("order",),
    "epsilon_greedy": (*_LINEAR, "epsilon", "decay"),
    "thompson": (*_LINEAR, "exploration", "samples"),
    "linucb": (*_LINEAR, "alpha"),
    "squarecb": (*_LINEAR, "gamma_scale"),
    "vw": ("exploration", "epsilon", "args"),
}
"""The fields that are always part of the form, in its order: of the parts of an experiment, and the
parameters of a policy by its kind. They are those of the version that a part came with; to a part
nothing is ever added here.
"""
LEARNS_NOTHING = ("scored",)
"""Policies whose parameters change nothing of what is learned: a new model file, or another
temperature, must not make the policies of other variants begin anew."""
WITHOUT_FEATURES = ("fixed", "uniform")
"""Policies that show the same whatever the features and rewards are."""
APART = ("source", "raw", "layer_start", "former", "learned_as", "capped", "of_kind", "alerts")
"""Fields that no fingerprint reads: where the experiment came from, what follows from its
neighbours in the layer, from the log or from a metric's in the file, that a cap was written
although it is the default, and who is told of alarms.
"""
_REQUIRED = object()
"""The default of a field that has none; it equals no value."""


def fingerprint(experiment: Any) -> str:
    """12 hex digits that change with anything that the experiment says."""
    return _digest(dict(_items(_with_directions_as_said(experiment), "Experiment")))


def _with_directions_as_said(experiment: Any) -> Any:
    """The experiment with `better: higher` where a weight below 0 says otherwise and the file says
    nothing: 0.1 did not read directions off weights, and no file changes by their being read now.
    """
    in_file = experiment.raw.get("metrics", {})
    metrics = []
    for metric in experiment.metrics:
        by_weight = experiment.objective.get(metric.name, 0.0) < 0.0
        if by_weight and "better" not in in_file.get(metric.name, {}):
            metric = dataclasses.replace(metric, better="higher")
        metrics.append(metric)
    return dataclasses.replace(experiment, metrics=tuple(metrics))


def learning_content(experiment: Any) -> str:
    """12 hex digits that change only with what learning depends on: features, objective, metrics,
    policies and their parameters, in whatever order the file says them.
    """
    still = (*LEARNS_NOTHING, *WITHOUT_FEATURES)
    variants = []
    for variant in sorted(experiment.variants, key=lambda one: one.name):
        params = None if variant.policy in still else _object(variant.params, variant.policy)
        variants.append((variant.name, variant.policy, params, variant.training, *_start(variant)))
    return _digest({**_taught_in_any_order(experiment), "variants": variants})


def learning_fingerprint(experiment: Any) -> str:
    """12 hex digits of the same with its order, which is that of a model's columns: what policies
    have learned is stored under it.
    """
    # Shares and `min_probability` are left out: a policy learns from decisions however they came
    # about, so turning traffic up must not make it forget.
    variants = [
        (
            v.name,
            v.policy,
            None if v.policy in LEARNS_NOTHING else _object(v.params, v.policy),
            v.training,
            *_start(v),
        )
        for v in experiment.variants
    ]
    return _digest({**_taught(experiment), "variants": variants})


def variant_fingerprint(experiment: Any, variant: Any) -> str:
    """12 hex digits that change with what a variant shows to whoever gets it; its share is no part
    of that.
    """
    params = _object(variant.params, variant.policy)
    shows = (
        *(variant.name, variant.policy, params, variant.training, variant.min_probability),
        *_start(variant),
    )
    taught = {} if variant.policy in WITHOUT_FEATURES else _taught_in_any_order(experiment)
    return _digest({**taught, "shows": shows})


def _start(variant: Any) -> list[Any]:
    """What a variant's policy knows at the start; nothing where that is nothing."""
    return [_form(start) for start in (variant.start_from, variant.prior) if start is not None]


def _taught_in_any_order(experiment: Any) -> dict[str, Any]:
    """The same for files that differ in the order of features, their values, and metrics."""
    metrics = tuple(sorted(experiment.metrics, key=lambda metric: metric.name))
    features = {
        name: in_any_order(getattr(experiment, name)) for name in ("context", "action_features")
    }
    return _taught(dataclasses.replace(experiment, metrics=metrics, **features))


def in_any_order(features: Iterable[Any]) -> tuple[Any, ...]:
    """Features as they are equal to the same in another order, of themselves or of their values."""
    ordered = []
    for feature in sorted(features, key=lambda one: one.name):
        values, keys = tuple(sorted(feature.values)), tuple(sorted(feature.keys))
        ordered.append(dataclasses.replace(feature, values=values, keys=keys))
    return tuple(ordered)


def _taught(experiment: Any) -> dict[str, Any]:
    """What all policies of an experiment learn on, and how."""
    # Metrics outside the objective teach nothing, and neither do `better` and `covariate`, which
    # are for reading the report.
    metrics = [
        # A floor of 0 is what there was before floors: it makes no other policy.
        (m.name, m.event, m.kind, m.window, m.cap, m.default, *([m.floor] if m.floor else []))
        for m in experiment.metrics
        if m.name in experiment.objective
    ]
    scheme = (
        experiment.slots,
        experiment.feedback,
        experiment.click_model,
        experiment.reward_delay,
        # All of them is what there was before shares.
        *([experiment.learn_share] if experiment.learn_share < 1.0 else []),
    )
    return {
        "context": _form(experiment.context),
        "action_features": _form(experiment.action_features),
        "objective": experiment.objective,
        "metrics": metrics,
        "learning": scheme,
    }


def _form(value: Any) -> Any:
    """The canonical form of a value: parts of an experiment as objects, anything else as it is."""
    if isinstance(value, tuple):
        return [_form(item) for item in value]
    name = _part(value)
    return value if name is None else _object(value, name)


def _part(value: Any) -> str | None:
    """Which part of an experiment it is; its class may extend the one that `FIELDS` names."""
    # By name, since this module comes before those that declare the classes.
    for ancestor in type(value).__mro__:
        if ancestor.__name__ in FIELDS:
            return ancestor.__name__
    return None


def _object(part: Any, name: str) -> msgspec.Raw:
    """A part as a JSON object. It is put together here because the order of its keys is part of the
    form, where the encoder would sort those of a mapping.
    """
    encode = msgspec.json.Encoder(order="deterministic").encode
    pairs = [encode(key) + b":" + encode(value) for key, value in _items(part, name)]
    return msgspec.Raw(b"{" + b",".join(pairs) + b"}")


def _items(part: Any, name: str) -> Iterable[tuple[str, Any]]:
    """Canonical name and form of each field that is part of the form."""
    defaults = _defaults(part)
    always = FIELDS.get(name, ())
    # Code may put a variant together by hand, with parameters that are none of its policy's.
    names = [field for field in always if field in defaults]
    for field, default in defaults.items():
        later = field not in always and field not in APART
        if later and getattr(part, field) != default:
            names.append(field)
    for field in names:
        value = getattr(part, field)
        # A variant's parameters have the fields of its kind of policy.
        form = _object(value, part.policy) if field == "params" else _form(value)
        yield CANONICAL.get(field, field), form


def _defaults(part: Any) -> dict[str, Any]:
    """The default of each field of a dataclass or struct."""
    # Policies' parameters and actions are structs, everything else is a dataclass.
    if isinstance(part, msgspec.Struct):
        nothing: Any = msgspec.NODEFAULT
        fields: Iterable[Any] = msgspec.structs.fields(part)
    else:
        nothing = dataclasses.MISSING
        fields = dataclasses.fields(part)
    defaults = {}
    for field in fields:
        if field.default is not nothing:
            defaults[field.name] = field.default
        elif field.default_factory is not nothing:
            defaults[field.name] = field.default_factory()
        else:
            defaults[field.name] = _REQUIRED
    return defaults


def _digest(content: Any) -> str:
    # Deterministic: the keys of mappings are sorted, so that the order in a file doesn't matter.
    return blake2b(msgspec.json.encode(content, order="deterministic"), digest_size=6).hexdigest()
