"""How an experiment went over time: traffic, each variant's reward, the lift's confidence sequence
as it narrows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC as UNIVERSAL
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from topbill.ab import ArmEstimate, Rule, effect
from topbill.ab.core.effect import Pair, pooled_pair
from topbill.ab.phases import Reading
from topbill.domain.errors import BadRequest
from topbill.domain.metric import Metric, metric_column
from topbill.domain.objective import OBJECTIVE_RANGE, Objective
from topbill.domain.sql import identifier, number
from topbill.domain.zones import UTC, local_sql, utc_sql
from topbill.reporting.experiment.exclusion import exclusion_of, open_counted
from topbill.reporting.experiment.phases import EVERYTHING, Timeline, with_occurrences
from topbill.reporting.queries.database import (
    AnalyticsDatabase,
    experiment_row,
    published_experiment,
    published_us,
    zone_of,
)
from topbill.spec import Experiment
from topbill.stats.moments import Moments, ratio

OBJECTIVE = "objective"
_MINUTE, _HOUR, _DAY, _WEEK = 60, 3_600, 86_400, 604_800
_WIDTHS = (
    *(1, 2, 5, 10, 20, 30),
    *(_MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR),
    _DAY,
)
"""Widths of buckets in seconds that people find round; beyond a day they are whole weeks."""
_LIFT = ("relative", "relative_low", "relative_high")
_BY_STRATUM = "series_strata"
_PROGRESS = ["till", "variant", "decisions", "units", "value", "low", "high", *_LIFT]


def bucket_sql(moment: str, seconds: int, zone: str) -> str:
    """SQL for the end, in UTC, of the bucket of so many seconds that a moment lies in. Buckets of
    whole days begin at the zone's midnights, whatever its clocks are turned by.
    """
    width = f"to_seconds({seconds})"
    whose = zone if seconds >= _DAY else UTC
    local = f"time_bucket({width}, {local_sql(moment, whose)}) + {width}"
    return utc_sql(f"({local})", whose)


def bucket_seconds(database: AnalyticsDatabase, key: str, points: int = 36) -> int:
    """Seconds of a round bucket that cuts the experiment's time into at most `points`; 1 when
    nothing was decided.
    """
    span: float | None = database.row(
        """SELECT epoch(max(decided_at)) - epoch(min(decided_at)) AS seconds FROM decisions
        WHERE experiment = $key""",
        key=key,
    )["seconds"]
    if span is None:
        return 1
    # The narrowest that does: a short experiment is looked at by the second, an old one by the day.
    for width in _WIDTHS:
        if span / width <= points:
            return width
    return _WEEK * max(1, round(span / points / _WEEK + 0.5))


def traffic(data: Path | str, key: str, points: int = 60) -> pd.DataFrame:
    """Decisions per bucket of time and variant.

    Returns:
        Columns till (the bucket's end, UTC), variant (`(none)` for decisions of none), seconds
        (the bucket's width), decisions, fallbacks, and the engine's p50 and p99 in ms, of three
        digits.
    """
    with open_counted(data, key) as database:
        seconds = bucket_seconds(database, key, points)
        till = bucket_sql("decided_at", seconds, zone_of(database, key))
        # Counts of latencies, of which there are few by three digits, add up on every engine.
        counts = database.frame(
            f"""SELECT {till} AS till, coalesce(variant, '(none)') AS variant,
                {_THREE_DIGITS} AS latency_us, count(*) AS decisions,
                count(*) FILTER (reason = 'fallback') AS fallbacks
            FROM decisions WHERE experiment = $key
            GROUP BY ALL ORDER BY ALL""",  # noqa: S608  (of `bucket_sql`)
            key=key,
        )
    lines = []
    for (end, variant), part in counts.groupby(["till", "variant"]):
        sums = part[["decisions", "fallbacks"]].sum()
        p50, p99 = _quantiles(part, (0.5, 0.99))
        lines.append((end, variant, seconds, *sums, p50 / 1e3, p99 / 1e3))
    table = pd.DataFrame(lines, columns=_TRAFFIC)
    # A column without any number would otherwise have no numeric type.
    kinds = {
        **dict.fromkeys(("seconds", "decisions", "fallbacks"), int),
        "p50": float,
        "p99": float,
    }
    return table.astype({**kinds, "till": counts["till"].dtype})


_TRAFFIC = ["till", "variant", "seconds", "decisions", "fallbacks", "p50", "p99"]
_THREE_DIGITS = """CASE WHEN latency_us < 1000 THEN latency_us
    WHEN latency_us < 10000 THEN latency_us - latency_us % 10
    WHEN latency_us < 100000 THEN latency_us - latency_us % 100
    ELSE latency_us - latency_us % 1000 END"""


def _quantiles(counts: pd.DataFrame, shares: Sequence[float]) -> list[float]:
    """The least latencies up to which at least such shares of decisions lie, of counts in the
    order of latencies."""
    up_to = counts["decisions"].cumsum().to_numpy()
    places = np.searchsorted(up_to, np.asarray(shares) * up_to[-1])
    return [float(latency) for latency in counts["latency_us"].to_numpy()[places]]


def units_over_time(data: Path | str, key: str, points: int = 36) -> pd.DataFrame:
    """Per bucket (`till` its end, UTC) and variant: the units seen so far."""
    with open_counted(data, key) as database:
        seconds = bucket_seconds(database, key, points)
        till = bucket_sql("first_at", seconds, zone_of(database, key))
        return database.frame(
            f"""SELECT till, variant,
                sum(fresh) OVER (PARTITION BY variant ORDER BY till)::BIGINT AS units
            FROM (
                SELECT {till} AS till, variant, count(*) AS fresh
                FROM (
                    SELECT variant, unit, min(decided_at) AS first_at FROM decisions
                    WHERE experiment = $key AND variant IS NOT NULL GROUP BY variant, unit
                ) GROUP BY ALL
            ) ORDER BY till, variant""",  # noqa: S608  (of `bucket_sql`)
            key=key,
        )


class _Buckets(NamedTuple):
    """Parts of an experiment's time, equal on the clocks of `zone`, by which `start` is told."""

    start: datetime
    seconds: int
    number: int
    zone: str

    @property
    def ends(self) -> list[datetime]:
        """In UTC."""
        width, zone = timedelta(seconds=self.seconds), ZoneInfo(self.zone)
        ends = []
        for t in range(self.number):
            local = (self.start + width * (t + 1)).replace(tzinfo=zone)
            ends.append(local.astimezone(UNIVERSAL).replace(tzinfo=None))
        return ends

    @property
    def clock(self) -> str:
        """SQL for the µs since the epoch that the zone's clocks show when a decision is made."""
        return f"epoch_us({local_sql('decided_at', self.zone)})"

    @property
    def start_us(self) -> int:
        return round((self.start - datetime(1970, 1, 1)) / timedelta(microseconds=1))


def progress(
    data: Path | str,
    key: str,
    metric: str = OBJECTIVE,
    points: int = 20,
    control: str | None = None,
) -> pd.DataFrame:
    """A metric over time, and the lift over the control as it narrowed; of mature decisions alone.

    Args:
        data: the data folder.
        key: the experiment's key.
        metric: one of its metrics, or its objective.
        points: about how many buckets of time.
        control: the variant that lifts are over; None takes the file's control.

    Returns:
        Columns till (the bucket's end, UTC), variant, decisions (in the bucket), units (so far),
        value with low and high (95%, clustered by unit, of this bucket alone); relative with
        relative_low and relative_high: the confidence sequence of the lift of all decisions up to
        then (Waudby-Smith et al. 2024), missing for the control and where it can't be said. Where
        shares changed it is of units by their first exposure, within phases of equal shares.
    """
    with open_counted(data, key) as database:
        experiment = published_experiment(database, key)
        control = control or experiment.control.name
        buckets = _buckets(database, key, points)
        if buckets is None:
            return pd.DataFrame(columns=_PROGRESS)
        measured, published = _measured(experiment, metric), published_us(database)
        times = {"start": buckets.start_us, "width": buckets.seconds * 1_000_000}
        source = _counted(database, key)
        query = _moments_query(source, measured, buckets, published)
        rows = database.rows(query, key=key, **times)
        strata = [rows]
        number = _table_of_strata(database, key)
        if number > 1:
            strata = []
            for stratum in range(number):
                query = _moments_query(_within(source, stratum), measured, buckets, published)
                strata.append(database.rows(query, key=key, **times))
    return _progress(rows, strata, buckets.ends, control, metric)


class _Source(NamedTuple):
    """SQL for what is read: the experiment's decisions, and the metrics of those with an event."""

    decisions: str
    metrics: str


def _counted(database: AnalyticsDatabase, key: str) -> _Source:
    """The decisions of a variant."""
    decisions = "(SELECT * FROM decisions WHERE experiment = $key AND variant IS NOT NULL)"
    metrics = f"(SELECT * FROM metrics.{identifier(key)} WHERE variant IS NOT NULL)"  # noqa: S608  (through `identifier`)
    if exclusion_of(experiment_row(database, key)["spec"]):
        # The view of metrics is of the record as it is: of units that are left out too.
        metrics = f"""(SELECT m.* FROM {metrics} m
            SEMI JOIN {decisions} d ON d.decision_id = m.decision_id)"""  # noqa: S608  (our own SQL)
    return _Source(decisions, metrics)


def _within(source: _Source, stratum: int) -> _Source:
    """What is of units that came in a stratum, each in the variant that it was given first."""
    parts = []
    for part in source:
        parts.append(
            f"""(SELECT v.* REPLACE (s.variant AS variant) FROM {part} v
            JOIN {_BY_STRATUM} s ON s.decision_id = v.decision_id
            WHERE s.stratum = {stratum})"""  # noqa: S608  (our own SQL, a whole number)
        )
    return _Source(*parts)


def _table_of_strata(database: AnalyticsDatabase, key: str) -> int:
    """How many strata of equal shares the experiment has. Of several, a table holds the decisions
    that count for the lift, with the variant and the stratum of their unit's first: units of
    several phases were split by different shares, and who changed variant with them counts for the
    first, as in the report."""
    timeline = Timeline.read(database, key, EVERYTHING)
    reading = Reading.of(timeline.phases)
    strata = reading.strata(reading.numbers)
    number = len(set(strata.values()))
    if number < 2:
        return number
    # Phases of one variant tell no variant from another, so they are in no stratum.
    of_phase = [strata.get(i) for i in range(len(timeline.phases))]
    listing = ", ".join("NULL" if stratum is None else str(stratum) for stratum in of_phase)
    database.execute(
        f"""CREATE OR REPLACE TEMP TABLE {_BY_STRATUM} AS
        WITH of_phases AS (
            SELECT d.decision_id, d.unit, d.variant, d.decided_at,
                list_extract([{listing}], {timeline.number_sql()} + 1) AS stratum
            FROM {with_occurrences("decisions d")}
            WHERE d.experiment = $key AND d.variant IS NOT NULL
        ), firsts AS (
            SELECT unit, arg_min(variant, decided_at) AS variant,
                arg_min(stratum, decided_at) AS stratum
            FROM of_phases WHERE stratum IS NOT NULL GROUP BY unit
        )
        SELECT decision_id, firsts.variant, firsts.stratum FROM of_phases JOIN firsts USING (unit)
        WHERE of_phases.stratum IS NOT NULL""",  # noqa: S608  (whole numbers, our own SQL)
        key=key,
    )
    return number


def _measured(experiment: Experiment, name: str) -> Metric | Objective:
    """The metric of that name, or the objective. Raises BadRequest for one of what units did, which
    has no course over decisions."""
    for metric in experiment.metrics:
        if metric.name == name and not metric.is_of_decisions:
            raise BadRequest("metric", f"{name} is a {metric.kind}, no number of each decision")
        if metric.name == name:
            return metric
    if any(metric.name == name for metric in experiment.unit_metrics):
        expected = [OBJECTIVE, *(metric.name for metric in experiment.metrics)]
        raise BadRequest(
            "metric", f"{name!r} has scope: unit; expected one of {', '.join(expected)}"
        )
    return experiment.goal


def _buckets(database: AnalyticsDatabase, key: str, points: int) -> _Buckets | None:
    """None where nothing was decided."""
    seconds = bucket_seconds(database, key, points)
    zone = zone_of(database, key) if seconds >= _DAY else UTC
    local = local_sql("decided_at", zone)
    span = database.row(
        f"""SELECT min(time_bucket(to_seconds($seconds), {local})) AS first,
            max(time_bucket(to_seconds($seconds), {local})) AS last
        FROM decisions WHERE experiment = $key""",  # noqa: S608  (of `local_sql`)
        key=key,
        seconds=seconds,
    )
    if span["first"] is None:
        return None
    count = (span["last"] - span["first"]) // timedelta(seconds=seconds) + 1
    return _Buckets(span["first"], seconds, count, zone)


def _moments_query(
    source: _Source,
    metric: Metric | Objective,
    buckets: _Buckets,
    published: int,
) -> str:
    """SQL for a row per variant with a list t0, t1 … for each bucket: sums within it, and sums over
    units of what they had by its end.

    A unit's decisions N_t and earnings X_t so far are sums of its columns up to t: so one grouping
    by unit is enough, however many buckets there are. Every decision earns the default first, and
    one with events what it earned beyond that.
    """
    default = number(metric.default)
    column = "objective" if isinstance(metric, Objective) else metric_column(metric.name)
    decided, earned, joined, so_far, moments = [], [], [], [], []
    for t in range(buckets.number):
        # Of decisions: how many, and what they earn without any event.
        decided.append(f"count(*) FILTER (b = {t})::DOUBLE AS n{t}")
        decided.append(f"{default} * count(*) FILTER (b = {t}) AS x{t}")
        # Of those with events: no decision more, and what they earned beyond that.
        earned.append(f"0.0::DOUBLE AS n{t}")
        earned.append(f"coalesce(sum(x - {default}) FILTER (b = {t}), 0.0) AS x{t}")
        joined.append(f"sum(n{t}) AS n{t}, sum(x{t}) AS x{t}")
        so_far.append(f"{_up_to('n', t)} AS nn{t}, {_up_to('x', t)} AS xx{t}")
        moments.append(f"[{_moments(f'n{t}', f'x{t}')}, {_moments(f'nn{t}', f'xx{t}')}] AS t{t}")
    return f"""
        WITH seen AS (
            SELECT variant, u, {", ".join(decided)}
            FROM (
                SELECT variant, hash(unit) AS u, ({buckets.clock} - $start) // $width AS b
                FROM {source.decisions}
                WHERE {metric.mature_sql("decided_at", published)}
            ) GROUP BY variant, u
        ), paid AS (
            SELECT variant, u, {", ".join(earned)}
            FROM (
                SELECT variant, hash(unit) AS u, {column} AS x,
                    ({buckets.clock} - $start) // $width AS b
                FROM {source.metrics}
                WHERE {metric.mature_sql("decided_at", published)}
            ) GROUP BY variant, u
        ), units AS (
            SELECT variant, {", ".join(joined)}
            FROM (FROM seen UNION ALL FROM paid) GROUP BY variant, u
        )
        SELECT variant, {", ".join(moments)}
        FROM (SELECT *, {", ".join(so_far)} FROM units) GROUP BY variant ORDER BY variant"""  # noqa: S608  (columns t0, t1 …; names through `identifier`)


def _up_to(column: str, t: int) -> str:
    return " + ".join(f"{column}{i}" for i in range(t + 1))


def _moments(n: str, x: str) -> str:
    """Over units: how many have a decision, Σn, Σx, Σn², Σnx, Σx²."""
    return (
        f"count(*) FILTER ({n} > 0), sum({n}), sum({x}), "
        f"sum({n} * {n}), sum({n} * {x}), sum({x} * {x})"
    )


def _progress(
    rows: list[dict[str, Any]],
    strata: list[list[dict[str, Any]]],
    ends: list[datetime],
    control: str,
    metric: str,
) -> pd.DataFrame:
    so_far = _so_far(rows, len(ends))
    by_stratum = [_so_far(stratum, len(ends)) for stratum in strata]
    lines = []
    for row in rows:
        variant = row["variant"]
        for t, till in enumerate(ends):
            sums = row[f"t{t}"][:6]
            here, total = _estimate(*sums), so_far[variant][t]
            if here is None or total is None:
                continue
            line: dict[str, Any] = {"till": till, "variant": variant, "decisions": int(sums[1])}
            line |= {"units": total.estimate.n, "value": here.value}
            # A single unit tells nothing of how units differ.
            if here.n > 1:
                half = 1.96 * float(np.sqrt(here.variance))
                most = OBJECTIVE_RANGE[1] if metric == OBJECTIVE else np.inf
                line["low"] = max(0.0, here.value - half)
                line["high"] = min(most, here.value + half)
            if variant != control:
                line |= _lift(metric, variant, _pair(by_stratum, variant, control, t))
            lines.append(line)
    table = pd.DataFrame(lines, columns=_PROGRESS)
    # A column without any number would otherwise have no numeric type.
    numeric = ["value", "low", "high", *_LIFT]
    return table.astype(dict.fromkeys(numeric, float))


class _Arm(NamedTuple):
    """An estimate, and how many decisions it is the mean of."""

    estimate: ArmEstimate
    decisions: float


_SoFar = dict[str, list[_Arm | None]]
"""By variant: what had come by the end of each bucket."""


def _so_far(rows: list[dict[str, Any]], buckets: int) -> _SoFar:
    so_far: _SoFar = {}
    for row in rows:
        # The second half of each list is what had come by the bucket's end.
        arms: list[_Arm | None] = []
        for t in range(buckets):
            sums = row[f"t{t}"][6:]
            estimate = _estimate(*sums)
            arms.append(None if estimate is None else _Arm(estimate, sums[1]))
        so_far[row["variant"]] = arms
    return so_far


def _pair(strata: list[_SoFar], variant: str, control: str, t: int) -> Pair:
    """A variant beside the control by the end of bucket t, within strata where there are
    several."""
    pairs, decisions = [], []
    for stratum in strata:
        # A stratum may be without one of them, and any may be without decisions as yet.
        one, other = (stratum[name][t] if name in stratum else None for name in (variant, control))
        if one is not None and other is not None:
            t_own, c_own = one.estimate, other.estimate
            pairs.append(Pair(t_own, c_own, "", t_own.n, c_own.n))
            decisions.append((one.decisions, other.decisions))
    if len(strata) == 1 and pairs:
        return pairs[0]
    return pooled_pair(pairs, decisions)


def _lift(metric: str, variant: str, pair: Pair) -> dict[str, float | None]:
    """The lift with its bounds; empty where it cannot be said."""
    if pair.treated is None or pair.control is None or min(pair.n, pair.n_control) < 2:
        return {}
    lift = effect(metric, variant, pair.treated, pair.control, Rule())
    return {part: getattr(lift, part) for part in _LIFT}


def _estimate(
    units: float, n: float, x: float, n2: float, nx: float, x2: float
) -> ArmEstimate | None:
    """The mean per decision with its variance by unit; None where nothing was decided."""
    if n <= 0:
        return None
    moments = Moments.from_sums(
        ("x", "n"), int(units), np.array([x, n]), np.array([[x2, nx], [nx, n2]])
    )
    mean = ratio("x", "n")(moments)
    return ArmEstimate(mean.value, mean.variance(moments), int(units))
