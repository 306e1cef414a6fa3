"""A/B analysis: did a variant win? Metrics, comparisons that survive peeking, sample-ratio checks, and a verdict."""

from topbill.ab.compare import compare
from topbill.ab.effect import Effect
from topbill.ab.metrics import Mean, Metric, Proportion, Quantile, Ratio, Sum
from topbill.ab.reasons import REASONS
from topbill.ab.srm import sequential_srm, srm, srm_of_choices

__all__ = [
    "REASONS",
    "Effect",
    "Mean",
    "Metric",
    "Proportion",
    "Quantile",
    "Ratio",
    "Sum",
    "compare",
    "sequential_srm",
    "srm",
    "srm_of_choices",
]
