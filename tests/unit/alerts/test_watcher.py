"""From the record to the message: a fault is found, told once and resolved, whatever dies in
between.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from topbill.alerts.standing_still import LearningTrouble
from topbill.alerts.sums import HOUR
from topbill.alerts.watcher import Watcher
from topbill.domain.alarm import AlarmLine, standing
from topbill.domain.errors import LogError, Unavailable
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.lake import DATABASE, sql
from topbill.log import Log
from topbill.spec import Experiment
from topbill.spec.alerts import AlertChannel
from topbill.testing import a_decision, an_experiment, memory_log, publish

START = 1_700_000_000_000_000 // HOUR * HOUR
CHANNEL = "alerts:\n  channels:\n    ops: {type: webhook, url: 'http://127.0.0.1:1/'}\n"


class Mailbox:
    """A channel's other end: what it took, and how often it fails first."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str, str]] = []
        self.failing: set[str] = set()

    def __call__(self, channel: AlertChannel, line: AlarmLine) -> None:
        if channel.name in self.failing:
            raise Unavailable(f"{channel.name}: answered 503; it is tried again")
        self.taken.append((channel.name, line.alarm, line.state))


class Site:
    """A data folder whose hours are published one by one, and who watches it."""

    def __init__(self, tmp_path: Path) -> None:
        self.data, self.folder = tmp_path / "data", tmp_path / "experiments"
        self.folder.mkdir()
        self.now = START
        self.log: Log = memory_log(f"site-{tmp_path.name}-{time.monotonic_ns()}", lambda: self.now)
        self.experiments: list[Experiment] = [
            an_experiment(context={"device": {"type": "category", "values": ["tv", "web"]}})
        ]
        self.troubles: dict[str, LearningTrouble] = {}
        self.mailbox = Mailbox()
        self.random = random.Random(3)
        self.event: Callable[[Decision], str] = lambda _: "play"
        self.revise()
        self.watcher = self.open()
        self.publish([])
        self.look()

    def revise(self) -> None:
        for experiment in self.experiments:
            spec = json.dumps(experiment.raw)
            self.log.revise(experiment.key, experiment.fingerprint, "ann", spec)

    def open(self) -> Watcher:
        return Watcher(
            self.folder,
            self.data,
            self.log,
            lambda: self.experiments,
            troubles=lambda: self.troubles,
            now=lambda: self.now,
            send=self.mailbox,
        )

    def alerts(self, text: str = CHANNEL) -> None:
        (self.folder / "alerts.yaml").write_text(text)

    def hour(
        self, change: Callable[[Decision], Decision | None] = lambda d: d, n: int = 700
    ) -> None:
        """An hour of decisions by chance, each changed, published whole and looked at."""
        decisions = []
        for i in range(n):
            at = self.now + (i + 1) * (HOUR // (n + 2))
            shown = self.random.choice("xy")
            variant = self.random.choice("ab")
            decision = a_decision(
                f"d{at}",
                variant=variant,
                unit=f"u{at}",
                decided_at=at,
                eligible=("x", "y"),
                slate=(Placement(0, shown, 0.5),),
                probabilities=((0.5, 0.5),),
                context=b'{"device": "tv"}',
                revision=self.experiments[0].fingerprint,
            )
            changed = change(decision)
            if changed is not None:
                decisions.append(changed)
        rewards = [
            RewardEvent(
                decision_id=d.decision_id,
                event_id="e",
                event=self.event(d),
                received_at=d.decided_at + 5,
            )
            for d in decisions
            if self.random.random() < 0.3
        ]
        self.now += HOUR
        self.publish(decisions, rewards)
        self.look()

    def publish(self, decisions: Sequence[Decision], rewards: Sequence[RewardEvent] = ()) -> None:
        publish(self.data, self.experiments, decisions, rewards, at=self.now)
        self.log.beat(self.now)

    def look(self) -> None:
        """Two steps and what they send: the second one notes it and goes on."""
        for _ in range(3):
            self.watcher.step()
            for delivery in list(self.watcher._outbox._deliveries.values()):
                delivery.result.exception()
        self.watcher.step()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.watcher.close()


def lost(decision: Decision) -> Decision | None:
    """Two thirds of variant b's units are lost."""
    if decision.variant == "b" and decision.decided_at % 3:
        return None
    return decision


def kinds(site: Site) -> list[tuple[str, str]]:
    return [(line.kind, line.state) for line in site.log.alarms()]


def test_a_fault_is_found_told_once_and_resolved(site: Site) -> None:
    site.alerts()
    for _ in range(3):
        site.hour()
    assert kinds(site) == []
    site.hour(lost)
    site.hour(lost)
    assert kinds(site) == [("sample_ratio", "raised")]
    (line,) = site.log.alarms()
    assert (line.experiment, line.cause) == ("home", "units_lost")
    assert line.message.startswith("b got ")
    assert site.mailbox.taken == [("ops", line.alarm, "raised")]
    for _ in range(3):
        site.hour()
    assert kinds(site) == [("sample_ratio", "raised"), ("sample_ratio", "resolved")]
    assert site.mailbox.taken[1:] == [("ops", line.alarm, "resolved")]
    assert site.watcher.problems == ()


def test_killed_at_any_moment_nothing_is_told_twice_and_nothing_is_lost(site: Site) -> None:
    """The watcher is made anew after each step: what it knew is what the log knows."""
    site.alerts()
    for change in (lambda d: d, lambda d: d, lost, lost, lost):
        site.watcher = site.open()
        site.hour(change)
    assert len(site.mailbox.taken) == 1


def test_killed_between_sending_and_noting_it_is_sent_again_under_the_same_id(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.alerts()
    site.hour()
    with monkeypatch.context() as patched:
        patched.setattr(type(site.log), "note_message", _fails)
        with pytest.raises(LogError):
            site.hour(lost)
    site.watcher = site.open()
    site.look()
    assert len(site.mailbox.taken) == 2
    assert len(set(site.mailbox.taken)) == 1


def _fails(*_: object) -> None:
    raise LogError("the disk is full")


def test_a_channel_that_fails_is_told_and_holds_up_no_other(site: Site) -> None:
    site.alerts(CHANNEL + "    team: {type: webhook, url: 'http://127.0.0.1:1/'}\n")
    site.mailbox.failing = {"ops"}
    site.hour()
    site.hour(lost)
    assert [name for name, *_ in site.mailbox.taken] == ["team"]
    (problem,) = site.watcher.problems
    assert (problem.kind, problem.subject) == ("alerts", "ops")
    assert problem.message == "ops: answered 503; it is tried again"
    site.mailbox.failing = set()
    site.watcher._outbox._failures["ops"].retry_at = 0.0
    site.look()
    assert [name for name, *_ in site.mailbox.taken] == ["team", "ops"]
    assert site.watcher.problems == ()


def test_pauses_grow(site: Site) -> None:
    site.alerts()
    site.mailbox.failing = {"ops"}
    site.hour()
    site.hour(lost)
    pauses = []
    for _ in range(10):
        failure = site.watcher._outbox._failures["ops"]
        pauses.append(failure.pause)
        failure.retry_at = 0.0
        site.look()
    assert pauses[:4] == [2.0, 4.0, 8.0, 16.0]
    assert pauses[-1] == 300.0


def test_who_asked_for_a_kind_gets_it_and_what_is_muted_nobody(site: Site) -> None:
    site.alerts(
        CHANNEL
        + "    drifts: {type: webhook, url: 'http://127.0.0.1:1/', kinds: [feature_drift]}\n"
    )
    site.hour()
    site.hour(lost)
    assert [name for name, *_ in site.mailbox.taken] == ["ops"]
    raised = len(site.log.alarms())
    site.experiments = [an_experiment(alerts={"mute": ["sample_ratio"]})]
    site.hour()
    site.hour()
    site.hour()
    # Nobody is told of the end, and the record has it all the same.
    assert len(site.log.alarms()) == raised + 1
    assert len(site.mailbox.taken) == 1


def test_a_wrong_file_changes_nothing_and_is_told(site: Site) -> None:
    site.alerts()
    site.look()
    site.alerts(CHANNEL.replace("webhook", "webhok") + "# longer\n")
    site.look()
    (problem,) = site.watcher.problems
    assert (problem.kind, problem.subject) == ("file", "alerts.yaml:3")
    assert "did you mean webhook?" in problem.message
    site.hour()
    site.hour(lost)
    assert len(site.mailbox.taken) == 1


def test_what_a_stopped_experiment_had_is_over(site: Site) -> None:
    site.alerts()
    site.hour()
    site.hour(lost)
    assert len(standing(site.log.alarms())) == 1
    site.experiments = [an_experiment(status="stopped")]
    site.look()
    assert standing(site.log.alarms()) == []
    assert site.log.alarms()[-1].message == "The experiment is not running any more."


def test_what_an_experiment_had_whose_file_is_gone_is_over(site: Site) -> None:
    site.hour()
    site.hour(lost)
    site.experiments = []
    site.look()
    assert standing(site.log.alarms()) == []


def test_a_record_that_is_not_published_is_told_and_then_resolved(site: Site) -> None:
    site.alerts()
    site.hour()
    site.now += 700_000_000
    site.log.beat(site.now - 700_000_000)
    site.look()
    (line,) = standing(site.log.alarms())
    assert (line.kind, line.experiment, line.cause) == ("record_stale", "", "publishing_fails")
    assert line.message.startswith("The record is 12 min old")
    site.log.beat(site.now)
    site.look()
    assert standing(site.log.alarms()) == []
    assert [state for *_, state in site.mailbox.taken] == ["raised", "resolved"]


def test_a_worker_that_hangs_is_the_likely_cause(site: Site) -> None:
    site.hour()
    site.now += 700_000_000
    site.look()
    (line,) = standing(site.log.alarms())
    assert (line.kind, line.cause) == ("record_stale", "worker_hangs")


def test_learning_that_fails_for_long_is_told(site: Site) -> None:
    site.alerts()
    site.hour()
    site.troubles = {"home": LearningTrouble("learning_fails", "ValueError: no number")}
    site.look()
    assert kinds(site) == []
    site.now += 601_000_000
    site.log.beat(site.now)
    site.look()
    (line,) = site.log.alarms()
    assert (line.kind, line.experiment, line.cause) == ("learning_stuck", "home", "learning_fails")
    assert "ValueError: no number" in line.message
    site.troubles = {}
    site.look()
    assert standing(site.log.alarms()) == []


def test_a_draw_that_is_not_as_logged_is_found_in_the_record(site: Site) -> None:
    def skewed(decision: Decision) -> Decision:
        if decision.variant != "b":
            return decision
        probabilities = ((0.25, 0.75),)
        return a_decision(**{**_fields(decision), "probabilities": probabilities})

    site.hour()
    site.hour(skewed)
    site.hour(skewed)
    faults = {(line.kind, line.subject, line.cause) for line in site.log.alarms()}
    assert faults == {("propensity_mismatch", "b", "draw_differs")}


def test_a_harmed_guardrail_is_told_with_its_numbers(site: Site) -> None:
    site.experiments = [
        an_experiment(
            metrics={
                "play": {"event": "play", "kind": "binary", "window": "60s"},
                "left": {"event": "left", "kind": "binary", "window": "60s", "better": "lower"},
            },
            guardrails=[{"metric": "left", "margin": "10%"}],
        )
    ]
    site.revise()
    site.event = lambda d: "left" if d.variant == "b" and d.decided_at % 3 else "play"
    site.hour(n=1_500)
    site.hour(n=1_500)
    faults = {(line.kind, line.subject, line.cause) for line in site.log.alarms()}
    assert ("guardrail_harmed", "b left") in {fault[:2] for fault in faults}
    (line,) = [line for line in site.log.alarms() if line.kind == "guardrail_harmed"]
    assert line.message.startswith("Left is worse")
    assert "10% allowed" in line.message


def test_what_had_no_probability_and_is_shown_is_found_at_once(site: Site) -> None:
    def elsewhere(decision: Decision) -> Decision:
        return a_decision(**{**_fields(decision), "slate": (Placement(0, "z", 0.5),)})

    site.hour()
    site.hour(lambda d: elsewhere(d) if d.decided_at % 50 == 0 and d.variant == "a" else d)
    faults = {(line.kind, line.subject, line.cause) for line in site.log.alarms()}
    assert faults == {("propensity_mismatch", "a", "shown_not_drawn")}


def _fields(decision: Decision) -> dict[str, object]:
    return {name: getattr(decision, name) for name in decision.__struct_fields__}


def test_looks_read_what_is_new(site: Site) -> None:
    """By `seq`, however long the record is."""
    for _ in range(3):
        site.hour()
    _, memory = site.watcher._memories["home"]
    last = sql(site.data / DATABASE, "SELECT max(seq) AS last FROM decisions").to_pylist()
    assert memory.seqs["decisions"] == last[0]["last"]
    assert [hour.decisions for hour in memory.hours] == [700] * 3
    assert sum(sum(h.fresh.values()) for h in memory.hours) > 300
    new = [sum(sum(v.units.values()) for v in hour.variants.values()) for hour in memory.hours]
    assert new == [700] * 3


def test_units_that_come_again_are_not_new(site: Site) -> None:
    site.hour()
    site.hour(lambda d: a_decision(**{**_fields(d), "unit": "u1"}))
    _, memory = site.watcher._memories["home"]
    new = [sum(sum(v.units.values()) for v in hour.variants.values()) for hour in memory.hours]
    assert new == [700, 1]
    site.hour(lambda d: a_decision(**{**_fields(d), "unit": "u1"}))
    assert sum(sum(v.units.values()) for v in memory.hours[-1].variants.values()) == 0


def test_a_record_that_cannot_be_read_is_told_and_tried_again(site: Site) -> None:
    site.hour()
    whole = (site.data / DATABASE).read_bytes()
    (site.data / DATABASE).write_bytes(b"no database")
    site.now += HOUR
    site.log.beat(site.now)
    site.look()
    (problem,) = site.watcher.problems
    assert (problem.kind, problem.subject) == ("alerts", "home")
    (site.data / DATABASE).write_bytes(whole)
    site.look()
    assert site.watcher.problems == ()
