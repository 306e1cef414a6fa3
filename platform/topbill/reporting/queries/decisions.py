"""Single decisions: by id, by unit, or the latest ones, each with its rewards in the order of
time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pandas as pd

from topbill.log.unit_ids import known_unit_ids
from topbill.reporting.queries.database import AnalyticsDatabase, open_database, zone_of
from topbill.reporting.queries.series import bucket_seconds, bucket_sql

LATEST_EVENTS = 500_000
"""Where there are more reward events than this, delays are those of about so many of the latest."""


class DecisionDetails(msgspec.Struct, frozen=True, kw_only=True):
    """One decision as the record holds it, and the reward events that it got, earliest first."""

    decision: dict[str, Any]
    context: dict[str, Any]
    rewards: pd.DataFrame
    probabilities: pd.DataFrame
    """Columns position (1 is the first), action, probability, shown; empty where the matrix was not
    kept.
    """


def find(data: Path | str, decision_id: str) -> DecisionDetails | None:
    """The decision of that id, None when the record has none."""
    with open_database(data) as database:
        rows = database.rows(
            "SELECT * FROM decisions WHERE decision_id = $decision_id LIMIT 1",
            decision_id=decision_id,
        )
        if not rows:
            return None
        decision = rows[0]
        # The experiment is named too, because files of the record are apart by experiment.
        rewards = database.frame(
            """SELECT occurred_at, epoch(occurred_at) - epoch(decided_at) AS seconds_after, event,
                value, item, position, received_at
            FROM rewards WHERE decision_id = $decision_id AND experiment = $experiment
            ORDER BY occurred_at, seq""",
            decision_id=decision_id,
            experiment=decision["experiment"],
        )
    return DecisionDetails(
        decision=decision,
        context=json.loads(decision["context"] or "{}"),
        rewards=rewards,
        probabilities=_probabilities(decision),
    )


def _probabilities(decision: dict[str, Any]) -> pd.DataFrame:
    """The decision's matrix as a table: a line for each position and eligible action."""
    lines = []
    # The matrix may have more positions than were shown, where fewer actions than slots were left.
    for k, placed in enumerate(decision["slate"][: len(decision["probabilities"] or [])]):
        chances = zip(decision["eligible"], decision["probabilities"][k], strict=True)
        for action, probability in chances:
            lines.append((k + 1, action, probability, action == placed))
    return pd.DataFrame(lines, columns=["position", "action", "probability", "shown"])


_LATEST = """
    SELECT d.decision_id, d.decided_at, d.experiment, d.variant, d.unit,
        array_to_string(d.slate, ', ') AS slate, d.propensity, d.reason, d.policy_version,
        coalesce(r.events, 0) AS events
    FROM decisions d LEFT JOIN (
        SELECT decision_id, count(*) AS events FROM rewards WHERE {whose} GROUP BY decision_id
    ) r ON r.decision_id = d.decision_id
    WHERE {whose} AND d.seq >= $first AND list_contains($seqs, d.seq)
    ORDER BY d.seq DESC"""


def of_unit(data: Path | str, unit: str, limit: int = 200) -> pd.DataFrame:
    """A unit's latest decisions in all experiments; `unit` is its id as services send it, or as it
    is stored.

    Returns:
        Columns decision_id, decided_at, experiment, variant, unit, slate (actions joined by
        commas), propensity, reason, policy_version, events (how many rewards); the latest first.
    """
    stored = known_unit_ids(Path(data)).stored(unit)
    return _latest(data, "unit = $value", stored, limit)


def events_of_unit(data: Path | str, unit: str, limit: int = 200) -> pd.DataFrame:
    """A unit's latest reward events in all experiments; `unit` as for `of_unit`.

    Returns:
        Columns occurred_at, seconds_after (the decision), event, value, item, experiment,
        decision_id; the latest first.
    """
    stored = known_unit_ids(Path(data)).stored(unit)
    query = """
        SELECT occurred_at, epoch(occurred_at) - epoch(decided_at) AS seconds_after, event, value,
            item, experiment, decision_id
        FROM rewards WHERE unit = $unit ORDER BY occurred_at DESC, seq DESC LIMIT $most"""
    with open_database(data) as database:
        return database.frame(query, unit=stored, most=limit)


def latest(
    data: Path | str,
    key: str,
    limit: int = 25,
    *,
    variant: str | None = None,
    has_events: bool = False,
) -> pd.DataFrame:
    """The latest decisions of an experiment, with the columns of `of_unit`: of one `variant`
    alone, or those alone that a reward event came for.
    """
    which, parameters = "TRUE", dict[str, object]()
    if variant is not None:
        which += " AND variant = $variant"
        parameters["variant"] = variant
    if has_events:
        which += " AND decision_id IN (SELECT decision_id FROM rewards WHERE experiment = $value)"
    return _latest(data, "experiment = $value", key, limit, which, parameters)


def _latest(
    data: Path | str,
    whose: str,
    value: str,
    limit: int,
    which: str = "TRUE",
    parameters: Mapping[str, object] = MappingProxyType({}),
) -> pd.DataFrame:
    """The latest decisions for which the condition `whose` holds, in which $value stands; of these
    those alone for which `which` holds, with its `parameters`.

    Their log positions come first, from two narrow columns: the wide ones are then read for these
    few alone, and `seq >= first` lets DuckDB skip all files but the newest.
    """
    with open_database(data) as database:
        rows = database.rows(
            f"SELECT seq FROM decisions WHERE {whose} AND {which} ORDER BY seq DESC LIMIT $most",  # noqa: S608  (conditions of this module)
            value=value,
            most=limit,
            **parameters,
        )
        seqs = [row["seq"] for row in rows]
        return database.frame(
            _LATEST.format(whose=whose), value=value, first=min(seqs, default=0), seqs=seqs
        )


def delays(data: Path | str, key: str) -> pd.DataFrame:
    """How late rewards come, per event.

    Returns:
        Columns event, events (how many), p50, p90, p99 (seconds after the decision).
    """
    query = """
        SELECT event, count(*) AS events, quantile_cont(late, 0.5) AS p50,
            quantile_cont(late, 0.9) AS p90, quantile_cont(late, 0.99) AS p99
        FROM (
            SELECT event, epoch(received_at) - epoch(decided_at) AS late FROM rewards
            WHERE experiment = $key AND seq > $after
        ) GROUP BY event ORDER BY events DESC, event"""
    with open_database(data) as database:
        return database.frame(query, key=key, after=_before_latest_events(database, key))


def _before_latest_events(database: AnalyticsDatabase, key: str) -> int:
    """The log position after which about `LATEST_EVENTS` reward events lie; -1 for all of them."""
    span = database.row(
        """SELECT min(seq) AS first, max(seq) AS last, count(*) AS events FROM rewards
        WHERE experiment = $key""",
        key=key,
    )
    if span["events"] <= LATEST_EVENTS:
        return -1
    share = LATEST_EVENTS / span["events"]
    return int(span["last"] - round((span["last"] - span["first"]) * share))


def joins(data: Path | str, key: str, points: int = 48) -> pd.DataFrame:
    """Reward events over time: till (the bucket's end, UTC), event, events."""
    with open_database(data) as database:
        seconds = bucket_seconds(database, key, points)
        till = bucket_sql("received_at", seconds, zone_of(database, key))
        return database.frame(
            f"""SELECT {till} AS till, event, count(*) AS events
            FROM rewards WHERE experiment = $key GROUP BY ALL ORDER BY ALL""",  # noqa: S608  (of `bucket_sql`)
            key=key,
        )
