"""What an off-policy estimate is: a number with its interval, or the reason why there is none."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from topbill.ope.diagnostics import Diagnostics


@dataclass(frozen=True)
class Estimate:
    """A policy's estimated value per decision (per slate for rankings), in units of the reward.

    `value`, `se`, `low`, `high` are all None when the log cannot bear a verdict; `reason` then
    holds a stable code (see `topbill.ope.REASONS`), else None. `method` states how the interval was
    made.
    """

    estimator: str
    value: float | None
    se: float | None
    low: float | None
    high: float | None
    reason: str | None
    diagnostics: Diagnostics
    method: str = ""
    lam: float | None = None
    alpha: float = 0.05

    def as_dict(self) -> dict[str, Any]:
        """Plain types only; an infinite λ becomes the string "inf", as JSON has no such number."""
        plain = asdict(self)
        if plain["lam"] == float("inf"):
            plain["lam"] = "inf"
        return plain


def refused(name: str, reason: str, diagnostics: Diagnostics, alpha: float) -> Estimate:
    """An estimate that is not given, and why."""
    return Estimate(name, None, None, None, None, reason, diagnostics, alpha=alpha)
