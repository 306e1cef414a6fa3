"""How viewers are told apart in pictures of what was shown: each context feature as a few named
groups, in SQL.
"""

from __future__ import annotations

import json
from itertools import pairwise

from topbill.domain.features import Feature
from topbill.lake import identifier, quoted
from topbill.spec import Experiment

_PARTS = 4


def segment_columns(experiment: Experiment) -> dict[str, str]:
    """For each context feature that makes groups, SQL over a struct `c` (see `parsed`) that names a
    decision's group.

    A category is itself, a flag yes or no, a vector its largest key, a cycle its quarter, a number
    its third between the declared bounds. Features without natural groups are left out.
    """
    found = {feature.name: _group(feature) for feature in experiment.context}
    return {name: sql for name, sql in found.items() if sql}


def parsed(experiment: Experiment) -> str:
    """SQL that reads a decision's `context` once, as a struct with a field for each feature."""
    shape = {feature.name: _shape(feature) for feature in experiment.context}
    return f"from_json(context, {quoted(json.dumps(shape))})"


def _shape(feature: Feature) -> object:
    if feature.kind == "vector":
        return dict.fromkeys(feature.keys, "DOUBLE")
    return {"category": "VARCHAR", "flag": "BOOLEAN", "hashed": "JSON"}.get(feature.kind, "DOUBLE")


def _group(feature: Feature) -> str:
    field = f"c.{identifier(feature.name)}"
    if feature.kind == "category":
        return f"coalesce({field}, '(none)')"
    if feature.kind == "flag":
        return f"CASE WHEN {field} THEN 'yes' ELSE 'no' END"
    if feature.kind == "vector":
        return _largest(field, feature.keys)
    if feature.kind == "cycle":
        return _bins(field, [feature.period * i / _PARTS for i in range(_PARTS + 1)])
    if feature.low is not None and feature.high is not None:
        third = (feature.high - feature.low) / 3.0
        return _bins(field, [feature.low + third * i for i in range(4)])
    return ""


def _largest(field: str, keys: tuple[str, ...]) -> str:
    values = [f"coalesce({field}.{identifier(key)}, 0.0)" for key in keys]
    best = f"greatest({', '.join(values)})"
    cases = " ".join(
        f"WHEN {value} THEN {quoted(key)}" for value, key in zip(values, keys, strict=True)
    )
    return f"CASE WHEN {best} = 0.0 THEN '(none)' ELSE CASE {best} {cases} END END"


def _bins(field: str, edges: list[float]) -> str:
    cases = " ".join(
        f"WHEN {field} < {high!r}::DOUBLE THEN {quoted(f'{low:g}–{high:g}')}"
        for low, high in pairwise(edges[:-1])
    )
    return f"CASE WHEN {field} IS NULL THEN '(none)' {cases} ELSE {quoted(f'{edges[-2]:g}–{edges[-1]:g}')} END"
