"""Off-policy evaluation: from one policy's log, what another would have earned, how surely, and
when not to say.
"""

from topbill.ope.delta_ope import delta_ope
from topbill.ope.diagnostics import OPEN, REASONS, Diagnostics, Gates
from topbill.ope.estimate import estimate
from topbill.ope.estimate_slate import estimate_slate
from topbill.ope.estimate_table import estimate_table
from topbill.ope.estimators import DEFAULT, ESTIMATORS
from topbill.ope.estimators.estimator import Estimator
from topbill.ope.estimators.slate import SLATE_ESTIMATORS, SlateEstimator
from topbill.ope.evaluate import Evaluation, evaluate
from topbill.ope.evaluate_page import evaluate_page
from topbill.ope.result import Estimate, Estimates

__all__ = [
    "DEFAULT",
    "ESTIMATORS",
    "OPEN",
    "REASONS",
    "SLATE_ESTIMATORS",
    "Diagnostics",
    "Estimate",
    "Estimates",
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
