"""What a report consists of: plain structs, ready for JSON. No field is ever NaN; what is missing
has a reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from topbill import late
from topbill.ab import OBJECTIVE, Analysis, Comparison, Method, Novelty, Phase, SampleRatio
from topbill.domain.errors import NotFound
from topbill.domain.reasons import reasons
from topbill.stats.frames import frame_of

if TYPE_CHECKING:
    import pandas as pd

    from topbill.charts import Chart

# Made of reports, and so below them.
_summary = late.name("topbill.reporting.experiment.html", "summary")

REASONS = reasons(
    "",
    "no_decisions",
    "immature",
    "no_events",
    "constant_metric",
    "too_few_units",
    "infinite_values",
    "no_values",
    "unreadable_table",
    "never_possible",
    "certain",
    "too_few_draws",
    "skewed_weights",
)
"""Why a number is missing or cannot be judged: stable codes, each with a plain sentence."""


class MeanEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """A mean with its 95% interval, clustered by unit; `reason` says why a number is missing.
    `units` have `decisions` that count.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    se: float | None = None
    units: int = 0
    decisions: int = 0
    reason: str = ""


class VariantLine(msgspec.Struct, frozen=True, kw_only=True):
    """A variant: what it is, who saw it, and the objective (`reward`) of its decisions."""

    variant: str
    policy: str = ""
    control: bool = False
    share: float | None = None
    """The share of units that the experiment file asks for."""
    units: int = 0
    decisions: int = 0
    reward: MeanEstimate = MeanEstimate()
    policy_shares: tuple[float, ...] = ()
    """Share of the draws that `min_probability` leaves to the policy, position by position; empty
    where the file asks for no least probability.
    """


class MetricLine(msgspec.Struct, frozen=True, kw_only=True):
    """One metric in one variant; `per` is what it is a number of: each `decision`, each `unit`, or
    of a ratio what it divides by. `is_proportion` says that it is a share of these.
    """

    metric: str
    variant: str
    better: str
    window_seconds: float
    guardrail: bool
    estimate: MeanEstimate
    per: str = "decision"
    is_proportion: bool = False


class ShareLine(msgspec.Struct, frozen=True, kw_only=True):
    """How often a variant showed an action: `shown` placements, as a share of all its
    placements.
    """

    variant: str
    action: str
    shown: int
    share: float


class PropensityLine(msgspec.Struct, frozen=True, kw_only=True):
    """Was an action drawn as often as logged? At position 0, over decisions where it had a
    probability p > 0.

    `mean_weight` is the mean of 1(drawn)/p, which must be 1, with the interval that holds for all
    lines together with 99%, however often one looks; `expected` the sum of p, beside `drawn`. `ok`
    is None where that cannot be tested.
    """

    variant: str
    action: str
    decisions: int
    drawn: int
    expected: float
    mean_weight: float | None = None
    low: float | None = None
    high: float | None = None
    ok: bool | None = None
    reason: str = ""


class ChoiceRatio(msgspec.Struct, frozen=True, kw_only=True):
    """Sample-ratio check of a variant's choices, all actions together: `drawn` against the summed
    probabilities.

    `p_value` is chi-square with as many degrees of freedom as there was chance (an action that was
    never possible is none), `p_sequential` stays valid while one looks at a growing log, and makes
    the alarm. `impossible` draws had probability 0.
    """

    variant: str
    decisions: int
    drawn: dict[str, int]
    expected: dict[str, float]
    p_value: float
    p_sequential: float
    impossible: int = 0
    alarm: bool = False


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the record can be trusted, and how the service did."""

    propensity: list[PropensityLine] = []
    propensity_ok: bool | None = None
    propensity_sampled: float = 1.0
    """Share of decisions that the propensity check looked at: all, or the latest where there are
    millions.
    """
    choices: list[ChoiceRatio] = []
    reasons: dict[str, int] = {}
    fallback_share: float | None = None
    mature_share: float | None = None
    """Share of the experiment's own decisions older than the longest window of the objective."""
    reward_join_rate: float | None = None
    """Of the reward events that some metric reads: the share that came within its window."""
    joined: dict[str, float] = {}
    """The same for each of those events."""
    rewarded_share: float | None = None
    """Share of its own mature decisions with at least one reward event."""
    reward_events: int = 0
    unread_events: dict[str, int] = {}
    """Reward events that no metric reads: name and number, the most frequent first, twenty at
    most.
    """
    latency_ms: dict[str, float] = {}
    """p50, p90, p99 and max of the engine's own time per decision."""


class HoldoutReadout(msgspec.Struct, frozen=True, kw_only=True):
    """The experiment's variants against the units that it holds out, which get the control's order.

    `share` is the share held out of all units that the experiment takes in or holds out. `together`
    compares all variants as one, `each` every variant by itself, on every metric (`primary` names
    that of the verdict); calls within a metric are by Holm. `excluded` counts units by reason that
    are on no side: they came before they could take part (`admitted_later`), before the share was
    what it is (`earlier_shares`), or were on both (`crossover_units`).
    """

    share: float
    units: int
    units_in_variants: int
    decisions: int
    excluded: dict[str, int]
    together: list[Comparison]
    each: list[Comparison]
    sample_ratio: SampleRatio
    primary: str
    method: Method
    alpha: float


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Something a reader must know: a stable code and a sentence."""

    code: str
    sentence: str


class ConclusionReading(msgspec.Struct, frozen=True, kw_only=True):
    """How an experiment ended: when (ISO 8601, UTC), who said so, who won (None: nobody), and why.
    `is_frozen`: the report is the one of then.
    """

    concluded_at: str
    who: str = ""
    winner: str | None = None
    because: str = ""
    is_frozen: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything Topbill has to say about one experiment, as of `published_at` (ISO 8601, UTC).

    In a notebook it shows its verdict, lifts and guardrails; `chart` draws one metric's lifts,
    `to_frame` gives all numbers as a table. For the whole report see `reporting.to_html`.
    """

    experiment: str
    title: str = ""
    hypothesis: str = ""
    revision: str = ""
    status: str = ""
    conclusion: ConclusionReading | None = None
    """How it ended; None where it did not."""
    since_conclusion: HoldoutReadout | None = None
    """The winner against the units held out, of what was decided since; None where none are."""
    published_at: str
    first_at: str | None = None
    last_at: str | None = None
    units: int = 0
    """Units in a variant."""
    decisions: int = 0
    """Decisions of these units; those outside the experiment or in its holdout are counted by
    reason in `health.reasons`.
    """
    ab: Analysis | None = None
    """Each variant against the control (or whom was asked for), and the verdict."""
    holdout: HoldoutReadout | None = None
    """The variants against the holdout; None where nothing was held out."""
    novelty: list[Novelty] = []
    """The effect on the verdict's metric by days since a unit's first exposure, by variant; empty
    before the third day is over, and where the metric is none of single decisions.
    """
    variants: list[VariantLine] = []
    metrics: list[MetricLine] = []
    shares: list[ShareLine] = []
    health: Health = Health()
    notes: list[Note] = []
    phases: list[Phase] = []
    """The spans of one set of variants, shares and traffic, the oldest first."""
    excluded: dict[str, int] = {}
    """What no number is made of, by reason: decisions of no variant (`holdout`,
    `not_in_experiment`, `excluded_unit`, `excluded_context`) and those whose objective is not final
    (`immature`); units that were seen in several variants (`crossover_units`), that came while
    there was only one (`one_variant`), or in a phase with too few of one (`thin_strata`).
    """

    def chart(self, metric: str = "") -> Chart:
        """Each variant's lift on a metric with its interval, as an Altair chart: see
        `Analysis.chart`. Raises NotFound where nothing is compared.
        """
        if self.ab is None:
            raise NotFound(f"{self.experiment}: nothing is compared, so there is no lift to draw")
        return self.ab.chart(metric)

    def to_frame(self) -> pd.DataFrame:
        """The numbers as a table, a row for each metric (the objective first) and variant.

        Returns:
            Columns metric, variant, control (bool), per (what it is a number of: decision, unit,
            or what a ratio divides by); units, decisions, value, low, high, se: the mean of mature
            decisions with its 95% interval, and the reason where that is missing;
            control_value, difference, relative (each of the last two with _low and _high),
            p_value, p_adjusted, chance_to_win, call: against the control, missing for the control
            itself. A number that is missing is `pandas.NA`.
        """
        # The control, and variants that left the file, have no comparison.
        comparisons = {}
        if self.ab is not None:
            for comparison in self.ab.comparisons:
                comparisons[comparison.metric, comparison.variant] = comparison
        means, controls = [], []
        for line in self.variants:
            means.append((OBJECTIVE, line.variant, "decision", line.reward))
            if line.control:
                controls.append(line.variant)
        means += [(line.metric, line.variant, line.per, line.estimate) for line in self.metrics]
        rows = []
        for metric, variant, per, mean in means:
            against_control = comparisons.get((metric, variant))
            rows.append(
                {
                    "metric": metric,
                    "variant": variant,
                    "control": variant in controls,
                    "per": per,
                    **{name: getattr(mean, name) for name in _MEAN},
                    **{name: getattr(against_control, name, None) for name in _COMPARISON},
                }
            )
        return frame_of(rows, text=_TEXT)

    def _repr_html_(self) -> str:
        shown: str = _summary(self)
        return shown


_MEAN = ("units", "decisions", "value", "low", "high", "se", "reason")
_COMPARISON = (
    *("control_value", "difference", "difference_low", "difference_high"),
    *("relative", "relative_low", "relative_high"),
    *("p_value", "p_adjusted", "chance_to_win", "call"),
)
_TEXT = ("metric", "variant", "per", "reason", "call")
