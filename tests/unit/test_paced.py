"""Which answers of a load fell into times in which the machine itself was slow."""

from __future__ import annotations

import pytest
from benchmarks.paced import Machine, summary


def test_slow_times_are_where_the_same_sum_takes_three_times_its_median() -> None:
    machine = Machine()
    slow = {100: 0.0004, 101: 0.0005, 105: 0.0004, 160: 0.0003}
    # Sums of 0.1 ms, one every 2 ms; the last of the slow ones is at the bound, not above it.
    machine.probes = [(at * 0.002, slow.get(at, 0.0001)) for at in range(200)]
    [(since, until)] = machine.slow_times()
    assert (since, until) == pytest.approx((0.198, 0.2124))


def test_answers_within_a_slow_time_or_beside_it_are_told_apart() -> None:
    quick = [(at * 0.01, at * 0.01 + 0.001) for at in range(200)]
    slow = [(1.0, 1.06), (1.005, 1.05)]
    paced = summary([*quick, *slow], [(1.0, 1.05)], seconds=2)
    assert paced.rate == 101
    assert paced.p50_ms == pytest.approx(1)
    assert paced.p99_ms > 1
    assert paced.calm_p99_ms == pytest.approx(1)
    # From 0.98 to 1.07 there are nine of the quick ones, or ten where one begins at its very edge.
    assert len(quick) - 10 <= round(paced.calm_share * 202) <= len(quick) - 9
    assert paced.slow_share == pytest.approx(0.025)


def test_a_machine_that_was_never_slow_leaves_all_answers() -> None:
    paced = summary([(0.1, 0.2), (0.3, 0.4)], [], seconds=1)
    assert paced.calm_share == 1
    assert paced.calm_p99_ms == paced.p99_ms
