"""Any column of a catalogue as a feature of its titles, read as an experiment declares it.

A cell that does not fit leaves that one title's feature unknown, and is told by its row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from topbill.domain import cells
from topbill.domain.embedding import project
from topbill.domain.features import Encoder, Feature, FeatureKind

_LONGEST_WORD = 256
MOST_WORDS = 64
"""Words of a cell that are read: each stands in every decision that the title is a candidate of."""
_WORD = re.compile(r"\w+")


class WrongCell(NamedTuple):
    """A cell that does not fit: its row in the file, from 1, what it has and what was expected."""

    row: int
    got: str
    expected: str

    def __str__(self) -> str:
        return f"row {self.row}: got {self.got}; expected {self.expected}"


@dataclass(frozen=True)
class ColumnFeature:
    """A column of T titles, as a feature is declared.

    Attributes:
        feature: The declared feature, which has the column's name.
        values: (T) each title's value as JSON has it, None where it is unknown. Of a vector only
            the declared keys, of an embedding the projected numbers.
        wrong: The cells that do not fit.
    """

    feature: Feature
    values: Sequence[Any]
    wrong: tuple[WrongCell, ...] = ()

    @property
    def unknown(self) -> int:
        """Of how many titles it is unknown, those of wrong cells included."""
        return list(self.values).count(None)

    @property
    def is_unfit(self) -> bool:
        """Whether most of what the column has does not fit: then the declaration is wrong, or the
        column.
        """
        return len(self.wrong) > len(self.values) - self.unknown

    @property
    def is_unlisted(self) -> bool:
        """Whether all that is known is of values, or keys, that the feature does not list."""
        known = [value for value in self.values if value is not None]
        if self.feature.kind == "category":
            return bool(known) and set(self.feature.values).isdisjoint(known)
        return self.feature.kind == "vector" and bool(known) and not any(known)


def read_column(feature: Feature, column: Sequence[Any], rows: Sequence[int]) -> ColumnFeature:
    """A column, of whose cells `rows` are the numbers in the file, as the feature."""
    read = _reader(feature, column)
    encoder = Encoder((feature,))
    values: list[Any] = [None] * len(column)
    wrong: list[WrongCell] = []
    for place, cell in enumerate(column):
        if cell is None or cell == "":
            continue
        try:
            value = read(cell)
        except _Unfit as unfit:
            wrong.append(WrongCell(rows[place], unfit.got, str(unfit)))
            continue
        except ValueError as error:
            wrong.append(WrongCell(rows[place], cells.shown(cell), str(error)))
            continue
        # The bounds of a number, say.
        problems = list(encoder.problems({feature.name: value}))
        if problems:
            wrong.append(WrongCell(rows[place], problems[0].got, problems[0].expected))
        else:
            values[place] = _projected(value, feature) if feature.kind == "embedding" else value
    return ColumnFeature(feature, tuple(values), tuple(wrong))


class _Unfit(ValueError):
    """What was expected, where what was got is better said than shown."""

    def __init__(self, got: str, expected: str) -> None:
        self.got = got
        super().__init__(expected)


def _reader(feature: Feature, column: Sequence[Any]) -> Callable[[Any], Any]:
    if feature.kind == "category":
        return lambda cell: _category(cell, feature)
    if feature.kind == "vector":
        return lambda cell: _vector(cell, feature)
    if feature.kind == "embedding":
        return lambda cell: _embedding(cell, feature)
    if feature.kind == "hashed":
        # One reading for the whole column: a cast of one is a cast too, and not a text.
        return _names if any(map(_is_list, column)) else _words
    return _SCALARS[feature.kind]


_SCALARS: dict[FeatureKind, Callable[[Any], Any]] = {
    "number": cells.number,
    "cycle": cells.number,
    "flag": cells.flag,
    "text": lambda cell: _text(cell),
}


def _text(cell: Any) -> str:
    """Text, or a whole number that is a name: of a channel, say."""
    if isinstance(cell, int) and not isinstance(cell, bool):
        return str(cell)
    return cells.text(cell)


def _category(cell: Any, feature: Feature) -> str:
    text = _text(cell)
    if text not in feature.values and _is_list(text):
        raise ValueError("one value; lists are of type vector, or hashed")
    if len(text) > _LONGEST_WORD:
        raise ValueError(f"at most {_LONGEST_WORD} characters; text is of type hashed")
    return text


def _is_list(cell: Any) -> bool:
    return isinstance(cell, list) or (isinstance(cell, str) and "|" in cell)


def _is_mapping(cell: Any) -> bool:
    if isinstance(cell, str):
        return cell.lstrip().startswith("{")
    # Arrow gives a map as a list of pairs.
    is_map = isinstance(cell, list) and bool(cell) and isinstance(cell[0], tuple)
    return is_map or isinstance(cell, dict)


def _vector(cell: Any, feature: Feature) -> dict[str, float]:
    """Of a mapping its numbers, of a list 1 for each that it names."""
    numbers = cells.mapping(cell) if _is_mapping(cell) else dict.fromkeys(names_in(cell), 1.0)
    return {key: numbers[key] for key in feature.keys if key in numbers}


def names_in(cell: Any) -> Iterator[str]:
    """What a list names: texts separated by bars, or a list of texts. Raises ValueError for what
    is neither.
    """
    for entry in cell if isinstance(cell, list) else _text(cell).split("|"):
        if entry is None:
            continue
        if not isinstance(entry, str):
            raise ValueError("texts separated by bars, or a list of texts")
        if len(entry) > _LONGEST_WORD:
            raise _Unfit(f"a text of {len(entry):,} characters", f"at most {_LONGEST_WORD}")
        if entry.strip():
            yield entry.strip()


def _names(cell: Any) -> list[str]:
    """What a list names, whole, each once."""
    return list(dict.fromkeys(names_in(cell)))[:MOST_WORDS]


def _words(cell: Any) -> list[str]:
    """The words of a text in small letters, each once."""
    return list(dict.fromkeys(_WORD.findall(_text(cell).casefold())))[:MOST_WORDS]


def _embedding(cell: Any, feature: Feature) -> list[float]:
    expected = f"a list of {feature.length} numbers"
    if isinstance(cell, str):
        cell = cells.from_json(cell, f"{expected} as JSON, [0.5, -1]")
    if not isinstance(cell, list):
        raise ValueError(expected)
    # Said here and not by the encoder, which takes a vector that was projected already too.
    if len(cell) != feature.length:
        raise _Unfit(f"{len(cell)} numbers", str(feature.length))
    return [cells.number(part) for part in cell]


def _projected(vector: list[float], feature: Feature) -> list[float]:
    numbers: list[float] = project(np.array([vector]), feature.dimension)[0].tolist()
    return numbers
