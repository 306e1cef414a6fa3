"""A/B analysis: did a variant win? Metrics, comparisons that survive peeking, sample-ratio checks,
and a verdict.
"""

from topbill.ab.analysis import (
    Analysis,
    Comparison,
    GuardrailResult,
    Heterogeneity,
    SampleRatio,
    SegmentEffect,
    Split,
    Verdict,
)
from topbill.ab.compare import compare
from topbill.ab.design import Design, MetricDesign
from topbill.ab.effect import Effect, Rule
from topbill.ab.experiment import analyse
from topbill.ab.metrics import Mean, Metric, Proportion, Quantile, Ratio, Sum
from topbill.ab.plan import Detectable, Plan, PlannedRun, plan
from topbill.ab.power import Runtime, runtime
from topbill.ab.reasons import REASONS
from topbill.ab.srm import sequential_srm, sequential_srm_of_sums, srm, srm_of_choices, srm_of_sums

__all__ = [
    "REASONS",
    "Analysis",
    "Comparison",
    "Design",
    "Detectable",
    "Effect",
    "GuardrailResult",
    "Heterogeneity",
    "Mean",
    "Metric",
    "MetricDesign",
    "Plan",
    "PlannedRun",
    "Proportion",
    "Quantile",
    "Ratio",
    "Rule",
    "Runtime",
    "SampleRatio",
    "SegmentEffect",
    "Split",
    "Sum",
    "Verdict",
    "analyse",
    "compare",
    "plan",
    "runtime",
    "sequential_srm",
    "sequential_srm_of_sums",
    "srm",
    "srm_of_choices",
    "srm_of_sums",
]
