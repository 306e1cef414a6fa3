"""What an event that another tool sends on is here: a reward, where it names a decision, or else an
event of its unit, which metrics of `scope: unit` count in their windows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from topbill.domain.errors import BadRequest
from topbill.domain.json_text import at_path
from topbill.service.bodies import EventRequest, RewardRequest

OWN = "topbill"
"""What tools call their context, and trackers their entity, that says of an event what its
properties don't: the same keys."""
_DECISION = ("decision_id", "decisionId")
_VALUE = ("value", "revenue")
"""Names of properties, the one that is looked for first in front."""


_FIELD = re.compile(r"\$(?:\.(?:rewards|events)\[\d+\])?\.(\w+)")
"""Where a request of ours, or one in a batch of them, has something wrong."""
_Kind = TypeVar("_Kind", RewardRequest, EventRequest)


class SentEvent(NamedTuple):
    """An event as it was sent.

    Attributes:
        name: What happened.
        properties: What is said of it.
        units: Who it may have been, whom to believe first in front; None where nobody is named.
        event_id: By which it is known when it comes again.
        at: When it happened, as RFC 3339 has it; None where that is not said.
    """

    name: Any
    properties: dict[str, Any]
    units: tuple[Any, ...]
    event_id: Any
    at: Any


class LeftOut(NamedTuple):
    """Why something that was sent is no event: `refused` where it should be one."""

    reason: str
    refused: bool = False


def left_out(error: BadRequest, names: Mapping[str, str]) -> LeftOut:
    """What an error says, with the place as the tool calls it: `names` has those of its names that
    are others than ours.
    """
    field = _FIELD.match(error.path)
    if field is None:
        return LeftOut(str(error), refused=True)
    rest = error.path[field.end() :]
    return LeftOut(f"$.{names.get(field[1], field[1])}{rest}: {error.message}", refused=True)


def no_object(message: Any) -> LeftOut:
    """What is said of a message that is none."""
    return LeftOut(f"$: got {message!r:.60}; expected an object", refused=True)


def first_said(*values: Any) -> Any:
    """The first that is neither missing nor empty text."""
    return next((value for value in values if value is not None and value != ""), None)


def request_of(sent: SentEvent) -> RewardRequest | EventRequest:
    """The event as a request of ours. Raises BadRequest for what cannot be one."""
    properties = sent.properties
    said = {
        "event": sent.name,
        "value": _number(_first(properties, _VALUE)),
        "event_id": sent.event_id,
        "at": sent.at,
        "action": properties.get("action"),
    }
    decision_id = _first(properties, _DECISION)
    if decision_id is not None:
        said |= {"decision_id": decision_id, "position": properties.get("position")}
        return _converted(said, RewardRequest)
    unit = first_said(*sent.units)
    if unit is None:
        raise BadRequest(
            "$", "neither a decision nor a user; expected decision_id or the user's id"
        )
    said |= {"unit": unit, "unit_type": properties.get("unit_type")}
    return _converted(said, EventRequest)


def as_object(value: Any) -> dict[str, Any]:
    """An object of what was sent; an empty one where something else stands there."""
    return value if isinstance(value, dict) else {}


def _first(properties: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((properties[name] for name in names if properties.get(name) is not None), None)


def _number(value: Any) -> Any:
    """A number, also one that is written as text; all else as it is."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            return msgspec.convert(value, float, strict=False)
        except msgspec.ValidationError:
            return value
    return value


def _converted(said: dict[str, Any], kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.convert({k: v for k, v in said.items() if v is not None}, kind)
    except msgspec.ValidationError as error:
        raise at_path(error) from error
