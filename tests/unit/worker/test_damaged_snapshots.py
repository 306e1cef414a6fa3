"""A stored state that cannot be read is learned again, from the lake too, and never touches another
experiment.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from topbill.domain.records import RewardEvent
from topbill.engine import DecideRequest, Engine
from topbill.lake import Lake
from topbill.log import Log, open_log
from topbill.spec import Experiment
from topbill.worker import archive
from topbill.worker.learner import Learner
from topbill.worker.publisher import Publisher
from topbill.worker.verification import repair, verify

SECOND = 1_000_000


class Clock:
    """The log's clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 2_000_000 * SECOND


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> Iterator[Log]:
    with open_log(tmp_path / "log.sqlite", clock=lambda: clock.now) as log:
        yield log


def live(art: Experiment, log: Log, clock: Clock, count: int) -> None:
    engine = Engine([art], clock=lambda: 0.0)  # no budget is overrun, however busy the machine
    for number in range(count):
        clock.now += SECOND // 10
        decision = engine.decide(DecideRequest(experiment=art.key, unit=f"u{number}"))
        log.append([decision])
        if number % 3 == 0:
            play = RewardEvent(decision_id=decision.decision_id, event_id="e", event="play")
            log.append([], [play])
    clock.now += 5 * SECOND


def damage(folder: Path, where: str) -> None:
    """Cut the states of some versions of experiment art."""
    with closing(sqlite3.connect(folder / "log.sqlite")) as connection, connection:
        connection.execute(
            "UPDATE policy_snapshots SET blob = substr(blob, 1, length(blob) / 2) "  # noqa: S608
            f"WHERE experiment = 'art' AND {where}"
        )


def learner(log: Log, folder: Path, *experiments: Experiment) -> Learner:
    """One that has learned all there is."""
    learner = Learner(log, experiments, archive.reader(folder))
    for _ in range(20):
        if learner.step() == 0:
            return learner
    raise AssertionError(list(learner.failures))


def forget(log: Log, folder: Path, art: Experiment, clock: Clock) -> int:
    """Publish all, and let the log go of all that is learned."""
    publisher = Publisher(log, Lake(folder), lambda: [art])
    publisher.step()
    return log.forget(log.snapshot_heads("art")[0].watermark, 2**60, clock.now)


@pytest.mark.parametrize("where", ["version = 2", "version > 0"], ids=["the newest", "all"])
@pytest.mark.parametrize("forgotten", [False, True], ids=["in the log", "in the lake"])
def test_a_worker_learns_again_what_cannot_be_read(
    art: Experiment, log: Log, clock: Clock, tmp_path: Path, where: str, *, forgotten: bool
) -> None:
    other = replace(art, key="other")
    live(art, log, clock, 40)
    learner(log, tmp_path, art)
    live(art, log, clock, 30)
    live(other, log, clock, 5)
    learner(log, tmp_path, art)
    before = log.snapshot("art")
    assert before is not None
    assert before.version == 2
    if forgotten:
        assert forget(log, tmp_path, art, clock) == 70
    damage(tmp_path, where)

    again = learner(log, tmp_path, art, other)
    after = log.snapshot("art")
    assert after is not None
    assert (after.version, after.watermark, after.states) == (3, before.watermark, before.states)
    assert again.unreadable() == {}
    assert log.version("other") == 1
    assert verify(log, art, archive.reader(tmp_path)).same


def test_what_is_wrong_is_told_until_a_version_is_there_that_can_be_read(
    art: Experiment, log: Log, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(art, log, clock, 40)
    learner(log, tmp_path, art)
    damage(tmp_path, "version = 1")
    # It has always more to read, and is behind.
    monkeypatch.setattr("topbill.worker.learner.BATCH", 1)
    monkeypatch.setattr("topbill.worker.learner.MOST_LAG", -1e9)
    again = Learner(log, [art])
    again.step()
    ((key, problem),) = again.unreadable().items()
    assert key == "art"
    assert "version 1 cannot be read" in problem
    assert "topbill verify art --repair" in problem
    assert problem.count("--repair") == 1


def test_repair_writes_what_the_fold_says_and_a_worker_goes_on_from_it(
    art: Experiment, log: Log, clock: Clock, tmp_path: Path
) -> None:
    live(art, log, clock, 40)
    at_work = learner(log, tmp_path, art)
    before = log.snapshot("art")
    assert before is not None
    assert forget(log, tmp_path, art, clock) == 40
    damage(tmp_path, "version = 1")
    verification = verify(log, art, archive.reader(tmp_path))
    assert not verification.same
    repaired = repair(log, verification)
    assert (repaired.version, repaired.states) == (2, before.states)
    assert verify(log, art, archive.reader(tmp_path)).same
    live(art, log, clock, 10)
    with pytest.raises(Exception, match="the log holds v2 already"):
        at_work.step()
    at_work.step()
    assert log.version("art") == 3
    assert verify(log, art, archive.reader(tmp_path)).same
