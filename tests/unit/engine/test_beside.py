"""Beside a launch goes on what ran before: it decides for whoever the launch has not come to."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec

from topbill.domain.records import Decision, Snapshot
from topbill.engine import CompiledExperiment, DecideRequest, Engine, adopt_newest_of
from topbill.engine.shadow import OTHER_ACTIONS
from topbill.log import open_log
from topbill.log.orders import with_traffic
from topbill.spec import Experiment, from_raw

UNITS = [f"u{number}" for number in range(60)]
VARIANTS = {
    "editorial": {"policy": "fixed", "order": ["c", "a"], "share": "20%", "control": True},
    "thompson": {"policy": "thompson", "share": "40%"},
    "uniform": {"policy": "uniform", "share": "20%"},
    "bold": {"policy": "fixed", "order": ["b"], "share": "20%"},
}


def launched(art: Experiment, **more: Any) -> Experiment:
    """A file whose launch brings a variant, beside what ran."""
    launch = {"shadow": "24h", "ramp": ["10%", "50%", "100%"]}
    raw = {**art.raw, "variants": VARIANTS, "launch": launch, **more}
    return replace(from_raw(raw, "art.yaml"), former=art)


def an_engine(experiment: Experiment) -> Engine:
    return Engine([experiment], clock=lambda: 0.0)


def decided(engine: Engine, **body: Any) -> Decision:
    raw = json.dumps({"experiment": "art", "decision_id": f"d-{body.get('unit')}", **body})
    return engine.decide(msgspec.json.decode(raw, type=DecideRequest))


def told(decision: Decision) -> tuple[Any, ...]:
    return decision.variant, decision.revision, decision.slate, decision.probabilities


def test_while_it_waits_everybody_gets_what_they_had(art: Experiment) -> None:
    before, now = an_engine(art), an_engine(launched(art))
    for unit in UNITS:
        decision = decided(now, unit=unit)
        assert told(decision) == told(decided(before, unit=unit))
        assert decision.variant is not None
        # What the launch brings decides unseen, and nothing else does.
        assert [(shadow.variant, shadow.failure) for shadow in decision.shadows] == [("bold", "")]


def test_each_step_takes_some_of_what_ran_before_and_moves_nobody_else(art: Experiment) -> None:
    file = launched(art)
    before = an_engine(art)
    variants: dict[str, str] = {}
    for traffic in (0.1, 0.5):
        engine = an_engine(with_traffic(file, traffic))
        for unit in UNITS:
            decision = decided(engine, unit=unit)
            if decision.revision == art.fingerprint:
                assert unit not in variants
                assert told(decision) == told(decided(before, unit=unit))
            else:
                assert decision.variant is not None
                assert variants.setdefault(unit, decision.variant) == decision.variant
        assert 0 < len(variants) < len(UNITS)
    engine = an_engine(replace(with_traffic(file, 1.0), former=None))
    for unit, variant in variants.items():
        assert decided(engine, unit=unit).variant == variant


def test_its_audience_and_its_exclusions_are_its_own(art: Experiment) -> None:
    before = replace(launched(art), former=None, launch=None)
    former = from_raw({**art.raw, "audience": {"device": ["tv"]}}, "art.yaml")
    file = replace(launched(art, exclude={"units": ["u1"]}), former=former)
    assert before.audience != former.audience
    engine = an_engine(file)
    decision = decided(engine, unit="u1", context={"device": "tv"})
    assert (decision.revision, decision.reason) == (former.fingerprint, "policy")
    decision = decided(engine, unit="u1", context={"device": "mobile"})
    assert (decision.variant, decision.reason) == (None, "not_in_audience")


def test_it_reads_what_callers_send_for_the_new_file(art: Experiment) -> None:
    context = {**art.raw["context"], "mood": {"type": "flag"}, "hour": {"type": "flag"}}
    features = {**art.raw["action_features"], "length": {"type": "number"}}
    engine = an_engine(launched(art, context=context, action_features=features))
    sent = [{"id": "a", "features": {"tone": "warm", "length": 3.0}}, {"id": "b"}]
    body = {"context": {"device": "tv", "mood": True, "hour": True}, "actions": sent}
    for unit in UNITS[:20]:
        decision = decided(engine, unit=unit, **body)
        assert (decision.revision, decision.reason) == (art.fingerprint, "policy")
        # With new features what learns is another policy.
        asked = [(shadow.variant, shadow.failure) for shadow in decision.shadows]
        assert asked == [("thompson", ""), ("bold", "")]


def test_it_shows_its_own_actions_with_its_own_payloads(art: Experiment) -> None:
    actions = [{**action} for action in art.raw["actions"]]
    actions[2]["payload"] = {"image": "new.svg"}
    more = [{"id": "e", "features": {"tone": "cold"}}, *actions]
    engine = an_engine(launched(art, actions=more))
    for unit in UNITS[:20]:
        decision = decided(engine, unit=unit)
        assert decision.eligible == ("a", "b", "c", "d")
        # A policy that draws explores less of each of more actions: it shows something else.
        assert [shadow.variant for shadow in decision.shadows] == ["thompson", "bold"]
        assert decision.shadows[1].propensities == (float(decision.slate[0].action == "b"),)
        if decision.variant == "editorial":
            (item,) = engine.answer(decision).slate
            assert bytes(item.payload) == b'{"image":"c.svg"}'


def test_a_candidate_without_the_actions_that_are_shown_has_no_answer(art: Experiment) -> None:
    engine = an_engine(launched(art, actions=art.raw["actions"][:3]))
    decision = decided(engine, unit="u1")
    assert decision.eligible == ("a", "b", "c", "d")
    assert {shadow.failure for shadow in decision.shadows} == {OTHER_ACTIONS}


def test_it_goes_on_from_what_it_had_learned(art: Experiment) -> None:
    engine = an_engine(art)
    engine.find("art").version = 7
    policies = engine.find("art").policies
    for traffic in (None, 0.1):
        engine.reload([with_traffic(launched(art), traffic)])
        compiled = engine.find("art")
        assert compiled.former is not None
        assert compiled.former.version == 7
        assert compiled.former.policies["thompson"] is policies["thompson"]
        assert compiled.version == 0


def test_it_finds_its_own_snapshot_behind_those_of_the_launched_file(art: Experiment) -> None:
    def snapshot(experiment: Experiment, version: int) -> Snapshot:
        states = {name: p.dump() for name, p in CompiledExperiment(experiment).policies.items()}
        fingerprint = experiment.learning_fingerprint
        place = {"experiment": "art", "version": version, "watermark": version}
        return Snapshot(**place, fingerprint=fingerprint, states=states)  # type: ignore[arg-type]

    file = launched(art)
    with open_log("memory:") as log:
        for number, experiment in enumerate((art, art, file, file), 1):
            log.write_snapshot(snapshot(experiment, number))
        former = CompiledExperiment(file).former
        assert former is not None
        assert adopt_newest_of(log, former)
        assert former.version == 2
        assert not adopt_newest_of(log, former)
