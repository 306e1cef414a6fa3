"""Vowpal Wabbit's two builds decide alike, each continues from what the other stored, and states
are compared by what they predict and weigh.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import util

import msgspec
import numpy as np
import pytest

from topbill.domain.errors import PolicyError
from topbill.domain.records import Actions, Example, TakenActions
from topbill.policies.vw import EXPLORATIONS, VW, VWParams
from topbill.policies.vw.engine import MODULES, engine
from topbill.policies.vw.model_file import digest

IDS = ["close-up", "chase", "skyline", "train", "kiss"]
ACTIONS = Actions(IDS, np.random.default_rng(5).normal(size=(5, 2)))
EVERYTHING = np.arange(5)
INSTALLED = [name for name, (module, _) in MODULES.items() if util.find_spec(module)]
every_engine = pytest.mark.parametrize("package", INSTALLED)
both = pytest.mark.skipif(
    len(INSTALLED) < 2, reason=f"only {INSTALLED} has wheels for this Python and processor"
)


def fresh(package: str | None = None, exploration: str = "squarecb", args: str = "") -> VW:
    params = VWParams(exploration=exploration, args=args)  # type: ignore[arg-type]
    return VW(
        params, context_size=3, action_size=2, seed=7, build=engine(package) if package else None
    )


def examples(n: int, seed: int = 1) -> list[Example]:
    rng = np.random.default_rng(seed)
    out = []
    for t in range(n):
        x = rng.normal(size=3)
        index = int(rng.integers(5))
        click = rng.random() < 1 / (1 + np.exp(1.0 - x[index % 3]))
        out.append(Example(x, ACTIONS, index, 0.2, float(click), position=t % 3, at=1e9 + t))
    return out


def decided(policy: VW, seed: int = 2) -> np.ndarray:
    """(20 contexts × 5) probabilities."""
    contexts = np.random.default_rng(seed).normal(size=(20, 3))
    return np.array([policy.predict(x, ACTIONS, EVERYTHING) for x in contexts])


def test_an_engine_is_here_and_names_its_package_and_version():
    name = engine().name
    assert name.split()[0] == INSTALLED[0]
    assert any(part[0].isdigit() for part in name.split())
    assert fresh().engine == name


@every_engine
@pytest.mark.parametrize("exploration", ["squarecb", "regcb"])
def test_a_prediction_is_the_same_whatever_was_predicted_and_learned_before(package, exploration):
    policy = fresh(package, exploration)
    for example in examples(60):
        policy.predict(example.x, ACTIONS, EVERYTHING)
        policy.update([example])
    state = policy.dump()
    for x in np.random.default_rng(4).normal(size=(20, 3)):
        untouched = fresh(package, exploration)
        untouched.load(state)
        expected = untouched.predict(x, ACTIONS, EVERYTHING)
        np.testing.assert_array_equal(policy.predict(x, ACTIONS, EVERYTHING), expected)


@every_engine
def test_some_of_a_slates_actions_are_learned_like_any_others(package):
    taken, others = fresh(package, "squarecb"), fresh(package, "squarecb")
    for example in examples(40):
        rows = [row for row in (4, 0, 2, 1, 3) if row == example.index or row % 2]
        some = TakenActions(ACTIONS, tuple(rows))
        place = rows.index(example.index)
        taken.update([msgspec.structs.replace(example, actions=some, index=place)])
        alone = Actions(some.ids, some.features.copy())
        others.update([msgspec.structs.replace(example, actions=alone, index=place)])
    assert taken.dump() == others.dump()


@both
@pytest.mark.parametrize("exploration", EXPLORATIONS)
def test_engines_decide_alike_and_continue_from_each_other(exploration):
    one, other = (fresh(package, exploration) for package in INSTALLED)
    for example in examples(150):
        one.update([example])
        other.update([example])
    # They add float32 numbers in different orders. Cover explores by what its members disagree in,
    # and so turns the last bit of one into another choice: its engines may drift apart.
    if exploration != "cover":
        np.testing.assert_allclose(decided(one), decided(other), atol=2e-2)
    for here, there in ((one, other), (other, one)):
        state = here.dump()
        continued = fresh(there._engine.name.split()[0], exploration)
        continued.load(state)
        np.testing.assert_allclose(decided(continued), decided(here), atol=1e-6)
        continued.update(examples(30, seed=3))
        assert np.isfinite(decided(continued)).all()


@both
@pytest.mark.parametrize("args", ["--sgd", "--power_t 0.3", "-q aa --l2 0.001", "--invariant"])
def test_engines_count_alike_what_learning_rates_depend_on(args):
    one, other = (fresh(package, "epsilon", args) for package in INSTALLED)
    one.update(examples(100))
    other.update(examples(100))
    np.testing.assert_allclose(decided(one), decided(other), atol=1e-6)


@every_engine
@pytest.mark.parametrize("exploration", EXPLORATIONS)
def test_a_restart_changes_no_weight_and_no_decision_of_what_learns_without_chance(
    package, exploration
):
    whole, restarted = fresh(package, exploration), fresh(package, exploration)
    whole.update(examples(90))
    for part in (examples(90)[:40], examples(90)[40:]):
        restarted.update(part)
        state = restarted.dump()
        restarted = fresh(package, exploration)
        restarted.load(state)
    if EXPLORATIONS[exploration].reproducible:
        assert whole.difference(whole.dump(), restarted.dump(), ACTIONS) == ""
        assert np.array_equal(decided(whole), decided(restarted))


@every_engine
def test_states_that_learned_otherwise_differ_and_say_in_what(package):
    policy = fresh(package)
    policy.update(examples(60))
    state = policy.dump()
    assert policy.difference(state, state, ACTIONS) == ""
    policy.update(examples(60, seed=9))
    assert "weights differ" in policy.difference(state, policy.dump(), ACTIONS)
    assert "weights differ" in policy.difference(state, fresh(package).dump(), ACTIONS)


@every_engine
def test_predictions_are_compared_too(package, monkeypatch):
    policy = fresh(package)
    untrained = policy.dump()
    policy.update(examples(60))
    workspace = type(policy.acting(5).workspace)
    monkeypatch.setattr(workspace, "weights", lambda _: {7: [0.5]})
    assert "probabilities differ" in policy.difference(untrained, policy.dump(), ACTIONS)


def rewarded(rate: float, actions: int, n: int = 400, context_size: int = 2) -> VW:
    """What a file gets that names no exploration, after rewards at that rate."""
    policy = VW(VWParams(), context_size=context_size, action_size=0, seed=7)
    offered = Actions([f"a{k}" for k in range(actions)], np.zeros((actions, 0)))
    rng = np.random.default_rng(3)
    told = []
    for t in range(n):
        x, reward = rng.normal(size=context_size), float(t % round(1 / rate) == 0)
        told.append(Example(x, offered, t % actions, 1 / actions, reward))
    policy.update(told)
    return policy


def test_what_decides_follows_from_the_rate_of_rewards_and_the_number_of_actions():
    assert rewarded(0.5, 3).acting(3).params.exploration == "squarecb"
    assert rewarded(0.5, 8).acting(8).params.exploration == "synthcover"
    assert rewarded(0.05, 3).acting(3).params.exploration == "epsilon"
    assert rewarded(0.05, 8).acting(8).params.exploration == "epsilon"
    # Nobody knows yet that rewards are rare.
    assert rewarded(0.05, 8, n=50).acting(8).params.exploration == "synthcover"


def test_a_rate_that_changes_changes_what_decides_and_all_have_learned_everything():
    policy = rewarded(0.05, 3)
    policy.update([Example(np.ones(2), Actions("abc", np.zeros((3, 0))), 0, 1 / 3, 1.0)] * 100)
    assert policy.acting(3).params.exploration == "squarecb"
    untrained = VW(VWParams(), context_size=2, action_size=0, seed=7)
    for learner, other in zip(policy.learners.values(), untrained.learners.values(), strict=True):
        assert learner.model() != other.model()


def test_the_fewer_rewards_there_were_the_more_is_left_to_chance_where_they_are_rare():
    """Beside the 3% of `epsilon`: a half at first, 2 of 100 after 99."""
    for rate, n, share in ((0.001, 500, 0.5), (0.05, 400, 2 / 21), (0.05, 1980, 2 / 100)):
        policy = rewarded(rate, 4, n=n)
        offered = Actions([f"a{k}" for k in range(4)], np.zeros((4, 0)))
        p = policy.predict(np.ones(2), offered, np.arange(4))
        np.testing.assert_allclose(p.sum(), 1.0)
        np.testing.assert_allclose(p.min(), share / 4 + (1 - share) * 0.03 / 4, rtol=1e-5)
        restored = VW(VWParams(), context_size=2, action_size=0, seed=7)
        restored.load(policy.dump())
        np.testing.assert_array_equal(restored.predict(np.ones(2), offered, np.arange(4)), p)
    # Common rewards are explored as squarecb does, and an exploration of the file's as it says.
    assert rewarded(0.5, 3).acting(3).params.exploration == "squarecb"
    said = VW(VWParams(exploration="epsilon", epsilon=0.1), context_size=2, action_size=0)
    said.update([Example(np.ones(2), offered, 0, 0.25, 1.0)] * 20)
    assert said.predict(np.ones(2), offered, np.arange(4)).min() == pytest.approx(0.025, rel=1e-5)


def test_only_a_small_context_is_seen_with_its_products():
    for size, is_small in ((10, True), (11, False)):
        policy = VW(VWParams(), context_size=size, action_size=0)
        commands = [learner.command for learner in policy.learners.values()]
        assert [("ssa" in command) for command in commands] == [False, is_small, is_small]


def test_who_gives_args_alone_tunes_squarecb_as_ever():
    assert VWParams(args="-l 1") == VWParams(exploration="squarecb", args="-l 1")
    assert len(VW(VWParams(args="-l 1"), context_size=2, action_size=0).learners) == 1


def test_learners_side_by_side_are_restored_and_compared_each():
    policy = rewarded(0.2, 3)
    state = policy.dump()
    restored = VW(VWParams(), context_size=2, action_size=0, seed=7)
    restored.load(state)
    assert policy.difference(state, restored.dump(), Actions((), np.zeros((0, 0)))) == ""
    more = rewarded(0.2, 3, n=401).dump()
    assert policy.difference(state, more, Actions((), np.zeros((0, 0)))).startswith("rewards")
    with pytest.raises(PolicyError):
        fresh().load(state)
    damaged = msgspec.msgpack.decode(state)
    models = msgspec.msgpack.encode([b"too few"])
    damaged["raw"] = digest(models) + models
    with pytest.raises(PolicyError, match="models"):
        restored.load(msgspec.msgpack.encode(damaged))


@every_engine
def test_what_an_engine_refuses_is_a_policy_error(package):
    with pytest.raises(PolicyError, match="vw: --nonsense"):
        engine(package).open(["--nonsense"], None)


@pytest.mark.parametrize(
    ("args", "expected"),
    [("--q aa", "'-q'"), ("-softmax", "'--softmax'"), ("--data x", "known are")],
)
def test_options_are_written_as_vw_reads_them(args, expected):
    with pytest.raises(msgspec.ValidationError, match=expected):
        msgspec.convert({"args": args}, VWParams)


def test_without_any_engine_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("topbill.policies.vw.engine.util.find_spec", lambda _: None)
    engine.cache_clear()
    try:
        with pytest.raises(PolicyError, match="pip install vowpalwabbit"):
            engine()
    finally:
        engine.cache_clear()


def test_who_only_reads_specs_loads_no_vw():
    program = (
        "import sys, topbill.policies; sys.exit(any('wabbit' in name for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
