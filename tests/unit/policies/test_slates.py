"""What compiled calls draw is what `rank` draws of the same probabilities, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain.chance import mostly_greedy
from topbill.domain.errors import OverBudget, PolicyError
from topbill.domain.records import Actions, Example, Floats, Indices
from topbill.domain.slate import Slate, rank
from topbill.policies import KINDS
from topbill.policies.linear import sampling
from topbill.policies.linear.chances import GREEDY, SHARES, WINS, Chances
from topbill.policies.linear.drawing import draw_slate

pytest.importorskip("numba")
SEEDS = st.integers(0, 2**32 - 1)


class Plain:
    """The probabilities of `Chances`, by what says them elsewhere."""

    mean = width = None

    def __init__(self, chances: Chances) -> None:
        self.chances = chances

    def probabilities(self, remaining: Indices) -> Floats:
        kind, scores, spread, draws, chance = self.chances
        if kind == GREEDY:
            return mostly_greedy(scores[remaining], chance)
        if kind == WINS:
            return sampling.wins(scores[remaining], spread[remaining])
        return sampling.shares(draws, remaining)


class Hidden:
    """Scores that know nothing of compiled calls."""

    mean = width = None

    def __init__(self, scored) -> None:
        self.probabilities = scored.probabilities


def compiled(chances, eligible, slots, least, uniforms, late=None) -> Slate | None:
    slots = min(slots, len(eligible))
    return draw_slate(chances, eligible, slots, least, uniforms.__getitem__, late)


def some(rng: np.random.Generator, kind: int, size: int) -> Chances:
    """Scores of which some are alike."""
    scores = rng.normal(size=size).round(int(rng.integers(3)))
    if kind == GREEDY:
        return Chances(kind, scores, chance=float(rng.choice([0.0, 0.1, 1.0])))
    if kind == WINS:
        return Chances(kind, scores, spread=np.exp(rng.normal(size=size)))
    return Chances(kind, scores, draws=rng.normal(size=(size, 32)).round(1))


@given(
    seed=SEEDS,
    kind=st.sampled_from([GREEDY, WINS, SHARES]),
    size=st.one_of(st.integers(1, 12), st.integers(60, 70), st.integers(200, 210)),
    slots=st.integers(1, 14),
    least=st.sampled_from([0.0, 1e-3, 0.02, 0.5]),
)
def test_compiled_slates_are_those_of_rank(seed, kind, size, slots, least):
    rng = np.random.default_rng(seed)
    chances = some(rng, kind, size)
    eligible = rng.permutation(size)[: int(rng.integers(1, size + 1))]
    uniforms = [*rng.random(slots)]
    uniforms[0] = float(rng.choice([0.0, uniforms[0], 1.0 - 2.0**-53]))
    drawn = compiled(chances, eligible, slots, least, uniforms)
    assert drawn == rank(Plain(chances), eligible, slots, least, uniforms)


@given(seed=SEEDS, kind=st.sampled_from([GREEDY, WINS, SHARES]), actions=st.integers(2, 9))
def test_a_slate_says_the_vectors_that_it_was_drawn_from(seed, kind, actions):
    rng = np.random.default_rng(seed)
    chances = some(rng, kind, actions)
    slate = compiled(chances, np.arange(actions), actions, 0.01, [*rng.random(actions)])
    assert slate is not None
    assert slate.probabilities is not None
    assert sorted(slate.rows) == list(range(actions))
    for k, (row, line) in enumerate(zip(slate.rows, slate.probabilities, strict=True)):
        assert line[row] == slate.propensities[k] > 0.0
        assert sum(line) == pytest.approx(1.0)
        assert all(line[above] == 0.0 for above in slate.rows[:k])
    assert slate.propensity == np.multiply.accumulate(slate.propensities)[-1]


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("action_size", [0, 2])
@pytest.mark.parametrize("slots", [1, 4])
def test_every_policy_gives_the_slates_of_its_probabilities(kind, action_size, slots):
    if kind == "scored":
        pytest.skip("its scores come from elsewhere")
    rng = np.random.default_rng(5)
    actions = Actions(list("abcdefg"), rng.normal(size=(7, action_size)))
    policy = KINDS[kind](KINDS[kind].Params(), context_size=3, action_size=action_size, seed=7)
    for t in range(60):
        x, index, reward = rng.normal(size=3), int(rng.integers(7)), float(rng.random() < 0.4)
        policy.update([Example(x, actions, index, 0.2, reward, at=1e9 + t)])
    eligible = np.array([5, 0, 1, 3, 6])
    for seed in range(20):
        scored = policy.score(rng.normal(size=3), actions, seed)
        uniforms = [*rng.random(slots)]
        slate = rank(scored, eligible, slots, 0.02, uniforms)
        assert slate == rank(Hidden(scored), eligible, slots, 0.02, uniforms)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_no_numbers_are_refused_as_rank_refuses_them(wrong):
    scores = np.array([1.0, wrong, 0.0])
    for chances in (Chances(GREEDY, scores), Chances(WINS, scores, spread=np.ones(3))):
        eligible, uniforms = np.arange(3), [0.5, 0.5]
        drawn = compiled(chances, eligible, 2, 0.0, uniforms)
        try:
            with np.errstate(invalid="ignore"):
                plain = rank(Plain(chances), eligible, 2, 0.0, uniforms)
        except PolicyError:
            plain = None
        assert drawn == plain


def test_among_thousands_of_actions_somebody_looks_at_the_clock():
    chances = Chances(GREEDY, np.arange(5_000.0))
    uniforms = [0.5] * 3
    eligible = np.arange(5_000)
    with pytest.raises(OverBudget, match="1 of 3 positions"):
        compiled(chances, eligible, 3, 0.0, uniforms, lambda: True)
    slate = compiled(chances, eligible, 3, 0.0, uniforms, lambda: False)
    assert slate == rank(Plain(chances), eligible, 3, 0.0, uniforms)
