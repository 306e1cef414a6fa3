"""Policies and models that an experiment names and that Topbill does not ship: found, fitted and
tried before the experiment is taken over.

A model's file is part of what an experiment is: its SHA-256 stands in the experiment's content, so
that another file is another revision, and each decision names, by its revision, the one that it was
made by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from topbill.domain.chance import hash64
from topbill.domain.errors import NotFound, PolicyError
from topbill.domain.features import Feature
from topbill.domain.records import Actions, Policy
from topbill.domain.slate import distribution
from topbill.policies import (
    KINDS,
    build_policy,
    is_foreign,
    onnx,
    own_kinds,
    policy_class,
    trained,
)
from topbill.policies.installed import InstalledPolicy
from topbill.policies.onnx import texts
from topbill.policies.onnx.texts import is_tokenizer_name
from topbill.policies.scored import is_model_name
from topbill.policies.trained import is_snapshot_name
from topbill.policies.vw import VW
from topbill.spec.fields import Location, Verbatim
from topbill.spec.model import Experiment, Variant

_SUFFIXES = (".onnx", ".policy", ".snapshot", ".vw", ".model")
"""How files of models and of trained policies end, those that are looked at for changes."""


def files(folder: Path) -> Iterator[Path]:
    """The model files that experiments of a folder may name: beside them, or one folder down."""
    for suffix in _SUFFIXES:
        yield from sorted(folder.glob(f"*{suffix}"))
        yield from sorted(folder.glob(f"*/*{suffix}"))


def pinned(raw: Any, folder: Path, at: Location) -> Any:
    """What a file says, with the SHA-256 of each model that a variant scores by or starts from, or
    that encodes texts; notes those that can't be used.
    """
    if not isinstance(raw, dict):
        return raw
    raw = _with_encoders(raw, folder, at)
    variants = raw.get("variants")
    if not isinstance(variants, dict):
        return raw
    modern = {}
    for name, parts in variants.items():
        modern[name] = parts
        if not isinstance(parts, dict):
            continue
        where = at.key("variants").key(str(name))
        if isinstance(parts.get("onnx"), str):
            digest = _digest(parts, folder, where)
            if digest is not None:
                modern[name] = parts | {"sha256": digest}
        start = parts.get("start_from")
        if isinstance(start, dict) and isinstance(start.get("snapshot"), str):
            digest = _start_digest(start, folder, where.key("start_from"))
            if digest is not None:
                modern[name] = modern[name] | {"start_from": start | {"sha256": digest}}
    return raw | {"variants": modern}


def _with_encoders(raw: dict[str, Any], folder: Path, at: Location) -> dict[str, Any]:
    """The same with the SHA-256 of each encoder of texts."""
    modern = dict(raw)
    for section in ("context", "action_features"):
        modern[section] = _pinned_features(raw.get(section), folder, at.key(section))
        if modern[section] is None:
            del modern[section]
    tables = raw.get("entities")
    if isinstance(tables, dict):
        modern["entities"] = {}
        for name, parts in tables.items():
            where = at.key("entities").key(str(name)).key("features")
            if isinstance(parts, dict) and "features" in parts:
                parts = parts | {"features": _pinned_features(parts["features"], folder, where)}
            modern["entities"][name] = parts
    return modern


def _pinned_features(features: Any, folder: Path, at: Location) -> Any:
    if not isinstance(features, dict):
        return features
    modern = {}
    for name, parts in features.items():
        modern[name] = parts
        if isinstance(parts, dict) and isinstance(parts.get("encoder"), str):
            digest = _encoder_digest(parts, folder, at.key(str(name)))
            if digest is not None:
                modern[name] = parts | {"sha256": digest}
    return modern


def _encoder_digest(parts: dict[str, Any], folder: Path, at: Location) -> str | None:
    """The SHA-256 of an encoder; None where its file is told to be wrong, or its name is."""
    name, tokenizer = parts["encoder"], parts.get("tokenizer")
    # Of names that can't be, and of other types, the schema tells.
    named = tokenizer is None or is_tokenizer_name(tokenizer)
    if parts.get("type") != "text" or not is_model_name(name) or not named:
        return None
    try:
        beside = None if tokenizer is None else folder / tokenizer
        digest, length = texts.read(folder / name, folder, beside)
    except PolicyError as error:
        at.key("encoder").wrong(Verbatim(f"{name}: {error}"), "a model that encodes texts")
        return None
    _check_pin(parts, name, digest, at)
    size = parts.get("size")
    if isinstance(size, int) and size > length:
        at.key("size").wrong(size, f"at most {length}, the length of the vectors of {name}")
    return digest


def _start_digest(start: dict[str, Any], folder: Path, at: Location) -> str | None:
    """The SHA-256 of the snapshot that a variant starts from; None where its file is told to be
    wrong.
    """
    name = start["snapshot"]
    # Of a name that can't be, the schema tells.
    if not is_snapshot_name(name):
        return None
    try:
        digest = trained.remember(folder / name, folder)
    except (PolicyError, NotFound) as error:
        at.key("snapshot").wrong(Verbatim(str(error)), "the file of a trained policy")
        return None
    _check_pin(start, name, digest, at)
    return digest


def _digest(parts: dict[str, Any], folder: Path, at: Location) -> str | None:
    """The SHA-256 of a variant's model; None where its file is told to be wrong, or its name is."""
    name = parts["onnx"]
    # Of a name that can't be, the schema tells.
    if parts.get("policy") != "scored" or not is_model_name(name):
        return None
    try:
        digest = onnx.read(folder / name, folder)
    except PolicyError as error:
        at.key("onnx").wrong(Verbatim(f"{name}: {error}"), "a model that can be used")
        return None
    _check_pin(parts, name, digest, at)
    return digest


def _check_pin(parts: dict[str, Any], name: str, digest: str, at: Location) -> None:
    """A file that is pinned is the one that there is."""
    pin = parts.get("sha256", digest)
    if pin != digest:
        at.key("sha256").wrong(pin, f"{digest}, which {name} has", "it is another file")


def check(experiment: Experiment, at: Location) -> None:
    """Note each variant whose policy is none of ours and can't be built for the experiment's
    features, or can't say how probable some actions are.
    """
    for variant in experiment.variants:
        if variant.start_from is not None and variant.start_from.snapshot:
            _check_start(variant, experiment, at.key("variants").key(variant.name))
        if not is_foreign(variant.policy):
            continue
        try:
            _try(variant, experiment)
        except PolicyError as error:
            where = at.key("variants").key(variant.name)
            where.wrong(Verbatim(str(error)), "a policy that can decide for these features")


def _check_start(variant: Variant, experiment: Experiment, at: Location) -> None:
    """Note a snapshot that the variant's policy can't start from."""
    at = at.key("start_from").key("snapshot")
    assert variant.start_from is not None  # noqa: S101 (asked by the caller)
    name = variant.start_from.snapshot
    try:
        found = trained.known(variant.start_from.sha256)
    except PolicyError:
        return  # told when it was read
    if found.kind != variant.policy:
        at.wrong(Verbatim(f"{name}, a policy of kind {found.kind}"), f"one of {variant.policy}")
        return
    if found.format == trained.VW_FORMAT and not experiment.action_features:
        expected = "action_features, by which VW tells actions apart"
        at.wrong(Verbatim(f"{name}, a model of VW's own"), expected, "declare them")
        return
    for section in ("context", "action_features") if found.format == trained.FORMAT else ():
        own, learned = getattr(experiment, section), getattr(found, section)
        if own != learned:
            at.wrong(
                Verbatim(f"{name}, whose {section} is {_features_text(learned)}"),
                f"the file's own, in its order: {_features_text(own)}",
                "declare the features that it learned on",
            )
            return
    try:
        build_variant(variant, experiment)
    except PolicyError as error:
        at.wrong(Verbatim(f"{name}: {error}"), "one of the same model and parameters")


def _features_text(features: tuple[Feature, ...]) -> str:
    """Features as a file declares them, but for what is as it is by default."""
    texts = []
    for feature in features[:20]:
        parts = {
            key: value
            for key, value in msgspec.to_builtins(feature).items()
            if key not in ("name", "kind") and value not in ([], (), 0, 0.0, None)
        }
        told = ", ".join(f"{key} {value}" for key, value in parts.items())
        texts.append(f"{feature.name} ({feature.kind}{f': {told}' if told else ''})")
    return ", ".join(texts) or "nothing"


def build_variant(variant: Variant, experiment: Experiment) -> Policy:
    """A variant's policy as it is before its first decision: as it comes, or as the snapshot has it
    that it starts from. (What it learns of another log, the worker folds.)

    Raises PolicyError where it can't be built, or its snapshot was not read here.
    """
    # The seed follows from names alone: a worker, a service and a later check of the log build the
    # same policy, bit by bit.
    seed = hash64(experiment.key, variant.name)
    policy = build_policy(variant.policy, variant.params, experiment.feature_columns, seed)
    if variant.start_from is not None and variant.start_from.snapshot:
        start = trained.known(variant.start_from.sha256)
        if isinstance(policy, VW) and start.format == trained.VW_FORMAT:
            names = experiment.context_encoder.names, experiment.action_encoder.names
            policy.continue_from(start.state, names)
        else:
            policy.load(start.state)
    return policy


def _try(variant: Variant, experiment: Experiment) -> None:
    policy = build_policy(
        variant.policy,
        variant.params,
        experiment.feature_columns,
        seed=hash64(experiment.key, variant.name),
    )
    if not isinstance(policy, InstalledPolicy):
        return  # a model says nothing of what it makes of no features at all, and keeps nothing
    encoder = experiment.action_encoder
    actions = experiment.encoded_actions
    if not len(actions):
        actions = Actions(["a", "b", "c"], np.zeros((3, encoder.size)))
    x = np.zeros(experiment.context_encoder.size)
    scored = policy.score(x, actions, 0)
    distribution(scored, np.arange(len(actions)), 0.0)
    distribution(scored, np.arange(min(1, len(actions) - 1), len(actions)), 0.0)
    _check_state(policy, variant, experiment)


def _check_state(policy: Policy, variant: Variant, experiment: Experiment) -> None:
    """What it keeps can be kept: as bytes from which another one goes on alike."""
    state = policy.dump()
    again = build_policy(
        variant.policy,
        variant.params,
        experiment.feature_columns,
        seed=hash64(experiment.key, variant.name),
    )
    again.load(state)
    if again.dump() != state:
        raise PolicyError(
            f"{variant.policy}: state: another one than was restored; expected restore(state) to "
            "lead to an equal state"
        )


class AbsentParams(msgspec.Struct, frozen=True):
    """The parameters of a policy whose package is not installed: as the audit has them."""

    values: dict[str, Any]


Absent = dict[str, dict[str, Any]]
"""Variant → what an audit says of it, where its policy's package is not here."""
_SHARED = ("share", "control", "min_probability", "evaluable", "training")
_OF_ALL = (*_SHARED, "policy", "start_from", "prior")


def without_absent(content: dict[str, Any]) -> tuple[dict[str, Any], Absent]:
    """An audit's content, in which variants of policies that are not installed name the fixed order
    in their place; and what it said of those. A report needs no policy, and must be had also where
    the package of an old one is gone.
    """
    absent: Absent = {}
    variants = content.get("variants")
    if not isinstance(variants, dict):
        return content, absent
    modern = {}
    for name, parts in variants.items():
        kind = parts.get("policy", "") if isinstance(parts, dict) else ""
        modern[name] = parts
        if kind and isinstance(kind, str) and not _is_here(kind):
            absent[name] = parts
            shared = {key: parts[key] for key in _SHARED if key in parts}
            modern[name] = {"policy": "fixed", **shared}
    return content | {"variants": modern}, absent


def _is_here(kind: str) -> bool:
    if kind in KINDS:
        return True
    if kind not in own_kinds():
        return False
    try:
        policy_class(kind)
    except PolicyError:
        return False
    return True


def with_absent(experiment: Experiment, absent: Absent) -> Experiment:
    """The experiment with the policies that `without_absent` took out, each by its name."""
    if not absent:
        return experiment
    variants = []
    for variant in experiment.variants:
        parts = absent.get(variant.name)
        if parts is not None:
            own = {key: value for key, value in parts.items() if key not in _OF_ALL}
            variant = replace(variant, policy=parts["policy"], params=AbsentParams(own))
        variants.append(variant)
    return replace(experiment, variants=tuple(variants))
