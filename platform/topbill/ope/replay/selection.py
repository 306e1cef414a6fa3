"""Which decisions of a log an evaluation speaks of: conditions on context and decision, and a span
of time.

Conditions are compared with decoded values, never put into SQL, so that any text is only text.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, TypeAlias

import msgspec

from topbill.domain.errors import BadRequest
from topbill.domain.features import REST, Feature
from topbill.domain.instants import instant
from topbill.domain.records import Decision
from topbill.domain.suggestion import nearest
from topbill.spec import Experiment
from topbill.spec.fields import listed

Moment: TypeAlias = str | date | None
"""A date or a time; what names no zone is UTC, and a date is its first moment."""

_CONDITION = re.compile(
    r"\s*([^\s=!<>](?:[^=!<>]*[^\s=!<>])?)\s*(>=|<=|!=|==|=|>|<)\s*(.*?)\s*", re.DOTALL
)
_BETWEEN = re.compile("[:.]")
_ORDERS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_OF_DECISION = ("variant", "unit", "revision")
"""Fields of a decision that conditions may name beside the context's features."""
_SAMPLE, _MOST_NAMED = 1_000, 20
"""Of so many contexts names are listed, and so many of these, where a condition names no other."""
_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Condition:
    """One condition as it was written, and the test of a decision and its decoded context.

    `path` leads into JSON of which nobody declared what it has; it is empty elsewhere.
    """

    text: str
    holds: Callable[[Decision, Mapping[str, Any]], bool]
    path: tuple[str, ...] = ()


class Selection:
    """The decisions that meet all conditions `where` and were made from `since` on, before `until`.

    Raises BadRequest for a condition that cannot be read, or names what the experiment has not.
    """

    def __init__(
        self,
        experiment: Experiment,
        where: str | Sequence[str] = (),
        since: Moment = None,
        until: Moment = None,
    ) -> None:
        texts = (where,) if isinstance(where, str) else tuple(where)
        self.conditions = [_condition(text, experiment) for text in texts]
        self._unseen = {each.path: each.text for each in self.conditions if each.path}
        self._names: dict[str, None] = {}
        self._contexts = 0
        self._since, self._until = _moment("since", since), _moment("until", until)
        if self._since is not None and self._until is not None and self._since >= self._until:
            raise BadRequest("until", f"got {until}; expected a time after since, {since}")

    def says(self) -> dict[str, Any]:
        """What was selected, in plain types; empty where everything was."""
        parts: dict[str, Any] = {}
        if self.conditions:
            parts["where"] = [condition.text for condition in self.conditions]
        for name, at in (("since", self._since), ("until", self._until)):
            if at is not None:
                parts[name] = datetime.fromtimestamp(at / 1e6, UTC).isoformat()
        return parts

    def cause(self, decision: Decision) -> str | None:
        """Why a decision is not among them; None where it is."""
        if self._since is not None and decision.decided_at < self._since:
            return "before since"
        if self._until is not None and decision.decided_at >= self._until:
            return "not before until"
        if self.conditions:
            context = msgspec.json.decode(decision.context)
            if self._unseen:
                self._look_at(context)
            for condition in self.conditions:
                if not condition.holds(decision, context):
                    return f"not {condition.text}"
        return None

    def _look_at(self, context: Mapping[str, Any]) -> None:
        """Note what a context has, while a name that some condition asks for was in none."""
        for path in list(self._unseen):
            if any(True for _ in _values(context, path)):
                del self._unseen[path]
        if self._contexts < _SAMPLE:
            self._names |= dict.fromkeys(_names(context))
        self._contexts += 1

    def seen(self) -> dict[str, Any]:
        """What of the names that conditions ask for was looked at, in plain types."""
        return {
            "unseen": [list(path) for path in self._unseen],
            "names": list(self._names),
            "contexts": self._contexts,
        }

    def add(self, seen: Mapping[str, Any]) -> None:
        """What another one looked at."""
        unseen = {tuple(path) for path in seen["unseen"]}
        self._unseen = {path: text for path, text in self._unseen.items() if path in unseen}
        self._names |= dict.fromkeys(seen["names"])
        self._contexts += seen["contexts"]

    def refuse_unseen(self) -> None:
        """Raises BadRequest, with the names that there are, for a condition on one that no context
        had."""
        if not self._contexts:
            return
        for path, text in self._unseen.items():
            name, names = ".".join(path), [*self._names, *_OF_DECISION]
            hint = nearest(name, names)
            raise BadRequest(
                "where",
                f"got {name!r} in {text!r}, which no context has; expected one of "
                f"{listed(names, _MOST_NAMED)}" + f"; {hint}" * bool(hint),
            )


def _moment(name: str, moment: Moment) -> int | None:
    """µs since the epoch."""
    return None if moment is None else round(instant(name, moment).timestamp() * 1e6)


def _condition(text: str, experiment: Experiment) -> Condition:
    match = _CONDITION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise BadRequest(
            "where",
            f"got {text!r}; expected NAME=VALUE, or one of != > >= < <= in its place, as in "
            "device=tv, device=tv,web or hour>=18",
        )
    name, sign, literal = match.groups()
    literal = _unquoted(literal)
    features = {feature.name: feature for feature in experiment.context}
    # A vector's own names, and those in nested JSON, stand behind a colon or a point:
    # taste:drama>0.5, user.country=de.
    top, *path = name.split(":")
    if top not in features:
        top, *path = _BETWEEN.split(name)
    feature = features.get(top)
    if feature is None and name not in _OF_DECISION:
        feature = features.get(REST)
    if feature is not None:
        return _of_context(feature, text.strip(), (top, *path), sign, literal)
    if name in _OF_DECISION:
        compare = _equality(name, sign, literal, ())
        return Condition(text.strip(), lambda decision, _: compare(str(getattr(decision, name))))
    names = [*features, *_OF_DECISION]
    hint = nearest(name, names)
    raise BadRequest(
        "where",
        f"got {name!r} in {text!r}; expected one of {', '.join(names)}" + f"; {hint}" * bool(hint),
    )


def _unquoted(literal: str) -> str:
    if len(literal) > 1 and literal[0] == literal[-1] and literal[0] in "'\"":
        return literal[1:-1]
    return literal


def _of_context(
    feature: Feature, text: str, path: tuple[str, ...], sign: str, literal: str
) -> Condition:
    """A condition on what `path` leads to in the context, and `feature` takes."""
    is_json = feature.kind == "hashed"
    if is_json:
        path = tuple(_BETWEEN.split(":".join(path)))
        test = _any(".".join(path), sign, literal)
    else:
        test = _test(feature, path[1:], sign, literal)

    def holds(_decision: Decision, context: Mapping[str, Any]) -> bool:
        # What is not there meets no condition, as in SQL; of a list, one suffices.
        return any(test(value) for value in _values(context, path))

    return Condition(text, holds, path if is_json else ())


def _values(context: Any, path: Sequence[str]) -> Iterator[Any]:
    """What a path leads to: nothing, a value, or several where lists are on the way."""
    if isinstance(context, list):
        for part in context:
            yield from _values(part, path)
    elif isinstance(context, Mapping):
        # A name may hold a point itself.
        for end in range(1, len(path) + 1):
            yield from _values(context.get(".".join(path[:end])), path[end:])
    elif not path and context is not None:
        yield context


def _names(context: Any, above: str = "") -> Iterator[str]:
    """The names of what a context has, those of nested values behind their own and a point."""
    if isinstance(context, Mapping):
        for name, part in context.items():
            # As in features, a name with a leading underscore is a note.
            if not name.startswith("_"):
                yield from _names(part, f"{above}.{name}" if above else name)
    elif isinstance(context, list):
        for part in context:
            yield from _names(part, above)
    else:
        yield above


def _test(feature: Feature, path: Sequence[str], sign: str, literal: str) -> Callable[[Any], bool]:
    """The comparison of the feature's own type."""
    if path and feature.kind != "vector":
        raise BadRequest("where", f"got {feature.name}:{':'.join(path)}; expected {feature.name}")
    if feature.kind == "flag":
        return _flag(feature.name, sign, literal)
    if feature.kind in ("number", "cycle", "vector"):
        if feature.kind == "vector" and (len(path) != 1 or path[0] not in feature.keys):
            keys = ", ".join(f"{feature.name}:{key}" for key in feature.keys[:8])
            raise BadRequest("where", f"got {':'.join([feature.name, *path])}; expected {keys}")
        return _number(feature.name, sign, literal)
    return _equality(feature.name, sign, literal, feature.values)


def _flag(name: str, sign: str, literal: str) -> Callable[[Any], bool]:
    wanted = _FLAGS.get(literal.lower())
    if wanted is None or sign not in ("=", "==", "!="):
        raise BadRequest(
            "where", f"got {name}{sign}{literal}; expected {name}=true or {name}=false"
        )
    return lambda value: (value is wanted) == (sign != "!=")


def _number(name: str, sign: str, literal: str) -> Callable[[Any], bool]:
    try:
        bounds = [float(part) for part in literal.split(",")]
    except ValueError:
        bounds = []
    if not bounds or (sign in _ORDERS and len(bounds) > 1):
        raise BadRequest(
            "where", f"got {name}{sign}{literal}; expected a number, as {name} is one: {name}>=18"
        )
    if sign in _ORDERS:
        order, bound = _ORDERS[sign], bounds[0]
        return lambda value: _is_number(value) and order(value, bound)
    return lambda value: _is_number(value) and (value in bounds) == (sign != "!=")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equality(name: str, sign: str, literal: str, values: Sequence[str]) -> Callable[[Any], bool]:
    """Whether a text is one of those between commas; `values` are all that there can be, where they
    are known.
    """
    if sign in _ORDERS:
        raise BadRequest(
            "where", f"got {name}{sign}{literal}; expected = or !=, as {name} has no order"
        )
    # A value may hold a comma itself.
    wanted = [literal] if literal in values else [part.strip() for part in literal.split(",")]
    unknown = [part for part in wanted if values and part not in values]
    if unknown:
        hint = nearest(unknown[0], values)
        raise BadRequest(
            "where",
            f"got {name}{sign}{unknown[0]}; expected one of {', '.join(values[:8])}"
            + f"; {hint}" * bool(hint),
        )
    return lambda value: (str(value) in wanted) == (sign != "!=")


def _any(name: str, sign: str, literal: str) -> Callable[[Any], bool]:
    """Of JSON that nobody declared, each value is compared as what it is."""
    as_text = None if sign in _ORDERS else _equality(name, sign, literal, ())
    try:
        as_number = _number(name, sign, literal)
    except BadRequest:
        if as_text is None:
            raise
        as_number = None

    def test(value: Any) -> bool:
        if isinstance(value, bool):
            return as_text is not None and as_text(str(value).lower())
        if _is_number(value):
            return as_number is not None and as_number(value)
        return as_text is not None and as_text(value)

    return test
