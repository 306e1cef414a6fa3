"""What the log leads to is compared with what is stored: byte for byte, and Vowpal Wabbit by what
it predicts and weighs, which no restart and no other build of it changes.
"""

from __future__ import annotations

import json
from importlib import util
from pathlib import Path

import msgspec
import pytest

from topbill import spec
from topbill.domain.records import RewardEvent
from topbill.engine import DecideRequest, Engine
from topbill.log import Log, Matured
from topbill.policies.vw import engine as vw_engine
from topbill.policies.vw.engine import MODULES
from topbill.spec import Experiment
from topbill.worker.learner import Learner
from topbill.worker.verification import Verification, verify

from .conftest import Clock

SECOND = 1_000_000
FILE = """
experiment: art
surface: artwork
context: {hour: {type: cycle, period: 24}}
actions: [{id: face}, {id: chase}, {id: skyline}]
metrics: {play: {event: play, kind: binary, window: 60s}}
objective: {play: 1.0}
reward_delay: 1s
variants:
  control: {policy: uniform, share: 40%, control: true}
  ours: {policy: linucb, share: 30%, min_probability: 5%}
  vw: {policy: vw, share: 30%, exploration: EXPLORATION}
"""


def experiment(tmp_path: Path, exploration: str = "squarecb") -> Experiment:
    path = tmp_path / "art.yaml"
    path.write_text(FILE.replace("EXPLORATION", exploration))
    return spec.load(path)


def live_through(log: Log, clock: Clock, art: Experiment, start: int, decisions: int = 120) -> None:
    """Decisions of ever new viewers; every third is followed by a play."""
    deciding = Engine([art])
    for i in range(start, start + decisions):
        body = {"experiment": "art", "unit": f"u{i}", "decision_id": f"d{i}"}
        request = json.dumps({**body, "context": {"hour": i % 24}})
        log.append([deciding.decide(msgspec.json.decode(request, type=DecideRequest))])
        clock.now += SECOND // 10
        if i % 3 == 0:
            log.append([], [RewardEvent(decision_id=f"d{i}", event_id="e", event="play")])
    clock.now += 10 * SECOND


def run(log: Log, art: Experiment) -> None:
    """A worker that lives until there is nothing left to learn, and publishes every batch."""
    learner = Learner(log, [art])
    while learner.step():
        pass


def nothing_gone(*_: object) -> list[Matured]:
    raise AssertionError("the log holds everything")


def learned_in_two_lives(log: Log, clock: Clock, art: Experiment) -> Verification:
    for start in (0, 120):
        live_through(log, clock, art, start)
        run(log, art)
    return verify(log, art, nothing_gone)


def test_a_restart_changes_nothing(log: Log, clock: Clock, tmp_path: Path) -> None:
    verification = learned_in_two_lives(log, clock, experiment(tmp_path))
    assert verification.snapshot.version == 2
    assert verification.same
    assert [comparison.same for comparison in verification.comparisons.values()] == [True] * 3
    # The very case of which a comparison of bytes cries wolf.
    assert "counters" in verification.comparisons["vw"].note


def test_what_draws_while_it_learns_can_not_be_told_after_a_restart(
    log: Log, clock: Clock, tmp_path: Path
) -> None:
    verification = learned_in_two_lives(log, clock, experiment(tmp_path, "bag"))
    assert verification.same
    assert verification.comparisons["vw"].same is None
    assert "random numbers for bag" in verification.comparisons["vw"].note
    assert verification.comparisons["ours"].same


def test_a_state_that_the_log_does_not_lead_to_differs(
    log: Log, clock: Clock, tmp_path: Path
) -> None:
    art = experiment(tmp_path)
    live_through(log, clock, art, 0)
    run(log, art)
    before = log.snapshot("art")
    live_through(log, clock, art, 120)
    run(log, art)
    after = log.snapshot("art")
    assert before is not None
    assert after is not None
    stale = msgspec.structs.replace(after, version=3, states=before.states)
    log.write_snapshot(stale)
    verification = verify(log, art, nothing_gone)
    assert not verification.same
    assert verification.comparisons["control"].same
    assert not verification.comparisons["ours"].same
    assert "weights differ" in verification.comparisons["vw"].note


def test_snapshots_say_which_build_learned_them(log: Log, clock: Clock, tmp_path: Path) -> None:
    art = experiment(tmp_path)
    live_through(log, clock, art, 0)
    run(log, art)
    snapshot = log.snapshot("art")
    assert snapshot is not None
    assert snapshot.engines == {"vw": vw_engine.engine().name}
    assert snapshot.fingerprint == art.learning_fingerprint
    clock.now += SECOND
    log.forget_snapshots(clock.now)
    assert log.snapshot("art") == snapshot


@pytest.mark.skipif(
    not all(util.find_spec(module) for module, _ in MODULES.values()),
    reason="one of the builds has no wheel for this Python and processor",
)
def test_another_build_goes_on_from_the_state(
    log: Log,
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    art = experiment(tmp_path)
    live_through(log, clock, art, 0)
    run(log, art)
    mainline = vw_engine.engine("vowpalwabbit")
    monkeypatch.setattr("topbill.policies.vw.policy.engine", lambda: mainline)
    live_through(log, clock, art, 120)
    with caplog.at_level("INFO", "topbill"):
        run(log, art)
    assert "vw goes on with vowpalwabbit 9" in caplog.text
    verification = verify(log, art, nothing_gone)
    assert verification.snapshot.engines == verification.engines == {"vw": mainline.name}
    assert verification.same


@pytest.mark.skipif(
    not all(util.find_spec(module) for module, _ in MODULES.values()),
    reason="one of the builds has no wheel for this Python and processor",
)
@pytest.mark.parametrize("engine_is_stored", [True, False])
def test_what_another_build_learned_can_not_be_told_to_differ(
    log: Log,
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine_is_stored: bool,
) -> None:
    path = tmp_path / "art.yaml"
    # All values of a category but one are 0: there the builds learn otherwise.
    hours = [str(hour) for hour in range(24)]
    category = f"{{hour: {{type: category, values: {json.dumps(hours)}}}}}"
    text = FILE.replace("{hour: {type: cycle, period: 24}}", category)
    path.write_text(text.replace("EXPLORATION", "squarecb"))
    art = spec.load(path)
    deciding = Engine([art])
    for i in range(240):
        body = {"experiment": "art", "unit": f"u{i}", "decision_id": f"d{i}"}
        request = json.dumps({**body, "context": {"hour": str(i % 24)}})
        log.append([deciding.decide(msgspec.json.decode(request, type=DecideRequest))])
        clock.now += SECOND // 10
        if i % 3 == 0:
            log.append([], [RewardEvent(decision_id=f"d{i}", event_id="e", event="play")])
    clock.now += 10 * SECOND
    run(log, art)
    assert verify(log, art, nothing_gone).same
    snapshot = log.snapshot("art")
    assert snapshot is not None
    if not engine_is_stored:
        # As 0.1.0 left it.
        stored = msgspec.structs.replace(snapshot, version=2, engines={})
        log.write_snapshot(stored)
    mainline = vw_engine.engine("vowpalwabbit")
    monkeypatch.setattr("topbill.policies.vw.policy.engine", lambda: mainline)
    verification = verify(log, art, nothing_gone)
    comparison = verification.comparisons["vw"]
    assert comparison.same is None
    assert "vowpal-wabbit-next" in comparison.note
    assert mainline.name in comparison.note
    assert verification.comparisons["ours"].same
    assert verification.same
