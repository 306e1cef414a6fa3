"""Feature schema → dense float64 vectors: compiled once per experiment, a few microseconds per
request.

What grows in the world (a category's values, a vector's keys) may be unseen and then adds nothing;
what the experiment declares (the features' names and types) must match, and a mismatch is a
`BadRequest` with its path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from numbers import Real
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from topbill.domain.chance import hash64
from topbill.domain.embedding import project
from topbill.domain.errors import BadRequest, PolicyError
from topbill.domain.records import Action, Actions, Floats
from topbill.domain.suggestion import nearest
from topbill.domain.text_features import text_numbers

FeatureKind = Literal[
    "category", "number", "cycle", "vector", "flag", "hashed", "text", "embedding", "id"
]
KINDS: tuple[FeatureKind, ...] = get_args(FeatureKind)
LARGEST = 1e6
"""Numbers without declared bounds must lie within ±LARGEST: their squares still add up exactly
enough.
"""
REST = "*"
"""The name of a hashed feature that takes all that the others do not declare."""
DEEPEST = 16
"""Levels of nesting that a hashed feature may have."""

_Writer: TypeAlias = Callable[[list[float], Any], None]


@dataclass(frozen=True)
class Feature:
    """A declared feature. kind: category(values) | number(low?, high?) | cycle(period) |
    vector(keys) | flag
    | hashed(size) | text(size, encoder?) | embedding(length, dimension) | id.

    Encoded as: category one-hot; number as it is, or scaled from [low, high] to [-1, 1] and
    clipped; cycle as sine and cosine of 2π·value/period; vector one number per key; flag 0 or 1;
    hashed any JSON, by `hashed_numbers`; text by its words, or by the
    model `encoder`, a file with a `tokenizer` beside it where it takes tokens, known by `sha256`
    (`text_numbers`); embedding a list of
    `length` numbers, projected to `dimension` where that is shorter (`embedding.project`); id
    nothing: it only names a row of a table. Missing is 0 everywhere: the middle of a scaled number,
    no category.
    """

    name: str
    kind: FeatureKind
    values: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    period: float = 0.0
    low: float | None = None
    high: float | None = None
    size: int = 0
    length: int = 0
    dimension: int = 0
    # Not in its text, from which tables have their fingerprint and simulated viewers their seed.
    encoder: str = field(default="", repr=False)
    tokenizer: str = field(default="", repr=False)
    sha256: str = field(default="", repr=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the numbers that it becomes: `device=tv`, `hour:sin`, `taste:drama`,
        `faces`.
        """
        if self.kind == "category":
            return tuple(f"{self.name}={value}" for value in self.values)
        if self.kind == "cycle":
            return f"{self.name}:sin", f"{self.name}:cos"
        if self.kind == "vector":
            return tuple(f"{self.name}:{key}" for key in self.keys)
        if self.kind in ("hashed", "text"):
            return tuple(f"{self.name}:{i}" for i in range(self.size))
        if self.kind == "embedding":
            return tuple(f"{self.name}:{i}" for i in range(self.dimension))
        if self.kind == "id":
            return ()
        return (self.name,)


class FeatureProblem(ValueError):
    """One value that does not fit the schema: where below the mapping, what was got, what was
    expected.
    """

    def __init__(self, path: str, got: str, expected: str, hint: str = "") -> None:
        self.path, self.got, self.expected, self.hint = path, got, expected, hint
        super().__init__(f"got {got}; expected {expected}" + (f"; {hint}" if hint else ""))


class Encoder:
    """Encodes mappings of raw feature values into vectors of `size` numbers, called `names`.

    >>> device = Feature("device", "category", values=("tv", "web"))
    >>> encoder = Encoder((device, Feature("kids", "flag")))
    >>> encoder.names, encoder.encode({"device": "web", "kids": True}).tolist()
    (('device=tv', 'device=web', 'kids'), [0.0, 1.0, 1.0])
    """

    __slots__ = ("_rest", "_writers", "_zeros", "features", "ignored", "names", "size")

    def __init__(self, features: tuple[Feature, ...], ignored: Iterable[str] = ()) -> None:
        """`ignored`: names that may be sent and add nothing, whatever their values."""
        self.features, self.ignored = features, frozenset(ignored)
        self.names: tuple[str, ...] = tuple(
            column for feature in features for column in feature.columns
        )
        self.size = len(self.names)
        self._zeros = [0.0] * self.size
        self._writers: dict[str, _Writer] = {}
        self._rest: _Writer | None = None
        start = 0
        for feature in features:
            writer = _COMPILERS[feature.kind](feature, start)
            if feature.name == REST:
                self._rest = writer
            else:
                self._writers[feature.name] = writer
            start += len(feature.columns)
        for name in self.ignored:
            if name == REST:
                self._rest = _ignore
            self._writers[name] = _ignore

    def takes(self, name: str) -> bool:
        """Whether a mapping may have a feature of that name."""
        return name in self._writers or self._rest is not None

    def encode(self, mapping: Mapping[str, Any], path: str = "$.context") -> Floats:
        """(size,) the vector of a mapping from feature name to raw value; absent or None is
        missing.

        Raises BadRequest, with the path of the culprit below `path`, for a value of the wrong type,
        a number that is not finite, or a name that the schema doesn't have.
        """
        # For few numbers it takes half as long as `np.array`.
        return np.fromiter(self.row(mapping, path), np.float64, self.size)

    def row(self, mapping: Mapping[str, Any], path: str = "$.context") -> list[float]:
        """`encode` as a list."""
        try:
            return self._row(mapping)
        except FeatureProblem as problem:
            raise BadRequest(path + problem.path, str(problem)) from None

    def encode_actions(self, actions: Sequence[Action], path: str = "$.actions") -> Actions:
        """The actions' ids and their (K × size) feature matrix. Raises BadRequest like `encode`."""
        rows = []
        for index, action in enumerate(actions):
            try:
                rows.append(self._row(action.features))
            except FeatureProblem as problem:
                where = f"{path}[{index}].features{problem.path}"
                raise BadRequest(where, str(problem)) from None
        return Actions(
            [action.id for action in actions],
            np.array(rows, dtype=np.float64).reshape(len(rows), self.size),
        )

    def problems(self, mapping: Mapping[str, Any]) -> Iterator[FeatureProblem]:
        """Everything wrong with a mapping, where `encode` stops at the first."""
        for name, value in mapping.items():
            try:
                self._row({name: value})
            except FeatureProblem as problem:
                yield problem
            except PolicyError:
                # Of a model that is not here nobody knows; whoever reads an audit needs none.
                continue

    def _row(self, mapping: Mapping[str, Any]) -> list[float]:
        # One list, filled in place by closures that know their columns: no vector is made for each
        # feature and joined to the others, which would take longer than all else here.
        row = self._zeros.copy()
        writers = self._writers
        try:
            for name, value in mapping.items():
                write = writers[name]
                if value is not None:
                    write(row, value)
        except KeyError:
            if self._rest is not None:
                return self._row_with_rest(mapping, self._rest)
            raise self._unknown(name) from None
        except AttributeError:
            expected = "a mapping from feature name to value"
            raise FeatureProblem("", _show(mapping), expected) from None
        return row

    def _row_with_rest(self, mapping: Mapping[str, Any], write_rest: _Writer) -> list[float]:
        """The row of a mapping some of whose names only the feature REST takes."""
        row = self._zeros.copy()
        rest: dict[str, Any] = {}
        for name, value in mapping.items():
            write = self._writers.get(name)
            if write is None:
                rest[name] = value
            elif value is not None:
                write(row, value)
        write_rest(row, rest)
        return row

    def _unknown(self, name: Any) -> FeatureProblem:
        path = f".{str(name)[:64]}"
        if not self._writers:
            return FeatureProblem(
                path, "an undeclared feature", "none: the experiment declares no features here"
            )
        return FeatureProblem(
            path,
            "an undeclared feature",
            f"one of {', '.join(self._writers)}",
            nearest(str(name), self._writers),
        )


def _show(value: Any) -> str:
    if isinstance(value, str):
        return repr(value) if len(value) <= 40 else repr(value[:40]) + "…"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence):
        return "a list"
    if isinstance(value, bool | int):
        return (
            str(value).lower() if -(10**40) < value < 10**40 else "a number of more than 40 digits"
        )
    return str(value)[:40]


def _number(value: Any, path: str) -> float:
    """`value` as a finite float; the exact types float and int come first because requests hold
    nothing else.
    """
    if (
        type(value) is not float
        and type(value) is not int
        and (isinstance(value, bool) or not isinstance(value, Real))
    ):
        raise FeatureProblem(path, _show(value), "a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not -math.inf < number < math.inf:
        raise FeatureProblem(path, _show(value), "a finite number")
    return number


def _bounded(value: Any, path: str) -> float:
    number = _number(value, path)
    if not -LARGEST <= number <= LARGEST:
        raise FeatureProblem(path, _show(value), f"a number within ±{LARGEST:,.0f}")
    return number


def _ignore(_row: list[float], _value: Any) -> None:
    """The writer of what adds nothing."""


def _category(feature: Feature, start: int) -> _Writer:
    path = f".{feature.name}"
    columns = {value: start + i for i, value in enumerate(feature.values)}

    def write(row: list[float], value: Any) -> None:
        if not isinstance(value, str):
            raise FeatureProblem(path, _show(value), "text")
        # An unknown value adds nothing: a new device must not be refused until a file is edited.
        column = columns.get(value)
        if column is not None:
            row[column] = 1.0

    return write


def _scalar(feature: Feature, start: int) -> _Writer:
    path, low, high = f".{feature.name}", feature.low, feature.high
    if low is None or high is None:

        def write(row: list[float], value: Any) -> None:
            row[start] = _bounded(value, path)

        return write
    scale, middle = 2.0 / (high - low), (high + low) / 2.0

    # Clipped: beyond its bounds a number is as at them, rather than ever more.
    def write_scaled(row: list[float], value: Any) -> None:
        row[start] = min(1.0, max(-1.0, (_number(value, path) - middle) * scale))

    return write_scaled


def _cycle(feature: Feature, start: int) -> _Writer:
    path, period = f".{feature.name}", feature.period
    radians, sin, cos = 2.0 * math.pi / period, math.sin, math.cos

    def write(row: list[float], value: Any) -> None:
        # Sine and cosine: 23 and 0 o'clock are neighbours, and every hour is as far from its
        # neighbours as any other.
        angle = (_number(value, path) % period) * radians
        row[start] = sin(angle)
        row[start + 1] = cos(angle)

    return write


def _vector(feature: Feature, start: int) -> _Writer:
    path = f".{feature.name}"
    columns = {key: start + i for i, key in enumerate(feature.keys)}

    def write(row: list[float], value: Any) -> None:
        if not isinstance(value, Mapping):
            raise FeatureProblem(path, _show(value), "a mapping from key to number")
        for key, part in value.items():
            column = columns.get(key)
            if column is not None and part is not None:
                # The usual case first; NaN and infinity fail the comparison.
                if type(part) is float and -LARGEST <= part <= LARGEST:
                    row[column] = part
                else:
                    row[column] = _bounded(part, f"{path}.{key}")

    return write


def _flag(feature: Feature, start: int) -> _Writer:
    path = f".{feature.name}"

    def write(row: list[float], value: Any) -> None:
        if not isinstance(value, bool):
            raise FeatureProblem(path, _show(value), "true or false")
        row[start] = float(value)

    return write


def _hashed(feature: Feature, start: int) -> _Writer:
    path, size = f".{feature.name}", feature.size

    def write(row: list[float], value: Any) -> None:
        if not isinstance(value, Mapping | list):
            raise FeatureProblem(path, _show(value), "a mapping, or a list of mappings")
        for name, number in hashed_numbers(value, path):
            column, sign = _spot(name, size)
            row[start + column] += sign * number

    return write


def _text(feature: Feature, start: int) -> _Writer:
    path, size, encoder = f".{feature.name}", feature.size, feature.sha256

    def write(row: list[float], value: Any) -> None:
        if not isinstance(value, str):
            raise FeatureProblem(path, _show(value), "text")
        for column, number in text_numbers(value, size, encoder):
            row[start + column] = number

    return write


def _embedding(feature: Feature, start: int) -> _Writer:
    path, length, dimension = f".{feature.name}", feature.length, feature.dimension

    def write(row: list[float], value: Any) -> None:
        # A decision's own record has the projected numbers, a caller sends the whole ones.
        if not isinstance(value, list) or len(value) not in (length, dimension):
            got = f"{len(value)} numbers" if isinstance(value, list) else _show(value)
            raise FeatureProblem(path, got, f"a list of {length} numbers")
        numbers = [_bounded(part, f"{path}[{i}]") for i, part in enumerate(value)]
        if len(numbers) != dimension:
            numbers = project(np.array([numbers]), dimension)[0].tolist()
        row[start : start + dimension] = numbers

    return write


def _id(feature: Feature, _: int) -> _Writer:
    path = f".{feature.name}"

    def write(_: list[float], value: Any) -> None:
        if not isinstance(value, str):
            raise FeatureProblem(path, _show(value), "text")

    return write


@lru_cache(maxsize=65_536)
def _spot(name: str, size: int) -> tuple[int, float]:
    """Where a name goes and with which sign, from different bits of one hash."""
    # The sign makes collisions cancel in the mean: without it, names that share a column would only
    # ever add up.
    bits = hash64("hashed", name)
    return (bits >> 1) % size, 1.0 if bits & 1 else -1.0


def hashed_numbers(
    value: Any, path: str, name: str = "", depth: int = 0
) -> Iterator[tuple[str, float]]:
    """The (name, number) pairs of nested JSON that signed feature hashing adds up (Weinberger et
    al. 2009, eq. 1-2).

    Text becomes `path=text` with 1, true its path with 1, a number its path with asinh(number):
    nobody declares bounds here, and no number may drown the others. Numbers in a list count by
    their place, everything else in a list as if it stood there alone. False, null and names with a
    leading underscore add nothing, as in Personalizer and Vowpal Wabbit. Raises FeatureProblem for
    what is nested deeper than DEEPEST, or is no finite number.
    """
    if depth > DEEPEST:
        raise FeatureProblem(path, "deeper nesting", f"at most {DEEPEST} levels")
    if isinstance(value, str):
        yield f"{name}={value}", 1.0
    elif isinstance(value, bool) or value is None:
        if value:
            yield name, 1.0
    elif isinstance(value, Mapping):
        for key, part in value.items():
            if not key.startswith("_"):
                yield from hashed_numbers(part, path, f"{name}.{key}" if name else key, depth + 1)
    elif isinstance(value, list):
        for i, part in enumerate(value):
            number = isinstance(part, int | float) and not isinstance(part, bool)
            yield from hashed_numbers(part, path, f"{name}[{i}]" if number else name, depth + 1)
    else:
        yield name, math.asinh(_number(value, path))


_COMPILERS: dict[FeatureKind, Callable[[Feature, int], _Writer]] = {
    "category": _category,
    "number": _scalar,
    "cycle": _cycle,
    "vector": _vector,
    "flag": _flag,
    "hashed": _hashed,
    "text": _text,
    "embedding": _embedding,
    "id": _id,
}


@dataclass(frozen=True)
class FeatureColumns:
    """Which numbers the declared features became, by feature, in their order: those of `x` for the
    context, those of a row of `Actions.features` for the actions.
    """

    context: Mapping[str, tuple[str, ...]]
    actions: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, context: Sequence[Feature], actions: Sequence[Feature]) -> FeatureColumns:
        """Those of an experiment's declared features."""
        return cls(
            {feature.name: feature.columns for feature in context},
            {feature.name: feature.columns for feature in actions},
        )

    @classmethod
    def unnamed(cls, context_size: int, action_size: int) -> FeatureColumns:
        """So many numbers, each a feature that is called by its place."""
        context, actions = [
            {str(place): (str(place),) for place in range(size)}
            for size in (context_size, action_size)
        ]
        return cls(context, actions)

    @property
    def context_size(self) -> int:
        """How many numbers `x` has."""
        return sum(map(len, self.context.values()))

    @property
    def action_size(self) -> int:
        """How many numbers an action has."""
        return sum(map(len, self.actions.values()))
