"""A policy's state is a fold over the log: the same rows give the same bytes, whatever died in
between.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from topbill.domain.chance import is_learned
from topbill.domain.errors import Conflict, NotFound, PolicyError
from topbill.domain.records import Decision, Mask, Placement, RewardEvent
from topbill.domain.rewards import item_rewards
from topbill.engine import DecideRequest, Engine
from topbill.lake import Lake
from topbill.log import Erasure, Log, Matured
from topbill.spec import Experiment, Metric
from topbill.worker import archive
from topbill.worker.learner import Learner
from topbill.worker.policy_fold import PolicyFold
from topbill.worker.publisher import Publisher
from topbill.worker.verification import fold_again

from .conftest import Clock

SECOND = 1_000_000


def nothing_gone(*_: object) -> list[Matured]:
    raise AssertionError("the log holds everything; nobody has to ask the lake")


def live_through(log: Log, clock: Clock, art: Experiment, decisions: int, start: int = 0) -> None:
    """Decisions a tenth of a second apart; a third gets a play after 0.3 s, a tenth after two."""
    engine = Engine([art])
    rng = np.random.default_rng(start)
    for i in range(start, start + decisions):
        body = {
            "experiment": "art",
            "unit": f"u{i % 50}",
            "decision_id": f"d{i}",
            "context": {"hour": i % 24},
        }
        decision = engine.decide(msgspec.json.decode(json.dumps(body), type=DecideRequest))
        clock.now += SECOND // 10
        log.append([decision])
        late = [(f"d{i - 3}", 1 / 3, "soon"), (f"d{i - 20}", 0.1, "late")]
        for decision_id, share, event_id in late:
            if rng.random() < share and log.decision(decision_id):
                log.append(
                    [], [RewardEvent(decision_id=decision_id, event_id=event_id, event="play")]
                )


def run(learner: Learner, times: int = 50) -> None:
    for _ in range(times):
        if not learner.step():
            return
    raise AssertionError("the learner never came to rest")


def test_what_the_worker_learned_is_what_a_rebuild_reaches(
    log: Log, clock: Clock, art: Experiment
) -> None:
    learner = Learner(log, [art])
    for part in range(5):
        live_through(log, clock, art, 60, start=60 * part)
        learner.step()
    clock.now += 10 * SECOND
    run(learner)
    held, states = fold_again(log, art, nothing_gone)
    assert held.version > 1
    assert held.watermark == 300
    assert states == held.states


def behind(learner: Learner) -> str:
    """What a learner of one experiment tells of how far it is behind."""
    (duty,) = learner.duties()
    assert duty.name == "learn:art"
    return duty.behind


def test_an_experiment_is_behind_while_there_is_more_to_read_than_a_step_takes(
    log: Log, clock: Clock, art: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topbill.worker.learner.BATCH", 30)
    live_through(log, clock, art, 30)
    clock.now += 10 * SECOND
    learner = Learner(log, [art])
    assert behind(learner) == ""
    learner.step()
    assert "waited for" in behind(learner)
    learner.step()
    assert behind(learner) == ""


def test_of_a_share_the_same_decisions_are_learned_whoever_folds_them(
    log: Log, clock: Clock, art: Experiment
) -> None:
    art = replace(art, learn_share=0.25)
    learner = Learner(log, [art])
    for part in range(4):
        live_through(log, clock, art, 50, start=50 * part)
        learner.step()
    clock.now += 10 * SECOND
    run(learner)
    held, states = fold_again(log, art, nothing_gone)
    assert states == held.states
    # As from a log that has no others.
    ids = [f"d{i}" for i in range(200) if is_learned(f"d{i}", 0.25)]
    assert 25 <= len(ids) <= 75
    rows = log.matured("art", 0, SECOND, log.barrier(), 1_000)
    fold = PolicyFold(art)
    fold.learn([row for row in rows if row.decision.decision_id in ids])
    assert fold.states() == held.states
    everything = PolicyFold(replace(art, learn_share=1.0))
    everything.learn(rows)
    assert everything.states() != held.states
    # Nobody waits for those that are not learned: the log may let them go.
    assert learner.needed_after() == 2**62


def test_a_worker_that_falls_behind_says_by_how_much_and_which_share_would_keep_up(
    log: Log, clock: Clock, art: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("topbill.worker.learner.BATCH", 30)
    monkeypatch.setattr("topbill.worker.learner.time.monotonic", lambda: now)
    live_through(log, clock, art, 300)  # half a minute
    learner = Learner(log, [art])
    learner.step()
    message = behind(learner)
    assert message == "it learns decisions that have waited for 26 s (lag_seconds)"
    now = 12.0
    learner.step()  # three seconds of the log in twelve
    message = behind(learner)
    assert message == (
        "it learns decisions that have waited for 23 s (lag_seconds), and falls behind: it gets "
        "through 0.25 s of the log in a second; learn_share: 20% would keep up"
    )
    for _ in range(5):
        learner.step()
    message = behind(learner)
    assert "catches up: 1.5 s of the log in a second" in message
    run(learner)
    assert behind(learner) == ""


def test_a_worker_that_died_continues_where_its_last_version_says(
    log: Log, clock: Clock, art: Experiment
) -> None:
    live_through(log, clock, art, 100)
    run(Learner(log, [art]))
    first = log.snapshot("art")
    live_through(log, clock, art, 100, start=100)
    clock.now += 10 * SECOND
    run(Learner(log, [art]))  # another process: it knows nothing but the log
    held, states = fold_again(log, art, nothing_gone)
    assert first is not None
    assert held.version == first.version + 1
    assert states == held.states


def test_rewards_that_come_after_the_reward_delay_change_nothing_learned(
    log: Log, clock: Clock, art: Experiment
) -> None:
    live_through(log, clock, art, 50)
    clock.now += 5 * SECOND
    run(Learner(log, [art]))
    before = fold_again(log, art, nothing_gone)[1]
    log.append(
        [],
        [RewardEvent(decision_id=f"d{i}", event_id="very late", event="play") for i in range(50)],
    )
    assert fold_again(log, art, nothing_gone)[1] == before


def test_a_decision_is_not_learned_before_its_age(log: Log, clock: Clock, art: Experiment) -> None:
    live_through(log, clock, art, 1)
    fold = PolicyFold(art)
    clock.now += SECOND - 1
    assert fold.step(log, log.barrier()) == 0
    clock.now += 2
    assert fold.step(log, log.barrier()) == 1


def test_only_decisions_that_a_policy_made_are_learned(
    log: Log, clock: Clock, art: Experiment
) -> None:
    engine = Engine([replace(art, status="paused")])
    for i in range(5):
        log.append([engine.decide(DecideRequest(experiment="art", unit=f"u{i}"))])
    clock.now += 5 * SECOND
    learner = Learner(log, [art])
    run(learner)
    assert log.snapshot("art") is None
    assert learner.needed_after() >= 5


def test_a_second_worker_is_refused_and_falls_back_to_what_is_stored(
    log: Log, clock: Clock, art: Experiment
) -> None:
    one, two = Learner(log, [art]), Learner(log, [art])
    assert one.step() == two.step() == 0
    live_through(log, clock, art, 40)
    clock.now += 5 * SECOND
    run(one)
    with pytest.raises(Conflict):
        two.step()
    run(two)
    assert log.version("art") == 1


def test_an_experiment_that_cannot_learn_does_not_keep_the_others_from_it(
    log: Log,
    clock: Clock,
    art: Experiment,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = replace(art, key="other")
    live_through(log, clock, art, 60)
    log.append(
        [Engine([other]).decide(DecideRequest(experiment="other", unit=f"u{i}")) for i in range(30)]
    )
    clock.now += 5 * SECOND
    learn = PolicyFold.learn

    def half_a_batch(fold: PolicyFold, rows: list[Matured]) -> None:
        learn(fold, rows)
        if fold.live.experiment.key == "art":
            raise PolicyError("thompson: not positive definite")

    learner = Learner(log, [art, other])
    with monkeypatch.context() as broken:
        broken.setattr(PolicyFold, "learn", half_a_batch)
        for _ in range(5):
            learner.step()
    assert log.version("other") == 1
    assert log.snapshot("art") is None
    assert dict(learner.failures) == {"art": "thompson: not positive definite"}
    assert learner.needed_after() == 0  # what it still has to learn stays in the log
    assert caplog.text.count("not positive definite") == 1
    assert learner.step() == 0  # too early to try again
    monkeypatch.setattr("topbill.worker.retry.time.monotonic", lambda: 1e9)
    run(learner)
    held, states = fold_again(log, art, nothing_gone)
    assert (held.watermark, states) == (60, held.states)  # what it half learned before is not in it
    assert not list(learner.failures)
    assert "art learns again" in caplog.text


def test_a_stored_state_that_cannot_be_read_is_learned_again(
    log: Log, clock: Clock, art: Experiment
) -> None:
    other = replace(art, key="other")
    live_through(log, clock, art, 60)
    log.append(
        [Engine([other]).decide(DecideRequest(experiment="other", unit=f"u{i}")) for i in range(30)]
    )
    clock.now += 5 * SECOND
    run(Learner(log, [art]))
    held = log.snapshot("art")
    assert held is not None
    log.write_snapshot(
        msgspec.structs.replace(held, version=2, states=dict.fromkeys(held.states, b"no state"))
    )
    learner = Learner(log, [art, other])
    learner.step()
    assert (log.version("other"), log.version("art")) == (1, 3)
    mended = log.snapshot("art")
    assert mended is not None
    assert (mended.states, mended.watermark) == (held.states, held.watermark)
    assert not list(learner.failures)
    assert learner.unreadable() == {}


def test_a_change_of_what_learning_depends_on_folds_the_log_anew(
    log: Log, clock: Clock, art: Experiment
) -> None:
    live_through(log, clock, art, 60)
    clock.now += 5 * SECOND
    learner = Learner(log, [art])
    run(learner)
    changed = replace(art, metrics=(Metric("play", "play", "binary", 0.2),))
    with pytest.raises(NotFound, match="learned under other"):
        fold_again(log, changed, nothing_gone)
    learner.reload([changed])
    run(learner)
    held, states = fold_again(log, changed, nothing_gone)
    assert (held.version, held.fingerprint) == (2, changed.learning_fingerprint)
    assert states == held.states


def test_a_daily_refit_learns_what_came_late_and_can_be_rebuilt(
    log: Log, clock: Clock, art: Experiment
) -> None:
    patient = replace(
        art, refit="daily", metrics=(Metric("play", "play", "binary", 60.0),), reward_delay=1.0
    )
    live_through(log, clock, patient, 100)
    clock.now += 2 * SECOND
    learner = Learner(log, [patient])
    run(learner)
    early = log.snapshot("art")
    clock.now += 100 * SECOND
    run(learner)
    run(learner)
    late = log.snapshot("art")
    assert early is not None
    assert late is not None
    assert (early.refit_at, late.watermark) == (0, early.watermark)
    assert late.refit_at > 0
    assert late.states["thompson"] != early.states["thompson"]
    live_through(log, clock, patient, 30, start=100)
    clock.now += 2 * SECOND
    run(Learner(log, [patient]))
    held, states = fold_again(log, patient, nothing_gone)
    assert held.version == late.version + 1
    assert states == held.states


def test_a_rebuild_reads_from_the_lake_what_the_log_has_let_go(
    log: Log, clock: Clock, art: Experiment, tmp_path: Path
) -> None:
    lake = Lake(tmp_path)
    live_through(log, clock, art, 150)
    clock.now += 10 * SECOND
    learner = Learner(log, [art])
    run(learner)
    Publisher(log, lake, lambda: [art], learned=learner.needed_after, keep_log=5.0).step()
    assert (log.first_seq() or 10_000) > 50
    clock.now += SECOND
    live_through(log, clock, art, 50, start=150)
    clock.now += 10 * SECOND
    run(learner)
    held, states = fold_again(log, art, archive.reader(tmp_path))
    assert held.watermark == 200
    assert states == held.states


def test_a_refit_begins_anew_where_rows_that_it_has_read_are_removed(
    log: Log, clock: Clock, art: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another process, which publishes: nobody could fold them again."""
    daily = replace(art, refit="daily")
    live_through(log, clock, daily, 100)
    clock.now += 100 * SECOND
    learner = Learner(log, [daily])
    run(learner)
    clock.now += 86_400 * SECOND
    learner.step()
    refit = learner._refits["art"]
    removed = Erasure(at=1, experiment="art", version=1, decisions=1, rewards=0, by_age=True)
    monkeypatch.setattr(log, "erasures", lambda _key: [removed])
    learner.step()
    assert learner._refits.get("art") is not refit
    run(learner)
    held = log.snapshot("art")
    assert held is not None
    assert held.refit_at > 0, "it came to its end"


def test_what_learns_anew_begins_with_what_the_log_holds_and_is_verified_from_there(
    log: Log, clock: Clock, art: Experiment, tmp_path: Path
) -> None:
    live_through(log, clock, art, 100)
    clock.now += 10 * SECOND
    run(learner := Learner(log, [art]))
    Publisher(log, Lake(tmp_path), lambda: [art], learned=learner.needed_after, keep_log=5.0).step()
    assert log.first_seq() is None
    other = replace(art, context=art.context[1:])
    learner = Learner(log, [other], archive.reader(tmp_path))
    assert learner.step() == 0
    live_through(log, clock, other, 50, start=100)
    clock.now += 10 * SECOND
    run(learner)
    held, states = fold_again(log, other, archive.reader(tmp_path))
    assert (held.start, held.watermark) == (100, 150)
    assert states == held.states


def test_what_another_process_lets_go_while_it_learns_anew_is_learned_from_the_lake(
    log: Log, clock: Clock, art: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may not know yet that the file has changed."""
    live_through(log, clock, art, 100)
    clock.now += 10 * SECOND
    run(before := Learner(log, [art]))
    publisher = Publisher(
        log, Lake(tmp_path), lambda: [art], learned=before.needed_after, keep_log=5.0
    )
    monkeypatch.setattr("topbill.worker.learner.BATCH", 30)
    other = replace(art, context=art.context[1:])
    learner = Learner(log, [other], archive.reader(tmp_path))
    assert learner.step() == 30
    publisher.step()
    assert log.first_seq() is None
    run(learner)
    held, states = fold_again(log, other, archive.reader(tmp_path))
    assert (held.start, held.watermark) == (0, 100)
    assert states == held.states


def test_what_a_worker_lets_go_while_the_log_is_folded_again_is_read_from_the_lake(
    log: Log, clock: Clock, art: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live_through(log, clock, art, 150)
    clock.now += 10 * SECOND
    learner = Learner(log, [art])
    run(learner)
    publisher = Publisher(
        log, Lake(tmp_path), lambda: [art], learned=learner.needed_after, keep_log=5.0
    )
    first_seq, answers = log.first_seq, []

    def first_seq_before_the_worker_publishes() -> int | None:
        answers.append(first_seq())
        if len(answers) == 1:
            publisher.step()
        return answers[-1]

    monkeypatch.setattr(log, "first_seq", first_seq_before_the_worker_publishes)
    snapshot, states = fold_again(log, art, archive.reader(tmp_path))
    assert answers[0] == 1
    assert (answers[1] or 10_000) > 50
    assert states == snapshot.states


# ---------------------------------------------------------------------- items of a slate


def shown(**changes: Any) -> Decision:
    slate = tuple(Placement(k, action, 0.5) for k, action in enumerate("cab"))
    return Decision(
        decision_id="d",
        experiment="art",
        revision="r",
        variant="thompson",
        unit="u",
        eligible=("a", "b", "c", "d"),
        slate=slate,
        policy="thompson",
        reason="policy",
        decided_at=0,
    )


def play(position: int | None) -> RewardEvent:
    return RewardEvent(
        decision_id="d",
        event_id=str(position),
        event="play",
        position=position,
        received_at=SECOND // 2,
    )


def test_each_item_earns_its_own_reward(art: Experiment) -> None:
    assert item_rewards(art, shown(), [play(1)]) == [0.0, 1.0, 0.0]
    assert item_rewards(art, shown(), [play(None)]) == [1.0, 1.0, 1.0]


def test_with_slate_feedback_every_item_earns_the_slates_reward(art: Experiment) -> None:
    assert item_rewards(replace(art, feedback="slate"), shown(), [play(1)]) == [1.0, 1.0, 1.0]


def test_in_a_cascade_what_is_below_the_last_click_was_not_looked_at(art: Experiment) -> None:
    cascade = replace(art, click_model="cascade")
    assert item_rewards(cascade, shown(), [play(1)]) == [0.0, 1.0, None]
    assert item_rewards(cascade, shown(), []) == [0.0, 0.0, 0.0]


def test_an_archived_decision_comes_back_as_it_was_logged(
    log: Log, clock: Clock, art: Experiment, tmp_path: Path
) -> None:
    rules = (Mask("pins", 0, 1, (1,), True), Mask("blocks", 0, 3, (3,)))
    decision = msgspec.structs.replace(
        shown(), page="p", layer="artwork", place="row-1", masks=rules
    )
    log.append([decision], [msgspec.structs.replace(play(1), event_id="e")])
    clock.now += 10 * SECOND
    Publisher(log, Lake(tmp_path), lambda: [art]).step()
    ((_, held, events, *_),) = log.matured("art", 0, SECOND, log.barrier(), 10)
    span = archive.Span("art", 0, 10, SECOND, clock.now)
    ((_, read, came, *_),) = archive.reader(tmp_path)(span, log.clock_steps())
    assert read == held
    assert [(e.event, e.position, e.received_at) for e in came] == [
        (e.event, e.position, e.received_at) for e in events
    ]
