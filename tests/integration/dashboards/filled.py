"""A data folder as service, worker and simulated viewers would have left it, made in process within
seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import msgspec

from topbill.domain.decision import Origin, decision_rows, reward_rows
from topbill.domain.records import Decision, Example, RewardEvent, Snapshot
from topbill.engine import DecideRequest, Engine, examples
from topbill.lake import Lake
from topbill.log import Log, Revision, open_log
from topbill.simulation.environment import Environment
from topbill.spec import Experiment

START = 1_790_000_000_000_000  # µs: 21 September 2026, 14:13 UTC
STEP = 100_000  # µs from one visit to the next
LEARN_EVERY = 200
EXPERIMENTS = Path(__file__).parents[3] / "experiments"

Kept = Callable[[Decision], bool]
Logged = tuple[Iterable[Decision], Iterable[tuple[RewardEvent, Origin]]]


def fill(
    folder: Path,
    experiments: Iterable[Experiment],
    visits: int,
    *,
    keep: Kept = lambda _: True,
    seed: int = 5,
    more: Logged = ((), ()),
) -> Path:
    """Decisions of `visits` homepages for each running experiment, their rewards, and the policies
    learned on the way.

    `keep` says which decisions reach the lake; what is in `more` is taken as it is, and
    its experiments get no visits. The log holds the last policies and nothing else.
    """
    experiments = list(experiments)
    lake, log = Lake(folder), open_log(folder / "log.sqlite")
    decided, earned = list(more[0]), list(more[1])
    known = {d.experiment for d in decided}
    for experiment in experiments:
        if visits and experiment.key not in known and experiment.status == "running":
            own, events = _visits(experiment, visits, seed, log)
            kept = {d.decision_id for d in own if keep(d)}
            decided += [d for d in own if d.decision_id in kept]
            earned += [(e, o) for e, o in events if e.decision_id in kept]
    decided.sort(key=lambda d: d.decided_at)
    earned.sort(key=lambda pair: pair[0].received_at)
    if decided:
        lake.append("decisions", decision_rows(list(enumerate(decided, 1))), len(decided))
    if earned:
        lake.append(
            "rewards", reward_rows([(i, e, o) for i, (e, o) in enumerate(earned, 1)]), len(earned)
        )
    audit = [
        Revision(e.key, e.fingerprint, START, "tester", msgspec.json.encode(e.raw).decode())
        for e in experiments
    ]
    lake.write_database(experiments, START + visits * STEP + 60_000_000, audit)
    log.close()
    return folder


def _visits(
    experiment: Experiment, visits: int, seed: int, log: Log
) -> tuple[list[Decision], list[tuple[RewardEvent, Origin]]]:
    experiment = replace(experiment, budget_ms=1e9)
    world, engine = Environment(experiment, seed), Engine([experiment], clock=lambda: 0.0)
    live = engine.find(experiment.key)
    decided: list[Decision] = []
    earned: list[tuple[RewardEvent, Origin]] = []
    waiting: list[tuple[Decision, list[RewardEvent]]] = []
    for number in range(visits):
        visit, at = world.visit(number), START + number * STEP
        request = DecideRequest(
            experiment=experiment.key,
            unit=visit.unit if experiment.unit else None,
            context=msgspec.Raw(msgspec.json.encode(visit.context)),
            decision_id=f"{experiment.key}-{number}",
        )
        decision = msgspec.structs.replace(
            engine.decide(request), decided_at=at, latency_us=180 + number % 90
        )
        slate = [placed.action for placed in decision.slate]
        came = [
            RewardEvent(
                decision_id=decision.decision_id,
                event_id=response.event,
                event=response.event,
                value=response.value,
                position=response.position,
                received_at=at + int(response.delay * 1e6),
            )
            for response in world.respond(visit, world.truth(visit, number * STEP / 1e6), slate)
        ]
        decided.append(decision)
        earned += [(event, Origin.of(decision)) for event in came]
        waiting.append((decision, came))
        if number % LEARN_EVERY == LEARN_EVERY - 1:
            batches: dict[str, list[Example]] = {name: [] for name in live.policies}
            for past, events in waiting:
                if past.variant is not None and past.reason == "policy":
                    batches[past.variant] += examples(live, past, events)
            for name, batch in batches.items():
                live.policies[name].update(batch)
            waiting.clear()
            live.version += 1
            log.write_snapshot(
                Snapshot(
                    experiment=experiment.key,
                    version=live.version,
                    watermark=number,
                    fingerprint=experiment.learning_fingerprint,
                    states={name: policy.dump() for name, policy in live.policies.items()},
                )
            )
    return decided, earned
