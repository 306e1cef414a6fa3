"""Thompson sampling with exact propensities: the probability that an action's score is the
highest.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from topbill.domain.records import Actions, Floats, Indices
from topbill.domain.slate import Slate, TurnsRequest
from topbill.policies.linear.chances import SHARES, WINS, Chances
from topbill.policies.linear.models import ActionIndex, Prediction
from topbill.policies.linear.policy import ExploringParams, LinearPolicy, LinearScored
from topbill.policies.linear.widening import of_posterior

_TABLES, _LARGEST_TABLES = 64, 2_000_000
"""Tables of standard normals (fewer where they would hold more numbers than that): a decision's id
picks one. So they cost a decision nothing to draw, and neighbouring decisions don't share a table's
errors."""


class _Scored(LinearScored):
    __slots__ = ("_draws", "independent", "params", "scale", "seed")

    def __init__(
        self,
        prediction: Prediction,
        noise: float,
        logistic: bool,
        *,
        params: ThompsonParams,
        exploration: float,
        seed: int,
        independent: bool,
    ) -> None:
        super().__init__(prediction, noise, logistic)
        self.params = params
        self.seed = seed
        self.independent = independent
        self.scale = _scale(noise, exploration)
        self._draws: Floats | None = None

    def probabilities(self, remaining: Indices) -> Floats:
        from topbill.policies.linear import sampling

        if self.independent:
            return sampling.wins(self.eta[remaining], self._spread()[remaining])
        return sampling.shares(self._joint(), remaining)

    def _spread(self) -> Floats:
        """(K,) how much independent scores vary."""
        # The least variance keeps the quadrature from dividing by nothing.
        spread = np.sqrt(np.maximum(self.prediction.own, 1e-300)) * self.scale
        return np.asarray(spread)

    def _joint(self) -> Floats:
        """(K × samples) draws of all scores, the same at every position of a slate."""
        if self._draws is None:
            self._draws = self._sampled()
        return self._draws

    def shifted(self, by: Floats) -> LinearScored:
        """The same with `by` (K,) added to the scores, in logits, with the same samples."""
        if not self.independent:
            self._joint()
        return super().shifted(by)

    def forget_drawn(self, by: Floats) -> None:
        # The same luck: a score that is higher by so much is so in every sample.
        if self._draws is not None:
            self._draws = self._draws + by[:, None]

    def _sampled(self) -> Floats:
        """(K × samples) joint draws of all scores."""
        from topbill.policies.linear import sampling

        prediction = self.prediction
        index = prediction.action_index
        tables = _normals(index, self.params)
        normals = tables[self.seed % len(tables)]
        return sampling.sample(
            prediction.mean,
            prediction.own,
            prediction.common,
            index.Z,
            normals,
            index.rank,
            self.scale,
        )


def _scale(noise: float, exploration: float) -> float:
    """What the standard deviations of scores, in units of the noise, are multiplied with."""
    return float(noise**0.5 * exploration)


def _normals(index: ActionIndex, params: ThompsonParams) -> Floats:
    """(tables × at least q + K × half the samples) standard normals, the same in every process; few
    sizes for all numbers of actions, so that they are few to keep.
    """
    K, q = index.Z.shape
    return _tables(params.samples // 2, 1 << (K + q - 1).bit_length())


@lru_cache(maxsize=64)
def _tables(half: int, rows: int) -> Floats:
    tables = max(1, min(_TABLES, _LARGEST_TABLES // (rows * half)))
    return np.random.Generator(np.random.SFC64(rows)).standard_normal((tables, rows, half))


class ThompsonParams(ExploringParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`exploration` scales the posterior's standard deviation at first, `samples` is for correlated
    scores.
    """

    exploration: Annotated[
        float,
        msgspec.Meta(gt=0.0, description="factor on the posterior standard deviation, at first"),
    ] = 0.12
    samples: Annotated[
        int,
        msgspec.Meta(ge=16, le=65536, description="joint posterior samples for correlated scores"),
    ] = 128


class Thompson(LinearPolicy):
    """Thompson (1933) sampling over a Bayesian linear model (Agrawal and Goyal 2013), with standard
    deviations times `exploration` at first, and times 1 once there is much evidence (`widening`).

    Scores that are independent across actions (model `disjoint`, or no action features) get their
    exact probabilities by quadrature. Correlated scores get the shares of wins among joint samples,
    mixed with a floor of 1/(samples + 1): that very vector is then the policy's probabilities.
    """

    kind: ClassVar[str] = "thompson"
    deterministic: ClassVar[bool] = False
    # While draws are narrow, little but chance finds back where early luck misleads.
    default_spread: ClassVar[float] = 0.02

    Params: ClassVar[type[msgspec.Struct]] = ThompsonParams

    params: ThompsonParams

    @property
    def exploration(self) -> float:
        """What standard deviations are multiplied with, after what was learned up to now."""
        least = self.params.exploration
        if not self.params.adaptive:
            return least
        return of_posterior(least, self.evidence)

    def score(self, x: Floats, actions: Actions, seed: int) -> _Scored:
        return _Scored(
            self.predict(x, actions),
            self.noise,
            self.logistic,
            params=self.params,
            exploration=self.exploration,
            seed=seed,
            independent=self.independent,
        )

    def turns(self, x: Floats, actions: Actions, request: TurnsRequest) -> list[Slate] | None:
        """As of any linear policy; None where draws are joint, of which each decision has its
        own.
        """
        return super().turns(x, actions, request) if self.independent else None

    def chances(self, index: ActionIndex) -> Chances:
        scale = _scale(self.noise, self.exploration)
        if self.independent:
            return Chances(WINS, scale, alone=True)
        return Chances(SHARES, scale, normals=_normals(index, self.params))
