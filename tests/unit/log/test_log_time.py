"""Log time: whatever the machine's clock does, stamps keep their order and their distances, rows
are read with the time that the clock gave, and what goes by age goes on.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.log.log_time import SETTLED, TOLERANCE, Stamps, now_steady
from topbill.log.sqlite import SqliteLog

SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
NOW = 1_790_000_000 * SECOND
JUMPS = {
    "a day ahead and back": (DAY, 0),
    "an hour back and right again": (-HOUR, 0),
    "ten years ahead and back": (3_650 * DAY, 0),
    "ahead, further, and back": (DAY, 2 * DAY, 0),
}


class Machine:
    """A clock that is wrong by `wrong` µs, one that nobody sets, and processes with a log each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.passed = 0
        self.wrong = 0
        self.boot = ""
        self._open: list[SqliteLog] = []

    def clock(self) -> int:
        return NOW + self.passed + self.wrong

    def log(self) -> SqliteLog:
        """A process that starts now."""
        log = SqliteLog(self._path, self.clock, lambda: self.passed, self.boot)
        self._open.append(log)
        return log

    def close(self) -> None:
        for log in self._open:
            log.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "log.sqlite")
    yield machine
    machine.close()


def decision(number: int) -> Decision:
    return Decision(
        decision_id=f"d{number}",
        experiment="home",
        revision="r1",
        variant="a",
        unit="u",
        slate=(Placement(0, "x", 1.0),),
        policy="fixed",
        reason="policy",
    )


def play(number: int) -> RewardEvent:
    return RewardEvent(decision_id=f"d{number}", event_id="e", event="play")


@given(
    readings=st.lists(st.integers(0, 20 * TOLERANCE), max_size=30),
    offset=st.integers(-DAY, DAY),
    latest=st.integers(0, 40 * TOLERANCE),
)
@settings(derandomize=True)
def test_stamps_never_fall_and_none_is_far_from_what_time_it_can_be(
    readings: list[int], offset: int, latest: int
) -> None:
    stamps = Stamps(0, offset, latest)
    newest = 0
    for reading in readings:
        before = stamps.newest
        stamp = stamps.of(reading)
        assert stamp >= newest
        assert stamp <= max(latest, before) + TOLERANCE
        # The time that the clock gave can be told from the stamp, but for what is waited out.
        assert 0 <= stamp - stamps.offset - reading <= TOLERANCE + 1
        newest = stamp


@pytest.mark.parametrize("jumps", JUMPS.values(), ids=JUMPS)
@pytest.mark.parametrize("restarted", [True, False], ids=["restarted", "running"])
def test_learning_and_windows_go_on_whatever_the_clock_does(
    machine: Machine, jumps: tuple[int, ...], restarted: bool
) -> None:
    """A decision a second, each with a reward two seconds later, while the clock is set."""
    log = machine.log()
    log.barrier()
    given_times = []
    number = 0
    for wrong in (0, *jumps):
        machine.wrong = wrong
        if restarted:
            log = machine.log()
        for _ in range(20):
            log.append([decision(number)])
            given_times.append(machine.clock())
            machine.passed += 2 * SECOND
            log.append([], [play(number)])
            machine.passed += SECOND
            log.barrier()
            number += 1
    barrier = log.barrier()

    # Each row is read with the time that the clock gave, and has a stamp of its own.
    assert [d.decided_at for _, d in log.read_decisions(0, 1_000)] == given_times
    with closing(sqlite3.connect(log.path)) as connection:
        stamps = [at for (at,) in connection.execute("SELECT at FROM decisions ORDER BY seq")]
    assert stamps == sorted(set(stamps))

    # What is ten seconds old is mature, and nothing else: with its reward, whatever the clock said.
    matured = log.matured("home", 0, 10 * SECOND, barrier, 1_000)
    assert [row.decision.decision_id for row in matured] == [f"d{n}" for n in range(number - 3)]
    late = [row for row in matured if len(row.events) != 1]
    assert late == []
    for row in matured:
        waited = row.events[0].received_at - row.decision.decided_at
        assert 0 < waited <= 2 * SECOND + 1
    # Nobody saw a process that was started under the wrong clock begin to be wrong: log time then
    # leaps by as much, once. All else is as long as it was.
    leaps = [b - a for a, b in itertools.pairwise(stamps) if b - a > 10 * SECOND]
    assert len(leaps) <= (sum(j > 0 for j in jumps) + (jumps[0] < 0)) * restarted


@pytest.mark.parametrize("jump", [DAY, -HOUR, 3_650 * DAY])
def test_a_clock_that_was_set_is_told_for_a_minute(machine: Machine, jump: int) -> None:
    log = machine.log()
    log.append([decision(0)])
    log.barrier()
    assert log.clock_trouble() is None
    machine.wrong = jump
    for _ in range(2):
        told = log.clock_trouble()
        assert told is not None
        assert ("ahead" if jump > 0 else "back") in told
    machine.passed += SETTLED
    assert log.clock_trouble() is None
    assert log.clock_trouble(2 * SETTLED) == told
    machine.wrong = 0
    assert log.clock_trouble() is not None
    machine.passed += SETTLED
    assert log.clock_trouble() is None
    assert len(log.clock_steps()) == 2
    assert log.clock_steps()[-1].offset == pytest.approx(0, abs=SECOND)


@pytest.mark.parametrize("boot", ["the same", "another"])
def test_a_clock_that_was_set_while_nothing_ran_is_told_unless_the_machine_was_off(
    machine: Machine, boot: str
) -> None:
    machine.boot = "the same"
    log = machine.log()
    log.append([decision(0)])
    before = log.barrier()
    machine.boot = boot
    machine.passed += HOUR
    machine.wrong = 3_650 * DAY
    log = machine.log()
    told = log.clock_trouble()
    assert (told is not None) == (boot == "the same")
    after = log.barrier()
    assert after - before > HOUR - SECOND
    # What goes by age, such as which ids are remembered, is not ten years older.
    assert (after - before < 2 * HOUR) == (boot == "the same")


def test_minutes_are_waited_out_without_a_word(machine: Machine) -> None:
    log = machine.log()
    for number, wrong in enumerate([0, -200 * SECOND, -100 * SECOND, 100 * SECOND, 0]):
        machine.wrong = wrong
        log.append([decision(number)])
        assert log.clock_trouble() is None
    times = [d.decided_at for _, d in log.read_decisions(0, 9)]
    assert times == sorted(set(times))
    assert log.clock_steps() == []


def test_a_log_that_waited_for_days_is_no_jump(machine: Machine) -> None:
    machine.log().append([decision(0)])
    machine.passed += 30 * DAY
    log = machine.log()
    log.append([decision(1)])
    assert log.clock_trouble() is None
    assert [d.decided_at for _, d in log.read_decisions(0, 9)] == [NOW, NOW + 30 * DAY]


def test_the_clock_that_nobody_sets_goes_on() -> None:
    first = now_steady()
    assert now_steady() >= first
