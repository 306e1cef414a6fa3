"""What is asked of the engine, and what it answers."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Annotated, Any

import msgspec

from topbill.domain.errors import BadRequest
from topbill.domain.records import NULL, Actions, EntityUse, Floats, Indices, Reason
from topbill.domain.slate import Allowed, Length, ScoreTerms

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128, description="1 to 128 characters")]
MOST_ACTIONS = 5_000
"""Most actions that one request may offer."""
_EMPTY = msgspec.Raw(b"{}")
_decode = msgspec.json.Decoder().decode
_encode_in_order = msgspec.json.Encoder(order="deterministic").encode
_UUID_7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.I)


class OfferedAction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An action that the caller offers for this decision in place of the experiment's own."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    features: dict[str, Any] = {}
    payload: msgspec.Raw = msgspec.field(default_factory=lambda: NULL)


class DecideRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What to decide. `context` and `actions` stay JSON text until the experiment's schema reads
    them.
    """

    experiment: Id
    unit: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    context: msgspec.Raw = msgspec.field(default_factory=lambda: _EMPTY)
    actions: msgspec.Raw = msgspec.field(default_factory=lambda: NULL)
    exclude: Annotated[list[Id], msgspec.Meta(max_length=MOST_ACTIONS)] = []
    slots: Annotated[int, msgspec.Meta(ge=1, le=200)] | None = None
    decision_id: Id | None = None
    explore: bool = True

    @property
    def fingerprint(self) -> str:
        """A digest of the request's content, equal for bodies that differ only in the order of keys
        or in spaces.
        """
        return self.fingerprint_with(decode(self.context, "$.context"))

    def fingerprint_with(self, context: Any) -> str:
        """The same, for who has decoded the context."""
        # JSON text is compared by what it says: callers' libraries order keys as they like.
        actions = None if self.actions is NULL else decode(self.actions, "$.actions")
        parts = {
            "experiment": self.experiment,
            "unit": self.unit,
            "context": context,
            "actions": actions,
            "exclude": self.exclude,
            "slots": self.slots,
            "decision_id": self.decision_id,
        }
        # As it was when there was no such key: what was stored then is found again.
        if not self.explore:
            parts["explore"] = False
        return blake2b(_encode_in_order(parts), digest_size=12).hexdigest()


class AnswerItem(msgspec.Struct, frozen=True, gc=False):
    """One item of an answered slate."""

    position: int
    action: str
    payload: msgspec.Raw
    propensity: float


class DecisionInput(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request as it is decided: encoded.

    Attributes:
        unit: Who is assigned to a variant.
        x: (d,) the encoded context.
        actions: The K encoded actions, of which `eligible` are the rows that may be shown.
        start: When the request came, in seconds of the engine's clock; its budget begins there.
        rules: Makes the rules for one attempt at the slate; without them all of `eligible` may
            stand anywhere.
        entities: Which tables were looked up by id.
        explore: Whether chance has a say; without it, each position has the policy's best action.
        terms: Makes what is added to the scores for one attempt at the slate. It has rules.
        length: Of a slate whose length is drawn, up to `slots`: what decides it. It has rules.
        page, layer, place: Of a page's decisions: its id, which layer, and which row of it.
    """

    decision_id: str
    unit: str
    x: Floats
    actions: Actions
    eligible: Indices
    slots: int
    context: msgspec.Raw
    offered: msgspec.Raw
    start: float
    request_hash: str = ""
    rules: Callable[[], Allowed] | None = None
    entities: tuple[EntityUse, ...] = ()
    explore: bool = True
    length: Length | None = None
    terms: Callable[[], ScoreTerms] | None = None
    page: str = ""
    layer: str = ""
    place: str = ""

    def new_attempt(self) -> Allowed | None:
        """Fresh rules for one attempt at the slate; None where there are none."""
        return None if self.rules is None else self.rules()


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a caller gets for a decision."""

    decision_id: str
    variant: str | None
    slate: tuple[AnswerItem, ...]
    propensity: float
    policy: str
    policy_version: int
    reason: Reason


_digits: list[str] = []
# Parent and child would otherwise give the same ids.
os.register_at_fork(after_in_child=_digits.clear)


def new_id() -> str:
    """A fresh decision id, 32 hex digits: milliseconds first, so that indexes grow at their end,
    then chance.

    The kernel is asked for chance by the thousand: asking it gives the interpreter lock away.
    """
    if not _digits:
        chance = os.urandom(10_000).hex()
        # 20 digits are 80 bits: two ids of one millisecond are equal once in 10^24.
        _digits.extend(chance[start : start + 20] for start in range(0, len(chance), 20))
    return f"{time.time_ns() // 1_000_000:012x}{_digits.pop()}"


def made_at(own_id: str) -> int | None:
    """When an id was made (µs since the epoch), where it says so: a UUID of version 7, written with
    its hyphens (RFC 9562, section 5.7). None for any other: 32 digits may be chance alone.
    """
    if _UUID_7.fullmatch(own_id) is None:
        return None
    return int(own_id[:8] + own_id[9:13], 16) * 1_000


def decode(raw: msgspec.Raw, path: str) -> Any:
    """JSON text decoded. Raises BadRequest, naming `path`, for what is none."""
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadRequest(path, f"{error}; expected JSON") from error
