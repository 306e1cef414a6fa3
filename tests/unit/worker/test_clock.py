"""A machine's clock that is set: what is learned from the log and what is read back from the lake
stay the same rows, the record is as of the right time, and it is told.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from topbill.domain.records import Action, Decision, RewardEvent
from topbill.lake import DATABASE, Lake, sql
from topbill.log.sqlite import SqliteLog
from topbill.policies.uniform import FixedParams
from topbill.spec import Experiment, Metric, Variant
from topbill.testing import a_decision
from topbill.worker import archive
from topbill.worker.archive import Span
from topbill.worker.publisher import Publisher

SECOND = 1_000_000
DAY = 86_400 * SECOND
NOW = 1_790_000_000 * SECOND


class Machine:
    """A clock that is wrong by `wrong` µs, and a log that is stamped by it."""

    def __init__(self, path: Path) -> None:
        self.passed = 0
        self.wrong = 0
        self.log = SqliteLog(path, self.clock, lambda: self.passed)

    def clock(self) -> int:
        return NOW + self.passed + self.wrong


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "log.sqlite")
    yield machine
    machine.log.close()


def experiment() -> Experiment:
    return Experiment(
        key="home",
        surface="artwork",
        actions=(Action("x"), Action("y")),
        metrics=(Metric("play", "play", "binary", 10.0),),
        objective={"play": 1.0},
        variants=(Variant("editorial", "fixed", FixedParams(), 1.0, control=True),),
    )


def shown(number: int) -> Decision:
    return a_decision(
        f"d{number}",
        variant="editorial",
        unit=f"u{number}",
        eligible=("x", "y"),
        policy="fixed",
    )


def play(number: int, occurred_at: int | None) -> RewardEvent:
    return RewardEvent(
        decision_id=f"d{number}", event_id="e", event="play", occurred_at=occurred_at
    )


def rows(folder: Path, query: str) -> list[dict[str, Any]]:
    return sql(folder / DATABASE, query).to_pylist()


@pytest.mark.parametrize("jump", [DAY, -3_600 * SECOND, 3_650 * DAY])
def test_a_fold_reads_the_same_rows_from_the_log_and_from_the_lake(
    tmp_path: Path, machine: Machine, jump: int
) -> None:
    log = machine.log
    publisher = Publisher(log, Lake(tmp_path), lambda: [experiment()], keep_log=3_600.0)
    publisher.step()
    for number in range(30):
        machine.wrong = jump if 10 <= number < 20 else 0
        log.append([shown(number)])
        machine.passed += 2 * SECOND
        log.append([], [play(number, machine.clock() - SECOND if number % 2 else None)])
        machine.passed += SECOND
        log.barrier()
    publisher.step()
    barrier = log.barrier()
    (published,) = rows(tmp_path, "SELECT epoch_us(published_at) AS at FROM published")
    assert abs(published["at"] - machine.clock()) <= SECOND
    span = Span("home", 0, 2**62, 10 * SECOND, barrier)
    of_log = log.matured("home", 0, 10 * SECOND, barrier, 1_000)
    of_lake = archive.reader(tmp_path)(span, log.clock_steps())
    assert len(of_log) == 27
    assert of_lake == of_log
    # In the order and at the distances in which they came, for whoever forgets by time.
    times = [row.decision.decided_at for row in of_log]
    assert all(0 < b - a <= 10 * SECOND for a, b in itertools.pairwise(times))
    # As the clock said, for whoever reads the record: each reward within its window.
    (feedback,) = rows(tmp_path, "SELECT sum(metrics['play']) AS plays FROM feedback")
    assert feedback["plays"] == 30.0
    moments = rows(tmp_path, "SELECT count(DISTINCT decided_at) AS n FROM decisions")
    assert moments == [{"n": 30}]


def test_a_jump_lets_nothing_go_that_is_not_old(tmp_path: Path, machine: Machine) -> None:
    log = machine.log
    publisher = Publisher(log, Lake(tmp_path), lambda: [experiment()])
    log.append([shown(0)], [play(0, None)])
    publisher.step()
    machine.wrong = 3_650 * DAY
    publisher.step()
    machine.wrong = 0
    publisher.step()
    assert log.decision("d0") is not None
    machine.passed += 2 * 3_600 * SECOND
    publisher.step()
    assert log.decision("d0") is None
    assert log.places(["d0"]) == {"d0": 1}
    machine.passed += 2 * DAY
    publisher.step()
    assert log.places(["d0"]) == {}
