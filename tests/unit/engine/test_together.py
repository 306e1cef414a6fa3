"""Requests that are decided together get what each would get by itself."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain.errors import PolicyError
from topbill.domain.records import Actions, Decision, Floats
from topbill.domain.slate import SlatesRequest
from topbill.engine import Asked, DecideRequest, Engine
from topbill.spec import Experiment, load

pytest.importorskip("numba")
FILE = """
experiment: {key}
surface: artwork
slots: {slots}
status: {status}
context:
  device: {{type: category, values: [tv, web]}}
  hour: {{type: cycle, period: 24}}
actions: [{{id: a}}, {{id: b}}, {{id: c}}, {{id: d}}]
metrics:
  play: {{event: play, kind: binary, window: 1s}}
objective: {{play: 1.0}}
variants:
  control: {{policy: fixed, order: [b, a], share: 30%, control: true}}
  one: {{policy: thompson, share: 30%}}
  wabbit: {{policy: vw, share: 10%}}
  other: {{policy: auto, share: 30%, min_probability: 2%}}
"""
BODIES = st.fixed_dictionaries(
    {
        "experiment": st.sampled_from(["one", "six", "off", "absent"]),
        "decision_id": st.uuids().map(str),
    },
    optional={
        "unit": st.text(min_size=1, max_size=3),
        "context": st.one_of(
            st.fixed_dictionaries(
                {}, optional={"device": st.sampled_from(["tv", 3]), "hour": st.integers(0, 23)}
            ),
            st.just({"unknown": 1}),
            st.just([]),
        ),
        "slots": st.integers(1, 5),
        "exclude": st.sampled_from([[], ["a"], ["a", "b", "c", "d"]]),
        "explore": st.booleans(),
        "actions": st.just([{"id": "x"}, {"id": "y"}]),
    },
)


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> list[Experiment]:
    folder = tmp_path_factory.mktemp("together")
    read = []
    for key, slots, status in (("one", 1, "running"), ("six", 3, "running"), ("off", 1, "stopped")):
        path = folder / f"{key}.yaml"
        path.write_text(FILE.format(key=key, slots=slots, status=status))
        read.append(load(path))
    return read


@pytest.fixture(scope="module")
def engine(experiments: list[Experiment]) -> Engine:
    """One for which no decision is late."""
    return Engine(experiments, clock=lambda: 0.0)


def asked(**body: Any) -> Asked:
    request = msgspec.json.decode(json.dumps(body), type=DecideRequest)
    return request, body.get("context", {})


@given(bodies=st.lists(BODIES, max_size=12))
def test_what_is_decided_together_is_what_each_would_be_alone(
    engine: Engine, bodies: list[dict[str, Any]]
) -> None:
    wanted = [asked(**body) for body in bodies]
    for (request, _), decided in zip(wanted, engine.decide_each(wanted), strict=True):
        if isinstance(decided, Decision):
            assert engine.decide(request) == decided
        else:
            with pytest.raises(type(decided), match=re.escape(str(decided))):
                engine.decide(request)


def test_more_than_fit_into_one_call_are_all_decided(engine: Engine) -> None:
    wanted = [asked(experiment="six", unit=str(n), decision_id=str(n)) for n in range(150)]
    alone = [engine.decide(request) for request, _ in wanted]
    assert engine.decide_each(wanted) == alone


def test_a_policy_that_fails_leaves_each_viewer_the_control(
    experiments: list[Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(experiments, clock=lambda: 0.0)
    policy = engine.find("one").policies["one"]

    def fail(*_: object) -> None:
        raise PolicyError("broken")

    monkeypatch.setattr(policy, "slates", fail)
    monkeypatch.setattr(policy, "slate", fail)
    decisions = engine.decide_each([asked(experiment="one", unit=str(n)) for n in range(40)])
    reasons = {d.reason for d in decisions if isinstance(d, Decision) and d.variant == "one"}
    assert reasons == {"fallback"}
    assert "broken" in engine.find("one").failures["one"]


def test_what_takes_longer_than_the_budget_is_the_controls(experiments: list[Experiment]) -> None:
    now = 0.0
    engine = Engine(experiments, clock=lambda: now)
    policy = engine.find("one").policies["one"]
    slates = policy.slates  # type: ignore[attr-defined]

    def slow(xs: Floats, actions: Actions, request: SlatesRequest) -> Any:
        nonlocal now
        now += 10.0
        return slates(xs, actions, request)

    policy.slates = slow  # type: ignore[attr-defined]
    decisions = engine.decide_each([asked(experiment="one", unit=str(n)) for n in range(40)])
    late = [d for d in decisions if isinstance(d, Decision) and d.variant == "one"]
    assert late
    assert {(d.reason, d.propensity, d.slate[0].action) for d in late} == {("fallback", 1.0, "b")}


def test_where_units_take_no_part_nobody_is_drawn_for(experiments: list[Experiment]) -> None:
    fewer = [replace(one, traffic=0.5) for one in experiments]
    engine = Engine(fewer, clock=lambda: 0.0)
    wanted = [asked(experiment="one", unit=str(n), decision_id=str(n)) for n in range(40)]
    decisions = engine.decide_each(wanted)
    assert decisions == [engine.decide(request) for request, _ in wanted]
    assert {d.reason for d in decisions if isinstance(d, Decision)} == {
        "policy",
        "not_in_experiment",
    }
    assert np.all([isinstance(d, Decision) for d in decisions])
