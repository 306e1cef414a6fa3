"""What an estimator is, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from topbill.ope.columns import Formula, Symbols
from topbill.ope.diagnostics import Diagnostics


@dataclass(frozen=True)
class Estimator:
    """A named formula with the paper and equation it comes from, and the assumption that it stands
    on.

    `lambdas` are the candidates of its hyper-parameter (empty when it has none), `unbounded` the λ
    at which it is unbiased. `betting` says that its summands are non-negative and their mean at
    most the policy's value, whatever the rewards in [0, 1], so that a finite-sample interval
    exists.
    """

    name: str
    title: str
    paper: str
    assumes: str
    formula: Callable[[Symbols, float], Formula]
    lambdas: tuple[float, ...] = ()
    unbounded: float = float("inf")
    betting: bool = False

    def needs(self) -> frozenset[str]:
        """Names of the log's columns that the formula uses."""
        return self.formula(Symbols(), self.lambdas[0] if self.lambdas else 0.0).leaves - {"one"}


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
