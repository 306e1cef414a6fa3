"""Chance in one place: the salted hash, the least probability, shared ties, and the one draw."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from hashlib import blake2b
from itertools import accumulate

import numpy as np

from topbill.domain.records import Floats

_SCALE = 2.0**-53
ROUNDING = 1e-6
"""How far past 1 rounding takes a probability: one of float32 by 1e-7, a sum of several by more."""
FEW = 64
"""Up to so many actions plain Python draws faster than NumPy."""


def at_most_one(p: float) -> float:
    """The probability; 1 where only rounding took it past that."""
    return 1.0 if 1.0 < p <= 1.0 + ROUNDING else p


def hash64(*parts: str) -> int:
    """64 bits from the parts, unambiguous in their boundaries (`"a","bc"` differs from
    `"ab","c"`).
    """
    # Any hash would do that mixes well; this one is the standard library's fastest, and another one
    # now would send every unit to another variant.
    digest = blake2b("\x1f".join(parts).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def uniform(*parts: str) -> float:
    """A number in [0, 1) that only the parts decide: for assignment (salt, unit) and draws
    (decision id, position).
    """
    # The upper 53 bits: as many as a float's fraction holds, so that every value is equally likely
    # and 1 itself cannot come out.
    return (hash64(*parts) >> 11) * _SCALE


def throws(*parts: str) -> Callable[[str], float]:
    """name → `uniform(*parts, name)`, with the parts hashed once."""
    base = blake2b(("\x1f".join(parts) + "\x1f").encode(), digest_size=8)

    def of(name: str) -> float:
        digest = base.copy()
        digest.update(name.encode())
        return (int.from_bytes(digest.digest(), "little") >> 11) * _SCALE

    return of


def uniforms(*parts: str) -> Callable[[int], float]:
    """k → `uniform(*parts, str(k))`, with the parts hashed once: a slate asks for many."""
    base = blake2b(("\x1f".join(parts) + "\x1f").encode(), digest_size=8)

    def at(k: int) -> float:
        digest = base.copy()
        digest.update(b"%d" % k)
        return (int.from_bytes(digest.digest(), "little") >> 11) * _SCALE

    return at


def sample(count: int, size: int, uniform: Callable[[int], float]) -> list[int]:
    """`size` of range(count) in rising order, any of them as likely as any others; `uniform` gives
    as many numbers in [0, 1) (Floyd's algorithm F2: Bentley and Floyd 1987).
    """
    chosen: set[int] = set()
    for k in range(size):
        last = count - size + k
        pick = int(uniform(k) * (last + 1))
        chosen.add(last if pick in chosen else pick)
    return sorted(chosen)


def is_learned(decision_id: str, share: float) -> bool:
    """Whether policies learn from a decision where they learn from that share of them, in (0, 1].
    It follows from the id alone: the same decisions whoever asks, and those of a smaller share
    are among those of a larger one.
    """
    return share >= 1.0 or uniform("learn", decision_id) < share


def seed_of(decision_id: str) -> int:
    """What drives the sampling inside a policy for a decision."""
    return hash64(decision_id)


def draws_of(decision_id: str) -> Callable[[int], float]:
    """The uniform that draws each position of a decision's slate, from 0."""
    return uniforms("draw", decision_id)


def with_min_probability(p: Floats, least: float) -> Floats:
    """Mix p (K, a simplex) with uniform so that no action falls below `least`, at most 1/K.

    p' = (1 − K·f)·p + f with f = min(least, 1/K); p' is again a simplex, and the order of actions
    is kept.
    """
    if least <= 0.0:
        return p
    f = min(least, 1.0 / p.size)
    return (1.0 - p.size * f) * p + f


def greedy(scores: Floats) -> Floats:
    """(K,) probability 1 shared evenly among the highest of `scores`."""
    best = scores == np.maximum.reduce(scores)
    return np.asarray(best / np.count_nonzero(best), dtype=np.float64)


def mostly_greedy(scores: Floats, epsilon: float) -> Floats:
    """(K,) `greedy`, but for a share `epsilon` of chance that is even among all."""
    return np.asarray((1.0 - epsilon) * greedy(scores) + epsilon / len(scores))


def inverse_gap(scores: Floats, gamma: float) -> Floats:
    """(K,) 1/(K + gamma·gap) for what lies a gap behind the highest of `scores`, which takes the
    rest; ties share it."""
    gap = scores.max() - scores
    best = gap == 0.0
    p = 1.0 / (len(scores) + gamma * gap)
    # The best takes what the others leave: set to 0 first, so that the sum is theirs alone.
    p[best] = 0.0
    p[best] = (1.0 - p.sum()) / np.count_nonzero(best)
    return np.asarray(p)


def softmax(scores: Floats, temperature: float) -> Floats:
    """(K,) probabilities proportional to exp(score / temperature)."""
    odds = np.exp((scores - scores.max()) / temperature)
    return np.asarray(odds / odds.sum())


def draw(p: Floats, u: float) -> int:
    """The index that u in [0, 1) draws from p (K, a simplex): the one place where Topbill draws.

    Inverts the cumulative distribution; an action with probability 0 is never drawn. For few
    actions plain Python is several times faster than NumPy; both add in the same order, so both
    draw the same.
    """
    if p.size <= FEW:
        return invert(p.tolist(), u)
    sums = np.cumsum(p)
    index = int(np.searchsorted(sums, u * sums[-1], side="right"))
    return index if index < p.size else int(np.flatnonzero(p)[-1])


def invert(p: list[float], u: float) -> int:
    """`draw` for a list."""
    cumulative = list(accumulate(p))
    # Times the last sum, which is 1 but for rounding: no u can fall beyond it. `right`, because an
    # action of probability 0 ends where it begins and must not be met there.
    index = bisect_right(cumulative, u * cumulative[-1])
    return index if index < len(p) else max(i for i, q in enumerate(p) if q)
