"""What the fast path's requests and answers look like, beside those of the engine."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from topbill.domain.errors import BadRequest
from topbill.engine import Answer, DecideRequest, Id
from topbill.process_log import REQUEST_ID
from topbill.spec.fields import NAME

LARGEST_BATCH = 1_000
LARGEST_WORK = 1_000_000
"""Most actions × slots that all decisions of a batch may have together: as many as the largest
single decision has."""
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 12, 31, tzinfo=UTC)
"""What the lake's readers can all hold: an offset may carry a time past the last year that they
know.
"""
_encode = msgspec.json.Encoder().encode


class DecideBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several decisions, all stored together or none."""

    decisions: Annotated[list[DecideRequest], msgspec.Meta(min_length=1, max_length=LARGEST_BATCH)]


class DecideBatchAnswer(msgspec.Struct, frozen=True):
    """The answers, in the order of the requests."""

    decisions: list[Answer]


Value = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
"""Far from where sums of values and of their squares would overflow."""


class RewardRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A reward event of a decision, or of one item of its slate. `at` is when it happened (RFC
    3339), if not now.
    """

    decision_id: Id
    event: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    value: Value = 1.0
    action: Id | None = None
    position: Annotated[int, msgspec.Meta(ge=0, le=10_000)] | None = None
    event_id: Id | None = None
    at: datetime | None = None


class RewardBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several reward events, all stored together or none."""

    rewards: Annotated[list[RewardRequest], msgspec.Meta(min_length=1, max_length=LARGEST_BATCH)]


RewardStatus = Literal["stored", "duplicate", "unknown_decision"]


UNREAD_BECAME = {"stored": "stored, but", "duplicate": "not stored again, and"}
"""How the warning begins that nothing reads an event, by the answer's status."""


class RewardAnswer(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What became of an event: `stored`, a `duplicate` of one stored before, of an
    `unknown_decision` (not stored). `warning` is there where no metric of the experiment reads the
    event."""

    status: RewardStatus
    decision_id: str
    event_id: str | None
    warning: str | None = None


class RewardBatchAnswer(msgspec.Struct, frozen=True):
    """What became of each event, in the order in which they were sent."""

    results: list[RewardAnswer]


class EventRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Something that a unit did, of whatever decision. `unit_type` is what experiments call their
    `unit`; it may be left out where all have one. `at` is when it happened (RFC 3339), if not now.
    """

    unit: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    event: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    unit_type: Annotated[str, msgspec.Meta(pattern=NAME)] | None = None
    value: Value = 1.0
    action: Id | None = None
    event_id: Id | None = None
    at: datetime | None = None


class EventBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several events of units, all stored together or none."""

    events: Annotated[list[EventRequest], msgspec.Meta(min_length=1, max_length=LARGEST_BATCH)]


EventStatus = Literal["stored", "duplicate", "erased"]


class EventAnswer(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What became of an event of a unit: `stored`, or a `duplicate` of one that came under this id
    of this unit before, or `erased` (not stored): it happened before its unit was. `warning` is
    there where nothing reads it."""

    status: EventStatus
    unit: str
    unit_type: str
    event_id: str
    warning: str | None = None


class EventBatchAnswer(msgspec.Struct, frozen=True):
    """What became of each event, in the order in which they were sent."""

    results: list[EventAnswer]


class ErrorDetail(msgspec.Struct, frozen=True):
    """What is wrong with a request: a stable code, the path of the culprit, and a sentence."""

    code: str
    message: str
    path: str | None = None
    request_id: str | None = None


class ProblemAnswer(msgspec.Struct, frozen=True):
    """The body of every answer that isn't 2xx."""

    error: ErrorDetail


def micros(at: datetime, path: str) -> int:
    """The caller's time in µs since the epoch; UTC where it names no offset. Raises BadRequest, at
    `path`, for one that no reader of the record could hold."""
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    if not _FIRST <= at <= _LAST:
        raise BadRequest(f"{path}.at", f"{at.isoformat()}; expected a time from 1970 to 9999, UTC")
    return int(at.timestamp() * 1e6)


def problem(code: str, message: str, path: str | None = None) -> bytes:
    """The body of a refusal."""
    return _encode(ProblemAnswer(ErrorDetail(code, message, path, REQUEST_ID.get())))
