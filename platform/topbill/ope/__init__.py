"""Off-policy evaluation: from one policy's log, what another would have earned, how surely, and
when not to say.
"""

from topbill.ope.arrays import estimate
from topbill.ope.delta import delta_ope
from topbill.ope.diagnostics import OPEN, REASONS, Diagnostics, Gates
from topbill.ope.estimator import Estimate, Estimator
from topbill.ope.evaluate import Evaluation, evaluate
from topbill.ope.pages import evaluate_page
from topbill.ope.rankings import SLATE_ESTIMATORS, SlateEstimator
from topbill.ope.registry import DEFAULT, ESTIMATORS
from topbill.ope.slate import estimate_slate
from topbill.ope.table import estimate_table

__all__ = [
    "DEFAULT",
    "ESTIMATORS",
    "OPEN",
    "REASONS",
    "SLATE_ESTIMATORS",
    "Diagnostics",
    "Estimate",
    "Estimator",
    "Evaluation",
    "Gates",
    "SlateEstimator",
    "delta_ope",
    "estimate",
    "estimate_slate",
    "estimate_table",
    "evaluate",
    "evaluate_page",
]
