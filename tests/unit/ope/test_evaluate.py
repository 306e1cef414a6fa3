"""`evaluate`: truth recovered from a published log, progressive training, refusals, and errors that
name decisions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from topbill.domain.errors import BadData, BadRequest, NotFound
from topbill.domain.records import Decision, Placement, RewardEvent, Snapshot
from topbill.log import open_log
from topbill.ope import OPEN, Evaluation, Gates, evaluate
from topbill.ope.text import render

from .conftest import CANDIDATE, CLICKS, ONE_SLOT, SECOND, START, World, lay

Make = Callable[..., World]
VALUE = {action: (CLICKS["tv"][action] + CLICKS["web"][action]) / 2 for action in "abcd"}


def within(found: Evaluation, target: str, truth: float, sigmas: float = 4.0) -> None:
    for e in found.targets[target].values():
        if e.estimator not in ("dm", "clipped-ips", "switch-dr", "dros"):  # these may be biased
            assert e.value is not None, (target, e.reason)
            assert e.se is not None
            assert abs(e.value - truth) < sigmas * e.se, (e.estimator, e.value, truth)


@pytest.mark.parametrize("action", "abcd")
def test_a_single_action_is_worth_its_known_value(published: Make, action: str) -> None:
    found = evaluate("home", f"always {action}", published().data)
    within(found, f"always {action}", VALUE[action])
    assert found.variants == ("chance",)
    assert found.left_out["other variants"] + found.decisions == 4000


def test_uniform_on_a_uniform_log_is_what_the_log_earned(published: Make) -> None:
    found = evaluate("home", "uniform", published().data)
    uniform = found.targets["uniform"]["ips"]
    assert uniform.value == pytest.approx(found.logged.value)
    assert uniform.se == pytest.approx(found.logged.se)
    assert uniform.diagnostics.calibration == pytest.approx(1.0)


def test_actions_that_look_alike_share_their_weight(published: Make) -> None:
    """a and b look alike and pay alike, c and d too: mips needs only the kind of an action, and is
    surer for it.
    """
    spec = ONE_SLOT.replace(
        "actions: [{id: a}, {id: b}, {id: c}, {id: d}]",
        "action_features: {warm: {type: flag}}\n"
        + "actions:\n"
        + "\n".join(
            f"  - {{id: {a}, features: {{warm: {str(a in 'ab').lower()}}}}}" for a in "abcd"
        ),
    )
    world = published(
        spec=spec, click=lambda _device, action, _position: 0.5 if action in "ab" else 0.1
    )
    found = evaluate("home", "always a", world.data, estimators=("ips", "mips")).targets["always a"]
    assert found["mips"].value == pytest.approx(0.5, abs=4 * (found["mips"].se or 0))
    assert (found["mips"].se or 1) < 0.7 * (found["ips"].se or 0)
    plain = evaluate("home", "always a", published().data, estimators=("mips",)).targets[
        "always a"
    ]["mips"]
    assert plain.reason == "needs_embedding_propensities"


def test_a_callable_sees_context_and_remaining_actions(published: Make) -> None:
    def by_device(context: Mapping[str, Any], actions: Sequence[str]) -> list[float]:
        best = "d" if context["device"] == "tv" else "a"
        return [0.9 if a == best else 0.1 / (len(actions) - 1) for a in actions]

    truth = 0.0
    for device, best in (("tv", "d"), ("web", "a")):
        rest = sum(p for a, p in CLICKS[device].items() if a != best) / 3
        truth += 0.5 * (0.9 * CLICKS[device][best] + 0.1 * rest)
    within(evaluate("home", by_device, published().data), "by_device", truth)


def test_a_model_that_sees_the_context_narrows_the_interval(published: Make) -> None:
    found = evaluate("home", "always d", published().data, estimators=("ips", "snips", "dr"))
    ips, snips, dr = (found.targets["always d"][name] for name in ("ips", "snips", "dr"))
    assert dr.se is not None
    assert ips.se is not None
    assert snips.se is not None
    assert dr.se < snips.se < ips.se


@pytest.mark.parametrize("link", ["linear", "logistic"])
def test_every_variant_of_a_file_is_evaluated_and_learns_from_the_past(
    published: Make, link: Any
) -> None:
    world = published()
    found = evaluate("home", world.file(CANDIDATE), world.data, link=link)
    assert set(found.targets) == {"candidate/greedy", "candidate/fixed-d"}
    within(found, "candidate/fixed-d", VALUE["d"])
    learned, logged = found.targets["candidate/greedy"]["dr"], found.logged
    assert learned.low is not None
    assert logged.high is not None
    assert learned.low > logged.high  # it learns that d suits the living room and a the desk


def test_nothing_is_trained_on_what_it_is_scored_on(published: Make) -> None:
    """A policy that would only repeat what paid, trained on shuffled luck: any look ahead would
    show as a gain.
    """
    world = published(click=lambda _device, _action, _position: 0.2)
    found = evaluate("home", world.file(CANDIDATE), world.data, variant="greedy")
    assert set(found.targets) == {"candidate/greedy"}
    within(found, "candidate/greedy", 0.2)


def test_a_snapshot_is_scored_on_what_came_after_it(published: Make) -> None:
    world = published(n=3000)
    with pytest.raises(NotFound, match="no log there"):
        evaluate("home", "snapshot", world.data)
    log = open_log(world.data / "log.sqlite")
    with pytest.raises(NotFound, match="no policy version"):
        evaluate("home", "snapshot", world.data)
    from topbill.worker.policy_fold import PolicyFold

    states = PolicyFold(world.experiment).states()
    log.write_snapshot(
        Snapshot(
            experiment="home",
            version=1,
            watermark=1000,
            fingerprint=world.experiment.learning_fingerprint,
            states=states,
        )
    )
    log.close()
    found = evaluate("home", "snapshot", world.data, variant="chance")
    assert found.decisions < 2000
    assert 0 < found.left_out["before the snapshot"] <= 1000
    assert set(found.targets) == {"home/chance v1"}
    again = evaluate("home", "snapshot:1", world.data, variant="chance")
    assert (
        again.targets["home/chance v1"]["ips"].value == found.targets["home/chance v1"]["ips"].value
    )
    with pytest.raises(NotFound, match="no policy version 7"):
        evaluate("home", "snapshot:7", world.data)


def test_rankings_use_the_ranking_estimators_and_recover_the_truth(published: Make) -> None:
    spec = ONE_SLOT.replace("slots: 1", "slots: 2")
    world = published(
        n=6000,
        spec=spec,
        click=lambda device, action, k: CLICKS[device][action] * (0.5 if k else 1.0),
    )
    found = evaluate("home", "always d", world.data)
    below = sum(VALUE[a] for a in "abc") / 3
    assert set(found.targets["always d"]) == {"sips", "rips", "snsips", "snrips", "cascade-dr"}
    within(found, "always d", VALUE["d"] + 0.5 * below)
    assert found.logged.value == pytest.approx(1.5 * sum(VALUE.values()) / 4, abs=0.05)
    exploration = found.targets["always d"]["rips"].diagnostics.exploration
    assert exploration == (1.0, 1.0)


def test_progress_is_told_and_json_is_plain(published: Make) -> None:
    seen: list[tuple[int, int]] = []
    found = evaluate(
        "home",
        "uniform",
        published(n=1500).data,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (1500, 1500)
    assert seen == sorted(seen)
    text = json.dumps(found.as_dict(), allow_nan=False)
    assert json.loads(text)["targets"]["uniform"]["snips"]["value"] == pytest.approx(
        0.2875, abs=0.1
    )


# Refusals and errors
# ----------------------------------------------------------------------------------------------


def test_a_target_outside_the_logs_support_is_refused(published: Make) -> None:
    def never_d(decision: Decision) -> Decision:
        if decision.variant != "chance":
            return decision
        third = 1 / 3
        action = decision.slate[0].action
        placed = Placement(0, action if action != "d" else "a", third)
        return msgspec.structs.replace(
            decision, slate=(placed,), propensity=third, probabilities=((third, third, third, 0.0),)
        )

    data = published(change=never_d).data
    found = evaluate("home", "always d", data)
    assert {e.reason for e in found.targets["always d"].values()} == {"no_support"}
    half = evaluate("home", lambda _c, a: [0.5 if x in "cd" else 0.0 for x in a], data).targets[
        "<lambda>"
    ]
    assert {e.reason for e in half.values()} == {"no_support"}
    assert half["ips"].diagnostics.unsupported == pytest.approx(0.5)


def test_untrue_propensities_are_refused(published: Make) -> None:
    def claimed(decision: Decision) -> Decision:
        return msgspec.structs.replace(
            decision, slate=tuple(Placement(p.position, p.action, 0.2) for p in decision.slate)
        )

    found = evaluate("home", "uniform", published(change=claimed).data)
    assert {e.reason for e in found.targets["uniform"].values()} == {"mean_weight_off"}


def test_a_log_too_young_to_judge_is_refused(published: Make) -> None:
    found = evaluate("home", "uniform", published(n=1000, age=-700).data)
    assert found.left_out["immature"] > 500
    assert {e.reason for e in found.targets["uniform"].values()} == {"rewards_immature"}
    younger = evaluate("home", "uniform", published(n=300, age=-400).data)
    assert {e.reason for e in (younger.logged, *younger.targets["uniform"].values())} == {
        "rewards_immature"
    }


def test_policy_versions_inside_the_log_are_counted_and_warned_of(published: Make) -> None:
    data = published(
        change=lambda d: msgspec.structs.replace(d, policy_version=int(d.decision_id[1:]) // 100)
    ).data
    diagnostics = evaluate("home", "uniform", data).targets["uniform"]["ips"].diagnostics
    assert diagnostics.policy_versions == 40
    assert any("adaptive-dr" in warning for warning in diagnostics.warnings)
    strict = evaluate("home", "uniform", data, gates=Gates(policy_versions=10)).targets["uniform"]
    assert {e.reason for e in strict.values()} == {"mixed_policy_versions"}


def test_a_position_that_hardly_explores_can_be_refused(published: Make) -> None:
    spec = ONE_SLOT.replace(
        "{policy: uniform, share: 80%}",
        "{policy: fixed, order: [a], min_probability: 1%, share: 80%}",
    )
    world = published(n=1000, spec=spec)
    found = evaluate("home", "uniform", world.data, estimators=("ips",))
    assert found.targets["uniform"]["ips"].diagnostics.exploration == (1.0,)
    sure = published(
        n=1000,
        spec=spec,
        change=lambda d: msgspec.structs.replace(d, slate=(Placement(0, d.slate[0].action, 1.0),)),
    )
    strict = evaluate(
        "home", "uniform", sure.data, estimators=("ips",), gates=Gates(exploration=0.05)
    )
    assert strict.targets["uniform"]["ips"].reason == "no_exploration"


def test_what_cannot_be_evaluated_is_named(published: Make) -> None:
    world = published(n=300)
    with pytest.raises(
        NotFound, match="experiment 'away' is not in the lake; expected one of home"
    ):
        evaluate("away", "uniform", world.data)
    with pytest.raises(
        BadData, match=r"policy: got unknown action 'z'; expected one of a, b, c, d"
    ):
        evaluate("home", "always z", world.data)
    with pytest.raises(
        BadData,
        match=r"decisions d\d+, d\d+, d\d+, d\d+, d\d+ and \d+ more of home: .*unknown action 'd'",
    ):
        evaluate(
            "home",
            world.file(CANDIDATE.replace(", {id: d}]", "]").replace("[d]", "[a]")),
            world.data,
        )
    with pytest.raises(
        BadData, match=r"decisions d\d+, .* sum to 2; expected none below 0 and sum 1"
    ):
        evaluate("home", lambda _context, actions: np.full(len(actions), 0.5), world.data)
    with pytest.raises(BadData, match=r"got \(2,\) probabilities; expected 4"):
        evaluate("home", lambda _context, _actions: [0.5, 0.5], world.data)
    with pytest.raises(NotFound, match=r"nosuch\.yaml: no such file"):
        evaluate("home", "nosuch.yaml", world.data)
    with pytest.raises(NotFound, match="no variant 'x'; expected greedy, fixed-d"):
        evaluate("home", world.file(CANDIDATE), world.data, variant="x")


def test_an_action_that_was_not_eligible_is_an_error(published: Make) -> None:
    def broken(decision: Decision) -> Decision:
        placed = Placement(0, "z", 0.25)
        return (
            msgspec.structs.replace(decision, slate=(placed,))
            if decision.decision_id == "d7"
            else decision
        )

    world = published(
        n=100,
        change=broken,
        spec=ONE_SLOT.replace("share: 20%", "share: 0.1%").replace("80%", "99.9%"),
    )
    with pytest.raises(
        BadData,
        match=r"decisions d7 of home: slate: got unknown action 'z'; expected .* a, b, c, d",
    ):
        evaluate("home", "uniform", world.data)


def test_decisions_of_another_schema_are_left_out_and_counted(published: Make) -> None:
    def older(decision: Decision) -> Decision:
        old = msgspec.structs.replace(decision, context=msgspec.Raw(b'{"screen": "tv"}'))
        return old if int(decision.decision_id[1:]) < 200 else decision

    found = evaluate("home", "uniform", published(n=1000, change=older).data)
    assert (
        found.left_out["of another schema"] + found.left_out["other variants"] + found.decisions
        == 1000
    )
    assert found.left_out["of another schema"] > 100


def test_a_log_without_rewards_is_an_error(published: Make) -> None:
    silent = published(n=200, click=lambda *_: 0.0)
    with pytest.raises(BadData, match="rewards: decisions 0 to 199 of home: got no reward event"):
        evaluate("home", "uniform", silent.data)


def test_a_log_that_never_explores_is_an_error(published: Make) -> None:
    world = published(
        n=200, spec=ONE_SLOT.replace("{policy: uniform, share: 80%}", "{policy: fixed, share: 80%}")
    )
    with pytest.raises(BadRequest, match="no variant explores"):
        evaluate("home", "uniform", world.data)


@pytest.mark.parametrize("p", [0.0, 1.5, float("nan")])
def test_a_logged_propensity_that_is_none_is_an_error(published: Make, p: float) -> None:
    def broken(decision: Decision) -> Decision:
        if decision.decision_id != "d7":
            return decision
        return msgspec.structs.replace(decision, slate=(Placement(0, decision.slate[0].action, p),))

    world = published(
        n=100,
        change=broken,
        spec=ONE_SLOT.replace("share: 20%", "share: 0.1%").replace("80%", "99.9%"),
    )
    with pytest.raises(
        BadData, match=r"decisions d7 of home: .*expected a probability in \(0, 1\]"
    ):
        evaluate("home", "uniform", world.data)


# Actions that the log never offered
# ----------------------------------------------------------------------------------------------

MORE = CANDIDATE.replace("{id: d}]", "{id: d}, {id: new}]")


@pytest.mark.parametrize("brought", [False, True])
@pytest.mark.parametrize(
    ("variant", "mass"),
    [
        ("greedy: {policy: epsilon_greedy, epsilon: 1.0, share: 50%, control: true}", 0.2),
        ("greedy: {policy: uniform, share: 50%, control: true}", 0.2),
        ("greedy: {policy: fixed, order: [new, d], share: 50%, control: true}", 1.0),
        (
            "greedy: {policy: fixed, order: [new], min_probability: 10%, share: 50%, "
            "control: true}",
            0.6,
        ),
    ],
)
def test_what_the_log_never_offered_is_unsupported_for_every_kind_of_policy(
    published: Make, variant: str, mass: float, brought: bool
) -> None:
    """Whether decisions chose among the file's actions or brought their own."""
    own = msgspec.Raw(msgspec.json.encode([{"id": name} for name in "abcd"]))
    world = published(
        n=600, change=lambda d: msgspec.structs.replace(d, actions=own) if brought else d
    )
    text = MORE.replace(
        "greedy: {policy: epsilon_greedy, epsilon: 0.05, share: 50%, control: true}", variant
    )
    found = evaluate("home", world.file(text), world.data, variant="greedy")
    for each in found.targets["candidate/greedy"].values():
        assert each.diagnostics.unsupported == pytest.approx(mass)
        assert "the log never offered new" in each.diagnostics.warnings
        assert each.reason == "no_support"


def test_what_rules_or_callers_keep_away_from_everybody_is_supported(published: Make) -> None:
    """d is in both files and in no decision: neither could have shown it."""

    def without_d(decision: Decision) -> Decision:
        if "d" in [placed.action for placed in decision.slate]:
            placed = (Placement(0, "a", 1 / 3),)
        else:
            placed = (Placement(0, decision.slate[0].action, 1 / 3),)
        return msgspec.structs.replace(
            decision, eligible=("a", "b", "c"), slate=placed, probabilities=None
        )

    text = CANDIDATE.replace("policy: epsilon_greedy, epsilon: 0.05", "policy: uniform")
    world = published(n=600, change=without_d)
    found = evaluate("home", world.file(text), world.data, variant="greedy", estimators=("snips",))
    each = found.targets["candidate/greedy"]["snips"]
    assert each.diagnostics.unsupported == pytest.approx(0.0)
    assert each.reason is None


def test_a_slate_may_want_the_unseen_at_each_position(published: Make) -> None:
    world = published(n=600, spec=ONE_SLOT.replace("slots: 1", "slots: 2"))
    text = MORE.replace("policy: epsilon_greedy, epsilon: 0.05", "policy: uniform").replace(
        "surface: artwork", "surface: artwork\nslots: 2"
    )
    found = evaluate("home", world.file(text), world.data, variant="greedy")
    for each in found.targets["candidate/greedy"].values():
        assert each.diagnostics.unsupported == pytest.approx((1 / 5 + 1 / 4) / 2)
        assert each.reason == "no_support"


def test_always_an_action_says_how_often_it_was_offered(published: Make) -> None:
    def now_and_then(decision: Decision) -> Decision:
        if int(decision.decision_id[1:]) % 2:
            return decision
        return msgspec.structs.replace(
            decision,
            eligible=("a", "b", "c"),
            slate=(Placement(0, "abc"[len(decision.unit) % 3], 1 / 3),),
            probabilities=None,
        )

    world = published(n=1000, change=now_and_then)
    found = evaluate("home", "always d", world.data, estimators=("ips",)).targets["always d"]
    assert any(
        warning.startswith("d was offered in 500 of 1,000 decisions")
        for warning in found["ips"].diagnostics.warnings
    )


def test_a_typo_in_always_is_refused_with_the_nearest_name(published: Make) -> None:
    names = {"a": "rome", "b": "oslo", "c": "lima", "d": "cairo"}

    def brought(decision: Decision) -> Decision:
        return msgspec.structs.replace(
            decision,
            actions=msgspec.Raw(msgspec.json.encode([{"id": n} for n in names.values()])),
            eligible=tuple(names.values()),
            slate=(Placement(0, names[decision.slate[0].action], decision.slate[0].propensity),),
        )

    world = published(n=200, change=brought, click=lambda *_: 0.5)
    with pytest.raises(
        BadData,
        match=r"got unknown action 'limaa'; expected one of cairo, lima, oslo, rome; it was "
        r"offered in none of 200 decisions; did you mean lima\?",
    ):
        evaluate("home", "always limaa", world.data)


# What the objective cuts off
# ----------------------------------------------------------------------------------------------


def test_rewards_beyond_the_ends_of_the_objective_are_counted_and_warned_of(
    published: Make,
) -> None:
    """Ten decisions earned 1.5 of a cap of 1, five −1, which count as 1 and 0."""
    world = published(n=400, spec=ONE_SLOT.replace("kind: binary", "kind: sum, cap: 1"))
    scored = [d for d in world.decisions if d.variant == "chance"]
    events = []
    for number, decision in enumerate(scored):
        value = 1.5 if number < 10 else -1.0 if number < 15 else float(number % 2)
        events.append(
            RewardEvent(
                decision_id=decision.decision_id,
                event_id="e",
                event="play",
                value=value,
                received_at=decision.decided_at + 1,
            )
        )
    again = world.data.parent / "clipped"
    lay(again, world.experiment, world.decisions, events, START + 10_000 * SECOND)
    found = evaluate("home", "uniform", again, estimators=("ips",))
    assert found.clipped == {"play above its cap of 1": 10, "play below 0": 5}
    assert found.as_dict()["clipped"] == found.clipped
    above, below = found.targets["uniform"]["ips"].diagnostics.warnings[:2]
    assert above.startswith(f"10 of {len(scored)} decisions have play above its cap of 1 and count")
    assert below.startswith(f"5 of {len(scored)} decisions have play below 0 and count as that end")
    clean = evaluate("home", "uniform", published(n=400).data, estimators=("ips",))
    assert clean.clipped == {}


def test_a_sample_says_what_all_units_would_add(published: Make) -> None:
    data = published().data
    whole, part = (evaluate("home", "uniform", data, most=most) for most in (None, 1_000))
    assert (whole.sampled, part.sampled) == (1.0, 0.25)
    of_all, of_sample = (found.targets["uniform"].recommended for found in (whole, part))
    assert of_all is not None
    assert of_sample is not None
    expected = part.half_width_of_all(of_sample)
    assert expected == pytest.approx(whole.half_width_of_all(of_all), rel=0.2)
    assert f"with all units it would be to about ±{expected:.2g}" in told(part)
    assert "a sample" not in told(whole)


def told(found: Evaluation) -> str:
    text = StringIO()
    render(found, Console(file=text, width=200))
    return text.getvalue()


def test_intervals_lie_within_what_can_be_earned(published: Make) -> None:
    """At a level where those of sixty decisions would reach far beyond both ends."""
    for chance, end in ((0.05, "low"), (0.95, "high")):
        data = published(60, click=lambda *_, chance=chance: chance).data
        found = evaluate("home", "uniform", data, gates=OPEN, alpha=1e-9)
        assert found.value_range == (0.0, 1.0)
        assert found.as_dict()["value_range"] == [0.0, 1.0]
        limit = 0.0 if end == "low" else 1.0
        assert getattr(found.logged, end) == limit
        assert getattr(found.targets["uniform"]["ips"], end) == limit
        for e in (found.logged, *found.targets["uniform"].values()):
            assert e.low is not None
            assert e.high is not None
            assert 0.0 <= e.low <= e.high <= 1.0
        for e in found.against("uniform").values():
            assert e.low is not None
            assert e.high is not None
            assert -1.0 <= e.low <= e.high <= 1.0


def test_the_range_is_in_the_units_that_values_are_told_in(published: Make) -> None:
    spec = ONE_SLOT.replace("kind: binary", "kind: last, floor: -1, cap: 3")
    found = evaluate("home", "uniform", published(60, spec).data, gates=OPEN, alpha=1e-9)
    assert (found.measured_in, found.value_range) == ("play", (-1.0, 3.0))
    ranking = ONE_SLOT.replace("slots: 1", "slots: 2")
    assert evaluate("home", "uniform", published(60, ranking).data).value_range == (0.0, 2.0)


def test_an_estimate_beyond_what_can_be_earned_is_told_in_words(published: Make) -> None:
    """Where all play, what was shown more often than expected is worth more than 1 by its
    weights alone.
    """
    data = published(90, click=lambda *_: 1.0).data
    always = [f"always {action}" for action in "abcd"]
    found = evaluate(
        "home", data_dir=data, policies=always, gates=OPEN, estimators=("ips", "snips")
    )
    each = [estimates["ips"] for estimates in found.targets.values()]
    beyond = max(each, key=lambda e: e.value or 0.0)
    assert beyond.value is not None
    assert beyond.value > 1.0
    assert beyond.high == 1.0
    assert f"ips is {beyond.value:.5g}, above 1, the most that can be earned" in " ".join(
        beyond.diagnostics.warnings
    )
    within_range = min(each, key=lambda e: e.value or 0.0)
    assert "the most that can be earned" not in " ".join(within_range.diagnostics.warnings)
    assert "above 1, the most that can" in " ".join(told(found).split())
