"""The decisions of one experiment as one table, made once, that everything about metrics in a
report is computed from: each variant's means, the A/B analysis, and the plan of its runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace

from topbill import ab, late
from topbill.ab import OBJECTIVE, Method
from topbill.ab.core.quantile import quantiles
from topbill.ab.core.rates import rate_interval
from topbill.ab.core.units import PLACE, SUMMED, Rate, count_column, read_rows
from topbill.ab.harm import ALPHA as HARM_ALPHA
from topbill.ab.judged import judged
from topbill.ab.phases import Reading
from topbill.domain.margin import MarginUnit
from topbill.domain.metric import (
    Metric,
    longest_window,
    metric_column,
    microseconds,
    unit_scope_sql,
    unit_values_sql,
)
from topbill.domain.objective import OBJECTIVE_RANGE, Objective
from topbill.domain.sql import identifier, number, quoted
from topbill.lake import metric_of, metrics_sql, objective_of
from topbill.reporting.experiment.covariates import COVARIATES, UNIT, json_path, make_covariates
from topbill.reporting.experiment.day_sums import (
    FIRST_SEQ,
    MOMENT,
    OCCURRENCE,
    VARIANT,
    are_sums,
    ends_sql,
    folded,
    units_part,
)
from topbill.reporting.experiment.differences import Spec
from topbill.reporting.experiment.exclusion import Counted
from topbill.reporting.experiment.kept_days import KeptDays
from topbill.reporting.experiment.model import MeanEstimate
from topbill.reporting.experiment.phases import (
    EVERYTHING,
    OCCURRENCE_NUMBER,
    PHASE,
    Excerpt,
    Timeline,
    counts_part,
    excluded_decisions,
    read_occurrences,
    with_occurrences,
)
from topbill.reporting.experiment.planned import spec_of
from topbill.reporting.experiment.table_metrics import read_tables
from topbill.reporting.queries.database import (
    AnalyticsDatabase,
    DayParts,
    WholeRecord,
    experiment_row,
    published_us,
    zone_of,
)
from topbill.spec import Experiment
from topbill.stats.moments import Moments, ratio

if TYPE_CHECKING:
    from scipy import stats
else:
    stats = late.name("scipy.stats")

ROW_WEIGHT = "@row_weight"
"""A column name that no metric and no feature can have."""
_TABLE, _DAYS = "report_rows", "report_days"
_FIRST = """SELECT unit, variant, arg_min(decided_at, seq) AS decided_at FROM decisions
WHERE experiment = $key AND variant IS NOT NULL GROUP BY unit, variant"""
"""A unit's first decision in each variant that it was in."""


class ExperimentTables(NamedTuple):
    """What the database says of an experiment: its row of `experiments`, and those of `variants`
    and `metrics` in the file's order.
    """

    key: str
    experiment: dict[str, Any]
    variants: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    published_us: int

    @classmethod
    def read(cls, database: AnalyticsDatabase, key: str) -> ExperimentTables:
        """Raises NotFound where there is no such experiment."""
        return cls(
            key,
            experiment_row(database, key),
            database.rows("SELECT * FROM variants WHERE experiment = $key", key=key),
            database.rows("SELECT * FROM metrics WHERE experiment = $key", key=key),
            published_us(database),
        )

    def objective(self) -> Objective:
        """What the experiment is to raise."""
        return objective_of(self.metrics)

    def longest_windows(self) -> dict[str, float]:
        """Seconds of the longest window of each event that a metric reads."""
        # An event may be read by several metrics; it is late only where it is so for all of them.
        windows: dict[str, float] = {}
        for metric in self.metrics:
            # What a unit did is no reward, and never late for a decision.
            if metric.get("scope") == "unit":
                continue
            event, window = metric["event"], metric["window_seconds"]
            windows[event] = max(windows.get(event, 0.0), window)
        return windows

    def design(self) -> ab.Design:
        """What an analysis needs to know of it."""
        control = next(str(v["variant"]) for v in self.variants if v["control"])
        metrics = []
        for row in self.metrics:
            metric = metric_of(row)
            metrics.append(
                ab.MetricDesign(
                    name=metric.name,
                    binary=metric.definition.is_proportion,
                    better=metric.better,
                    weight=row["weight"] or 0.0,
                    cap=metric.judged_cap,
                    floor=metric.floor,
                    per=metric.per,
                    winsorise=metric.winsorise,
                    q=metric.q,
                    numerator=metric.numerator,
                    denominator=metric.denominator,
                )
            )
        guardrails: dict[str, float | ab.Margin] = {}
        for row in self.metrics:
            if row["margin"] is not None:
                # Lakes that an earlier version published have relative margins only.
                unit: MarginUnit = row.get("margin_unit") or "relative"
                guardrails[row["metric"]] = ab.Margin(row["margin"], unit)
        return ab.Design(
            key=self.key,
            control=control,
            shares={v["variant"]: v["share"] for v in self.variants},
            metrics=tuple(metrics),
            guardrails=guardrails,
        )

    @property
    def spec(self) -> Spec:
        """The file's content."""
        return spec_of(self.experiment)

    def category_features(self) -> list[str]:
        """The context features whose values are few and named, for segments. Those named like a
        metric are left out: a table has each name once.
        """
        context = msgspec.json.decode(self.experiment["spec"]).get("context") or {}
        # From the file as it was published: the schema is no column of the tables.
        reserved = {OBJECTIVE, *(m["metric"] for m in self.metrics)}
        names = []
        for name, feature in context.items():
            is_category = isinstance(feature, dict) and feature.get("type") == "category"
            if is_category and name not in reserved:
                names.append(name)
        return names


class VariantCounts(NamedTuple):
    """How many units a variant saw, and how many decisions it made."""

    units: int = 0
    decisions: int = 0


class AnalysisRows:
    """Temporary table `report_rows`: a row per decision of a variant, as of the last publication.

    A column for each metric and for the objective, NULL while a window is not over: what may still
    come is unknown, not zero. A column for each segment, a feature of the context. Units are hashed
    to 64 bits, which takes a quarter of the memory; two of a million collide once in 40 million.
    `counted` says which decisions to read, where they are not those of the record as it is.

    With a data folder to `keep` in, what days that are over add up to is kept there, where the
    whole record is read, and read from there. Where all metrics are sums, a row is then what a
    unit's decisions of a variant and phase add up to (see `ab.core.units.SUMMED`).
    """

    def __init__(
        self,
        database: AnalyticsDatabase,
        tables: ExperimentTables,
        segments: Sequence[str] = (),
        excerpt: Excerpt = EVERYTHING,
        counted: Counted | None = None,
        keep: Path | None = None,
    ) -> None:
        self._database = database
        self._tables = tables
        self._segments = segments
        self._metrics = [metric_of(row) for row in tables.metrics]
        self._of_events = [m for m in self._metrics if m.scope == "unit"]
        self._pooled = [m for m in self._metrics if m.is_pooled and m not in self._of_events]
        # Of the whole record: what a unit did before the part that is read, but after it came into
        # the experiment, may be the variant's doing.
        self.covariates = make_covariates(database, tables.key, tables.metrics)
        excerpt.apply(database, tables.key, counted)
        self.outside = read_tables(
            database,
            tables.key,
            self._of_events,
            str(tables.experiment["unit"]),
            zone_of(database, tables.key),
        )
        """What was read of the tables of a warehouse."""
        occurrences = read_occurrences(database, tables.key)
        self._occurrence, self._decisions = "0", "decisions d"
        # One alone is in force throughout; to find which one is takes as long as all else.
        if len(occurrences) > 1:
            self._occurrence = OCCURRENCE_NUMBER
            self._decisions = with_occurrences("decisions d")
        self.parts: DayParts = WholeRecord(database, tables.published_us)
        if keep is not None and excerpt.is_whole and counted is None:
            self.parts = KeptDays(
                database,
                keep,
                tables.key,
                zone=zone_of(database, tables.key),
                now=tables.published_us,
                longest=microseconds(longest_window(self._metrics)),
                occurrences=occurrences,
            )
        window = tables.objective().window
        part = counts_part(tables.key, self._decisions, self._occurrence, window)
        self.counts = self.parts.relation(part)
        """SQL of the answer of `counts_part`."""
        present = database.rows(f"SELECT DISTINCT occurrence FROM {self.counts} ORDER BY 1")  # noqa: S608  (our own query)
        self.timeline = Timeline.of(occurrences, [row["occurrence"] for row in present], excerpt)
        self.weighted = self._weighted_decisions()
        """How many decisions stand for another number than one, in a sub-sampled log."""
        self._is_summed = isinstance(self.parts, KeptDays) and self._make_of_sums()
        if not self._is_summed:
            self._make()

    def _weighted_decisions(self) -> int:
        row = self._database.row(f"SELECT coalesce(sum(weighted), 0) AS n FROM {self.counts}")  # noqa: S608  (our own query)
        return int(row["n"])

    def _make_of_sums(self) -> bool:
        """Make the table of what days add up to; False where that does not say all."""
        designs = self._tables.design().metrics
        # A segment of one's own would make all days be asked anew, once for each.
        if self.weighted or self.covariates or not are_sums(self._metrics):
            return False
        if not set(self._segments) <= set(self._tables.category_features()):
            return False
        segments = self._tables.category_features()
        zone = zone_of(self._database, self._tables.key)
        units = self.parts.relation(units_part(self._rows_sql, designs, segments, zone))
        phase = None
        if self.timeline.is_several:
            phase = PHASE, self.timeline.number_sql(identifier(OCCURRENCE))
            picked = f"*, {phase[1]} AS {identifier(PHASE)}"
        else:
            picked = "*"
        ends = self._database.row(ends_sql(units, designs))
        if ends.pop("odd"):
            return False
        self._database.execute(
            f"CREATE OR REPLACE TEMP VIEW {_DAYS} AS SELECT {picked} FROM {units}"  # noqa: S608  (our own query)
        )
        sums = folded(units, phase, designs, segments, ends)
        self._database.execute(f"CREATE OR REPLACE TEMP TABLE {_TABLE} AS {sums}")
        return True

    def _rows_sql(self, now: int) -> str:
        """SQL of the decisions that sums are of, with their metrics as at a moment."""
        key, metrics, objective = self._tables.key, self._metrics, self._tables.objective()
        columns = [
            f"hash(d.unit) AS {identifier(UNIT)}",
            f"d.variant AS {identifier(VARIANT)}",
            f"d.decided_at AS {identifier(MOMENT)}",
            f"d.seq AS {identifier(FIRST_SEQ)}",
            f"{self._occurrence} AS {identifier(OCCURRENCE)}",
            self._mature("objective", objective, OBJECTIVE, now),
        ]
        for metric in metrics:
            if metric.denominator is None:
                columns.append(self._mature(metric_column(metric.name), metric, metric.name, now))
        for segment in self._tables.category_features():
            value = f"d.context->>{quoted(json_path(segment))}"
            columns.append(f"{value} AS {identifier(segment)}")
        return (
            f"SELECT {', '.join(columns)} FROM {self._decisions} "  # noqa: S608  (quoted)
            f"LEFT JOIN ({metrics_sql(key, metrics, objective)}) e "
            "ON d.decision_id = e.decision_id "
            f"WHERE d.experiment = {quoted(key)} AND d.variant IS NOT NULL"
        )

    def _make(self) -> None:
        tables = self._tables
        parameters: dict[str, object] = {"key": tables.key}
        decisions = "decisions d"
        now = tables.published_us
        columns = [
            f"hash(d.unit) AS {identifier(UNIT)}",
            f"d.variant AS {identifier(VARIANT)}",
            f"d.decided_at AS {identifier(MOMENT)}",
            f"d.seq AS {identifier(PLACE)}",
            self._mature("objective", tables.objective(), OBJECTIVE, now),
        ]
        if self.weighted:
            columns.append(f"coalesce(d.row_weight, 1.0) AS {identifier(ROW_WEIGHT)}")
        if self.timeline.is_several:
            decisions = with_occurrences(decisions)
            columns.append(f"{self.timeline.number_sql()} AS {identifier(PHASE)}")
        for metric in self._metrics:
            if metric in self._of_events:
                columns.append(self._since_first(metric))
            elif metric in self._pooled:
                columns.append(self._of_unit(metric))
            elif metric.denominator is None:
                columns.append(self._mature(metric_column(metric.name), metric, metric.name, now))
        for name in self.covariates.values():
            columns.append(f"c.{identifier(name)}")
        for i, segment in enumerate(self._segments):
            columns.append(f"d.context->>$segment_{i} AS {identifier(segment)}")
            parameters[f"segment_{i}"] = json_path(segment)
        # Joined by the hash of the unit, as the covariates' table has it.
        covariates = ""
        if self.covariates:
            unit = identifier(UNIT)
            covariates = f"LEFT JOIN {COVARIATES} c ON c.{unit} = hash(d.unit)"
        of_units = ""
        if self._pooled:
            rewards = "r.experiment = $key AND r.variant IS NOT NULL"
            values = unit_values_sql(self._pooled, rewards, tables.published_us)
            of_units = f"LEFT JOIN ({values}) w ON w.unit = d.unit AND w.variant = d.variant"
        if self._of_events:
            values = unit_scope_sql(
                self._of_events, _FIRST, tables.experiment["unit"], self.outside.events
            )
            of_units += f" LEFT JOIN ({values}) v ON v.unit = d.unit AND v.variant = d.variant"
        self._database.execute(
            f"""CREATE OR REPLACE TEMP TABLE {_TABLE} AS
            SELECT {", ".join(columns)}
            FROM {decisions}
                LEFT JOIN metrics.{identifier(tables.key)} e ON d.decision_id = e.decision_id
                {covariates}
                {of_units}
            WHERE d.experiment = $key AND d.variant IS NOT NULL""",  # noqa: S608  (names of columns, through `identifier`)
            **parameters,
        )

    def _mature(self, column: str, measured: Metric | Objective, name: str, now: int) -> str:
        """A column where the window is over: what was earned, or the default without an event."""
        is_mature = measured.mature_sql("d.decided_at", now)
        earned = f"e.{column}"
        # A quantile is of decisions with an event; of all others something is known without one.
        if not isinstance(measured, Metric) or measured.of is None:
            earned = f"coalesce({earned}, {number(measured.default)})"
        return f"CASE WHEN {is_mature} THEN {earned} END AS {identifier(name)}"

    def _of_unit(self, metric: Metric) -> str:
        """A column of a metric per unit that is no sum over decisions: the unit's number in the
        first of its decisions whose window is over, and nothing in the others."""
        is_mature = metric.mature_sql("d.decided_at", self._tables.published_us)
        place = f"row_number() OVER (PARTITION BY d.unit, d.variant, {is_mature} ORDER BY d.seq)"
        value = metric.or_default_sql(f"w.{metric_column(metric.name)}")
        return (
            f"CASE WHEN {is_mature} AND {place} = 1 THEN {value} END AS {identifier(metric.name)}"
        )

    def _since_first(self, metric: Metric) -> str:
        """A column of a metric of what the unit did: its number in the first of its decisions, once
        the window after that is over, and nothing in the others."""
        # 0 would say that nobody did anything, and a guardrail would find no harm in that.
        if metric.name in self.outside.unreadable:
            return f"NULL::DOUBLE AS {identifier(metric.name)}"
        is_mature = metric.mature_sql("d.decided_at", self._tables.published_us)
        place = "row_number() OVER (PARTITION BY d.unit, d.variant ORDER BY d.seq)"
        value = f"coalesce(v.{metric_column(metric.name)}, {number(metric.default)})"
        return (
            f"CASE WHEN {is_mature} AND {place} = 1 THEN {value} END AS {identifier(metric.name)}"
        )

    def means(self) -> tuple[dict[str, VariantCounts], dict[tuple[str, str], MeanEstimate]]:
        """The mean of the objective and of each metric by variant, as they are judged: per mature
        decision or per unit with one, or a ratio of two.

        It is the sum over units of what they earned ÷ the sum of what that is divided by: a ratio
        of unit totals with its delta-method variance (Deng, Knoblich & Lu 2018) and Student's t
        with units − 1 degrees of freedom. A row of a sub-sampled log counts as often as what it
        stands for.

        Returns:
            What each variant saw, at any age; and the mean by (metric or `objective`, variant).
        """
        counted = judged(
            self._database.connection.table(_TABLE),
            self._tables.design().metrics,
            unit=UNIT,
            variant=VARIANT,
        )
        metrics: dict[str, ab.Metric] = {OBJECTIVE: ab.Mean(OBJECTIVE), **counted.metrics}
        of_ranks = {n: m for n, m in metrics.items() if isinstance(m, ab.Quantile)}
        for name in of_ranks:
            del metrics[name]
        names = list(metrics)
        sums, moments = [], []
        is_summed = SUMMED in counted.relation.columns
        rows = f"sum({identifier(SUMMED)})" if is_summed else "count(*)"
        # All metrics in one pass. Units without a mature decision count for nothing: n is 0 there.
        pooled = {m.name for m in (*self._pooled, *self._of_events)}
        for i, (name, metric) in enumerate(metrics.items()):
            is_weighted = self.weighted > 0 and name not in pooled
            totals = partial(_Totals.of, is_weighted=is_weighted, is_summed=is_summed)
            x, n, decisions = _sums(metric, totals)
            sums.append(f"{x} AS x{i}, {n} AS n{i}, {decisions} AS d{i}")
            moments.append(
                f"count(*) FILTER (d{i} > 0), sum(x{i}), sum(n{i})::DOUBLE, "
                f"sum(x{i} * x{i}), sum(x{i} * n{i}), sum(n{i} * n{i})::DOUBLE, sum(d{i})"
            )
        variant, unit = identifier(VARIANT), identifier(UNIT)
        relation = counted.relation.query(
            "unit_rows",
            f"""SELECT variant, count(*), sum(decisions)::BIGINT, {", ".join(moments)}
            FROM (
                SELECT {variant} AS variant, {rows} AS decisions, {", ".join(sums)}
                FROM unit_rows GROUP BY {variant}, {unit}
            ) GROUP BY variant""",  # noqa: S608  (names of columns, through `identifier`)
        )
        counts: dict[str, VariantCounts] = {}
        estimates: dict[tuple[str, str], MeanEstimate] = {}
        for variant_name, units, decisions, *numbers in relation.fetchall():
            counts[variant_name] = VariantCounts(units, decisions)
            for i, name in enumerate(names):
                mean, metric = _mean(*numbers[7 * i : 7 * i + 7]), metrics[name]
                if isinstance(metric, ab.Proportion):
                    mean = _of_few(mean, metric, is_weighted=self.weighted > 0)
                if name == OBJECTIVE or isinstance(metric, ab.Proportion):
                    mean = _as_rate(mean)
                if name in self.outside.unreadable:
                    mean = MeanEstimate(reason="unreadable_table")
                estimates[name, variant_name] = mean
        for name, quantile in of_ranks.items():
            for variant_name, estimate in _quantiles(counted.relation, quantile).items():
                estimates[name, variant_name] = estimate
        return counts, estimates

    def units(self, since: datetime | None = None) -> int:
        """How many units were in a variant (from `since` on), each once however many it was in."""
        query = (
            f"SELECT count(DISTINCT {identifier(UNIT)}) AS n FROM {_TABLE} "  # noqa: S608  (our own names)
            f"WHERE $since IS NULL OR {identifier(MOMENT)} >= $since::TIMESTAMP"
        )
        return int(self._database.row(query, since=since)["n"])

    def excluded(self) -> dict[str, int]:
        """Decisions that no number is made of, by reason."""
        return excluded_decisions(self._database, self.counts)

    def analysis(
        self,
        method: Method,
        looks: Sequence[float],
        control: str | None = None,
        *,
        first_exposure: bool = False,
    ) -> ab.Analysis:
        """Each variant against the control (the file's, unless said), guardrails, split, segments,
        phases and the verdict.
        """
        timeline = self.timeline
        phases = timeline.phases
        design = self._tables.design()
        decides = control in (None, design.control)
        if control is not None:
            design = msgspec.structs.replace(design, control=control)
            phases = tuple(
                msgspec.structs.replace(phase, control=control) if phase.shares else phase
                for phase in phases
            )
        return ab.analyse(
            self._database.connection.table(_TABLE),
            msgspec.structs.replace(design, phases=phases),
            phase=PHASE if timeline.is_several else None,
            first_exposure=first_exposure,
            unit=UNIT,
            variant=VARIANT,
            day=MOMENT,
            segments=self._segments,
            covariates=self.covariates,
            method=method,
            looks=looks,
            time_zone=zone_of(self._database, self._tables.key),
            decides=decides,
        )

    def harm(self, alpha: float = HARM_ALPHA) -> ab.HarmReading:
        """Each variant on each guardrail, and the split, as a launch looks at them: see
        `ab.read_harm`."""
        timeline = self.timeline
        return ab.read_harm(
            self._database.connection.table(_TABLE),
            msgspec.structs.replace(self._tables.design(), phases=timeline.phases),
            phase=PHASE if timeline.is_several else None,
            unit=UNIT,
            variant=VARIANT,
            day=MOMENT,
            covariates=self.covariates,
            alpha=alpha,
            time_zone=zone_of(self._database, self._tables.key),
        )

    def novelty(self, analysis: ab.Analysis, looks: Sequence[float]) -> list[ab.Novelty]:
        """The effects on the analysis' primary metric by days since the first exposure."""
        of_units = {m.name for m in self._metrics if m.per == "unit" or m in self._pooled}
        if analysis.primary in of_units:
            return []
        # Shares lie where the objective does.
        shares = [m.name for m in self._metrics if m.definition.is_proportion]
        is_bounded = analysis.primary == ab.OBJECTIVE or analysis.primary in shares
        found = ab.novelty(
            self._of_equal_shares(_DAYS if self._is_summed else _TABLE),
            unit=UNIT,
            variant=VARIANT,
            control=analysis.control,
            value=analysis.primary,
            time=MOMENT,
            time_zone=zone_of(self._database, self._tables.key),
            bounds=OBJECTIVE_RANGE if is_bounded else None,
            method=analysis.method,
            alpha=analysis.alpha,
            looks=looks,
        )
        # Only of variants that are compared, and where some day after the first is over.
        compared = {str(c.variant) for c in analysis.comparisons}
        return [
            replace(n, is_proportion=analysis.primary in shares)
            for n in found
            if n.variant in compared and len(n.spans) > 1
        ]

    def _of_equal_shares(self, table: str) -> Any:
        """The rows of units that came under the shares in force, or the last that compared.

        Where shares were changed, variants have other cohorts, whose base rates differ in more than
        chance.
        """
        reading = Reading.of(self.timeline.phases)
        if not self.timeline.is_several or not reading.numbers:
            return self._database.connection.table(table)
        strata = reading.strata(reading.numbers)
        last = strata[reading.numbers[-1]]
        same = ", ".join(str(number) for number, stratum in strata.items() if stratum == last)
        unit, phase = identifier(UNIT), identifier(PHASE)
        return self._database.connection.sql(
            f"""SELECT * FROM {table} WHERE {phase} IN ({same}) AND {unit} IN (
                SELECT {unit} FROM {table} GROUP BY {unit}
                HAVING arg_min({phase}, {identifier(MOMENT)}) IN ({same})
            )"""  # noqa: S608  (whole numbers)
        )

    def plan(
        self,
        *,
        metric: str | None,
        lifts: Sequence[float],
        days: Sequence[int],
        method: Method,
        alpha: float,
        power: float,
        looks: Sequence[float],
        as_if: Experiment | None = None,
    ) -> ab.Plan:
        """How long the experiment must run, see `ab.plan`; as if `as_if` were its file."""
        timeline = self.timeline
        design = replace(self._tables.design(), phases=timeline.phases)
        if as_if is not None:
            design = _as_if(design, ab.Design.of(as_if))
        return ab.plan(
            self._database.connection.table(_TABLE),
            design,
            phase=PHASE if timeline.is_several else None,
            unit=UNIT,
            variant=VARIANT,
            day=MOMENT,
            metric=metric,
            relative=lifts,
            days=days,
            covariates=self.covariates,
            method=method,
            alpha=alpha,
            power=power,
            looks=looks,
        )


def _as_if(design: ab.Design, file: ab.Design) -> ab.Design:
    """The design with a file's guardrails, where the record has their metrics, and its shares from
    now on, where it has the same variants."""
    names = [metric.name for metric in design.metrics]
    guardrails = {name: margin for name, margin in file.guardrails.items() if name in names}
    design = replace(design, guardrails=guardrails)
    if file.shares.keys() != design.shares.keys():
        return design
    phases = list(design.phases)
    if phases:
        phases[-1] = replace(phases[-1], shares=file.shares, control=file.control)
    return replace(design, shares=file.shares, control=file.control, phases=tuple(phases))


def _quantiles(relation: Any, metric: ab.Quantile) -> dict[str, MeanEstimate]:
    """The quantile of each variant that has a value."""
    rows = read_rows(
        relation,
        unit=UNIT,
        variant=VARIANT,
        metrics={"q": metric},
        covariates=None,
        adjust="cuped",
    )
    estimates = {}
    for variant, arm in quantiles(rows, metric).items():
        estimate = MeanEstimate(value=arm.value, units=arm.n, decisions=arm.n)
        if arm.n < 2:
            estimate = replace(estimate, reason="too_few_units")
        elif arm.variance == 0.0:
            estimate = replace(estimate, reason="constant_metric")
        elif not np.isfinite(arm.variance):
            estimate = replace(estimate, reason="infinite_values")
        else:
            z, se = float(stats.norm.isf(0.025)), float(np.sqrt(arm.variance))
            low = arm.value - z * float(np.sqrt(arm.one_sided(-1.0).variance))
            high = arm.value + z * float(np.sqrt(arm.one_sided(1.0).variance))
            estimate = replace(estimate, low=low, high=high, se=se)
        estimates[str(variant)] = estimate
    return estimates


class _Totals(NamedTuple):
    """SQL over a unit's rows of a column: the sum of its values, the weight of those that are
    there, and how many are."""

    total: str
    weight: str
    values: str

    @classmethod
    def of(cls, column: str, *, is_weighted: bool, is_summed: bool) -> _Totals:
        """Of rows that count as often as their weight says, or that are sums."""
        name, weight = identifier(column), identifier(ROW_WEIGHT)
        if is_summed:
            values = f"sum({identifier(count_column(column))})::BIGINT"
            return cls(f"sum({name})", values, values)
        values = f"count({name})"
        if not is_weighted:
            return cls(f"sum({name})", values, values)
        weights = f"coalesce(sum({weight}) FILTER ({name} IS NOT NULL), 0.0)"
        return cls(f"sum({weight} * {name})", weights, values)


def _sums(metric: ab.Metric, totals_of: Callable[[str], _Totals]) -> tuple[str, str, str]:
    """SQL over a unit's rows for what it earned, what that is divided by, and how many of its
    decisions count."""
    if isinstance(metric, ab.Ratio):
        above, under = totals_of(metric.numerator), totals_of(metric.denominator)
        return f"coalesce({above.total}, 0.0)", f"coalesce({under.total}, 0.0)", under.values
    total, below, decisions = totals_of(metric.column)
    if isinstance(metric, ab.Sum) and metric.cap is not None:
        total = (
            f"CASE WHEN {total} > {number(metric.cap)} THEN {number(metric.cap)} ELSE {total} END"
        )
    if isinstance(metric, ab.Proportion) and metric.per == "unit":
        # The largest of zeros and ones.
        total = f"({total} > 0)::DOUBLE"
    of_units = isinstance(metric, ab.Sum) or (
        isinstance(metric, ab.Proportion) and metric.per == "unit"
    )
    if of_units:
        below = f"({decisions} > 0)::BIGINT"
    return f"coalesce({total}, 0.0)", below, decisions


def _mean(
    units: int, x: float, n: float, xx: float, xn: float, nn: float, count: float
) -> MeanEstimate:
    """From units with a mature decision, Σx, Σn, Σx², Σxn, Σn² over units, and their mature
    decisions."""
    decisions = int(count or 0)
    # From here on a reason stands for each number that the data cannot bear, weakest data first.
    if decisions == 0:
        return MeanEstimate(reason="immature")
    if not all(map(isfinite, (x * x, xx, xn))):
        return MeanEstimate(reason="infinite_values", units=units, decisions=decisions)
    if n == 0.0:
        return MeanEstimate(reason="no_values", units=units, decisions=decisions)
    moments = Moments.from_sums(("x", "n"), units, np.array([x, n]), np.array([[xx, xn], [xn, nn]]))
    mean = ratio("x", "n")(moments)
    # The mean itself can be said whenever there is a decision; its uncertainty not always.
    estimate = MeanEstimate(value=mean.value, units=units, decisions=decisions)
    if units < 2:
        return replace(estimate, reason="too_few_units")
    variance = mean.variance(moments)
    se = float(np.sqrt(variance))
    if x == 0.0 and xx == 0.0:
        return replace(estimate, reason="no_events")
    # Rounding alone leaves a standard error of this size where every unit has the same value, or
    # what it is divided by makes up for it.
    if variance <= mean.rounding(moments) or se < 1e-12 * max(abs(mean.value), 1e-12):
        return replace(estimate, reason="constant_metric")
    # Student's t, since the spread was estimated from these units too.
    half = float(stats.t.isf(0.025, units - 1)) * se
    return replace(estimate, low=mean.value - half, high=mean.value + half, se=se)


def _of_few(mean: MeanEstimate, metric: ab.Proportion, *, is_weighted: bool) -> MeanEstimate:
    """A share of independent units with Wilson's interval, where successes or failures are too few
    for Student's t."""
    if mean.value is None or mean.units < 2:
        return mean
    # Units whose decisions are all alike count once, however many they have.
    one_each = mean.decisions == mean.units and not is_weighted
    counts_units = metric.per == "unit" or one_each
    if not counts_units and mean.value not in (0.0, 1.0):
        return mean
    rate = Rate(round(mean.value * mean.units), mean.units)
    if not rate.is_few:
        return mean
    low, high = rate_interval(rate)
    return replace(mean, low=low, high=high, reason="")


def _as_rate(mean: MeanEstimate) -> MeanEstimate:
    """The mean of the objective or of a share: its interval lies within the range of both."""
    if mean.low is None or mean.high is None:
        return mean
    least, most = OBJECTIVE_RANGE
    return replace(mean, low=max(mean.low, least), high=min(mean.high, most))
