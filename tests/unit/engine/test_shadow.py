"""A variant in shadow says what it would have done, and touches nothing of what is done."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain.chance import hash64
from topbill.domain.patience import Patience
from topbill.domain.records import Decision, Floats, Indices
from topbill.domain.slate import LARGEST_MATRIX, propensities
from topbill.engine import CompiledExperiment, DecideRequest, Engine, teach
from topbill.engine.compiled import Shadow
from topbill.log.orders import with_traffic
from topbill.spec import Experiment, from_raw

from ...conftest import ARTWORK

LAUNCH = {"launch": {"shadow": "24h", "ramp": ["10%", "100%"]}}


def launched(art: Experiment, **more: Any) -> Experiment:
    return from_raw({**art.raw, **LAUNCH, **more}, "art.yaml")


def decided(engine: Engine, **body: Any) -> Decision:
    raw = json.dumps({"experiment": "art", **body})
    return engine.decide(msgspec.json.decode(raw, type=DecideRequest))


def an_engine(experiment: Experiment) -> Engine:
    """Whose time stands still: nothing is ever late, however busy the machine is."""
    return Engine([experiment], clock=lambda: 0.0)


def beside(art: Experiment, *names: str) -> Engine:
    """An engine whose experiment is running, with these of its variants in shadow as well."""
    engine = an_engine(art)
    compiled = engine.find("art")
    compiled.shadows = [Shadow(compiled.variants[name], Patience()) for name in names]
    return engine


def plain(decision: Decision) -> Decision:
    return msgspec.structs.replace(decision, shadows=(), latency_us=0)


def test_before_the_first_step_every_variant_but_the_control_is_asked(art: Experiment) -> None:
    decision = decided(an_engine(launched(art)), unit="u1")
    assert (decision.variant, decision.reason) == (None, "not_in_experiment")
    assert [shadow.variant for shadow in decision.shadows] == ["thompson", "uniform"]
    assert all(shadow.failure == "" for shadow in decision.shadows)
    assert decision.shadows[1].propensities == (0.25,)
    assert decision.shadows[1].probabilities == ((0.25,) * 4,)


@pytest.mark.parametrize(
    "changed",
    [
        {"status": "paused"},
        {"status": "draft"},
        {"status": "stopped"},
        {"launch": {"ramp": ["10%", "100%"]}},
    ],
)
def test_otherwise_nobody_is(art: Experiment, changed: dict[str, Any]) -> None:
    assert decided(an_engine(launched(art, **changed)), unit="u1").shadows == ()
    assert decided(an_engine(art), unit="u1").shadows == ()


def test_with_the_first_step_it_ends(art: Experiment) -> None:
    begun = with_traffic(launched(art), 0.1)
    assert all(decided(an_engine(begun), unit=f"u{n}").shadows == () for n in range(20))


@given(st.integers(0, 10_000), st.integers(1, 4), st.booleans())
def test_what_is_shown_is_the_same_with_and_without(number: int, slots: int, explore: bool) -> None:
    art = _art()
    body = {"unit": f"u{number}", "decision_id": f"d{number}", "slots": slots, "explore": explore}
    alone = decided(an_engine(art), **body)
    shadowed = decided(beside(art, "thompson", "uniform", "editorial"), **body)
    assert len(shadowed.shadows) == 3
    assert plain(shadowed) == plain(alone)


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_it_gives_what_the_variant_itself_would(number: int, slots: int) -> None:
    art = _art()
    body = {"unit": f"u{number}", "decision_id": f"d{number}", "slots": slots}
    body["context"] = {"device": "tv", "hour": number % 24}
    decision = decided(beside(art, "thompson", "uniform"), **body)
    compiled = CompiledExperiment(art)
    x = compiled.encoder.encode(body["context"])
    rows = [compiled.actions.ids.index(placed.action) for placed in decision.slate]
    for shadow in decision.shadows:
        variant = compiled.variants[shadow.variant]
        scored = compiled.policies[shadow.variant].score(
            x, compiled.actions, hash64(decision.decision_id)
        )
        own = propensities(scored, compiled.rows, rows, variant.min_probability)
        assert shadow.propensities == pytest.approx(own)
        if decision.variant == shadow.variant:
            assert shadow.propensities == tuple(p.propensity for p in decision.slate)
            assert shadow.probabilities == decision.probabilities
        assert shadow.probabilities is not None
        assert np.sum(shadow.probabilities, axis=1) == pytest.approx(1.0)


def test_rules_bind_it_as_they_bind_what_is_shown(art: Experiment) -> None:
    decision = decided(beside(art, "uniform"), unit="u1", exclude=["a", "b"], slots=2)
    (shadow,) = decision.shadows
    assert shadow.propensities == (0.5, 1.0)


def test_a_large_slate_has_the_probabilities_of_what_was_shown_alone(art: Experiment) -> None:
    actions = [{"id": f"a{n}"} for n in range(LARGEST_MATRIX + 1)]
    decision = decided(beside(art, "uniform"), unit="u1", actions=actions)
    (shadow,) = decision.shadows
    assert shadow.propensities == pytest.approx((1 / len(actions),))
    assert shadow.probabilities is None


class _Broken:
    """A policy that fails, or answers what is no probability."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.mean = self.width = None

    def score(self, *_: Any) -> Any:
        if self._error is not None:
            raise self._error
        return self

    def probabilities(self, remaining: Indices) -> Floats:
        return np.full(len(remaining), np.nan)


@pytest.mark.parametrize(
    ("policy", "failure"),
    [(_Broken(ValueError("no")), "ValueError"), (_Broken(), "PolicyError")],
)
def test_its_failure_is_its_own(
    art: Experiment, policy: Any, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = beside(art, "thompson", "uniform")
    compiled = engine.find("art")
    # A unit of another variant: whose policy works.
    unit = next(f"u{n}" for n in count() if _variant(compiled, f"u{n}") == "uniform")
    alone = decided(engine, unit=unit, decision_id="d1")
    compiled.policies = {**compiled.policies, "thompson": policy}
    for _ in range(3):
        decision = decided(engine, unit=unit, decision_id="d1")
        assert plain(decision) == plain(alone)
        broken, works = decision.shadows
        assert (broken.failure, broken.propensities, broken.probabilities) == (failure, (), None)
        assert works.failure == ""
    assert compiled.failures == {}
    assert list(compiled.shadow_failures) == ["thompson"]
    assert caplog.text.count("failed in shadow; no viewer notices") == 1


def _variant(compiled: CompiledExperiment, unit: str) -> str:
    variant, _ = compiled.assign(unit)
    return "" if variant is None else variant.name


def test_it_has_what_is_left_of_the_decisions_time_and_a_slow_one_rests(art: Experiment) -> None:
    times = iter(np.arange(0.0, 100.0, 0.04))
    engine = beside(replace(art, budget_ms=50.0), "uniform")
    engine._clock = lambda: float(next(times))
    failures = {decided(engine, unit="u1").shadows[0].failure for _ in range(20)}
    assert failures <= {"late", "resting"}
    # None of that is told of the variant where viewers see it.
    assert engine.find("art").patience["uniform"].may_ask(0.0)


def test_nothing_is_learned_of_what_it_would_have_done(art: Experiment) -> None:
    experiment = launched(art)
    decision = decided(an_engine(experiment), unit="u1")
    assert teach(CompiledExperiment(experiment), [(decision, [])]) == 0


def test_the_record_gives_it_back(art: Experiment) -> None:
    decision = decided(an_engine(launched(art)), unit="u1", slots=2)
    raw = msgspec.json.encode(decision)
    assert msgspec.json.decode(raw, type=Decision) == decision
    # One without is written as it was before there were any.
    assert b"shadows" not in msgspec.json.encode(plain(decision))


def _art() -> Experiment:
    return from_raw(yaml.safe_load(ARTWORK), "art.yaml")
