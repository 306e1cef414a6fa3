"""Decisions that are nobody's result: testers', crawlers', and those outside the audience."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain.exclusion import TargetAudience
from topbill.domain.records import Decision, Floats, Indices
from topbill.domain.slate import Best, rank
from topbill.engine import DecideRequest, Engine
from topbill.spec import Experiment, Override


def decided(experiment: Experiment, **body: Any) -> Decision:
    raw = json.dumps({"experiment": experiment.key, **body})
    return Engine([experiment], clock=lambda: 0.0).decide(
        msgspec.json.decode(raw, type=DecideRequest)
    )


@pytest.mark.parametrize("status", ["running", "paused", "draft"])
def test_a_tester_sees_the_variant_of_the_file_and_is_in_none(art: Experiment, status: str) -> None:
    for variant in art.variants:
        overrides = (Override("qa", ("u1",), variant.name),)
        looked_at = replace(art, overrides=overrides, status=status)
        decision = decided(looked_at, unit="u1")
        assert (decision.variant, decision.reason) == (None, "override")
        assert decision.policy == variant.policy
    stopped = replace(art, overrides=overrides, status="stopped")
    assert decided(stopped, unit="u1").reason == "not_in_experiment"


def test_without_exploration_each_unit_gets_its_policys_best_for_certain(art: Experiment) -> None:
    engine = Engine([art], clock=lambda: 0.0)  # however busy the machine is
    for number in range(200):
        unit = f"u{number}"
        own = engine.find("art").assign(unit)[0]
        raw = json.dumps({"experiment": "art", "unit": unit, "explore": False})
        decision = engine.decide(msgspec.json.decode(raw, type=DecideRequest))
        assert own is not None
        assert (decision.variant, decision.reason) == (None, "no_exploration")
        assert decision.policy == own.policy
        assert decision.propensity == 1.0
        assert all(placed.propensity == 1.0 for placed in decision.slate)


def test_a_request_that_explores_is_known_by_what_it_was_known_by() -> None:
    body = {"experiment": "art", "unit": "u", "decision_id": "d"}
    plain, explicit, other = (
        msgspec.json.decode(json.dumps(body | more), type=DecideRequest).fingerprint
        for more in ({}, {"explore": True}, {"explore": False})
    )
    assert plain == explicit != other
    assert plain == "933395ad1d80f83af618a82c"


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ({"device": "tv", "hour": 3}, "policy"),
        ({"device": "mobile", "hour": 3}, "not_in_audience"),
        ({"device": "tv", "hour": 4}, "not_in_audience"),
        ({"device": "tv"}, "not_in_audience"),
        ({}, "not_in_audience"),
    ],
)
def test_of_the_audience_is_whom_every_condition_fits(
    art: Experiment, context: dict[str, Any], reason: str
) -> None:
    audience = TargetAudience.of({"device": ["tv", "tablet"], "hour": 3})
    decision = decided(replace(art, audience=audience), unit="u", context=context)
    assert decision.reason == reason
    assert (decision.variant is None) == (reason != "policy")


class Known:
    """Scores that are given."""

    width = None

    def __init__(self, mean: Floats | None, probabilities: Floats) -> None:
        self.mean = mean
        self._probabilities = probabilities

    def probabilities(self, remaining: Indices) -> Floats:
        return self._probabilities[remaining] / self._probabilities[remaining].sum()


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=12), st.booleans(), st.integers(1, 12))
def test_the_best_come_in_the_order_of_their_worth(
    worths: list[float], estimates: bool, slots: int
) -> None:
    worth = np.array(worths)
    scored = Known(worth, np.ones(len(worth))) if estimates else Known(None, worth)
    slate = rank(Best(scored), np.arange(len(worth)), slots, 0.0, lambda _: 0.99)
    assert list(slate.rows) == np.argsort(-worth, kind="stable")[:slots].tolist()
    assert slate.propensity == 1.0
