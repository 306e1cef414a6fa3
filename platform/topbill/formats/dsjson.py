"""VW's dsjson for contextual bandits (one action a decision), to and from Topbill's decisions and
reward events.

A line has the context in `c` with one entry of `_multi` for each action, `a` the actions' numbers
(from 1) with the chosen one first, `p` their probabilities in the same order, and the cost
(−reward) of the chosen. What dsjson has no place for is kept under `topbill`, which VW ignores;
lines of other makers lack it and get defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from topbill.domain.errors import BadData
from topbill.domain.records import NULL, Decision, Mask, Placement, Reason, RewardEvent

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Own(msgspec.Struct, rename={"decided_at": "at", "latency_us": "micros"}):
    """What our own lines keep under `topbill`; the defaults are what a foreign line means."""

    experiment: str = ""
    revision: str = ""
    variant: str | None = "imported"
    unit: str = ""
    policy: str = "imported"
    policy_version: int = 0
    reason: Reason = "policy"
    request_hash: str = ""
    latency_us: int = 0
    decided_at: int | None = None
    page: str = ""
    layer: str = ""
    place: str = ""
    masks: tuple[Mask, ...] = ()
    actions: msgspec.Raw = NULL
    whole: bool | None = None


class _OwnEvent(msgspec.Struct, rename={"received_at": "at"}):
    event: str
    action: str | None = None
    position: int | None = None
    occurred_at: int | None = None
    received_at: int = 0


class _Outcome(msgspec.Struct):
    event_id: Any = msgspec.field(name="EventId", default=None)
    v: Any = None
    topbill: _OwnEvent | None = None


class _Line(msgspec.Struct):
    c: dict[str, msgspec.Raw]
    a: list[int]
    p: list[float]
    event_id: str | int | None = msgspec.field(name="EventId", default=None)
    timestamp: str | None = msgspec.field(name="Timestamp", default=None)
    cost: float | None = msgspec.field(name="_label_cost", default=None)
    o: list[_Outcome] | None = None
    topbill: _Own | None = None


_OWN = tuple(name for name in _Own.__struct_fields__ if name not in ("actions", "whole"))
_EVENT = _OwnEvent.__struct_fields__
_WRITTEN = {
    field.name: field.encode_name
    for kind in (_Own, _OwnEvent)
    for field in msgspec.structs.fields(kind)
}
"""Field → its name in a line, which is that of 0.1.0."""
_decode = msgspec.json.Decoder(_Line).decode


def dump_line(
    decision: Decision,
    events: Iterable[RewardEvent],
    features: Mapping[str, Mapping[str, Any]],
    reward: float | None = None,
) -> bytes:
    """One decision as a line without its end. `features` maps action ids to their raw features (for
    actions that the decision does not bring along); `reward` is what VW is to learn from, by
    default the sum of the events' values.

    Raises BadData for a slate of several, or an action without features.
    """
    if len(decision.slate) != 1:
        raise BadData(
            decision.decision_id,
            f"got a slate of {len(decision.slate)}; dsjson for CB holds one placement",
        )
    held = list(events)
    placed = decision.slate[0]
    sent = msgspec.json.decode(decision.actions) or []
    own = {action["id"]: action.get("features", {}) for action in sent}
    try:
        multi = [
            {"_tag": name, "action": own[name] if name in own else features[name]}
            for name in decision.eligible
        ]
    except KeyError as error:
        raise BadData(
            decision.decision_id,
            f"got action {error} without features; expected all, from the experiment's file",
        ) from None
    index = decision.eligible.index(placed.action)
    order = [index, *(i for i in range(len(multi)) if i != index)]
    p = decision.probabilities[0] if decision.probabilities else None
    cost = -(sum(event.value for event in held) if reward is None else reward)
    line = {
        "_label_cost": cost + 0.0,
        "_label_probability": placed.propensity,
        "_label_Action": index + 1,
        "_labelIndex": index,
        "o": [{"EventId": e.event_id, "v": e.value, "topbill": _event(e)} for e in held],
        "Timestamp": (_EPOCH + timedelta(microseconds=decision.decided_at)).strftime(
            "%Y-%m-%dT%H:%M:%S.%fZ"
        ),
        "Version": "1",
        "EventId": decision.decision_id,
        "a": [i + 1 for i in order] if p else [index + 1],
        "c": {"shared": msgspec.json.decode(decision.context), "_multi": multi},
        "p": [p[i] for i in order] if p else [placed.propensity],
        "VWState": {"m": f"{decision.policy}/{decision.policy_version}"},
        "topbill": {_WRITTEN[name]: getattr(decision, name) for name in _OWN}
        | {"actions": decision.actions, "whole": p is not None},
    }
    return msgspec.json.encode(line)


def dump(
    rows: Iterable[tuple[Decision, list[RewardEvent]]], features: Mapping[str, Mapping[str, Any]]
) -> Iterator[bytes]:
    """A line, ended, for each decision."""
    for decision, events in rows:
        yield dump_line(decision, events, features) + b"\n"


def parse_line(
    line: bytes, *, experiment: str = "imported", number: int = 0
) -> tuple[Decision, list[RewardEvent]]:
    """The decision and events of a line; `number` is named in errors. Raises BadData for what is no
    CB line.

    A foreign line's actions are called by their `_tag` or `id`, else by their place (`a1`, `a2`,
    …); its cost becomes an event `reward` of the opposite sign.
    """
    where = f"line {number}"
    try:
        found = _decode(line)
        a, p = found.a, found.p
        ids, offered = _multi(bytes(found.c["_multi"]))
    except (KeyError, ValueError) as error:
        raise BadData(
            where,
            f"got no dsjson of a contextual bandit ({error}); expected c with _multi, a and p",
        ) from None
    if len(a) != len(p) or not a or not 1 <= min(a) <= max(a) <= len(ids) or len(set(a)) < len(a):
        raise BadData(
            where, f"got a={a} and p={p} for {len(ids)} actions; expected as many of each, from 1"
        )
    if not 0 < p[0] <= 1:
        raise BadData(where, f"got probability {p[0]}; expected one in (0, 1]")
    ours = found.topbill or _Own()
    row = [0.0] * len(ids)
    for i, q in zip(a, p, strict=True):
        row[i - 1] = q
    decision = Decision(
        **{
            name: getattr(ours, name)
            for name in _OWN
            if name not in ("experiment", "unit", "decided_at")
        },
        experiment=ours.experiment or experiment,
        unit=ours.unit or str(number if found.event_id is None else found.event_id),
        decided_at=micros(found.timestamp, where) if ours.decided_at is None else ours.decided_at,
        decision_id=f"{experiment}-{number}" if found.event_id is None else str(found.event_id),
        context=msgspec.Raw(msgspec.json.encode(shared_of(found.c))),
        actions=ours.actions if found.topbill else offered,
        eligible=ids,
        slate=(Placement(0, ids[a[0] - 1], p[0]),),
        propensity=p[0],
        probabilities=(tuple(row),)
        if (len(a) == len(ids) if ours.whole is None else ours.whole)
        else None,
    )
    return decision, _events(found, decision, where)


def load(
    lines: Iterable[bytes], *, experiment: str = "imported"
) -> Iterator[tuple[Decision, list[RewardEvent]]]:
    """The decisions of a dsjson file's lines, one at a time; blank lines are passed over."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield parse_line(line, experiment=experiment, number=number)


def _event(e: RewardEvent) -> dict[str, Any]:
    return {_WRITTEN[name]: getattr(e, name) for name in _EVENT}


def _events(found: _Line, decision: Decision, where: str) -> list[RewardEvent]:
    key = decision.decision_id
    known = [(o, o.topbill) for o in found.o or () if o.topbill is not None]
    if known or found.topbill is not None:
        try:
            return [
                RewardEvent(
                    decision_id=key,
                    event_id=msgspec.convert(o.event_id, str),
                    value=msgspec.convert(o.v, float),
                    **{name: getattr(ours, name) for name in _EVENT},
                )
                for o, ours in known
            ]
        except msgspec.ValidationError as error:
            raise BadData(
                where, f"got an event of the wrong form ({error}); expected EventId and v"
            ) from None
    reward = -(found.cost or 0.0)
    if not reward:
        return []
    return [
        RewardEvent(
            decision_id=key,
            event_id="reward",
            event="reward",
            value=reward,
            received_at=decision.decided_at,
        )
    ]


def name_of(action: Mapping[str, Any], place: int) -> str:
    """What an action of a foreign line is called: its `_tag`, its `id`, or its place."""
    return str(action.get("_tag") or action.get("id") or f"a{place}")


def shared_of(context: Mapping[str, Any]) -> Any:
    """The context without its actions; what stands under `shared`, where that is all."""
    rest = {name: value for name, value in context.items() if name != "_multi"}
    return rest["shared"] if rest.keys() == {"shared"} else rest


@lru_cache(maxsize=256)
def _multi(raw: bytes) -> tuple[tuple[str, ...], msgspec.Raw]:
    """The actions' names, and the actions as a caller would have sent them. The same ones recur
    from line to line.
    """
    multi = msgspec.json.decode(raw, type=list[dict[str, Any]])
    ids = tuple(name_of(action, i) for i, action in enumerate(multi, 1))
    bare = [{k: v for k, v in action.items() if k not in ("_tag", "id")} for action in multi]
    offered = [{"id": i, "features": f} for i, f in zip(ids, bare, strict=True)]
    return ids, msgspec.Raw(msgspec.json.encode(offered))


def micros(timestamp: Any, where: str) -> int:
    """ISO 8601 as µs since the epoch; UTC where no zone is said. Raises BadData, naming `where`."""
    if timestamp is None:
        return 0
    try:
        at = datetime.fromisoformat(timestamp)
    except (TypeError, ValueError):
        raise BadData(
            where, f"got Timestamp {timestamp!r}; expected ISO 8601, as 2026-01-31T12:00:00Z"
        ) from None
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)
