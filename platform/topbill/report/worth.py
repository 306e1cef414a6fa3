"""What each action is worth when it stands first, with intervals that hold although a learner chose what was shown."""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted` and `identifier`)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from topbill.lake import identifier, quoted
from topbill.report.reading import count, every_nth, experiment, frame, moment, opened
from topbill.report.segments import parsed, segment_columns

SAMPLE = 100_000
DRAWS, REWARDED, LARGEST = 10, 5, 0.2
"""No interval is given for an action with fewer draws than the first, fewer rewarded ones than the second, or where
a single draw carries more than this share of all weight."""
REASONS = {
    "": "nothing to remark",
    "too_few_draws": f"it stood first fewer than {DRAWS} times",
    "too_few_rewards": f"fewer than {REWARDED} of its draws earned anything",
    "one_weight_dominates": "a single rare draw carries too much of the estimate",
}
COLUMNS = ["action", "shown", "share", "plain", "value", "low", "high", "reason"]


def worth(
    data: Path | str, key: str, variant: str, segment: str | None = None, group: str | None = None
) -> pd.DataFrame:
    """Per action: how often it stood first, and what a decision earns if it always does (95% interval, by unit).

    Columns: action, shown, share, plain (mean objective of the decisions where it stood first), value, low, high,
    reason (of `REASONS`). Over mature decisions of `variant`; with `segment` and `group` of those viewers.

    The scores Γ = m + 1(drawn)/p·(r − m) of each action, m its estimate from earlier policy versions, are averaged
    with weights h = mean(1/p)^(−½) of their version, which steadies their variance, so that the average is normal
    again although p learned from the rewards (Hadad et al. 2021, eq. 16; Zhan et al. 2021: not contextual).
    """
    with opened(data) as connection:
        about = experiment(connection, key)
        nth = every_nth(count(connection, key), SAMPLE)
        weighed = max((m.window for m in about.metrics if about.objective.get(m.name)), default=0.0)
        inside = ""
        if segment is not None and group is not None:
            inside = f"WHERE {segment_columns(about)[segment]} = {quoted(group)}"
        base = (
            "WITH chosen AS (SELECT * FROM (SELECT decision_id, hash(unit) AS u, policy_version AS v, slate[1] AS first, "
            f"eligible, probabilities[1] AS probs{', ' + parsed(about) + ' AS c' if inside else ''} FROM decisions "
            f"WHERE experiment = {quoted(key)} AND variant = {quoted(variant)} AND reason = 'policy' "
            f"AND len(probabilities) > 0 AND hash(seq) % {nth} = 0 "
            f'AND epoch_us("at") + {round(weighed * 1e6)} < {moment(connection)}) {inside}), '
            "each AS (SELECT u, v, action, p, action = first AS drawn, coalesce(e.objective_, 0.0) AS r FROM "
            "(SELECT decision_id, u, v, first, unnest(eligible) AS action, unnest(probs) AS p FROM chosen) "
            f"LEFT JOIN earned.{identifier(key)} e ON decision_id = e.decision_id_ WHERE p > 0), "
            "cells AS (SELECT u, v, action, count(*) AS n, sum(1 / p) AS inverse, count(*) FILTER (drawn) AS shown, "
            "count(*) FILTER (drawn AND r > 0) AS hits, coalesce(max(1 / p) FILTER (drawn), 0.0) AS largest, "
            "coalesce(sum(r) FILTER (drawn), 0.0) AS paid, coalesce(sum(1 / p) FILTER (drawn), 0.0) AS s0, "
            "coalesce(sum(r / p) FILTER (drawn), 0.0) AS s1 FROM each GROUP BY ALL) "
        )
        sums = frame(
            connection,
            base + "SELECT action, v, sum(n) AS n, sum(inverse) AS inverse, sum(shown) AS shown, sum(paid) AS paid, "
            "sum(hits) AS hits, max(largest) AS largest, "
            "sum(s0) AS s0, sum(s1) AS s1 FROM cells GROUP BY ALL ORDER BY action, v",
        )
        if sums.empty:
            return pd.DataFrame(columns=COLUMNS)
        weights = pd.concat([_weigh(cells) for _, cells in sums.groupby("action")])
        values = ", ".join(
            f"({quoted(w.action)}, {w.v}, {float(w.h)!r}::DOUBLE, {float(w.m)!r}::DOUBLE, {float(w.q)!r}::DOUBLE)"
            for w in weights.itertuples()
        )
        spread = frame(
            connection,
            base
            + "SELECT action, sum(d * d) AS dd FROM (SELECT action, u, sum(h * (m * n + s1 - m * s0 - q * n)) AS d "
            f"FROM cells JOIN (VALUES {values}) AS w(action, v, h, m, q) USING (action, v) GROUP BY ALL) GROUP BY action",
        )
    return _table(weights, dict(zip(spread["action"], spread["dd"], strict=True)))


def _weigh(cells: pd.DataFrame) -> pd.DataFrame:
    """One action's versions in order, with their weight h, plug-in mean m of earlier versions, and the estimate q."""
    s0, s1 = (cells[name].cumsum().shift(fill_value=0.0) for name in ("s0", "s1"))
    m = np.where(s0 > 0.0, s1 / np.where(s0 > 0.0, s0, 1.0), 0.0)
    h = np.sqrt(cells["n"] / cells["inverse"])
    total = float((h * cells["n"]).sum())
    q = float((h * (m * cells["n"] + cells["s1"] - m * cells["s0"])).sum()) / total
    return cells.assign(h=h, m=m, q=q)


def _table(weights: pd.DataFrame, spread: dict[str, float]) -> pd.DataFrame:
    lines = []
    decisions = weights["shown"].sum()
    for action, cells in weights.groupby("action"):
        shown = int(cells["shown"].sum())
        line: dict[str, object] = {"action": action, "shown": shown, "share": shown / decisions if decisions else 0.0}
        line["plain"] = float(cells["paid"].sum()) / shown if shown else None
        if reason := _reason(cells, shown):
            lines.append({**line, "value": None, "low": None, "high": None, "reason": reason})
            continue
        q, half = float(cells["q"].iloc[0]), 1.96 * float(np.sqrt(spread[str(action)]))
        half /= float((cells["h"] * cells["n"]).sum())
        lines.append({**line, "value": q, "low": max(0.0, q - half), "high": min(1.0, q + half), "reason": ""})
    return pd.DataFrame(lines, columns=COLUMNS).sort_values("shown", ascending=False, ignore_index=True)


def _reason(cells: pd.DataFrame, shown: int) -> str:
    if shown < DRAWS:
        return "too_few_draws"
    if float(cells["hits"].sum()) < REWARDED:
        return "too_few_rewards"
    return "one_weight_dominates" if float(cells["largest"].max()) > LARGEST * float(cells["s0"].sum()) else ""


def groups(data: Path | str, key: str) -> dict[str, list[str]]:
    """The context features that make groups of viewers, and the groups seen, most common first."""
    with opened(data) as connection:
        about = experiment(connection, key)
        nth = every_nth(count(connection, key), 50_000)
        found: dict[str, list[str]] = {}
        for name, column in segment_columns(about).items():
            seen = frame(
                connection,
                f"SELECT {column} AS value, count(*) AS n FROM (SELECT {parsed(about)} AS c FROM decisions "
                f"WHERE experiment = {quoted(key)} AND hash(seq) % {nth} = 0) GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 30",
            )
            found[name] = [str(value) for value in seen["value"]]
    return found
