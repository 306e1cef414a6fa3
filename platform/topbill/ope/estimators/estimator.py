"""What an estimator is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from topbill.ope.estimators.formula import Formula, Symbols


@dataclass(frozen=True)
class Estimator:
    """A named formula with the paper and equation it comes from, and the assumptions that it stands
    on: `assumes` in words, `assumptions` by their names in `ASSUMPTIONS`.

    `lambdas` are the candidates of its hyper-parameter (empty when it has none), `unbounded` the λ
    at which it is unbiased. `betting` says that its summands are non-negative and their mean at
    most the policy's value, whatever the rewards in [0, 1], so that a finite-sample interval
    exists.

    `check` is a formula that comes to the same where the assumption holds which this estimator
    makes and that one does not. Where the two differ by more than chance, the estimate is refused
    with the code `breach`, or, where that is empty, given with a warning.
    """

    name: str
    title: str
    paper: str
    assumes: str
    formula: Callable[[Symbols, float], Formula]
    lambdas: tuple[float, ...] = ()
    unbounded: float = float("inf")
    betting: bool = False
    assumptions: tuple[str, ...] = ("propensities", "positivity")
    check: Callable[[Symbols], Formula] | None = None
    check_name: str = ""
    breach: str = ""

    def needs(self) -> frozenset[str]:
        """Names of the log's columns that the formula uses."""
        # Every λ needs the same columns, so one of them tells.
        return self.formula(Symbols(), self.lambdas[0] if self.lambdas else 0.0).leaves - {"one"}
