"""What each action is worth when it stands first, with intervals that hold although a learner chose
what was shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from topbill.domain.objective import OBJECTIVE_RANGE
from topbill.domain.reasons import reasons
from topbill.domain.rewards import is_example_sql
from topbill.domain.sql import identifier
from topbill.reporting.experiment.exclusion import open_counted
from topbill.reporting.experiment.segments import context_struct, groupings
from topbill.reporting.queries.action_versions import LABELS, make_action_labels
from topbill.reporting.queries.database import (
    IN_SAMPLE,
    AnalyticsDatabase,
    published_experiment,
    published_us,
    sampled_one_in,
)

SAMPLE = 100_000
DRAWS, REWARDED, LARGEST = 10, 5, 0.2
"""No interval is given for an action with fewer draws than the first, fewer rewarded ones than the
second, or where a single draw carries more than this share of all weight."""
STAGES = 50
"""The log is cut into so many parts of like size; within one, policy versions are taken as one."""
REASONS = reasons("", "too_few_draws", "too_few_rewards", "one_weight_dominates")
COLUMNS = ["action", "shown", "share", "plain", "draws", "value", "low", "high", "reason"]


def action_values(
    data: Path | str, key: str, variant: str, segment: str | None = None, group: str | None = None
) -> pd.DataFrame:
    """Per action: how often `variant` showed it first, and what a decision earns if it always
    stands first.

    With one slot the value does not depend on who chose, so that all variants' decisions speak for
    it; a slate's rest does, and only the variant's own count.

    The scores Γ = m + 1(drawn)/p·(r − m) of each action, m its estimate from earlier stages of the
    log, are averaged with weights h = mean(1/p)^(−½) of their stage, which steadies their variance,
    so that the average is normal again although p learned from the rewards (Hadad et al. 2021, eq.
    16; Zhan et al. 2021: not contextual).

    Decisions of which nobody looked at anything (`click_model: examined`) speak for no action.

    An id whose payload or features changed is several actions: `chase (until 2026-03-02 12:30)` is
    what it was before.

    Args:
        data: the data folder.
        key: the experiment's key.
        variant: whose choices.
        segment: a context feature; with `group`, only its viewers count.
        group: one of the feature's groups.

    Returns:
        Columns action; shown and share (0 to 1), of all the variant's decisions, as
        `exposure.positions` has them; over mature decisions plain (mean objective of the variant's
        own where it stood first), draws (of all variants that speak for the value), value with low
        and high (95%, by unit) and reason (of `REASONS`). No line where no decision is mature.
    """
    with open_counted(data, key) as database:
        _make_cells(database, key, variant, segment, group)
        shown = _shown_first(database, key, variant, segment, group)
        rows = database.rows(
            """SELECT action, v AS stage, sum(n)::DOUBLE AS decisions, sum(draws)::DOUBLE AS draws,
                sum(inverse)::DOUBLE AS inverse, sum(shown)::DOUBLE AS first_places,
                sum(paid)::DOUBLE AS paid, sum(hits)::DOUBLE AS rewarded, sum(s0)::DOUBLE AS s0,
                sum(s1)::DOUBLE AS s1, max(largest) AS largest
            FROM cells GROUP BY action, v ORDER BY action, any_value(version), v"""
        )
        if not rows:
            return pd.DataFrame(columns=COLUMNS)
        # Stages come in their order, which the weighing below depends on.
        by_action: dict[str, list[_Stage]] = {}
        for row in rows:
            by_action.setdefault(row.pop("action"), []).append(_Stage(**row))
        scores = {action: _score(stages) for action, stages in by_action.items()}
        squares = _squared_deviations(database, by_action, scores)
    return _table(shown, by_action, scores, squares)


def _shown_first(
    database: AnalyticsDatabase, key: str, variant: str, segment: str | None, group: str | None
) -> dict[str, int]:
    """How often each action stood first in the variant's decisions, mature or not, whoever decided.

    The one denominator of "share of decisions" on every page: `exposure.positions` has the same.
    """
    parameters: dict[str, object] = {}
    source, condition = "slate[1] AS action", ""
    if segment is not None and group is not None:
        experiment = published_experiment(database, key)
        grouping = groupings(experiment)[segment]
        source += ", from_json(context, $shape) AS c"
        condition = f"WHERE {grouping.expression} = $group"
        parameters = {
            **grouping.parameters,
            "shape": context_struct(experiment),
            "group": group,
        }
    rows = database.rows(
        f"""SELECT action, count(*) AS shown FROM (
            SELECT {source} FROM decisions
            WHERE experiment = $key AND variant = $variant AND len(slate) > 0
                AND {IN_SAMPLE}
        ) {condition} GROUP BY action""",  # noqa: S608  (an expression of `groupings`)
        **parameters,
        key=key,
        variant=variant,
        one_in=sampled_one_in(database, key),
    )
    return {row["action"]: row["shown"] for row in rows}


@dataclass
class _Stage:
    """Sums of one action over one stage of a variant's log; then its weight and plug-in mean."""

    stage: str
    decisions: float
    draws: float
    inverse: float
    """Σ 1/p over decisions."""
    first_places: float
    """How often the variant itself drew it."""
    paid: float
    """What those earned."""
    rewarded: float
    s0: float
    """Σ 1/p over draws."""
    s1: float
    """Σ r/p over draws."""
    largest: float
    """The largest 1/p of a draw."""
    weight: float = 0.0
    """h in the paper."""
    prior_mean: float = 0.0
    """m in the paper: the estimate from earlier stages."""


@dataclass(frozen=True)
class _Score:
    """An action's estimate, and the weight of all its decisions."""

    value: float
    total: float


_CELLS = """
    CREATE TEMP TABLE cells AS
    WITH chosen AS (
        SELECT * FROM (
            SELECT decision_id, revision, hash(unit) AS u,
                (seq - $first) * $stages // $length AS version,
                variant = $variant AS own, slate[1] AS first, eligible,
                variant || '/' || ((seq - $first) * $stages // $length) AS v,
                probabilities[1] AS chances {context}
            FROM decisions
            WHERE experiment = $key AND reason = 'policy' AND {whose}
                AND len(probabilities) > 0 AND {sampled}
                AND {mature} AND {looked_at}
        ) {inside}
    ), each AS (
        SELECT u, v, version, own, coalesce(l.label, o.action) AS action, p,
            o.action = first AS drawn, coalesce(e.objective, $default) AS r
        FROM (
            SELECT decision_id, revision, u, v, version, own, first, unnest(eligible) AS action,
                unnest(chances) AS p
            FROM chosen
        ) o LEFT JOIN (SELECT decision_id, objective FROM metrics.{experiment}) e
            ON o.decision_id = e.decision_id
            LEFT JOIN {labels} l ON o.revision = l.revision AND o.action = l.action
        WHERE p > 0
    )
    SELECT u, v, action, any_value(version) AS version, count(*) AS n, sum(1 / p) AS inverse,
        count(*) FILTER (drawn) AS draws,
        count(*) FILTER (drawn AND own) AS shown,
        coalesce(sum(r) FILTER (drawn AND own), 0.0) AS paid,
        count(*) FILTER (drawn AND r > 0) AS hits,
        coalesce(max(1 / p) FILTER (drawn), 0.0) AS largest,
        coalesce(sum(1 / p) FILTER (drawn), 0.0) AS s0,
        coalesce(sum(r / p) FILTER (drawn), 0.0) AS s1
    FROM each GROUP BY u, v, action"""


def _make_cells(
    database: AnalyticsDatabase, key: str, variant: str, segment: str | None, group: str | None
) -> None:
    """Make table `cells`: sums per unit u, stage v of a variant's log, and action that had a chance
    p.
    """
    experiment = published_experiment(database, key)
    # An id that stands for something else now is another action.
    make_action_labels(database, key)
    span = database.row(
        """SELECT coalesce(min(seq), 0) AS first, coalesce(max(seq), 0) AS last FROM decisions
        WHERE experiment = $key""",
        key=key,
    )
    # With one slot, what an action earns does not depend on what stands below it: every variant's
    # draws speak for it.
    whose = "variant = $variant" if experiment.slots > 1 else "variant IS NOT NULL"
    parameters: dict[str, object] = {}
    context, inside = "", ""
    if segment is not None and group is not None:
        grouping = groupings(experiment)[segment]
        context = ", from_json(context, $shape) AS c"
        inside = f"WHERE {grouping.expression} = $group"
        parameters = {
            **grouping.parameters,
            "shape": context_struct(experiment),
            "group": group,
        }
    database.execute(
        _CELLS.format(
            context=context,
            inside=inside,
            mature=experiment.goal.mature_sql("decided_at", published_us(database)),
            looked_at=is_example_sql(experiment),
            whose=whose,
            experiment=identifier(key),
            labels=LABELS,
            sampled=IN_SAMPLE,
        ),
        **parameters,
        key=key,
        variant=variant,
        first=span["first"],
        length=span["last"] - span["first"] + 1,
        stages=STAGES,
        one_in=sampled_one_in(database, key, SAMPLE),
        default=experiment.goal.default,
    )


def _score(stages: list[_Stage]) -> _Score:
    """The estimate of one action, from its stages in order, each of which gets its weight and
    plug-in mean.
    """
    # Named as in the paper; s0 and s1 are Σ 1/p and Σ r/p over the draws of earlier stages.
    s0 = s1 = numerator = total = 0.0
    for stage in stages:
        # From earlier stages alone: a plug-in mean that knew its own draws would bias the average.
        stage.prior_mean = s1 / s0 if s0 else 0.0
        stage.weight = sqrt(stage.decisions / stage.inverse)
        s0, s1 = s0 + stage.s0, s1 + stage.s1
        m = stage.prior_mean
        numerator += stage.weight * (m * stage.decisions + stage.s1 - m * stage.s0)
        total += stage.weight * stage.decisions
    return _Score(numerator / total, total)


def _squared_deviations(
    database: AnalyticsDatabase, by_action: dict[str, list[_Stage]], scores: dict[str, _Score]
) -> dict[str, float]:
    """Per action the sum over units of (Σ h(Γ − q))², by units because their decisions depend on
    each other.
    """
    weights: list[dict[str, object]] = []
    for action, stages in by_action.items():
        for stage in stages:
            line = {"action": action, "v": stage.stage, "q": scores[action].value}
            weights.append({**line, "h": stage.weight, "m": stage.prior_mean})
    database.connection.register("weights", pa.Table.from_pylist(weights, _WEIGHTS))
    rows = database.rows(
        """SELECT action, sum(d * d) AS squares
        FROM (
            SELECT cells.action AS action, u, sum(h * (m * n + s1 - m * s0 - q * n)) AS d
            FROM cells JOIN weights ON weights.action = cells.action AND weights.v = cells.v
            GROUP BY cells.action, u
        ) GROUP BY action"""
    )
    return {row["action"]: row["squares"] for row in rows}


_WEIGHTS = pa.schema(
    [("action", pa.string()), ("v", pa.string())] + [(name, pa.float64()) for name in "qhm"]
)


def _table(
    shown: dict[str, int],
    by_action: dict[str, list[_Stage]],
    scores: dict[str, _Score],
    squares: dict[str, float],
) -> pd.DataFrame:
    lines = []
    # What only stood first in younger decisions, or as a fallback, has a share but no value.
    for action in dict.fromkeys([*by_action, *shown]):
        stages = by_action.get(action, [])
        times = paid = draws = 0.0
        for stage in stages:
            times += stage.first_places
            paid += stage.paid
            draws += stage.draws
        line: dict[str, Any] = {
            "action": action,
            "shown": shown.get(action, 0),
            "plain": paid / times if times else None,
            "draws": int(draws),
            "reason": _reason(stages),
        }
        # A value lies within the objective's range; so do its bounds.
        if not line["reason"]:
            score = scores[action]
            half = 1.96 * sqrt(squares[action]) / score.total
            line["value"] = score.value
            least, most = OBJECTIVE_RANGE
            line["low"] = max(least, score.value - half)
            line["high"] = min(most, score.value + half)
        lines.append(line)
    table = pd.DataFrame(lines, columns=COLUMNS)
    # A column without any number would otherwise have no numeric type.
    table = table.astype(dict.fromkeys(("plain", "value", "low", "high"), float))
    # Of 1 at least, so that shares of nothing are 0.
    table["share"] = table["shown"] / max(1, int(table["shown"].sum()))
    return table.sort_values(["shown", "action"], ascending=[False, True], ignore_index=True)


def _reason(stages: list[_Stage]) -> str:
    """Why an action has no interval; empty where it has one."""
    draws = rewarded = largest = whole = 0.0
    for stage in stages:
        draws += stage.draws
        rewarded += stage.rewarded
        largest = max(largest, stage.weight * stage.largest)
        whole += stage.weight * stage.s0
    if draws < DRAWS:
        return "too_few_draws"
    if rewarded < REWARDED:
        return "too_few_rewards"
    return "one_weight_dominates" if largest > LARGEST * whole else ""


def groups(data: Path | str, key: str) -> dict[str, list[str]]:
    """The context features that make groups of viewers, and the groups seen, most common first."""
    with open_counted(data, key) as database:
        experiment = published_experiment(database, key)
        one_in = sampled_one_in(database, key, 50_000)
        names: dict[str, list[str]] = {}
        for feature, grouping in groupings(experiment).items():
            rows = database.rows(
                f"""SELECT {grouping.expression} AS value, count(*) AS n
                FROM (
                    SELECT from_json(context, $shape) AS c FROM decisions
                    WHERE experiment = $key AND {IN_SAMPLE}
                ) GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 30""",  # noqa: S608  (an expression of `groupings`)
                **grouping.parameters,
                key=key,
                shape=context_struct(experiment),
                one_in=one_in,
            )
            names[feature] = [str(row["value"]) for row in rows]
    return names
