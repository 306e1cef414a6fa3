"""Snowplow's form of events: what its trackers post to a collector (`payload_data`), and so what
their webhooks and a second collector address send here.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec

from topbill.service.bodies import LARGEST_BATCH
from topbill.service.intake.sent import (
    OWN,
    LeftOut,
    SentEvent,
    as_object,
    first_said,
    no_object,
)

NAMES = {"event": "se_ac", "unit": "uid", "event_id": "eid", "at": "dtm"}
"""What is called something else here."""
_Event = dict[str, Any]
# Looked at one by one, as one that is none stops no other.
_Sent = Annotated[Any, msgspec.Meta(extra_json_schema={"type": "object"})]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_decode = msgspec.json.Decoder().decode


class SnowplowBody(msgspec.Struct, frozen=True):
    """Events under the tracker protocol's own short names. Other keys may be there."""

    data: Annotated[list[_Sent], msgspec.Meta(max_length=LARGEST_BATCH)]


def read(body: SnowplowBody) -> list[SentEvent | LeftOut]:
    """What a body says, event by event."""
    return [_event(event) for event in body.data]


def _event(event: Any) -> SentEvent | LeftOut:
    if not isinstance(event, dict):
        return no_object(event)
    kind = event.get("e")
    properties = _own(event)
    if kind == "se":
        name = event.get("se_ac")
        if event.get("se_va") is not None:
            properties = {"value": event["se_va"]} | properties
    elif kind == "ue":
        name, said = _self_describing(as_object(_json(event, "ue_pr", "ue_px")).get("data"))
        if not name:
            return LeftOut("a self-describing event without its data, or without its schema")
        properties |= said
    else:
        return LeftOut(f"e {kind!r:.60}; only se and ue are events that somebody named")
    return SentEvent(
        name=name,
        properties=properties,
        units=(event.get("uid"), event.get("duid")),
        event_id=event.get("eid"),
        at=_time(first_said(event.get("ttm"), event.get("dtm"))),
    )


def _own(event: _Event) -> dict[str, Any]:
    """What the entity called `topbill` says, of any vendor."""
    entities = as_object(_json(event, "co", "cx")).get("data")
    for entity in entities if isinstance(entities, list) else ():
        name, said = _self_describing(entity)
        if name == OWN:
            return said
    return {}


def _self_describing(value: Any) -> tuple[str, dict[str, Any]]:
    """The name in the schema of a self-describing object, `iglu:VENDOR/NAME/FORMAT/VERSION`, and
    its data; "" where it has none."""
    described = as_object(value)
    schema = described.get("schema")
    parts = schema.split("/") if isinstance(schema, str) else []
    return (parts[1] if len(parts) == 4 else ""), dict(as_object(described.get("data")))


def _json(event: _Event, plain: str, encoded: str) -> Any:
    """What stands under one of two keys, as JSON or as that in base64; None where that is none."""
    try:
        if isinstance(text := event.get(plain), str):
            return _decode(text)
        if isinstance(text := event.get(encoded), str):
            return _decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (msgspec.DecodeError, UnicodeError, binascii.Error, ValueError, RecursionError):
        return None
    return None


def _time(milliseconds: Any) -> Any:
    """A time as RFC 3339 has it; what is none stays as it is, and is refused."""
    if isinstance(milliseconds, bool):
        return milliseconds
    try:
        return (_EPOCH + timedelta(milliseconds=int(milliseconds))).isoformat()
    except (TypeError, ValueError, OverflowError):
        return milliseconds
