"""A published experiment whose truth is known: decided by the real engine, rewarded by a table,
laid in a real lake.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from topbill.domain.decision import decision_rows, reward_rows
from topbill.domain.origin import Origin
from topbill.domain.records import Decision, RewardEvent
from topbill.engine import DecideRequest, Engine
from topbill.lake import Lake
from topbill.spec import Experiment, load

from ...small_page import home, home_class

__all__ = ["home", "home_class"]

START = 1_790_000_000_000_000
SECOND = 1_000_000
CLICKS = {
    "tv": {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.6},
    "web": {"a": 0.5, "b": 0.3, "c": 0.2, "d": 0.1},
}
"""P(play | device, action)."""
ONE_SLOT = """
experiment: home
surface: artwork
unit: profile_id
slots: 1
context:
  device: {type: category, values: [tv, web]}
actions: [{id: a}, {id: b}, {id: c}, {id: d}]
metrics:
  play: {event: play, kind: binary, window: 60s}
objective: {play: 1.0}
variants:
  editors: {policy: fixed, order: [a], share: 20%, control: true}
  chance:  {policy: uniform, share: 80%}
"""
CANDIDATE = """
experiment: candidate
surface: artwork
context:
  device: {type: category, values: [tv, web]}
actions: [{id: a}, {id: b}, {id: c}, {id: d}]
metrics:
  play: {event: play, kind: binary, window: 60s}
objective: {play: 1.0}
variants:
  greedy: {policy: epsilon_greedy, epsilon: 0.05, share: 50%, control: true}
  fixed-d: {policy: fixed, order: [d], share: 50%}
"""


@dataclass(frozen=True)
class World:
    """A data folder with a lake, and what is in it."""

    data: Path
    experiment: Experiment
    decisions: list[Decision]

    def file(self, text: str, name: str = "candidate.yaml") -> Path:
        path = self.data / name
        path.write_text(text)
        return path


@pytest.fixture
def published(tmp_path: Path) -> Callable[..., World]:
    """Make a World of n decisions; `change` may alter a decision on its way to the lake."""

    def make(
        n: int = 4000,
        spec: str = ONE_SLOT,
        *,
        click: Callable[[str, str, int], float] = lambda device, action, _: CLICKS[device].get(
            action, 0.0
        ),
        change: Callable[[Decision], Decision] = lambda d: d,
        age: float = 3600.0,
        seed: int = 0,
    ) -> World:
        folder = tmp_path / f"world{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        path = folder / "home.yaml"
        path.write_text(spec)
        experiment = load(path)
        engine = Engine([experiment], clock=lambda: 0.0)  # no decision is ever too slow
        rng = np.random.default_rng(seed)
        decisions: list[Decision] = []
        events: list[RewardEvent] = []
        for i in range(n):
            device = ("tv", "web")[int(rng.integers(2))]
            request: dict[str, Any] = {
                "experiment": experiment.key,
                "unit": f"u{rng.integers(n // 2)}",
            }
            request |= {"decision_id": f"d{i}", "context": {"device": device}}
            decision = engine.decide(
                msgspec.json.decode(msgspec.json.encode(request), type=DecideRequest)
            )
            decision = change(msgspec.structs.replace(decision, decided_at=START + i * SECOND))
            decisions.append(decision)
            for placed in decision.slate:
                if rng.random() < click(device, placed.action, placed.position):
                    at = decision.decided_at + 5 * SECOND
                    event = RewardEvent(
                        decision_id=f"d{i}",
                        event_id=f"e{placed.position}",
                        event="play",
                        received_at=at,
                    )
                    events.append(
                        msgspec.structs.replace(
                            event, position=placed.position, action=placed.action
                        )
                    )
        lay(
            folder / "data", experiment, decisions, events, START + n * SECOND + round(age * SECOND)
        )
        return World(folder / "data", experiment, decisions)

    return make


def lay(
    data: Path,
    experiment: Experiment,
    decisions: list[Decision],
    events: list[RewardEvent],
    published: int,
) -> None:
    """Decisions and events as the lake of one experiment, published at a time (µs)."""
    lake = Lake(data)
    if decisions:
        lake.append("decisions", decision_rows(list(enumerate(decisions, 1))), len(decisions))
    if events:
        by_id = {d.decision_id: Origin.of(d) for d in decisions}
        rows = [(seq, e, by_id[e.decision_id]) for seq, e in enumerate(events, 1)]
        lake.append("rewards", reward_rows(rows), len(rows))
    lake.write_database([experiment], published)
