"""Chance: hashes are salted and unambiguous, least probabilities keep simplexes, the draw inverts
the distribution.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from topbill.domain.chance import (
    draw,
    draws_of,
    greedy,
    hash64,
    is_learned,
    uniform,
    uniforms,
    with_min_probability,
)

weights = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=150).filter(lambda w: sum(w) > 1e-3)


def test_hashes_know_where_parts_end():
    assert hash64("a", "bc") != hash64("ab", "c")
    assert hash64("a", "b") == hash64("a", "b")


def test_many_uniforms_are_those_of_each():
    many = uniforms("draw", "decision")
    assert [many(k) for k in range(200)] == [
        uniform("draw", "decision", str(k)) for k in range(200)
    ]


def test_hashes_are_even_and_salts_independent():
    one = np.array([uniform("salt", str(i)) for i in range(20_000)])
    two = np.array([uniform("other", str(i)) for i in range(20_000)])
    assert stats.kstest(one, "uniform").pvalue > 1e-3
    # Five standard errors of a correlation of zero.
    assert abs(np.corrcoef(one, two)[0, 1]) < 5 / np.sqrt(20_000)
    assert one.min() >= 0.0
    assert one.max() < 1.0


@given(weights, st.floats(0.0, 1.0))
def test_least_probabilities_keep_simplex_and_order(w, floor):
    p = np.array(w) / sum(w)
    lifted = with_min_probability(p, floor)
    assert lifted.sum() == pytest.approx(1.0)
    assert lifted.min() >= min(floor, 1 / p.size) - 1e-12
    order = np.argsort(p, kind="stable")
    assert (np.diff(lifted[order]) >= -1e-12).all()


def test_ties_are_shared():
    assert greedy(np.array([1.0, 3.0, 3.0])).tolist() == [0.0, 0.5, 0.5]


@given(weights, st.floats(0.0, 1.0, exclude_max=True))
def test_draws_never_take_what_has_no_probability(w, u):
    p = np.array(w) / sum(w)
    index = draw(p, u)
    assert p[index] > 0.0
    below = p[:index].sum()
    assert below - 1e-9 <= u <= below + p[index] + 1e-9


def test_the_last_uniform_draws_the_last_possible_action():
    assert draw(np.array([0.5, 0.5, 0.0]), np.nextafter(1.0, 0.0)) == 1


def test_few_and_many_actions_draw_alike():
    """Plain Python serves few actions and NumPy many; padding with zeros moves a vector from one to
    the other.
    """
    rng = np.random.default_rng(0)
    for _ in range(500):
        p = rng.dirichlet(np.ones(12))
        u = float(rng.random())
        assert draw(p, u) == draw(np.r_[p, np.zeros(100)], u)


def test_a_share_that_is_learned_is_a_fair_sample_of_all():
    ids = [f"decision-{i}" for i in range(20_000)]
    learned = {i for i in ids if is_learned(i, 0.25)}
    assert learned == {i for i in ids if is_learned(i, 0.25)}
    assert abs(len(learned) - 5_000) < 4 * (20_000 * 0.25 * 0.75) ** 0.5
    # A smaller share is a part of it, and all of them are all.
    assert {i for i in ids if is_learned(i, 0.1)} < learned
    assert all(is_learned(i, 1.0) for i in ids)
    # Whether a decision is learned says nothing about what was drawn for it.
    drawn = [draws_of(i)(0) for i in learned]
    assert stats.kstest(drawn, "uniform").pvalue > 1e-3
