"""A launch before it begins: its steps with dates and units, and what of it cannot work."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from topbill.domain.formatting import window
from topbill.plan.edit import Check, ExperimentEdit
from topbill.plan.model import LaunchStep, PlanFinding
from topbill.plan.standing import NEVER_DAYS
from topbill.plan.under_way import NEW_KEY
from topbill.spec import Experiment, Launch
from topbill.spec.fields import percent

_DAY = 86_400.0
_HORIZON = 100.0 * 365.25 * _DAY
_LAST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


def launch_steps(after: Experiment, units_at_full: float | None, now: float) -> list[LaunchStep]:
    """What a launch would do step by step from `now` (seconds since the epoch) on, each as early as
    it can be, up to one that ends in a hundred years; none where the file has no launch, or does
    not run.

    Args:
        after: The experiment as its file says.
        units_at_full: New units a day if all traffic took part; None where nobody knows.
    """
    launch = after.launch
    if launch is None or after.status != "running" or after.conclusion is not None:
        return []
    at = max(now, launch.start or now)
    steps = []
    if launch.gate is not None:
        waits = [f"what the log of {launch.gate.log} says of {launch.gate.variant}"]
        steps.append(_step("gate", at, at, 0.0, None, waits))
    if launch.shadow:
        steps.append(_step("shadow", at, at + launch.shadow, 0.0, None, []))
        at += launch.shadow
    for traffic in launch.ramp:
        a_day = None if units_at_full is None else units_at_full * traffic
        lasts = _lasts(launch, a_day)
        units = None if a_day is None else round(a_day * lasts / _DAY)
        waits = ["an approval"] if traffic in launch.approve_at else []
        steps.append(_step(percent(traffic), at, at + lasts, traffic, units, waits))
        at += lasts
        if at > now + _HORIZON:
            break
    return steps


def _step(
    name: str, earliest: float, until: float, traffic: float, units: int | None, waits: list[str]
) -> LaunchStep:
    return LaunchStep(
        name=name,
        earliest=_iso(earliest),
        until=_iso(until),
        traffic=traffic,
        units=units,
        waits_for=waits,
    )


def _lasts(launch: Launch, units_a_day: float | None) -> float:
    """Seconds that a step lasts at least: by its time, and until as many units came as it asks."""
    if not launch.hold.units or not units_a_day:
        return launch.hold.at_least
    return max(launch.hold.at_least, launch.hold.units / units_a_day * _DAY)


def _iso(moment: float) -> str:
    if moment > _LAST:
        return "never"
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%MZ}"


def check_restart(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """What runs goes on beside a launch: no unit loses its variant until the ramp comes to it."""
    if edit.both is None or edit.both[0].fingerprint == edit.both[1].fingerprint:
        return
    before, after = edit.both
    if before.status != "running" or before.launch is not None or after.launch is None:
        return
    if edit.ends or after.status != "running":
        return
    former = after.former
    if former is not None and former.fingerprint == before.fingerprint:
        return
    at = f"it is at {percent(before.traffic)} of traffic"
    instead = f"leave unit, surface and layer as they are; or {NEW_KEY}"
    if edit.is_launching:
        at = f"its launch is {at.removeprefix('it is ')}"
        instead = "wait until the launch is over; to mend what harms, stop it first: "
        instead += f"`topbill stop {edit.key} --now`"
    get = "get none" if former is None else f"go back to what ran before ({former.fingerprint})"
    yield edit.harm(
        "launch_restarts",
        "launch",
        f"begins with {percent(after.launch.ramp[0])}",
        f"{at}, and a changed file begins its launch anew: the units that have a variant {get} "
        "until the ramp reaches them again",
        instead,
    )


def check_windows(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """A step ends when something is known of what it watches."""
    after = edit.after
    if after is None or after.launch is None or after.launch.advance_if.guardrails == "any":
        return
    hold = after.launch.hold.at_least
    guarded = {guardrail.metric for guardrail in after.guardrails}
    for metric in (*after.metrics, *after.unit_metrics):
        if metric.name not in guarded or metric.window <= hold:
            continue
        yield edit.harm(
            "window_longer_than_hold",
            "launch.hold.at_least",
            window(hold),
            f"the window of {metric.name} is {window(metric.window)}: traffic would grow before "
            "any decision of the step has a final value",
            f"hold each step for more than {window(metric.window)}, or guard a metric that is "
            "known sooner",
        )


def check_hold(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """A step's units come."""
    after = edit.after
    if after is None or after.launch is None or not edit.units_at_full:
        return
    a_day = edit.units_at_full * after.launch.ramp[0]
    days = after.launch.hold.units / a_day
    if days > NEVER_DAYS:
        yield edit.harm(
            "hold_never_filled",
            "launch.hold.units",
            f"{after.launch.hold.units:,}",
            f"its first step brings {a_day:,.1f} units a day: it lasts {days / 365.25:,.0f} years",
            "ask for fewer units, or begin with more traffic",
        )


def check_guarded(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """Something can stop a launch."""
    after = edit.after
    if after is None or after.launch is None or after.guardrails:
        return
    yield edit.note(
        "launch_unguarded",
        "launch",
        "no guardrail in the file",
        "no harm would be seen, and nothing rolled back; only the sample ratio and health hold it",
        "name a metric that must not get worse under guardrails",
    )


def check_gate(edit: ExperimentEdit) -> Iterator[PlanFinding]:
    """The log that a gate reads is there."""
    after = edit.after
    if after is None or after.launch is None or after.launch.gate is None:
        return
    gate = after.launch.gate
    # Without any record nobody can say what there will be.
    if not edit.logs or edit.logs.get(gate.log):
        return
    sentence = "the record has no decisions of it, and a gate without a log cannot judge"
    if gate.log in edit.logs:
        sentence = "all its variants show a fixed order, so its log cannot speak for anything else"
    names = ", ".join(sorted(key for key, explores in edit.logs.items() if explores))
    name_one = f"name one of {names}, or " if names else ""
    yield edit.harm(
        "gate_without_log",
        "launch.gate.log",
        gate.log,
        sentence,
        f"{name_one}leave the gate out and shadow it first",
    )


LAUNCHES: tuple[Check, ...] = (
    check_windows,
    check_hold,
    check_guarded,
    check_gate,
)
"""Checks of a launch by itself."""
