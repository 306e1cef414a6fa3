"""VW's dsjson for conditional contextual bandits: a slate of several a line, to and from decisions
and reward events.

`_multi` has the actions, `_slots` the positions, and `_outcomes` for each position the actions'
numbers (from 0, the shown one first), their probabilities among those that remained, and the cost.
What CCB has no place for is kept under `topbill`, which VW ignores; lines of other makers lack it
and get defaults. VW itself wants the context's names in ASCII and without a leading underscore (it
crashes on others).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from topbill.domain.chance import at_most_one
from topbill.domain.errors import BadData
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.formats.dsjson import drop_field, foreign_actions, shared_of, weight_of_drop
from topbill.formats.rows import (
    ActionFeatures,
    Row,
    WholeRow,
    eligible_features,
    microseconds,
    name_of,
    timestamp,
)


class _OwnLine(msgspec.Struct):
    topbill: WholeRow | None = None
    pdrop: Any = None


class _Slot(msgspec.Struct, frozen=True):
    """What a line says of a position: the shown action's number, its probability, the cost."""

    action: int
    probability: float
    cost: float


def dump_line(decision: Decision, events: Iterable[RewardEvent], features: ActionFeatures) -> bytes:
    """One slate as a line without its end. An event of no position counts at every one, as policies
    see it.

    Args:
        decision: With any number of placements.
        events: What it got.
        features: Of actions that the decision does not bring along.

    Raises:
        BadData: An action without features.
    """
    row = WholeRow(decision, list(events))
    multi: list[dict[str, Any]] = []
    for name, own in zip(decision.eligible, eligible_features(decision, features), strict=True):
        multi.append({"_tag": name, "action": own})
    line = {
        "Timestamp": timestamp(decision.decided_at),
        "Version": "1",
        "EventId": decision.decision_id,
        "c": {
            "shared": msgspec.json.decode(decision.context),
            "_multi": multi,
            "_slots": [{"_id": str(placed.position)} for placed in decision.slate],
        },
        "_outcomes": _dump_outcomes(row),
        "VWState": {"m": f"{decision.policy}/{decision.policy_version}"},
        **drop_field(decision),
        "topbill": row,
    }
    return msgspec.json.encode(line)


def _dump_outcomes(row: WholeRow) -> list[dict[str, Any]]:
    """An outcome for each position."""
    decision = row.decision
    number_of = {name: number for number, name in enumerate(decision.eligible)}
    outcomes: list[dict[str, Any]] = []
    gone: set[int] = set()  # what positions above show: it can't stand here
    for k, placed in enumerate(decision.slate):
        number = number_of[placed.action]
        actions, probabilities = [number], [placed.propensity]
        if decision.probabilities:
            remaining = (i for i in range(len(number_of)) if i != number and i not in gone)
            actions = [number, *remaining]
            probabilities = [decision.probabilities[k][i] for i in actions]
        reward = sum(
            event.value for event in row.events if event.position in (None, placed.position)
        )
        outcomes.append(
            {
                "_id": str(placed.position),
                "_label_cost": -reward + 0.0,  # 0.0, and not -0.0, for no reward
                "_a": actions,
                "_p": probabilities,
                "_o": [],
            }
        )
        gone.add(number)
    return outcomes


def parse_line(line: bytes, *, experiment: str = "imported", number: int = 0) -> Row:
    """The slate and events of a line.

    A foreign line's actions are called by their `_tag` or `id`, else by their place (`a1`, `a2`,
    …); the cost of a position becomes an event `reward` of the opposite sign. Slots that show
    nothing are passed over: what stands below one moves up.

    Args:
        line: JSON.
        experiment: The key of a line that says none.
        number: The line's, for errors.

    Raises:
        BadData: The line is none of a conditional contextual bandit.
    """
    where = f"line {number}"
    try:
        # A line of our own says all that it was; what VW reads of it need not be looked at.
        own_line = msgspec.json.decode(line, type=_OwnLine)
        own = own_line.topbill
        if own is not None:
            weight = weight_of_drop(own_line.pdrop, own.decision.row_weight, where)
            return msgspec.structs.replace(own.decision, row_weight=weight), own.events
        parsed = msgspec.json.decode(line)
        multi = msgspec.convert(parsed["c"]["_multi"], list[dict[str, Any]])
        _check_no_slates(parsed)
        slots = [_parse_slot(outcome) for outcome in parsed["_outcomes"] if not _is_empty(outcome)]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BadData(
            where,
            f"got no dsjson of a conditional contextual bandit ({error}); "
            "expected c with _multi, and _outcomes",
        ) from None
    actions = [slot.action for slot in slots]
    # A bool is an int, as Python sees it, and no number of an action.
    are_numbers = all(type(action) is int and 0 <= action < len(multi) for action in actions)
    if not are_numbers or len(set(actions)) < len(actions):
        raise BadData(
            where, f"got actions {actions} of {len(multi)}; expected different ones, from 0"
        )
    probabilities = [slot.probability for slot in slots]
    if not all(0.0 < p <= 1.0 for p in probabilities):
        raise BadData(where, f"got probabilities {probabilities}; expected each in (0, 1]")
    return _foreign_row(parsed, slots, experiment, number)


def _check_no_slates(line: dict[str, Any]) -> None:
    """Raises ValueError for VW's slates, whose lines look alike: each action belongs to one slot
    and one cost to them all, so that read as CCB all rewards would be lost.
    """
    of_slots = any("_slot_id" in action for action in line["c"]["_multi"])
    costs = [outcome for outcome in line["_outcomes"] if "_label_cost" in outcome]
    if of_slots or ("_label_cost" in line and not costs):
        raise ValueError("it is of VW's slates, one cost for all slots, which are not read")


def _is_empty(outcome: dict[str, Any]) -> bool:
    """Whether a slot shows nothing, as where there are fewer actions than slots: its lists are
    empty. Raises ValueError for one that costs something all the same.
    """
    if outcome["_a"] != [] or outcome["_p"] != []:
        return False
    if outcome.get("_label_cost"):
        raise ValueError("a slot that shows nothing has a cost")
    return True


def _parse_slot(outcome: Any) -> _Slot:
    """The shown action stands first; a lone one may stand there without a list."""
    actions, probabilities = outcome["_a"], outcome["_p"]
    probability = float(probabilities[0] if isinstance(probabilities, list) else probabilities)
    return _Slot(
        action=actions[0] if isinstance(actions, list) else actions,
        probability=at_most_one(probability),
        cost=float(outcome.get("_label_cost") or 0.0),
    )


def _foreign_row(parsed: dict[str, Any], slots: list[_Slot], experiment: str, number: int) -> Row:
    """The row of a line of another maker."""
    line_actions = foreign_actions(parsed["c"]["_multi"])
    key = name_of(parsed.get("EventId"), default=f"{experiment}-{number}")
    decided_at = microseconds(parsed.get("Timestamp"), f"line {number}")
    shared = {name: value for name, value in parsed["c"].items() if name != "_slots"}
    slate: list[Placement] = []
    events: list[RewardEvent] = []
    for position, slot in enumerate(slots):
        name = line_actions.ids[slot.action]
        slate.append(Placement(position, name, slot.probability))
        # A cost of 0 is what VW writes where nobody rewarded: no event came.
        if slot.cost:
            events.append(
                RewardEvent(
                    decision_id=key,
                    event_id=f"reward-{position}",
                    event="reward",
                    value=-slot.cost,
                    action=name,
                    position=position,
                    received_at=decided_at,
                )
            )
    decision = Decision(
        decision_id=key,
        experiment=experiment,
        revision="",
        variant="imported",
        unit=key,
        context=msgspec.Raw(msgspec.json.encode(shared_of(shared, own=False))),
        actions=line_actions.offered,
        eligible=line_actions.ids,
        slate=tuple(slate),
        propensity=math.prod((slot.probability for slot in slots), start=1.0),
        policy="imported",
        reason="policy",
        decided_at=decided_at,
        row_weight=weight_of_drop(parsed.get("pdrop"), None, f"line {number}"),
    )
    return decision, events
