"""An environment with known truth for any experiment: what viewers would do with each action,
and what they then do.

Because the truth is known, so are the best slate and the uniform one, and regret against them is
exact.

The click model. A viewer plays at most one item of a slate: the one at position k with probability
    attention(k) · patience(viewer) · ceiling · σ(η(x, a)),   η = b + h·x + own(a) + x·W(a)
where x is the encoded context, W(a) mixes a part that comes from the action's features with a part
of its own, attention falls with the position, and patience (mean 1, never observed) makes one
viewer's visits alike. Those probabilities sum to at most 1 over a slate, so an action's worth adds
up over positions, and the best slate is the actions sorted by worth. b is solved for, so that a
uniformly drawn action at the top is played at `base_rate`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from topbill.domain.chance import hash64
from topbill.domain.errors import BadRequest, NotFound
from topbill.domain.metric import Metric
from topbill.domain.records import Floats
from topbill.simulation.viewers import Audience, Visit
from topbill.spec import Experiment

Role = Literal["play", "after", "return", "leave"]


@dataclass(frozen=True)
class Habits:
    """How the simulated audience behaves.

    viewers: how many there are. base_rate: probability that a uniformly drawn action at the top is
    played (less in very long slates, which must not hold more than one play together).
    spread: standard deviation of η over the actions of one decision, of which `personal` (0 to 1,
    by variance) depends on the context. missing: probability that an event never arrives. delay:
    mean of an event's exponential delay, as a share of its metric's window. drift: radians an hour
    by which tastes turn. launches: action → seconds after the start before which it isn't there
    yet.
    """

    viewers: int = 4000
    base_rate: float = 0.05
    spread: float = 1.0
    personal: float = 0.6
    missing: float = 0.03
    delay: float = 0.15
    drift: float = 0.0
    launches: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """An event that reaches the service `delay` seconds after the decision; `position` is the
    item's, if it has one.
    """

    event: str
    value: float
    delay: float
    position: int | None = None


@dataclass(frozen=True, slots=True)
class Truth:
    """What is expected of one visit at one time: `play` (K) the probability that each action is
    played when it stands at the top, `hold` (K) the share of it watched after a play, `worth` (K)
    what it adds to the objective there, `base` the objective when nothing is played, `open` (K)
    which actions are there yet, `attention` (slots) the position's factor."""

    play: Floats
    hold: Floats
    worth: Floats
    base: float
    open: np.ndarray
    attention: Floats

    def value(self, rows: Sequence[int]) -> float:
        """The expected objective of the slate of these actions, first position first."""
        return self.base + float(self.attention[: len(rows)] @ self.worth[list(rows)])

    def best_rows(self) -> list[int]:
        """The slate with the highest expected objective: attention falls, so the best come
        first.
        """
        order = np.argsort(-np.where(self.open, self.worth, -np.inf), kind="stable")
        return [int(i) for i in order[: min(self.attention.size, int(self.open.sum()))]]

    def best(self) -> float:
        """The highest expected objective of any slate."""
        return self.value(self.best_rows())

    def uniform(self) -> float:
        """The expected objective of a slate drawn uniformly."""
        filled = min(self.attention.size, int(self.open.sum()))
        return self.base + float(self.attention[:filled].sum()) * float(
            self.worth[self.open].mean()
        )


@dataclass(frozen=True, slots=True)
class _Event:
    """One event name of the experiment: its role, the rates it happens at with and without a play,
    and its timing.
    """

    name: str
    role: Role
    scale: float
    played: float
    unplayed: float
    mean_delay: float


class Environment:
    """One experiment's simulated viewers and their truth. Everything follows from the experiment
    and the seed.

    Values are in units of the objective (0 to 1), from the events that arrive within their windows:
    lost and late events are part of the truth. Where the objective has penalties, it is their sum
    before the floor at 0. Raises BadRequest for an experiment that lists no actions, for their
    truth cannot be made up in advance.
    """

    def __init__(self, experiment: Experiment, seed: int = 0, habits: Habits | None = None) -> None:
        if not experiment.actions:
            raise BadRequest(
                f"{experiment.key}.actions",
                "got none; expected the actions in the file, to simulate them",
            )
        self.experiment = experiment
        self.habits = habits or Habits()
        self.ids = tuple(action.id for action in experiment.actions)
        self._row = {action: row for row, action in enumerate(self.ids)}
        self._encoder = experiment.context_encoder
        self._events = _events(experiment, self.habits.delay)
        # Two numbers for the visit (which item is played, how long it is watched), three for each
        # event (whether it happens, is lost, and how late it comes): `respond` reads them in this
        # order.
        self.audience = Audience(
            experiment.context, self.habits.viewers, seed, luck=2 + 3 * len(self._events)
        )
        self._launch = np.array([self.habits.launches.get(action, 0.0) for action in self.ids])
        self._attention: Floats = np.arange(1.0, experiment.slots + 1.0) ** -0.8
        # Patience is about 1.5 at most, so that 0.6 keeps a whole slate's probability of a play
        # below 1.
        self._ceiling = 0.6 / float(self._attention.sum())
        self._rng = np.random.default_rng(hash64(str(seed), "truth", experiment.key))
        self._set_tastes()
        self._worth = self._objective()

    def visit(self, number: int) -> Visit:
        """The visit with that number (≥ 0)."""
        return self.audience.visit(number)

    def truth(self, visit: Visit, at: float = 0.0) -> Truth:
        """What is expected of a visit, given the context that the service is told, `at` seconds
        after the start.
        """
        x = self._encoder.encode(visit.context)
        personal: Floats = (x - self._mean) @ self._personal(at).T
        play = self._ceiling * expit(self._intercept + x @ self._main + self._own + personal)
        hold: Floats = expit(self._hold + 0.5 * personal)
        # Patience is not in it: nobody can know it of a visit, and its mean is 1.
        worth = play * (self._worth.played + self._worth.watched * hold)
        return Truth(play, hold, worth, self._worth.base, self._launch <= at, self._attention)

    def rows(self, slate: Sequence[str]) -> list[int]:
        """The rows of these actions in the truth's arrays. Raises NotFound for one that the file
        did not have.
        """
        try:
            return [self._row[action] for action in slate]
        except KeyError as error:
            key = self.experiment.key
            raise NotFound(
                f"{key}: no action {error} when the simulation began; start it again after a change"
            ) from None

    def absent(self, at: float) -> list[str]:
        """The actions that aren't there yet `at` seconds after the start: to be excluded from
        decisions.
        """
        return [self.ids[row] for row in np.flatnonzero(self._launch > at)]

    def respond(self, visit: Visit, truth: Truth, slate: Sequence[str]) -> list[Response]:
        """What the viewer does with the slate: the events that arrive, each with its delay in
        seconds.

        The visit's own luck decides, so the same visit shown the same slate does the same.
        """
        rows = self.rows(slate)
        luck = visit.luck.tolist()
        # One number chooses among all positions and "nothing": at most one item is played.
        reach = np.cumsum(truth.attention[: len(rows)] * truth.play[rows] * visit.patience)
        position = int(np.searchsorted(reach, luck[0], side="right"))
        is_played = position < len(rows)
        responses = []
        for n, event in enumerate(self._events.values()):
            happens, lost, wait = luck[2 + 3 * n : 5 + 3 * n]
            rate = event.played if is_played else event.unplayed
            if happens >= rate or lost < self.habits.missing:
                continue
            value = event.scale
            if event.role == "after":
                # Evenly around the share that is expected, never outside of [0, 1]: the mean of
                # what is watched is then exactly the truth's.
                hold = float(truth.hold[rows[position]])
                value *= hold + (2.0 * luck[1] - 1.0) * 0.8 * min(hold, 1.0 - hold)
            delay = -event.mean_delay * math.log1p(-wait)
            of_item = position if event.role in _ITEM else None
            responses.append(Response(event.name, value, delay, of_item))
        return responses

    def _set_tastes(self) -> None:
        """Draw W, own and h, scale them to the declared spread, and solve for the intercept."""
        rng, habits = self._rng, self.habits
        Z = self.experiment.encoded_actions.features
        # Tastes weigh more than devices and hours: a policy that learned from those alone would
        # otherwise get most of what there is.
        weights: list[float] = []
        for feature in self.experiment.context:
            weights += [2.0 if feature.kind == "vector" else 0.5] * len(feature.columns)
        weight = np.array(weights)
        X = np.array([self._encoder.encode(self.visit(n).context) for n in range(4096)])
        self._mean = X.mean(axis=0)
        centred = X - self._mean
        likeness = _likeness(self._encoder.names, self.experiment.action_encoder.names)

        # Two matrices, so that drifting tastes have something to turn to. They are drawn also
        # without drift: it must not change what else follows from the seed.
        personal = math.sqrt(habits.personal) * habits.spread
        turns = []
        for _ in range(2):
            B = rng.standard_normal((X.shape[1], Z.shape[1])) + 2.0 * likeness
            W = ((B @ Z.T).T + rng.standard_normal((len(self.ids), X.shape[1]))) * weight
            turns.append(W * _to_spread(centred @ W.T, personal))
        self._turns: tuple[Floats, Floats] = turns[0], turns[1]
        own = rng.standard_normal(len(self.ids))
        self._own = own * _to_spread(own[None, :], math.sqrt(1.0 - habits.personal) * habits.spread)
        self._hold = rng.uniform(-1.2, 1.2, len(self.ids))
        self._main = rng.normal(0.0, 0.3, X.shape[1])

        eta = (X @ self._main)[:, None] + self._own + centred @ turns[0].T
        # A play at the top can't be likelier than the ceiling; a third of it leaves room for
        # differences between actions.
        rate = min(habits.base_rate, self._ceiling / 3.0)
        self._intercept = float(
            brentq(lambda b: self._ceiling * float(expit(b + eta).mean()) - rate, -40.0, 40.0)
        )

    def _personal(self, at: float) -> Floats:
        """(K × d) W at a time: tastes turn from one matrix towards another."""
        if not self.habits.drift:
            return self._turns[0]
        # A rotation keeps the spread what it is: what changes is who likes what, not how much.
        angle = self.habits.drift * at / 3600.0
        turned: Floats = math.cos(angle) * self._turns[0] + math.sin(angle) * self._turns[1]
        return turned

    def _objective(self) -> _Worth:
        """The objective's expectation as a function of what is played and watched."""
        base = played = watched = 0.0
        goal = self.experiment.goal
        for metric in goal.metrics:
            event = self._events[metric.event]
            in_time = -math.expm1(-metric.window / event.mean_delay) if event.mean_delay else 1.0
            heard = goal.weights[metric.name] * in_time * (1.0 - self.habits.missing)
            # An event name happens at most once a visit, so that a metric of any kind is a function
            # of one value.
            size = event.scale if metric.definition.takes_value else 1.0
            size = (min(size, metric.cap) - metric.floor) / (metric.cap - metric.floor)
            # What there is without an event is earned always; an event that is heard replaces it.
            default = min(max(metric.default, metric.floor), metric.cap) - metric.floor
            default /= metric.cap - metric.floor
            base += goal.weights[metric.name] * default
            base += heard * (size - default) * event.unplayed
            more_often = event.played - event.unplayed
            if event.role == "after" and metric.definition.takes_value:
                watched += heard * size * more_often
                played -= heard * default * more_often
            else:
                played += heard * (size - default) * more_often
        total = goal.score.positive
        return _Worth(base / total, played / total, watched / total)


class _Worth(NamedTuple):
    """The expected objective: `base` + P(play) · (`played` + share watched · `watched`)."""

    base: float
    played: float
    watched: float


def _events(experiment: Experiment, delay: float) -> dict[str, _Event]:
    """Each event of the experiment by its name, with its role, in the order of the metrics."""
    play = _play_event(experiment)
    events: dict[str, _Event] = {}
    by_event: dict[str, list[Metric]] = {}
    for metric in experiment.metrics:
        by_event.setdefault(metric.event, []).append(metric)
    for name, metrics in by_event.items():
        role: Role = "play" if name == play else _role(experiment, metrics)
        played, unplayed = _RATES[role]
        # A value large enough and a delay short enough for every metric that reads the event: each
        # can reach its cap within its window.
        largest, shortest = 0.0, math.inf
        for metric in metrics:
            shortest = min(shortest, metric.window)
            if metric.definition.takes_value:
                largest = max(largest, metric.cap)
        scale, mean_delay = largest or 1.0, delay * shortest
        events[name] = _Event(name, role, scale, played, unplayed, mean_delay)
    return events


def _play_event(experiment: Experiment) -> str:
    """The event of the first binary metric of the objective, or of its first metric."""
    weighted = experiment.goal.metrics
    for metric in weighted:
        if metric.definition.is_proportion and metric.better == "higher":
            return metric.event
    return weighted[0].event


def _role(experiment: Experiment, metrics: Sequence[Metric]) -> Role:
    """Of an event that is no play, by the metrics that read it: what is better low happens when
    nothing is played; metrics with values follow a play; anything else is a return, likelier after
    a play."""
    guarded = {guardrail.metric for guardrail in experiment.guardrails}
    guarded -= set(experiment.objective)
    role: Role = "return"
    for metric in metrics:
        if metric.better == "lower" or metric.name in guarded:
            return "leave"
        if metric.definition.takes_value:
            role = "after"
    return role


_ITEM: tuple[Role, ...] = ("play", "after")
"""Roles whose events name the item that they belong to."""
_RATES: dict[Role, tuple[float, float]] = {
    "play": (1.0, 0.0),
    "after": (1.0, 0.0),
    "return": (0.45, 0.25),
    "leave": (0.02, 0.08),
}
"""Probability of an event of each role when something was played, and when nothing was."""


def _to_spread(scores: Floats, spread: float) -> float:
    """The factor that gives scores (n × K) the mean standard deviation `spread` over the actions of
    a row.
    """
    deviation = math.sqrt(float(scores.var(axis=1).mean()))
    return spread / deviation if deviation > 0.0 else 0.0


def _likeness(context: Sequence[str], features: Sequence[str]) -> Floats:
    """(d × da) 1 where a taste and an action's feature speak of the same thing: `taste:comedy`,
    `genre=comedy`.
    """
    likeness = np.zeros((len(context), len(features)))
    for row, taste in enumerate(context):
        for column, feature in enumerate(features):
            likeness[row, column] = float(_subject(taste) == _subject(feature))
    return likeness


def _subject(column: str) -> str:
    """What a column speaks of: `comedy` of both `taste:comedy` and `genre=comedy`."""
    return column.replace("=", ":").rpartition(":")[2]
