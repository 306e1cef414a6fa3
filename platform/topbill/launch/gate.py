"""The gate of a launch: what the log says of a variant before any viewer sees it.

The log of an experiment is asked what two variants of the new file would have earned on the same
decisions. Their paired difference decides (a non-inferiority test): a variant passes where the
whole interval is above the margin, and is harmful where it is shown to be worse and not shown to
be within the margin. Where the log cannot tell, the result says so and why.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from topbill.domain import formatting
from topbill.domain.errors import BadRequest, NotFound
from topbill.domain.margin import Margin
from topbill.domain.reasons import REMEDIES, reasons
from topbill.ope import REASONS as OPE_REASONS
from topbill.ope import Estimate, Evaluation, evaluate
from topbill.ope.intervals import Interval
from topbill.ope.replay.targets import VariantOf
from topbill.spec import Experiment, Gate

REASONS: dict[str, str] = OPE_REASONS | reasons(
    "control_near_zero", "margin_undecided", "not_evaluable"
)
"""Why a gate cannot judge: code → sentence."""

OF_RANKINGS = {"dr": "cascade-dr", "ips": "rips", "snips": "snrips"}
"""By what a log of rankings is judged, where a file names an estimator of single choices."""
MOST = 200_000
"""Of a longer log, about so many decisions are read: those of a sample of units. They take about a
minute of one processor."""
GateVerdict = Literal["passed", "harmful", "unknown"]


class GateResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a gate found.

    Attributes:
        verdict: `unknown` where the log cannot judge; `reason` then has the code.
        sentence: All of it, for people.
        difference, low, high: How much more the variant earns per decision than the other, in
            units of the objective, with an interval that holds however often it is looked at.
        versus_value: What the other one earns.
        allowed: The margin in units of the objective, ≥ 0.
    """

    verdict: GateVerdict
    sentence: str
    reason: str = ""
    estimator: str = ""
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    versus_value: float | None = None
    allowed: float | None = None
    decisions: int = 0
    units: int = 0

    @property
    def passed(self) -> bool:
        """Whether the launch may go on without a person."""
        return self.verdict == "passed"


def run_gate(
    terms: Gate,
    experiment: Experiment,
    data: Path,
    *,
    alpha: float = 0.05,
    interval: Interval = "sequence",
) -> GateResult:
    """Ask the record in a data folder.

    Args:
        terms: What is asked of which log.
        experiment: The launched file; its policies are evaluated as they would have learned from
            that log, from nothing on.
        data: The data folder.
        alpha: 1 − the level of the interval.
        interval: How it is made. A sequence may be asked again as the log grows.

    Raises:
        LogError: The record cannot be read.
    """
    names = (terms.versus, terms.variant)
    try:
        evaluation = evaluate(
            terms.log,
            policies=[VariantOf(experiment, name) for name in names],
            data_dir=data,
            estimators=(terms.estimator,),
            of_rankings=(OF_RANKINGS.get(terms.estimator, terms.estimator),),
            alpha=alpha,
            interval=interval,
            most=MOST,
        )
    except BadRequest as error:
        # Whose decisions are used is not asked for here, so that it can only be nobody's.
        unexplored = error.path == "log_variants"
        reason = "no_exploration" if unexplored else "not_evaluable"
        return _cannot_judge(terms, reason, str(error))
    except NotFound as error:
        return _cannot_judge(terms, "not_evaluable", str(error))
    baseline, target = evaluation.targets
    return judge_evaluation(terms, evaluation, target, baseline)


def judge_evaluation(terms: Gate, evaluation: Evaluation, target: str, baseline: str) -> GateResult:
    """The judgement from an evaluation that compares these two of its targets, by one estimator."""
    (estimator,) = evaluation.targets[target]
    versus = evaluation.targets[baseline][estimator]
    # Decisions that are all too young are not compared: the target's own estimate says so.
    difference = evaluation.targets[target][estimator]
    if evaluation.differences:
        difference = evaluation.against(target, baseline)[estimator]
    return judge(terms, difference, versus)


def judge(terms: Gate, difference: Estimate, versus: Estimate) -> GateResult:
    """The judgement from the paired difference (variant − versus) and the other one's value."""
    if difference.reason or difference.low is None or difference.high is None:
        return _cannot_judge(terms, difference.reason or "unstable", of=difference)
    allowed = _allowed(terms.margin, versus)
    if allowed is None:
        return _cannot_judge(terms, "control_near_zero", of=difference)
    verdict: GateVerdict = "unknown"
    if difference.low > -allowed:
        verdict = "passed"
    elif difference.high < 0.0:
        verdict = "harmful"
    reason = "margin_undecided" if verdict == "unknown" else ""
    return GateResult(
        verdict,
        _sentence(terms, verdict, difference),
        reason,
        difference.estimator,
        difference.value,
        difference.low,
        difference.high,
        versus.value,
        allowed,
        difference.diagnostics.rows,
        difference.diagnostics.units,
    )


def _allowed(margin: Margin, versus: Estimate) -> float | None:
    """The margin in units of the objective; None where it is a part of what may be nothing."""
    if not margin.is_relative:
        return margin.value
    # Of the least that the other one may earn, so that its own uncertainty widens no margin.
    if versus.low is None or versus.low <= 0.0:
        return None
    return margin.value * versus.low


def _sentence(terms: Gate, verdict: GateVerdict, difference: Estimate) -> str:
    rows = formatting.several(difference.diagnostics.rows, "decision")
    interval = formatting.significant_interval(difference.low, difference.high)
    ends = {
        "passed": f"not worse by more than {terms.margin}",
        "harmful": f"worse, and not shown to be within {terms.margin}",
        "unknown": f"{REASONS['margin_undecided']}; wait, or allow more than {terms.margin}",
    }
    return (
        f"{terms.variant} against {terms.versus}: {formatting.significant(difference.value)} a "
        f"decision ({interval}, by {difference.estimator} on {rows} of {terms.log}): "
        f"{ends[verdict]}"
    )


def _cannot_judge(
    terms: Gate, reason: str, detail: str = "", of: Estimate | None = None
) -> GateResult:
    """No judgement, and why; `detail` is said in place of the reason's own sentence."""
    why = detail or f"{REASONS[reason]}. {REMEDIES.get(reason, '')}".strip()
    sentence = f"the log of {terms.log} cannot judge {terms.variant}: {why}"
    if of is None:
        return GateResult("unknown", sentence, reason)
    d = of.diagnostics
    return GateResult("unknown", sentence, reason, of.estimator, decisions=d.rows, units=d.units)
