"""What was shown: shares of actions over time, by position and by kind of viewer, and how much
chance was in it.
"""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted`)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from topbill.lake import Connection, quoted
from topbill.reporting.experiment.segments import parsed, segment_columns
from topbill.reporting.queries.database import count, every_nth, experiment, frame, opened
from topbill.reporting.queries.series import width

OTHERS = "(others)"


def sampled(connection: Connection, key: str) -> tuple[str, int]:
    """A condition that keeps an even sample of the experiment's decisions where there are many, and
    one in how many.
    """
    nth = every_nth(count(connection, key))
    return (f" AND hash(seq) % {nth} = 0" if nth > 1 else ""), nth


def shares_over_time(
    data: Path | str, key: str, variant: str, position: int = 0, most: int = 9
) -> pd.DataFrame:
    """Per bucket and action: till (the bucket's end), action, shown, share; rare actions together
    as `(others)`.
    """
    with opened(data) as connection:
        keep, _ = sampled(connection, key)
        seconds = width(connection, key, 48) or 1
        found = frame(
            connection,
            f"SELECT time_bucket(INTERVAL '{seconds} seconds', decided_at) + INTERVAL '{seconds} seconds' AS till, "
            f"slate[{position + 1}] AS action, count(*) AS shown FROM decisions WHERE experiment = {quoted(key)} "
            f"AND variant = {quoted(variant)} AND len(slate) > {position}{keep} GROUP BY ALL ORDER BY ALL",
        )
    return _share(_grouped(found, most), "till")


def positions(data: Path | str, key: str, variant: str) -> pd.DataFrame:
    """Per action and position (1 is the first): action, position, shown, and its share of that
    position.
    """
    with opened(data) as connection:
        keep, _ = sampled(connection, key)
        found = frame(
            connection,
            "SELECT action, position + 1 AS position, count(*) AS shown FROM (SELECT unnest(slate) AS action, "
            f"unnest(range(len(slate))) AS position FROM decisions WHERE experiment = {quoted(key)} "
            f"AND variant = {quoted(variant)}{keep}) GROUP BY ALL ORDER BY ALL",
        )
    return _share(found, "position")


def by_segment(
    data: Path | str, key: str, variant: str, segment: str, most: int = 12
) -> pd.DataFrame:
    """Per group of viewers and action, at the first position: segment, action, shown, and its share
    of the group.
    """
    with opened(data) as connection:
        about = experiment(connection, key)
        keep, _ = sampled(connection, key)
        found = frame(
            connection,
            f"SELECT {segment_columns(about)[segment]} AS segment, action, count(*) AS shown FROM "
            f"(SELECT {parsed(about)} AS c, slate[1] AS action FROM decisions WHERE experiment = {quoted(key)} "
            f"AND variant = {quoted(variant)} AND len(slate) > 0{keep}) GROUP BY ALL ORDER BY ALL",
        )
    return _share(_grouped(found, most), "segment")


def exploration(data: Path | str, key: str, variant: str) -> pd.DataFrame:
    """Per bucket: till, `effective` (e to the mean entropy of the first position's probabilities:
    how many actions the draw was really among), and `explored` (mean chance that another than the
    likeliest action was shown)."""
    with opened(data) as connection:
        keep, _ = sampled(connection, key)
        seconds = width(connection, key, 48) or 1
        return frame(
            connection,
            f"SELECT time_bucket(INTERVAL '{seconds} seconds', decided_at) + INTERVAL '{seconds} seconds' AS till, "
            "exp(avg(list_sum(list_transform(list_filter(p, lambda q: q > 0), lambda q: -q * ln(q))))) AS effective, "
            "avg(1.0 - list_max(p)) AS explored FROM (SELECT decided_at, probabilities[1] AS p FROM decisions "
            f"WHERE experiment = {quoted(key)} AND variant = {quoted(variant)} AND len(probabilities) > 0{keep}) "
            "GROUP BY ALL ORDER BY 1",
        )


def explored_by_position(data: Path | str, key: str) -> pd.DataFrame:
    """Per variant and position (1 is the first): variant, position, `explored` as above,
    decisions.
    """
    with opened(data) as connection:
        keep, _ = sampled(connection, key)
        return frame(
            connection,
            "SELECT variant, position, avg(1.0 - list_max(p)) AS explored, count(*) AS decisions FROM (SELECT variant, "
            "unnest(probabilities) AS p, unnest(range(1, len(probabilities) + 1)) AS position FROM decisions "
            f"WHERE experiment = {quoted(key)} AND variant IS NOT NULL AND len(probabilities) > 0{keep}) "
            "GROUP BY ALL ORDER BY ALL",
        )


def policy_versions(data: Path | str, key: str) -> pd.DataFrame:
    """Per policy version that decided: policy_version, first_at, last_at, decisions; newest first,
    at most 1,000.
    """
    with opened(data) as connection:
        return frame(
            connection,
            "SELECT policy_version, min(decided_at) AS first_at, max(decided_at) AS last_at, count(*) AS decisions FROM decisions "
            f"WHERE experiment = {quoted(key)} AND variant IS NOT NULL GROUP BY 1 ORDER BY 1 DESC LIMIT 1000",
        )


def effective_actions(shares: pd.Series) -> float:
    """e to the entropy of shares that sum to 1: 1 when one action has it all, K when K share it
    evenly.
    """
    p = shares.to_numpy(dtype=np.float64)
    p = p[p > 0.0]
    return float(np.exp(-(p * np.log(p)).sum())) if p.size else 0.0


def _grouped(found: pd.DataFrame, most: int) -> pd.DataFrame:
    """All but the `most` most shown actions as one."""
    totals = found.groupby("action")["shown"].sum().sort_values(ascending=False)
    if len(totals) <= most:
        return found
    kept = set(totals.index[: most - 1])
    named = found.assign(action=[a if a in kept else OTHERS for a in found["action"]])
    others = [column for column in named.columns if column != "shown"]
    return named.groupby(others, sort=True)["shown"].sum().reset_index()


def _share(found: pd.DataFrame, within: str) -> pd.DataFrame:
    return found.assign(share=found["shown"] / found.groupby(within)["shown"].transform("sum"))
