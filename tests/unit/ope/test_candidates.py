"""`evaluate` with several candidates: paired differences, parts of a log, other objectives, rows
that stand for several, and what is told where there is no number.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from topbill import cli
from topbill.domain.errors import BadData, BadRequest, NotFound
from topbill.domain.records import Decision, Placement
from topbill.ope import REASONS, REMEDIES, Evaluation, evaluate, text
from topbill.ope.replay.logged_data import judged_by
from topbill.ope.replay.reward_model import RewardModel
from topbill.ope.replay.selection import Selection
from topbill.spec import from_raw

from .conftest import CANDIDATE, CLICKS, ONE_SLOT, SECOND, START, World

Make = Callable[..., World]
VALUE = {action: (CLICKS["tv"][action] + CLICKS["web"][action]) / 2 for action in "abcd"}
TWO = ("ips", "dr")


# Differences
# ----------------------------------------------------------------------------------------------


def test_several_candidates_are_compared_with_the_log_and_with_each_other(published: Make) -> None:
    world = published(n=2000)
    found = evaluate(
        "home", "always a", world.data, policies=["always d", "uniform"], estimators=TWO
    )
    assert list(found.targets) == ["always a", "always d", "uniform"]
    pairs = [(pair.target, pair.baseline) for pair in found.differences]
    assert pairs == [
        ("always a", "the log"),
        ("always d", "the log"),
        ("uniform", "the log"),
        ("always d", "always a"),
        ("uniform", "always a"),
        ("uniform", "always d"),
    ]
    for name in TWO:
        e = found.against("always d", "always a")[name]
        ours, theirs = found.targets["always d"][name], found.targets["always a"][name]
        assert e.value == pytest.approx(ours.value - theirs.value)  # type: ignore[operator]
        assert abs((e.value or 0) - (VALUE["d"] - VALUE["a"])) < 4 * (e.se or 0)
        against_log = found.against("always d")[name]
        assert against_log.value == pytest.approx(ours.value - found.logged.value)  # type: ignore[operator]
    # Of the policy that wrote the log the difference to it is nothing, and surely so.
    same = found.against("uniform")["ips"]
    assert same.value == pytest.approx(0.0, abs=1e-12)
    assert same.se == pytest.approx(0.0, abs=1e-8)  # the root of a sum that rounds to some 1e-20
    with pytest.raises(NotFound, match="no difference of uniform to nobody; expected one of"):
        found.against("uniform", "nobody")


def test_what_two_policies_share_cancels(published: Make) -> None:
    def mostly(best: str) -> Callable[..., list[float]]:
        def choose(_context: Any, actions: Any) -> list[float]:
            return [
                0.7 + 0.03 * (a == best) if a in "a" else 0.1 - 0.01 * (a != best) for a in actions
            ]

        def normal(context: Any, actions: Any) -> list[float]:
            p = np.array(choose(context, actions))
            return list(p / p.sum())

        normal.__name__ = best
        return normal

    found = evaluate(
        "home", [mostly("b"), mostly("c")], published(n=1500).data, estimators=("ips",)
    )
    difference = found.against("c", "b")["ips"]
    apart = [found.targets[name]["ips"].se or 0.0 for name in "bc"]
    assert (difference.se or 1.0) < 0.2 * min(apart)


@pytest.mark.parametrize("interval", ["normal", "bootstrap", "betting", "sequence"])
def test_every_interval_has_its_differences(published: Make, interval: Any) -> None:
    found = evaluate(
        "home",
        ["always a", "always d"],
        published(n=1500).data,
        estimators=("ips",),
        interval=interval,
    )
    for pair in (("always d", "always a"), ("always d", "the log")):
        e = found.against(*pair)["ips"]
        truth = VALUE["d"] - (
            VALUE["a"] if pair[1] == "always a" else np.mean(list(VALUE.values()))
        )
        assert e.low is not None
        assert e.high is not None
        wide = e.high - e.low
        assert e.low - 0.6 * wide < truth < e.high + 0.6 * wide
    if interval == "betting":
        assert "half the level" in e.method


def test_rankings_have_differences_too(published: Make) -> None:
    world = published(n=3000, spec=ONE_SLOT.replace("slots: 1", "slots: 2"))
    found = evaluate("home", ["always d", "always a"], world.data)
    for e in found.against("always a", "always d").values():
        assert e.value is not None, e.reason
        assert abs(e.value - 2 / 3 * (VALUE["a"] - VALUE["d"])) < 4 * (e.se or 0.0), e.estimator
    with pytest.raises(BadRequest, match=r"got 'adaptive-dr'; expected some of sips.* of rankings"):
        evaluate("home", "uniform", world.data, estimators=("adaptive-dr",))


def test_two_files_with_one_name_keep_apart(published: Make) -> None:
    world = published(n=1500)
    other = CANDIDATE.replace("order: [d]", "order: [a]")
    files = [world.file(CANDIDATE), world.file(other, "other.yaml")]
    found = evaluate("home", [*files], world.data, variant="fixed-d", estimators=("ips",))
    assert list(found.targets) == ["candidate/fixed-d", "candidate/fixed-d (2)"]
    one = evaluate("home", f"{files[0]}@fixed-d", world.data, estimators=("ips",))
    assert list(one.targets) == ["candidate/fixed-d"]
    assert one.targets["candidate/fixed-d"] == found.targets["candidate/fixed-d"]
    with pytest.raises(BadRequest, match="policy: got none"):
        evaluate("home", [], world.data)


# Parts of a log
# ----------------------------------------------------------------------------------------------


def test_a_part_of_the_log_answers_for_itself(published: Make) -> None:
    world = published(n=2000)
    tv = evaluate("home", "always d", world.data, where="device=tv", estimators=TWO)
    assert tv.selection == {"where": ["device=tv"]}
    assert tv.left_out["not device=tv"] > 500
    for e in tv.targets["always d"].values():
        assert abs((e.value or 0) - CLICKS["tv"]["d"]) < 4 * (e.se or 0)
    whole = evaluate("home", "always d", world.data, where=["device=tv,web"], estimators=TWO)
    assert whole.decisions == tv.decisions + tv.left_out["not device=tv"]


def test_a_span_of_time_begins_with_since_and_ends_before_until(published: Make) -> None:
    world = published(n=1000)
    at = datetime.fromtimestamp(START / 1e6, UTC) + timedelta(seconds=400)
    found = evaluate("home", "uniform", world.data, since=at, estimators=("ips",))
    rest = evaluate("home", "uniform", world.data, until=at.isoformat(), estimators=("ips",))
    assert found.first_at == START + 400 * SECOND or found.decisions < 600
    assert 300 < found.left_out["before since"] <= 400
    assert found.decisions == rest.left_out["not before until"]
    elsewhere = at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    again = evaluate("home", "uniform", world.data, since=elsewhere, estimators=("ips",))
    assert again.decisions == found.decisions
    day = at.date()
    assert evaluate("home", "uniform", world.data, since=day, estimators=("ips",)).decisions


SCHEMA = {
    "experiment": "rich",
    "surface": "titles",
    "context": {
        "device": {"type": "category", "values": ["tv", "web", "a, b"]},
        "hour": {"type": "cycle", "period": 24},
        "kids": {"type": "flag"},
        "taste": {"type": "vector", "keys": ["drama", "war"]},
        "more": {"type": "hashed", "size": 64},
    },
    "metrics": {
        "play": {"event": "play", "kind": "binary", "window": "60s"},
        "watched": {"event": "watched", "kind": "sum", "window": "60s", "cap": 10},
    },
    "objective": {"play": 1.0},
    "actions": [{"id": "a"}, {"id": "b"}],
    "variants": {"all": {"policy": "uniform", "share": "100%", "control": True}},
}
CONTEXT = {
    "device": "tv",
    "hour": 18.5,
    "kids": True,
    "taste": {"drama": 0.7},
    "more": {"city": "rome", "age": 7, "new": False},
}


def decision(context: dict[str, Any]) -> Decision:
    return Decision(
        decision_id="d", experiment="rich", revision="r1", variant="all", unit="O'Brien",
        policy="uniform", reason="policy", context=msgspec.Raw(json.dumps(context).encode()),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("device=tv", True),
        ("device==tv", True),
        (" device = 'tv' ", True),
        ("device!=tv", False),
        ("device=web,tv", True),
        ("device=a, b", False),
        ("hour>=18", True),
        ("hour<18", False),
        ("hour=18.5,19", True),
        ("hour!=18.5", False),
        ("kids=true", True),
        ("kids!=yes", False),
        ("taste:drama>0.5", True),
        ("taste:war>=0", False),  # nothing there: no condition is met
        ("taste:war!=1", False),
        ("more:city=rome", True),
        ("more:age>6", True),
        ("more:age=7", True),
        ("more:new=false", True),
        ("more:none=1", False),
        ("variant=all", True),
        ("variant!=other", True),
        ("unit=O'Brien", True),
        ("unit=' OR 1=1 --", False),
        ("revision=r1", True),
    ],
)
def test_conditions_compare_values_as_what_they_are(condition: str, holds: bool) -> None:
    experiment = from_raw(SCHEMA, "rich.yaml")
    cause = Selection(experiment, condition).cause(decision(CONTEXT))
    assert (cause is None) == holds
    assert Selection(experiment, condition).cause(decision({})) is not None or "=" in condition


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": "devise=tv"}, r"where: got 'devise' in .*; expected one of device, hour, kids, "
         r"taste, more, variant, unit, revision; did you mean device\?"),
        ({"where": "device=tw"}, r"got device=tw; expected one of tv, web"),
        ({"where": "device>tv"}, "expected = or !=, as device has no order"),
        ({"where": "hour>=late"}, "expected a number, as hour is one"),
        ({"where": "hour>1,2"}, "expected a number"),
        ({"where": "kids=maybe"}, "expected kids=true or kids=false"),
        ({"where": "taste>1"}, "expected taste:drama, taste:war"),
        ({"where": "taste:love>1"}, "got taste:love; expected taste:drama, taste:war"),
        ({"where": "device:x=tv"}, "got device:x; expected device"),
        ({"where": "1=1; DROP TABLE decisions"}, "got '1' in"),
        ({"where": "device"}, "expected NAME=VALUE"),
        ({"where": ""}, "expected NAME=VALUE"),
        ({"since": "yesterday"}, "since: got 'yesterday'; expected a date or time such as"),
        ({"since": date(2026, 3, 2), "until": "2026-03-01"}, "got 2026-03-01; expected a time"),
    ],
)  # fmt: skip
def test_what_cannot_be_selected_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        Selection(from_raw(SCHEMA, "rich.yaml"), **options)


# Another objective, and rows that stand for several
# ----------------------------------------------------------------------------------------------


def test_another_objective_judges(published: Make) -> None:
    spec = ONE_SLOT.replace(
        "objective:", "  waits: {event: play, kind: count, window: 60s, cap: 4}\nobjective:"
    )
    world = published(n=1000, spec=spec)
    plain = evaluate("home", "always d", world.data, estimators=("ips",))
    other = evaluate(
        "home", "always d", world.data, objective="play=1, waits=1", estimators=("ips",)
    )
    # One play of at most four: (1 + 1/4) / 2 of what the play alone is worth.
    assert other.targets["always d"]["ips"].value == pytest.approx(
        0.625 * (plain.targets["always d"]["ips"].value or 0)
    )
    assert other.selection == {"objective": {"play": 1.0, "waits": 1.0}}
    alone = evaluate("home", "always d", world.data, objective="waits", estimators=("ips",))
    assert alone.logged.value == pytest.approx((plain.logged.value or 0) / 4)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("plays=1", r"got metric 'plays'; expected some of play, watched; did you mean play\?"),
        ("play=much", "expected METRIC=WEIGHT once each"),
        ("play=1,play=2", "expected METRIC=WEIGHT once each"),
        ("", "expected METRIC=WEIGHT once each"),
        ("play=-1", "expected a weight above 0"),
        ({"play": float("inf")}, "expected a finite weight"),
        ({}, "expected a weight above 0"),
    ],
)
def test_an_objective_that_cannot_be_is_named(objective: Any, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        judged_by(from_raw(SCHEMA, "rich.yaml"), objective)


def test_rows_that_stand_for_several_count_so_often(published: Make) -> None:
    """Of every ten decisions on the web nine were dropped: as if all were there."""

    def thinned(d: Decision) -> Decision:
        web = b"web" in bytes(d.context)
        return msgspec.structs.replace(d, row_weight=10.0 if web else None)

    world = published(change=thinned)
    found = evaluate("home", ["always d", "always a"], world.data)
    truth = {a: (CLICKS["tv"][a] + 10 * CLICKS["web"][a]) / 11 for a in "ad"}
    for action in "ad":
        for e in found.targets[f"always {action}"].values():
            if e.estimator in ("ips", "snips", "dr", "sndr"):
                assert abs((e.value or 0) - truth[action]) < 4 * (e.se or 0), e.estimator
    e = found.against("always a", "always d")["dr"]
    assert abs((e.value or 0) - truth["a"] + truth["d"]) < 4 * (e.se or 0)
    assert found.logged.value == pytest.approx(
        sum(CLICKS["tv"][a] + 10 * CLICKS["web"][a] for a in "abcd") / 44, abs=0.05
    )
    ranked = published(n=2000, change=thinned, spec=ONE_SLOT.replace("slots: 1", "slots: 2"))
    sips = evaluate("home", "uniform", ranked.data).targets["uniform"]["sips"]
    each = [(CLICKS["tv"][a] + 10 * CLICKS["web"][a]) / 11 for a in "abcd"]
    assert abs((sips.value or 0) - 2 * float(np.mean(each))) < 4 * (sips.se or 0)


@pytest.mark.parametrize("link", ["linear", "logistic"])
def test_an_example_that_stands_for_three_teaches_as_three(link: Any) -> None:
    rng = np.random.default_rng(1)
    X, r = rng.normal(size=(40, 5)), rng.random(40).round()
    counts = rng.integers(1, 4, 40)
    one, many = (RewardModel(1, 0, ("a",), link=link) for _ in range(2))
    size = one._weights.size
    X = rng.normal(size=(40, size))
    one.learn(X, r, counts.astype(float))
    many.learn(np.repeat(X, counts, axis=0), np.repeat(r, counts))
    np.testing.assert_allclose(one._weights, many._weights, rtol=1e-8, atol=1e-10)


# Where there is no number
# ----------------------------------------------------------------------------------------------

RARE = 1e-4


def settled(d: Decision) -> Decision:
    """As a learner that settled on `a` would log it: all else hardly ever."""
    if d.variant != "chance":
        return d
    row = tuple(1 - 3 * RARE if a == "a" else RARE for a in d.eligible)
    placed = (Placement(0, "a", 1 - 3 * RARE),)
    return msgspec.structs.replace(d, slate=placed, probabilities=(row,))


def reasons(found: Evaluation, target: str) -> set[str | None]:
    return {e.reason for e in found.targets[target].values()}


def test_poor_overlap_is_not_called_untrue_propensities(published: Make) -> None:
    world = published(n=1500, change=settled)
    found = evaluate("home", ["uniform", "always a"], world.data, estimators=("ips", "snips", "dr"))
    assert reasons(found, "uniform") == {"poor_overlap"}
    assert found.targets["uniform"]["ips"].remedy == REMEDIES["poor_overlap"]
    assert "min_probability" in REMEDIES["poor_overlap"]
    # Of what it does show it can well tell, and rare draws that never came refute no propensity.
    assert reasons(found, "always a") == {None}
    # The difference is refused with the one that cannot be told.
    assert found.against("always a", "uniform")["ips"].reason == "poor_overlap"


def test_rankings_of_a_settled_policy_have_poor_overlap_too(published: Make) -> None:
    def locked(d: Decision) -> Decision:
        if d.variant != "chance":
            return d
        order = ("a", "b", "c")
        rows, placed = [], []
        for k, action in enumerate(order):
            rest = [x for x in d.eligible if x not in order[:k]]
            high = 1 - RARE * (len(rest) - 1)
            rows.append(
                tuple(0.0 if x not in rest else high if x == action else RARE for x in d.eligible)
            )
            placed.append(Placement(k, action, high))
        return msgspec.structs.replace(d, slate=tuple(placed), probabilities=tuple(rows))

    world = published(n=1500, spec=ONE_SLOT.replace("slots: 1", "slots: 3"), change=locked)
    for policy in ("uniform", "always d"):
        found = evaluate("home", policy, world.data)
        assert reasons(found, policy) <= {"poor_overlap", "no_overlap", "low_effective_sample"}
    assert reasons(evaluate("home", "uniform", world.data), "uniform") == {"poor_overlap"}
    warnings = found.targets["always d"]["sips"].diagnostics.warnings
    assert not any("adaptive-dr" in warning for warning in warnings)


def test_untrue_propensities_are_still_told_from_poor_overlap(published: Make) -> None:
    def claimed(d: Decision) -> Decision:
        placed = tuple(Placement(p.position, p.action, 0.5) for p in d.slate)
        return msgspec.structs.replace(d, slate=placed)

    assert reasons(
        evaluate("home", "uniform", published(n=1000, change=claimed).data), "uniform"
    ) == {"mean_weight_off"}


def test_every_refusal_says_what_to_do() -> None:
    assert set(REMEDIES) == set(REASONS)
    assert all(text[0].isupper() and text.endswith(".") for text in REMEDIES.values())


def test_a_model_that_the_log_contradicts_is_warned_of(published: Make) -> None:
    # The model fits forward in time: early it knows nothing, and dm counts that as worth 0.
    found = evaluate("home", "always d", published(n=1500).data).targets["always d"]
    assert found.recommended is found["dr"]
    told = [w for w in found["dm"].diagnostics.warnings if w.startswith("dm is")]
    assert all("the reward model is right" in w and "prefer dr" in w for w in told)
    assert not [w for w in found["dr"].diagnostics.warnings if w.startswith("dm is")]


# The command
# ----------------------------------------------------------------------------------------------


def test_the_command_takes_several_policies_and_parts_of_the_log(
    published: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    world = published(n=1500)
    common = ("evaluate", "home", "--data", str(world.data), "--where", "device=tv")
    policies = ("--policy", "always d", "--policy", "uniform")
    cli.app((*common, *policies, "--objective", "play=2", "--json"), result_action="return_value")
    found = json.loads(capsys.readouterr().out)
    assert found["selection"] == {"where": ["device=tv"], "objective": {"play": 2.0}}
    assert list(found["targets"]) == ["always d", "uniform"]
    pairs = {(p["target"], p["baseline"]): p["estimates"]["dr"] for p in found["differences"]}
    assert pairs["uniform", "always d"]["high"] < 0
    assert pairs["always d", "the log"]["low"] > 0
    cli.app((*common, *policies), result_action="return_value")
    text = capsys.readouterr().out
    for words in (
        "all candidates",
        "candidate against candidate",
        "device=tv",
    ):
        assert words in text


def test_the_command_says_what_to_do(published: Make, capsys: pytest.CaptureFixture[str]) -> None:
    world = published(n=1500, change=settled)
    cli.app(
        ("evaluate", "home", "--data", str(world.data), "--policy", "uniform"),
        result_action="return_value",
    )
    text = " ".join(capsys.readouterr().out.split())
    assert "poor_overlap" in text
    assert "what to do: This log cannot tell, however the estimator." in text


def test_frames_and_notebooks_show_the_differences(published: Make) -> None:
    found = evaluate("home", ["always d", "uniform"], published(n=1500).data, estimators=TWO)
    frame = found.differences_frame()
    assert frame.columns.tolist()[:3] == ["target", "baseline", "estimator"]
    assert len(frame) == 3 * len(TWO)
    assert "differences, paired" in found._repr_html_()
    assert replace(found, differences=()).differences_frame().empty


# What a candidate may answer
# ----------------------------------------------------------------------------------------------


def test_a_callable_may_answer_by_name_in_any_order(published: Make) -> None:
    world = published(n=1500)

    def by_place(_context: Any, actions: Any) -> list[float]:
        return [{"a": 0.7, "b": 0.1, "c": 0.1, "d": 0.1}[a] for a in actions]

    def by_name(_context: Any, _actions: Any) -> dict[str, float]:
        return {"d": 0.1, "a": 0.7, "c": 0.1, "b": 0.1}

    def by_index(_context: Any, _actions: Any) -> pd.Series:
        return pd.Series({"d": 0.1, "a": 0.7, "c": 0.1, "b": 0.1})

    def as_column(context: Any, actions: Any) -> np.ndarray[Any, Any]:
        return np.array(by_place(context, actions))[:, None]

    found = evaluate("home", [by_place, by_name, by_index, as_column], world.data, estimators=TWO)
    first = found.targets["by_place"]
    assert all(estimates == first for estimates in found.targets.values())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"a": 0.5, "e": 0.5}, r"got a probability for 'e'; expected some of a, b, c, d$"),
        ({"a": 0.5}, "sum to 0.5"),
        (None, r"got an array of shape \(\); expected one dimension"),
        ("a", "got str; expected a probability for each action"),
        ([[0.5, 0.5], [0.0, 0.0]], "got an array of shape"),
    ],
)
def test_an_answer_that_is_none_is_named(published: Make, answer: Any, message: str) -> None:
    with pytest.raises(BadData, match=message):
        evaluate("home", lambda _c, _a: answer, published(n=200).data)


def test_an_order_of_actions_that_no_request_brought_is_unsupported(published: Make) -> None:
    def bring(d: Decision) -> Decision:
        brought = json.dumps([{"id": name} for name in d.eligible]).encode()
        return msgspec.structs.replace(d, actions=msgspec.Raw(brought))

    world = published(n=1500, change=bring)
    bare = CANDIDATE.replace("[{id: a}, {id: b}, {id: c}, {id: d}]", "[]")
    typo = world.file(bare.replace("order: [d]", "order: [dd, a]"))
    found = evaluate("home", f"{typo}@fixed-d", world.data, estimators=("ips",))
    e = found.targets["candidate/fixed-d"]["ips"]
    assert e.reason == "no_support"
    assert e.diagnostics.unsupported == pytest.approx(1.0)
    assert any("never offered dd (did you mean d?)" in w for w in e.diagnostics.warnings)


def test_variants_that_nobody_has_are_named(published: Make) -> None:
    world = published(n=200)
    with pytest.raises(
        BadRequest, match=r"got 'chanse'; expected some of chance, editors; did you"
    ):
        evaluate("home", "uniform", world.data, log_variants=["chance", "chanse"])
    assert evaluate("home", "uniform", world.data, log_variants="chance").variants == ("chance",)


def test_a_number_is_folded_in_a_narrow_window_and_never_cut() -> None:
    console = Console(width=60, file=io.StringIO())
    table = text._with_headings("t", "estimator", "value", "interval", "more than the log")
    table.add_row("clipped-ips", "0.0045039", "-0.000211345 to +1.9279e-05", "-9.6119e-05")
    console.print(table)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in printed
    assert "e-05" in printed
