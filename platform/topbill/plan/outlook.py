"""What is to be expected: how long until a decision, by the power of the whole decision rule and
the record's traffic; and what new policies would have earned, by the record's propensities."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from msgspec.structs import replace

from topbill import ab
from topbill.domain.errors import TopbillError
from topbill.domain.reasons import REASONS, REMEDIES
from topbill.ope import evaluate
from topbill.plan.model import DecisionOutlook, PolicyOutlook
from topbill.plan.running import RecordedExperiment
from topbill.reporting.experiment.plan import plan as plan_runtime
from topbill.spec import Experiment, Variant

LIFT = 0.05
"""The relative lift that a plan tells the time of."""
LARGEST_LIFT = 0.10
"""Where not even that shows, nothing will."""
MOST_DECISIONS = 2_000
"""So many decisions, of a sample of units, are evaluated for each policy."""
MOST_POLICIES = 4
ESTIMATOR = "dr"
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TrafficOutlook:
    """How long an experiment must run by its new file, and how many new units a day there would be
    if all traffic took part; `rough` where less than a day was seen. `reason` says why there is no
    plan."""

    power: ab.Plan | None = None
    units_at_full: float | None = None
    rough: bool = False
    reason: str = ""


def traffic_outlook(
    after: Experiment, before: Experiment, record: RecordedExperiment, data: Path | None
) -> TrafficOutlook:
    """How long the new file must run, by the record's traffic."""
    if data is None or not record.exposed:
        return TrafficOutlook(reason="nobody was in its variants yet")
    try:
        power = plan_runtime(after.key, data, lifts=(LIFT, LARGEST_LIFT), as_if=after)
    except TopbillError as error:
        return TrafficOutlook(reason=str(error))
    rate, rough = power.units_a_day, False
    if rate is None and record.first_at is not None and record.last_at is not None:
        elapsed = (record.last_at - record.first_at) / _DAY
        rate, rough = record.exposed / elapsed if elapsed > 0.0 else None, True
    if rate is not None and before.traffic > 0.0:
        rate /= before.traffic
    reason = REASONS.get(power.reason, power.reason) if power.reason else ""
    return TrafficOutlook(power, rate, rough, reason)


def decision_outlook(traffic: TrafficOutlook, after: Experiment) -> DecisionOutlook:
    """Units and days until a lift is called and every guardrail is known to be kept."""
    rate = None if traffic.units_at_full is None else traffic.units_at_full * after.traffic
    outlook = DecisionOutlook(
        lift=LIFT, units_a_day=rate, rough=traffic.rough, reason=traffic.reason
    )
    if traffic.power is None or traffic.reason:
        return outlook
    units: list[int] = []
    for run in traffic.power.runtimes:
        if run.relative != LIFT:
            continue
        own, whole = run.ship_units or run.units, run.all_units
        if own is None or not run.units or whole is None:
            return outlook
        # All variants grow with the two that are compared.
        units.append(round(whole * own / run.units))
    if not units:
        return outlook
    longest = max(units)
    left = max(0, longest - traffic.power.units)
    return replace(outlook, units=longest, days=left / rate if rate else None)


def new_policies(after: Experiment, before: Experiment | None) -> list[Variant]:
    """The variants that decide otherwise than any that runs; fixed orders among them."""
    runs = {} if before is None else {variant.name: variant for variant in before.variants}
    fresh = []
    for variant in after.variants:
        was = runs.get(variant.name)
        if was is None or (was.policy, was.params) != (variant.policy, variant.params):
            fresh.append(variant)
    return fresh[:MOST_POLICIES]


def policy_outlook(after: Experiment, variant: Variant, data: Path) -> PolicyOutlook:
    """What a policy would have earned in the log of its experiment; refused, with the reason, where
    the log cannot tell."""
    outlook = PolicyOutlook(variant=variant.name, policy=variant.policy)
    estimator = "cascade-dr" if after.slots > 1 else ESTIMATOR
    try:
        result = evaluate(
            after.key,
            after,
            data,
            variant=variant.name,
            estimators=(estimator,),
            most=MOST_DECISIONS,
        )
    except TopbillError as error:
        return replace(outlook, reason=str(error))
    (name,) = result.targets
    estimate = result.targets[name][estimator]
    outlook = replace(outlook, estimator=estimator, decisions=result.decisions)
    if estimate.value is None:
        code = str(estimate.reason)
        remedy = f". {REMEDIES[code]}" if code in REMEDIES else ""
        return replace(outlook, reason=f"{REASONS.get(code, code)}{remedy}")
    return replace(
        outlook,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        difference=result.against(name)[estimator].value,
    )
