"""What every registered policy promises, checked for everything in KINDS: nothing registered
escapes.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache
from itertools import permutations

import msgspec
import numpy as np
import pytest
from scipy import stats

from topbill.domain.errors import PolicyError
from topbill.domain.features import LARGEST
from topbill.domain.records import Actions, Example, Policy
from topbill.domain.slate import propensities, rank
from topbill.policies import KINDS
from topbill.policies.linear.policy import LinearParams
from topbill.policies.vw import EXPLORATIONS

D, DA = 3, 2
IDS = ["close-up", "chase", "skyline", "train", "kiss"]
FEATURES = np.random.default_rng(5).normal(size=(len(IDS), DA))
ACTIONS = Actions(IDS, FEATURES)
ORDER = ["train", "kiss", "chase", "skyline", "close-up"]


def variants(kind: str) -> list[dict]:
    """The parameters to check a kind with: all models and links, all explorations, or the
    defaults.
    """
    if issubclass(KINDS[kind].Params, LinearParams):
        pairs = [
            (m, link) for m in ("disjoint", "shared", "hybrid") for link in ("linear", "logistic")
        ]
        return [
            {},
            *({"model": m, "link": link} for m, link in pairs),
            {"half_life": 20.0},
            {"fourier_features": 4},
        ]
    if kind == "vw":
        return [{}, *({"exploration": e} for e in EXPLORATIONS)]
    if kind == "scored":
        return [{"feature": "0", "exploration": e} for e in ("epsilon", "softmax", "squarecb")]
    return [{"order": ORDER}] if kind == "fixed" else [{}]


CASES = [
    pytest.param(
        kind,
        given,
        id="-".join([kind, *(str(v) for v in given.values() if not isinstance(v, list))]),
    )
    for kind in KINDS
    for given in variants(kind)
]
every = pytest.mark.parametrize(("kind", "given"), CASES)
one_each = pytest.mark.parametrize(
    ("kind", "given"), [(kind, variants(kind)[0]) for kind in KINDS], ids=list(KINDS)
)


def fresh(kind: str, given: dict) -> Policy:
    policy = KINDS[kind]
    return policy(msgspec.convert(given, policy.Params), context_size=D, action_size=DA, seed=7)


def examples(n: int, actions: Actions = ACTIONS, seed: int = 1) -> list[Example]:
    rng = np.random.default_rng(seed)
    out = []
    for t in range(n):
        x = rng.normal(size=D)
        index = int(rng.integers(len(actions)))
        click = rng.random() < 1 / (1 + np.exp(1.0 - x[index % D] - actions.features[index, 0]))
        out.append(
            Example(x, actions, index, 1 / len(actions), float(click), position=t % 3, at=1e9 + t)
        )
    return out


def learned(kind: str, given: dict, n: int = 80) -> Policy:
    policy = fresh(kind, given)
    policy.update(examples(n))
    return policy


X = np.array([0.3, -1.2, 0.7])


def probabilities(
    policy: Policy, actions: Actions = ACTIONS, x: np.ndarray = X, seed: int = 3
) -> np.ndarray:
    return policy.score(x, actions, seed).probabilities(np.arange(len(actions)))


@every
def test_probabilities_are_a_simplex_over_whatever_remains(kind, given):
    policy = learned(kind, given)
    for n in (0, 40):
        policy.update(examples(n, seed=n))
        for x in (X, np.zeros(D), 50.0 * X):
            scored = policy.score(x, ACTIONS, seed=n)
            for remaining in (np.arange(5), np.array([3, 1]), np.array([2])):
                p = scored.probabilities(remaining)
                assert p.shape == remaining.shape
                assert p.dtype == np.float64
                assert p.min() >= 0.0
                assert abs(p.sum() - 1.0) < 1e-9


@every
def test_deciding_changes_nothing(kind, given):
    policy = learned(kind, given)
    before = policy.dump()
    p = probabilities(policy)
    for seed in range(20):
        probabilities(policy, ACTIONS.take([4, 2, 0]), seed=seed)
    assert policy.dump() == before
    assert np.array_equal(probabilities(policy), p)


@every
def test_permuting_actions_permutes_probabilities(kind, given):
    policy = learned(kind, given)
    order = [3, 0, 4, 1, 2]
    np.testing.assert_allclose(
        probabilities(policy, ACTIONS.take(order)), probabilities(policy)[order], atol=1e-6, rtol=0
    )


@every
def test_actions_come_and_go(kind, given):
    policy = learned(kind, given)
    grown = Actions([*IDS, "poster"], np.vstack([FEATURES, [0.5, -0.5]]))
    assert abs(probabilities(policy, grown).sum() - 1.0) < 1e-9
    policy.update(examples(30, grown, seed=2))
    fewer = grown.take([5, 0])
    assert abs(probabilities(policy, fewer).sum() - 1.0) < 1e-9
    policy.update(examples(10, fewer, seed=3))
    assert abs(probabilities(policy, ACTIONS).sum() - 1.0) < 1e-9


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind not in ("uniform", "fixed", "scored")]
)
def test_a_newcomer_starts_from_what_its_features_have_earned(kind):
    rng = np.random.default_rng(4)
    policy = fresh(kind, {})
    for t in range(600):
        catalogue = Actions([f"old {t // 50} {k}" for k in range(4)], rng.normal(size=(4, DA)))
        index = int(rng.integers(4))
        click = rng.random() < 1 / (1 + np.exp(1.5 - 2.0 * catalogue.features[index, 0]))
        policy.update([Example(rng.normal(size=D), catalogue, index, 0.25, float(click))])
    new = Actions(["dull", "fine"], np.array([[-1.5, 0.0], [1.5, 0.0]]))
    dull, fine = probabilities(policy, new)
    assert fine > 2.0 * dull


@every
def test_contexts_as_large_as_they_may_be_leave_a_state_that_loads(kind, given):
    rng = np.random.default_rng(6)
    policy = fresh(kind, given)
    for t in range(300):
        x = rng.choice([-LARGEST, -1.0, 0.0, 1.0, LARGEST], size=D)
        policy.update([Example(x, ACTIONS, t % 5, 0.2, float(rng.random() < 0.1), at=1e9 + t)])
    restored = fresh(kind, given)
    restored.load(policy.dump())
    for x in (X, LARGEST * np.ones(D)):
        assert abs(probabilities(restored, x=x).sum() - 1.0) < 1e-9


@every
def test_unseen_feature_values_are_taken(kind, given):
    policy = fresh(kind, given)
    still = Actions(IDS, np.zeros((len(IDS), DA)))
    policy.update([Example(np.zeros(D), still, t % 5, 0.2, t % 2.0) for t in range(20)])
    assert abs(probabilities(policy).sum() - 1.0) < 1e-9
    assert abs(probabilities(policy, x=np.full(D, 1e3)).sum() - 1.0) < 1e-9


@every
def test_restored_state_gives_bit_equal_probabilities(kind, given):
    policy = learned(kind, given)
    blob = policy.dump()
    restored = fresh(kind, given)
    restored.load(blob)
    assert restored.dump() == blob
    assert np.array_equal(probabilities(restored), probabilities(policy))


@every
def test_one_batch_or_many_give_the_same_state(kind, given):
    told = examples(80)
    at_once, in_parts, one_by_one = fresh(kind, given), fresh(kind, given), fresh(kind, given)
    at_once.update(told)
    in_parts.update(told[:33])
    in_parts.update([])
    in_parts.update(told[33:])
    for example in told:
        one_by_one.update([example])
    assert at_once.dump() == in_parts.dump() == one_by_one.dump()


@every
def test_damaged_states_are_refused_and_change_nothing(kind, given):
    policy = learned(kind, given)
    blob = policy.dump()
    flipped = bytearray(blob)
    flipped[len(blob) // 2 :] = b"\xff" * (len(blob) - len(blob) // 2)
    other = learned("uniform" if kind != "uniform" else "fixed", {}).dump()
    for bad in (
        b"",
        b"nonsense",
        blob[:-1],
        bytes(flipped),
        other,
        b"\x80\x04N.",
        msgspec.msgpack.encode({"kind": kind}),
    ):
        with pytest.raises(PolicyError):
            policy.load(bad)
    assert policy.dump() == blob


@one_each
def test_states_with_nan_are_refused(kind, given):
    policy = learned(kind, given)
    state = msgspec.msgpack.decode(policy.dump())
    for packed in state["arrays"].values():
        packed[2] = np.full(len(packed[2]) // 8, np.nan).tobytes()
    state["numbers"] = {name: float("nan") for name in state["numbers"]} or {"n": float("nan")}
    with pytest.raises(PolicyError):
        policy.load(msgspec.msgpack.encode(state))


@every
def test_explanations_add_up_to_finite_numbers(kind, given):
    told = learned(kind, given).explain(X, ACTIONS, (["tv", "hour", "taste"], ["faces", "tone"]))
    assert len(told) == len(ACTIONS)
    assert all(np.isfinite(list(parts.values())).all() for parts in told)


@every
def test_only_kinds_said_to_be_deterministic_give_probability_zero(kind, given):
    p = probabilities(learned(kind, given))
    assert (p.min() == 0.0) == KINDS[kind].deterministic


class Remembered:
    """Scores that compute the probabilities of a remaining set once: 100,000 draws from one
    decision.
    """

    mean = width = None

    def __init__(self, scored) -> None:
        self.probabilities_of = lru_cache(lambda rows: scored.probabilities(np.array(rows)))

    def probabilities(self, remaining: np.ndarray) -> np.ndarray:
        return self.probabilities_of(tuple(remaining.tolist()))


def check_draws(policy: Policy, slots: int, floor: float, draws: int = 100_000) -> None:
    """The frequency of each whole ranking matches its joint propensity, found by enumeration."""
    actions = ACTIONS.take(range(4))
    eligible = np.arange(4)
    scored = Remembered(policy.score(X, actions, seed=3))
    expected = {
        rows: float(np.prod(propensities(scored, eligible, rows, floor)))
        for rows in permutations(range(4), slots)
    }
    assert abs(sum(expected.values()) - 1.0) < 1e-9
    uniforms = np.random.default_rng(11).random((draws, slots)).tolist()
    seen: Counter[tuple[int, ...]] = Counter()
    for u in uniforms:
        slate = rank(scored, eligible, slots, floor, u)
        assert math.isclose(slate.propensity, expected[slate.rows], rel_tol=1e-12)
        seen[slate.rows] += 1
    assert all(expected[rows] > 0.0 for rows in seen)
    common = [rows for rows, p in expected.items() if p * draws >= 5.0]
    rest = draws - sum(seen[rows] for rows in common), 1.0 - sum(expected[rows] for rows in common)
    observed = [seen[rows] for rows in common] + [rest[0]] * (rest[1] * draws >= 1.0)
    means = [expected[rows] * draws for rows in common] + [rest[1] * draws] * (
        rest[1] * draws >= 1.0
    )
    statistic = sum((o - e) ** 2 / e for o, e in zip(observed, means, strict=True))
    # The draws are seeded; the bound is what chance exceeds once in 10,000 seeds.
    assert statistic <= stats.chi2.ppf(1 - 1e-4, max(len(observed) - 1, 1))


@one_each
@pytest.mark.parametrize(("slots", "floor"), [(1, 0.0), (3, 0.02)])
def test_draws_match_propensities(kind, given, slots, floor):
    check_draws(learned(kind, given, 12), slots, floor)


@pytest.mark.slow
@every
@pytest.mark.parametrize(("slots", "floor"), [(1, 0.02), (3, 0.0)])
def test_draws_match_propensities_whatever_the_parameters(kind, given, slots, floor):
    check_draws(learned(kind, given, 12), slots, floor)
