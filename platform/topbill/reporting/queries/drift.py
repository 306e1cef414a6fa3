"""Have viewers changed? Each context feature's groups lately beside those at the start: population
stability.
"""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted`)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from topbill.lake import quoted
from topbill.reporting.experiment.segments import parsed, segment_columns
from topbill.reporting.queries.database import experiment, frame, opened, rows
from topbill.reporting.queries.exposure import sampled

STEADY, MOVED = 0.1, 0.25
"""Below the first a feature is taken as stable, above the second as changed (credit scorers' rule,
Siddiqi 2006).
"""


def drift(data: Path | str, key: str) -> pd.DataFrame:
    """Per feature: feature, psi, verdict (stable | shifting | changed), groups (each with group,
    before, lately).

    psi = Σ (lately − before)·ln(lately / before) over groups; the latest quarter of decisions
    beside the first half. Shares get half a decision each, so that a group that is empty on one
    side counts without being infinite.
    """
    columns = ["feature", "psi", "verdict", "groups"]
    with opened(data) as connection:
        about = experiment(connection, key)
        groups = segment_columns(about)
        where = f"FROM decisions WHERE experiment = {quoted(key)}"
        (span,) = rows(connection, f"SELECT min(seq) AS first, max(seq) AS last {where}")
        if span["first"] is None or not groups:
            return pd.DataFrame(columns=columns)
        early = span["first"] + (span["last"] - span["first"]) * 0.5
        late = span["first"] + (span["last"] - span["first"]) * 0.75
        keep, _ = sampled(connection, key)
        names = list(groups)
        shown = ", ".join(f"{groups[name]} AS g{i}" for i, name in enumerate(names))
        found = frame(
            connection,
            "SELECT feature, value, lately, count(*) AS n FROM "
            f"(UNPIVOT (SELECT seq > {late!r} AS lately, {shown} FROM "
            f"(SELECT seq, {parsed(about)} AS c {where} AND (seq <= {early!r} OR seq > {late!r}){keep})) "
            f"ON {', '.join(f'g{i}' for i in range(len(names)))} INTO NAME feature VALUE value) GROUP BY ALL",
        )
    lines = []
    for i, name in enumerate(names):
        table = found[found["feature"] == f"g{i}"].pivot_table(
            index="value", columns="lately", values="n", aggfunc="sum", fill_value=0
        )
        table = table.reindex(columns=[False, True], fill_value=0).sort_index()
        shares = (table + 0.5) / (table + 0.5).sum()
        before, lately = shares[False].to_numpy(), shares[True].to_numpy()
        psi = float(((lately - before) * np.log(lately / before)).sum())
        verdict = "stable" if psi < STEADY else "changed" if psi > MOVED else "shifting"
        both = pd.DataFrame({"group": table.index, "before": before, "lately": lately})
        lines.append((name, psi, verdict, both.to_dict("records")))
    return pd.DataFrame(lines, columns=columns)
