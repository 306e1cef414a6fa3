"""The engine decides as the experiment says, draws what it logs, and always answers."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy import stats

from topbill.domain.errors import BadRequest, NotFound
from topbill.domain.records import Decision, Example, Floats, Indices, Snapshot
from topbill.engine import DecideRequest, Engine
from topbill.spec import Experiment


def request(**body: Any) -> DecideRequest:
    return msgspec.json.decode(json.dumps({"experiment": "art", **body}), type=DecideRequest)


def engine_of(experiment: Experiment) -> Engine:
    """An engine for which no decision is late, however busy the machine is."""
    return Engine([experiment], clock=lambda: 0.0)


def unit_of(engine: Engine, variant: str) -> str:
    live = engine.find("art")
    return next(
        u for u in (f"u{i}" for i in range(1_000)) if (v := live.assign(u)[0]) and v.name == variant
    )


def taught(art: Experiment, seed: int = 3) -> Snapshot:
    """A snapshot whose policies have learned something."""
    engine = engine_of(art)
    live = engine.find("art")
    rng = np.random.default_rng(seed)
    examples = [
        Example(
            live.encoder.encode({"hour": int(h)}),
            live.actions,
            int(i),
            0.25,
            float(i == 1 and rng.random() < 0.5),
        )
        for h, i in zip(rng.integers(0, 24, 400), rng.integers(0, 4, 400), strict=True)
    ]
    for policy in live.policies.values():
        policy.update(examples)
    states = {name: policy.dump() for name, policy in live.policies.items()}
    return Snapshot(
        experiment="art",
        version=7,
        watermark=400,
        fingerprint=art.learning_fingerprint,
        states=states,
    )


def test_the_same_decision_id_gives_the_same_decision_and_another_id_another_draw(
    art: Experiment,
) -> None:
    engine = engine_of(art)
    unit = unit_of(engine, "uniform")
    first, again = (engine.decide(request(unit=unit, decision_id="x")) for _ in range(2))
    assert first.slate == again.slate
    draws = {
        engine.decide(request(unit=unit, decision_id=str(i))).slate[0].action for i in range(50)
    }
    assert draws == {"a", "b", "c", "d"}


def test_a_decision_is_reproducible_from_its_policy_version(art: Experiment) -> None:
    first, second = engine_of(art), engine_of(art)
    for engine in (first, second):
        assert engine.find("art").adopt(taught(art))
    body: dict[str, Any] = {
        "unit": unit_of(first, "thompson"),
        "context": {"device": "tv", "hour": 3},
    }
    one, two = (engine.decide(request(decision_id="d", **body)) for engine in (first, second))
    assert one.policy_version == 7
    assert one.probabilities == two.probabilities
    assert one.slate == two.slate


def test_units_fall_into_variants_by_their_shares_and_stay_there(art: Experiment) -> None:
    live = engine_of(art).find("art")
    names = [live.assign(f"unit-{i}")[0] for i in range(20_000)]
    counts = Counter(v.name for v in names if v)
    expected = {v.name: v.share * 20_000 for v in art.variants}
    found = stats.chisquare([counts[name] for name in expected], list(expected.values()))
    assert found.pvalue > 1e-4
    assert [live.assign(f"unit-{i}")[0] for i in range(100)] == names[:100]


def test_logged_propensities_are_those_that_were_drawn_with(art: Experiment) -> None:
    """Chi-square over 20,000 decisions of one taught Thompson policy in one context; fails 1 in
    10,000 by chance.
    """
    engine = engine_of(art)
    engine.find("art").adopt(taught(art))
    unit = unit_of(engine, "thompson")
    drawn: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    for i in range(20_000):
        decision = engine.decide(request(unit=unit, decision_id=f"d{i}", context={"hour": 5}))
        assert decision.probabilities is not None
        (vector,) = decision.probabilities
        placed = decision.slate[0]
        assert placed.propensity == vector[decision.eligible.index(placed.action)]
        drawn[placed.action] += 1
        expected.update(dict(zip(decision.eligible, vector, strict=True)))
    total = sum(expected.values())
    assert (
        stats.chisquare(
            [drawn[a] for a in "abcd"], [expected[a] * 20_000 / total for a in "abcd"]
        ).pvalue
        > 1e-4
    )


def test_excluded_actions_are_never_shown_and_the_rest_shares_their_probability(
    art: Experiment,
) -> None:
    engine = engine_of(art)
    unit = unit_of(engine, "uniform")
    for i in range(50):
        decision = engine.decide(request(unit=unit, decision_id=str(i), exclude=["a", "b"]))
        assert decision.eligible == ("c", "d")
        assert decision.probabilities == ((0.5, 0.5),)


def test_offered_actions_replace_the_files_own(art: Experiment) -> None:
    engine = engine_of(art)
    offered = [{"id": "x", "features": {"tone": "warm"}, "payload": [1]}, {"id": "y"}]
    decision = engine.decide(request(unit=unit_of(engine, "thompson"), actions=offered))
    assert decision.eligible == ("x", "y")
    answer = engine.answer(decision)
    assert bytes(answer.slate[0].payload) == (b"[1]" if answer.slate[0].action == "x" else b"null")


def test_a_slate_multiplies_its_propensities_and_shows_nothing_twice(art: Experiment) -> None:
    engine = engine_of(art)
    decision = engine.decide(request(unit=unit_of(engine, "thompson"), slots=3))
    assert [p.position for p in decision.slate] == [0, 1, 2]
    assert len({p.action for p in decision.slate}) == 3
    assert decision.propensity == pytest.approx(np.prod([p.propensity for p in decision.slate]))


def test_more_slots_than_actions_serve_what_there_is(art: Experiment) -> None:
    decision = engine_of(art).decide(request(unit="u", slots=9))
    assert len(decision.slate) == 4


def test_a_policy_that_fails_is_answered_with_the_controls_order(
    art: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(art)
    live = engine.find("art")
    unit = unit_of(engine, "thompson")

    def broken(*_: object) -> None:
        raise ZeroDivisionError("no")

    monkeypatch.setitem(live.policies, "thompson", SimpleNamespace(score=broken))
    decision = engine.decide(request(unit=unit, slots=3))
    assert (decision.reason, decision.variant) == ("fallback", "thompson")
    assert [p.action for p in decision.slate] == ["c", "a", "b"]
    assert decision.propensity == 1.0
    assert decision.probabilities == ((0, 0, 1, 0), (1, 0, 0, 0), (0, 1, 0, 0))
    assert "ZeroDivisionError" in live.failures["thompson"]


def test_a_policy_whose_package_is_gone_is_answered_with_the_controls_order(
    art: Experiment,
) -> None:
    variants = [replace(v, policy="gone") if v.name == "thompson" else v for v in art.variants]
    engine = engine_of(replace(art, variants=tuple(variants)))
    engine.warm_up()
    decision = engine.decide(request(unit=unit_of(engine, "thompson")))
    assert (decision.reason, decision.variant) == ("fallback", "thompson")
    assert "no package that is installed brings it" in engine.find("art").failures["thompson"]


def test_a_policy_that_overruns_its_budget_is_answered_with_the_controls_order(
    art: Experiment,
) -> None:
    ticks = iter(range(1_000))
    engine = Engine([art], clock=lambda: next(ticks) * 0.1)
    assert engine.decide(request(unit=unit_of(engine, "thompson"))).reason == "fallback"


def test_who_is_not_in_the_experiment_sees_the_controls_order(art: Experiment) -> None:
    paused = Engine([replace(art, status="paused")]).decide(request(unit="u"))
    assert (paused.reason, paused.variant, paused.slate[0].action) == (
        "not_in_experiment",
        None,
        "c",
    )
    half = Engine([replace(art, traffic=0.5)])
    reasons = Counter(half.decide(request(unit=f"u{i}")).reason for i in range(2_000))
    assert 900 < reasons["policy"] < 1_100  # binomial: ±4.5 standard deviations
    held = Engine([replace(art, holdout=0.1)])
    reasons = Counter(held.decide(request(unit=f"u{i}")).reason for i in range(2_000))
    assert 140 < reasons["holdout"] < 260


def test_experiments_of_one_layer_never_share_a_unit(art: Experiment) -> None:
    one = replace(art, key="one", layer="home", traffic=0.5)
    two = replace(art, key="two", layer="home", traffic=0.5, layer_start=0.5)
    engine = Engine([one, two])
    for i in range(1_000):
        inside = [engine.find(key).assign(f"u{i}")[1] == "policy" for key in ("one", "two")]
        assert sum(inside) == 1


def test_without_a_unit_the_decision_itself_is_the_unit(art: Experiment) -> None:
    decision = engine_of(art).decide(request())
    assert decision.unit == decision.decision_id


def test_reloading_keeps_the_policies_of_unchanged_experiments(art: Experiment) -> None:
    engine = engine_of(art)
    engine.find("art").adopt(taught(art))
    engine.reload([replace(art)])
    assert engine.find("art").version == 7
    engine.reload([replace(art, title="changed")])
    assert engine.find("art").version == 7, "what it learned is the same"
    engine.reload([replace(art, reward_delay=7.0)])
    assert engine.find("art").version == 0


def test_a_snapshot_of_other_features_is_not_adopted(art: Experiment) -> None:
    live = engine_of(art).find("art")
    assert not live.adopt(msgspec.structs.replace(taught(art), fingerprint="other"))
    assert live.version == 0


def test_what_is_explained_is_what_the_policy_saw(art: Experiment) -> None:
    engine = engine_of(art)
    held = taught(art)
    engine.find("art").adopt(held)
    decision = engine.decide(
        request(unit=unit_of(engine, "thompson"), context={"device": "tv", "hour": 3})
    )
    why = engine.explain(decision, held)
    assert why is not None
    assert set(why) == {"a", "b", "c", "d"}
    assert max(why, key=lambda action: why[action]["score"]) == "b"
    assert engine.explain(decision, None) is None


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"context": {"hour": "late"}}, "$.context.hour"),
        ({"context": {"devise": "tv"}}, "$.context.devise"),
        ({"context": [1]}, "$.context"),
        ({"exclude": ["a", "b", "c", "d"]}, "$.exclude"),
        ({"actions": [{"id": "x"}, {"id": "x"}]}, "$.actions"),
        ({"actions": [{"id": "x", "features": {"tone": 3}}]}, "$.actions[0].features.tone"),
        ({"actions": [{"id": ""}]}, "$.actions[0].id"),
        ({"actions": []}, "$.actions"),
    ],
)
def test_a_bad_request_names_the_culprit(art: Experiment, body: dict[str, Any], path: str) -> None:
    with pytest.raises(BadRequest) as caught:
        engine_of(art).decide(request(**body))
    assert caught.value.path == path


def test_an_unknown_experiment_names_those_that_there_are(art: Experiment) -> None:
    with pytest.raises(NotFound, match="art"):
        engine_of(art).decide(DecideRequest(experiment="arts"))


def test_a_text_with_colons_is_no_second_name(art: Experiment) -> None:
    raw = b'{"experiment":"art","context":{"device" : "a\\":b: c","hour":null}}'
    assert engine_of(art).decide(msgspec.json.decode(raw, type=DecideRequest)).slate


def test_equal_requests_have_equal_fingerprints_however_they_are_written() -> None:
    one = msgspec.json.decode(
        b'{"experiment":"art","context":{"a":1,"b":[1, 2]}}', type=DecideRequest
    )
    two = msgspec.json.decode(
        b'{"context": {"b":[1,2] , "a":1},"experiment":"art"}', type=DecideRequest
    )
    three = msgspec.json.decode(
        b'{"experiment":"art","context":{"a":2,"b":[1,2]}}', type=DecideRequest
    )
    assert one.fingerprint == two.fingerprint != three.fingerprint


def test_a_decision_survives_the_log_unchanged(art: Experiment) -> None:
    decision = engine_of(art).decide(request(unit="u", context={"device": "tv"}, decision_id="d"))
    assert msgspec.json.decode(msgspec.json.encode(decision), type=Decision) == decision


class SlowScored:
    """What a policy says, each look at its probabilities taking more than half of the budget."""

    mean = width = None

    def __init__(self) -> None:
        self.asked = 0

    def probabilities(self, remaining: Indices) -> Floats:
        self.asked += 1
        return np.full(len(remaining), 1.0 / len(remaining))


def test_a_budget_that_is_used_up_ends_the_work_in_the_middle(
    art: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = SlowScored()
    engine = Engine([art], clock=lambda: scored.asked * 0.6 * art.budget_ms / 1e3)
    unit = unit_of(engine, "thompson")
    live = engine.find("art")
    monkeypatch.setitem(live.policies, "thompson", SimpleNamespace(score=lambda *_: scored))
    decision = engine.decide(request(unit=unit, slots=3))
    assert (decision.reason, decision.variant, decision.propensity) == ("fallback", "thompson", 1.0)
    assert scored.asked == 2  # of three positions: the third would have come too late
    assert live.failures == {}
