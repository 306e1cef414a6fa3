"""One experiment simulated in process, on simulated time: to check it before launch, and to measure
learning.

The decisions are the engine's and the learning is the worker's; only the log between them is a
queue in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import msgspec

from topbill.domain.records import Decision, RewardEvent
from topbill.engine import CompiledExperiment, DecideRequest, Engine, teach
from topbill.simulation.environment import Environment, Habits, Response
from topbill.simulation.scoreboard import Scoreboard, ScoreLine
from topbill.spec import Experiment

DAY = 86_400.0
LEARN_EVERY = 20
"""Decisions between two steps of the learner."""


def run(
    experiment: Experiment,
    rounds: int = 20_000,
    *,
    seed: int = 0,
    habits: Habits | None = None,
    days: float = 14.0,
    progress: Callable[[int], None] = lambda _: None,
) -> list[ScoreLine]:
    """Simulate `rounds` visits spread evenly over `days`, all of them in the experiment, and return
    a line a variant.

    A decision is learned when it is `reward_delay` old, from the events that had come by then.
    `progress` is called with the rounds done so far.
    """
    # Everybody takes part: what is asked is how it would go, not how much traffic it has.
    running = replace(
        experiment,
        status="running",
        launch=None,
        conclusion=None,
        traffic=1.0,
        layer_start=0.0,
        holdout=0.0,
    )
    environment = Environment(running, seed, habits)
    scoreboard = Scoreboard([running])
    engine = Engine([running], clock=lambda: 0.0)
    live = engine.find(running.key)
    # In the order of the decisions, which is that of their maturing: all wait equally long.
    due: deque[tuple[float, Decision, list[RewardEvent]]] = deque()
    for number in range(rounds):
        at = number * days * DAY / rounds
        if number % LEARN_EVERY == 0:
            _learn(live, due, at)
            progress(number)
        visit = environment.visit(number)
        request = DecideRequest(
            experiment=running.key,
            unit=visit.unit if running.unit else None,
            context=msgspec.Raw(msgspec.json.encode(visit.context)),
            exclude=environment.absent(at),
            decision_id=f"{seed}-{number}",
        )
        decision = msgspec.structs.replace(engine.decide(request), decided_at=int(at * 1e6))
        truth = environment.truth(visit, at)
        slate = [placed.action for placed in decision.slate]
        responses = environment.respond(visit, truth, slate)
        scoreboard.add(
            running.key, decision.variant, decision.unit, environment.rows(slate), truth, responses
        )
        # Later events exist (the scoreboard counts them), but a decision is learned without them.
        events = [
            _event(decision, response)
            for response in responses
            if response.delay <= running.reward_delay
        ]
        due.append((at + running.reward_delay, decision, events))
    progress(rounds)
    return scoreboard.lines()


def _learn(
    live: CompiledExperiment, due: deque[tuple[float, Decision, list[RewardEvent]]], now: float
) -> None:
    """Update the policies with the decisions that are old enough."""
    matured: list[tuple[Decision, list[RewardEvent]]] = []
    while due and due[0][0] <= now:
        _, decision, events = due.popleft()
        matured.append((decision, events))
    teach(live, matured)


def _event(decision: Decision, response: Response) -> RewardEvent:
    return RewardEvent(
        decision_id=decision.decision_id,
        event_id=response.event,
        event=response.event,
        value=response.value,
        position=response.position,
        received_at=decision.decided_at + int(response.delay * 1e6),
    )
