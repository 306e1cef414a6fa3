"""Can this log speak for that policy? Diagnostics of weights and log, and the gates that they must
pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import numpy as np

from topbill.domain.formatting import several
from topbill.domain.reasons import reasons
from topbill.domain.records import Floats

REASONS: dict[str, str] = reasons(
    "too_few_units",
    "no_rewards",
    "no_overlap",
    "no_support",
    "low_effective_sample",
    "one_weight_dominates",
    "poor_overlap",
    "mean_weight_off",
    "propensities_miscalibrated",
    "no_exploration",
    "mixed_policy_versions",
    "rewards_immature",
    "needs_reward_model",
    "needs_embedding_propensities",
    "needs_weight_moment",
    "needs_propensity_level",
    "no_finite_sample_interval",
    "value_drifts",
    "unstable",
    "gain_undecided",
)
"""The codes of off-policy estimates, each with the sentence that a person reads."""


@dataclass(frozen=True)
class Gates:
    """Thresholds that a log must pass before a number is given. Infinite or zero switches one off.

    `mean_weight_z` and `mean_weight_off` must both be exceeded: far from 1 for the noise, and far
    enough to matter. `exploration` (least share of decisions that explored, at any position) and
    `policy_versions` (most that may have written the log) are off unless set: `unsupported` says
    the former better, and adaptive-dr, betting intervals and sequences bear the latter. `drift_z`
    is how many standard errors adaptive-dr may be away from dr.
    """

    # From some thirty rows on a mean is about normal, which the intervals take for granted.
    effective_sample: float = 30.0
    largest_share: float = 0.10
    mean_weight_z: float = 4.0
    mean_weight_off: float = 0.05
    unsupported: float = 0.05
    calibration_z: float = 4.0
    calibration_off: float = 0.05
    mature_share: float = 0.5
    exploration: float = 0.0
    policy_versions: float = float("inf")
    drift_z: float = 2.0


_ANY = float("inf")
OPEN = Gates(0.0, _ANY, _ANY, _ANY, _ANY, _ANY, _ANY, mature_share=0.0, drift_z=_ANY)
"""Gates that let everything pass that can be computed."""


@dataclass(frozen=True)
class Diagnostics:
    """What the log is like, seen from the target policy. Shares are in [0, 1]; None where it was
    not asked or known.

    `ess` = (Σw)²/Σw² (Kish), `largest_share` = max w / Σw, `hits` rows with a reward and a positive
    weight, `unsupported` the policy's mean probability on actions that the log could not have
    shown, `calibration` the mean over decisions of 1/(p·K), 1 when propensities are true,
    `exploration` the share of decisions at each position whose propensity was below 1.
    `foreseen_se` is the standard error of the mean weight that the logged probabilities themselves
    foresee, of decisions drawn and not drawn: the seen one is too small where those of large weight
    are rare.
    """

    rows: int
    units: int
    ess: float
    mean_weight: float
    mean_weight_se: float
    largest_weight: float
    largest_share: float
    hits: int
    unsupported: float | None = None
    calibration: float | None = None
    calibration_se: float | None = None
    exploration: tuple[float, ...] | None = None
    mature_share: float | None = None
    policy_versions: int | None = None
    foreseen_se: float | None = None
    warnings: tuple[str, ...] = ()


def refusal(d: Diagnostics, gates: Gates) -> str | None:
    """The code of the first gate that fails, None when the log may speak."""
    for code, fails in _GATES.items():
        if fails(d, gates):
            return code
    return None


def _immature(d: Diagnostics, gates: Gates) -> bool:
    return d.mature_share is not None and d.mature_share < gates.mature_share


def _mixed_versions(d: Diagnostics, gates: Gates) -> bool:
    return d.policy_versions is not None and d.policy_versions > gates.policy_versions


def _unexplored(d: Diagnostics, gates: Gates) -> bool:
    return d.exploration is not None and min(d.exploration, default=1.0) < gates.exploration


def _unsupported(d: Diagnostics, gates: Gates) -> bool:
    return d.unsupported is not None and d.unsupported > gates.unsupported


def _poor_overlap(d: Diagnostics, gates: Gates) -> bool:
    # What is missing by chance is below 1: too much weight must have another cause.
    if d.foreseen_se is None or d.mean_weight > 1.0 or not _mean_weight_off(d, gates):
        return False
    return 1.0 - d.mean_weight <= gates.mean_weight_z * d.foreseen_se


def _mean_weight_off(d: Diagnostics, gates: Gates) -> bool:
    return _off(d.mean_weight, d.mean_weight_se, gates.mean_weight_z, gates.mean_weight_off)


def _miscalibrated(d: Diagnostics, gates: Gates) -> bool:
    if d.calibration is None:
        return False
    se = d.calibration_se or 0.0
    return _off(d.calibration, se, gates.calibration_z, gates.calibration_off)


def _off(value: float, se: float, z: float, tolerance: float) -> bool:
    # Far from 1 for the noise, and far enough to matter: a long log finds every trifle.
    distance = abs(value - 1.0)
    return isfinite(value) and distance > tolerance and distance > z * se


# In this order, for the first that fails is what people read: what is wrong with the log as a whole
# before what is wrong with its weights, and causes before what follows from them.
_GATES: dict[str, Callable[[Diagnostics, Gates], bool]] = {
    "rewards_immature": _immature,
    "mixed_policy_versions": _mixed_versions,
    "no_exploration": _unexplored,
    "too_few_units": lambda d, _: d.units < 2,
    "no_support": _unsupported,
    "no_overlap": lambda d, _: d.largest_weight == 0,
    "no_rewards": lambda d, _: d.hits == 0,
    "low_effective_sample": lambda d, gates: d.ess < gates.effective_sample,
    "one_weight_dominates": lambda d, gates: d.largest_share > gates.largest_share,
    "poor_overlap": _poor_overlap,
    "mean_weight_off": _mean_weight_off,
    "propensities_miscalibrated": _miscalibrated,
}


def foreseen_se(variances: Floats, weights: Floats | None) -> float:
    """The standard error of a mean weight whose rows (n,) have these variances."""
    own = np.ones(variances.size) if weights is None else weights
    with np.errstate(over="ignore"):
        return float(np.sqrt((own * own) @ variances) / own.sum())


def effective_sample(total: float, squares: float) -> float:
    """(Σw)²/Σw², 0 when no row has weight."""
    return total * total / squares if squares > 0 else 0.0


def few_hits(d: Diagnostics, interval: str) -> tuple[str, ...]:
    """The warning that an interval which needs many rewards has few."""
    if interval not in ("normal", "bootstrap") or not 0 < d.hits < 100:
        return ()
    return (
        f"only {several(d.hits, 'rewarded decision')}: a {interval} interval covers too little; "
        f"prefer {option_for('betting')}",
    )


def option_for(interval: str) -> str:
    """How one asks for such intervals, wherever this is read."""
    return f"--interval {interval} of topbill evaluate (in Python interval='{interval}')"


def warn(d: Diagnostics) -> tuple[str, ...]:
    """Sentences for what does not forbid a number but should be known beside it."""
    warnings = []
    if d.policy_versions is not None and d.policy_versions > 1:
        warnings.append(
            f"{d.policy_versions} policy versions in the log: rows depend on each other"
        )
    if d.unsupported is not None and d.unsupported > 0.001:
        warnings.append(
            f"{d.unsupported:.1%} of the policy's choices the log could not show: their value is "
            "counted as 0"
        )
    if d.mean_weight_se > 0 and abs(d.mean_weight - 1) > 2 * d.mean_weight_se:
        z = (d.mean_weight - 1) / d.mean_weight_se
        side = "above" if z > 0 else "below"
        warnings.append(f"mean weight {d.mean_weight:.3f} is {abs(z):.1f} standard errors {side} 1")
    if d.ess < 0.05 * d.rows:
        warnings.append(
            f"effective sample is {d.ess:.0f} of {d.rows} decisions ({d.ess / d.rows:.1%})"
        )
    return tuple(warnings)
