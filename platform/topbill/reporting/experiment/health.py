"""Whether the record can be trusted: propensities, reasons, maturity, reward joins, latency."""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted`)

from __future__ import annotations

from collections import Counter

import numpy as np
from msgspec.structs import replace
from scipy import stats

from topbill.domain.metric import event_inside_sql, window_over_sql
from topbill.lake import Connection, quoted
from topbill.reporting.experiment.choice_srm import choices, latest
from topbill.reporting.experiment.model import Health, PropensityLine

SAMPLE = 500_000
"""Where there are more decisions than this, the propensity check looks at about so many of the
latest.
"""
_ENOUGH = 10.0
"""Draws (and non-draws) to be expected before a normal approximation is believed."""
_SKEW = 0.3
"""Most skewness of the mean weight for which its normal interval is believed."""


def health(
    connection: Connection, key: str, windows: dict[str, float], objective_window: float, at: int
) -> Health:
    """The health of experiment `key`. `windows` gives the longest window (seconds) of each event
    that has a metric.
    """
    where = f"FROM decisions WHERE experiment = {quoted(key)}"
    reasons = dict(
        connection.sql(
            f"SELECT reason, count(*) {where} GROUP BY reason ORDER BY 2 DESC"
        ).fetchall()
    )
    decisions = sum(reasons.values())
    if decisions == 0:
        return Health()
    served = sum(reasons.get(reason, 0) for reason in ("policy", "fallback"))
    is_mature = window_over_sql("decided_at", objective_window, at)
    mature, (latency,) = connection.sql(
        f"SELECT count(*) FILTER ({is_mature}), "
        f"[quantile_disc(latency_us, [0.5, 0.9, 0.99, 1.0]) FILTER (reason IN ('policy', 'fallback'))] {where}"
    ).fetchall()[0]
    came, rewarded = _rewards(connection, key, windows, objective_window, at)
    events, known = (
        sum(n for n, _ in came.values()),
        {event: found for event, found in came.items() if event in windows},
    )
    read, joined = sum(n for n, _ in known.values()), sum(n for _, n in known.values())
    lines, share = propensity(connection, key, decisions)
    verdicts = [line.ok for line in lines if line.ok is not None]
    return Health(
        propensity=lines,
        propensity_ok=all(verdicts) if verdicts else None,
        propensity_sampled=share,
        choices=choices(
            connection,
            key,
            decisions,
            max(Counter(line.variant for line in lines).values(), default=1),
        ),
        reasons=reasons,
        fallback_share=reasons.get("fallback", 0) / served if served else None,
        mature_share=mature / decisions,
        reward_join_rate=joined / read if read else None,
        joined={event: inside / n for event, (n, inside) in known.items()},
        rewarded_share=rewarded / mature if mature else None,
        reward_events=events,
        unread_events=_unread(connection, key, windows) if events > read else {},
        latency_ms=dict(
            zip(("p50", "p90", "p99", "max"), (m / 1000.0 for m in latency or ()), strict=False)
        ),
    )


def _rewards(
    connection: Connection, key: str, windows: dict[str, float], objective_window: float, at: int
) -> tuple[dict[str, tuple[int, int]], int]:
    """Of each event how many came and how many of them in its window, and the mature decisions with
    any event.
    """
    inside = " OR ".join(
        f"({event_inside_sql(event, window)})" for event, window in windows.items()
    )
    mine = f"FROM rewards r WHERE experiment = {quoted(key)}"
    counted = f"SELECT event, count(*), count(*) FILTER ({inside or 'false'}) {mine} GROUP BY event ORDER BY event"
    came = {event: (n, joined) for event, n, joined in connection.sql(counted).fetchall()}
    mature = window_over_sql("decided_at", objective_window, at)
    ((rewarded,),) = connection.sql(
        f"SELECT count(DISTINCT decision_id) {mine} AND {mature}"
    ).fetchall()
    return came, rewarded


def _unread(connection: Connection, key: str, windows: dict[str, float]) -> dict[str, int]:
    known = " AND ".join(f"event <> {quoted(event)}" for event in windows) or "true"
    found = connection.sql(
        f"SELECT event, count(*) FROM rewards WHERE experiment = {quoted(key)} AND {known} "
        "GROUP BY event ORDER BY 2 DESC, 1 LIMIT 20"
    )
    return dict(found.fetchall())


def propensity(
    connection: Connection, key: str, decisions: int
) -> tuple[list[PropensityLine], float]:
    """A line for each variant and action, and the share of decisions looked at.

    If p is what the draw used, then drawn − Σp and Σ(1(drawn)/p − 1) have mean 0 and variances
    Σp(1−p) and Σ(1/p − 1), both known exactly; intervals are Bonferroni's over all lines.
    """
    share = min(1.0, SAMPLE / decisions)
    rows = connection.sql(
        "SELECT variant, action, count(*), count(*) FILTER (drawn), sum(p), sum(p * (1 - p)), "
        "sum(CASE WHEN drawn THEN 1 / p ELSE 0 END), sum(1 / p - 1), sum(abs((1 - p) * (1 - 2 * p)) / (p * p)) "
        "FROM (SELECT variant, action, p, action = first AS drawn FROM (SELECT variant, slate[1] AS first, "
        f"unnest(eligible) AS action, unnest(probabilities[1]) AS p FROM decisions WHERE experiment = {quoted(key)} "
        f"AND len(probabilities) > 0 AND variant IS NOT NULL{latest(connection, key, share)})) "
        "WHERE p > 0 GROUP BY variant, action ORDER BY variant, action"
    ).fetchall()
    z = float(stats.norm.isf(0.025 / max(len(rows), 1)))
    return [_line(row, z) for row in rows], share


def _line(
    row: tuple[str, str, int, int, float, float, float, float, float], z: float
) -> PropensityLine:
    variant, action, n, drawn, expected, spread, weights, excess, cubes = row
    mean = weights / n
    half = z * float(np.sqrt(max(excess, 0.0))) / n
    base = PropensityLine(
        variant=variant,
        action=action,
        decisions=n,
        drawn=drawn,
        expected=expected,
        mean_weight=mean,
    )
    if spread < 1e-9:
        return replace(base, ok=abs(drawn - expected) < 1e-6, reason="certain")
    if expected < _ENOUGH or n - expected < _ENOUGH or spread < _ENOUGH / 2:
        return replace(base, ok=None, reason="too_few_draws")
    ok = abs(drawn - expected) <= z * float(np.sqrt(spread))
    if cubes > _SKEW * excess**1.5:
        return replace(base, ok=ok, reason="skewed_weights")
    return replace(
        base, ok=ok and mean - half <= 1.0 <= mean + half, low=mean - half, high=mean + half
    )
