"""Launches with planted truth in small: the long form is `python -m benchmarks.launches`.

Of three launches of a truth that is called right 96 times in 100, all three are in 88%; these seeds
are among them, and stay so unless the rule changes.
"""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.launches import (
    GUARDRAILS,
    TRUTHS,
    GateOutcome,
    Launched,
    Moments,
    World,
    ask_gate,
    bars,
    gate_bars,
    launch_all,
    pair_of,
)

pytestmark = pytest.mark.slow


def test_harm_is_rolled_back_early_and_what_is_harmless_gets_to_everybody() -> None:
    outcomes = launch_all(12, seed=2)
    assert [bar.line() for bar in bars(outcomes) if not bar.is_met] == []
    for outcome in outcomes:
        assert outcome.reached_at is None or outcome.reached_at < 1.5
    # What is drawn hangs on the seed alone.
    again = Launched(GUARDRAILS[0], TRUTHS[0], (2, 0)).run()
    assert again == outcomes[0]


def test_the_logs_gate_stops_what_harms_and_says_where_it_cannot_judge() -> None:
    outcomes: list[GateOutcome] = [ask_gate(truth, (1, 0)) for truth in TRUTHS]
    assert [bar.line() for bar in gate_bars(outcomes) if not bar.is_met] == []
    assert [o.fixed.reason for o in outcomes] == ["no_overlap"] * len(TRUTHS)


def test_the_worlds_viewers_do_what_is_planted() -> None:
    for guardrail in GUARDRAILS:
        world = World(guardrail, TRUTHS[0], 24, (3,))
        control = treated = Moments()
        for hour in range(24):
            control = control.plus(world.outcomes(hour, 20_000, is_treated=False))
            treated = treated.plus(world.outcomes(hour, 20_000, is_treated=True))
        pair = pair_of(control, treated, is_rate=guardrail.is_rate)
        assert pair.treated is not None
        assert pair.control is not None
        lift = pair.treated.value / pair.control.value - 1.0
        planted = 4.0 * guardrail.margin.value * (1.0 if guardrail.is_rate else -1.0)
        se = np.hypot(pair.treated.variance**0.5, pair.control.variance**0.5) / pair.control.value
        assert lift == pytest.approx(planted, abs=4.0 * se)
