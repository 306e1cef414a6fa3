"""The worker gives launches their steps: from the log alone, each once, whoever else orders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from topbill.ab import GuardrailHarm
from topbill.domain.errors import Conflict, LogError
from topbill.domain.margin import Margin
from topbill.launch.evidence import LaunchEvidence
from topbill.launch.gate import GateResult
from topbill.launch.ramp import Step
from topbill.launch.stepping import approve, give_step
from topbill.log import Log, open_log
from topbill.log.orders import give_order, in_force, obeyed, orders_of
from topbill.log.protocol import Order
from topbill.reporting.queries.shadows import ShadowSummary
from topbill.spec import Experiment, Gate, from_raw
from topbill.worker.launching import Launching

HOUR = 3_600.0
SOUND = LaunchEvidence(published_us=2**60, units=1_000, units_in_step=1_000)


class World:
    """A folder with one launched experiment, a service that takes over what is ordered, a clock."""

    def __init__(self, art: Experiment, launch: str = "{ramp: [5%, 100%], hold: {at_least: 1h}}"):
        self.now = 1_000_000.0
        self.log = open_log("memory:", clock=lambda: round(self.now * 1e6))
        self.art = art
        self.write(launch)
        self.seen: list[tuple[datetime | None, datetime | None]] = []
        self.beside: list[str | None] = []
        self.shadows: list[ShadowSummary] = []
        self.asked_since: list[datetime] = []
        self.asked: list[Gate] = []
        self.evidence: LaunchEvidence | LogError = SOUND
        self.gate = GateResult("passed", "as good")
        self.launching = Launching(
            self.log,
            Path("data"),
            clock=lambda: round(self.now * 1e6),
            evidence=self._evidence,
            gate=self._gate,
            shadows=self._shadows,
        )
        self.take_over()

    def _evidence(self, _key: str, _data: Path, **times: Any) -> LaunchEvidence:
        self.seen.append((times["since"], times["step_since"]))
        self.beside.append(times["beside"])
        if isinstance(self.evidence, LogError):
            raise self.evidence
        return self.evidence

    def _shadows(self, _data: Path, _key: str, since: datetime) -> list[ShadowSummary]:
        self.asked_since.append(since)
        return self.shadows

    def _gate(self, gate: Gate, _file: Experiment, _data: Path) -> GateResult:
        self.asked.append(gate)
        return self.gate

    def write(self, launch: str) -> None:
        """Write the file."""
        raw = {**self.art.raw, "launch": yaml.safe_load(launch)}
        self.file = from_raw(raw, "art.yaml")

    def take_over(self) -> Experiment:
        (running,) = obeyed([self.file], self.log.orders())
        text = msgspec.json.encode(running.raw).decode()
        self.log.revise(running.key, running.fingerprint, "service", text)
        return running

    def step(self, later: float = 0.0) -> int:
        self.now += later
        given = self.launching.step([self.file])
        self.take_over()
        return given

    @property
    def reason(self) -> str:
        return self.launching.lines["art"].reason

    @property
    def running(self) -> Experiment:
        return self.take_over()


@pytest.fixture
def world(art: Experiment) -> Iterator[World]:
    world = World(art)
    yield world
    world.launching.close()


def test_each_step_is_an_order_and_a_revision(world: World) -> None:
    assert world.running.launch is not None
    assert world.step() == 1
    assert (world.running.traffic, world.running.launch) == (0.05, None)
    assert (world.step(), world.reason) == (0, "hold_time")
    assert world.step(HOUR) == 1
    assert world.running.traffic == 1.0
    assert (world.step(), world.reason) == (0, "done")
    orders = world.log.orders()
    assert [(order.kind, order.step, order.traffic, order.who) for order in orders] == [
        ("traffic", 1, 0.05, "launch"),
        ("traffic", 2, 1.0, "launch"),
    ]
    made = [line.revision for line in world.log.revisions("art")]
    assert made == [world.file.fingerprint, *(order.made for order in orders)]
    # The block may be taken out of the file now: nothing changes.
    assert made[-1] == world.art.fingerprint


def test_evidence_is_that_of_the_launch_and_of_the_step_and_not_looked_at_too_often(
    world: World,
) -> None:
    world.step()
    for _ in range(30):
        world.step(1.0)
    assert len(world.seen) == 3
    world.step(HOUR)
    world.step(1.0)
    first = datetime.fromtimestamp(1_000_000, UTC)
    assert set(world.seen) == {(first, first), (first, first + timedelta(seconds=30 + HOUR))}


def test_a_launch_whose_evidence_cannot_be_read_waits_and_says_so(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.step()
    world.step()
    world.evidence = LogError("the lake is out of reach")
    for _ in range(3):
        world.step(20.0)
    assert world.launching.lines["art"].sentence == "the lake is out of reach"
    assert caplog.text.count("out of reach") == 1
    world.evidence = SOUND
    world.step(20.0)
    assert world.reason == "hold_time"


def harm() -> LaunchEvidence:
    broken = GuardrailHarm(metric="play", variant="thompson", verdict="harmed", margin=0.1)
    return msgspec.structs.replace(SOUND, guardrails=(broken,))


def test_harm_gives_everybody_the_controls_order(world: World) -> None:
    world.step()
    world.evidence = harm()
    assert world.step() == 1
    assert (world.running.status, world.running.traffic) == ("stopped", 0.05)
    (order,) = in_force(world.log)
    assert (order.who, order.status, order.kind) == ("launch", "stopped", "rollback")
    assert "play is worse in thompson" in order.because
    assert (world.step(HOUR), world.reason) == (0, "over")


def test_a_changed_file_begins_its_launch_anew_and_the_old_one_goes_on_where_it_was(
    world: World,
) -> None:
    world.step()
    world.evidence = harm()
    world.step()
    before = world.file
    world.write("{ramp: [2%, 100%], hold: {at_least: 1h}}")
    world.evidence = SOUND
    world.take_over()
    assert world.step() == 1
    assert (world.running.status, world.running.traffic) == ("running", 0.02)
    assert world.log.orders()[-1].step == 1
    # What harmed as it was is not launched again by putting the file back.
    world.file = before
    world.take_over()
    assert (world.step(HOUR), world.running.status) == (0, "stopped")


def test_a_persons_order_outranks_the_launch_and_keeps_who_takes_part(world: World) -> None:
    world.step()
    give_order(world.log, "art", "paused", "ann", "")
    world.take_over()
    assert (world.step(HOUR), world.reason) == (0, "halted")
    assert (world.running.status, world.running.traffic) == ("paused", 0.05)
    give_order(world.log, "art", None, "ann", "")
    world.take_over()
    assert (world.running.status, world.running.traffic) == ("running", 0.05)
    assert (world.step(), world.reason) == (0, "hold_time")
    assert world.step(HOUR) == 1


def test_who_orders_while_a_step_is_given_follows_from_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the order of a person the launch makes a step: traffic does not fall."""
    store = type(world.log).give_order

    def late(log: Log, order: Order, after: int | None = None) -> None:
        monkeypatch.setattr(type(world.log), "give_order", store)
        world.step()
        log.give_order(order, after)

    monkeypatch.setattr(type(world.log), "give_order", late)
    give_order(world.log, "art", "stopped", "ann", "")
    assert [order.traffic for order in world.log.orders()] == [0.05, 0.05]
    assert world.running.status == "stopped"


def test_nothing_is_done_before_a_service_takes_over(world: World) -> None:
    world.step()
    world.now += HOUR
    for _ in range(2):
        world.launching.step([world.file])
    world.write("{ramp: [10%, 100%]}")
    assert world.launching.step([world.file]) == 0
    assert world.reason == "not_taken_over"


def test_of_two_workers_one_gives_the_step(world: World) -> None:
    other = Launching(
        world.log, Path("data"), clock=lambda: round(world.now * 1e6), evidence=world._evidence
    )
    with closing(other):
        assert (world.step(), other.step([world.file])) == (1, 0)
        orders = orders_of(world.log, world.file)
        with pytest.raises(Conflict, match="somebody ordered something meanwhile"):
            give_step(world.log, world.file, [], Step("traffic", "again", 0.05), "launch")
    assert orders_of(world.log, world.file) == orders


GATED = """
{gate: {log: art, variant: thompson, margin: 2%}, shadow: 1h, ramp: [5%, 100%], approve_at: 100%}
"""


def asked(world: World) -> int:
    """A step once the log has answered."""
    given = world.step()
    world.launching._asking.submit(lambda: None).result()
    return given or world.step()


def test_a_log_is_asked_once_and_again_after_an_hour(art: Experiment) -> None:
    world = World(art, GATED)
    world.gate = GateResult("unknown", "cannot judge: no overlap")
    assert asked(world) == 1
    for _ in range(3):
        world.step(20.0)
    assert (world.reason, len(world.asked)) == ("gate_refused", 1)
    assert world.asked == [Gate("art", "thompson", "editorial", Margin(0.02), "dr")]
    world.gate = GateResult("passed", "as good")
    world.now += HOUR
    assert asked(world) == 1
    assert [order.kind for order in world.log.orders()] == ["refusal", "gate"]
    world.launching.close()


def test_somebody_approves_in_the_logs_stead_and_a_step(art: Experiment) -> None:
    world = World(art, GATED)
    world.gate = GateResult("harmful", "worse")
    asked(world)
    order = approve(world.log, "art", "ann", "we know why")
    assert (order.step, order.because) == (
        2,
        "approved although the log spoke against it: we know why",
    )
    assert world.step() == 1
    assert (world.step(), world.launching.lines["art"].stage) == (0, "shadow")
    assert world.step(HOUR) == 1
    world.step(25 * HOUR)
    assert (world.reason, world.launching.lines["art"].needs_approval) == ("approval", True)
    approve(world.log, "art", "ann")
    world.take_over()
    assert world.step(20.0) == 1
    assert world.running.traffic == 1.0
    with pytest.raises(Conflict, match="nothing of it waits"):
        approve(world.log, "art", "ann")
    assert [order.step for order in world.log.orders()] == [1, 2, 3, 4, 5, 6]
    world.launching.close()


def test_what_has_no_launch_cannot_be_approved(world: World) -> None:
    world.file = world.art
    world.take_over()
    with pytest.raises(Conflict, match="its file has no launch"):
        approve(world.log, "art", "ann")
    assert world.step() == 0
    assert world.launching.lines == {}


def shadow(variant: str, **counts: int) -> ShadowSummary:
    plain = {"late": 0, "failed": 0, "decisions": 1_000, **counts}
    none = dict.fromkeys(("median_ms", "p99_ms", "shows_the_same"))
    return ShadowSummary(variant=variant, error="ValueError", **plain, **none)


def test_a_variant_that_has_no_answers_unseen_is_not_shown(world: World) -> None:
    world.write("{shadow: 1h, ramp: [5%, 100%]}")
    world.take_over()
    assert world.step() == 1
    assert (world.step(HOUR - 1.0), world.reason) == (0, "shadowing")
    assert world.asked_since == []
    world.shadows = [shadow("thompson", late=30, failed=40), shadow("uniform", late=1)]
    assert (world.step(1.0), world.reason) == (0, "shadow_failing")
    assert world.launching.lines["art"].sentence == (
        "thompson had no answer in 7.0% of 1,000 decisions unseen (30 too late for budget_ms, "
        "40 failed, mostly by ValueError): at most 1% may lack one"
    )
    # Mended, it has to do well as long as it was to be unseen.
    world.shadows = [shadow("thompson", late=5), shadow("gone", failed=900)]
    assert world.step(HOUR) == 1
    assert world.running.traffic == 0.05
    began = datetime.fromtimestamp(1_000_000, UTC)
    assert world.asked_since == [began, began + timedelta(hours=1)]


def test_what_is_shown_in_spite_of_its_health_is_said_by_the_file(world: World) -> None:
    world.write("{shadow: 1h, ramp: [5%, 100%], advance_if: {health: any}}")
    world.take_over()
    world.shadows = [shadow("thompson", failed=1_000)]
    world.step()
    assert world.step(HOUR) == 1


def test_harm_is_that_of_the_variants_that_the_launch_brings(world: World, art: Experiment) -> None:
    log = world.log
    before = world.file
    log.revise("art", art.fingerprint, "ann", msgspec.json.encode(art.raw).decode())
    variants = {**art.raw["variants"], "bold": {"policy": "uniform", "share": "20%"}}
    variants["thompson"] = {"policy": "thompson", "share": "40%"}
    raw = {**before.raw, "variants": variants}
    world.file = from_raw(raw, "art.yaml")
    world.take_over()
    assert world.step() == 1
    world.evidence = harm()
    assert (world.step(), world.reason) == (0, "hold_time")
    assert world.beside == [art.fingerprint]
    line = world.launching.lines["art"]
    assert (line.launched, line.beside) == (("bold",), art.fingerprint)
    broken = GuardrailHarm(metric="play", variant="bold", verdict="harmed", margin=0.1)
    world.evidence = msgspec.structs.replace(SOUND, guardrails=(broken,))
    assert world.step(20.0) == 1
    assert world.step() == 0
    assert world.launching.lines["art"].beside == art.fingerprint
