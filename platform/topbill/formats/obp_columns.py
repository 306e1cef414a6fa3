"""How decisions become the numbered actions and numeric columns of obp's arrays: found in one pass
over a log, then fixed, so that the log can be turned into arrays a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from topbill.domain.errors import BadData
from topbill.domain.records import Decision, Floats, RewardEvent

Row = tuple[Decision, list[RewardEvent]]
POSITION = "position"
"""The context feature that holds the place of a decision of one placement, as text; 0 is the
first.
"""


class Layout(msgspec.Struct, frozen=True):
    """`actions` in the order of their numbers, `names` of the context's features, and the `columns`
    that they become: numbers and flags themselves, a text of the feature `device` the column
    `device=tv`. `placed` says whether every decision has a position."""

    actions: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    placed: bool = False

    def matrix(self, contexts: Sequence[Mapping[str, Any]]) -> Floats:
        """(n × columns): numbers as they are, 1 for a text that is there, 0 for what is absent."""
        place = {name: j for j, name in enumerate(self.columns)}
        found = np.zeros((len(contexts), len(place)))
        for i, context in enumerate(contexts):
            for name, value in context.items():
                found[i, place[_column(name, value)]] = (
                    1.0 if isinstance(value, str) else float(value or 0)
                )
        return found

    def number(self, decision: Decision, action: str) -> int:
        """The number of an action. Raises BadData where it has none."""
        try:
            return self.actions.index(action)
        except ValueError:
            raise BadData(
                decision.decision_id,
                f"got unknown action {action!r}; expected one of those numbered",
            ) from None


def survey(rows: Iterable[Row], actions: Sequence[str] | None = None) -> Layout:
    """The layout of a log: everything numbered as it is first met, or `actions` as given."""
    known: dict[str, None] = dict.fromkeys(actions or ())
    names: dict[str, None] = {}
    columns: dict[str, None] = {}
    placed = some = True
    for decision, _ in rows:
        some = False
        if actions is None:
            known.update(dict.fromkeys(decision.eligible))
            known.update(dict.fromkeys(p.action for p in decision.slate))
        context = described(decision)
        placed = place_of(decision, context) is not None and placed
        names.update(dict.fromkeys(context))
        columns.update(dict.fromkeys(_column(name, value) for name, value in context.items()))
    return Layout(tuple(known), tuple(names), tuple(columns), placed and not some)


def described(decision: Decision) -> dict[str, Any]:
    """The context's features, what is nested called `outer:inner` or `outer:0`. Raises BadData
    where one is no text, number or flag."""
    context = msgspec.json.decode(decision.context)
    if not isinstance(context, dict):
        raise BadData(
            decision.decision_id,
            f"got context {bytes(decision.context)[:40]!r}; expected an object",
        )
    found = dict(_flat(context))
    for name, value in found.items():
        if isinstance(value, int) and abs(value) > 1 << 1000:
            raise BadData(
                decision.decision_id,
                f"got {name} beyond any number that arrays hold; expected a float",
            )
    return found


def place_of(decision: Decision, context: dict[str, Any]) -> int | None:
    """Take the position out of the context of a decision of one placement; None where it has
    none.
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
    for name, part in value.items() if isinstance(value, Mapping) else enumerate(value):
        if isinstance(part, Mapping | list):
            yield from _flat(part, f"{prefix}{name}:")
        else:
            yield f"{prefix}{name}", part


def _column(name: str, value: Any) -> str:
    return f"{name}={value}" if isinstance(value, str) else name
