"""What each action is worth when it stands first, with intervals that hold although a learner chose
what was shown.
"""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted` and `identifier`)

from __future__ import annotations

from itertools import groupby
from math import sqrt
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd

from topbill.domain.reasons import reasons
from topbill.domain.sql import number
from topbill.lake import Connection, identifier, quoted
from topbill.reporting.experiment.segments import parsed, segment_columns
from topbill.reporting.queries.database import count, every_nth, experiment, moment, opened, rows

SAMPLE = 100_000
DRAWS, REWARDED, LARGEST = 10, 5, 0.2
"""No interval is given for an action with fewer draws than the first, fewer rewarded ones than the
second, or where a single draw carries more than this share of all weight."""
STAGES = 50
"""The log is cut into so many parts of like size; within one, policy versions are taken as one."""
REASONS = reasons("", "too_few_draws", "too_few_rewards", "one_weight_dominates")
COLUMNS = ["action", "shown", "share", "plain", "value", "low", "high", "reason"]
_SUMS = ("n", "draws", "inverse", "shown", "paid", "hits", "s0", "s1")


def worth(
    data: Path | str, key: str, variant: str, segment: str | None = None, group: str | None = None
) -> pd.DataFrame:
    """Per action: how often `variant` showed it first, and what a decision earns if it always
    stands first.

    Columns: action, shown, share, plain (mean objective of the variant's decisions where it stood
    first); value with low and high (95%, by unit) and reason (of `REASONS`). Over mature decisions;
    with `segment` and `group` of those viewers. With one slot the value does not depend on who
    chose, so that all variants' decisions speak for it; a slate's rest does, and only the variant's
    own count.

    The scores Γ = m + 1(drawn)/p·(r − m) of each action, m its estimate from earlier stages of the
    log, are averaged with weights h = mean(1/p)^(−½) of their stage, which steadies their variance,
    so that the average is normal again although p learned from the rewards (Hadad et al. 2021, eq.
    16; Zhan et al. 2021: not contextual).
    """
    with opened(data) as connection:
        # CREATE answers with a count, and DuckDB wants every answer fetched before the next
        # statement.
        connection.execute(_cells(connection, key, variant, segment, group)).fetchall()
        summed = ", ".join(f"sum({name})::DOUBLE AS {name}" for name in _SUMS)
        found = rows(
            connection,
            f"SELECT action, v, {summed}, max(largest) AS largest FROM cells GROUP BY action, v "
            "ORDER BY action, any_value(version), v",
        )
        if not found:
            return pd.DataFrame(columns=COLUMNS)
        versions = {
            action: _weigh(list(own)) for action, own in groupby(found, itemgetter("action"))
        }
        spread = _spread(connection, versions)
    return _table(versions, spread)


def _cells(
    connection: Connection, key: str, variant: str, segment: str | None, group: str | None
) -> str:
    """SQL for table `cells`: sums per unit u, stage v of a variant's log, and action that had a
    chance p.
    """
    about = experiment(connection, key)
    nth = every_nth(count(connection, key), SAMPLE)
    (span,) = rows(
        connection,
        f"SELECT min(seq) AS first, max(seq) AS last FROM decisions WHERE experiment = {quoted(key)}",
    )
    first, last = span["first"] or 0, span["last"] or 0
    stage = f"((seq - {first}) * {STAGES} // {last - first + 1})"
    whose = f"variant = {quoted(variant)}" if about.slots > 1 else "variant IS NOT NULL"
    mature = about.goal.mature_sql("decided_at", moment(connection))
    context, inside = "", ""
    if segment is not None and group is not None:
        context = f", {parsed(about)} AS c"
        inside = f" WHERE {segment_columns(about)[segment]} = {quoted(group)}"
    return (
        "CREATE TEMP TABLE cells AS WITH chosen AS (SELECT * FROM "
        f"(SELECT decision_id, hash(unit) AS u, {stage} AS version, "
        f"variant || '/' || {stage} AS v, variant = {quoted(variant)} AS own, slate[1] AS first, eligible, "
        f"probabilities[1] AS chances{context} FROM decisions WHERE experiment = {quoted(key)} AND reason = 'policy' "
        f"AND {whose} AND len(probabilities) > 0 AND hash(seq) % {nth} = 0 "
        f"AND {mature}){inside}), "
        "each AS (SELECT u, v, version, own, action, p, action = first AS drawn, "
        f"coalesce(e.objective, {number(about.goal.default)}) AS r FROM "
        "(SELECT decision_id, u, v, version, own, first, unnest(eligible) AS action, unnest(chances) AS p FROM chosen) o "
        f"LEFT JOIN (SELECT decision_id, objective FROM metrics.{identifier(key)}) e "
        "ON o.decision_id = e.decision_id WHERE p > 0) "
        "SELECT u, v, action, any_value(version) AS version, count(*) AS n, sum(1 / p) AS inverse, "
        "count(*) FILTER (drawn) AS draws, count(*) FILTER (drawn AND own) AS shown, "
        "coalesce(sum(r) FILTER (drawn AND own), 0.0) AS paid, count(*) FILTER (drawn AND r > 0) AS hits, "
        "coalesce(max(1 / p) FILTER (drawn), 0.0) AS largest, coalesce(sum(1 / p) FILTER (drawn), 0.0) AS s0, "
        "coalesce(sum(r / p) FILTER (drawn), 0.0) AS s1 FROM each GROUP BY u, v, action"
    )


def _weigh(versions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One action's versions, in order, with their weight h, plug-in mean m of earlier versions, and
    the estimate q.
    """
    s0 = s1 = top = total = 0.0
    for v in versions:
        v["m"] = s1 / s0 if s0 else 0.0
        v["h"] = sqrt(v["n"] / v["inverse"])
        s0, s1 = s0 + v["s0"], s1 + v["s1"]
        top += v["h"] * (v["m"] * v["n"] + v["s1"] - v["m"] * v["s0"])
        total += v["h"] * v["n"]
    return [{**v, "q": top / total, "total": total} for v in versions]


def _spread(connection: Connection, versions: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Per action the sum over units of (Σ h(Γ − q))²."""
    values = ", ".join(
        f"({quoted(v['action'])}, {quoted(v['v'])}, {v['h']!r}::DOUBLE, {v['m']!r}::DOUBLE, {v['q']!r}::DOUBLE)"
        for own in versions.values()
        for v in own
    )
    found = rows(
        connection,
        "SELECT action, sum(d * d) AS dd FROM (SELECT action, u, sum(h * (m * n + s1 - m * s0 - q * n)) AS d "
        f"FROM cells JOIN (VALUES {values}) AS w(action, v, h, m, q) USING (action, v) GROUP BY action, u) "
        "GROUP BY action",
    )
    return {row["action"]: row["dd"] for row in found}


def _table(versions: dict[str, list[dict[str, Any]]], spread: dict[str, float]) -> pd.DataFrame:
    everything = sum(v["shown"] for own in versions.values() for v in own)
    lines = []
    for action, own in versions.items():
        shown = int(sum(v["shown"] for v in own))
        line: dict[str, Any] = {
            "action": action,
            "shown": shown,
            "share": shown / everything if everything else 0.0,
        }
        line["plain"] = sum(v["paid"] for v in own) / shown if shown else None
        line["reason"] = _reason(own)
        if not line["reason"]:
            q, half = own[0]["q"], 1.96 * sqrt(spread[action]) / own[0]["total"]
            line |= {"value": q, "low": max(0.0, q - half), "high": min(1.0, q + half)}
        lines.append(line)
    found = pd.DataFrame(lines, columns=COLUMNS)
    numbers = {name: found[name].astype(float) for name in ("plain", "value", "low", "high")}
    return found.assign(**numbers).sort_values(
        ["shown", "action"], ascending=[False, True], ignore_index=True
    )


def _reason(own: list[dict[str, Any]]) -> str:
    if sum(v["draws"] for v in own) < DRAWS:
        return "too_few_draws"
    if sum(v["hits"] for v in own) < REWARDED:
        return "too_few_rewards"
    largest, whole = max(v["h"] * v["largest"] for v in own), sum(v["h"] * v["s0"] for v in own)
    return "one_weight_dominates" if largest > LARGEST * whole else ""


def groups(data: Path | str, key: str) -> dict[str, list[str]]:
    """The context features that make groups of viewers, and the groups seen, most common first."""
    with opened(data) as connection:
        about = experiment(connection, key)
        nth = every_nth(count(connection, key), 50_000)
        found: dict[str, list[str]] = {}
        for name, column in segment_columns(about).items():
            seen = rows(
                connection,
                f"SELECT {column} AS value, count(*) AS n FROM (SELECT {parsed(about)} AS c FROM decisions "
                f"WHERE experiment = {quoted(key)} AND hash(seq) % {nth} = 0) GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 30",
            )
            found[name] = [str(row["value"]) for row in seen]
    return found
