"""What the service accepts and answers, as far as a stand-in for it needs to know.

The service has these forms too, with its own types behind them; a test of the project compares the
JSON Schemas of the two, so that neither changes alone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128, description="1 to 128 characters")]
PageId = Annotated[
    str,
    msgspec.Meta(pattern=r"^[^:]{1,48}$", description="1 to 48 characters, none of them a colon"),
]


class DecideRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/decide`."""

    experiment: Id
    unit: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    context: Any = msgspec.field(default_factory=dict)
    actions: Any = None
    exclude: Annotated[list[Id], msgspec.Meta(max_length=5_000)] = []
    slots: Annotated[int, msgspec.Meta(ge=1, le=200)] | None = None
    decision_id: Id | None = None
    explore: bool = True


class OfferedAction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An action that the caller offers in place of the experiment's own."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    features: dict[str, Any] = {}
    payload: Any = None


_Score = Annotated[
    float,
    msgspec.Meta(ge=-1e9, le=1e9, description="The higher, the better; of any scale, below 0 too"),
]


class ScoredTitle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A candidate of a row of source external; without a `score` it comes after those that have
    one, in the order of the list.
    """

    title: Id
    score: _Score | None = None


class PageRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/page`."""

    page: Id
    profile: Id | None = None
    account: Id | None = None
    session: Id | None = None
    kids: bool = False
    maturity: Annotated[int, msgspec.Meta(ge=0, le=21)] | None = None
    region: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    watched: Annotated[list[Id], msgspec.Meta(max_length=100)] | None = None
    context: Any = msgspec.field(default_factory=dict)
    page_id: PageId | None = None
    after: (
        Annotated[
            str,
            msgspec.Meta(
                pattern=r"^[^:]{1,64}$",
                description="The page_id of the page above, as it was answered",
            ),
        ]
        | None
    ) = None
    candidates: (
        Annotated[
            dict[Id, Annotated[list[ScoredTitle], msgspec.Meta(max_length=500)]],
            msgspec.Meta(max_length=100),
        ]
        | None
    ) = None
    scores: Annotated[dict[Id, _Score], msgspec.Meta(max_length=5_000)] | None = None
    explore: bool = True


class MergeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/profiles/{id}/merge`."""

    guest: Annotated[str, msgspec.Meta(min_length=1, max_length=257)] = msgspec.field(name="from")


class RewardRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One event of `POST /v1/reward/batch`."""

    decision_id: Id
    event: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    value: Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)] = 1.0
    action: Id | None = None
    position: Annotated[int, msgspec.Meta(ge=0, le=10_000)] | None = None
    event_id: Id | None = None
    at: datetime | None = None


class EventRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One event of `POST /v1/event/batch`."""

    unit: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    event: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    unit_type: (
        Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?$")] | None
    ) = None
    value: Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)] = 1.0
    action: Id | None = None
    event_id: Id | None = None
    at: datetime | None = None


class EventBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/event/batch`."""

    events: Annotated[list[EventRequest], msgspec.Meta(min_length=1, max_length=1_000)]


class EventResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one event of a unit. `erased`: it happened before its unit was, and was not
    stored."""

    status: Literal["stored", "duplicate", "erased"]
    unit: str
    unit_type: str
    event_id: str
    warning: str | None = None


class EventResults(msgspec.Struct, frozen=True):
    """The answer of `POST /v1/event/batch`, in the order of the events."""

    results: list[EventResult]


class RewardBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/reward/batch`."""

    rewards: Annotated[list[RewardRequest], msgspec.Meta(min_length=1, max_length=1_000)]


RewardStatus = Literal["stored", "duplicate", "unknown_decision"]


class RewardResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one event."""

    status: RewardStatus
    decision_id: str
    event_id: str | None
    warning: str | None = None


class RewardResults(msgspec.Struct, frozen=True):
    """The answer of `POST /v1/reward/batch`, in the order of the events."""

    results: list[RewardResult]
