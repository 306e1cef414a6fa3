"""What compiled calls draw under rules is what `rank` draws under them, to the last bit, and the
rules note the same masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain.chance import draws_of, seed_of
from topbill.domain.records import Actions, Example
from topbill.domain.slate import AllowedAhead, SlateRequest, TurnsRequest, rank
from topbill.pages.layers import PinnedRows
from topbill.policies import KINDS
from topbill.policies.linear.chances import GREEDY, SHARES, WINS
from topbill.rules import PoolCaps, PositionChoices, RowConstraints

from .test_slates import DRAWN, SEEDS, some

pytest.importorskip("numba")
from topbill.policies.linear.ruled import draw_ruled

Rules = Callable[[], AllowedAhead]


def row_rules(rng: np.random.Generator, size: int) -> tuple[Rules, int]:
    """Rules of a row of titles, made anew with each call, and how many positions it has."""
    slots, caps = int(rng.integers(1, size + 1)), int(rng.integers(0, 5))
    groups = rng.random((size, caps)) < 0.4
    pool = PoolCaps(
        np.arange(caps),
        [f"cap {c}" for c in range(caps)],
        np.nonzero(groups)[1].copy(),
        groups.sum(axis=1).cumsum(),
    )
    positions = sorted(rng.permutation(slots)[: int(rng.integers(0, 3))].tolist())
    pins = dict(zip(positions, rng.permutation(size).tolist(), strict=False))
    left = rng.integers(0, size + 1, caps) + groups[list(pins.values())].sum(axis=0)
    # Without pins and a quota rules are noted in a compiled call.
    quota = 0 if rng.random() < 0.5 else int(rng.integers(0, slots + 1))
    fresh = (quota, rng.random(size) < 0.4)
    least = None if rng.random() < 0.7 else int(rng.integers(1, slots + 1))

    def rules() -> AllowedAhead:
        return RowConstraints(pool, slots, cap_left=left, pins=pins, fresh=fresh, least=least)

    return rules, slots


def turns(rng: np.random.Generator, size: int) -> tuple[Rules, int]:
    """The pictures of some titles, `size` in all, and how many titles they are of."""
    ends = np.unique(rng.integers(1, size + 1, 4)).tolist()
    starts = [0, *[end for end in ends if end < size], size]
    names = [str(k) for k in range(len(starts) - 1)]
    return lambda: PositionChoices(names, starts), len(names)


def page_rows(rng: np.random.Generator, size: int) -> tuple[Rules, int]:
    """A page's rows with their pins, of which some are eligible."""
    slots = int(rng.integers(1, size + 1))
    eligible = np.flatnonzero(rng.random(size) < 0.7)
    if not len(eligible):
        eligible = np.arange(size)
    pins = dict(zip(range(0, slots, 2), rng.permutation(eligible)[:2].tolist(), strict=False))
    return lambda: PinnedRows(eligible, slots, pins), slots


def by_rank(
    scored: object, size: int, slots: int, least: float, uniforms: Sequence[float], rules: Rules
) -> tuple:
    allowed = rules()
    slate = rank(scored, np.arange(size), slots, least, uniforms, allowed)
    return slate.rows, slate.propensities, slate.propensity, allowed.masks


@given(
    seed=SEEDS,
    kind=st.sampled_from([GREEDY, WINS, SHARES]),
    size=st.one_of(st.integers(1, 14), st.integers(60, 70)),
    made=st.sampled_from([row_rules, turns, page_rows]),
    least=st.sampled_from([0.0, 1e-3, 0.02, 0.5]),
)
def test_compiled_positions_under_rules_are_those_of_rank(seed, kind, size, made, least):
    rng = np.random.default_rng(seed)
    plain = some(rng, kind, size)
    rules, slots = made(rng, size)
    uniforms = rng.random(slots)
    uniforms[0] = float(rng.choice([0.0, uniforms[0], 1.0 - 2.0**-53]))
    rows, propensities = np.zeros(slots, dtype=np.intp), np.zeros(slots)
    allowed = rules()
    count = draw_ruled(*plain[:5], least, uniforms, *allowed.ahead(), rows, propensities)
    drawn, chances = tuple(rows[:count].tolist()), tuple(propensities[:count].tolist())
    allowed.note(drawn)
    expected = by_rank(plain, size, slots, least, uniforms, rules)
    assert (drawn, chances) == expected[:2]
    assert allowed.masks == expected[3]


@given(
    seed=SEEDS,
    of=st.sampled_from([(kind, given) for kind, several in DRAWN.items() for given in several]),
    made=st.sampled_from([row_rules, turns, page_rows]),
    least=st.sampled_from([0.0, 0.02]),
    lessons=st.sampled_from([0, 30]),
)
def test_policies_draw_the_slates_of_their_scores_under_rules(seed, of, made, least, lessons):
    kind, params = of
    rng = np.random.default_rng(seed)
    actions = Actions(list("gfedcba"), rng.normal(size=(7, 2)))
    policy = KINDS[kind](
        msgspec.convert(params, KINDS[kind].Params), context_size=3, action_size=2, seed=7
    )
    for t in range(lessons):
        x, index, reward = rng.normal(size=3), int(rng.integers(7)), float(rng.random() < 0.4)
        policy.update([Example(x, actions, index, 0.2, reward, position=t % 3, at=1e9 + t)])
    rules, slots = made(rng, 7)
    x, name, allowed = rng.normal(size=3), f"decision-{seed}", rules()
    request = SlateRequest(name, np.arange(7), slots, least, None, allowed.ahead())
    slate = policy.slate(x, actions, request)
    allowed.note(slate.rows)
    scored = policy.score(x, actions, seed_of(name))
    expected = by_rank(scored, 7, slots, least, draws_of(name), rules)
    assert (slate.rows, slate.propensities, slate.propensity, allowed.masks) == expected
    assert slate.probabilities is None


def test_what_is_no_simplex_is_left_to_rank_under_rules():
    policy = KINDS["linucb"](KINDS["linucb"].Params(), context_size=1, action_size=0, seed=7)
    actions = Actions(list("abc"), np.zeros((3, 0)))
    rules = PositionChoices(["a"], [0, 3]).ahead()
    request = SlateRequest("d", np.arange(3), 1, 0.0, None, rules)
    assert policy.slate(np.array([np.nan]), actions, request) is None


@given(
    seed=SEEDS,
    of=st.sampled_from([(kind, given) for kind, several in DRAWN.items() for given in several]),
    least=st.sampled_from([0.0, 0.02]),
    lessons=st.sampled_from([0, 30]),
)
def test_what_is_drawn_for_several_decisions_at_once_is_the_slate_of_each(seed, of, least, lessons):
    kind, params = of
    rng = np.random.default_rng(seed)
    policy = KINDS[kind](
        msgspec.convert(params, KINDS[kind].Params), context_size=3, action_size=2, seed=7
    )
    # Of each decision, how many choices each of its positions has.
    choices = [rng.integers(1, 4, int(rng.integers(1, 5))).tolist() for _ in range(3)]
    starts = np.cumsum([0, *[count for own in choices for count in own]])
    actions = Actions(
        [f"action {k}" for k in range(starts[-1])], rng.normal(size=(int(starts[-1]), 2))
    )
    for t in range(lessons):
        x, index = rng.normal(size=3), int(rng.integers(len(actions)))
        reward = float(rng.random() < 0.4)
        policy.update([Example(x, actions, index, 0.2, reward, position=t % 3, at=1e9 + t)])
    x, names, each, first = rng.normal(size=3), [f"d-{seed}-{n}" for n in range(3)], [], 0
    for name, own in zip(names, choices, strict=True):
        rules = PositionChoices([""] * len(own), np.cumsum([0, *own]).tolist()).ahead()
        theirs = actions.take(range(first, first + sum(own)))
        first += sum(own)
        request = SlateRequest(name, np.arange(sum(own)), len(own), least, None, rules)
        each.append(policy.slate(x, theirs, request))
    ends = np.cumsum([len(own) for own in choices]).tolist()
    together = None
    if hasattr(policy, "turns"):
        together = policy.turns(x, actions, TurnsRequest(names, ends, starts, least))
    # Joint draws are a decision's own, and some policies draw for each alone.
    if kind in ("auto", "fixed", "uniform") or (kind == "thompson" and not policy.independent):
        assert together is None
    else:
        assert together == each


def test_what_is_no_simplex_is_left_to_rank_for_several_decisions():
    policy = KINDS["linucb"](KINDS["linucb"].Params(), context_size=1, action_size=0, seed=7)
    actions = Actions(list("abc"), np.zeros((3, 0)))
    request = TurnsRequest(["d"], [1], np.array([0, 3]), 0.0)
    assert policy.turns(np.array([np.nan]), actions, request) is None
