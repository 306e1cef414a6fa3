"""Segment's form of events: the bodies of its HTTP API, single or in a `batch`, as its webhooks,
RudderStack's and Jitsu's send them on.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from topbill.service.bodies import LARGEST_BATCH
from topbill.service.intake.sent import OWN, LeftOut, SentEvent, as_object

_Message = dict[str, Any]


class SegmentBody(msgspec.Struct, frozen=True, rename="camel"):
    """One message, or several in `batch`. Other keys may be there."""

    batch: Annotated[list[_Message], msgspec.Meta(max_length=LARGEST_BATCH)] | None = None
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


def read(body: SegmentBody) -> list[SentEvent | LeftOut]:
    """What a body says, message by message."""
    if body.batch is None:
        return [_event(body)]
    return [_event(msgspec.convert(message, SegmentBody)) for message in body.batch]


def _event(message: SegmentBody) -> SentEvent | LeftOut:
    if message.type != "track":
        return LeftOut(f"type {message.type!r:.60}; only track is an event")
    own = as_object(as_object(message.context).get(OWN))
    return SentEvent(
        name=message.event,
        properties=own | as_object(message.properties),
        units=(message.user_id, message.anonymous_id),
        event_id=message.message_id,
        at=message.timestamp or message.original_timestamp or message.sent_at,
    )
