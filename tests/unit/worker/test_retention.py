"""What is older than is kept is gone from every file, reports add up on what is left and say since
when, and policies can still be verified.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from copy import copy
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from topbill import spec
from topbill.cli import erasure as erasure_cli
from topbill.domain.errors import BadRequest, LogError
from topbill.domain.records import QuarantinedRow, RewardEvent, UnitEvent
from topbill.engine import DecideRequest, Engine
from topbill.lake import DATABASE, Lake, sql
from topbill.log import LOG_FILE, Entry, Log, now_micros, open_log
from topbill.log.sqlite import SqliteLog
from topbill.reporting import load_experiment_report
from topbill.reporting.queries.database import retained
from topbill.spec import Experiment
from topbill.worker import archive, erasure, retention
from topbill.worker.erasure import retain
from topbill.worker.learner import Learner
from topbill.worker.loop import Worker
from topbill.worker.publisher import Publisher
from topbill.worker.retention import check_keep, find_aged, kept_since, refuse_to_empty
from topbill.worker.verification import verify

from ...traces import traces

DAY = 86_400
MICROS = 1_000_000
KEEP = 20.0 * DAY
OLD = "zq4711qz"
"""In the ids of all units of the days that are removed."""
FILE = """
experiment: art
surface: artwork
unit: profile_id
refit: daily
actions: [{id: face}, {id: chase}]
metrics: {play: {event: play, kind: binary, window: 60s}}
objective: {play: 1.0}
reward_delay: 1s
variants:
  control: {policy: uniform, share: 50%, control: true}
  ours: {policy: linucb, share: 50%, min_probability: 5%}
"""


class World:
    """A data folder with ten decisions every fourth day, 30 days ago to 2 days ago, a reward and an
    event of each second one. The log is in the folder, or at a URL.
    """

    def __init__(self, folder: Path, url: str = "") -> None:
        self.experiments = folder / "experiments"
        self.experiments.mkdir()
        (self.experiments / "art.yaml").write_text(FILE)
        self.art: Experiment = spec.load(self.experiments / "art.yaml")
        self.data = folder / "data"
        self.end = now_micros() - 3_600 * MICROS
        self.now = self.end - 30 * DAY * MICROS
        self.log: Log = open_log(url or self.data / LOG_FILE, clock=lambda: self.now)
        raw = msgspec.json.encode(self.art.raw).decode()
        self.log.revise("art", self.art.fingerprint, "us", raw)
        learner = Learner(self.log, [self.art], archive.reader(self.data))
        publisher = Publisher(self.log, Lake(self.data), lambda: [self.art], keep_log=60.0)
        for block in range(8):
            self.live_through(block)
            self.now += 300 * MICROS
            while learner.step():
                pass
            publisher.step()
            self.now = self.end - (26 - 4 * block) * DAY * MICROS
        self.log.close()

    def live_through(self, block: int) -> None:
        deciding = Engine([self.art])
        for i in range(block * 10, block * 10 + 10):
            # One is there at first and at last.
            unit = "stays" if i % 10 == 0 else f"u{i} {OLD if block < 3 else 'new'}"
            request = DecideRequest(experiment="art", unit=unit, decision_id=f"d{i}")
            event = UnitEvent(
                unit=unit, unit_type="profile_id", event_id=f"e{i}", event="session_start"
            )
            self.log.append([deciding.decide(request)], [], [event] if i % 2 else [])
            if i % 2:
                self.log.append([], [RewardEvent(decision_id=f"d{i}", event_id="e", event="play")])
            self.now += 2 * MICROS
        if block == 0:
            row = QuarantinedRow("event", "read", "", "e", f"u1 {OLD}", 9, "odd", b"")
            self.log.set_aside([row])

    def retain(self) -> retention.Retention:
        return retain(self.data, KEEP, lambda: [self.art])[0]

    def count(self, what: str) -> int:
        query = f"SELECT count(*) AS n FROM {what}"  # noqa: S608 (a test's own)
        return int(sql(self.data / DATABASE, query).to_pylist()[0]["n"])

    def rows(self) -> tuple[int, int, int]:
        return self.count("decisions"), self.count("rewards"), self.count("events")


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(tmp_path: Path, lived: World) -> World:
    """A copy of its own for each test."""
    world = copy(lived)
    world.data = tmp_path / "data"
    shutil.copytree(lived.data, world.data)
    return world


def test_what_is_older_is_gone_and_the_rest_adds_up(world: World) -> None:
    with closing(open_log(world.data / LOG_FILE)) as log:
        Publisher(log, Lake(world.data), lambda: [world.art]).publish()
        assert verify(log, world.art, archive.reader(world.data)).same
    assert world.rows() == (80, 40, 40)
    assert set(traces(world.data, OLD)) != set()
    found = find_aged(world.data, KEEP)
    removed = world.retain()
    assert removed._replace(at=found.at) == found
    assert (removed.decisions, removed.rewards, removed.events) == (30, 15, 15)
    assert removed.quarantined == 1
    assert world.rows() == (50, 25, 25)
    assert [place for place in traces(world.data, OLD) if "log." not in place] == []
    assert Lake(world.data).damage() == []

    with closing(open_log(world.data / LOG_FILE)) as log:
        verification = verify(log, world.art, archive.reader(world.data))
        assert verification.same
        assert verification.erasure is None or verification.erasure.by_age
    report = load_experiment_report("art", world.data)
    (note,) = [note for note in report.notes if note.code == "removed_by_age"]
    assert report.decisions == 50
    assert "counts from its first decision that is left" in note.sentence
    assert retained(world.data) is not None
    # Nothing is left to do that day.
    assert world.retain()[2:] == (0, 0, 0, 0)


STEPS = (
    "note_aged",
    "delete_aged",
    pytest.param("end_retention", marks=pytest.mark.slow),
    "take_history_away",
    pytest.param("wipe_log", marks=pytest.mark.slow),
)


@pytest.mark.parametrize("step", STEPS)
def test_killed_after_any_step_it_ends_whole_when_run_again(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    place = retention if hasattr(retention, step) else erasure
    whole: Callable[..., Any] = getattr(place, step)

    def killed(*arguments: Any) -> None:
        whole(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(place, step, killed)
        with pytest.raises(KeyboardInterrupt):
            world.retain()
    world.retain()
    decisions, rewards, events = world.rows()
    assert (decisions, rewards, events) == (50, 25, 25)
    assert sql(
        world.data / DATABASE,
        "SELECT count(*) AS n FROM rewards ANTI JOIN decisions USING (decision_id)",
    ).to_pylist() == [{"n": 0}]
    assert [place for place in traces(world.data, OLD) if "log." not in place] == []
    with closing(open_log(world.data / LOG_FILE)) as log:
        assert verify(log, world.art, archive.reader(world.data)).same


def test_a_worker_does_it_once_a_day_and_goes_on(world: World) -> None:
    worker = Worker(world.experiments, world.data, keep=KEEP)
    worker.step()
    worker._publishing._publication_due = 0.0
    worker.step()
    worker.finish()
    with closing(open_log(world.data / LOG_FILE)) as log:
        last = log.retention()
        assert last is not None
        assert last.decisions == 30
        assert verify(log, world.art, archive.reader(world.data)).same
    assert world.count("decisions") == 50
    # The log lets go of checkpoints but the last.
    worker = Worker(world.experiments, world.data, keep=KEEP - 4 * DAY)
    worker.step()
    worker.finish()
    with closing(open_log(world.data / LOG_FILE)) as log:
        now = log.retention()
        assert now is not None
        assert (now.decisions, now.kept_since - last.kept_since) == (10, 4 * DAY * MICROS)
        # What is gone is not said to be there by who keeps longer later.
        assert kept_since(log, KEEP * 10, world.end) == now.kept_since
        assert verify(log, world.art, archive.reader(world.data)).same


def test_a_worker_says_why_old_rows_stay_and_goes_on(world: World) -> None:
    worker = Worker(world.experiments, world.data, keep=KEEP / 20)
    with pytest.raises(BadRequest, match="--keep: got 1 day"):
        worker.check()
    worker.step()
    worker.finish()
    query = "SELECT message FROM problems WHERE kind = 'retention'"
    (problem,) = sql(world.data / DATABASE, query).to_pylist()
    assert "expected 8 days at least" in problem["message"]
    assert world.rows() == (80, 40, 40)


def test_nothing_goes_that_is_waited_for_or_by_a_clock_that_was_set(world: World) -> None:
    with pytest.raises(BadRequest, match="expected 8 days at least"):
        check_keep(DAY, [world.art])
    slow = msgspec.json.decode(msgspec.json.encode(world.art.raw))
    slow["metrics"]["play"]["window"] = "30d"
    with pytest.raises(BadRequest, match="art waits 30 days for rewards"):
        retain(world.data, KEEP, lambda: [spec.from_raw(slow, "art.yaml")])
    now = world.end
    with closing(SqliteLog(world.data / LOG_FILE, lambda: now, lambda: 1)) as log:
        log.barrier()
        now += 4_000 * DAY * MICROS
        log.commit([Entry()])
        log.barrier()
        with pytest.raises(LogError, match="nothing is removed because of its age"):
            kept_since(log, KEEP, now)
    # What a clock says that is ahead from the start, nobody can tell.
    with pytest.raises(LogError, match="every decision is older than is kept"):
        refuse_to_empty(world.data, now)


def test_the_command_says_what_would_go_and_what_went(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = timedelta(days=20)
    erasure_cli.retain(keep=keep, dry_run=True, data=world.data)
    said = capsys.readouterr().out
    assert "has from before" in said
    erasure_cli.retain(keep=keep, experiments=world.experiments, data=world.data)
    assert said.split("has ")[1] in capsys.readouterr().out
