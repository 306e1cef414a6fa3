"""Segment's form of events: the bodies of its HTTP API, single or in a `batch`, as its webhooks,
RudderStack's and Jitsu's send them on.
"""

from __future__ import annotations

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

NAMES = {"unit": "userId", "event_id": "messageId", "at": "timestamp"}
"""What is called something else here."""
# Looked at one by one, as one that is none stops no other.
_Message = Annotated[Any, msgspec.Meta(extra_json_schema={"type": "object"})]


class SegmentMessage(msgspec.Struct, frozen=True, rename="camel"):
    """One message. Other keys may be there."""

    type: Any = None
    event: Any = None
    user_id: Any = None
    anonymous_id: Any = None
    message_id: Any = None
    properties: Any = None
    context: Any = None
    timestamp: Any = None
    original_timestamp: Any = None
    sent_at: Any = None


class SegmentBody(SegmentMessage, frozen=True, rename="camel"):
    """One message, or several in `batch`."""

    batch: Annotated[list[_Message], msgspec.Meta(max_length=LARGEST_BATCH)] | None = None


def read(body: SegmentBody) -> list[SentEvent | LeftOut]:
    """What a body says, message by message."""
    if body.batch is None:
        return [_event(body)]
    return [_of_batch(message) for message in body.batch]


def _of_batch(message: Any) -> SentEvent | LeftOut:
    if not isinstance(message, dict):
        return no_object(message)
    return _event(msgspec.convert(message, SegmentMessage))


def _event(message: SegmentMessage) -> SentEvent | LeftOut:
    if message.type != "track":
        return LeftOut(f"type {message.type!r:.60}; only track is an event")
    own = as_object(as_object(message.context).get(OWN))
    return SentEvent(
        name=message.event,
        properties=own | as_object(message.properties),
        units=(message.user_id, message.anonymous_id),
        event_id=message.message_id,
        at=first_said(message.timestamp, message.original_timestamp, message.sent_at),
    )
