"""Off-policy evaluation: from one policy's log, what another would have earned, how surely, and
when not to say.
"""

from topbill.domain.reasons import REMEDIES
from topbill.ope.diagnostics import OPEN, REASONS, Diagnostics, Gates
from topbill.ope.estimation import estimate
from topbill.ope.estimators import DEFAULT, ESTIMATORS
from topbill.ope.estimators.assumptions import ASSUMPTIONS, Assumption
from topbill.ope.estimators.estimator import Estimator
from topbill.ope.estimators.slate import SLATE_ESTIMATORS, SlateEstimator
from topbill.ope.evaluation import Evaluation, PairedDifference, evaluate
from topbill.ope.page_evaluation import evaluate_page
from topbill.ope.paired_estimation import delta_ope
from topbill.ope.result import Estimate, Estimates
from topbill.ope.slate_estimation import estimate_slate
from topbill.ope.table_estimation import estimate_table
from topbill.ope.training import Certificate, Segment, Training, train

__all__ = [
    "ASSUMPTIONS",
    "DEFAULT",
    "ESTIMATORS",
    "OPEN",
    "REASONS",
    "REMEDIES",
    "SLATE_ESTIMATORS",
    "Assumption",
    "Certificate",
    "Diagnostics",
    "Estimate",
    "Estimates",
    "Estimator",
    "Evaluation",
    "Gates",
    "PairedDifference",
    "Segment",
    "SlateEstimator",
    "Training",
    "delta_ope",
    "estimate",
    "estimate_slate",
    "estimate_table",
    "evaluate",
    "evaluate_page",
    "train",
]
