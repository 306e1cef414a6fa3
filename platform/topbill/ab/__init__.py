"""A/B analysis: did a variant win? Metrics, comparisons that survive peeking, sample-ratio checks,
and a verdict.
"""

from topbill.ab.analysis import OBJECTIVE, Design, analyse
from topbill.ab.checks.archive import (
    ArchiveSplits,
    ArchiveTest,
    BrokenSpan,
    PeriodSplits,
    srm_archive,
)
from topbill.ab.checks.srm import (
    sequential_srm,
    sequential_srm_of_sums,
    srm,
    srm_of_choices,
    srm_of_phases,
    srm_of_sums,
)
from topbill.ab.comparison import compare
from topbill.ab.core.effect import ArmEstimate, Effect, Rule, effect
from topbill.ab.files import FileComparison, compare_file
from topbill.ab.harm import GuardrailHarm, HarmReading, harm, read_harm
from topbill.ab.interaction import EffectWithin, Interaction, InteractionTerm, interaction
from topbill.ab.judged import MetricDesign
from topbill.ab.metrics import Mean, Metric, Proportion, Quantile, Ratio, Sum
from topbill.ab.novelty import ExposureSpan, Novelty, novelty
from topbill.ab.phases import Phase
from topbill.ab.planning import (
    DAYS,
    LIFTS,
    Detectable,
    GuardrailAhead,
    Plan,
    PlannedGuardrail,
    PlannedRun,
    plan,
    plan_ahead,
)
from topbill.ab.power.runtime import Runtime, runtime
from topbill.ab.reasons import REASONS
from topbill.ab.results import (
    Analysis,
    Comparison,
    DenominatorCheck,
    GuardrailResult,
    Heterogeneity,
    SampleRatio,
    SegmentEffect,
    Split,
    Verdict,
)
from topbill.ab.verdict import (
    GUARDRAIL_WORSE,
    HUGE,
    SAMPLE_RATIO_MISMATCH,
    WORSE_THAN_CONTROL,
    without_outlook,
)
from topbill.domain.margin import Margin
from topbill.domain.reading import METHODS, Method

__all__ = [
    "DAYS",
    "GUARDRAIL_WORSE",
    "HUGE",
    "LIFTS",
    "METHODS",
    "OBJECTIVE",
    "REASONS",
    "SAMPLE_RATIO_MISMATCH",
    "WORSE_THAN_CONTROL",
    "Analysis",
    "ArchiveSplits",
    "ArchiveTest",
    "ArmEstimate",
    "BrokenSpan",
    "Comparison",
    "DenominatorCheck",
    "Design",
    "Detectable",
    "Effect",
    "EffectWithin",
    "ExposureSpan",
    "FileComparison",
    "GuardrailAhead",
    "GuardrailHarm",
    "GuardrailResult",
    "HarmReading",
    "Heterogeneity",
    "Interaction",
    "InteractionTerm",
    "Margin",
    "Mean",
    "Method",
    "Metric",
    "MetricDesign",
    "Novelty",
    "PeriodSplits",
    "Phase",
    "Plan",
    "PlannedGuardrail",
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
    "compare_file",
    "effect",
    "harm",
    "interaction",
    "novelty",
    "plan",
    "plan_ahead",
    "read_harm",
    "runtime",
    "sequential_srm",
    "sequential_srm_of_sums",
    "srm",
    "srm_archive",
    "srm_of_choices",
    "srm_of_phases",
    "srm_of_sums",
    "without_outlook",
]
