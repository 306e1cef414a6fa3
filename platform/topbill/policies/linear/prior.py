"""What earlier experiments tell of a new one's actions: how much actions differ, and which features
of them told.

Both are estimated by empirical Bayes from how well each earlier action did beside the others of its
experiment. How much an action's rate lies above its experiment's is Peto's one-step estimate of a
log odds ratio (Yusuf et al. 1985), which needs no click to be finite. The variance between actions
that its noise leaves is the moment estimate of a random-effects meta-regression (DerSimonian and
Laird 1986, with covariates: Thompson and Sharp 1999), with an intercept for each experiment. The
effects of features are N(0, σ²) with σ² estimated in the same way (Efron and Morris 1973).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from topbill.domain.records import Floats

LEAST_FREEDOM = 5
"""Fewer actions than these, beyond one for each experiment and each effect, tell nothing."""
LEAST_VARIANCE = 0.0025
"""No prior variance is smaller: what is new may always differ by some 5%."""
_DIGITS = 6
"""Significant digits of a prior: machines whose last bits differ begin with the same one."""
_NOTHING = 1e-9
"""A direction of features in which earlier actions differ by less than this share of the most that
they differ in any tells nothing."""


class EarlierAction(NamedTuple):
    """What was shown of one action of an earlier experiment: Σ w, Σ w² and Σ w·r over decisions of
    weight w and reward r, and its features (da,).
    """

    weight: float
    squares: float
    reward: float
    features: tuple[float, ...]


class EarlierExperiment(NamedTuple):
    """An earlier experiment: its actions, and the mean and variance of a reward in it."""

    actions: Sequence[EarlierAction]
    mean: float
    variance: float


class ActionPrior(msgspec.Struct, frozen=True, kw_only=True):
    """What a new experiment's actions are expected to be, in logits.

    Attributes:
        experiments, actions: How many it was estimated from.
        spread: Variance of an action's own intercept, beside what its features explain.
        means, variances: (da,) of what one unit of each feature adds.
    """

    experiments: int
    actions: int
    spread: float
    means: tuple[float, ...] = ()
    variances: tuple[float, ...] = ()


class _Differences(NamedTuple):
    """Of n actions: how far each is above its experiment, with its noise's variance and features
    (n × da), and the number of its experiment.
    """

    above: Floats
    noise: Floats
    features: Floats
    experiment: Floats


def empirical_prior(earlier: Sequence[EarlierExperiment]) -> ActionPrior | None:
    """The prior that earlier experiments give; None where they are too few to tell. Features enter
    where enough actions are left beyond one for each of them.
    """
    data = _differences(earlier)
    count, experiments = len(data.above), len(set(data.experiment.tolist()))
    if count - experiments < LEAST_FREEDOM:
        return None
    size = data.features.shape[1]
    told = min(_told(data), size)
    if not told or count - experiments - told < LEAST_FREEDOM:
        spread = variance_between(data.above, data.noise, _intercepts(data))
        means, variances = np.zeros(size), np.zeros(0)
    else:
        design = np.hstack([_intercepts(data), data.features])
        spread = variance_between(data.above, data.noise, design)
        means, variances = _effects(data, spread)
    return ActionPrior(
        experiments=experiments,
        actions=count,
        spread=_rounded(max(spread, LEAST_VARIANCE)),
        means=tuple([_rounded(mean) for mean in means.tolist()]) if len(variances) else (),
        variances=tuple([_rounded(max(v, LEAST_VARIANCE)) for v in variances.tolist()]),
    )


def variance_between(values: Floats, noise: Floats, design: Floats) -> float:
    """The variance of effects around a regression that their noise does not explain, at least 0.

    Args:
        values: (n,) the observed effects.
        noise: (n,) the variance of each one's noise.
        design: (n × p) what they are regressed on; columns may depend on each other.

    Examples:
        >>> variance_between(np.array([-1.0, 0.0, 4.0]), np.ones(3), np.ones((3, 1)))
        6.0
    """
    weights = 1.0 / noise
    inverse = np.linalg.pinv((design.T * weights) @ design, hermitian=True)
    residual = values - design @ (inverse @ (design.T @ (weights * values)))
    q = float(weights @ residual**2)
    freedom = len(values) - float(np.trace(inverse @ ((design.T * weights) @ design)))
    scale = float(weights.sum() - np.trace(inverse @ ((design.T * weights**2) @ design)))
    return max((q - freedom) / scale, 0.0) if scale > 0.0 else 0.0


def _differences(earlier: Sequence[EarlierExperiment]) -> _Differences:
    above, noise, features, number = [], [], [], []
    for place, experiment in enumerate(earlier):
        odds = experiment.mean * (1.0 - experiment.mean)
        shown = [action for action in experiment.actions if action.weight > 0.0]
        # One action is compared with none, and equal rewards tell nothing of any.
        if len(shown) < 2 or odds <= 0.0 or experiment.variance <= 0.0:
            continue
        for action in shown:
            above.append((action.reward / action.weight - experiment.mean) / odds)
            noise.append(experiment.variance / odds**2 * action.squares / action.weight**2)
            features.append(action.features)
            number.append(float(place))
    size = len(features[0]) if features else 0
    rows = np.array(features, dtype=np.float64).reshape(len(features), size)
    return _Differences(np.array(above), np.array(noise), rows, np.array(number))


def _intercepts(data: _Differences) -> Floats:
    """(n × experiments) an intercept for each experiment."""
    numbers = np.unique(data.experiment)
    return np.asarray(data.experiment[:, None] == numbers, dtype=np.float64)


def _within(data: _Differences, weights: Floats) -> tuple[Floats, Floats]:
    """Effects and features less their weighted mean in each experiment, which is what its intercept
    takes.
    """
    above, features = data.above.copy(), data.features.copy()
    for number in np.unique(data.experiment):
        own = data.experiment == number
        share = weights[own] / weights[own].sum()
        above[own] -= share @ above[own]
        features[own] -= share @ features[own]
    return above, features


def _told(data: _Differences) -> int:
    """In how many directions of features actions of one experiment differ."""
    _, features = _within(data, np.ones(len(data.above)))
    return int(np.linalg.matrix_rank(features)) if features.size else 0


def _effects(data: _Differences, spread: float) -> tuple[Floats, Floats]:
    """(da,) posterior means and variances of what features add, under N(0, σ²)."""
    weights = 1.0 / (data.noise + spread)
    above, features = _within(data, weights)
    information = (features.T * weights) @ features
    values, directions = np.linalg.eigh(information)
    told = values > _NOTHING * values[-1]
    precision = values[told]
    # Each told direction's own estimate is N(0, σ² + 1/precision): the moment estimate of σ².
    estimates = (directions[:, told].T @ (features.T @ (weights * above))) / precision
    excess = float(precision @ estimates**2) - len(precision)
    variance = max(excess / float(precision.sum()), 0.0)
    if variance == 0.0:
        return np.zeros(len(values)), np.zeros(len(values))
    posterior = np.full(len(values), variance)
    posterior[told] = 1.0 / (precision + 1.0 / variance)
    shrunk = estimates * posterior[told] * precision
    return directions[:, told] @ shrunk, (directions**2) @ posterior


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
