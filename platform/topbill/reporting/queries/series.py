"""How an experiment went over time: traffic, each variant's reward, the lift's confidence sequence
as it narrows.
"""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted` and `identifier`)

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from topbill.ab import ArmEstimate, Rule, effect
from topbill.domain.metric import Metric, metric_column
from topbill.domain.objective import Objective
from topbill.domain.sql import number
from topbill.lake import Connection, identifier, quoted
from topbill.reporting.queries.database import experiment, frame, moment, opened, rows
from topbill.stats.moments import Moments, ratio

OBJECTIVE = "objective"
_WIDTHS = (
    1,
    2,
    5,
    10,
    20,
    30,
    60,
    120,
    300,
    600,
    900,
    1_800,
    3_600,
    7_200,
    10_800,
    21_600,
    43_200,
    86_400,
)
_WEEK = 604_800


def width(connection: Connection, key: str, points: int = 36) -> int:
    """Seconds of a round bucket that cuts the experiment's time into at most `points`; 0 when
    nothing was decided.
    """
    found = rows(
        connection,
        f"SELECT epoch(max(decided_at)) - epoch(min(decided_at)) AS span FROM decisions WHERE experiment = {quoted(key)}",
    )
    span = found[0]["span"]
    if span is None:
        return 0
    return next(
        (w for w in _WIDTHS if span / w <= points),
        _WEEK * max(1, round(span / points / _WEEK + 0.5)),
    )


def _bucket(column: str, seconds: int) -> str:
    """The end of the bucket that a moment falls into."""
    return f"time_bucket(INTERVAL '{seconds} seconds', {column}) + INTERVAL '{seconds} seconds'"


def traffic(data: Path | str, key: str, points: int = 60) -> pd.DataFrame:
    """Per bucket (`till` its end) and variant: seconds, decisions, fallbacks, and the engine's p50
    and p99 in ms.
    """
    with opened(data) as connection:
        seconds = width(connection, key, points) or 1
        return frame(
            connection,
            f"SELECT {_bucket('d.decided_at', seconds)} AS till, coalesce(variant, '(none)') AS variant, {seconds} AS seconds, "
            "count(*) AS decisions, count(*) FILTER (reason = 'fallback') AS fallbacks, "
            "approx_quantile(latency_us, 0.5) / 1e3 AS p50, approx_quantile(latency_us, 0.99) / 1e3 AS p99 "
            f"FROM decisions d WHERE experiment = {quoted(key)} GROUP BY ALL ORDER BY 1, 2",
        )


def units_over_time(data: Path | str, key: str, points: int = 36) -> pd.DataFrame:
    """Per bucket (`till` its end) and variant: and the units seen so far."""
    with opened(data) as connection:
        seconds = width(connection, key, points) or 1
        return frame(
            connection,
            "SELECT till, variant, sum(fresh) OVER (PARTITION BY variant ORDER BY till)::BIGINT AS units FROM ("
            f"SELECT {_bucket('first_at', seconds)} AS till, variant, count(*) AS fresh FROM ("
            "SELECT variant, unit, min(decided_at) AS first_at FROM decisions "
            f"WHERE experiment = {quoted(key)} AND variant IS NOT NULL GROUP BY variant, unit) GROUP BY ALL) "
            "ORDER BY till, variant",
        )


def progress(data: Path | str, key: str, metric: str = OBJECTIVE, points: int = 20) -> pd.DataFrame:
    """Per bucket and variant, over mature decisions: the metric in the bucket, and the lift over
    the control so far.

    Columns: till (the bucket's end), variant, decisions and units so far, value with low and high
    (95%, clustered by unit, of this bucket alone); `relative` with relative_low and relative_high:
    the confidence sequence of the lift of all decisions up to then (Waudby-Smith et al. 2024), None
    for the control and where it can't be said.
    """
    with opened(data) as connection:
        about = experiment(connection, key)
        seconds = width(connection, key, points) or 1
        one = next((m for m in about.metrics if m.name == metric), about.goal)
        start = f"time_bucket(INTERVAL '{seconds} seconds', d.decided_at)"
        where = f"FROM decisions d WHERE experiment = {quoted(key)}"
        column = "objective" if metric == OBJECTIVE else metric_column(metric)
        (span,) = rows(connection, f"SELECT min({start}) AS first, max({start}) AS last {where}")
        if span["first"] is None:
            return _progress([], [], about.control.name, metric)
        step = timedelta(seconds=seconds)
        ends = [
            span["first"] + step * (t + 1)
            for t in range((span["last"] - span["first"]) // step + 1)
        ]
        start_at = round((span["first"] - datetime(1970, 1, 1)) / timedelta(microseconds=1))
        query = _moments_by_bucket(
            key, column, one, seconds, len(ends), start_at, moment(connection)
        )
        return _progress(rows(connection, query), ends, about.control.name, metric)


def _moments_by_bucket(
    key: str,
    column: str,
    metric: Metric | Objective,
    seconds: int,
    buckets: int,
    first: int,
    at: int,
) -> str:
    """Per variant, and for each bucket t: sums within it, and sums over units of what they had by
    its end.

    A unit's decisions N_t and earnings X_t so far are sums of its columns up to t: so one grouping
    by unit is enough, however many buckets there are. Every decision earns the default first, and
    one with events what it earned beyond that.
    """
    mine = f"experiment = {quoted(key)} AND variant IS NOT NULL"
    index = f"((epoch_us({{}}) - {first}) // {seconds * 1_000_000})"
    default = number(metric.default)
    every = range(buckets)
    counted = ", ".join(
        f"count(*) FILTER (b = {t})::DOUBLE AS n{t}, {default} * count(*) FILTER (b = {t}) AS x{t}"
        for t in every
    )
    earned = ", ".join(
        f"0.0::DOUBLE AS n{t}, coalesce(sum(x - {default}) FILTER (b = {t}), 0.0) AS x{t}"
        for t in every
    )
    joined = ", ".join(f"sum(n{t}) AS n{t}, sum(x{t}) AS x{t}" for t in every)
    so_far = ", ".join(
        f"{' + '.join(f'n{i}' for i in range(t + 1))} AS nn{t}, {' + '.join(f'x{i}' for i in range(t + 1))} AS xx{t}"
        for t in every
    )
    sums = ", ".join(
        f"[count(*) FILTER (n{t} > 0), sum(n{t}), sum(x{t}), sum(n{t} * n{t}), sum(n{t} * x{t}), sum(x{t} * x{t}), "
        f"count(*) FILTER (nn{t} > 0), sum(nn{t}), sum(xx{t}), sum(nn{t} * nn{t}), sum(nn{t} * xx{t}), "
        f"sum(xx{t} * xx{t})] AS t{t}"
        for t in every
    )
    return (
        f"WITH seen AS (SELECT variant, u, {counted} FROM (SELECT variant, hash(unit) AS u, "
        f"{index.format('d.decided_at')} AS b FROM decisions d WHERE {mine} AND {metric.mature_sql('d.decided_at', at)}) GROUP BY variant, u), "
        f"paid AS (SELECT variant, u, {earned} FROM (SELECT variant, hash(unit) AS u, {column} AS x, "
        f"{index.format('decided_at')} AS b FROM metrics.{identifier(key)} WHERE variant IS NOT NULL "
        f"AND {metric.mature_sql('decided_at', at)}) GROUP BY variant, u), "
        f"units AS (SELECT variant, {joined} FROM (FROM seen UNION ALL FROM paid) GROUP BY variant, u) "
        f"SELECT variant, {sums} FROM (SELECT *, {so_far} FROM units) GROUP BY variant ORDER BY variant"
    )


def _progress(
    found: list[dict[str, Any]], ends: list[datetime], control: str, metric: str
) -> pd.DataFrame:
    running = {
        row["variant"]: [_estimate(*row[f"t{t}"][6:]) for t in range(len(ends))] for row in found
    }
    reference = running.get(control, [None] * len(ends))
    lines = []
    for row in found:
        name = row["variant"]
        for t, till in enumerate(ends):
            here, so_far, other = _estimate(*row[f"t{t}"][:6]), running[name][t], reference[t]
            if here is None:
                continue
            half = 1.96 * float(np.sqrt(here.variance))
            line = {
                "till": till,
                "variant": name,
                "decisions": int(row[f"t{t}"][1]),
                "value": here.value,
            }
            line["units"] = so_far.n if so_far else 0
            line |= (
                {"low": max(0.0, here.value - half), "high": here.value + half}
                if here.n > 1
                else {}
            )
            if name != control and so_far and other and min(so_far.n, other.n) > 1:
                lift = effect(metric, name, so_far, other, Rule())
                line |= {part: getattr(lift, part) for part in _LIFT}
            lines.append(line)
    table = pd.DataFrame(
        lines, columns=["till", "variant", "decisions", "units", "value", "low", "high", *_LIFT]
    )
    return table.assign(
        **{column: table[column].astype(float) for column in ("value", "low", "high", *_LIFT)}
    )


_LIFT = ("relative", "relative_low", "relative_high")


def _estimate(
    units: float, n: float, x: float, n2: float, nx: float, x2: float
) -> ArmEstimate | None:
    if n <= 0:
        return None
    moments = Moments.from_sums(
        ("x", "n"), int(units), np.array([x, n]), np.array([[x2, nx], [nx, n2]])
    )
    linear = ratio("x", "n")(moments)
    return ArmEstimate(linear.value, linear.variance(moments), int(units))
