"""Which of a column's values a label means, whatever type it was written in: a control `1` is the
column's True, 1, 1.0 or "1".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isfinite

Test = Callable[[object, object], bool]


def resolve(label: object, values: Iterable[object]) -> object:
    """The one of a column's `values` that is meant by `label`; the label itself if none is.

    The strictest sense in which some value is meant counts, so that values that differ in any way
    stay apart.
    """
    present = list(values)
    for test in _TESTS:
        for value in present:
            if value is not None and test(value, label):
                return value
    return label


def _same_value(value: object, label: object) -> bool:
    # Arrays and the like compare with more than a truth value; they are nobody's label.
    return (value == label) is True or bool(_number(value) == _number(label) is not None)


def _same_text(value: object, label: object) -> bool:
    return str(value) == str(label)


def _same_word(value: object, label: object) -> bool:
    """True and "true", False and "FALSE"."""
    if not isinstance(value, bool) and not isinstance(label, bool):
        return False
    return str(value).casefold() == str(label).casefold()


def _same_number_written(value: object, label: object) -> bool:
    """1.0 and "1"."""
    one, other = _number(value, written=True), _number(label, written=True)
    return one is not None and one == other


_TESTS: tuple[Test, ...] = (_same_value, _same_text, _same_word, _same_number_written)
"""From strict to lenient."""


def _number(value: object, *, written: bool = False) -> float | None:
    """The value as a number, also where it is one's text if `written`; None if it is none."""
    if isinstance(value, str) and not written:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if isfinite(number) else None
