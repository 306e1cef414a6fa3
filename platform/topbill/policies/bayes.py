"""What the linear policies share: a model that learns, and scores that a policy turns into
probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from topbill.domain.records import Actions, Example, Floats, Indices
from topbill.policies.experts import Prediction
from topbill.policies.linear import Linear, LinearParams


class LinearScored:
    """One decision's scores. `mean` and `width` are in rewards, `eta` and `sd` on the link
    scale.
    """

    __slots__ = ("_logistic", "_noise", "_sd", "eta", "prediction")

    def __init__(self, prediction: Prediction, noise: float, logistic: bool) -> None:
        self.prediction = prediction
        self.eta: Floats = prediction.mean
        self._noise, self._logistic = noise, logistic
        self._sd: Floats | None = None

    @property
    def sd(self) -> Floats:
        """(K,) one posterior standard deviation of each score on the link scale."""
        if self._sd is None:
            self._sd = np.sqrt(self.prediction.variance * self._noise)
        return self._sd

    @property
    def mean(self) -> Floats:
        """(K,) expected reward of each action."""
        return (
            1.0 / (1.0 + np.exp(-np.clip(self.eta, -500.0, 500.0))) if self._logistic else self.eta
        )

    @property
    def width(self) -> Floats:
        """(K,) one posterior standard deviation of the mean (delta method for the logistic
        link).
        """
        if not self._logistic:
            return self.sd
        p = self.mean
        return p * (1.0 - p) * self.sd

    def probabilities(self, remaining: Indices) -> Floats:
        raise NotImplementedError


class LinearPolicy:
    """A policy over one `Linear` model. Subclasses say how scores become probabilities."""

    kind: ClassVar[str]

    def __init__(
        self,
        params: LinearParams,
        *,
        context_size: int,
        action_size: int,
        seed: int = 0,  # noqa: ARG002
    ) -> None:
        self.params = params
        self.model = Linear(params, context_size=context_size, action_size=action_size)
        self._logistic = params.link == "logistic"

    def update(self, examples: Sequence[Example]) -> None:
        for example in examples:
            self.model.learn(example)

    def dump(self) -> bytes:
        return self.model.dump(self.kind)

    def load(self, blob: bytes) -> None:
        self.model.load(self.kind, blob)

    def explain(
        self, x: Floats, actions: Actions, names: tuple[Sequence[str], Sequence[str]]
    ) -> list[dict[str, float]]:
        return self.model.explain(x, actions, names)
