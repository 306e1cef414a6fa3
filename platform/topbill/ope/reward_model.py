"""Reward models for dm and dr: ridge and logistic regression on the features that policies see, fitted forward in time.

Both hold a Gaussian over the weights (mean, precision) that a batch of examples updates, so fitting the past and then
scoring the present needs neither the past's rows nor folds: what scores a decision has seen only what came before it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from topbill.records import Actions, Floats

Link = Literal["linear", "logistic"]
_NEWTON_STEPS = 8


class RewardModel:
    """q̂(x, a) from (1, x, k) ⊗ (1, z) and an intercept for each action of `ids`; k = position/(1 + position).

    With the linear link the precision is XᵀX + I and the mean its ridge solution, from sufficient statistics and
    exact whatever the batches. With the logistic link each batch is a Laplace step from the last posterior.
    """

    def __init__(self, context_size: int, action_size: int, ids: tuple[str, ...], *, link: Link = "linear") -> None:
        self.link = link
        self._own = {name: i for i, name in enumerate(ids)}
        self._shape = (2 + context_size, 1 + action_size)
        size = self._shape[0] * self._shape[1] + len(ids)
        self.weights = np.zeros(size)
        self.examples = 0
        self._precision = np.eye(size)
        self._rewarded = np.zeros(size)
        self._sum = np.zeros(size)
        self._earned = 0.0

    def features(self, x: Floats, actions: Actions, position: int) -> Floats:
        """(K × size) the features of every action in context x at a position."""
        context = np.concatenate([[1.0], x, [position / (1.0 + position)]])
        z = np.concatenate([np.ones((len(actions), 1)), actions.features], axis=1)
        own = np.zeros((len(actions), len(self._own)))
        for row, name in enumerate(actions.ids):
            if name in self._own:
                own[row, self._own[name]] = 1.0
        crossed = (z[:, None, :] * context[None, :, None]).reshape(len(actions), -1)
        return np.concatenate([crossed, own], axis=1)

    def predict(self, features: Floats) -> Floats:
        """(n,) expected rewards in [0, 1] at features (n × size); 0 before anything was learned."""
        if self.examples == 0:
            return np.zeros(len(features))
        score = features @ self.weights
        if self.link == "logistic":
            return _sigmoid(score + self._base())
        return np.clip(score + self._base(), 0.0, 1.0)

    def learn(self, features: Floats, rewards: Floats) -> None:
        """Fold a batch: features (n × size) and rewards (n,) in [0, 1]."""
        if not len(rewards):
            return
        self.examples += len(rewards)
        self._earned += float(rewards.sum())
        if self.link == "logistic":
            self._laplace(features, rewards)
            return
        self._precision += features.T @ features
        self._rewarded += features.T @ rewards
        self._sum += features.sum(axis=0)
        self.weights = cho_solve(cho_factor(self._precision), self._rewarded - self._base() * self._sum)

    def _base(self) -> float:
        """The mean reward (its logit), to which weights shrink."""
        mean = (self._earned + 0.5) / (self.examples + 1.0)
        return mean if self.link == "linear" else float(np.log(mean / (1.0 - mean)))

    def _laplace(self, features: Floats, rewards: Floats) -> None:
        """Newton's steps to the mode of prior × likelihood, whose curvature is the next prior's precision."""
        prior, start, base = self._precision, self.weights, self._base()
        w = start
        for _ in range(_NEWTON_STEPS):
            p = _sigmoid(features @ w + base)
            curved = prior + (features * (p * (1.0 - p))[:, None]).T @ features
            step = cho_solve(cho_factor(curved), features.T @ (rewards - p) - prior @ (w - start))
            w = w + step
            if np.abs(step).max() < 1e-8:
                break
        self.weights, self._precision = w, curved


def _sigmoid(score: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(score, -500.0, 500.0))), dtype=np.float64)
