"""VW's dsjson for contextual bandits (one action a decision), to and from Topbill's decisions and
reward events.

A line has the context in `c` with one entry of `_multi` for each action, `a` the actions' numbers
(from 1) with the chosen one first, `p` their probabilities in the same order, and the cost
(−reward) of the chosen. What dsjson has no place for is kept under `topbill`, which VW ignores;
lines of other makers lack it and get defaults.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from topbill.domain.chance import at_most_one
from topbill.domain.errors import BadData
from topbill.domain.records import (
    NULL,
    Decision,
    Mask,
    Placement,
    Reason,
    RewardEvent,
    Stop,
    Terms,
)
from topbill.formats.rows import (
    ActionFeatures,
    Row,
    eligible_features,
    microseconds,
    name_of,
    only_placement,
    timestamp,
)


class _OwnDecision(msgspec.Struct, rename={"decided_at": "at", "latency_us": "micros"}):
    """What our own lines keep under `topbill`; the defaults are what a foreign line means. Names in
    a line are those of 0.1.0, so that its files can be read.
    """

    experiment: str = ""
    revision: str = ""
    variant: str | None = "imported"
    unit: str | None = None
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
    stops: tuple[Stop, ...] = ()
    terms: Terms | None = None
    actions: msgspec.Raw = NULL
    whole: bool | None = None
    """Whether the line has all probabilities, or the chosen action's alone."""
    row_weight: float | None = None


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
    a: list[int] | None = None
    p: list[float] | None = None
    other_a: list[int] | None = msgspec.field(name="_a", default=None)
    other_p: list[float] | None = msgspec.field(name="_p", default=None)
    index: int | None = msgspec.field(name="_labelIndex", default=None)
    event_id: Any = msgspec.field(name="EventId", default=None)
    timestamp: str | None = msgspec.field(name="Timestamp", default=None)
    cost: float | None = msgspec.field(name="_label_cost", default=None)
    pdrop: Any = None
    o: list[_Outcome] | None = None
    topbill: _OwnDecision | None = None


class _Flags(msgspec.Struct):
    """What tells whether a line is a decision to count."""

    c: msgspec.Raw = msgspec.Raw()
    event_id: Any = msgspec.field(name="EventId", default=None)
    skip_learn: Any = msgspec.field(name="_skipLearn", default=None)
    deferred: Any = msgspec.field(name="_deferred", default=None)
    deferred_action: Any = msgspec.field(name="DeferredAction", default=None)
    o: list[Any] | None = None
    outcomes: list[Any] | None = msgspec.field(name="_outcomes", default=None)


class LineActions(msgspec.Struct, frozen=True):
    """The actions of a line: their names, and the JSON in which a caller would have sent them."""

    ids: tuple[str, ...]
    offered: msgspec.Raw


# Field → its name in a line.
_WRITTEN = {
    field.name: field.encode_name
    for kind in (_OwnDecision, _OwnEvent)
    for field in msgspec.structs.fields(kind)
}
_DECISION_FIELDS = tuple(
    name
    for name in _OwnDecision.__struct_fields__
    if name not in ("actions", "whole", "row_weight")
)
_EVENT_FIELDS = _OwnEvent.__struct_fields__
# All but those that the line itself may say, where `topbill` does not.
_OWN_FIELDS = tuple(
    name for name in _DECISION_FIELDS if name not in ("experiment", "unit", "decided_at")
)
_decode = msgspec.json.Decoder(_Line).decode
_decode_flags = msgspec.json.Decoder(_Flags).decode
_TELLTALES = (b'"_skipLearn"', b'"_deferred"', b'"DeferredAction"')
_DANGLING = (b'"RewardValue"', b'"ActionTaken"', b'"Observations"', b'"v"')
"""What stands in lines of joiners that have no decision: rewards and activations that found none.
"""


def dump_line(
    decision: Decision,
    events: Iterable[RewardEvent],
    features: ActionFeatures,
    reward: float | None = None,
) -> bytes:
    """One decision as a line without its end.

    Args:
        decision: With one placement.
        events: What it got.
        features: Of actions that the decision does not bring along.
        reward: What VW is to learn from; by default the sum of the events' values.

    Raises:
        BadData: A slate of several, or an action without features.
    """
    placed = only_placement(decision, "dsjson for CB holds one placement")
    events = list(events)
    multi: list[dict[str, Any]] = []
    for name, own in zip(decision.eligible, eligible_features(decision, features), strict=True):
        multi.append({"_tag": name, "action": own})
    index = decision.eligible.index(placed.action)
    # Without all probabilities only the chosen action's is said: VW learns from that alone.
    a, p = [index + 1], [placed.propensity]
    if decision.probabilities:
        # VW wants the chosen action first; the others follow in their order.
        order = [index, *(i for i in range(len(multi)) if i != index)]
        a = [i + 1 for i in order]
        p = [decision.probabilities[0][i] for i in order]
    if reward is None:
        reward = sum(event.value for event in events)
    line = {
        "_label_cost": -reward + 0.0,  # 0.0, and not -0.0, for no reward
        "_label_probability": placed.propensity,
        "_label_Action": index + 1,
        "_labelIndex": index,
        "o": [_dump_event(event) for event in events],
        "Timestamp": timestamp(decision.decided_at),
        "Version": "1",
        "EventId": decision.decision_id,
        "a": a,
        "c": {"shared": msgspec.json.decode(decision.context), "_multi": multi},
        "p": p,
        "VWState": {"m": f"{decision.policy}/{decision.policy_version}"},
        **drop_field(decision),
        "topbill": _dump_decision(decision),
    }
    return msgspec.json.encode(line)


def dump(rows: Iterable[Row], features: ActionFeatures) -> Iterator[bytes]:
    """A line, ended, for each decision."""
    for decision, events in rows:
        yield dump_line(decision, events, features) + b"\n"


def drop_field(decision: Decision) -> dict[str, float]:
    """VW's `pdrop` of a decision that stands for several; nothing for one that stands for itself.

    VW knows no rows that count less than once, so that such a weight is kept under `topbill` alone.
    """
    weight = decision.row_weight
    return {} if weight is None or weight <= 1.0 else {"pdrop": 1.0 - 1.0 / weight}


def weight_of_drop(pdrop: Any, own: float | None, where: str) -> float | None:
    """How many decisions a line stands for: 1/(1 − pdrop), where `pdrop` is the probability with
    which lines of its kind were dropped; None for one that stands for itself.

    Args:
        pdrop: What the line says; None where it says nothing.
        own: The weight that a line of ours keeps. Whoever sub-sampled our export has said another
            `pdrop`, which counts; else this one has the last bits.
        where: The line, for errors.

    Raises:
        BadData: `pdrop` is no number in [0, 1).
    """
    if pdrop is None:
        return own
    # A flag is a number to Python, and NaN fails every comparison.
    is_number = isinstance(pdrop, int | float) and not isinstance(pdrop, bool)
    if not (is_number and 0.0 <= pdrop < 1.0):
        raise BadData(
            where,
            f"got pdrop {pdrop!r}; expected the probability in [0, 1) with which lines of its kind "
            "were dropped",
        )
    weight = 1.0 / (1.0 - pdrop)
    if own is not None and math.isclose(own, weight, rel_tol=1e-9):
        return own
    return weight if pdrop else None


def _dump_decision(decision: Decision) -> dict[str, Any]:
    own = _written(decision, _DECISION_FIELDS)
    if decision.row_weight is not None:
        own["row_weight"] = decision.row_weight
    return own | {"actions": decision.actions, "whole": bool(decision.probabilities)}


def _dump_event(event: RewardEvent) -> dict[str, Any]:
    own = _written(event, _EVENT_FIELDS)
    return {"EventId": event.event_id, "v": event.value, "topbill": own}


def _written(record: Decision | RewardEvent, names: Iterable[str]) -> dict[str, Any]:
    """These fields of a record, by their names in a line."""
    return {_WRITTEN[name]: getattr(record, name) for name in names}


def _read(record: _OwnDecision | _OwnEvent, names: Iterable[str]) -> dict[str, Any]:
    """These fields of what a line keeps, by their names in a record."""
    return {name: getattr(record, name) for name in names}


def parse_line(line: bytes, *, experiment: str = "imported", number: int = 0) -> Row:
    """The decision and events of a line.

    A foreign line's actions are called by their `_tag` or `id`, else by their place (`a1`, `a2`,
    …); its cost becomes an event `reward` of the opposite sign.

    Args:
        line: JSON.
        experiment: The key of a line that says none.
        number: The line's, for errors.

    Raises:
        BadData: The line is none of a contextual bandit.
    """
    where = f"line {number}"
    if b'"_label_ca"' in line or b'"pdf"' in line:
        _check_no_continuous(line, where)
    # msgspec's errors are ValueErrors, of text that is no JSON as of values of the wrong type.
    try:
        parsed = _decode(line)
        actions = _parse_actions(bytes(parsed.c["_multi"]))
    except (KeyError, ValueError) as error:
        raise BadData(
            where,
            f"got no dsjson of a contextual bandit ({error}); expected c with _multi, a and p",
        ) from None
    a, p = _numbers_of(parsed, len(actions.ids), where)
    own = parsed.topbill or _OwnDecision()
    fields = _read(own, _OWN_FIELDS)
    decided_at = own.decided_at
    if decided_at is None:
        decided_at = microseconds(parsed.timestamp, where)
    decision = Decision(
        **fields,
        experiment=own.experiment or experiment,
        unit=name_of(own.unit, parsed.event_id, default=str(number)),
        decided_at=decided_at,
        decision_id=name_of(parsed.event_id, default=f"{experiment}-{number}"),
        context=msgspec.Raw(
            msgspec.json.encode(shared_of(parsed.c, own=parsed.topbill is not None))
        ),
        actions=own.actions if parsed.topbill else actions.offered,
        eligible=actions.ids,
        slate=(Placement(0, actions.ids[a[0] - 1], p[0]),),
        propensity=p[0],
        probabilities=_probabilities(a, p, own, len(actions.ids)),
        row_weight=weight_of_drop(parsed.pdrop, own.row_weight, where),
    )
    return decision, _parse_events(parsed, decision, where)


def _check_no_continuous(line: bytes, where: str) -> None:
    """Raises BadData for a line of VW's continuous actions, which have densities and no list."""
    try:
        names = msgspec.json.decode(line, type=dict[str, msgspec.Raw]).keys()
    except ValueError:
        return
    if "_label_ca" in names or ("pdf" in names and "a" not in names):
        raise BadData(
            where,
            "got a continuous action (_label_ca, pdf), which is not read; expected one of a list",
        )


def reason_to_skip(line: bytes) -> str | None:
    """Why a joined log's line is no decision to count; None for one that is, or that is wrong.

    A deferred decision was made and not used: nobody saw it, so that its cost of 0 is no reward of
    0. Joiners also write marks of their own, and rewards whose decision came too late.
    """
    if line.lstrip().startswith(b"[CHECKPOINT"):
        return "checkpoint lines"
    # Few lines have one of these words, or no context, and only those are looked at twice.
    if b'"c"' in line and not any(word in line for word in _TELLTALES):
        return None
    try:
        flags = _decode_flags(line)
    except ValueError:
        return None
    if not bytes(flags.c):
        is_joiners = flags.event_id is not None and any(word in line for word in _DANGLING)
        return "rewards without a decision" if is_joiners else None
    if _is_set(flags.skip_learn):
        return "deferred decisions"
    is_deferred = _is_set(flags.deferred) or _is_set(flags.deferred_action)
    return "deferred decisions" if is_deferred and not _activated(flags) else None


def _is_set(flag: Any) -> bool:
    """Whether a flag is true, as some makers write it: true, 1 or "true"."""
    return flag in (True, 1, "true", "True")


def _activated(flags: _Flags) -> bool:
    """Whether an observation says that the action was taken after all."""
    observations = list(flags.o or ())
    for outcome in flags.outcomes or ():
        if isinstance(outcome, dict):
            observations += outcome.get("_o") or ()
    return any(isinstance(one, dict) and _is_set(one.get("ActionTaken")) for one in observations)


def load(lines: Iterable[bytes], *, experiment: str = "imported") -> Iterator[Row]:
    """The decisions of a dsjson file's lines, one at a time; blank lines and those with a
    `reason_to_skip` are passed over.
    """
    for number, line in enumerate(lines, 1):
        if line.strip() and reason_to_skip(line) is None:
            yield parse_line(line, experiment=experiment, number=number)


def _numbers_of(line: _Line, actions: int, where: str) -> tuple[list[int], list[float]]:
    """The actions' numbers, from 1, and their probabilities, the chosen one's first. Some makers
    call them `_a` and `_p`, some count from 0.

    Raises BadData for numbers of actions that there are not, or twice, and for a probability that
    is none.
    """
    a = line.other_a if line.a is None else line.a
    p = line.other_p if line.p is None else line.p
    if a is None or p is None:
        raise BadData(
            where, "got no dsjson of a contextual bandit; expected c with _multi, a and p"
        )
    first = 0 if _from_zero(a, actions, line.index) else 1
    in_range = bool(a) and first <= min(a) <= max(a) < actions + first
    if len(a) != len(p) or not in_range or len(set(a)) < len(a):
        raise BadData(
            where, f"got a={a} and p={p} for {actions} actions; expected as many of each, from 1"
        )
    if line.index is not None and line.index not in (a[0], a[0] - 1):
        raise BadData(
            where,
            f"got _labelIndex {line.index} and a={a}; expected the labelled action first in a",
        )
    p = [at_most_one(probability) for probability in p]
    if not 0 < p[0] <= 1:
        raise BadData(where, f"got probability {p[0]}; expected one in (0, 1]")
    return [number + 1 - first for number in a], p


def _from_zero(a: list[int], actions: int, index: int | None) -> bool:
    """Whether a line counts its actions from 0. `index` is the place of the one that was labelled,
    which stands first in `a`.
    """
    if 0 in a:
        return True
    # A list of them all tells by its largest; one of a few by the label's place alone.
    return bool(a) and actions not in a and index == a[0]


def _probabilities(
    a: list[int], p: list[float], own: _OwnDecision, actions: int
) -> tuple[tuple[float, ...], ...] | None:
    """The probabilities of all actions, in their order; None where the line has not all of them.
    Our own lines say so, since one of a single action looks alike either way.
    """
    whole = len(a) == actions if own.whole is None else own.whole
    if not whole:
        return None
    # `p` is in the order of `a`; a decision's matrix is in that of its actions.
    row = [0.0] * actions
    for number, probability in zip(a, p, strict=True):
        row[number - 1] = probability
    return (tuple(row),)


def _parse_events(line: _Line, decision: Decision, where: str) -> list[RewardEvent]:
    """The line's events. A foreign line's outcomes are no events of ours: it has its cost alone."""
    has_own = any(outcome.topbill is not None for outcome in line.o or ())
    if not has_own and line.topbill is None:
        return _events_of_cost(line.cost or 0.0, decision)
    events: list[RewardEvent] = []
    for outcome in line.o or ():
        # Somebody may have added outcomes of their own to a line of ours.
        if outcome.topbill is None:
            continue
        fields = _read(outcome.topbill, _EVENT_FIELDS)
        try:
            event_id = msgspec.convert(outcome.event_id, str)
            value = msgspec.convert(outcome.v, float)
        except msgspec.ValidationError as error:
            raise BadData(
                where, f"got an event of the wrong form ({error}); expected EventId and v"
            ) from None
        events.append(
            RewardEvent(decision_id=decision.decision_id, event_id=event_id, value=value, **fields)
        )
    return events


def _events_of_cost(cost: float, decision: Decision) -> list[RewardEvent]:
    # A cost of 0 is what VW writes where nobody rewarded: no event came.
    if not cost:
        return []
    return [
        RewardEvent(
            decision_id=decision.decision_id,
            event_id="reward",
            event="reward",
            value=-cost,
            received_at=decision.decided_at,
        )
    ]


def foreign_actions(multi: Iterable[Mapping[str, Any]]) -> LineActions:
    """The actions of a line: called by `_tag`, by `id`, or by their place; all else of them is
    features.
    """
    ids: list[str] = []
    offered: list[dict[str, Any]] = []
    for place, action in enumerate(multi, 1):
        if "_slot_id" in action:
            raise ValueError(
                "its actions have a _slot_id: these are VW's slates, which are not read"
            )
        name = name_of(action.get("_tag"), action.get("id"), default=f"a{place}")
        if "__aid" in action:
            raise ValueError("its actions stand elsewhere (__aid): expected them in the line")
        # Names with a leading underscore are the maker's own notes, as in the context.
        features = {k: value for k, value in action.items() if k != "id" and k[:1] != "_"}
        ids.append(name)
        offered.append({"id": name, "features": features})
    return LineActions(tuple(ids), msgspec.Raw(msgspec.json.encode(offered)))


def shared_of(context: Mapping[str, Any], *, own: bool) -> Any:
    """The context without its actions; what stands under `shared`, where that is all.

    Names with a leading underscore are the maker's own notes (`_synthetic`), as VW takes them; a
    line of ours (`own`) has none, and whatever callers sent.
    """
    rest = {name: value for name, value in context.items() if not name.startswith("_")}
    if rest.keys() != {"shared"}:
        return rest
    shared = rest["shared"]
    if own:
        return shared
    if isinstance(shared, msgspec.Raw):
        shared = msgspec.json.decode(shared)
    if not isinstance(shared, dict):
        return shared
    return {name: value for name, value in shared.items() if not name.startswith("_")}


@lru_cache(maxsize=256)
def _parse_actions(multi: bytes) -> LineActions:
    """The actions of a line's `_multi`. The same ones recur from line to line, so they are kept."""
    return foreign_actions(msgspec.json.decode(multi, type=list[dict[str, Any]]))
