"""A data folder as service, worker and simulated viewers would have left it, made in process within
seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import msgspec

from topbill.domain.decision import decision_rows, reward_rows
from topbill.domain.origin import Origin
from topbill.domain.records import Decision, RewardEvent, Snapshot
from topbill.engine import CompiledExperiment, DecideRequest, Engine, teach
from topbill.lake import Lake
from topbill.log import LOG_FILE, Log, Revision, open_log
from topbill.simulation.environment import Environment
from topbill.spec import Experiment

START = 1_790_000_000_000_000
"""Microseconds since the epoch: 21 September 2026, 14:13 UTC."""
STEP = 100_000
"""Microseconds from one visit to the next."""
LEARN_EVERY = 200
_MATURE_AFTER = 60_000_000
"""Microseconds after the last visit at which the record is read: past the examples' windows."""

Attributed = tuple[RewardEvent, Origin]
"""A reward event and what the record keeps beside it of its decision."""


def record_visits(
    folder: Path,
    experiments: Iterable[Experiment],
    visits: int,
    *,
    seed: int = 5,
    is_recorded: Callable[[Decision], bool] = lambda _: True,
    more_decisions: Iterable[Decision] = (),
    more_rewards: Iterable[Attributed] = (),
) -> Path:
    """Decisions of `visits` homepages for each running experiment, their rewards, and the policies
    learned on the way, in a lake and a log of their own.

    Args:
        folder: The data folder, made where it is missing.
        experiments: All that the record knows of.
        visits: How many for each running experiment.
        seed: Chooses viewers and responses; decision ids, and so the draws, do not depend on it.
        is_recorded: Says which decisions reach the lake, so that a test can lose some.
        more_decisions: Recorded as they are; their experiments get no visits.
        more_rewards: Likewise.

    Returns:
        The folder. Its log holds the last policies and nothing else.
    """
    experiments = list(experiments)
    decisions, rewards = list(more_decisions), list(more_rewards)
    recorded_before = {decision.experiment for decision in decisions}
    with open_log(folder / LOG_FILE) as log:
        for experiment in experiments:
            if not visits or experiment.key in recorded_before or experiment.status != "running":
                continue
            own, own_rewards = _visit(experiment, visits, seed, log)
            recorded: set[str] = set()
            for decision in own:
                if is_recorded(decision):
                    recorded.add(decision.decision_id)
                    decisions.append(decision)
            # A reward without its decision is no use to a test that loses decisions.
            rewards += [pair for pair in own_rewards if pair[0].decision_id in recorded]
    _publish(folder, experiments, decisions, rewards, START + visits * STEP + _MATURE_AFTER)
    return folder


def _publish(
    folder: Path,
    experiments: list[Experiment],
    decisions: list[Decision],
    rewards: list[Attributed],
    now: int,
) -> None:
    lake = Lake(folder)
    decisions.sort(key=lambda decision: decision.decided_at)
    rewards.sort(key=lambda pair: pair[0].received_at)
    if decisions:
        rows = decision_rows(list(enumerate(decisions, 1)))
        lake.append("decisions", rows, len(decisions))
    if rewards:
        numbered = [(number, event, origin) for number, (event, origin) in enumerate(rewards, 1)]
        lake.append("rewards", reward_rows(numbered), len(rewards))
    audit = []
    for experiment in experiments:
        raw = msgspec.json.encode(experiment.raw).decode()
        audit.append(Revision(experiment.key, experiment.fingerprint, START, "example", raw))
    lake.write_database(experiments, now, audit)


def _visit(
    experiment: Experiment, visits: int, seed: int, log: Log
) -> tuple[list[Decision], list[Attributed]]:
    # However busy the machine is, no decision may take too long: fallbacks would not be the same
    # twice.
    experiment = replace(experiment, budget_ms=1e9)
    environment = Environment(experiment, seed)
    engine = Engine([experiment], clock=lambda: 0.0)
    compiled = engine.find(experiment.key)
    decisions: list[Decision] = []
    rewards: list[Attributed] = []
    unlearned: list[tuple[Decision, list[RewardEvent]]] = []
    for number in range(visits):
        visit, at = environment.visit(number), START + number * STEP
        request = DecideRequest(
            experiment=experiment.key,
            unit=visit.unit if experiment.unit else None,
            context=msgspec.Raw(msgspec.json.encode(visit.context)),
            decision_id=f"{experiment.key}-{number}",
        )
        decision = msgspec.structs.replace(
            engine.decide(request), decided_at=at, latency_us=180 + number % 90
        )
        truth = environment.truth(visit, number * STEP / 1e6)
        slate = [placement.action for placement in decision.slate]
        events = []
        for response in environment.respond(visit, truth, slate):
            event = RewardEvent(
                decision_id=decision.decision_id,
                event_id=response.event,
                event=response.event,
                value=response.value,
                position=response.position,
                received_at=at + int(response.delay * 1e6),
            )
            events.append(event)
            rewards.append((event, Origin.of(decision)))
        decisions.append(decision)
        unlearned.append((decision, events))
        if len(unlearned) == LEARN_EVERY:
            _learn(compiled, unlearned, number, log)
            unlearned.clear()
    return decisions, rewards


def _learn(
    compiled: CompiledExperiment,
    unlearned: list[tuple[Decision, list[RewardEvent]]],
    watermark: int,
    log: Log,
) -> None:
    teach(compiled, unlearned)
    compiled.version += 1
    log.write_snapshot(
        Snapshot(
            experiment=compiled.experiment.key,
            version=compiled.version,
            watermark=watermark,
            fingerprint=compiled.experiment.learning_fingerprint,
            states={name: policy.dump() for name, policy in compiled.policies.items()},
        )
    )
