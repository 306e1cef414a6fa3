"""A record with something of everything that a report reads: metrics of all kinds, covariates,
segments, guardrails, a holdout, changed shares, units that are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from topbill import spec
from topbill.domain.decision import Origin, decision_rows, reward_rows, unit_event_rows
from topbill.domain.records import Decision, Placement, RewardEvent, UnitEvent
from topbill.lake import Lake
from topbill.log import Revision
from topbill.spec import Experiment

KEY = "home"
DAY = 86_400_000_000
BEGAN = 1_790_000_000_000_000
FILE: dict[str, Any] = {
    "surface": "artwork",
    "unit": "profile_id",
    "time_zone": "Europe/Oslo",
    "context": {
        "device": {"type": "category", "values": ["tv", "mobile"]},
        "age": {"type": "number"},
    },
    "actions": [{"id": "x"}, {"id": "y"}, {"id": "z"}],
    "exclude": {"context": {"device": ["bot"]}},
    "holdout": "10%",
    "metrics": {
        "play": {"event": "play", "kind": "binary", "window": "1h"},
        "minutes": {
            "event": "watch",
            "kind": "sum",
            "window": "6h",
            "cap": 50,
            "covariate": "3d",
        },
        "longest": {"event": "watch", "kind": "max", "window": "6h", "cap": 60},
        "last": {"event": "watch", "kind": "last", "window": "6h", "cap": 60},
        "watched": {"event": "watch", "kind": "mean", "window": "6h", "cap": 60, "per": "unit"},
        "plays": {"event": "play", "kind": "count", "window": "6h", "winsorise": "99%"},
        "titles": {"event": "watch", "kind": "distinct", "window": "6h"},
        "half": {"kind": "quantile", "of": "minutes", "q": 0.5},
        "per_play": {"kind": "ratio", "numerator": "minutes", "denominator": "plays"},
        "back": {"event": "play", "kind": "retention", "day": 1},
        "visits": {"event": "visit", "kind": "count", "window": "2d", "scope": "unit", "cap": 9},
        "abandon": {"event": "abandon", "kind": "binary", "window": "1h", "better": "lower"},
    },
    "objective": {"play": 1.0, "minutes": 0.5},
    "guardrails": [{"metric": "abandon", "margin": "5pp"}],
}
VARIANTS = {"editorial": 0.5, "bandit": 0.3, "other": 0.2}


_FEW = ("play", "minutes", "abandon")


def experiment(shares: dict[str, float], key: str = KEY, *, is_rich: bool = True) -> Experiment:
    """The experiment with shares of its own; of few metrics and without a holdout, if not rich."""
    file = FILE
    if not is_rich:
        metrics = {name: FILE["metrics"][name] for name in _FEW}
        file = {**FILE, "metrics": metrics, "holdout": "0%"}
    variants: dict[str, Any] = {}
    for name, share in shares.items():
        variants[name] = {"policy": "uniform", "share": f"{round(share * 100)}%"}
    variants["editorial"]["control"] = True
    return spec.from_raw({**file, "experiment": key, "variants": variants}, key)


def publish(data: Path, units: int = 200, seed: int = 3, *, is_rich: bool = True) -> Path:
    """Write the record into a data folder; returns it."""
    rng = np.random.default_rng(seed)
    before = experiment({"editorial": 0.6, "bandit": 0.4}, is_rich=is_rich)
    after = experiment(VARIANTS, is_rich=is_rich)
    decisions: list[Decision] = []
    rewards: list[RewardEvent] = []
    visits: list[UnitEvent] = []
    for number in range(units):
        first = BEGAN + int(rng.integers(6 * DAY))
        current = before if first < BEGAN + 2 * DAY else after
        names = [variant.name for variant in current.variants]
        shares = [variant.share for variant in current.variants]
        held_out = is_rich and number % 10 == 0
        variant = None if held_out else str(rng.choice(names, p=shares))
        device = "bot" if number % 37 == 0 else str(rng.choice(["tv", "mobile"]))
        unit = _Unit(f"u{number}", variant, device, current.fingerprint)
        for moment in sorted([first, *(first + rng.integers(2 * DAY, size=rng.integers(4)))]):
            decisions.append(unit.decision(rng, len(decisions), int(moment)))
            rewards += unit.rewards(rng, decisions[-1], len(rewards))
        for moment in first + rng.integers(-DAY, 2 * DAY, size=rng.integers(3)):
            visits.append(unit.visit(len(visits), int(moment)))
    decisions.sort(key=lambda decision: decision.decided_at)
    _write(data, decisions, rewards, visits, [before, after])
    return data


class _Unit:
    """Whoever decisions are made for."""

    def __init__(self, name: str, variant: str | None, device: str, revision: str) -> None:
        self.name, self.variant, self.device, self.revision = name, variant, device, revision

    def decision(self, rng: np.random.Generator, number: int, moment: int) -> Decision:
        """One of theirs."""
        p = rng.dirichlet([2.0, 2.0, 2.0])
        place = int(rng.choice(3, p=p))
        shown = "xyz"[place]
        held_out = self.variant is None
        return Decision(
            decision_id=f"d{number}",
            experiment=KEY,
            revision=self.revision,
            variant=self.variant,
            unit=self.name,
            context=f'{{"device":"{self.device}","age":{rng.integers(20, 70)}}}'.encode(),
            eligible=("x", "y", "z"),
            slate=(Placement(0, shown, float(p[place])),),
            propensity=float(p[place]),
            probabilities=None if held_out else (tuple(map(float, p)),),
            policy="fixed" if held_out else "uniform",
            reason="holdout" if held_out else "policy",
            latency_us=int(rng.integers(50, 500)),
            decided_at=moment,
        )

    def rewards(
        self, rng: np.random.Generator, decision: Decision, number: int
    ) -> list[RewardEvent]:
        """What came of it."""
        events = [("play", 1.0)] * int(rng.integers(3))
        events += [("watch", float(x)) for x in rng.gamma(2.0, 10.0, size=rng.integers(3))]
        events += [("abandon", 1.0)] * int(rng.random() < 0.2)
        rows = []
        for i, (event, value) in enumerate(events):
            at = decision.decided_at + int(rng.exponential(DAY / 4))
            rows.append(
                RewardEvent(
                    decision_id=decision.decision_id,
                    event_id=f"r{number + i}",
                    event=event,
                    value=value,
                    action=decision.slate[0].action,
                    position=0,
                    occurred_at=at,
                    received_at=at,
                )
            )
        return rows

    def visit(self, number: int, moment: int) -> UnitEvent:
        """Something that they did, whatever was decided."""
        return UnitEvent(
            unit=self.name,
            unit_type="profile_id",
            event_id=f"v{number}",
            event="visit",
            occurred_at=moment,
            received_at=moment,
        )


def _write(
    data: Path,
    decisions: Sequence[Decision],
    rewards: Sequence[RewardEvent],
    visits: Sequence[UnitEvent],
    files: Sequence[Experiment],
) -> None:
    lake = Lake(data)
    lake.append("decisions", decision_rows(list(enumerate(decisions, 1))), len(decisions))
    origins = {decision.decision_id: Origin.of(decision) for decision in decisions}
    rows = [(seq, event, origins[event.decision_id]) for seq, event in enumerate(rewards, 1)]
    lake.append("rewards", reward_rows(rows), len(rows))
    lake.append("events", unit_event_rows(list(enumerate(visits, 1))), len(visits))
    times = (BEGAN - DAY, BEGAN + 2 * DAY)
    audit = []
    for at, file in zip(times, files, strict=True):
        text = msgspec.json.encode(file.raw).decode()
        audit.append(Revision(KEY, file.fingerprint, at, "ann", text))
    newest = max(decision.decided_at for decision in decisions)
    lake.write_database([files[-1]], newest + DAY // 8, audit)
