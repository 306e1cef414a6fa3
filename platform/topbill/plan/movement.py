"""Who moves: each unit of the record is assigned twice, by the code that assigns it in services."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import msgspec

from topbill.domain.exclusion import EVERYBODY, NOBODY
from topbill.engine import CompiledExperiment
from topbill.plan.model import UnitMovement
from topbill.plan.running import RecordedExperiment
from topbill.spec import Experiment


def unit_movement(
    before: Experiment, after: Experiment, record: RecordedExperiment
) -> UnitMovement | None:
    """What becomes of the units of the record; None where each decision is a unit of its own, and
    nobody comes back.

    An experiment that is paused keeps its units, who find themselves in it again when it goes on,
    and a launch reaches its whole traffic in the end: so both are assigned as if they ran, and were
    launched. Whether and from when on they run is told apart from this.
    """
    if before.unit is None or after.unit is None:
        return None
    one, other = _running(before, record), _running(after, record)
    counts: Counter[str] = Counter()
    flows: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for unit in record.units:
        context = msgspec.Raw(unit.context.encode())
        was, _ = one.admit(unit.unit, context)
        becomes, reason = other.admit(unit.unit, context)
        if was is None and becomes is None:
            continue
        if was is None:
            counts["entered"] += 1
        elif becomes is None or reason == "override":
            # Testers see a variant, and count in none.
            counts["left"] += 1
            reasons[reason] += 1
        elif was.name == becomes.name:
            counts["kept"] += 1
        else:
            counts["moved"] += 1
            flows[f"{was.name} → {becomes.name}"] += 1
    return UnitMovement(
        units=len(record.units),
        of=record.asked,
        flows=dict(flows.most_common()),
        reasons=dict(reasons.most_common()),
        is_made_up=record.is_made_up,
        **counts,
    )


def _running(experiment: Experiment, record: RecordedExperiment) -> CompiledExperiment:
    experiment = replace(experiment, status="running", launch=None)
    if record.is_made_up:
        # Nobody knows what such units would send.
        experiment = replace(experiment, exclude=NOBODY, audience=EVERYBODY)
    return CompiledExperiment(experiment)
