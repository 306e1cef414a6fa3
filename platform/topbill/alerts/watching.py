"""From readings to alarms: one fault is raised once, stands while it is seen, and is resolved after
`CALM` sound looks in a row."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

from topbill.ab import GuardrailHarm
from topbill.alerts.rules import RULES, RecordLook, RuleReading
from topbill.alerts.rules.exploring import mean_entropy
from topbill.alerts.rules.guarding import guardrail_harmed
from topbill.alerts.rules.look import FileChange, fault_key
from topbill.alerts.rules.rewarding import usual_decisions
from topbill.alerts.sums import (
    DAY_HOURS,
    HOUR,
    KEPT_DAYS,
    EventRate,
    HourSums,
    Memory,
    StandingFault,
    UsualSums,
    added,
)
from topbill.domain.alarm import AlarmKind, AlarmLine
from topbill.domain.reasons import CAUSES

CALM = 2
"""Sound looks in a row after which a fault is over."""
_ACCEPTED = 7 * DAY_HOURS * HOUR
"""µs after which features that have drifted are what is usual."""


class Outcome(NamedTuple):
    """What a look comes to: what is remembered from now on, and the lines of alarms."""

    memory: Memory
    lines: list[AlarmLine]


def look_at(
    experiment: str,
    memory: Memory,
    hour: HourSums,
    events: Collection[str],
    changes: Sequence[FileChange] = (),
    harms: Iterable[GuardrailHarm] = (),
) -> Outcome:
    """Look at an experiment when an hour more is published whole. `memory` is changed.

    Args:
        experiment: Its key.
        memory: What is remembered of it.
        hour: The sums of that hour.
        events: The reward events that its metrics read.
        changes: The changes of its file, oldest first.
        harms: Its variants on its guardrails, where these were looked at.
    """
    memory.hours = [*memory.hours, hour][-DAY_HOURS:]
    faults: set[AlarmKind] = set()
    readings = guardrail_harmed(harms, memory.hours, changes)
    for kind, rule in RULES.items():
        look = RecordLook(
            hours=memory.hours,
            usual=memory.usual,
            events=frozenset(events),
            changes=changes,
            resolved=memory.resolved,
            faults=frozenset(faults),
        )
        own = rule(look)
        readings += own
        if any(reading.state == "fault" for reading in own):
            faults.add(kind)
    end = hour.at + HOUR
    lines = weigh(experiment, memory, readings, end)
    lines += _accepted(experiment, memory, end)
    _remember(memory, readings)
    return Outcome(memory, lines)


def weigh(
    experiment: str, memory: Memory, readings: Iterable[RuleReading], at: int
) -> list[AlarmLine]:
    """The lines that readings at `at` (µs) come to; `memory` knows what stands afterwards."""
    lines = []
    over = set()
    # Where a fault is seen by several spans at once, the first one tells it.
    for reading in readings:
        key = fault_key(reading.kind, reading.subject)
        fault = memory.standing.get(key)
        if key in over:
            continue  # the other spans still hold the hours of the fault
        if reading.state == "fault" and fault is None:
            alarm = _alarm_id(experiment, key, at)
            memory.standing[key] = StandingFault(alarm, reading.span, at)
            lines.append(_raised(alarm, experiment, reading, at))
        elif fault is None or reading.span != fault.span:
            continue
        elif reading.state == "fault":
            fault.calm = 0
        elif reading.state == "sound":
            fault.calm += 1
            if fault.calm >= CALM:
                message = f"{CALM} looks in a row are as they should be."
                lines.append(resolve(experiment, memory, key, message, at))
                over.add(key)
    return lines


def resolve(experiment: str, memory: Memory, key: str, message: str, at: int) -> AlarmLine:
    """The line of a standing fault that is over."""
    fault = memory.standing.pop(key)
    memory.resolved[key] = at
    kind, _, subject = key.partition("/")
    return AlarmLine(
        fault.alarm,
        "resolved",
        kind,  # type: ignore[arg-type]  # a key is made of its kind
        experiment,
        subject,
        "",
        message,
        at,
    )


def _raised(alarm: str, experiment: str, reading: RuleReading, at: int) -> AlarmLine:
    message = reading.message
    if reading.cause:
        message = f"{message} Likely cause: {CAUSES[reading.cause]}."
    return AlarmLine(
        alarm, "raised", reading.kind, experiment, reading.subject, reading.cause, message, at
    )


def _alarm_id(experiment: str, key: str, at: int) -> str:
    """The same whenever it is made of the same: who looks again finds the same alarm."""
    text = "\n".join((experiment, key, str(at)))
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _accepted(experiment: str, memory: Memory, at: int) -> list[AlarmLine]:
    """Features that drifted a week ago and stayed so are what is usual now."""
    key = fault_key("feature_drift", "")
    fault = memory.standing.get(key)
    if fault is None or at - fault.since < _ACCEPTED:
        return []
    memory.usual.features = {}
    message = "It has been so for a week, and is what later hours are compared with."
    return [resolve(experiment, memory, key, message, at)]


def _remember(memory: Memory, readings: Iterable[RuleReading]) -> None:
    """Add the last hour to what is usual, but for what is at fault in it."""
    standing = set(memory.standing)
    standing.update(
        fault_key(reading.kind, reading.subject) for reading in readings if reading.state == "fault"
    )
    hour, usual = memory.hours[-1], memory.usual
    before = memory.hours[-2] if len(memory.hours) > 1 else None
    if fault_key("reward_silence", "") not in standing:
        _remember_rates(usual, before, hour)
    for name, sums in hour.variants.items():
        mean = mean_entropy([sums])
        if fault_key("exploration_collapsed", name) not in standing and mean is not None:
            usual.entropies[name] = [*usual.entropies.get(name, ()), mean][-DAY_HOURS:]
        usual.learned[name] = usual.learned.get(name, 0) + sums.decisions
    if fault_key("feature_drift", "") not in standing:
        own = usual.features.setdefault(hour.clock_hour, {})
        for feature, groups in hour.features.items():
            kept = {group: n * (1 - 1 / KEPT_DAYS) for group, n in own.get(feature, {}).items()}
            added(kept, {group: float(n) for group, n in groups.items()})
            own[feature] = kept


def _remember_rates(usual: UsualSums, before: HourSums | None, hour: HourSums) -> None:
    decisions = usual_decisions(before, hour)
    if not decisions:
        return
    kept = 1 - 1 / (KEPT_DAYS * DAY_HOURS)
    for event in {*usual.rates, *hour.fresh}:
        rate = usual.rates.setdefault(event, EventRate())
        rate.events = kept * rate.events + hour.fresh.get(event, 0)
        rate.decisions = kept * rate.decisions + decisions
