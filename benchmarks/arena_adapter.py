"""Topbill's policies as the arena wants them: `make(spec, seed)` and friends, over the production
classes.

A factory gives an object with `decide(context, actions) -> (index, probability)`, `update_batch(…)`
and `last_pmf`; every decision goes through `slates.rank`, like the service's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "platform"))

import msgspec
import numpy as np

from topbill.domain.records import Actions, Example
from topbill.domain.slate import rank
from topbill.policies import KINDS
from topbill.spec.exploration import default_min_probability


class Player:
    """One policy in the arena."""

    def __init__(
        self,
        kind: str,
        spec: Mapping[str, Any],
        seed: int,
        floor: float | None,
        params: dict[str, Any],
    ) -> None:
        policy = KINDS[kind]
        self.kind = kind
        self.policy = policy(
            msgspec.convert(params, policy.Params),
            context_size=spec["d"],
            action_size=spec["da"],
            seed=seed,
        )
        self.floor = floor
        self.random = np.random.default_rng(seed)
        self.last_pmf: Any = None
        self._known: dict[int, tuple[Any, Actions, Any]] = {}

    def _actions(self, theirs: Any) -> tuple[Actions, Any]:
        found = self._known.get(id(theirs))
        if found is None:
            if len(self._known) > 4000:
                self._known.clear()
            ours = Actions(theirs.ids, np.asarray(theirs.features, dtype=np.float64))
            found = self._known[id(theirs)] = (theirs, ours, np.arange(len(ours)))
        return found[1], found[2]

    def decide(self, context: Any, actions: Any) -> tuple[int, float]:
        """One decision: its row and the propensity it was drawn with."""
        ours, eligible = self._actions(actions)
        scored = self.policy.score(context, ours, int(self.random.integers(2**32)))
        floor = self.floor
        if floor is None:
            floor = default_min_probability(self.kind, len(ours))
        slate = rank(scored, eligible, 1, floor, (self.random.random(),))
        self.last_pmf = None if slate.probabilities is None else slate.probabilities[0]
        return slate.rows[0], slate.propensity

    def update_batch(self, batch: Any) -> None:
        """Matured rewards, in the order in which they came."""
        self.policy.update([Example(x, self._actions(a)[0], i, p, r) for x, a, i, p, r in batch])


def factory(
    kind: str, floor: float | None = None, **params: Any
) -> Callable[[Mapping[str, Any], int], Player]:
    """A factory of `kind` with fixed parameters, and with the least probability `floor`: None is
    what a file that says none gets.
    """
    return lambda spec, seed: Player(kind, spec, seed, floor, params)


def make(spec: Mapping[str, Any], seed: int) -> Player:
    """What a spec that names no policy gets."""
    return Player("auto", spec, seed, 0.0, {})


def linucb(**params: Any) -> Callable[[Mapping[str, Any], int], Player]:
    """`linucb(alpha=1.0)` and the like; without arguments the defaults."""
    return factory("linucb", **{"floor": 0.0} | params)


def thompson(**params: Any) -> Callable[[Mapping[str, Any], int], Player]:
    """Thompson sampling."""
    return factory("thompson", **{"floor": 0.0} | params)


def epsilon_greedy(**params: Any) -> Callable[[Mapping[str, Any], int], Player]:
    """ε-greedy."""
    return factory("epsilon_greedy", **{"floor": 0.0} | params)


def squarecb(**params: Any) -> Callable[[Mapping[str, Any], int], Player]:
    """Inverse gap weighting."""
    return factory("squarecb", **{"floor": 0.0} | params)


def vw(**params: Any) -> Callable[[Mapping[str, Any], int], Player]:
    """Vowpal Wabbit."""
    return factory("vw", **{"floor": 0.0} | params)
