"""What is asked of the engine, and what it answers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Annotated, Any

import msgspec

from topbill.domain.errors import BadRequest
from topbill.domain.records import NULL, Actions, Floats, Indices, Reason
from topbill.domain.slate import Allowed

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128, description="1 to 128 characters")]
MOST_ACTIONS = 5_000
_EMPTY = msgspec.Raw(b"{}")


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

    @property
    def fingerprint(self) -> str:
        """A digest of the request's content, equal for bodies that differ only in the order of keys
        or in spaces.
        """
        parts = {name: getattr(self, name) for name in self.__struct_fields__}
        for name in ("context", "actions"):
            parts[name] = decode(parts[name], f"$.{name}")
        return blake2b(
            msgspec.json.encode(parts, order="deterministic"), digest_size=12
        ).hexdigest()


class AnswerItem(msgspec.Struct, frozen=True, gc=False):
    """One item of an answered slate."""

    position: int
    action: str
    payload: msgspec.Raw
    propensity: float


class DecisionInput(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request as it is decided: encoded. `rules` makes the rules for one attempt at the slate;
    without them all of `eligible` may stand anywhere. `page`, `layer` and `place` are of a page's
    decisions."""

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
    page: str = ""
    layer: str = ""
    place: str = ""


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
os.register_at_fork(after_in_child=_digits.clear)


def new_id() -> str:
    """A fresh decision id, 32 hex digits: milliseconds first, so that indexes grow at their end,
    then chance.

    The kernel is asked for chance by the thousand: asking it gives the interpreter lock away.
    """
    if not _digits:
        chance = os.urandom(10_000).hex()
        _digits.extend(chance[start : start + 20] for start in range(0, len(chance), 20))
    return f"{time.time_ns() // 1_000_000:012x}{_digits.pop()}"


def at_path(error: msgspec.ValidationError, root: str = "$") -> BadRequest:
    """msgspec's message as a BadRequest: the message and the path of the culprit, below `root`."""
    message, _, path = str(error).partition(" - at `")
    return BadRequest(root + path.rstrip("`").removeprefix("$"), message)


def decode_context(raw: msgspec.Raw) -> Any:
    """A context as it came. Raises BadRequest where a key is there twice: policies would read the
    last one, and DuckDB, in the record, the first."""
    found = decode(raw, "$.context")
    if type(found) is dict:
        text, names = bytes(raw), len(found)
        for value in found.values():
            if type(value) is dict:
                names += len(value)
        if text.count(b":") != names:  # a name too many, or a colon within a text: look closely
            json.loads(text, object_pairs_hook=_once)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in found if names.count(name) > 1)
        raise BadRequest("$.context", f"{double[:64]!r} is there twice; expected each name once")
    return found


def decode(raw: msgspec.Raw, path: str) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise BadRequest(path, f"{error}; expected JSON") from error
