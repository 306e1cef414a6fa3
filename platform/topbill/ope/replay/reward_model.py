"""Reward models for dm and dr: ridge and logistic regression on the features that policies see,
fitted forward in time.

Both hold a Gaussian over the weights (mean, precision) that a batch of examples updates, so fitting
the past and then scoring the present needs neither the past's rows nor folds: what scores a
decision has seen only what came before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary

import numpy as np

from topbill import late
from topbill.domain.records import Actions, Floats, Indices

if TYPE_CHECKING:
    from scipy.linalg import cho_factor, cho_solve
else:
    cho_factor = late.name("scipy.linalg", "cho_factor")
    cho_solve = late.name("scipy.linalg", "cho_solve")

Link = Literal["linear", "logistic"]
_NEWTON_STEPS = 8
_OWN_LIMIT = 512
"""Most weights that actions may have of their own; past it they share all but an intercept, far
past it even that.
"""


class RewardModel:
    """q̂(x, a) from (1, x, k) ⊗ (1, z), and weights on (1, x, k) for each action of `ids`; k =
    position/(1 + position).

    With the linear link the precision is XᵀX + I and the mean its ridge solution, from sufficient
    statistics and exact whatever the batches. With the logistic link each batch is a Laplace step
    from the last posterior.
    """

    def __init__(
        self, context_size: int, action_size: int, ids: tuple[str, ...], *, link: Link = "linear"
    ) -> None:
        self.link = link
        self.examples = 0.0
        # The precision is a square of the number of weights, so that is what is kept small.
        wide = 2 + context_size
        own = wide if len(ids) * wide <= _OWN_LIMIT else int(len(ids) <= _OWN_LIMIT)
        self._place = {name: i for i, name in enumerate(ids)} if own else {}
        self._shared, self._own = (1 + action_size, wide), (len(self._place) + 1, own)
        size = self._shared[0] * wide + self._own[0] * own
        # The prior is N(0, 1) of each weight, around the base rate: ridge with λ = 1.
        self._weights = np.zeros(size)
        self._precision = np.eye(size)
        self._rewarded = np.zeros(size)
        self._sum = np.zeros(size)
        self._earned = 0.0
        self._coded: WeakKeyDictionary[Actions, tuple[Floats, Indices]] = WeakKeyDictionary()

    def predict(self, x: Floats, actions: Actions, positions: int) -> Floats:
        """(K × positions) expected rewards in [0, 1] of the actions in context x; 0 before anything
        was learned.
        """
        contexts = np.stack([_context(x, k) for k in range(positions)], axis=1)
        return self._expected(contexts, actions)

    def predict_each(self, xs: Floats, actions: Actions) -> Floats:
        """(n × K) what `predict` says of the first position in each of the contexts `xs` (n × d),
        within 1e-12.
        """
        contexts = np.zeros((self._shared[1], len(xs)))
        contexts[0], contexts[1:-1] = 1.0, xs.T
        return self._expected(contexts, actions).T

    def _expected(self, contexts: Floats, actions: Actions) -> Floats:
        """(K × n) expected rewards of the actions in contexts with their positions (c × n)."""
        # A model that knows nothing says 0, which leaves dr the plain ips.
        if self.examples == 0:
            return np.zeros((len(actions), contexts.shape[1]))
        # (1, z) W (1, x, k)ᵀ for all actions and contexts at once, without forming the products.
        z, rows = self._codes(actions)
        split = self._shared[0] * self._shared[1]
        score = z @ (self._weights[:split].reshape(self._shared) @ contexts) + self._base()
        own = self._weights[split:].reshape(self._own)
        score += (own @ contexts[: self._own[1]])[rows]
        return np.clip(score, 0.0, 1.0) if self.link == "linear" else _sigmoid(score)

    def features(self, placed: Sequence[tuple[Floats, Actions, int, int]]) -> Floats:
        """(n × size) the features of actions, each given by the context, those that it was among,
        its row among them and its position.
        """
        contexts = np.array([_context(x, position) for x, _, _, position in placed])
        coded = [(*self._codes(actions), row) for _, actions, row, _ in placed]
        z = np.array([z[row] for z, _, row in coded])
        own = np.zeros((len(placed), *self._own))
        places = [rows[row] for _, rows, row in coded]
        own[np.arange(len(placed)), places] = contexts[:, : self._own[1]]
        shared = z[:, :, None] * contexts[:, None, :]
        size = len(placed)
        return np.concatenate([shared.reshape(size, -1), own.reshape(size, -1)], axis=1)

    def _codes(self, actions: Actions) -> tuple[Floats, Indices]:
        """(1, z) of each action, and its row among the own weights; the last row is of those
        without.
        """
        # Remembered as long as the actions live: most decisions of a log offer the same ones.
        codes = self._coded.get(actions)
        if codes is None:
            z = np.concatenate([np.ones((len(actions), 1)), actions.features], axis=1)
            rows = [self._place.get(name, len(self._place)) for name in actions.ids]
            codes = self._coded[actions] = (z, np.array(rows, dtype=np.intp))
        return codes

    def learn(self, features: Floats, rewards: Floats, weights: Floats | None = None) -> None:
        """Fold a batch: features (n × size), rewards (n,) in [0, 1], and how many examples each
        stands for (n,), one if None.
        """
        if not len(rewards):
            return
        counts = np.ones(len(rewards)) if weights is None else weights
        self.examples += float(counts.sum())
        self._earned += float(counts @ rewards)
        if self.link == "logistic":
            self._laplace(features, rewards, counts)
            return
        # Sums only, so that batches of any size give the same weights. The base moves as rewards
        # come in, which is why the features' own sum is kept: it is taken off when solving.
        weighted = features if (counts == 1.0).all() else features * counts[:, None]
        self._precision += features.T @ weighted
        self._rewarded += weighted.T @ rewards
        self._sum += weighted.sum(axis=0)
        self._weights = cho_solve(
            cho_factor(self._precision), self._rewarded - self._base() * self._sum
        )

    def _base(self) -> float:
        """The mean reward (its logit), to which weights shrink."""
        # Half an example of each kind (Jeffreys), so that the logit of none is a number.
        mean = (self._earned + 0.5) / (self.examples + 1.0)
        return mean if self.link == "linear" else float(np.log(mean / (1.0 - mean)))

    def _laplace(self, features: Floats, rewards: Floats, counts: Floats) -> None:
        """Newton's steps to the mode of prior × likelihood, whose curvature is the next prior's
        precision.
        """
        prior, start, base = self._precision, self._weights, self._base()
        w = start
        # The likelihood is concave, so Newton from the last mode needs a step or two.
        for _ in range(_NEWTON_STEPS):
            p = _sigmoid(features @ w + base)
            curved = prior + (features * (counts * p * (1.0 - p))[:, None]).T @ features
            step = cho_solve(
                cho_factor(curved), features.T @ (counts * (rewards - p)) - prior @ (w - start)
            )
            w = w + step
            if np.abs(step).max() < 1e-8:
                break
        self._weights, self._precision = w, curved


def _context(x: Floats, position: int) -> Floats:
    return np.concatenate([[1.0], x, [position / (1.0 + position)]])


def _sigmoid(score: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(score, -500.0, 500.0))), dtype=np.float64)
