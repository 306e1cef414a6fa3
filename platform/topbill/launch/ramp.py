"""A launch, step by step: what follows from where it stands, what the record says, and the time.

All of it is pure. Where a launch stands is a fold over the orders in the log (`launch_state`), so
that whoever was killed goes on exactly there. What is to be done is one `Step`, or a `Wait` with
its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec

from topbill.ab import GuardrailHarm
from topbill.domain import formatting
from topbill.domain.errors import Conflict
from topbill.launch.evidence import LaunchEvidence, harm_sentence
from topbill.launch.gate import GateResult
from topbill.launch.launch_state import GATE, HARM, LaunchState
from topbill.log.orders import order_name
from topbill.log.protocol import OrderKind
from topbill.reporting.experiment.wording import FELL_BACK
from topbill.reporting.queries.shadows import ShadowSummary
from topbill.spec import Launch, Status
from topbill.spec.fields import percent

WaitReason = Literal[
    "over",
    "halted",
    "not_taken_over",
    "not_started",
    "gate_pending",
    "gate_refused",
    "shadowing",
    "shadow_failing",
    "harm_paused",
    "no_evidence",
    "hold_time",
    "hold_units",
    "guardrail_failed",
    "guardrail_unknown",
    "sample_ratio",
    "health",
    "approval",
    "done",
]
NEEDS_APPROVAL: tuple[WaitReason, ...] = (
    *("gate_refused", "harm_paused", "guardrail_failed", "approval"),
)
"""What `topbill approve KEY` ends."""
MICROS = 1_000_000
"""Microseconds of a second."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What a launch is judged by at one moment.

    Attributes:
        evidence: What the record says since the present step began; None where it says nothing yet.
        gate: What the log of before says, where it was asked.
        shadows: What became of the variants that decided unseen, of the last time as long as the
            file asks for.
        is_running: Whether its file, and whoever ordered otherwise, let it run.
        is_taken_over: Whether some service runs it as the last order made it.
    """

    evidence: LaunchEvidence | None = None
    gate: GateResult | None = None
    shadows: tuple[ShadowSummary, ...] = ()
    is_running: bool = True
    is_taken_over: bool = True


class Step(msgspec.Struct, frozen=True):
    """What is to be done now, as an order will say it. `traffic` and `status` are those that hold
    from then on."""

    kind: OrderKind
    because: str
    traffic: float | None = None
    status: Status | None = None
    about: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """In a few words: 25% of traffic, rollback."""
        return order_name(self.kind, self.traffic, self.status)


class Wait(msgspec.Struct, frozen=True):
    """Why nothing is done now.

    Attributes:
        sentence: What is waited for, for people.
        until: When that ends if nothing else happens, seconds since the epoch; None where only
            events end it.
        next_traffic: The traffic of the step that comes next; None where there is none.
    """

    reason: WaitReason
    sentence: str
    until: float | None = None
    next_traffic: float | None = None

    @property
    def needs_approval(self) -> bool:
        """Whether somebody can end it by approving."""
        return self.reason in NEEDS_APPROVAL


def next_step(launch: Launch, state: LaunchState, look: Look, now: float) -> Step | Wait:
    """What a launch does next. `now` is in seconds since the epoch."""
    for rule in _RULES:
        result = rule(launch, state, look, now)
        if result is not None:
            return result
    all_of_it = percent(launch.ramp[-1])
    return Wait("done", f"{all_of_it} of traffic takes part; harm is still watched for")


def approval(launch: Launch, state: LaunchState) -> Step:
    """The order by which somebody approves what the launch waits for, or will before its next step.

    Raises Conflict where nothing is to be approved.
    """
    if state.over:
        raise Conflict(f"it is over: {state.over}; expected a changed file, which begins anew")
    traffic, status = state.traffic, state.status
    if state.gate == "refused":
        return Step("approval", "approved although the log spoke against it", traffic, status, GATE)
    if state.harm:
        names = formatting.listing([_spelt(name) for name in state.harm])
        status = None if state.is_paused_for_harm else status
        return Step("approval", f"approved in spite of {names}", traffic, status, HARM)
    step = next_traffic(launch, state)
    if step is None or step not in launch.approve_at or step <= state.approved:
        raise Conflict("nothing of it waits for an approval, nor will before its next step")
    about = (repr(step),)
    return Step("approval", f"{percent(step)} of traffic approved", traffic, status, about)


def next_traffic(launch: Launch, state: LaunchState) -> float | None:
    """The traffic of the ramp's next step; None after its last."""
    now = 0.0 if state.traffic is None else state.traffic
    return next((step for step in launch.ramp if step > now), None)


def harmed(evidence: LaunchEvidence | None, state: LaunchState) -> dict[str, GuardrailHarm]:
    """The harm that nobody accepted, by metric:variant."""
    if evidence is None:
        return {}
    return {name: one for one in evidence.harmed if (name := _name(one)) not in state.accepted}


# ---------------------------------------------------------------------- rules, in their order


def _over(_launch: Launch, state: LaunchState, look: Look, _now: float) -> Wait | None:
    if state.over:
        return Wait("over", f"it is over: {state.over}")
    if state.is_paused_for_harm:
        names = formatting.listing([_spelt(name) for name in state.harm])
        return Wait("harm_paused", f"paused because of {names} until somebody approves")
    if not look.is_running:
        return Wait("halted", "it is not running")
    if not look.is_taken_over:
        return Wait("not_taken_over", "no service has taken over what was said last")
    return None


def _start(launch: Launch, state: LaunchState, _look: Look, now: float) -> Wait | None:
    if launch.start is None or now >= launch.start or state.step:
        return None
    return Wait("not_started", "its start has not come yet", launch.start, launch.ramp[0])


def _gate(launch: Launch, state: LaunchState, look: Look, _now: float) -> Step | Wait | None:
    if launch.gate is None or state.gate == "passed":
        return None
    result, on_refusal = look.gate, launch.gate.on_refusal
    if result is not None and (result.passed or on_refusal == "tell"):
        return Step("gate", result.sentence)
    if state.gate == "refused":
        sentence = f"the log of {launch.gate.log} does not speak for it: somebody has to approve"
        return Wait("gate_refused", sentence, None, launch.ramp[0])
    if result is None:
        return Wait("gate_pending", f"the log of {launch.gate.log} is being asked")
    if result.verdict == "harmful" and on_refusal == "stop":
        return Step("rollback", f"the log speaks against it: {result.sentence}", None, "stopped")
    return Step("refusal", result.sentence)


def _shadow(launch: Launch, state: LaunchState, look: Look, now: float) -> Step | Wait | None:
    if not launch.shadow or state.traffic is not None:
        return None
    length = formatting.window(launch.shadow)
    if state.shadow_since is None:
        return Step("shadow", f"its variants decide unseen for {length}")
    until = state.shadow_since / MICROS + launch.shadow
    if now < until:
        return Wait("shadowing", f"its variants decide unseen for {length}", until, launch.ramp[0])
    failing = [one for one in look.shadows if one.unanswered > FELL_BACK]
    if launch.advance_if.health == "any" or not failing:
        return None
    return Wait("shadow_failing", _shadows_say(failing), None, launch.ramp[0])


def _shadows_say(failing: Iterable[ShadowSummary]) -> str:
    """thompson had no answer in 4.1% of 12,000 decisions unseen (120 too late for budget_ms, 372
    failed, mostly by ValueError)"""
    clauses = []
    for one in failing:
        parts = [f"{one.late:,} too late for budget_ms"] if one.late else []
        if one.failed:
            parts.append(f"{one.failed:,} failed, mostly by {one.error}")
        share = f"{one.unanswered:.1%} of {formatting.several(one.decisions, 'decision')}"
        clauses.append(f"{one.variant} had no answer in {share} unseen ({', '.join(parts)})")
    return f"{'; '.join(clauses)}: at most {FELL_BACK:.0%} may lack one"


def _harm(launch: Launch, state: LaunchState, look: Look, _now: float) -> Step | None:
    new = harmed(look.evidence, state)
    if state.traffic is None or not new or new.keys() <= set(state.harm):
        return None
    because = "; ".join([harm_sentence(one) for one in new.values()])
    about = tuple(new)
    if launch.on_harm == "rollback":
        return Step("rollback", because, state.traffic, "stopped", about)
    if launch.on_harm == "pause":
        return Step("pause", because, state.traffic, "paused", about)
    return Step("tell", because, state.traffic, None, about)


def _hold(launch: Launch, state: LaunchState, look: Look, now: float) -> Wait | None:
    step = next_traffic(launch, state)
    if step is None:
        return None
    waits = _waits(launch, state, look, now)
    first = next(waits, None)
    return None if first is None else msgspec.structs.replace(first, next_traffic=step)


def _waits(launch: Launch, state: LaunchState, look: Look, now: float) -> Iterator[Wait]:
    """What keeps traffic from growing, the most urgent first."""
    if state.traffic is None:
        return
    asked, evidence = launch.advance_if, look.evidence
    if asked.guardrails == "not_failed" and state.harm:
        names = formatting.listing([_spelt(name) for name in state.harm])
        yield Wait("guardrail_failed", f"{names}: held until somebody approves")
    if evidence is not None and asked.sample_ratio == "ok" and not evidence.sample_ratio_ok:
        yield Wait(
            "sample_ratio", "sample ratio mismatch (SRM): units are not split as the shares say"
        )
    if evidence is not None and asked.health == "ok" and not evidence.health_ok:
        yield Wait("health", " ".join([note.sentence for note in evidence.troubles]))
    yield from _unfinished(launch, state, evidence, now)
    if evidence is not None and asked.guardrails == "not_failed":
        unread = [one for one in evidence.unknown if _name(one) not in state.accepted]
        if unread:
            names = formatting.listing([_spelt(_name(one)) for one in unread])
            yield Wait("guardrail_unknown", f"{names} cannot be read yet")


def _unfinished(
    launch: Launch, state: LaunchState, evidence: LaunchEvidence | None, now: float
) -> Iterator[Wait]:
    """What the step lacks of its length."""
    until = state.since / MICROS + launch.hold.at_least
    if now < until:
        length = formatting.window(launch.hold.at_least)
        yield Wait("hold_time", f"the step lasts at least {length}", until)
    if evidence is None or evidence.published_us < state.since:
        yield Wait("no_evidence", "nothing was published since the step began")
        return
    if evidence.units_in_step < launch.hold.units:
        count = f"{evidence.units_in_step:,} of {launch.hold.units:,}"
        yield Wait("hold_units", f"{count} units took part in the step")


def _ramp(launch: Launch, state: LaunchState, look: Look, _now: float) -> Step | Wait | None:
    step = next_traffic(launch, state)
    if step is None:
        return None
    if step in launch.approve_at and state.approved < step:
        sentence = f"{percent(step)} of traffic begins when somebody approves"
        return Wait("approval", sentence, None, step)
    return Step("traffic", _why(launch, state, look.evidence), step)


def _why(launch: Launch, state: LaunchState, evidence: LaunchEvidence | None) -> str:
    """Why traffic grows."""
    if state.traffic is None or evidence is None:
        return "the first step of its ramp"
    units = formatting.several(evidence.units_in_step, "unit")
    length = formatting.window(launch.hold.at_least)
    asked = launch.advance_if.guardrails == "not_failed" and evidence.guardrails
    kept = ", no guardrail failed" if asked else ""
    return f"{percent(state.traffic)} held for {length} and {units}{kept}"


_Rule = Callable[[Launch, LaunchState, Look, float], Step | Wait | None]
# Harm comes before all that lets a step wait: whatever else is amiss, nobody is harmed longer.
_RULES: tuple[_Rule, ...] = (_over, _start, _gate, _shadow, _harm, _hold, _ramp)


def _name(harm: GuardrailHarm) -> str:
    return f"{harm.metric}:{harm.variant}"


def _spelt(name: str) -> str:
    """`abandon:thompson` → `abandon in thompson`."""
    metric, _, variant = name.partition(":")
    return f"{formatting.label(metric)} in {variant}"


def names_of(harms: Iterable[GuardrailHarm]) -> tuple[str, ...]:
    """How orders name harm: metric:variant each."""
    return tuple([_name(one) for one in harms])
