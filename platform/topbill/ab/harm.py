"""Does a variant harm a guardrail? A verdict that holds however often one looks, for a launch that
is to be rolled back while few have seen it.

A variant is *harmed* on a guardrail where its sequence leaves out that it does no harm at all, and
the estimate is worse than the margin. To ask that the sequence leaves out the margin itself would
be too late: of harm of twice the margin even a fixed test of that finds 63% at half of the
fixed-horizon sample, and a sequence fewer. What does no harm is called harmed with probability
alpha at most, over all looks, guardrails and variants; what is worse by less than the margin may be
too, while its estimate is beyond it: the less so, the more is known.

The fixed-horizon sample is that of a non-inferiority test at the margin which looks once, at 5%
(two-sided) with 80% power, as `plan` has it with method "fixed". The sequence is that of the report
beside bounds for stages of this sample, see `stats.sequential.staged_multiplier`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from math import inf, sqrt
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from topbill import late
from topbill.ab import reasons
from topbill.ab.analysis import Design, Table, judged_table, prepare
from topbill.ab.checks.srm import sample_ratio
from topbill.ab.core.effect import Effect, Pair, Rule, checked_rule, effect_of
from topbill.ab.core.units import Covariates
from topbill.ab.judged import Direction
from topbill.ab.parts import Columns
from topbill.ab.planning import Outlook
from topbill.ab.power.runtime import planned_drift, units_for
from topbill.ab.results import SampleRatio
from topbill.ab.verdict import guardrail, room_of
from topbill.domain.margin import Margin, MarginUnit
from topbill.domain.zones import UTC, checked_zone
from topbill.spec import Experiment
from topbill.stats import sequential

if TYPE_CHECKING:
    from scipy.stats import norm
else:
    norm = late.name("scipy.stats", "norm")

ALPHA = 0.045
"""The chance, at most, that a launch which does no harm is ever called harmed."""
FIXED_HORIZON = Rule(method="fixed")
"""The rule of the sample that stages are fractions of."""
FIXED_POWER = 0.8

HarmVerdict = Literal["harmed", "not_failed", "unknown"]


class GuardrailHarm(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a variant harms a guardrail, as of one look at it.

    `worse_by` is the change in the bad direction (positive is worse), in the margin's unit, with
    what it is at least and at most, each end at 95.5% over all looks (at more where there are
    several guardrails or variants). `fraction` is how much of what the fixed-horizon sample tells
    is known. `units` are the variant's and the control's. "not_failed" says that no harm is shown,
    `is_kept` that the guardrail is shown to be kept. `reason` says why a number is missing.
    """

    metric: str
    variant: str
    verdict: HarmVerdict
    margin: float
    margin_unit: MarginUnit = "relative"
    worse_by: float | None = None
    worse_by_low: float | None = None
    worse_by_high: float | None = None
    fraction: float = 0.0
    units: int = 0
    is_kept: bool = False
    reason: str = reasons.OK


class HarmReading(NamedTuple):
    """What a look at a launch says: each variant on each guardrail, and the split of units."""

    guardrails: tuple[GuardrailHarm, ...]
    sample_ratio: SampleRatio


@dataclass(frozen=True, slots=True)
class StagedRule(Rule):
    """A sequence that reaches no farther than the stages' bound of the same look."""

    bound: float = inf

    @classmethod
    def at(cls, fraction: float, alpha: float) -> StagedRule:
        """The rule of a look at a fraction of the fixed-horizon sample, at one-sided `alpha`."""
        # One side of a two-sided sequence has half of its error.
        return cls(
            alpha=2.0 * sequential.UNSTAGED * alpha,
            bound=sequential.staged_multiplier(fraction, alpha),
        )

    def reach(self, n: int, df: float) -> float:
        """How many standard errors the interval reaches to either side."""
        return min(Rule.reach(self, n, df), self.bound)


def harm(
    metric: str,
    variant: str,
    pair: Pair,
    *,
    margin: Margin,
    better: Direction = "higher",
    alpha: float = ALPHA,
) -> GuardrailHarm:
    """Judge one variant on one guardrail at error `alpha` (`ALPHA` over all that are judged: who
    judges k of them gives each `ALPHA`/k)."""
    fraction = fraction_of(pair, margin)
    rule = StagedRule.at(fraction, alpha)
    result = guardrail(metric, variant, pair, rule, margin=margin, better=better)
    verdict: HarmVerdict = "unknown" if result.status == "unknown" else "not_failed"
    if _is_harmed(effect_of(metric, variant, pair, rule), pair, margin, better):
        verdict = "harmed"
    return GuardrailHarm(
        metric=metric,
        variant=variant,
        verdict=verdict,
        margin=margin.value,
        margin_unit=margin.unit,
        worse_by=result.worse_by,
        worse_by_low=result.worse_by_low,
        worse_by_high=result.worse_by_high,
        fraction=fraction,
        units=pair.n + pair.n_control,
        is_kept=result.status == "not_worse",
        reason=result.reason,
    )


def fraction_of(pair: Pair, margin: Margin) -> float:
    """How much of the information of the fixed-horizon sample a pair has: 1 where its standard
    error is what that sample's would be; 0 where there is nothing to compare, or no margin."""
    t, c = pair.treated, pair.control
    if t is None or c is None or pair.reason:
        return 0.0
    variance = t.variance + c.variance
    size = margin.value * (abs(c.value) if margin.is_relative else 1.0)
    drift = planned_drift(FIXED_HORIZON, 1, FIXED_POWER)
    return (size / drift) ** 2 / variance if variance > 0.0 else 0.0


def fixed_horizon(
    outlook: Outlook, margin: Margin, better: Direction, shares: tuple[float, float] = (0.5, 0.5)
) -> int | None:
    """The units of the fixed-horizon sample, the control's and the variant's, of those `shares`;
    None where no number would do."""
    aim = outlook.harmless(margin, better, shares)
    return units_for(aim, FIXED_HORIZON, FIXED_POWER)


def shown_harm(units: int, horizon: int, alpha: float = ALPHA) -> float:
    """The harm, in margins, that a look at so many units shows with 80% power, where `horizon` are
    those of the fixed-horizon sample."""
    fraction = units / horizon
    reach = StagedRule.at(fraction, alpha).reach(units, inf)
    z_power = float(norm.isf(1.0 - FIXED_POWER))
    return (reach + z_power) / (planned_drift(FIXED_HORIZON, 1, FIXED_POWER) * sqrt(fraction))


def _is_harmed(effect: Effect, pair: Pair, margin: Margin, better: Direction) -> bool:
    t, c = pair.treated, pair.control
    low, high = effect.difference_low, effect.difference_high
    if t is None or c is None or low is None or high is None:
        return False
    shown = high < 0.0 if better == "higher" else low > 0.0
    room, _ = room_of(t, c, margin, better)
    return shown and room < 0.0


def read_harm(
    data: Any,
    design: Design | Experiment,
    *,
    unit: str | None = "unit",
    variant: str = "variant",
    day: str | None = "day",
    phase: str | None = None,
    covariates: Covariates | None = None,
    alpha: float = ALPHA,
    time_zone: str = UTC,
) -> HarmReading:
    """Each variant on each guardrail, and the split, from the rows that `analyse` reads: effects
    within phases of equal shares, mature rows only, units that changed variant in their first.

    Args:
        data, design, unit, variant, day, phase, covariates, time_zone: as for `analyse`.
        alpha: the chance that a launch without any harm is ever called harmed, over all looks. It
            is split evenly between guardrails and variants.

    Raises:
        BadRequest, BadData: as `analyse` does. Weak data never raises: it is "unknown", and says
            why.
    """
    columns = Columns(unit, variant, day, phase)
    prepared = prepare(data, design, columns=columns, covariates=covariates)
    design = prepared.design
    dated = dataclasses.replace(prepared.rows, zone=checked_zone(time_zone))
    ratio = sample_ratio(dated, prepared.intended, day=day)
    ratio = replace(ratio, moved=prepared.moved, phases=prepared.splits)
    judged = len(design.margins) * len(design.treatments)
    if not judged:
        return HarmReading((), ratio)
    table = judged_table(prepared, covariates, checked_rule("sequential", alpha), "cuped")
    results = []
    for metric, margin in design.margins.items():
        for name in design.treatments:
            results.append(
                _of_table(table, metric, name, margin, design.better(metric), alpha / judged)
            )
    return HarmReading(tuple(results), ratio)


def _of_table(
    table: Table, metric: str, variant: str, margin: Margin, better: Direction, alpha: float
) -> GuardrailHarm:
    """One variant on one guardrail; harm that only the denominator may have made is not shown."""
    judge = partial(harm, metric, variant, margin=margin, better=better, alpha=alpha)
    pair, _ = table.judged(metric, variant)
    result = judge(pair)
    others = [judge(other) for other in table.doubts.get((metric, variant), ())]
    if result.verdict == "harmed" and others and all(o.verdict != "harmed" for o in others):
        return replace(result, verdict="not_failed", reason=reasons.DENOMINATOR_DOUBTFUL)
    return result
