"""Single decisions: by id, by unit, or the latest ones, each with its rewards in the order of
time.
"""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted`)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from topbill.lake import Connection, quoted
from topbill.reporting.queries.database import frame, opened, rows
from topbill.reporting.queries.series import width


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One decision as the lake holds it, and the reward events that it got, earliest first."""

    decision: dict[str, Any]
    context: dict[str, Any]
    rewards: pd.DataFrame
    probabilities: pd.DataFrame
    """Columns position (1 is the first), action, probability, shown; empty where the matrix was not
    kept.
    """


def find(data: Path | str, decision_id: str) -> Found | None:
    """The decision of that id, None when the lake has none."""
    with opened(data) as connection:
        found = rows(
            connection, f"SELECT * FROM decisions WHERE decision_id = {quoted(decision_id)} LIMIT 1"
        )
        if not found:
            return None
        (decision,) = found
        rewards = frame(
            connection,
            "SELECT occurred_at, epoch(occurred_at) - epoch(decided_at) AS seconds_after, event, value, item, position, received_at "
            f"FROM rewards WHERE decision_id = {quoted(decision_id)} "
            f"AND experiment = {quoted(decision['experiment'])} ORDER BY occurred_at, seq",
        )
    return Found(
        decision=decision,
        context=json.loads(decision["context"] or "{}"),
        rewards=rewards,
        probabilities=_matrix(decision),
    )


def _matrix(decision: dict[str, Any]) -> pd.DataFrame:
    lines = [
        (k + 1, action, p, action == decision["slate"][k])
        for k, row in enumerate(decision["probabilities"] or [])
        for action, p in zip(decision["eligible"], row, strict=True)
        if k < len(decision["slate"])
    ]
    return pd.DataFrame(lines, columns=["position", "action", "probability", "shown"])


def of_unit(data: Path | str, unit: str, limit: int = 200) -> pd.DataFrame:
    """A unit's latest decisions in all experiments: decision_id, decided_at, experiment, variant, slate,
    propensity, reason, events (how many rewards)."""
    return _listed(data, f"unit = {quoted(unit)}", limit)


def latest(data: Path | str, key: str, limit: int = 25) -> pd.DataFrame:
    """The latest decisions of an experiment, likewise."""
    return _listed(data, f"experiment = {quoted(key)}", limit)


def _listed(data: Path | str, where: str, limit: int) -> pd.DataFrame:
    """The ids come first, from two narrow columns: the wide ones are read for these few alone."""
    with opened(data) as connection:
        last = rows(
            connection, f"SELECT seq FROM decisions WHERE {where} ORDER BY seq DESC LIMIT {limit}"
        )
        seqs = ", ".join(str(row["seq"]) for row in last) or "-1"
        first = min((row["seq"] for row in last), default=-1)
        return frame(
            connection,
            "SELECT d.decision_id, d.decided_at, d.experiment, d.variant, d.unit, array_to_string(d.slate, ', ') AS slate, "
            "d.propensity, d.reason, d.policy_version, coalesce(r.events, 0) AS events FROM decisions d LEFT JOIN "
            f"(SELECT decision_id, count(*) AS events FROM rewards WHERE {where} GROUP BY 1) r USING (decision_id) "
            f"WHERE {where} AND d.seq >= {first} AND d.seq IN ({seqs}) ORDER BY d.seq DESC",
        )


def delays(data: Path | str, key: str) -> pd.DataFrame:
    """How late rewards come, per event: event, events, p50, p90, p99 (seconds after the
    decision).
    """
    with opened(data) as connection:
        return frame(
            connection,
            "SELECT event, count(*) AS events, quantile_cont(late, 0.5) AS p50, quantile_cont(late, 0.9) AS p90, "
            "quantile_cont(late, 0.99) AS p99 FROM (SELECT event, epoch(received_at) - epoch(decided_at) AS late "
            f"FROM rewards WHERE experiment = {quoted(key)}{_latest_events(connection, key)}) "
            "GROUP BY event ORDER BY events DESC",
        )


def _latest_events(connection: Connection, key: str, most: int = 500_000) -> str:
    """A condition that keeps about the latest `most` events where there are more."""
    query = f"SELECT min(seq) AS first, max(seq) AS last, count(*) AS n FROM rewards WHERE experiment = {quoted(key)}"
    (span,) = rows(connection, query)
    if span["n"] <= most:
        return ""
    return f" AND seq > {span['last'] - round((span['last'] - span['first']) * most / span['n'])}"


def joins(data: Path | str, key: str, points: int = 48) -> pd.DataFrame:
    """Reward events over time: till (the bucket's end), event, events."""
    with opened(data) as connection:
        seconds = width(connection, key, points) or 1
        return frame(
            connection,
            f"SELECT time_bucket(INTERVAL '{seconds} seconds', received_at) + INTERVAL '{seconds} seconds' AS till, "
            f"event, count(*) AS events FROM rewards WHERE experiment = {quoted(key)} GROUP BY ALL ORDER BY ALL",
        )
