"""Features of many mappings at once, straight from JSON: a text becomes typed values in one call,
and the values of one feature become columns of a matrix in another.

The types are what `Encoder` takes, and the numbers are those that it makes, to the last bit. A text
that does not fit raises msgspec.ValidationError; `Encoder` then says what is wrong with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np

from topbill.domain.features import LARGEST, Feature
from topbill.domain.records import Floats
from topbill.domain.text_features import text_numbers

Values: TypeAlias = Any
"""The typed values of one mapping: an instance of `TypedFeatures.type`."""
_Writer: TypeAlias = Callable[[Floats, Sequence[Any]], None]
"""Writes the values of one feature, None where it is missing, into the feature's own columns, NaN
where a value is missing.
"""
_Bounded: TypeAlias = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]


class TypedFeatures:
    """What mappings of these features are in JSON, and what matrix they become.

    Attributes:
        type: What a text is decoded as.
        size: How many numbers a mapping becomes.

    >>> device = Feature("device", "category", values=("tv", "web"))
    >>> features = typed_features((device, Feature("kids", "flag")))
    >>> values = msgspec.json.decode(b'{"device": "web", "kids": true}', type=features.type)
    >>> features.matrix([values]).tolist()
    [[0.0, 1.0, 1.0]]
    """

    def __init__(self, features: tuple[Feature, ...]) -> None:
        fields = []
        names = {}
        self._writers: list[tuple[int, int, _Writer]] = []
        start = 0
        for i, feature in enumerate(features):
            names[f"f{i}"] = feature.name
            type_, writer = _KINDS[feature.kind](feature)
            fields.append((f"f{i}", type_ | None, None))
            end = start + len(feature.columns)
            self._writers.append((start, end, writer))
            start = end
        self.size = start
        self.type = msgspec.defstruct(
            "Features", fields, rename=names, forbid_unknown_fields=True, frozen=True, gc=False
        )

    def matrix(self, rows: Sequence[Values]) -> Floats:
        """(len(rows) × size) what `Encoder.encode` makes of each."""
        matrix = np.zeros((len(rows), self.size))
        columns = zip(*map(msgspec.structs.astuple, rows), strict=True)
        for (start, end, write), values in zip(self._writers, columns, strict=False):
            write(matrix[:, start:end], values)
        # What is missing adds nothing. JSON has no NaN of its own.
        matrix[np.isnan(matrix)] = 0.0
        return matrix


@lru_cache(maxsize=256)
def typed_features(features: tuple[Feature, ...]) -> TypedFeatures | None:
    """The typed features of a schema; None for one with a kind whose JSON has no one type, or with
    a name that no field can have.
    """
    if any(feature.kind not in _KINDS for feature in features):
        return None
    try:
        return TypedFeatures(features)
    except ValueError:
        return None


def _category(feature: Feature) -> tuple[Any, _Writer]:
    columns = {value: i for i, value in enumerate(feature.values)}

    def write(matrix: Floats, values: Sequence[Any]) -> None:
        for row, value in enumerate(values):
            column = columns.get(value)
            if column is not None:
                matrix[row, column] = 1.0

    return str, write


def _number(feature: Feature) -> tuple[Any, _Writer]:
    low, high = feature.low, feature.high
    if low is None or high is None:
        return _Bounded, _as_they_are
    scale, middle = 2.0 / (high - low), (high + low) / 2.0

    def write(matrix: Floats, values: Sequence[Any]) -> None:
        scaled = (np.array(values, dtype=np.float64) - middle) * scale
        matrix[:, 0] = np.minimum(np.maximum(scaled, -1.0), 1.0)

    return float, write


def _cycle(feature: Feature) -> tuple[Any, _Writer]:
    period, radians = feature.period, 2.0 * math.pi / feature.period

    def write(matrix: Floats, values: Sequence[Any]) -> None:
        # By `math`, not NumPy, whose sines differ in the last bit.
        for row, value in enumerate(values):
            if value is not None:
                angle = (value % period) * radians
                matrix[row, 0] = math.sin(angle)
                matrix[row, 1] = math.cos(angle)

    return float, write


def _vector(feature: Feature) -> tuple[Any, _Writer]:
    names = {f"k{i}": key for i, key in enumerate(feature.keys)}
    fields = [(name, _Bounded | None, 0.0) for name in names]
    # Keys that are not declared are skipped, as `Encoder` skips them.
    type_ = msgspec.defstruct("Vector", fields, rename=names, frozen=True, gc=False)
    empty = (0.0,) * len(names)

    def write(matrix: Floats, values: Sequence[Any]) -> None:
        rows = [empty if v is None else msgspec.structs.astuple(v) for v in values]
        matrix[:] = np.array(rows, dtype=np.float64)

    return type_, write


def _text(feature: Feature) -> tuple[Any, _Writer]:
    size, encoder = feature.size, feature.sha256

    def write(matrix: Floats, values: Sequence[Any]) -> None:
        for row, value in enumerate(values):
            if value is not None:
                for column, number in text_numbers(value, size, encoder):
                    matrix[row, column] = number

    return str, write


def _as_they_are(matrix: Floats, values: Sequence[Any]) -> None:
    matrix[:, 0] = np.array(values, dtype=np.float64)


def _nothing(_matrix: Floats, _values: Sequence[Any]) -> None:
    """An id only names a row of a table."""


_KINDS: dict[str, Callable[[Feature], tuple[Any, _Writer]]] = {
    "category": _category,
    "number": _number,
    "cycle": _cycle,
    "vector": _vector,
    "flag": lambda _: (bool, _as_they_are),
    "text": _text,
    "id": lambda _: (str, _nothing),
}
"""The type of each kind in JSON, and what writes its columns. What is hashed may be anything, and
an embedding is projected whole.
"""
