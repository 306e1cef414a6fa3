"""Can this log speak for that policy? Diagnostics of weights and log, and the gates that they must
pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

REASONS: dict[str, str] = {
    "too-few-units": "Fewer than two independent units: no uncertainty can be stated.",
    "no-rewards": "No rewarded decision has any weight, so an interval would claim a certainty that is not there.",
    "no-overlap": "The policy never chooses what the log shows: every weight is zero.",
    "no-support": "The policy acts where the log never did; that part of its value is unknown.",
    "low-effective-sample": "The weights leave too few effective decisions.",
    "one-weight-dominates": "A single decision carries too much of the estimate.",
    "mean-weight-off": "The weights do not average 1: propensities are untrue, or the log hardly shows what is chosen.",
    "propensities-miscalibrated": "Actions were shown more or less often than their logged propensities say.",
    "no-exploration": "A position always showed the same item, so nothing can be said about any other.",
    "mixed-policy-versions": "More policy versions wrote this log than the caller allows.",
    "rewards-immature": "Too many decisions are younger than their metrics' windows.",
    "needs-reward-model": "The estimator needs q̂ of the logged action and of the policy.",
    "needs-embedding-propensities": "The estimator needs both policies' propensities of the action's embedding.",
    "needs-weight-moment": "The estimator needs Σ_a π(a)²/p(a) of each decision.",
    "needs-propensity-level": "The estimator needs propensities of a level (slate, item or cascade) that is not there.",
    "no-finite-sample-interval": "No betting interval exists here; ask for ips or clipped-ips, with rewards in [0, 1].",
    "unstable": "The estimate is not finite on this log.",
}
"""Reason codes, stable, each with the sentence that a person reads."""


@dataclass(frozen=True)
class Gates:
    """Thresholds that a log must pass before a number is given. Infinite or zero switches one off.

    `mean_weight_z` and `mean_weight_off` must both be exceeded: far from 1 for the noise, and far
    enough to matter. `exploration` (least share of decisions that explored, at any position) and
    `policy_versions` (most that may have written the log) are off unless set: `unsupported` says
    the former better, and adaptive-dr, betting intervals and sequences bear the latter.
    """

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


_ANY = float("inf")
OPEN = Gates(0.0, _ANY, _ANY, _ANY, _ANY, _ANY, _ANY, mature_share=0.0)
"""Gates that let everything pass that can be computed."""


@dataclass(frozen=True)
class Diagnostics:
    """What the log is like, seen from the target policy. Shares are in [0, 1]; None where it was
    not asked or known.

    `ess` = (Σw)²/Σw² (Kish), `largest_share` = max w / Σw, `hits` rows with a reward and a positive
    weight, `unsupported` the policy's mean probability on actions that the log could not have
    shown, `calibration` the mean over decisions of 1/(p·K), 1 when propensities are true,
    `exploration` the share of decisions at each position whose propensity was below 1.
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
    warnings: tuple[str, ...] = ()


def refusal(d: Diagnostics, gates: Gates) -> str | None:
    """The code of the first gate that fails, None when the log may speak."""
    checks = {
        "rewards-immature": d.mature_share is not None and d.mature_share < gates.mature_share,
        "mixed-policy-versions": d.policy_versions is not None
        and d.policy_versions > gates.policy_versions,
        "no-exploration": d.exploration is not None
        and min(d.exploration, default=1.0) < gates.exploration,
        "too-few-units": d.units < 2,
        "no-overlap": d.largest_weight == 0,
        "no-rewards": d.hits == 0,
        "no-support": d.unsupported is not None and d.unsupported > gates.unsupported,
        "low-effective-sample": d.ess < gates.effective_sample,
        "one-weight-dominates": d.largest_share > gates.largest_share,
        "mean-weight-off": _off(
            d.mean_weight, d.mean_weight_se, gates.mean_weight_z, gates.mean_weight_off
        ),
        "propensities-miscalibrated": d.calibration is not None
        and _off(
            d.calibration, d.calibration_se or 0.0, gates.calibration_z, gates.calibration_off
        ),
    }
    return next((code for code, failed in checks.items() if failed), None)


def _off(value: float, se: float, z: float, tolerance: float) -> bool:
    distance = abs(value - 1.0)
    return isfinite(value) and distance > tolerance and distance > z * se


def effective_sample(total: float, squares: float) -> float:
    """(Σw)²/Σw², 0 when no row has weight."""
    return total * total / squares if squares > 0 else 0.0


def warn(d: Diagnostics) -> tuple[str, ...]:
    """Sentences for what does not forbid a number but should be known beside it."""
    found = []
    if 0 < d.hits < 100:
        found.append(
            f"only {d.hits} rewarded decisions: the normal interval covers too little; prefer interval='betting'"
        )
    if d.policy_versions is not None and d.policy_versions > 1:
        found.append(
            f"{d.policy_versions} policy versions in the log: rows depend on each other; prefer adaptive-dr"
        )
    if d.mean_weight_se > 0 and abs(d.mean_weight - 1) > 2 * d.mean_weight_se:
        z = (d.mean_weight - 1) / d.mean_weight_se
        found.append(
            f"mean weight {d.mean_weight:.3f} is {abs(z):.1f} standard errors {'above' if z > 0 else 'below'} 1"
        )
    if d.ess < 0.05 * d.rows:
        found.append(
            f"effective sample is {d.ess:.0f} of {d.rows} decisions ({d.ess / d.rows:.1%})"
        )
    return tuple(found)
