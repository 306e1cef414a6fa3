"""How an experiment went over time: traffic, each variant's reward, the lift's confidence sequence as it narrows."""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted` and `identifier`)

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from topbill.ab.effect import Estimate, Rule, effect
from topbill.lake import Connection, identifier, quoted
from topbill.report.reading import experiment, frame, moment, opened, rows
from topbill.stats.moments import Moments, ratio

OBJECTIVE = "objective"
_WIDTHS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400)
_WEEK = 604_800


def width(connection: Connection, key: str, points: int = 36) -> int:
    """Seconds of a round bucket that cuts the experiment's time into at most `points`; 0 when nothing was decided."""
    found = rows(
        connection,
        f'SELECT epoch(max("at")) - epoch(min("at")) AS span FROM decisions WHERE experiment = {quoted(key)}',
    )
    span = found[0]["span"]
    if span is None:
        return 0
    return next((w for w in _WIDTHS if span / w <= points), _WEEK * max(1, round(span / points / _WEEK + 0.5)))


def _bucket(column: str, seconds: int) -> str:
    """The end of the bucket that a moment falls into."""
    return f"time_bucket(INTERVAL '{seconds} seconds', {column}) + INTERVAL '{seconds} seconds'"


def traffic(data: Path | str, key: str, points: int = 60) -> pd.DataFrame:
    """Per bucket (`till` its end) and variant: seconds, decisions, fallbacks, and the engine's p50 and p99 in ms."""
    with opened(data) as connection:
        seconds = width(connection, key, points) or 1
        return frame(
            connection,
            f"SELECT {_bucket('d.at', seconds)} AS till, coalesce(variant, '(none)') AS variant, {seconds} AS seconds, "
            "count(*) AS decisions, count(*) FILTER (reason = 'fallback') AS fallbacks, "
            "approx_quantile(micros, 0.5) / 1e3 AS p50, approx_quantile(micros, 0.99) / 1e3 AS p99 "
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
            'SELECT variant, unit, min("at") AS first_at FROM decisions '
            f"WHERE experiment = {quoted(key)} AND variant IS NOT NULL GROUP BY variant, unit) GROUP BY ALL) "
            "ORDER BY till, variant",
        )


def progress(data: Path | str, key: str, metric: str = OBJECTIVE, points: int = 24) -> pd.DataFrame:
    """Per bucket and variant, over mature decisions: the metric in the bucket, and the lift over the control so far.

    Columns: till (the bucket's end), variant, decisions and units so far, value with low and high (95%, clustered by
    unit, of this bucket alone); `relative` with relative_low and relative_high: the confidence sequence of the lift
    of all decisions up to then (Waudby-Smith et al. 2024), None for the control and where it can't be said.
    """
    with opened(data) as connection:
        about = experiment(connection, key)
        seconds = width(connection, key, points) or 1
        weighed = [m.window for m in about.metrics if about.objective.get(m.name)]
        window = next((m.window for m in about.metrics if m.name == metric), max(weighed, default=0.0))
        column = identifier("objective_" if metric == OBJECTIVE else metric)
        found = rows(connection, _moments_by_bucket(key, column, seconds, round(window * 1e6), moment(connection)))
    return _progress(found, about.control.name, metric)


def _moments_by_bucket(key: str, column: str, seconds: int, window: int, at: int) -> str:
    """Per variant and bucket: sums within the bucket, and by how much sums over units grew with it.

    A unit's total X so far adds X² to Σx²; so a bucket that brings it x more adds X² − (X − x)².
    """
    mature = f"epoch_us({{}}) + {window} < {at}"
    over = "OVER (PARTITION BY variant, u ORDER BY till)"
    return (
        f"WITH each AS (SELECT variant, hash(unit) AS u, {_bucket('d.at', seconds)} AS till, count(*)::DOUBLE AS n, "
        f"0.0::DOUBLE AS x FROM decisions d WHERE experiment = {quoted(key)} AND variant IS NOT NULL "
        f"AND {mature.format('d.at')} GROUP BY ALL UNION ALL "
        f"SELECT variant_, hash(unit_), {_bucket('at_', seconds)}, 0.0, sum({column}) FROM earned.{identifier(key)} "
        f"WHERE variant_ IS NOT NULL AND {mature.format('at_')} GROUP BY ALL), "
        "cells AS (SELECT variant, u, till, sum(n) AS n, sum(x) AS x FROM each GROUP BY ALL), "
        f"run AS (SELECT variant, till, n, x, sum(n) {over} AS nn, sum(x) {over} AS xx FROM cells) "
        "SELECT variant, till, count(*) AS cells, sum(n) AS n, sum(x) AS x, sum(n * n) AS n2, sum(n * x) AS nx, "
        "sum(x * x) AS x2, count(*) FILTER (nn = n) AS fresh, sum(nn * nn - (nn - n) * (nn - n)) AS g_n2, "
        "sum(nn * xx - (nn - n) * (xx - x)) AS g_nx, sum(xx * xx - (xx - x) * (xx - x)) AS g_x2 "
        "FROM run GROUP BY variant, till ORDER BY variant, till"
    )


def _progress(cells: list[dict[str, Any]], control: str, metric: str) -> pd.DataFrame:
    columns = ["till", "variant", "decisions", "units", "value", "low", "high"]
    running = _cumulated(cells)
    lines = []
    for cell in cells:
        name, till = cell["variant"], cell["till"]
        here = _estimate(cell["cells"], cell["n"], cell["x"], cell["n2"], cell["nx"], cell["x2"])
        so_far, reference = running[name].get(till), _latest(running.get(control, {}), till)
        line = {"till": till, "variant": name, "decisions": int(cell["n"]), "units": so_far.n if so_far else 0}
        if here is not None:
            half = 1.96 * float(np.sqrt(here.variance))
            line |= {"value": here.value}
            line |= {"low": max(0.0, here.value - half), "high": here.value + half} if here.n > 1 else {}
        if name != control and so_far and reference and min(so_far.n, reference.n) > 1:
            lift = effect(metric, name, so_far, reference, Rule())
            line |= {part: getattr(lift, part) for part in _LIFT}
        lines.append(line)
    found = pd.DataFrame(lines, columns=[*columns, *_LIFT])
    numbers = ["value", "low", "high", *_LIFT]
    return found.assign(**{column: found[column].astype(float) for column in numbers})


_LIFT = ("relative", "relative_low", "relative_high")


def _cumulated(cells: list[dict[str, Any]]) -> dict[str, dict[datetime, Estimate]]:
    """Per variant and bucket the estimate of all decisions up to its end; buckets come in order."""
    sums: dict[str, Any] = {}
    estimates: dict[str, dict[datetime, Estimate]] = {}
    for cell in cells:
        name = cell["variant"]
        more = np.array([cell[part] for part in ("fresh", "n", "x", "g_n2", "g_nx", "g_x2")], dtype=np.float64)
        sums[name] = sums[name] + more if name in sums else more
        by_time, found = estimates.setdefault(name, {}), _estimate(*sums[name])
        if found is not None:
            by_time[cell["till"]] = found
    return estimates


def _latest(by_time: dict[datetime, Estimate], till: datetime) -> Estimate | None:
    """The last estimate at or before `till`; times are in order."""
    found = None
    for moment_, estimate in by_time.items():
        if moment_ > till:
            break
        found = estimate
    return found


def _estimate(units: float, n: float, x: float, n2: float, nx: float, x2: float) -> Estimate | None:
    if n <= 0:
        return None
    moments = Moments.from_sums(("x", "n"), int(units), np.array([x, n]), np.array([[x2, nx], [nx, n2]]))
    linear = ratio("x", "n")(moments)
    return Estimate(linear.value, linear.variance(moments), int(units))
