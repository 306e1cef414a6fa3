"""Have viewers changed? Each context feature's groups lately beside those at the start: population
stability.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from topbill.reporting.experiment.segments import Grouping, context_struct, groupings
from topbill.reporting.queries.database import (
    IN_SAMPLE,
    open_database,
    published_experiment,
    sampled_one_in,
)

STEADY, MOVED = 0.1, 0.25
"""Below the first a feature is taken as stable, above the second as changed (credit scorers' rule,
Siddiqi 2006).
"""
COLUMNS = ["feature", "psi", "verdict", "groups"]


def drift(data: Path | str, key: str) -> pd.DataFrame:
    """How far each context feature's groups have moved since the experiment began.

    psi = Σ (lately − before)·ln(lately / before) over groups; the latest quarter of decisions
    beside the first half.

    Returns:
        Columns feature, psi, verdict (stable | shifting | changed), groups (each with group,
        before, lately: shares from 0 to 1).
    """
    with open_database(data) as database:
        experiment = published_experiment(database, key)
        groups = groupings(experiment)
        span = database.row(
            "SELECT min(seq) AS first, max(seq) AS last FROM decisions WHERE experiment = $key",
            key=key,
        )
        if span["first"] is None or not groups:
            return pd.DataFrame(columns=COLUMNS)
        # By log position rather than time, so that both parts have decisions however uneven traffic
        # was.
        length = span["last"] - span["first"]
        counts = database.frame(
            _counts_query(groups),
            **_labels(groups),
            key=key,
            shape=context_struct(experiment),
            early=span["first"] + length * 0.5,
            late=span["first"] + length * 0.75,
            one_in=sampled_one_in(database, key),
        )
    lines = []
    # In the file's order, also for features of which nothing moved.
    for i, feature in enumerate(groups):
        shares = _shares(counts[counts["feature"] == f"g{i}"])
        psi = stability(shares["before"].to_numpy(), shares["lately"].to_numpy())
        lines.append((feature, psi, _verdict(psi), shares.to_dict("records")))
    return pd.DataFrame(lines, columns=COLUMNS)


def _labels(groups: dict[str, Grouping]) -> dict[str, list[str]]:
    labels: dict[str, list[str]] = {}
    for grouping in groups.values():
        labels.update(grouping.parameters)
    return labels


def _counts_query(groups: dict[str, Grouping]) -> str:
    """SQL for columns feature (g0, g1 …), value, lately, n: decisions of each feature's groups."""
    expressions = [grouping.expression for grouping in groups.values()]
    names = ", ".join(f"'g{i}'" for i in range(len(groups)))
    return f"""
        SELECT feature, value, lately, count(*) AS n
        FROM (
            SELECT lately, unnest([{names}]) AS feature, unnest(groups) AS value
            FROM (
                SELECT seq > $late AS lately, [{", ".join(expressions)}] AS groups
                FROM (
                    SELECT seq, from_json(context, $shape) AS c FROM decisions
                    WHERE experiment = $key AND (seq <= $early OR seq > $late) AND {IN_SAMPLE}
                )
            )
        ) GROUP BY ALL"""  # noqa: S608  (expressions of `groupings`)


def _shares(counts: pd.DataFrame) -> pd.DataFrame:
    """A feature's groups with their shares before and lately, each of which sums to 1."""
    table = counts.pivot_table(
        index="value", columns="lately", values="n", aggfunc="sum", fill_value=0
    )
    table = table.reindex(columns=[False, True], fill_value=0).sort_index()
    # Half a decision each, so that a group that is empty on one side counts without being infinite.
    shares = (table + 0.5) / (table + 0.5).sum()
    return pd.DataFrame(
        {
            "group": table.index,
            "before": shares[False].to_numpy(),
            "lately": shares[True].to_numpy(),
        }
    )


def stability(before: np.ndarray, lately: np.ndarray) -> float:
    """The population stability index of shares (groups,) beside those of before, none of them
    0."""
    return float(((lately - before) * np.log(lately / before)).sum())


def _verdict(psi: float) -> str:
    if psi < STEADY:
        return "stable"
    return "changed" if psi > MOVED else "shifting"
