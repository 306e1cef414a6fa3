"""Sample-ratio mismatch: sound splits pass, broken ones do not, and bandits are judged by their
propensities.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from topbill.ab import sequential_srm, srm, srm_of_choices
from topbill.ab.checks.srm import sequential_srm_of_sums, srm_of_sums
from topbill.domain.errors import BadRequest


def test_counts_as_intended_give_one_and_far_from_it_nothing() -> None:
    assert srm([200, 400, 400], [0.2, 0.4, 0.4]) == pytest.approx(1.0)
    assert srm([260, 400, 340], [0.2, 0.4, 0.4]) < 1e-5


@settings(max_examples=50)
@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=5), st.floats(0.1, 1_000.0))
def test_shares_need_not_sum_to_one_and_order_does_not_matter(
    counts: list[int], scale: float
) -> None:
    shares = list(range(1, len(counts) + 1))
    p = srm(counts, shares)
    assert 0.0 <= p <= 1.0
    assert srm(counts[::-1], [s * scale for s in shares[::-1]]) == pytest.approx(
        p, rel=1e-6, abs=1e-12
    )


def test_dicts_are_matched_by_variant() -> None:
    assert srm({"b": 10, "a": 30}, {"a": 0.5, "b": 0.5}) == srm([30, 10], [0.5, 0.5])
    assert srm({"a": 30}, {"a": 0.5, "b": 0.5}) < 1e-6


def test_an_arm_with_share_zero_is_no_degree_of_freedom_and_a_unit_in_it_is_impossible() -> None:
    assert srm([500, 560, 0], [1, 1, 0]) == srm([500, 560], [1, 1])
    assert srm([500, 500, 1], [1, 1, 0]) == 0.0
    assert sequential_srm([[500, 500, 0], [5, 5, 1]], [1, 1, 0])[-1] == 0.0


def test_nothing_to_judge_is_no_alarm() -> None:
    assert srm([0, 0], [0.5, 0.5]) == 1.0
    assert srm([7], [1.0]) == 1.0
    assert list(sequential_srm([[0, 0]], [0.5, 0.5])) == [1.0]
    assert srm_of_choices([], np.zeros((0, 3))) == 1.0


@pytest.mark.parametrize(
    ("counts", "shares"),
    [([1, 2], [1.0]), ([-1, 2], [1, 1]), ([1, 2], [0, 0]), (["x"], [1]), ({"z": 1}, {"a": 1})],
)
def test_wrong_input_is_named(counts: object, shares: object) -> None:
    with pytest.raises(BadRequest):
        srm(counts, shares)  # type: ignore[arg-type]


def test_the_sequential_p_value_never_rises_and_finds_a_leak() -> None:
    rng = np.random.default_rng(0)
    daily = rng.binomial(1_000, 0.45, 20)
    p = sequential_srm(np.column_stack([daily, 1_000 - daily]), [0.5, 0.5])
    assert np.all(np.diff(p) <= 0.0)
    assert p[-1] < 1e-6


def draws(n: int, seed: int, lie: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Choices among 5 actions with probabilities that move; a `lie` logs the flattened vector."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(0.5 * np.ones(5), n)
    chosen = (p.cumsum(axis=1) < rng.random(n)[:, None]).sum(axis=1)
    return np.minimum(chosen, 4), (1.0 - lie) * p + lie * np.array([0.6, 0.1, 0.1, 0.1, 0.1])


def test_a_bandit_that_logs_what_it_drew_from_passes_and_one_that_does_not_is_caught() -> None:
    assert srm_of_choices(*draws(20_000, 1)) > 0.01
    assert srm_of_choices(*draws(20_000, 1, lie=0.1)) < 1e-6


def test_a_choice_that_could_not_be_drawn_is_impossible() -> None:
    assert srm_of_choices([1], [[1.0, 0.0]]) == 0.0


def test_decisions_without_a_choice_carry_no_information() -> None:
    chosen, p = draws(500, 2)
    forced = np.vstack([p, np.tile([0.0, 1.0, 0.0, 0.0, 0.0], (400, 1))])
    assert srm_of_choices(np.append(chosen, np.ones(400, int)), forced) == pytest.approx(
        srm_of_choices(chosen, p)
    )


def test_sums_of_shards_judge_like_the_whole() -> None:
    chosen, p = draws(600, 3)
    parts = [
        (np.bincount(c, minlength=5), q.sum(axis=0), np.diag(q.sum(axis=0)) - q.T @ q)
        for c, q in ((chosen[:200], p[:200]), (chosen[200:], p[200:]))
    ]
    added = [sum(part[i] for part in parts) for i in range(3)]
    assert srm_of_sums(*added) == pytest.approx(srm_of_choices(chosen, p), rel=1e-9)


def sums_of(chosen: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.bincount(chosen, minlength=p.shape[1]),
        p.sum(axis=0),
        np.diag(p.sum(axis=0)) - p.T @ p,
    )


def test_looking_at_choices_as_often_as_one_likes_finds_a_lie_and_no_honest_bandit() -> None:
    looks = range(200, 20_001, 200)
    honest, lying = draws(20_000, 4), draws(20_000, 4, lie=0.1)
    assert min(sequential_srm_of_sums(*sums_of(honest[0][:n], honest[1][:n])) for n in looks) > 0.01
    assert min(sequential_srm_of_sums(*sums_of(lying[0][:n], lying[1][:n])) for n in looks) < 1e-6


def test_one_lucky_draw_of_a_rare_action_is_no_evidence() -> None:
    p = np.tile([1.0 - 1e-6, 1e-6], (100, 1))
    assert sequential_srm_of_sums(*sums_of(np.eye(1, 100, 3, dtype=int)[0], p)) > 0.9


def test_actions_without_a_chance_change_nothing() -> None:
    observed, expected, covariance = sums_of(*draws(500, 5))
    more = [np.append(observed, 0), np.append(expected, 0.0), np.pad(covariance, (0, 1))]
    for judge in (srm_of_sums, sequential_srm_of_sums):
        assert judge(*more) == pytest.approx(judge(observed, expected, covariance), rel=1e-9)


@pytest.mark.slow
def test_the_choices_test_is_calibrated_where_pearsons_would_not_be() -> None:
    p_values = [srm_of_choices(*draws(300, seed)) for seed in range(2_000)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


@pytest.mark.slow
def test_the_alarm_of_choices_rings_in_at_most_one_percent_of_honest_bandits_in_50_looks() -> None:
    rings = 0
    for seed in range(1_000):
        chosen, p = draws(2_000, seed)
        looks = range(40, 2_001, 40)
        rings += min(sequential_srm_of_sums(*sums_of(chosen[:n], p[:n])) for n in looks) <= 0.01
    assert rings <= 20  # Binomial(1000, 0.01) exceeds 20 with probability 0.1%


@pytest.mark.slow
def test_the_alarm_rings_in_at_most_one_percent_of_sound_splits_at_its_alpha() -> None:
    rng = np.random.default_rng(7)
    daily = rng.multinomial(200, [0.2, 0.4, 0.4], size=(1_000, 50))
    sequential = np.mean([sequential_srm(table, [0.2, 0.4, 0.4])[-1] <= 0.01 for table in daily])
    assert sequential <= 0.01
    single = np.mean([srm(table.sum(axis=0), [0.2, 0.4, 0.4]) <= 0.01 for table in daily])
    # Binomial(1000, 0.01) exceeds 20 with probability 0.1%.
    assert single <= 0.020
