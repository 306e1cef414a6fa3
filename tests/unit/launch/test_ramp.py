"""The steps of a launch: when each comes, what it waits for, and the laws that always hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.ab import GuardrailHarm
from topbill.domain.errors import Conflict
from topbill.domain.margin import Margin
from topbill.launch.evidence import LaunchEvidence
from topbill.launch.gate import GateResult, GateVerdict
from topbill.launch.launch_state import LaunchState, state_of
from topbill.launch.ramp import (
    NEEDS_APPROVAL,
    Look,
    Step,
    Wait,
    WaitReason,
    approval,
    next_step,
    next_traffic,
)
from topbill.log.protocol import Order, OrderKind
from topbill.reporting.experiment.model import Note
from topbill.spec import AdvanceIf, Gate, Hold, Launch

HOUR = 3_600.0
RAMP = (0.01, 0.25, 1.0)
PLAIN = Launch(ramp=RAMP, hold=Hold(HOUR, 100))


def guardrail(verdict: str = "not_failed", metric: str = "abandon") -> GuardrailHarm:
    return GuardrailHarm(
        metric=metric,
        variant="thompson",
        verdict=verdict,  # type: ignore[arg-type]
        margin=0.02,
        worse_by=0.061,
        worse_by_low=0.004,
        worse_by_high=0.118,
    )


def evidence(*verdicts: str, units: int = 1_000, **others: Any) -> LaunchEvidence:
    guardrails = tuple([guardrail(verdict) for verdict in verdicts or ("not_failed",)])
    return LaunchEvidence(
        published_us=2**60, guardrails=guardrails, units=units, units_in_step=units, **others
    )


class World:
    """A launch, the orders that were given for it, and a clock."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.orders: list[Order] = []
        self.now = 1_000_000.0

    @property
    def state(self) -> LaunchState:
        return state_of(self.orders)

    def give(self, step: Step, number: int | None = None) -> None:
        number = self.state.step + 1 if number is None else number
        at = round(self.now * 1e6)
        order = Order("home", "r", "m", at, "launch", step.status, step.because)
        said = {"kind": step.kind, "traffic": step.traffic, "about": step.about}
        self.orders.append(order._replace(step=number, **said))

    def person(self, status: Any) -> None:
        order = Order("home", "r", "m", round(self.now * 1e6), "ann", status, "")
        self.orders.append(order._replace(traffic=self.state.traffic))

    def look(self, seen: LaunchEvidence | None = None, **others: Any) -> Step | Wait:
        running = self.state.status is None
        look = Look(evidence=seen, **{"is_running": running, **others})
        return next_step(self.launch, self.state, look, self.now)

    def step(self, seen: LaunchEvidence | None = None, **others: Any) -> Step:
        step = self.look(seen, **others)
        assert isinstance(step, Step), step
        self.give(step)
        return step

    def waits(self, seen: LaunchEvidence | None = None, **others: Any) -> str:
        wait = self.look(seen, **others)
        assert isinstance(wait, Wait), wait
        return wait.reason


def at_first_step(launch: Launch = PLAIN) -> World:
    world = World(launch)
    world.step()
    return world


def test_traffic_grows_when_each_step_has_lasted_its_time_and_its_units() -> None:
    world = World(PLAIN)
    assert world.step() == Step("traffic", "the first step of its ramp", 0.01)
    assert world.look(evidence(units=500)) == Wait(
        "hold_time", "the step lasts at least 1 h", world.now + HOUR, 0.25
    )
    world.now += HOUR
    assert world.look(evidence(units=99)) == Wait(
        "hold_units", "99 of 100 units took part in the step", None, 0.25
    )
    assert world.step(evidence(units=100)) == Step(
        "traffic", "1% held for 1 h and 100 units, no guardrail failed", 0.25
    )
    world.now += HOUR
    assert world.step(evidence()).traffic == 1.0
    assert world.waits(evidence()) == "done"
    assert [order.step for order in world.orders] == [1, 2, 3]


def test_nothing_is_judged_by_a_record_from_before_the_step() -> None:
    world = at_first_step()
    world.now += HOUR
    assert world.waits(None) == "no_evidence"
    assert world.waits(LaunchEvidence(published_us=1, units_in_step=1_000)) == "no_evidence"


def test_a_start_is_waited_for() -> None:
    world = World(Launch(ramp=RAMP, start=1_000_500.0))
    assert world.look() == Wait("not_started", "its start has not come yet", 1_000_500.0, 0.01)
    world.now += 500.0
    assert world.step().traffic == 0.01


def result(verdict: GateVerdict) -> GateResult:
    return GateResult(verdict, f"it is {verdict}")


def gated(on_refusal: str) -> World:
    gate = Gate("home", "thompson", "editorial", Margin(0.02), on_refusal=on_refusal)  # type: ignore[arg-type]
    return World(Launch(ramp=RAMP, gate=gate))


@pytest.mark.parametrize("on_refusal", ["approve", "stop", "tell"])
def test_a_gate_that_passes_opens_the_ramp(on_refusal: str) -> None:
    world = gated(on_refusal)
    assert world.waits() == "gate_pending"
    assert world.step(gate=result("passed")) == Step("gate", "it is passed")
    assert world.step().traffic == 0.01


@pytest.mark.parametrize("verdict", ["harmful", "unknown"])
def test_a_gate_that_does_not_pass_is_somebodys_to_approve(verdict: GateVerdict) -> None:
    world = gated("approve")
    assert world.step(gate=result(verdict)).kind == "refusal"
    assert world.waits(gate=result(verdict)) == "gate_refused"
    world.give(approval(world.launch, world.state))
    assert world.step(gate=result(verdict)).traffic == 0.01


def test_a_log_that_cannot_judge_yet_may_say_more_later() -> None:
    world = gated("approve")
    world.step(gate=result("unknown"))
    assert world.step(gate=result("passed")).kind == "gate"
    assert world.step().traffic == 0.01


def test_a_gate_may_stop_or_only_tell() -> None:
    stopping = gated("stop")
    assert stopping.step(gate=result("harmful")).status == "stopped"
    assert stopping.waits() == "over"
    undecided = gated("stop")
    assert undecided.step(gate=result("unknown")).kind == "refusal"
    telling = gated("tell")
    assert telling.step(gate=result("harmful")) == Step("gate", "it is harmful")
    assert telling.step().traffic == 0.01


def test_it_is_unseen_first() -> None:
    world = World(Launch(ramp=RAMP, shadow=24 * HOUR))
    assert world.step() == Step("shadow", "its variants decide unseen for 24 h")
    assert world.look() == Wait(
        "shadowing", "its variants decide unseen for 24 h", world.now + 24 * HOUR, 0.01
    )
    world.now += 24 * HOUR
    assert world.step().traffic == 0.01


def test_harm_rolls_back_at_once_and_that_is_the_end() -> None:
    world = at_first_step()
    step = world.step(evidence("harmed"))
    assert (step.kind, step.status, step.traffic) == ("rollback", "stopped", 0.01)
    assert step.because == (
        "abandon is worse by 6.1% (at least 0.40%, at most 11.8%) in thompson; 2% allowed"
    )
    assert step.about == ("abandon:thompson",)
    world.now += 1e6
    assert world.waits(evidence()) == "over"
    with pytest.raises(Conflict, match="it is over: abandon is worse"):
        approval(world.launch, world.state)
    world.person(None)
    assert world.waits(evidence("harmed")) == "over", "whoever lets it run has it as it was"


def test_harm_is_watched_for_after_the_last_step_too() -> None:
    world = at_first_step(Launch(ramp=(1.0,)))
    assert world.waits(evidence()) == "done"
    assert world.step(evidence("harmed")).kind == "rollback"


def test_harm_pauses_until_somebody_approves_it_once_and_for_all() -> None:
    world = at_first_step(Launch(ramp=RAMP, on_harm="pause", hold=Hold(HOUR)))
    world.now += HOUR
    assert world.step(evidence("harmed")).status == "paused"
    assert world.waits(evidence("harmed")) == "harm_paused"
    world.give(approval(world.launch, world.state))
    assert world.state.status is None
    assert world.waits(evidence("harmed")) == "hold_time", "nobody took part while it was paused"
    world.now += HOUR
    assert world.step(evidence("harmed")).traffic == 0.25


def test_whoever_resumes_what_harm_paused_approves_it() -> None:
    world = at_first_step(Launch(ramp=RAMP, on_harm="pause", hold=Hold(HOUR)))
    world.step(evidence("harmed"))
    world.person(None)
    assert world.waits(evidence("harmed")) == "hold_time"


def test_other_harm_than_was_approved_is_harm_again() -> None:
    world = at_first_step(Launch(ramp=RAMP, on_harm="pause"))
    world.step(evidence("harmed"))
    world.give(approval(world.launch, world.state))
    both = LaunchEvidence(guardrails=(guardrail("harmed"), guardrail("harmed", "errors")))
    assert world.step(both).about == ("errors:thompson",)


def test_harm_that_is_only_told_is_told_once_and_holds_the_step() -> None:
    world = at_first_step(Launch(ramp=RAMP, on_harm="tell", hold=Hold(HOUR)))
    world.now += HOUR
    assert (world.step(evidence("harmed")).kind, world.state.status) == ("tell", None)
    assert world.waits(evidence("harmed")) == "guardrail_failed"
    world.give(approval(world.launch, world.state))
    assert world.step(evidence("harmed")).traffic == 0.25


def test_whoever_asks_nothing_of_guardrails_goes_on() -> None:
    asked = AdvanceIf(guardrails="any", sample_ratio="any", health="any")
    world = at_first_step(Launch(RAMP, on_harm="tell", hold=Hold(HOUR), advance_if=asked))
    world.now += HOUR
    world.step(evidence("harmed"))
    trouble = evidence("harmed", sample_ratio_ok=False, troubles=(Note(code="x", sentence="X."),))
    assert world.step(trouble).traffic == 0.25


@pytest.mark.parametrize(
    ("reason", "seen"),
    [
        ("guardrail_unknown", evidence("not_failed", "unknown")),
        ("sample_ratio", evidence(sample_ratio_ok=False)),
        ("health", evidence(troubles=(Note(code="x", sentence="The record is stale."),))),
    ],
)
def test_what_has_to_hold_is_waited_for(reason: str, seen: LaunchEvidence) -> None:
    world = at_first_step()
    world.now += HOUR
    assert world.waits(seen) == reason
    assert world.step(evidence()).traffic == 0.25


def test_a_step_may_wait_for_an_approval_which_may_come_early() -> None:
    launch = Launch(ramp=RAMP, hold=Hold(HOUR), approve_at=(0.25, 1.0))
    late, early = at_first_step(launch), at_first_step(launch)
    late.now += HOUR
    assert late.look(evidence()) == Wait(
        "approval", "25% of traffic begins when somebody approves", None, 0.25
    )
    late.give(approval(launch, late.state))
    assert late.step(evidence()).traffic == 0.25
    assert late.state.approved < 1.0

    early.give(approval(launch, early.state))
    assert early.waits(evidence()) == "hold_time"
    with pytest.raises(Conflict, match="nothing of it waits"):
        approval(launch, early.state)
    early.now += HOUR
    assert early.step(evidence()).traffic == 0.25
    early.now += HOUR
    assert early.waits(evidence()) == "approval"


def test_nothing_is_done_while_somebody_stopped_it() -> None:
    world = at_first_step()
    world.person("stopped")
    world.now += 10 * HOUR
    assert world.waits(evidence("harmed")) == "halted"
    world.person(None)
    assert world.waits(evidence()) == "hold_time"
    world.now += HOUR
    assert world.step(evidence()).traffic == 0.25


def test_nothing_is_done_before_services_obey() -> None:
    world = at_first_step()
    world.now += HOUR
    assert world.waits(evidence(), is_taken_over=False) == "not_taken_over"


# ---------------------------------------------------------------------- laws

LAUNCHES = st.builds(
    Launch,
    ramp=st.lists(st.integers(1, 100), min_size=1, max_size=5, unique=True).map(
        lambda steps: tuple([step / 100 for step in sorted(steps)])
    ),
    start=st.none() | st.floats(1e6, 1.2e6),
    gate=st.none()
    | st.builds(
        Gate,
        st.just("home"),
        st.just("thompson"),
        st.just("editorial"),
        st.just(Margin(0.02)),
        on_refusal=st.sampled_from(["approve", "stop", "tell"]),
    ),
    shadow=st.sampled_from([0.0, HOUR]),
    hold=st.builds(Hold, st.sampled_from([1.0, HOUR]), st.sampled_from([0, 100])),
    on_harm=st.sampled_from(["rollback", "pause", "tell"]),
)
SEEN = st.none() | st.builds(
    lambda verdicts, units, ok: evidence(*verdicts, units=units, sample_ratio_ok=ok),
    st.lists(st.sampled_from(["harmed", "not_failed", "not_failed", "unknown"]), max_size=2),
    st.sampled_from([0, 100, 10_000]),
    st.booleans(),
)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["look", "look", "look", "approve", "stop", "resume"]),
        SEEN,
        st.none() | st.sampled_from(["passed", "harmful", "unknown"]).map(result),
        st.floats(0.0, 2 * HOUR),
    ),
    max_size=40,
)


@given(launch=LAUNCHES, approvals=st.booleans(), events=EVENTS)
def test_traffic_falls_only_by_going_back_and_no_step_comes_twice(
    launch: Launch, approvals: bool, events: list[Any]
) -> None:
    world = World(replace(launch, approve_at=launch.ramp[-1:] if approvals else ()))
    for action, seen, gate, later in events:
        world.now += later
        before = world.state
        if action == "look":
            step = world.look(seen, gate=gate)
            if isinstance(step, Step):
                world.give(step)
            else:
                assert step.reason in get_args(WaitReason)
                assert step.sentence
                assert step.until is None or step.until > world.now
                assert not step.needs_approval or approval(world.launch, before)
        elif action == "approve":
            try:
                world.give(approval(world.launch, before))
            except Conflict:
                continue
        else:
            world.person("stopped" if action == "stop" else None)
        after = world.state
        order = world.orders[-1] if world.orders else None
        # Traffic only grows, by one step of the ramp; whoever is stopped has none until it goes on.
        assert (after.traffic or 0.0) >= (before.traffic or 0.0)
        if after.traffic != before.traffic:
            assert after.traffic == next_traffic(launch, before)
            assert before.status is None
        if order is not None and order.kind == "rollback":
            assert order.status == "stopped"
        assert before.over == "" or after.over == before.over
    steps = [order.step for order in world.orders if order.step]
    assert steps == list(range(1, len(steps) + 1))
    grown = [order.traffic for order in world.orders if order.kind == "traffic"]
    assert grown == list(launch.ramp[: len(grown)])


@given(launch=LAUNCHES, events=EVENTS)
def test_a_fold_in_two_parts_is_the_fold_of_all(launch: Launch, events: list[Any]) -> None:
    world = World(launch)
    for _, seen, gate, later in events:
        world.now += later
        step = world.look(seen, gate=gate)
        if isinstance(step, Step):
            world.give(step)
    for cut in range(len(world.orders) + 1):
        resumed = state_of(world.orders[:cut])
        for order in world.orders[cut:]:
            resumed = resumed.after(order)
        assert resumed == world.state


def test_every_kind_of_order_is_folded_and_every_wait_is_known() -> None:
    for kind in get_args(OrderKind):
        order = Order("home", "r", "m", 1, "launch", None, "", None, kind, 1, about=("0.5",))
        assert isinstance(state_of([order]), LaunchState)
    assert set(NEEDS_APPROVAL) <= set(get_args(WaitReason))
