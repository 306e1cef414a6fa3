"""What was shown: shares of actions over time, by position and by kind of viewer, and how much
chance was in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from topbill.reporting.experiment.exclusion import open_counted
from topbill.reporting.experiment.segments import context_struct, groupings
from topbill.reporting.queries.database import (
    IN_SAMPLE,
    AnalyticsDatabase,
    published_experiment,
    sampled_one_in,
    zone_of,
)
from topbill.reporting.queries.series import bucket_seconds, bucket_sql

OTHERS = "(others)"
_POINTS = 48


def others_last(actions: Iterable[str]) -> list[str]:
    """The same order, but that all others together come last, however large they are."""
    return sorted(actions, key=lambda action: action == OTHERS)


def shares_over_time(
    data: Path | str, key: str, variant: str, position: int = 0, most: int = 9
) -> pd.DataFrame:
    """Shares of the actions at one position, per bucket of time.

    Args:
        data: the data folder.
        key: the experiment's key.
        variant: whose decisions.
        position: 0 is the first.
        most: actions that are told apart; rarer ones are together as `(others)`.

    Returns:
        Columns till (the bucket's end, UTC), action, shown, share (0 to 1, of the bucket).
    """
    query = """
        SELECT {till} AS till,
            slate[$position + 1] AS action, count(*) AS shown
        FROM decisions
        WHERE experiment = $key AND variant = $variant AND len(slate) > $position
            AND {sampled}
        GROUP BY ALL ORDER BY ALL"""
    with open_counted(data, key) as database:
        counts = database.frame(
            query.format(till=_till(database, key), sampled=IN_SAMPLE),
            key=key,
            variant=variant,
            position=position,
            one_in=sampled_one_in(database, key),
        )
    return _with_shares(_rarest_together(counts, most), "till")


def _till(database: AnalyticsDatabase, key: str) -> str:
    """SQL for the end of a decision's bucket of time."""
    return bucket_sql("decided_at", bucket_seconds(database, key, _POINTS), zone_of(database, key))


def most_shown(data: Path | str, key: str, variant: str, most: int = 50) -> pd.DataFrame:
    """The actions that a variant showed most, at any position, with what came of them.

    Args:
        data: the data folder.
        key: the experiment's key.
        variant: whose decisions.
        most: how many actions.

    Returns:
        Columns action, shown (placements), share (of all placements), played (placements that an
        event of the objective named) and rate (played a placement, 0 to 1); the
        most shown first. `attrs["event"]` is the event, `attrs["actions"]` how many actions were
        shown at all.
    """
    with open_counted(data, key) as database:
        experiment = published_experiment(database, key)
        event = next(m.event for m in experiment.metrics if m.name in experiment.objective)
        counts = database.frame(
            f"""
            WITH placed AS (
                SELECT decision_id, unnest(slate) AS action FROM decisions
                WHERE experiment = $key AND variant = $variant AND {IN_SAMPLE}
            ), named AS (
                SELECT DISTINCT decision_id, item FROM rewards
                WHERE experiment = $key AND event = $event AND item IS NOT NULL
            )
            SELECT action, count(*) AS shown, count(named.item) AS played,
                count(*) / sum(count(*)) OVER () AS share, count(*) OVER () AS actions
            FROM placed LEFT JOIN named
                ON placed.decision_id = named.decision_id AND placed.action = named.item
            GROUP BY action ORDER BY shown DESC, action LIMIT $most""",  # noqa: S608  (our own SQL)
            key=key,
            variant=variant,
            event=event,
            most=most,
            one_in=sampled_one_in(database, key),
        )
    counts["rate"] = counts["played"] / counts["shown"]
    found = counts[["action", "shown", "share", "played", "rate"]]
    found.attrs = {"event": event, "actions": int(counts["actions"].max()) if len(counts) else 0}
    return found


def positions(data: Path | str, key: str, variant: str) -> pd.DataFrame:
    """Per action and position (1 is the first): action, position, shown, and its share of that
    position.
    """
    query = f"""
        SELECT action, position + 1 AS position, count(*) AS shown
        FROM (
            SELECT unnest(slate) AS action, unnest(range(len(slate))) AS position FROM decisions
            WHERE experiment = $key AND variant = $variant AND {IN_SAMPLE}
        ) GROUP BY ALL ORDER BY ALL"""  # noqa: S608  (our own SQL)
    with open_counted(data, key) as database:
        counts = database.frame(
            query, key=key, variant=variant, one_in=sampled_one_in(database, key)
        )
    return _with_shares(counts, "position")


def by_segment(
    data: Path | str, key: str, variant: str, segment: str, most: int = 12
) -> pd.DataFrame:
    """Per group of viewers and action, at the first position: segment, action, shown, and its share
    of the group.
    """
    with open_counted(data, key) as database:
        # Groups follow from the file's schema, and are named in SQL: contexts are never loaded.
        experiment = published_experiment(database, key)
        grouping = groupings(experiment)[segment]
        counts = database.frame(
            f"""SELECT {grouping.expression} AS segment, action, count(*) AS shown
            FROM (
                SELECT from_json(context, $shape) AS c, slate[1] AS action FROM decisions
                WHERE experiment = $key AND variant = $variant AND len(slate) > 0
                    AND {IN_SAMPLE}
            ) GROUP BY ALL ORDER BY ALL""",  # noqa: S608  (an expression of `groupings`)
            **grouping.parameters,
            key=key,
            variant=variant,
            shape=context_struct(experiment),
            one_in=sampled_one_in(database, key),
        )
    return _with_shares(_rarest_together(counts, most), "segment")


def exploration(data: Path | str, key: str, variant: str) -> pd.DataFrame:
    """How open the draw at the first position is, per bucket of time.

    Returns:
        Columns till (the bucket's end, UTC), effective (e to the mean entropy of the
        probabilities: among how many actions the draw really was), explored (mean chance that
        another than the likeliest action was shown), decisions (so many were read).
    """
    query = """
        SELECT {till} AS till,
            exp(avg(list_sum(
                list_transform(list_filter(p, lambda q: q > 0), lambda q: -q * ln(q))
            ))) AS effective,
            avg(1.0 - list_max(p)) AS explored, count(*) AS decisions
        FROM (
            SELECT decided_at, probabilities[1] AS p FROM decisions
            WHERE experiment = $key AND variant = $variant AND len(probabilities) > 0
                AND {sampled}
        ) GROUP BY ALL ORDER BY till"""
    with open_counted(data, key) as database:
        return database.frame(
            query.format(till=_till(database, key), sampled=IN_SAMPLE),
            key=key,
            variant=variant,
            one_in=sampled_one_in(database, key),
        )


class Exploration(NamedTuple):
    """How open the draw at the first position is: `effective` and `explored` as in
    `exploration`."""

    effective: float
    explored: float


LATELY = 0.05
"""The share of decisions, the latest ones, that say how something is now."""


def explored_lately(over_time: pd.DataFrame, share: float = LATELY) -> Exploration | None:
    """How open the draw is now: of the latest buckets of `exploration` that have together `share`
    of all its decisions. With a share of 1 it is how open it was over all its time. None where no
    probability is on record.
    """
    latest = latest_buckets(over_time.groupby("till")["decisions"].sum(), share)
    rows = over_time[over_time["till"].isin(latest)]
    if rows.empty:
        return None
    weights = rows["decisions"].to_numpy(dtype=np.float64)
    # The mean of entropies, as in each bucket, and not that of their exponentials.
    entropy = np.average(np.log(rows["effective"].to_numpy(dtype=np.float64)), weights=weights)
    explored = np.average(rows["explored"].to_numpy(dtype=np.float64), weights=weights)
    return Exploration(float(np.exp(entropy)), float(explored))


def shares_lately(over_time: pd.DataFrame, share: float = LATELY) -> pd.Series:
    """Each name's share of what was shown first in the latest buckets: of columns till, name and
    shown.
    """
    latest = latest_buckets(over_time.groupby("till")["shown"].sum(), share)
    shown = over_time[over_time["till"].isin(latest)].groupby("name")["shown"].sum()
    return shown / max(1, int(shown.sum()))


def latest_buckets(counts: pd.Series, share: float) -> pd.Index:
    """The latest buckets that have together `share` of all that is counted, or a little more."""
    ordered = counts.sort_index(ascending=False)
    # A bucket belongs to them as long as those after it are not enough yet.
    before = ordered.cumsum().shift(fill_value=0)
    return ordered.index[before < share * ordered.sum()]


def explored_by_position(data: Path | str, key: str) -> pd.DataFrame:
    """Per variant and position (1 is the first): variant, position, `explored` as in `exploration`,
    decisions.
    """
    query = f"""
        SELECT variant, position, avg(1.0 - list_max(p)) AS explored, count(*) AS decisions
        FROM (
            SELECT variant, unnest(probabilities) AS p,
                unnest(range(1, len(probabilities) + 1)) AS position
            FROM decisions
            WHERE experiment = $key AND variant IS NOT NULL AND len(probabilities) > 0
                AND {IN_SAMPLE}
        ) GROUP BY ALL ORDER BY ALL"""  # noqa: S608  (our own SQL)
    with open_counted(data, key) as database:
        return database.frame(query, key=key, one_in=sampled_one_in(database, key))


def policy_versions(data: Path | str, key: str) -> pd.DataFrame:
    """Per policy version that decided: policy_version, first_at, last_at, decisions; newest first,
    at most 1,000.
    """
    query = """
        SELECT policy_version, min(decided_at) AS first_at, max(decided_at) AS last_at,
            count(*) AS decisions
        FROM decisions WHERE experiment = $key AND variant IS NOT NULL
        GROUP BY policy_version ORDER BY policy_version DESC LIMIT 1000"""
    with open_counted(data, key) as database:
        return database.frame(query, key=key)


def effective_actions(shares: pd.Series) -> float:
    """e to the entropy of shares that sum to 1: 1 when one action has it all, K when K share it
    evenly.
    """
    p = shares.to_numpy(dtype=np.float64)
    # p·ln p goes to 0 with p, where NumPy has no number.
    p = p[p > 0.0]
    return float(np.exp(-(p * np.log(p)).sum())) if p.size else 0.0


def _rarest_together(counts: pd.DataFrame, most: int) -> pd.DataFrame:
    """All but the `most` - 1 most shown actions as one, where there are more than `most`."""
    totals = counts.groupby("action")["shown"].sum().sort_values(ascending=False)
    # With as many as may be told apart nothing is gained by taking two together.
    if len(totals) <= most:
        return counts
    frequent = counts["action"].isin(totals.index[: most - 1])
    renamed = counts.assign(action=counts["action"].where(frequent, OTHERS))
    columns = [column for column in renamed.columns if column != "shown"]
    return renamed.groupby(columns, sort=True)["shown"].sum().reset_index()


def _with_shares(counts: pd.DataFrame, within: str) -> pd.DataFrame:
    return counts.assign(share=counts["shown"] / counts.groupby(within)["shown"].transform("sum"))
