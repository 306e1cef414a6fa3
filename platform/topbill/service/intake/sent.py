"""What an event that another tool sends on is here: a reward, where it names a decision, or else an
event of its unit, which metrics of `scope: unit` count in their windows.
"""

from __future__ import annotations

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
    """Why something that was sent is no event."""

    reason: str


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
    unit = next((unit for unit in sent.units if unit not in (None, "")), None)
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
            return float(value)
        except ValueError:
            return value
    return value


def _converted(said: dict[str, Any], kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.convert({k: v for k, v in said.items() if v is not None}, kind)
    except msgspec.ValidationError as error:
        raise at_path(error) from error
