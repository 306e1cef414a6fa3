"""The simulated environment: reproducible, honest about its own truth, and as late and lossy as it
says.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from topbill.domain.errors import BadRequest, NotFound
from topbill.domain.metric import METRIC_KINDS
from topbill.domain.records import Action
from topbill.simulation.environment import Environment, Habits, Response, Truth
from topbill.simulation.scoreboard import reward
from topbill.spec import Experiment, Metric, load_all

EXAMPLES = Path(__file__).parents[3] / "experiments"


def seen(environment: Environment, visits: int = 50) -> list[object]:
    out: list[object] = []
    for n in range(visits):
        visit = environment.visit(n)
        truth = environment.truth(visit)
        slate = [environment.ids[row] for row in truth.best_rows()]
        out += [
            visit.unit,
            visit.context,
            truth.worth.tolist(),
            environment.respond(visit, truth, slate),
        ]
    return out


def responses(environment: Environment, visits: range) -> list[tuple[Truth, list[Response]]]:
    """What visitors did when the slate's first action was drawn uniformly."""
    out = []
    for n in visits:
        visit = environment.visit(n)
        truth = environment.truth(visit)
        slate = [
            environment.ids[(n + k) % len(environment.ids)]
            for k in range(environment.experiment.slots)
        ]
        out.append((truth, environment.respond(visit, truth, slate)))
    return out


def test_a_world_follows_from_its_experiment_and_seed(experiment: Experiment) -> None:
    assert seen(Environment(experiment, seed=3)) == seen(Environment(experiment, seed=3))
    assert seen(Environment(experiment, seed=3)) != seen(Environment(experiment, seed=4))


def test_a_visit_is_the_same_whenever_it_is_asked_for(experiment: Experiment) -> None:
    environment, again = Environment(experiment), Environment(experiment)
    far = environment.visit(9_999)
    again.visit(3)
    assert again.visit(9_999).context == far.context
    assert np.array_equal(again.visit(9_999).luck, far.luck)


def test_the_same_viewers_come_to_every_experiment(make: Callable[..., Experiment]) -> None:
    one, other = Environment(make(), seed=1), Environment(make(key="home-rows", slots=3), seed=1)
    for n in range(100):
        assert one.visit(n).unit == other.visit(n).unit
        assert one.visit(n).context["taste"] == other.visit(n).context["taste"]


def test_a_viewer_keeps_the_taste_and_mostly_the_device(experiment: Experiment) -> None:
    environment = Environment(experiment, habits=Habits(viewers=5))
    by_viewer: dict[str, list[dict[str, object]]] = {}
    for n in range(500):
        by_viewer.setdefault(environment.visit(n).unit, []).append(environment.visit(n).context)
    for contexts in by_viewer.values():
        assert all(context["taste"] == contexts[0]["taste"] for context in contexts)
        assert Counter(context["device"] for context in contexts).most_common(1)[0][1] > 0.6 * len(
            contexts
        )


@pytest.mark.parametrize("rate", [0.02, 0.05])
def test_a_uniform_choice_is_played_at_the_base_rate(experiment: Experiment, rate: float) -> None:
    environment = Environment(experiment, seed=7, habits=Habits(base_rate=rate, missing=0.0))
    expected = np.array([environment.truth(environment.visit(n)).play.mean() for n in range(4_096)])
    assert expected.mean() == pytest.approx(rate, rel=1e-6)
    # 20,000 visits of 4,000 viewers, some three times as variable as independent ones: 4 standard
    # errors
    played = [
        any(r.event == "play" for r in done) for _, done in responses(environment, range(20_000))
    ]
    assert np.mean(played) == pytest.approx(rate, abs=4 * math.sqrt(3 * rate / 20_000))


def test_a_long_slate_still_holds_at_most_one_play(make: Callable[..., Experiment]) -> None:
    many = make(slots=200, actions=tuple(Action(f"a{i}", {"faces": 1}) for i in range(200)))
    environment = Environment(many)
    for n in range(20):
        visit = environment.visit(n)
        truth = environment.truth(visit)
        assert float(truth.attention @ truth.play) * visit.patience < 1.0
        played = [
            r for r in environment.respond(visit, truth, environment.ids) if r.event == "play"
        ]
        assert len(played) <= 1


@pytest.mark.parametrize("slots", [1, 3])
def test_no_slate_is_better_than_the_known_best(
    make: Callable[..., Experiment], slots: int
) -> None:
    experiment = make(slots=slots)
    environment = Environment(experiment)
    for n in range(30):
        truth = environment.truth(environment.visit(n))
        values = [truth.value(slate) for slate in permutations(range(8), slots)]
        assert truth.best() == pytest.approx(max(values))
        assert truth.uniform() == pytest.approx(np.mean(values))


def test_rewards_come_as_the_truth_says(make: Callable[..., Experiment]) -> None:
    """Over 30,000 visits the mean reward is the mean expected one, within 4.5 standard errors by
    viewer.
    """
    experiment = make(slots=3)
    environment = Environment(experiment, seed=2)
    error: dict[str, float] = {}
    for n in range(30_000):
        visit = environment.visit(n)
        truth = environment.truth(visit)
        rows = [(n + k) % 8 for k in range(3)]
        got = reward(
            experiment, environment.respond(visit, truth, [environment.ids[row] for row in rows])
        )
        error[visit.unit] = error.get(visit.unit, 0.0) + got - truth.value(rows)
    sums = np.array(list(error.values()))
    assert abs(sums.sum()) < 4.5 * math.sqrt((sums**2).sum())


def test_context_decides_what_is_best(experiment: Experiment) -> None:
    environment = Environment(experiment)
    truths = [environment.truth(environment.visit(n)) for n in range(500)]
    best = Counter(truth.best_rows()[0] for truth in truths)
    assert len(best) >= 4
    gap = np.mean([t.best() for t in truths]) - np.mean([t.uniform() for t in truths])
    same_for_all = np.mean([t.worth for t in truths], axis=0).max() + truths[0].base
    assert same_for_all - np.mean([t.uniform() for t in truths]) < 0.8 * gap


def test_events_go_missing_at_the_declared_rate(experiment: Experiment) -> None:
    whole = responses(Environment(experiment, habits=Habits(missing=0.0)), range(8_000))
    lossy = responses(Environment(experiment, habits=Habits(missing=0.25)), range(8_000))
    sent = sum(len(done) for _, done in whole)
    lost = sent - sum(len(done) for _, done in lossy)
    assert stats.binomtest(lost, sent, 0.25).pvalue > 1e-4
    assert all(set(some) <= set(done) for (_, done), (_, some) in zip(whole, lossy, strict=True))


def test_events_are_late_at_the_declared_rate(experiment: Experiment) -> None:
    """Delays are exponential with mean 0.5 windows, so exp(−2) of the events come after their
    window.
    """
    environment = Environment(experiment, habits=Habits(delay=0.5))
    delays = [
        r.delay
        for _, done in responses(environment, range(8_000))
        for r in done
        if r.event == "session_start"
    ]
    late = sum(delay > 172_800.0 for delay in delays)
    assert stats.binomtest(late, len(delays), math.exp(-2.0)).pvalue > 1e-4
    assert stats.kstest(np.array(delays) / 86_400.0, "expon").pvalue > 1e-4


def test_a_viewer_watches_only_what_was_played_and_leaves_rather_when_nothing_was(
    experiment: Experiment,
) -> None:
    environment = Environment(experiment, habits=Habits(missing=0.0))
    left = {True: [0, 0], False: [0, 0]}
    for _, done in responses(environment, range(8_000)):
        events = {r.event: r for r in done}
        assert ("watch_fraction" in events) == ("play" in events)
        if "play" in events:
            assert events["play"].position == events["watch_fraction"].position == 0
            assert 0.0 <= events["watch_fraction"].value <= 1.0
        left["play" in events][0] += "abandon" in events
        left["play" in events][1] += 1
    assert stats.fisher_exact([left[True], left[False]]).pvalue < 0.05
    assert left[True][0] / left[True][1] < left[False][0] / left[False][1]


def test_what_stands_higher_is_played_more(make: Callable[..., Experiment]) -> None:
    environment = Environment(make(slots=3), habits=Habits(missing=0.0))
    plays = Counter(
        r.position
        for _, done in responses(environment, range(20_000))
        for r in done
        if r.event == "play"
    )
    assert plays[0] > plays[1] > plays[2]


def test_tastes_drift_only_where_they_are_told_to(experiment: Experiment) -> None:
    still, moving = Environment(experiment), Environment(experiment, habits=Habits(drift=0.5))
    visit = still.visit(0)
    assert np.array_equal(still.truth(visit).worth, still.truth(visit, at=36_000.0).worth)
    assert np.array_equal(still.truth(visit).worth, moving.truth(visit).worth)
    best = [
        (
            moving.truth(moving.visit(n)).best_rows(),
            moving.truth(moving.visit(n), at=10_000.0).best_rows(),
        )
        for n in range(200)
    ]
    assert np.mean([before != after for before, after in best]) > 0.2


def test_new_artwork_is_absent_until_its_launch(experiment: Experiment) -> None:
    environment = Environment(experiment, habits=Habits(launches={"a7": 100.0}))
    visits = [environment.visit(n) for n in range(300)]
    assert environment.absent(99.0) == ["a7"]
    assert environment.absent(100.0) == []
    assert all(environment.truth(visit, at=99.0).best_rows() != [7] for visit in visits)
    assert any(environment.truth(visit, at=100.0).best_rows() == [7] for visit in visits)
    early = environment.truth(visits[0], at=99.0)
    assert early.uniform() == pytest.approx(early.base + early.worth[:7].mean())


@pytest.mark.parametrize(
    "example", [e for e in load_all([EXAMPLES]) if e.actions], ids=lambda e: e.key
)
def test_every_example_experiment_has_a_world_worth_learning(example: Experiment) -> None:
    environment = Environment(example)
    truths = [environment.truth(environment.visit(n)) for n in range(300)]
    best, uniform = np.mean([t.best() for t in truths]), np.mean([t.uniform() for t in truths])
    assert 1.4 * uniform < best < 1.0
    reach = [float((t.attention * np.sort(t.play)[::-1][: example.slots]).sum()) for t in truths]
    assert max(reach) * 1.6 <= 1.0


def test_the_objective_counts_in_units_of_its_positive_weights(experiment: Experiment) -> None:
    doubled = replace(
        experiment, objective={name: 2.0 * w for name, w in experiment.objective.items()}
    )
    one, two = Environment(experiment), Environment(doubled)
    assert one.truth(one.visit(0)).best() == pytest.approx(two.truth(two.visit(0)).best())


def test_an_experiment_without_actions_of_its_own_is_refused(
    make: Callable[..., Experiment],
) -> None:
    with pytest.raises(BadRequest, match=r"home-artwork.actions: got none"):
        Environment(make(actions=()))


def test_an_action_that_the_world_does_not_know_is_named(experiment: Experiment) -> None:
    with pytest.raises(NotFound, match="home-artwork: no action 'a99' when the simulation began"):
        Environment(experiment).rows(["a1", "a99"])


@pytest.mark.parametrize("default", [0.0, 0.4])
@pytest.mark.parametrize("kind", [k for k, kind in METRIC_KINDS.items() if kind.is_learned])
def test_a_metric_of_any_kind_and_its_default_are_part_of_the_truth(
    make: Callable[..., Experiment], kind: str, default: float
) -> None:
    """Whatever kind a metric has, visits earn on average what the environment expects of them; only
    those with values can have a default."""
    takes_value = METRIC_KINDS[kind].takes_value
    experiment = make(
        metrics=(
            Metric("play", "play", "binary", window=1_800.0),
            Metric(
                "watched",
                "watch_fraction",
                kind,
                window=21_600.0,
                cap=1.0,
                default=default if takes_value else 0.0,
            ),
        ),
        objective={"play": 0.2, "watched": 1.0},
    )
    environment = Environment(experiment, seed=2)
    expected_role = "after" if takes_value else "return"
    assert [event.role for event in environment._events.values()] == ["play", expected_role]
    error: dict[str, float] = {}
    for n in range(6_000):
        visit = environment.visit(n)
        truth = environment.truth(visit)
        slate = [environment.ids[n % 8]]
        earned = reward(experiment, environment.respond(visit, truth, slate))
        error[visit.unit] = error.get(visit.unit, 0.0) + earned - truth.value([n % 8])
    sums = np.array(list(error.values()))
    assert abs(sums.sum()) < 4.5 * math.sqrt((sums**2).sum())
