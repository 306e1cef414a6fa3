"""What reward events mean to each item of a slate that was shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from topbill.domain.metric import TimedValue
from topbill.domain.objective import Objective
from topbill.domain.records import Decision, RewardEvent


class RewardRules(Protocol):
    """What an experiment says about its rewards."""

    @property
    def goal(self) -> Objective:
        """What is to be raised."""

    @property
    def feedback(self) -> str:
        """Whether an event belongs to the `item` that it names, or always to the `slate`."""

    @property
    def click_model(self) -> str:
        """One of `CLICK_MODELS`."""


SEEN = "seen"
"""The event of an impression: somebody looked at the shown item that it names, or, where it names
none, at all of the slate. A value of 0 says that nobody did."""
IMPRESSIONS_SENT = "impressions_sent"
"""The event that says of a decision that its impressions are sent: what got none was not looked at.
Any `seen` says it as well; this one says it where nothing was seen, and the service adds it to all
decisions of a page once one of its titles is."""
IMPRESSIONS = frozenset({SEEN, IMPRESSIONS_SENT})
"""The events that say at what of a decision viewers looked."""
_BY_POSITION = Sequence[Sequence[RewardEvent]]
"""The events of each shown item, those of all of the slate included."""


def _all_examined(by_position: _BY_POSITION, events: Sequence[RewardEvent]) -> list[bool]:  # noqa: ARG001
    return [True] * len(by_position)


def _examined_to_last_click(
    by_position: _BY_POSITION,
    events: Sequence[RewardEvent],  # noqa: ARG001
) -> list[bool]:
    last = -1
    for position, own in enumerate(by_position):
        if any(event.event != IMPRESSIONS_SENT for event in own):
            last = position
    # Who clicked nothing has seen it all: otherwise a slate that nobody liked would teach nothing.
    return [last < 0 or position <= last for position in range(len(by_position))]


def _examined_where_seen(by_position: _BY_POSITION, events: Sequence[RewardEvent]) -> list[bool]:
    if not impressions_sent(events):
        return _all_examined(by_position, events)
    looked_at: set[int | None] = set()
    for event in events:
        if event.event == SEEN:
            if event.value > 0.0:
                looked_at.add(event.position)
        elif event.position is not None and event.event != IMPRESSIONS_SENT:
            # Whoever played a title has looked at it, also where the impression was lost.
            looked_at.add(event.position)
    everything = None in looked_at
    return [everything or position in looked_at for position in range(len(by_position))]


class ClickModel(NamedTuple):
    """At which of a slate's positions a viewer looked.

    `examined` says it of each position, given the events of each and all events; `sql` says it of
    `position`, beside the row of `looked_at_sql` of its decision (null where it has no event).
    """

    examined: Callable[[_BY_POSITION, Sequence[RewardEvent]], list[bool]]
    sql: str


CLICK_MODELS: Mapping[str, ClickModel] = MappingProxyType(
    {
        "independent": ClickModel(_all_examined, "true"),
        "cascade": ClickModel(
            _examined_to_last_click, "coalesce(of_all OR position <= last_place, true)"
        ),
        "examined": ClickModel(
            _examined_where_seen,
            "coalesce(NOT sent OR everything OR list_contains(places, position), true)",
        ),
    }
)
"""By name, at what viewers look.

`independent` takes it that at each item. Under `cascade` a viewer looks down the slate and stops at
the last item with an event (Craswell et al. 2008, "An experimental comparison of click
position-bias models"): what is below was not examined, unless nothing was rewarded at all. Under
`examined` viewers' clients say it, by events `seen`; of a decision of which none says anything, it
is as under `independent`.
"""
_LOOKED_AT = f"""
SELECT decision_id,
    bool_or(event IN ('{SEEN}', '{IMPRESSIONS_SENT}')) AS sent,
    bool_or(event = '{SEEN}' AND position IS NULL AND value > 0) AS everything,
    coalesce(list(DISTINCT position) FILTER (
        position IS NOT NULL AND event <> '{IMPRESSIONS_SENT}' AND (event <> '{SEEN}' OR value > 0)
    ), []) AS places,
    bool_or(position IS NULL AND event <> '{IMPRESSIONS_SENT}') AS of_all,
    max(position) FILTER (event <> '{IMPRESSIONS_SENT}') AS last_place
FROM rewards WHERE experiment = $key GROUP BY decision_id
"""  # noqa: S608 (names of ours)


def impressions_sent(events: Sequence[RewardEvent]) -> bool:
    """Whether somebody says of a decision at what of it viewers looked."""
    return any(event.event in IMPRESSIONS for event in events)


def examined(
    experiment: RewardRules, decision: Decision, events: Sequence[RewardEvent]
) -> list[bool]:
    """Of each shown item, whether the viewer looked at it, by the click model: what nobody looked
    at is no example of anything, and what learning, evaluation and reports leave out.
    """
    return _examined(experiment, _by_position(experiment, decision, events), events)


class Looks(Counter[str]):
    """What of decisions counts as looked at, and what does not, by reason: for whoever reads them
    one by one. Empty where the click model does not go by impressions.
    """

    def note(
        self, experiment: RewardRules, decision: Decision, events: Sequence[RewardEvent]
    ) -> None:
        """Count a decision, and its places."""
        if experiment.click_model != "examined":
            return
        self["decisions"] += 1
        self["without impressions"] += not impressions_sent(events)
        looked_at = examined(experiment, decision, events)
        self["places"] += len(looked_at)
        self["places not looked at"] += len(looked_at) - sum(looked_at)

    @property
    def notes(self) -> list[str]:
        """What must be known beside numbers that were told of these decisions."""
        found = []
        missing, unseen = self["without impressions"], self["places not looked at"]
        if missing:
            found.append(
                f"{missing:,} of {self['decisions']:,} decisions came without impressions (event "
                f"{SEEN}): all their places count as looked at, and only the position tells them "
                "apart"
            )
        if unseen:
            found.append(
                f"{unseen:,} of {self['places']:,} places were not looked at: they earned nothing, "
                "whatever stood there, and taught nothing"
            )
        return found


def _examined(
    experiment: RewardRules, by_position: _BY_POSITION, events: Sequence[RewardEvent]
) -> list[bool]:
    return CLICK_MODELS[experiment.click_model].examined(by_position, events)


def looked_at_sql() -> str:
    """SQL with a row for each decision of experiment `$key` that has an event: its `decision_id`,
    and what `examined_sql` reads.
    """
    return _LOOKED_AT


def examined_sql(experiment: RewardRules) -> str:
    """SQL condition of whether the item at `position` (from 0) was looked at, as `examined` says it
    of records; the decision's row of `looked_at_sql` stands beside it, where it has one.
    """
    if experiment.feedback == "slate" and experiment.click_model == "cascade":
        return "true"  # every event is of all of the slate, down to its last item
    return CLICK_MODELS[experiment.click_model].sql


def is_example_sql(experiment: RewardRules) -> str:
    """SQL condition on the `decision_id` of a decision of experiment `$key`: whether anything of it
    was looked at, by the click model.
    """
    if experiment.click_model != "examined":
        return "true"
    return (
        f"decision_id NOT IN (SELECT decision_id FROM ({_LOOKED_AT}) "  # noqa: S608
        "WHERE sent AND NOT everything AND len(places) = 0)"
    )


def item_rewards(
    experiment: RewardRules, decision: Decision, events: Sequence[RewardEvent]
) -> list[float | None]:
    """The objective in [0, 1] of each shown item; None for one that, by the click model, nobody
    looked at.

    An event without a position belongs to all of the slate. With `feedback: slate` every event
    does.
    """
    if not events:
        # As most decisions are. At what viewers looked, only events say.
        return [experiment.goal.default] * len(decision.slate)
    by_position = _by_position(experiment, decision, events)
    looked_at = _examined(experiment, by_position, events)
    rewards: list[float | None] = []
    for own, is_example in zip(by_position, looked_at, strict=True):
        if not is_example:
            rewards.append(None)
        elif own:
            rewards.append(decision_reward(experiment.goal, decision, own))
        else:
            rewards.append(experiment.goal.default)
    return rewards


def _by_position(
    experiment: RewardRules, decision: Decision, events: Sequence[RewardEvent]
) -> list[list[RewardEvent]]:
    """The events of each shown item."""
    slots = len(decision.slate)
    by_position: list[list[RewardEvent]] = [[] for _ in range(slots)]
    for event in events:
        if event.position is None or experiment.feedback == "slate":
            for of_position in by_position:
                of_position.append(event)
        elif event.position < slots:
            by_position[event.position].append(event)
    return by_position


def clipped_metrics(
    experiment: RewardRules, decision: Decision, events: Sequence[RewardEvent]
) -> frozenset[str]:
    """Which metrics of the objective some shown item has outside [floor, cap], so that they
    count as an end: as `Objective.clipped` says it."""
    # Most decisions have no event, and then nothing but the defaults, which the file's check knows.
    if not events:
        return frozenset()
    sides: set[str] = set()
    for own in _by_position(experiment, decision, events):
        sides |= experiment.goal.clipped(_timed(decision, own))
    return frozenset(sides)


def decision_reward(
    objective: Objective, decision: Decision, events: Sequence[RewardEvent]
) -> float:
    """The objective in [0, 1] of a decision with these events, in the order of the log."""
    return objective.of_events(_timed(decision, events))


def _timed(decision: Decision, events: Sequence[RewardEvent]) -> dict[str, list[TimedValue]]:
    """Values by event name, each with its seconds after the decision."""
    by_name: dict[str, list[TimedValue]] = {}
    for event in events:
        # The caller's time, where there is one: an event that was long on its way (a phone without
        # network) still counts from when it happened.
        happened = event.occurred_at if event.occurred_at is not None else event.received_at
        seconds = (happened - decision.decided_at) / 1e6
        by_name.setdefault(event.event, []).append((event.value, seconds))
    return by_name
