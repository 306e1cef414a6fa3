"""VW's dsjson for conditional contextual bandits: a slate of several a line, to and from decisions
and reward events.

`_multi` has the actions, `_slots` the positions, and `_outcomes` for each position the actions'
numbers (from 0, the shown one first), their probabilities among those that remained, and the cost.
What CCB has no place for is kept under `topbill`, which VW ignores; lines of other makers lack it
and get defaults. VW itself wants the context's names in ASCII and without a leading underscore (it
crashes on others).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from topbill.domain.errors import BadData
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.formats.dsjson import micros, name_of, shared_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Kept(msgspec.Struct):
    decision: Decision
    events: list[RewardEvent]


class _Ours(msgspec.Struct):
    topbill: _Kept | None = None


def dump_line(
    decision: Decision, events: Iterable[RewardEvent], features: Mapping[str, Mapping[str, Any]]
) -> bytes:
    """One slate as a line without its end. `features` maps action ids to their raw features (for
    actions that the decision does not bring along). An event of no position counts at every one, as
    policies see it.

    Raises BadData for an action without features.
    """
    held = list(events)
    sent = msgspec.json.decode(decision.actions) or []
    own = {action["id"]: action.get("features", {}) for action in sent}
    missing = [name for name in decision.eligible if name not in own and name not in features]
    if missing:
        raise BadData(
            decision.decision_id,
            f"got action {missing[0]!r} without features; expected all, from the experiment's file",
        )
    multi = [
        {"_tag": name, "action": own.get(name, features.get(name))} for name in decision.eligible
    ]
    row = {name: i for i, name in enumerate(decision.eligible)}
    outcomes = []
    for k, placed in enumerate(decision.slate):
        gone = {row[above.action] for above in decision.slate[:k]}
        first = row[placed.action]
        p = decision.probabilities[k] if decision.probabilities else None
        order = (
            [first, *(i for i in range(len(multi)) if i != first and i not in gone)]
            if p
            else [first]
        )
        worth = sum(e.value for e in held if e.position in (None, placed.position))
        outcomes.append(
            {
                "_id": str(placed.position),
                "_label_cost": -worth + 0.0,
                "_a": order,
                "_p": [p[i] for i in order] if p else [placed.propensity],
                "_o": [],
            }
        )
    line = {
        "Timestamp": (_EPOCH + timedelta(microseconds=decision.decided_at)).strftime(
            "%Y-%m-%dT%H:%M:%S.%fZ"
        ),
        "Version": "1",
        "EventId": decision.decision_id,
        "c": {
            "shared": msgspec.json.decode(decision.context),
            "_multi": multi,
            "_slots": [{"_id": str(placed.position)} for placed in decision.slate],
        },
        "_outcomes": outcomes,
        "VWState": {"m": f"{decision.policy}/{decision.policy_version}"},
        "topbill": _Kept(decision, held),
    }
    return msgspec.json.encode(line)


def parse_line(
    line: bytes, *, experiment: str = "imported", number: int = 0
) -> tuple[Decision, list[RewardEvent]]:
    """The slate and events of a line; `number` is named in errors. Raises BadData for what is no
    CCB line.

    A foreign line's actions are called by their `_tag` or `id`, else by their place (`a1`, `a2`,
    …); the cost of a position becomes an event `reward` of the opposite sign.
    """
    where = f"line {number}"
    try:
        kept = msgspec.json.decode(line, type=_Ours).topbill
        if kept is not None:
            return kept.decision, kept.events
        found = msgspec.json.decode(line)
        multi = msgspec.convert(found["c"]["_multi"], list[dict[str, Any]])
        outcomes = found["_outcomes"]
        chosen = [_listed(outcome["_a"])[0] for outcome in outcomes]
        p = [float(_listed(outcome["_p"])[0]) for outcome in outcomes]
        costs = [float(outcome.get("_label_cost") or 0.0) for outcome in outcomes]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BadData(
            where,
            f"got no dsjson of a conditional contextual bandit ({error}); expected c with _multi, and _outcomes",
        ) from None
    if not all(type(i) is int and 0 <= i < len(multi) for i in chosen) or len(set(chosen)) < len(
        chosen
    ):
        raise BadData(
            where, f"got actions {chosen} of {len(multi)}; expected different ones, from 0"
        )
    if not all(0.0 < q <= 1.0 for q in p):
        raise BadData(where, f"got probabilities {p}; expected each in (0, 1]")
    return _foreign(found, experiment, number, chosen, p, costs)


def _foreign(
    found: Mapping[str, Any],
    experiment: str,
    number: int,
    chosen: list[int],
    p: list[float],
    costs: list[float],
) -> tuple[Decision, list[RewardEvent]]:
    multi = found["c"]["_multi"]
    ids = tuple(name_of(action, i) for i, action in enumerate(multi, 1))
    key = str(found.get("EventId") or f"{experiment}-{number}")
    at = micros(found.get("Timestamp"), f"line {number}")
    bare = [{k: v for k, v in action.items() if k not in ("_tag", "id")} for action in multi]
    shared = {name: value for name, value in found["c"].items() if name != "_slots"}
    joint = 1.0
    for q in p:
        joint *= q
    decision = Decision(
        decision_id=key,
        experiment=experiment,
        revision="",
        variant="imported",
        unit=key,
        context=msgspec.Raw(msgspec.json.encode(shared_of(shared))),
        actions=msgspec.Raw(
            msgspec.json.encode([{"id": i, "features": f} for i, f in zip(ids, bare, strict=True)])
        ),
        eligible=ids,
        slate=tuple(
            Placement(k, ids[i], q) for k, (i, q) in enumerate(zip(chosen, p, strict=True))
        ),
        propensity=joint,
        policy="imported",
        reason="policy",
        decided_at=at,
    )
    events = [
        RewardEvent(
            decision_id=key,
            event_id=f"reward-{k}",
            event="reward",
            value=-cost,
            action=ids[i],
            position=k,
            received_at=at,
        )
        for k, (i, cost) in enumerate(zip(chosen, costs, strict=True))
        if cost
    ]
    return decision, events


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]
