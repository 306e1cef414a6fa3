"""The result of analysing one experiment: what was compared, what it says, and whether it may be
believed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from topbill.ab.core.effect import Effect
from topbill.ab.phases import Phase
from topbill.domain import formatting
from topbill.domain.errors import NotFound
from topbill.domain.margin import MarginUnit
from topbill.domain.reading import Method
from topbill.stats.frames import frame_of, html_of

if TYPE_CHECKING:
    import pandas as pd

    from topbill.charts import Chart

_TEXT = ("metric", "variant", "reason", "better", "call", "per")

Per = Literal["decision", "unit"]
"""What a metric is a number of: each decision, or each unit that was randomised."""

Call = Literal["better", "worse", "no_call"]
GuardrailStatus = Literal["not_worse", "worse", "undecided", "unknown"]


class Comparison(Effect, frozen=True, kw_only=True):
    """An effect, and what it means given which direction is good.

    `call` is by the interval, and by Holm over the metric's variants where there are several;
    `p_adjusted`, the p-value that decides the call, is Holm's over the metric's variants.
    `chance_to_win` is the chance that the variant is the better one. `detectable` is the least
    relative effect that this many units show with 80% power. `days_to_decision` assumes the
    difference stays. `variance_saved` is the share of the variance that a covariate took away.
    """

    better: Literal["higher", "lower"] = "higher"
    call: Call = "no_call"
    p_adjusted: float | None = None
    detectable: float | None = None
    days_to_decision: float | None = None
    variance_saved: float | None = None
    per: str = "decision"

    def to_frame(self) -> pd.DataFrame:
        """A frame of one row, with a column for each field; `pandas.NA` where a number is
        missing."""
        return frame_of([msgspec.structs.asdict(self)], text=_TEXT)

    def _repr_html_(self) -> str:
        return html_of(self.to_frame())


class GuardrailResult(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a variant kept a guardrail: is it shown to be worse by less than the margin
    (non-inferiority)?

    `worse_by` is the change in the bad direction (positive is worse) with its interval, in the
    margin's unit: relative to the control, or of the metric itself. `days_to_decision` assumes that
    the difference stays.
    """

    metric: str
    variant: str
    margin: float
    status: GuardrailStatus
    margin_unit: MarginUnit = "relative"
    worse_by: float | None = None
    worse_by_low: float | None = None
    worse_by_high: float | None = None
    p_value: float | None = None
    days_to_decision: float | None = None
    reason: str = ""
    per: str = "decision"


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Units per variant in one day or segment, and the chi-square p-value of the intended shares.

    `shares` are the intended ones of those units. `p_adjusted` is over all days, phases, or values
    of the segment."""

    by: str
    value: str
    counts: dict[str, int]
    p_value: float
    p_adjusted: float
    shares: dict[str, float] = {}


class SampleRatio(msgspec.Struct, frozen=True, kw_only=True):
    """Whether units were split as intended. `alarm` withholds the verdict.

    `shares` are those that the file asks for, or where they changed, those that units were to have
    by the shares in force when each came. With days the alarm is the sequential test's, which stays
    valid while one looks each day; without, the chi-square's. `mixed` units were seen in several
    variants and left out; `moved` ones changed variant and count for their first.
    """

    counts: dict[str, int]
    shares: dict[str, float]
    p_value: float
    p_sequential: float | None
    alpha: float
    alarm: bool
    mixed: int = 0
    moved: int = 0
    days: list[Split] = []
    segments: list[Split] = []
    phases: list[Split] = []


class DenominatorCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a variant has as many decisions per unit as the control, or as much of whatever else
    a metric divides by.

    `per_unit` and `per_unit_control` are the means over units, `se` is the standard error of their
    difference. `alarm` keeps the metric from being
    called for the variant: what counts each unit once is called instead, see `Analysis.per_unit`.
    """

    metric: str
    variant: object
    per_unit: float
    per_unit_control: float
    se: float
    p_value: float
    alarm: bool

    @property
    def z(self) -> float:
        """The difference in standard errors; 0 where nothing varies."""
        difference = self.per_unit - self.per_unit_control
        return difference / self.se if self.se > 0.0 else 0.0


class SegmentEffect(msgspec.Struct, frozen=True, kw_only=True):
    """A variant's effect on the primary metric inside one segment.

    `difference` is the raw one; `shrunken` (with its interval) is drawn towards the common effect
    by as much as segments agree (empirical Bayes), and is the one to believe. `p_adjusted` is over
    all segments and variants.
    """

    segment: str
    value: str
    variant: str
    difference: float | None = None
    shrunken: float | None = None
    shrunken_low: float | None = None
    shrunken_high: float | None = None
    relative: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    n: int = 0
    reason: str = ""


class Heterogeneity(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the effect differs between the values of a segment: Cochran's Q, adjusted over
    segments and variants. `is_proportion` as in `Effect`.
    """

    segment: str
    variant: str
    p_value: float | None
    p_adjusted: float | None
    between_sd: float | None
    effects: list[SegmentEffect]
    is_proportion: bool = False


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One sentence made only from the numbers, and the codes it was made by; `winner` is the
    variant to ship.
    """

    sentence: str
    codes: list[str]
    winner: str | None = None
    safe_to_ship: bool = False


class Analysis(msgspec.Struct, frozen=True, kw_only=True):
    """The whole A/B result of an experiment; JSON by `msgspec.json.encode`, without NaN.

    Variants are compared as policies over the units that were randomised to them. `primary` names
    the metric that the verdict is about; `comparisons` holds it first, then every metric.
    `denominators` says whether variants have as many decisions per unit; where one has not, its
    metrics per decision are not called, and `per_unit` compares them with each unit counted once.
    `as_they_came` are the effects on metrics of which values were cut off at a cap or quantile, as
    if none had been.
    """

    experiment: str
    control: str
    primary: str
    method: Method
    alpha: float
    units: dict[str, int]
    comparisons: list[Comparison]
    guardrails: list[GuardrailResult]
    sample_ratio: SampleRatio
    heterogeneity: list[Heterogeneity]
    verdict: Verdict
    notes: list[str] = []
    denominators: list[DenominatorCheck] = []
    per_unit: list[Comparison] = []
    as_they_came: list[Effect] = []
    phases: list[Phase] = []
    """The spans of one set of variants, shares and traffic, the oldest first."""
    excluded: dict[str, int] = {}
    """How many units were left out, by reason; reasons with none are not in it."""

    def comparisons_of(self, metric: str) -> list[Comparison]:
        """A metric's comparisons, one for each variant; where a variant moves what the metric
        divides by, the one that counts each unit once stands for it.
        """
        once = {c.variant: c for c in self.per_unit if c.metric == metric}
        return [once.get(c.variant, c) for c in self.comparisons if c.metric == metric]

    def chart(self, metric: str = "") -> Chart:
        """Each variant's lift on a metric with its interval, as an Altair chart.

        Args:
            metric: One of those compared; without it the primary one.

        Returns:
            Lifts over the control; plain differences where some variant has no lift. Without a bar
            where units were not split as intended (SRM): then no lift can be trusted.

        Raises:
            NotFound: The metric was not compared.
        """
        from topbill import charts

        metric = metric or self.primary
        comparisons = self.comparisons_of(metric)
        if not comparisons:
            there = dict.fromkeys(c.metric for c in self.comparisons)
            raise NotFound(f"{metric}: not compared; expected one of {', '.join(there)}")
        title, form = f"{metric}: lift over {self.control}", charts.LIFT
        is_lift = all(c.relative is not None for c in comparisons)
        if not is_lift:
            title = f"{metric}: difference from {self.control}"
            form = charts.POINTS if comparisons[0].is_proportion else charts.NUMBER
        if self.sample_ratio.alarm:
            title, comparisons = f"{metric}: not trustworthy (SRM)", []
        frame = charts.lift_frame(
            (str(c.variant), *_bounds(c, is_lift), _in_words(c, is_lift)) for c in comparisons
        )
        drawing = charts.lifts(frame, list(self.units), self.control, title, form)
        return drawing.properties(width=charts.WIDTH)

    def to_frame(self) -> pd.DataFrame:
        """The comparisons, a row each in their order, with a column for each field of `Comparison`;
        `pandas.NA` where a number is missing.
        """
        return frame_of([msgspec.structs.asdict(c) for c in self.comparisons], text=_TEXT)

    def _repr_html_(self) -> str:
        return html_of(self.to_frame(), self.verdict.sentence, *self.notes)


Bounds = tuple[float | None, float | None, float | None]


def _bounds(c: Comparison, is_lift: bool) -> Bounds:
    if is_lift:
        return c.relative, c.relative_low, c.relative_high
    return c.difference, c.difference_low, c.difference_high


def _in_words(c: Comparison, is_lift: bool) -> str:
    value, low, high = _bounds(c, is_lift)
    if is_lift:
        said = formatting.lift(value)
        return f"{said} ({formatting.lift_interval(low, high)})"
    said = formatting.metric_difference(value, c.is_proportion)
    return f"{said} ({formatting.metric_difference_interval(low, high, c.is_proportion)})"
