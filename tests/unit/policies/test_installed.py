"""Policies of installed packages: named in a file like shipped ones, checked whatever they answer,
and one that fails is its own variant's trouble.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.installed_package import on_the_path, write_package

from topbill import spec
from topbill.domain.errors import PolicyError, SpecError
from topbill.domain.patience import Patience
from topbill.domain.records import Example, RewardEvent
from topbill.engine import CompiledExperiment, DecideRequest, Engine, teach
from topbill.policies import compare_states, engine_of
from topbill.spec import from_audit, load

CODE = '''
import sys, time
import msgspec, numpy as np
from topbill.plugins import OwnPolicy, softmax


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    temperature: float = 0.5


class Counts(OwnPolicy):
    """Softmax over mean rewards by action."""

    Params, deterministic = Params, False

    def __init__(self, params, columns, seed):
        super().__init__(params, columns, seed)
        self.sums = {}

    def probabilities(self, x, actions, seed):
        means = [s / n if n else 0.0 for s, n in (self.sums.get(i, (0, 0)) for i in actions.ids)]
        return softmax(np.array(means), self.params.temperature).astype(np.float32)

    def update(self, examples):
        for example in examples:
            name = example.actions.ids[example.index]
            s, n = self.sums.get(name, (0.0, 0))
            self.sums[name] = (s + example.reward, n + 1)

    def state(self):
        return {"ids": list(self.sums), "sums": np.array(list(self.sums.values())).reshape(-1, 2)}

    def restore(self, state):
        self.sums = {i: (s, int(n)) for i, (s, n) in zip(state["ids"], state["sums"].tolist())}


class Odd(OwnPolicy):
    """Answers what `how` says once `go` holds."""

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        how: str = ""

    deterministic, go = False, False

    def probabilities(self, x, actions, seed):
        k, how = len(actions), self.params.how if Odd.go else ""
        even = np.full(k, 1 / k)
        if how == "raises":
            return {}["missing"]
        if how == "exits":
            sys.exit(3)
        if how == "slow":
            time.sleep(0.06)
        if how == "writes":
            actions.features[:] = 7.0
        answers = {
            "nan": even * np.nan, "short": even[1:], "sum": even * 1.1, "negative": even - 2 / k,
            "text": "even", "none": None, "deep": [[0.5], [0.5]],
        }
        return answers.get(how, even)

    def state(self):
        if Odd.go and self.params.how == "state":
            return {"w": np.array([np.inf])}
        return {}


class NotOne:
    pass
'''
ENTRIES = {
    "counts": "acme_models:Counts",
    "odd": "acme_models:Odd",
    "broken": "acme_models_that_is_gone:Policy",
    "no-policy": "acme_models:NotOne",
}
FILE = """
experiment: home
surface: artwork
context: {{hour: {{type: cycle, period: 24}}}}
action_features: {{faces: {{type: number}}}}
actions: [{{id: x, features: {{faces: 1}}}}, {{id: y}}, {{id: z}}]
metrics: {{play: {{event: play, kind: binary, window: 60s}}}}
objective: {{play: 1.0}}
budget_ms: {budget}
variants:
  control: {{policy: fixed, order: [x], share: 0.01%, control: true}}
  own: {{{own}, share: 99.99%}}
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path) -> Iterator[None]:
    write_package(tmp_path, CODE, ENTRIES)
    with on_the_path(tmp_path):
        yield


def experiment(folder: Path, own: str, budget: int = 10_000) -> spec.Experiment:
    file = folder / "home.yaml"
    file.write_text(FILE.format(own=own, budget=budget))
    return load(file)


def decide(engine: Engine, number: int):
    return engine.decide(DecideRequest("home", unit=f"u{number}", decision_id=f"d{number}"))


def test_it_decides_learns_and_goes_on_from_its_state(tmp_path: Path) -> None:
    live = CompiledExperiment(experiment(tmp_path, "policy: counts, temperature: 0.1"))
    engine = Engine([live.experiment])
    decisions = [decide(engine, n) for n in range(40)]
    lessons = [
        (d, [RewardEvent(decision_id=d.decision_id, event_id="e", event="play", position=0)])
        for d in decisions
        if d.slate[0].action == "z" and d.variant == "own"
    ]
    assert teach(live, lessons) == len(lessons) > 5
    own = live.policies["own"]
    again = CompiledExperiment(live.experiment).policies["own"]
    again.load(own.dump())
    x, actions = np.zeros(2), live.actions
    p = own.score(x, actions, 1).probabilities(np.arange(3))
    assert p.dtype == np.float64
    assert p.sum() == 1.0
    assert p[2] > 0.99
    assert np.array_equal(p, again.score(x, actions, 1).probabilities(np.arange(3)))
    assert compare_states(again, own.dump(), again.dump(), actions).same
    assert engine_of(own) == "acme-models 1.2"
    with pytest.raises(PolicyError, match="state of counts is not readable"):
        again.load(own.dump()[:-1])
    assert again.dump() == own.dump()


def test_the_logged_propensity_is_the_vector_that_was_drawn_from(tmp_path: Path) -> None:
    engine = Engine([experiment(tmp_path, "policy: counts, min_probability: 5%")])
    decision = decide(engine, 1)
    assert decision.reason == "policy"
    assert decision.probabilities == (pytest.approx((1 / 3, 1 / 3, 1 / 3), abs=1e-15),)
    assert sum(decision.probabilities[0]) == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize(
    "how",
    ["raises", "exits", "nan", "short", "sum", "negative", "text", "none", "deep", "writes"],
)
def test_whatever_it_answers_the_control_steps_in_and_it_is_told(tmp_path: Path, how: str) -> None:
    engine = Engine([experiment(tmp_path, f"policy: odd, how: {how}")])
    compiled = engine.find("home")
    assert decide(engine, 1).reason == "policy"
    import acme_models  # type: ignore[import-not-found]

    acme_models.Odd.go = True
    decision = decide(engine, 2)
    assert (decision.reason, decision.slate[0].action) == ("fallback", "x")
    assert decision.propensity == 1.0
    assert "acme-models 1.2: odd: probabilities" in compiled.failures["own"]
    assert compiled.actions.features[1, 0] == 0.0


def test_one_that_is_slow_rests_so_that_others_are_served(tmp_path: Path) -> None:
    engine = Engine([experiment(tmp_path, "policy: odd, how: slow", budget=50)])
    compiled = engine.find("home")
    import acme_models

    acme_models.Odd.go = True
    assert decide(engine, 1).reason == "fallback"
    assert compiled.failures["own"] == "took longer than budget_ms: 50"
    started = time.perf_counter()
    assert {decide(engine, n).reason for n in range(2, 30)} == {"fallback"}
    assert time.perf_counter() - started < 1.0, "it is asked twice more, and not 28 times"
    acme_models.Odd.go = False
    compiled.patience["own"] = Patience()
    assert decide(engine, 31).reason == "policy"


def test_a_state_that_cannot_be_kept_is_refused_by_name(tmp_path: Path) -> None:
    policy = CompiledExperiment(experiment(tmp_path, "policy: odd, how: state")).policies["own"]
    import acme_models

    acme_models.Odd.go = True
    with pytest.raises(PolicyError, match=r"acme-models 1.2: odd: state: array w holds NaN"):
        policy.dump()


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ("policy: count", "of installed packages: broken .acme-models 1.2., counts"),
        ("policy: count", "did you mean counts?"),
        ("policy: broken", "ModuleNotFoundError: No module named 'acme_models_that_is_gone'"),
        ("policy: no-policy", "class NotOne; expected a class that extends topbill.plugins.Own"),
        ("policy: counts, temprature: 1", "own.temprature: got an unknown key.*temperature"),
        ("policy: counts, temperature: warm", "own.temperature: got 'warm'; expected a number"),
    ],
)
def test_a_file_that_names_none_is_told(tmp_path: Path, own: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        experiment(tmp_path, own)


def test_the_record_is_read_where_the_package_is_gone(tmp_path: Path) -> None:
    here = experiment(tmp_path, "policy: counts, temperature: 0.1")
    audit = msgspec.json.encode(here.raw).decode()
    assert from_audit(audit, "home.yaml", here.fingerprint) == here
    gone = audit.replace('"counts"', '"vanished"')
    there = from_audit(gone, "home (as it was)")
    assert (there.variants[1].policy, there.variants[1].share) == ("vanished", 0.9999)
    policy = CompiledExperiment(there).policies["own"]
    with pytest.raises(PolicyError, match="policy vanished: no package that is installed"):
        policy.update([Example(np.zeros(2), there.encoded_actions, 0, 1.0, 1.0)])
