"""`train`: a policy learned from the earlier part of a log, certified on the later or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from topbill import cli
from topbill.domain.errors import BadData, BadRequest, NotFound, PolicyError
from topbill.domain.records import Decision
from topbill.engine import CompiledExperiment, teach
from topbill.ope import REASONS, REMEDIES, evaluate, train
from topbill.ope.replay.held_out import FrozenPolicy, HeldOutPass
from topbill.ope.replay.logged_data import LoggedData
from topbill.ope.training import MOST_HELD_OUT
from topbill.policies import build_policy, policy_class
from topbill.policies.trained import parse_trained, read_trained

from .conftest import CANDIDATE, CLICKS, World

Make = Callable[..., World]
BEST = (CLICKS["tv"]["d"] + CLICKS["web"]["a"]) / 2


def test_a_uniform_log_gives_a_policy_that_is_better_and_a_certificate(published: Make) -> None:
    """Two devices, each with an action of its own: a model over the device finds both."""
    world = published(n=3000)
    training = train("home", "linucb", world.data)
    found = training.certificate
    assert found.certified
    assert found.reason is None
    assert found.logger is not None
    assert found.low is not None
    assert found.value is not None
    assert found.logger < found.low < found.value
    assert abs(found.value - BEST) < 4 * (found.se or 0)
    # The earlier decisions teach, the last 30% of those that explored are scored.
    scored = [d for d in world.decisions if d.variant == "chance"]
    assert found.decisions == round(0.3 * len(scored)) <= MOST_HELD_OUT
    assert training.policy.decisions + found.decisions <= len(world.decisions)


def test_nothing_of_what_is_held_out_changes_the_policy(published: Make) -> None:
    """Rewards of the last 30% are turned round: the same policy, down to its bytes."""
    cut = [d.decided_at for d in published(n=1500).decisions if d.variant == "chance"]
    after = cut[round(0.7 * len(cut)) - 1]
    plain = train("home", "linucb", published(n=1500).data)
    place = {"now": 0}

    def change(decision: Decision) -> Decision:
        place["now"] = decision.decided_at
        return decision

    def click(device: str, action: str, _position: int) -> float:
        return CLICKS[device][action] if place["now"] <= after else 1.0

    turned = train("home", "linucb", published(n=1500, change=change, click=click).data)
    assert turned.policy.state == plain.policy.state
    assert turned.policy.params == plain.policy.params
    assert turned.certificate.logger == 1.0


def test_a_long_log_is_read_in_parts_and_gives_the_same(
    published: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each decision once and in its order, with all of its events, wherever a part ends."""
    world = published(n=600)
    whole = train("home", "thompson", world.data)
    data = LoggedData(world.data, "home")
    together = list(data.between(37, 590))
    assert [logged.seq for logged in together] == list(range(38, 591))
    assert sum(len(logged.events) for logged in together) > 50
    for size in (50, 553, 7):
        monkeypatch.setattr("topbill.ope.replay.logged_data.SORTED", size)
        assert list(data.between(37, 590)) == together
    read = [logged.decision for logged in data.between(37, 590, unread=("probabilities",))]
    data.close()
    assert read == [
        msgspec.structs.replace(logged.decision, probabilities=None) for logged in together
    ]
    assert read != [logged.decision for logged in together]
    assert train("home", "thompson", world.data).as_dict() == whole.as_dict()


def test_the_value_is_that_of_evaluation_on_the_same_decisions(published: Make) -> None:
    """As an independent path: what was learned, as a callable, put to `evaluate` since the parting.
    ips needs no reward model, and does not depend on how one is fitted.
    """
    world = published(n=2000)
    training = train("home", "linucb", world.data)
    at = training.policy.until / 1e6
    policy = _rebuilt(training.policy, world)
    compiled = CompiledExperiment(world.experiment)

    def choose(context: dict[str, str], names: list[str]) -> list[float]:
        x = compiled.encoder.encode(context)
        scored = policy.score(x, compiled.actions, 0)
        p = scored.probabilities(np.arange(4))
        return [0.005 + 0.98 * float(q) for q in p]

    from datetime import UTC, datetime

    since = datetime.fromtimestamp(at, UTC).isoformat()
    other = evaluate("home", choose, world.data, since=since).targets["choose"]["dr"]
    assert training.certificate.value == pytest.approx(other.value, abs=0.3 * (other.se or 0))
    assert training.certificate.decisions == other.diagnostics.rows


def _rebuilt(trained: object, world: World) -> object:
    from topbill.policies.trained import TrainedPolicy

    assert isinstance(trained, TrainedPolicy)
    params = msgspec.convert(trained.params, policy_class(trained.kind).Params)
    policy = build_policy(trained.kind, params, world.experiment.feature_columns, 0)
    policy.load(trained.state)
    return policy


def test_where_nothing_can_be_gained_nothing_is_certified(published: Make) -> None:
    world = published(n=1500, click=lambda _device, _action, _position: 0.4)
    found = train("home", "linucb", world.data).certificate
    assert not found.certified
    assert found.reason == "gain_undecided"
    assert found.low is not None
    assert found.logger is not None
    assert found.low <= found.logger
    assert found.sentence == f"{REASONS['gain_undecided']}. {REMEDIES['gain_undecided']}"


def test_a_log_that_cannot_speak_is_refused_with_its_reason(published: Make) -> None:
    """Of untrue propensities no weight is to be believed."""

    def untrue(decision: Decision) -> Decision:
        slate = tuple(msgspec.structs.replace(p, propensity=0.9) for p in decision.slate)
        return msgspec.structs.replace(decision, slate=slate, probabilities=None)

    found = train("home", "linucb", published(n=1500, change=untrue).data).certificate
    assert not found.certified
    assert found.value is None
    assert found.low is None
    assert found.reason in REASONS
    assert found.reason != "gain_undecided"
    assert found.logger is not None


def test_each_value_of_a_category_has_a_certificate_of_its_own(published: Make) -> None:
    world = published(n=3000)
    training = train("home", "linucb", world.data)
    by_value = {each.value: each.certificate for each in training.segments}
    assert set(by_value) == {"tv", "web"}
    assert sum(each.decisions for each in by_value.values()) == training.certificate.decisions
    for device, best in (("tv", 0.6), ("web", 0.5)):
        found = by_value[device]
        assert found.value is not None
        assert abs(found.value - best) < 4 * (found.se or 0)
    with pytest.raises(BadRequest, match=r"by: got 'devise'.*did you mean device"):
        train("home", "linucb", world.data, by=["devise"])


@pytest.mark.parametrize("kind", ["auto", "thompson", "epsilon_greedy", "squarecb"])
def test_every_kind_that_learns_can_be_trained(published: Make, kind: str) -> None:
    training = train("home", kind, published(n=800).data)
    assert training.policy.kind == kind
    assert training.certificate.value is not None
    assert training.certificate.value > 0.3


def test_a_variant_of_a_file_is_trained_as_the_file_says_it(published: Make) -> None:
    world = published(n=800)
    file = world.file(CANDIDATE)
    training = train("home", f"{file}@greedy", world.data)
    assert training.policy.kind == "epsilon_greedy"
    assert training.policy.params == {"epsilon": 0.05}
    assert train("home", file, world.data).policy.state == training.policy.state
    with pytest.raises(NotFound, match="no variant 'gredy'; expected greedy, fixed-d; did"):
        train("home", file, world.data, variant="gredy")
    with pytest.raises(BadRequest, match="got fixed, which learns nothing"):
        train("home", file, world.data, variant="fixed-d")


def test_decisions_that_were_likely_teach_less_often_only_where_that_pays(published: Make) -> None:
    """Every action as likely as the others: there is nothing to weigh, and nothing is tried."""
    training = train("home", "thompson", published(n=600).data, log_variants=["chance"])
    assert not training.weighted
    assert training.tried == {}


@pytest.mark.parametrize(
    ("policy", "options", "message"),
    [
        ("lincub", {}, "no such file, and no kind of policy.*did you mean linucb"),
        ("uniform", {}, "got uniform, which learns nothing"),
        ("scored", {}, "scored"),
        ("linucb", {"held_out": 1.0}, "held_out: got 1.0"),
        ("linucb", {"alpha": 0.7}, "alpha: got 0.7"),
        ("linucb", {"variant": "a"}, "variant: got 'a' of kind linucb"),
        ("linucb", {"log_variants": ["nobody"]}, "log_variants: got 'nobody'"),
        ("linucb", {"until": "2000-01-01"}, "decisions: got none of home by chance in that time"),
    ],
)
def test_what_cannot_be_meant_is_told(
    published: Make, policy: str, options: dict[str, object], message: str
) -> None:
    world = published(n=60)
    with pytest.raises((BadRequest, BadData, NotFound), match=message):
        train("home", policy, world.data, **options)  # type: ignore[arg-type]


def test_a_file_of_a_trained_policy_says_what_it_is_and_holds_it(
    published: Make, tmp_path: Path
) -> None:
    training = train("home", "linucb", published(n=600).data)
    path = tmp_path / "better.policy"
    training.write(path)
    again = read_trained(path)
    assert again.state == training.policy.state
    assert again.certificate["certified"] is training.certificate.certified
    assert again.context == training.policy.context
    assert json.loads(path.read_bytes().partition(b"\n")[0])["kind"] == "linucb"
    content = path.read_bytes()
    for bad in (b"", b"{}", content[:-1], content[:40], b"\xff\xfe", content + b"x"):
        with pytest.raises(PolicyError, match=r"x\.policy: .*topbill train KEY"):
            parse_trained(bad, "x.policy")
    with pytest.raises(NotFound, match="no such file"):
        read_trained(tmp_path / "absent.policy")
    with pytest.raises(PolicyError, match="is no file"):
        read_trained(tmp_path)


def test_the_command_prints_json_and_writes_the_policy(
    published: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world, path = published(n=800), tmp_path / "better.policy"
    command = ["train", "home", "--policy", "linucb", "--data", str(world.data)]
    cli.app([*command, "--out", str(path), "--json"], result_action="return_value")
    found = json.loads(capsys.readouterr().out)
    assert {"value", "low", "logger", "certified", "reason"} <= found.keys()
    assert found["certified"] is True
    assert found["out"] == str(path)
    assert read_trained(path).certificate["low"] == found["low"]
    cli.app(command, result_action="return_value")
    printed = capsys.readouterr().out
    assert "certified" in printed
    assert "device=tv" in printed


def test_parts_of_a_pass_are_what_a_pass_over_the_part_would_be(published: Make) -> None:
    """A condition of `evaluate` and a segment of `train` are the same decisions."""
    world = published(n=2000)
    training = train("home", "linucb", world.data)
    (tv,) = [each.certificate for each in training.segments if each.value == "tv"]
    data = LoggedData(world.data, "home")
    try:
        at = training.policy.until
        own = [
            logged
            for logged in data
            if logged.decision.decided_at >= at
            and logged.decision.variant == "chance"
            and msgspec.json.decode(logged.decision.context)["device"] == "tv"
        ]
    finally:
        data.close()
    assert tv.decisions == len(own)
    assert tv.logger == pytest.approx(np.mean([bool(logged.events) for logged in own]))


@pytest.mark.parametrize("kind", ["auto", "thompson", "linucb", "uniform"])
def test_decisions_are_scored_together_as_they_are_one_by_one(published: Make, kind: str) -> None:
    """What a frozen policy shows, and what the reward model expects, in one call for many."""
    world = published(n=400)
    data = LoggedData(world.data, "home")
    try:
        logged = list(data)
        experiment, decisions = world.experiment, [each.decision for each in logged]
        alone = replace(experiment.variants[0], policy=kind, params=policy_class(kind).Params())
        experiment = replace(experiment, variants=(replace(alone, name="new"),))
        compiled = CompiledExperiment(experiment)
        lessons = [
            (msgspec.structs.replace(each.decision, variant="new"), each.events) for each in logged
        ]
        assert teach(compiled, lessons) == len(lessons)
        target = FrozenPolicy(compiled, "new", data.offers, data.tables, "new")
        single = [target.probabilities(decision) for decision in decisions]
        target.read(decisions)
        assert set(target._drawn) == {decision.decision_id for decision in decisions}
        together = [target.probabilities(decision) for decision in decisions]
        np.testing.assert_allclose(together, single, rtol=0, atol=1e-12)

        scored = HeldOutPass(data, [target], ["chance"])
        scored.teach(logged)
        found = [scored._encoded(decision) for decision in decisions]
        model = scored._model
        expected = np.array([model.predict(x, actions, 1)[:, 0] for x, actions in found])
        xs = np.array([x for x, _ in found])
        np.testing.assert_allclose(
            model.predict_each(xs, compiled.actions), expected, rtol=0, atol=1e-12
        )
        assert len(np.unique(expected.round(9))) > 2
    finally:
        data.close()


def test_where_the_log_is_thin_a_certificate_takes_no_models_word(published: Make) -> None:
    """q̂ counts in full where an action was as likely as half of chance, and as much less as it was
    rarer; all of the log's probabilities unknown, not at all.
    """
    world = published(n=60)
    data = LoggedData(world.data, "home")
    try:
        compiled = CompiledExperiment(world.experiment)
        scored = HeldOutPass(data, [], ["chance"])
        scored.teach(list(data))
        x = compiled.encoder.encode({"device": "tv"})
        decision = world.decisions[0]

        def modelled(p: tuple[float, ...] | None) -> Any:
            probabilities = None if p is None else (p,)
            logged = msgspec.structs.replace(decision, probabilities=probabilities)
            return scored._modelled(logged, x, compiled.actions)[0]

        even = modelled((0.25, 0.25, 0.25, 0.25))
        assert (even > 0).any()
        thin = modelled((0.0125, 0.0, 0.125, 0.8625))
        # Among the three that could be drawn chance is a third, and half of it a sixth.
        assert thin == pytest.approx(even * [0.075, 0.0, 0.75, 1.0])
        assert (modelled(None) == 0.0).all()
    finally:
        data.close()
