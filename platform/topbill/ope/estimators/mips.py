"""MIPS: weights over an action's embedding instead of the action, for large catalogues.

Two titles with the same embedding share their weight, so a target that prefers an unseen title of a
seen kind can be evaluated, and the weights shrink from one per action to one per kind.
"""

from __future__ import annotations

from topbill.ope.estimators.estimator import Estimator
from topbill.ope.estimators.formula import Formula, Symbols, mean


def _mips(x: Symbols, _: float) -> Formula:
    # The weight of all actions that look alike together: never larger than the largest of theirs.
    return mean(x.we * x.r)


MIPS = Estimator(
    name="mips",
    title="Marginalised inverse propensity score",
    paper="Saito & Joachims 2022: mean(p(e|x, π)/p(e|x, π₀) · r)",
    assumes="an action moves the reward only through its embedding (their assumption 3.2)",
    formula=_mips,
    assumptions=("propensities", "positivity", "embedding"),
    check=lambda x: mean(x.w * x.r),
    check_name="ips",
)
FAMILY = (MIPS,)
