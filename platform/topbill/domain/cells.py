"""Cells of tables that somebody else wrote, as values of features: one reading for every table.

Each function for one cell gives the value as JSON has it, or raises ValueError that says what was
expected.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pyarrow as pa

_FLAGS = {"true": True, "false": False}


def values_of(column: pa.ChunkedArray) -> list[Any]:
    """A column as Python's values. What Python has no value for, a date beyond its calendar, is
    the text that says so, which is no date.
    """
    try:
        return list(column.to_pylist())
    except (pa.ArrowException, ValueError, OverflowError):
        return [_value_of(cell) for cell in column]


def _value_of(cell: pa.Scalar) -> Any:
    try:
        return cell.as_py()
    except (pa.ArrowException, ValueError, OverflowError) as error:
        return str(error)


def shown(value: Any) -> str:
    """A cell as errors show it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def text(value: Any) -> str:
    """A text, as it is."""
    if not isinstance(value, str):
        raise ValueError("text")
    return value


def number(value: Any) -> float:
    """A finite number, or a text that is one."""
    # Python's own reading of a text would take 1_000.
    if isinstance(value, bool) or value is None or (isinstance(value, str) and "_" in value):
        raise ValueError("a number")
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("a number") from None
    if not math.isfinite(found):
        raise ValueError("a finite number; leave it empty where it is unknown")
    return found


def flag(value: Any) -> bool:
    """True or false, or a text that says so."""
    found = _FLAGS.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise ValueError("true or false")
    return found


def mapping(value: Any) -> dict[str, float]:
    """Of a struct, a map, or JSON text; what is unknown in it is left out."""
    if isinstance(value, str):
        value = from_json(value, "a mapping as JSON")
    # Arrow gives a map as a list of pairs.
    if isinstance(value, list) and all(isinstance(pair, tuple) for pair in value):
        value = dict(value)
    if not isinstance(value, dict):
        raise ValueError("a mapping from key to number")
    return {str(key): number(part) for key, part in value.items() if part is not None}


def from_json(value: str, expected: str) -> Any:
    """What a text says as JSON."""
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise ValueError(expected) from None
