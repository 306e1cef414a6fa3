"""A stored decision with all that it came from and all that came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from topbill import lake
from topbill.domain.errors import DamagedSnapshot
from topbill.domain.records import Decision
from topbill.engine import Engine
from topbill.log import Log


def explained(log: Log, engine: Engine, decision: Decision, data: Path) -> dict[str, Any]:
    """A decision with the scores that it was drawn from and the rewards that came of it."""
    version = decision.policy_version
    try:
        snapshot = log.snapshot(decision.experiment, version) if version else None
    except DamagedSnapshot:
        snapshot = None
    rewards = {event.event_id: event for event in log.events(decision.decision_id)}
    if log.places([decision.decision_id]):
        # What came before the log let it go is in the lake alone.
        earlier = lake.find_rewards(data, decision)
        rewards = {event.event_id: event for event in earlier} | rewards
    return {
        **msgspec.structs.asdict(decision),
        "slate": [msgspec.structs.asdict(placement) for placement in decision.slate],
        "entities": [msgspec.structs.asdict(use) for use in decision.entities],
        "shadows": [msgspec.structs.asdict(shadow) for shadow in decision.shadows],
        "scores": engine.explain(decision, snapshot),
        "rewards": [msgspec.structs.asdict(event) for event in rewards.values()],
    }
