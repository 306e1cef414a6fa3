"""An experiment of several days as people have them: its shares were changed, units are held out
and left out, a guardrail watches, and one metric is next to 0 in the control.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from topbill import spec
from topbill.domain.decision import decision_rows, reward_rows
from topbill.domain.origin import Origin
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.engine.compiled import CompiledExperiment
from topbill.lake import Lake
from topbill.log import Revision
from topbill.spec import Experiment

DAY, START = 86_400_000_000, 20_000 * 86_400_000_000
ACTIONS = ("close-up", "chase")
RAW: dict[str, Any] = {
    "experiment": "phased",
    "title": "Shares changed on the way",
    "surface": "artwork",
    "unit": "profile",
    "holdout": "20%",
    "exclude": {"context": {"is_bot": True}},
    "context": {
        "device": {"type": "category", "values": ["tv", "web"]},
        "is_bot": {"type": "flag"},
    },
    "actions": [{"id": action} for action in ACTIONS],
    "metrics": {
        "play": {"event": "play", "kind": "binary", "window": "10m"},
        "abandon": {"event": "abandon", "kind": "binary", "window": "10m", "better": "lower"},
        "shared": {"event": "share", "kind": "binary", "window": "10m"},
        "minutes": {"event": "watch", "kind": "sum", "window": "10m", "per": "unit"},
    },
    "objective": {"play": 1.0},
    "guardrails": [{"metric": "abandon", "margin": "2pp"}],
}


class Stage(NamedTuple):
    """Days under one file: the treatment's share of units in a variant, and which units came."""

    share: int
    units: range
    days: int


STAGES = (Stage(20, range(900), 3), Stage(50, range(300, 1_500), 4))


def experiment(share: int) -> Experiment:
    """The file with that share, in per cent, for the treatment."""
    variants = {
        "editorial": {"policy": "uniform", "share": f"{100 - share}%", "control": True},
        "thompson": {"policy": "uniform", "share": f"{share}%"},
    }
    return spec.from_raw({**RAW, "variants": variants}, "phased.yaml")


class _Record:
    """Decisions of units, and what came of them. With `later_exclusion` bots are assigned as
    anybody is, as if the file had left them out only in the end."""

    def __init__(self, later_exclusion: bool) -> None:
        self.rng = np.random.default_rng(4)
        self.later_exclusion = later_exclusion
        self.decisions: list[Decision] = []
        self.rewards: list[RewardEvent] = []

    def decide(self, compiled: CompiledExperiment, number: int, at: int) -> None:
        """A unit's decision; bots play whatever they are shown."""
        variant, reason = compiled.assign(f"u{number}")
        is_bot = number % 20 == 0
        if is_bot and not self.later_exclusion:
            variant, reason = None, "excluded_context"
        name = None if variant is None else variant.name
        context = {"device": ("tv", "web")[number % 2], "is_bot": is_bot}
        decision_id = f"d{len(self.decisions)}"
        self.decisions.append(
            Decision(
                decision_id=decision_id,
                experiment="phased",
                revision=compiled.revision,
                variant=name,
                unit=f"u{number}",
                context=msgspec.Raw(msgspec.json.encode(context)),
                eligible=ACTIONS,
                slate=(Placement(0, ACTIONS[int(self.rng.integers(2))], 0.5),),
                propensity=0.5,
                probabilities=((0.5, 0.5),),
                policy="uniform",
                reason=reason,
                latency_us=100,
                decided_at=at,
            )
        )
        is_treated = name == "thompson"
        played = 0.95 if is_bot else 0.12 + 0.10 * is_treated
        if self.rng.random() < played:
            self._reward(decision_id, "play", 1.0, at)
            self._reward(decision_id, "watch", float(self.rng.lognormal(3.0, 0.8)), at)
        if self.rng.random() < 0.05:
            self._reward(decision_id, "abandon", 1.0, at)
        if is_treated and self.rng.random() < 0.03:
            self._reward(decision_id, "share", 1.0, at)

    def _reward(self, decision_id: str, event: str, value: float, at: int) -> None:
        self.rewards.append(
            RewardEvent(
                decision_id=decision_id,
                event_id=f"{event}-{decision_id}",
                event=event,
                value=value,
                received_at=at + 1_000_000,
            )
        )


def record_phases(folder: Path, *, later_exclusion: bool = False) -> Path:
    """A lake of the stages, one after the other."""
    record = _Record(later_exclusion)
    audit: list[Revision] = []
    begin = START
    for stage in STAGES:
        file = experiment(stage.share)
        compiled = CompiledExperiment(file)
        raw = msgspec.json.encode(file.raw).decode()
        audit.append(Revision("phased", file.fingerprint, begin + 1, "ana", raw))
        for day in range(stage.days):
            for number in stage.units:
                if record.rng.random() < 0.5:
                    moment = day * DAY + int(record.rng.random() * 0.9 * DAY)
                    record.decide(compiled, number, begin + moment + 2)
        begin += stage.days * DAY
    record.decisions.sort(key=lambda decision: decision.decided_at)
    record.rewards.sort(key=lambda event: event.received_at)
    origins = {decision.decision_id: Origin.of(decision) for decision in record.decisions}
    rewards = []
    for n, event in enumerate(record.rewards, 1):
        rewards.append((n, event, origins[event.decision_id]))
    lake = Lake(folder)
    decisions = list(enumerate(record.decisions, 1))
    lake.append("decisions", decision_rows(decisions), len(decisions))
    lake.append("rewards", reward_rows(rewards), len(rewards))
    lake.write_database([experiment(STAGES[-1].share)], begin + DAY, audit)
    return folder
