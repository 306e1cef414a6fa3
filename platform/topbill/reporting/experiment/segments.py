"""How viewers are told apart in pictures of what was shown: each context feature as a few named
groups, in SQL.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import NamedTuple

from topbill.domain.features import Feature
from topbill.domain.sql import identifier
from topbill.spec import Experiment

_QUARTERS, _THIRDS = 4, 3


class Grouping(NamedTuple):
    """The groups of one feature: SQL over a struct `c` (a decision's context, see `context_struct`)
    that names a decision's group, and the values of the `$parameters` that stand in it.
    """

    expression: str
    parameters: dict[str, list[str]]


def groupings(experiment: Experiment) -> dict[str, Grouping]:
    """The groups of each context feature that makes any, by the feature's name.

    A category is itself, a flag yes or no, a vector its largest key, a cycle its quarter, a number
    its third between the declared bounds. Features without natural groups are left out.
    """
    # Parameters are numbered, because a feature's name need not be an SQL name.
    by_feature = {}
    for number, feature in enumerate(experiment.context):
        grouping = _grouping(feature, f"labels{number}")
        if grouping is not None:
            by_feature[feature.name] = grouping
    return by_feature


def context_struct(experiment: Experiment) -> str:
    """The shape for `from_json(context, $shape)`: a struct with a field for each feature."""
    return json.dumps({feature.name: _shape(feature) for feature in experiment.context})


def _shape(feature: Feature) -> object:
    if feature.kind == "vector":
        return dict.fromkeys(feature.keys, "DOUBLE")
    shapes = {"category": "VARCHAR", "id": "VARCHAR", "text": "VARCHAR", "flag": "BOOLEAN"}
    return (shapes | {"hashed": "JSON", "embedding": "JSON"}).get(feature.kind, "DOUBLE")


def _grouping(feature: Feature, labels: str) -> Grouping | None:
    """`labels` names the parameter for the groups' names, where there is one."""
    field = f"c.{identifier(feature.name)}"
    if feature.kind == "category":
        return Grouping(f"coalesce({field}, '(none)')", {})
    if feature.kind == "flag":
        return Grouping(f"CASE WHEN {field} THEN 'yes' ELSE 'no' END", {})
    if feature.kind == "vector":
        return _largest(field, feature.keys, labels)
    if feature.kind == "cycle":
        return _bins(field, 0.0, feature.period, _QUARTERS, labels)
    if feature.low is not None and feature.high is not None:
        return _bins(field, feature.low, feature.high, _THIRDS, labels)
    return None


def _largest(field: str, keys: tuple[str, ...], labels: str) -> Grouping:
    """The key with the largest value; of equal ones the first."""
    # Services may leave out keys that are 0.
    values = ", ".join(f"coalesce({field}.{identifier(key)}, 0.0)" for key in keys)
    largest = f"list_position([{values}], greatest({values}))"
    expression = f"CASE WHEN greatest({values}) = 0.0 THEN '(none)' ELSE (${labels})[{largest}] END"
    return Grouping(expression, {labels: list(keys)})


def _bins(field: str, low: float, high: float, bins: int, labels: str) -> Grouping:
    """Equal parts between two bounds; what lies beyond them belongs to the outermost."""
    # The bounds are the file's, not the data's: groups stay the same as the record grows.
    edges = [low + (high - low) * i / bins for i in range(bins + 1)]
    names = [f"{start:g}–{end:g}" for start, end in pairwise(edges)]
    # The number of inner edges at or below the value is the bin; lists in SQL begin at 1.
    steps = " + ".join(f"({field} >= {edge!r}::DOUBLE)::INTEGER" for edge in edges[1:-1])
    expression = f"CASE WHEN {field} IS NULL THEN '(none)' ELSE (${labels})[1 + {steps}] END"
    return Grouping(expression, {labels: names})
