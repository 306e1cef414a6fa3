"""How decisions become the numbered actions and numeric columns of obp's arrays: found in one pass
over a log, then fixed, so that the log can be turned into arrays a batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from topbill.domain.errors import BadData
from topbill.domain.records import Decision, Floats
from topbill.formats.rows import Row

POSITION = "position"
"""The context feature that holds the position of a decision of one placement, as text; 0 is the
first.
"""
# A whole number above which none fits a float.
_LARGEST = 1 << 1000


def vector(name: str, values: Any, dtype: Any = None) -> NDArray[Any]:
    """(n,) values as an array; obp has some as columns of shape (n, 1).

    Raises BadData for any other shape, and for what is no number where a number is wanted.
    """
    try:
        array = np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise BadData(name, f"got no numbers ({error}); expected one per row") from None
    if array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0]
    if array.ndim != 1:
        raise BadData(
            name, f"got an array of shape {array.shape}; expected one dimension, a number per row"
        )
    return array


class ObpColumns(msgspec.Struct, frozen=True):
    """What the arrays of one log hold.

    Attributes:
        actions: In the order of their numbers.
        names: The context's features.
        columns: What they become: numbers and flags themselves, a text of the feature `device` the
            column `device=tv`.
        placed: Whether every decision has a position.
    """

    actions: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    placed: bool = False

    def matrix(self, contexts: Sequence[Mapping[str, Any]]) -> Floats:
        """(n × columns): numbers as they are, 1 for a text that is there, 0 for what is absent."""
        column_of = {name: j for j, name in enumerate(self.columns)}
        matrix = np.zeros((len(contexts), len(self.columns)))
        for i, context in enumerate(contexts):
            for name, value in context.items():
                number = 1.0 if isinstance(value, str) else float(value or 0)
                matrix[i, column_of[_column(name, value)]] = number
        return matrix

    def number(self, decision: Decision, action: str) -> int:
        """The number of an action. Raises BadData where it has none."""
        try:
            return self.actions.index(action)
        except ValueError:
            raise BadData(
                decision.decision_id,
                f"got unknown action {action!r}; expected one of those numbered",
            ) from None


def survey(rows: Iterable[Row], actions: Sequence[str] | None = None) -> ObpColumns:
    """The columns of a log: everything numbered as it is first met, or `actions` as given."""
    # Dictionaries as sets that keep the order.
    numbered: dict[str, None] = dict.fromkeys(actions or ())
    names: dict[str, None] = {}
    columns: dict[str, None] = {}
    decisions = positions = 0
    for decision, _ in rows:
        decisions += 1
        if actions is None:
            numbered.update(dict.fromkeys(decision.eligible))
            for placed in decision.slate:
                numbered.setdefault(placed.action)
        context = context_features(decision)
        if take_position(decision, context) is not None:
            positions += 1
        for name, value in context.items():
            names.setdefault(name)
            columns.setdefault(_column(name, value))
    # A log in which some have a position and some have none is one without: obp knows no gaps.
    all_placed = 0 < positions == decisions
    return ObpColumns(tuple(numbered), tuple(names), tuple(columns), all_placed)


def context_features(decision: Decision) -> dict[str, Any]:
    """The context's features, what is nested called `outer:inner` or `outer:0`.

    Raises BadData where one is no text, number or flag.
    """
    context = msgspec.json.decode(decision.context)
    if not isinstance(context, dict):
        raise BadData(
            decision.decision_id,
            f"got context {bytes(decision.context)[:40]!r}; expected an object",
        )
    features = dict(_flat(context))
    for name, value in features.items():
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise BadData(
                decision.decision_id,
                f"got {name} beyond any number that arrays hold; expected a float",
            )
    return features


def names_of(n_actions: int) -> tuple[str, ...]:
    """What actions are called that have numbers only: action a is `str(a)`."""
    return tuple(map(str, range(n_actions)))


def context_of(numbers: Iterable[float]) -> dict[str, Any]:
    """A context of numbers only: {"x0": …, "x1": …}."""
    return {f"x{j}": float(number) for j, number in enumerate(numbers)}


def take_position(decision: Decision, context: dict[str, Any]) -> int | None:
    """Take the position out of the context of a decision of one placement; None where it has
    none. In a slate of several, `position` is a feature like any other.
    """
    if len(decision.slate) != 1 or POSITION not in context:
        return None
    try:
        return int(context.pop(POSITION))
    except (TypeError, ValueError) as error:
        raise BadData(
            decision.decision_id, f"got position in its context that is no number: {error}"
        ) from None


def _flat(value: Mapping[str, Any] | Sequence[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    parts = value.items() if isinstance(value, Mapping) else enumerate(value)
    for name, part in parts:
        if isinstance(part, Mapping | list):
            yield from _flat(part, f"{prefix}{name}:")
        else:
            yield f"{prefix}{name}", part


def _column(name: str, value: Any) -> str:
    return f"{name}={value}" if isinstance(value, str) else name
