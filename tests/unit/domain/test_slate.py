"""Slates are drawn position by position from the very vector that is logged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain.chance import draw
from topbill.domain.errors import PolicyError
from topbill.domain.records import Mask
from topbill.domain.slate import LARGEST_MATRIX, choices, distribution, propensities, rank


class Weights:
    """Scores whose probabilities are proportional to fixed weights."""

    mean = width = None

    def __init__(self, weights) -> None:
        self.weights = np.asarray(weights, dtype=np.float64)

    def probabilities(self, remaining):
        return self.weights[remaining] / self.weights[remaining].sum()


def test_positions_renormalise_over_what_remains():
    slate = rank(Weights([5, 3, 2, 90]), np.array([0, 1, 2]), 3, 0.0, (0.0, 0.0, 0.0))
    assert slate.rows == (0, 1, 2)
    assert slate.propensities == pytest.approx((0.5, 0.6, 1.0))
    assert slate.propensity == pytest.approx(0.3)
    assert slate.probabilities == (
        pytest.approx((0.5, 0.3, 0.2)),
        pytest.approx((0.0, 0.6, 0.4)),
        pytest.approx((0.0, 0.0, 1.0)),
    )


@given(
    st.lists(st.floats(0.01, 1.0), min_size=1, max_size=8),
    st.integers(1, 8),
    st.floats(0.0, 0.2),
    st.lists(st.floats(0.0, 1.0, exclude_max=True), min_size=8, max_size=8),
)
def test_logged_propensities_are_those_of_the_slate(weights, slots, floor, uniforms):
    scored, eligible = Weights(weights), np.arange(len(weights))
    slate = rank(scored, eligible, slots, floor, uniforms)
    assert len(slate.rows) == len(set(slate.rows)) == min(slots, len(weights))
    assert slate.propensities == pytest.approx(
        tuple(propensities(scored, eligible, slate.rows, floor))
    )
    assert slate.propensity == pytest.approx(np.prod(slate.propensities))
    for k, row in enumerate(slate.rows):
        assert sum(slate.probabilities[k]) == pytest.approx(1.0)
        assert slate.probabilities[k][row] == slate.propensities[k]
        assert slate.propensities[k] >= min(floor, 1 / (len(weights) - k)) - 1e-12


def test_uniforms_may_be_a_function_of_the_position():
    asked = []

    def u(position: int) -> float:
        asked.append(position)
        return 0.99

    assert rank(Weights([1, 1, 1]), np.arange(3), 2, 0.0, u).rows == (2, 1)
    assert asked == [0, 1]


def test_rows_are_those_of_all_actions_not_of_the_eligible():
    assert rank(Weights([1, 1, 1, 1]), np.array([3, 1]), 1, 0.0, (0.0,)).rows == (3,)


def test_nothing_eligible_gives_an_empty_slate():
    slate = rank(Weights([1.0]), np.array([], dtype=np.intp), 2, 0.1, ())
    assert (slate.rows, slate.propensities, slate.propensity) == ((), (), 1.0)


class All:
    """Rules that allow whatever remains."""

    masks = ()

    def __init__(self, size) -> None:
        self.size = size

    def rows(self, position, placed):  # noqa: ARG002
        return np.setdiff1d(np.arange(self.size), placed)


@given(
    st.lists(st.one_of(st.just(0.0), st.floats(0.001, 1.0)), min_size=1, max_size=90),
    st.sampled_from([0.0, 0.001, 0.3]),
    st.lists(st.floats(0.0, 1.0, exclude_max=True), min_size=3, max_size=3),
    st.booleans(),
)
def test_few_and_many_actions_are_drawn_as_distribution_and_draw_say(
    weights, floor, uniforms, has_rules
):
    """Few are drawn in plain Python, many by NumPy: the same rows, and the same propensities to the
    last bit.
    """
    weights = [w + 1e-9 for w in weights]  # what remains is never without any weight
    rules = All(len(weights)) if has_rules else None
    slate = rank(Weights(weights), np.arange(len(weights)), 3, floor, uniforms, rules)
    rest = np.arange(len(weights))
    for k, (row, p) in enumerate(zip(slate.rows, slate.propensities, strict=True)):
        whole = distribution(Weights(weights), rest, floor)
        j = draw(whole, uniforms[k])
        assert (row, p) == (int(rest[j]), float(whole[j]))
        rest = np.delete(rest, j)


def test_large_matrices_are_not_carried():
    many = LARGEST_MATRIX // 2 + 1
    assert rank(Weights(np.ones(many)), np.arange(many), 2, 0.0, (0.5, 0.5)).probabilities is None
    assert rank(Weights(np.ones(many)), np.arange(many), 1, 0.0, (0.5,)).probabilities is not None


@pytest.mark.parametrize(
    "bad", [[0.5, 0.6], [-0.1, 1.1], [float("nan"), 1.0], [float("inf"), 0.0], [0.0, 0.0], [1.0]]
)
def test_vectors_that_are_no_simplex_are_refused(bad):
    class Bad:
        mean = width = None

        def probabilities(self, remaining):  # noqa: ARG002
            return np.array(bad)

    with pytest.raises(PolicyError):
        rank(Bad(), np.arange(2), 1, 0.0, (0.5,))
    with pytest.raises(PolicyError):
        rank(Bad(), np.arange(2), 2, 0.1, (0.5, 0.5))
    with pytest.raises(PolicyError):
        rank(Bad(), np.arange(2), 2, 0.1, (0.5, 0.5), All(2))


@pytest.mark.parametrize("rows", [(3,), (0, 0)])
def test_slates_that_could_not_have_been_shown_are_refused(rows):
    with pytest.raises(PolicyError, match="not among the eligible"):
        propensities(Weights([1, 1, 1, 1]), np.arange(3), rows, 0.0)


masks = st.builds(
    Mask,
    rule=st.just("r"),
    start=st.integers(0, 2),
    stop=st.integers(0, 4),
    rows=st.lists(st.integers(0, 5), unique=True).map(tuple),
    only=st.booleans(),
)


@given(st.lists(masks, max_size=4), st.integers(0, 3), st.sets(st.integers(0, 5)))
def test_what_may_be_drawn_is_what_every_rule_leaves(rules, position, above):
    expected = []
    for row in range(6):
        active = [mask for mask in rules if mask.start <= position < mask.stop]
        if row not in above and all((row in mask.rows) == mask.only for mask in active):
            expected.append(row)
    assert choices(rules, 6, position, sorted(above)).tolist() == expected
