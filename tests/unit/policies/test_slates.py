"""What compiled calls draw is what `rank` draws of the same scores."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from topbill.domain.chance import draw, draws_of, inverse_gap, mostly_greedy, seed_of
from topbill.domain.errors import OverBudget, PolicyError
from topbill.domain.records import Actions, Example, Floats, Indices
from topbill.domain.slate import Slate, SlateRequest, SlatesRequest, rank
from topbill.policies import KINDS
from topbill.policies.linear import sampling
from topbill.policies.linear.chances import GAPS, GREEDY, SHARES, WINS

pytest.importorskip("numba")
from topbill.policies.linear import slates
from topbill.policies.linear.hashing import choice_of, uniforms_of
from topbill.policies.linear.slates import draw_positions

SEEDS = st.integers(0, 2**32 - 1)
HOW = [GREEDY, WINS, SHARES, GAPS]
DRAWN = {
    "auto": [{}],
    "linucb": [{}, {"model": "disjoint", "link": "linear"}, {"alpha": 0.0}],
    "thompson": [{}, {"model": "disjoint"}, {"link": "linear", "samples": 32}],
    "squarecb": [{}, {"link": "linear"}, {"model": "disjoint", "gamma_scale": 0.5}],
    "fixed": [{}, {"order": ["d", "a", "none", "g"]}],
    "uniform": [{}],
    "epsilon_greedy": [{}, {"model": "shared"}, {"decay": 10.0}, {"fourier_features": 3}],
}
"""The kinds whose slates compiled calls draw, with parameters."""


class Plain(NamedTuple):
    """Scores, and how they become probabilities by what says so elsewhere."""

    kind: int
    chance: float
    scores: Floats
    spread: Floats
    draws: Floats
    mean: None = None
    width: None = None

    def probabilities(self, remaining: Indices) -> Floats:
        if self.kind == GREEDY:
            return mostly_greedy(self.scores[remaining], self.chance)
        if self.kind == WINS:
            return sampling.wins(self.scores[remaining], self.spread[remaining])
        if self.kind == GAPS:
            return sampling.inverse_gap(self.scores[remaining], self.chance)
        return sampling.shares(self.draws, remaining)


def some(rng: np.random.Generator, kind: int, size: int) -> Plain:
    """Scores of which some are alike."""
    scores = rng.normal(size=size).round(int(rng.integers(3)))
    chance = float(rng.choice([0.0, 0.1, 1.0]))
    draws = rng.normal(size=(size, 32)).round(1)
    return Plain(kind, chance, scores, np.exp(rng.normal(size=size)), draws)


def drawn(plain: Plain, eligible, slots, least, name, at_once=200) -> tuple:
    """How many positions compiled calls drew, so many in each, the rows, their propensities, and
    all probabilities."""
    slots, size = min(slots, len(eligible)), len(eligible)
    out, count, text = np.full(slots * (2 + size), -1.0), 0, name.encode()
    for start in range(0, slots, at_once):
        stop = min(start + at_once, slots)
        count = draw_positions(*plain[:5], text, eligible, least, slots, start, stop, out)
    rows, propensities = out[: 2 * slots].reshape(2, slots).tolist()
    matrix = out[2 * slots :].reshape(slots, size)
    return count, tuple(map(int, rows)), tuple(propensities), matrix


def same(one: Slate, other: Slate) -> bool:
    """Whether two slates have the same rows, drawn with the same probabilities but for rounding."""
    assert (one.probabilities is None) == (other.probabilities is None)
    pairs = [(one.propensities, other.propensities), (one.propensity, other.propensity)]
    if one.probabilities is not None and other.probabilities is not None:
        pairs.append((np.ravel(one.probabilities), np.ravel(other.probabilities)))
    for left, right in pairs:
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-16)
    return one.rows == other.rows


@given(
    seed=SEEDS,
    kind=st.sampled_from(HOW),
    size=st.one_of(st.integers(1, 12), st.integers(60, 70), st.integers(200, 210)),
    slots=st.integers(1, 14),
    least=st.sampled_from([0.0, 1e-3, 0.02, 0.5]),
    at_once=st.sampled_from([1, 3, 200]),
)
def test_compiled_positions_are_those_of_rank(seed, kind, size, slots, least, at_once):
    rng = np.random.default_rng(seed)
    plain = some(rng, kind, size)
    eligible, name = rng.permutation(size)[: int(rng.integers(1, size + 1))], f"decision-{seed}"
    slate = rank(plain, eligible, slots, least, draws_of(name))
    count, rows, propensities, matrix = drawn(plain, eligible, slots, least, name, at_once)
    assert count == len(slate.rows)
    whole = None if slate.probabilities is None else tuple(map(tuple, matrix.tolist()))
    made = Slate(rows, propensities, whole, math.prod(propensities))
    # Who wins is told from what was tabulated for an earlier position, which rounds otherwise.
    assert same(made, slate) if kind == WINS else made == slate


@given(
    p=st.lists(st.sampled_from([0.0, 0.1, 0.25, 1.0]), min_size=1, max_size=70).filter(any),
    u=st.sampled_from([0.0, 0.3, 1.0 - 2.0**-53]),
)
def test_a_compiled_draw_is_the_plain_one(p, u):
    simplex = np.array(p) / sum(p)
    assert slates.drawn(simplex, u) == draw(simplex, u)


@given(seed=SEEDS, kind=st.sampled_from(HOW), actions=st.integers(2, 9))
def test_a_slate_says_the_vectors_that_it_was_drawn_from(seed, kind, actions):
    rng = np.random.default_rng(seed)
    plain = some(rng, kind, actions)
    count, rows, propensities, matrix = drawn(plain, np.arange(actions), actions, 0.01, str(seed))
    assert count == actions
    assert sorted(rows) == list(range(actions))
    for k, (row, line) in enumerate(zip(rows, matrix, strict=True)):
        assert line[row] == propensities[k] > 0.0
        assert line.sum() == pytest.approx(1.0)
        assert all(line[above] == 0.0 for above in rows[:k])


@given(
    seed=SEEDS,
    of=st.sampled_from([(kind, given) for kind, several in DRAWN.items() for given in several]),
    action_size=st.sampled_from([0, 2]),
    slots=st.integers(1, 8),
    least=st.sampled_from([0.0, 0.02]),
    lessons=st.sampled_from([0, 30]),
)
def test_policies_draw_the_slates_of_their_scores(seed, of, action_size, slots, least, lessons):
    kind, params = of
    rng = np.random.default_rng(seed)
    actions = Actions(list("gfedcba"), rng.normal(size=(7, action_size)))
    policy = KINDS[kind](
        msgspec.convert(params, KINDS[kind].Params),
        context_size=3,
        action_size=action_size,
        seed=7,
    )
    for t in range(lessons):
        x, index, reward = rng.normal(size=3), int(rng.integers(7)), float(rng.random() < 0.4)
        policy.update([Example(x, actions, index, 0.2, reward, position=t % 3, at=1e9 + t)])
    eligible = rng.permutation(7)[: int(rng.integers(1, 8))]
    xs, names = rng.normal(size=(3, 3)), [f"decision-{seed}-{'x' * n}" for n in range(3)]
    each = [
        policy.slate(x, actions, SlateRequest(name, eligible, slots, least))
        for x, name in zip(xs, names, strict=True)
    ]
    for x, name, slate in zip(xs, names, each, strict=True):
        scored = policy.score(x, actions, seed_of(name))
        assert same(slate, rank(scored, eligible, slots, least, draws_of(name)))
    # Several in one call are those of one call each, bit for bit.
    assert policy.slates(xs, actions, SlatesRequest(names, eligible, slots, least)) == each


@pytest.mark.parametrize("kind", DRAWN)
def test_where_nothing_may_be_shown_rank_is_asked(kind):
    params = msgspec.convert(DRAWN[kind][0], KINDS[kind].Params)
    policy = KINDS[kind](params, context_size=3, action_size=0, seed=7)
    actions = Actions(list("ab"), np.zeros((2, 0)))
    nothing = SlateRequest("decision", np.empty(0, dtype=np.intp), 2, 0.02)
    assert policy.slate(np.zeros(3), actions, nothing) is None
    together = SlatesRequest(["decision"], np.empty(0, dtype=np.intp), 2, 0.02)
    assert policy.slates(np.zeros((1, 3)), actions, together) is None


@given(name=st.text(max_size=280))
@example(name="")
@example(name="x" * 121)
@example(name="x" * 122)
@example(name="x" * 128)
def test_compiled_chance_is_that_of_the_decision(name):
    text, at = name.encode(), draws_of(name)
    assert choice_of(text, 64) == seed_of(name) % 64
    assert uniforms_of(text, 0, 12).tolist() == [at(k) for k in range(12)]
    assert uniforms_of(text, 9, 11).tolist() == [at(9), at(10)]


@given(
    seed=SEEDS,
    size=st.integers(1, 9),
    gamma=st.sampled_from([0.0, 0.7, 300.0]),
    digits=st.integers(0, 3),
)
def test_compiled_inverse_gaps_are_the_plain_ones(seed, size, gamma, digits):
    scores = np.random.default_rng(seed).random(size).round(digits)
    expected = inverse_gap(scores, gamma)
    np.testing.assert_allclose(sampling.inverse_gap(scores, gamma), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", DRAWN)
def test_a_slate_is_drawn_from_what_was_learned_since_the_last_one(kind):
    rng = np.random.default_rng(1)
    params = msgspec.convert(DRAWN[kind][0], KINDS[kind].Params)
    policy = KINDS[kind](params, context_size=3, action_size=2, seed=7)
    actions = Actions(list("abc"), rng.normal(size=(3, 2)))
    request = SlateRequest("decision", np.arange(3), 2, 0.02)
    # Of any stride, as a column is.
    x = rng.normal(size=(3, 2))[:, 0]
    policy.slate(x, actions, request)
    policy.update([Example(x, actions, k % 3, 0.2, 1.0) for k in range(9)])
    scored, u = policy.score(x, actions, seed_of("decision")), draws_of("decision")
    assert same(policy.slate(x, actions, request), rank(scored, np.arange(3), 2, 0.02, u))
    policy.load(KINDS[kind](params, context_size=3, action_size=2, seed=7).dump())
    scored = policy.score(x, actions, seed_of("decision"))
    assert same(policy.slate(x, actions, request), rank(scored, np.arange(3), 2, 0.02, u))


@pytest.mark.parametrize("kind", ["fixed", "uniform"])
def test_a_copy_of_a_policy_draws_from_arrays_of_its_own(kind):
    policy = KINDS[kind](KINDS[kind].Params(), context_size=0, action_size=0, seed=7)
    actions, request = (
        Actions(list("abc"), np.zeros((3, 0))),
        SlateRequest("d", np.arange(3), 2, 0.0),
    )
    slate = policy.slate(np.zeros(0), actions, request)
    other = deepcopy(policy)
    assert other._drawing is None
    assert other.slate(np.zeros(0), actions, request) == slate


def test_models_of_another_kind_that_wake_up_are_heard():
    rng = np.random.default_rng(3)
    actions = Actions(list("abc"), rng.normal(size=(3, 2)))
    policy = KINDS["auto"](KINDS["auto"].Params(), context_size=3, action_size=2, seed=7)
    policy.log_scores[:] = [-1.0, -2.0, -90.0, -90.0, 0.0]
    policy.load(policy.dump())
    assert policy.weights[-1] > 0.0
    for number in range(10):
        x, name = rng.normal(size=3), str(number)
        slate = policy.slate(x, actions, SlateRequest(name, np.arange(3), 2, 0.02))
        scored = policy.score(x, actions, 0)
        assert slate == rank(scored, np.arange(3), 2, 0.02, draws_of(name))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_no_numbers_are_refused_as_rank_refuses_them(wrong):
    scores = np.array([1.0, wrong, 0.0])
    for kind in (GREEDY, WINS, GAPS):
        plain = Plain(kind, 0.0, scores, np.ones(3), np.zeros((0, 0)))
        eligible = np.arange(3)
        count, rows, propensities, _ = drawn(plain, eligible, 2, 0.0, "decision")
        try:
            with np.errstate(invalid="ignore"):
                slate = rank(plain, eligible, 2, 0.0, draws_of("decision"))
        except PolicyError:
            assert count < 2
        else:
            assert (count, rows, propensities) == (2, slate.rows, slate.propensities)


def test_what_is_no_simplex_is_left_to_rank():
    actions = Actions(list("abc"), np.zeros((3, 0)))
    policy = KINDS["linucb"](KINDS["linucb"].Params(), context_size=1, action_size=0, seed=7)
    assert (
        policy.slate(np.array([np.nan]), actions, SlateRequest("d", np.arange(3), 2, 0.0)) is None
    )


def test_among_thousands_of_actions_somebody_looks_at_the_clock():
    rng = np.random.default_rng(1)
    actions = Actions([str(i) for i in range(5_000)], rng.normal(size=(5_000, 1)))
    policy = KINDS["linucb"](KINDS["linucb"].Params(), context_size=1, action_size=1, seed=7)
    x, eligible = np.ones(1), np.arange(5_000)
    with pytest.raises(OverBudget, match="1 of 3 positions"):
        policy.slate(x, actions, SlateRequest("d", eligible, 3, 0.0, lambda: True))
    slate = policy.slate(x, actions, SlateRequest("d", eligible, 3, 0.0, lambda: False))
    assert slate == rank(policy.score(x, actions, 0), eligible, 3, 0.0, draws_of("d"))
