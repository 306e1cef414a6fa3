"""An experiment simulated in process: it learns what the environment hides, and counts what it
did.
"""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from topbill.policies import KINDS
from topbill.simulation.environment import Environment, Habits
from topbill.simulation.run import run
from topbill.simulation.scoreboard import Scoreboard, table
from topbill.spec import Experiment, Variant


def test_a_run_follows_from_its_seed(experiment: Experiment) -> None:
    assert run(experiment, 600, seed=1) == run(experiment, 600, seed=1)
    assert run(experiment, 600, seed=1) != run(experiment, 600, seed=2)


def test_learning_policies_close_the_gap_that_chance_does_not(experiment: Experiment) -> None:
    editorial, thompson, linucb = run(experiment, 9_000, habits=Habits(base_rate=0.15))
    assert editorial.gap_closed == pytest.approx(0.0, abs=0.1)
    for learner in (thompson, linucb):
        assert learner.gap_closed is not None
        assert learner.gap_closed > 0.25
        assert learner.gap_closed_recently is not None
        assert learner.gap_closed_recently > learner.gap_closed
        assert learner.regret < editorial.regret


def test_nothing_is_learned_before_its_time(make: Callable[..., Experiment]) -> None:
    """With rewards due after the last visit, Thompson still draws from its prior: alike for all
    actions.
    """
    thompson = run(make(reward_delay=15 * 86_400.0), 6_000, days=14.0)[1]
    assert thompson.gap_closed == pytest.approx(0.0, abs=0.1)


def test_every_visit_is_counted_once_whatever_the_status(make: Callable[..., Experiment]) -> None:
    lines = run(make(status="draft", traffic=0.1, holdout=0.5), 900)
    assert sum(line.decisions for line in lines) == 900
    assert [line.variant for line in lines] == ["editorial", "thompson", "linucb"]
    for line in lines:
        assert sum(line.shares.values()) == pytest.approx(1.0)
        assert line.uniform < line.best
        assert line.regret >= 0.0
        assert line.interval is not None
        assert line.interval[0] < line.reward < line.interval[1]


def test_slates_are_filled_and_new_actions_wait_for_their_launch(
    make: Callable[..., Experiment],
) -> None:
    day = 86_400.0
    habits = Habits(launches={"a7": 15 * day})
    lines = run(make(slots=3), 600, habits=habits, days=14.0)
    assert all("a7" not in line.shares for line in lines)
    habits = Habits(launches={"a7": 7 * day})
    lines = run(make(slots=3), 600, habits=habits, days=14.0)
    assert all(0.0 < line.shares["a7"] < 0.25 for line in lines)


def test_an_experiment_without_features_of_any_kind_can_be_simulated(
    make: Callable[..., Experiment],
) -> None:
    plain = make(
        context=(),
        action_features=(),
        actions=tuple(a.__class__(a.id) for a in make().actions),
        unit=None,
    )
    assert sum(line.decisions for line in run(plain, 300)) == 300


def test_one_action_has_no_gap_to_close(make: Callable[..., Experiment]) -> None:
    only = make(actions=make().actions[:1])
    line = run(only, 50)[0]
    assert line.gap_closed is None
    assert line.regret == pytest.approx(0.0)


def test_intervals_are_clustered_by_unit(experiment: Experiment) -> None:
    """Ten copies of each decision by the same viewer must not narrow the interval."""
    environment = Environment(experiment)
    once, often = Scoreboard([experiment]), Scoreboard([experiment])
    for n in range(400):
        visit = environment.visit(n)
        truth = environment.truth(visit)
        responses = environment.respond(visit, truth, ["a0"])
        once.add("home-artwork", "editorial", f"viewer-{n}", [0], truth, responses)
        for _ in range(10):
            often.add("home-artwork", "editorial", f"viewer-{n}", [0], truth, responses)
    assert often.lines()[0].interval == pytest.approx(once.lines()[0].interval)


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_shows_every_number_whole(experiment: Experiment, width: int) -> None:
    console = Console(width=width, file=StringIO())
    lines = run(experiment, 300)
    console.print(table(lines))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for line in lines:
        assert f"{line.reward:.4f} ± " in shown
        assert f" {line.regret:.4f} " in shown
        assert f" {line.gap_closed:.0%} " in shown
        assert f" {line.decisions} " in shown
        assert line.variant in shown


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"scored"}))
def test_every_registered_policy_can_be_simulated(
    kind: str, make: Callable[..., Experiment]
) -> None:
    params = KINDS[kind].Params(**({"order": ["a1", "a0"]} if kind == "fixed" else {}))
    only = make(variants=(Variant("only", kind, params, 1.0, control=True),))
    assert run(only, 120)[0].decisions == 120


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["thompson", "linucb"])
def test_three_fifths_of_the_gap_are_closed_within_forty_thousand_rounds(
    kind: str, make: Callable[..., Experiment]
) -> None:
    """At a 5% base rate, over fourteen days, from rewards that are learned six hours later."""
    only = make(
        variants=(
            Variant(kind, kind, KINDS[kind].Params(), 1.0, control=True, min_probability=0.005),
        )
    )
    for seed in (0, 1):
        closed = run(only, 40_000, seed=seed)[0].gap_closed
        assert closed is not None
        assert closed >= 0.6
