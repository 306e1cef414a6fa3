"""Whether the record can be trusted: propensities, choices, reasons, maturity, reward joins,
latency.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from msgspec.structs import replace

from topbill.ab import sequential_srm_of_sums, srm_of_sums
from topbill.domain.metric import event_inside_sql, window_over_sql
from topbill.domain.records import Floats
from topbill.domain.sql import quoted
from topbill.reporting.experiment.model import ChoiceRatio, Health, PropensityLine
from topbill.reporting.queries.database import AnalyticsDatabase, DayPart, DayParts
from topbill.stats.sequential import multiplier

SAMPLE = 500_000
"""Where there are more decisions than this, the propensity check looks at about so many of the
latest.
"""
PAIRS = 20_000_000
"""Where decisions times actions² are more than this, the check of choices looks at about so many of
the latest.
"""
ALPHA = 0.01
"""The chance that an honest log raises the alarm about any variant's choices, and that it raises
the one about any action, however often one looks.
"""
_UNREAD = 20
"""Most events without a metric that are named."""
_ENOUGH = 10.0
"""Draws (and non-draws) to be expected before a normal approximation is believed."""
_SKEW = 0.3
"""Most skewness of the mean weight for which its normal interval is believed."""


def health(
    database: AnalyticsDatabase,
    key: str,
    parts: DayParts,
    counts: str,
    windows: Mapping[str, float],
    objective_window: float,
) -> Health:
    """The health of an experiment's record.

    Args:
        database: the analytics database.
        key: the experiment's key.
        parts: what its decisions add up to.
        counts: the answer of `counts_part`.
        windows: seconds of the longest window of each event that has a metric.
        objective_window: seconds until a decision's objective is whole.
    """
    reasons = _reasons(database, counts)
    decisions = sum(reasons.values())
    if decisions == 0:
        return Health()
    own, mature = _maturity(database, counts)
    latency = _latency(database, parts.relation(_latencies_part(key)))
    events = _events(database, parts.relation(_events_part(key, windows)))
    of_rewarded = parts.relation(_rewarded_part(key, objective_window))
    rewarded = int(database.row(f"SELECT sum(n) AS n FROM {of_rewarded}")["n"])  # noqa: S608  (our own query)
    counted = _count_events(events, windows)
    lines, sampled = propensity_lines(database, key, counts, decisions)
    # What was decided at all: decisions outside the experiment are neither good nor bad.
    served = reasons.get("policy", 0) + reasons.get("fallback", 0)
    return Health(
        propensity=lines,
        propensity_ok=_all_ok(lines),
        propensity_sampled=sampled,
        choices=choice_ratios(database, key, counts, decisions, _most_actions(lines)),
        reasons=reasons,
        fallback_share=_share(reasons.get("fallback", 0), served),
        mature_share=_share(mature, own),
        reward_join_rate=_share(counted.joined, counted.read),
        joined=counted.join_rates,
        rewarded_share=_share(rewarded, mature),
        reward_events=counted.events,
        unread_events=counted.unread,
        latency_ms=latency,
    )


def _latencies_part(key: str) -> DayPart:
    """How many decisions (`n`) of policies took so long (`latency_us`)."""
    query = (
        "SELECT latency_us, count(*) AS n FROM decisions "  # noqa: S608  (quoted)
        f"WHERE experiment = {quoted(key)} AND reason IN ('policy', 'fallback') "
        "AND latency_us IS NOT NULL GROUP BY latency_us"
    )
    return DayPart("report_latencies", lambda _now: query)


def _events_part(key: str, windows: Mapping[str, float]) -> DayPart:
    """How many of each event came (`n`), and how many of them in their window (`joined`)."""
    inside = [f"({event_inside_sql(event, window)})" for event, window in windows.items()]
    query = (
        "SELECT event, count(*) AS n, "  # noqa: S608  (quoted)
        f"count(*) FILTER ({' OR '.join(inside) or 'false'}) AS joined "
        f"FROM rewards r WHERE experiment = {quoted(key)} GROUP BY event"
    )
    return DayPart("report_events", lambda _now: query)


def _rewarded_part(key: str, objective_window: float) -> DayPart:
    """How many mature decisions of variants got an event (`n`)."""

    def sql(now: int) -> str:
        return (
            "SELECT count(DISTINCT decision_id) AS n FROM rewards "  # noqa: S608  (quoted)
            f"WHERE experiment = {quoted(key)} AND variant IS NOT NULL "
            f"AND {window_over_sql('decided_at', objective_window, now)}"
        )

    return DayPart("report_rewarded", sql)


def _most_actions(lines: Sequence[PropensityLine]) -> int:
    """The most actions that a variant has."""
    by_variant = Counter([line.variant for line in lines])
    return max(by_variant.values(), default=1)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _all_ok(lines: Sequence[PropensityLine]) -> bool | None:
    verdicts = [line.ok for line in lines if line.ok is not None]
    return all(verdicts) if verdicts else None


def _reasons(database: AnalyticsDatabase, counts: str) -> dict[str, int]:
    rows = database.rows(
        f"SELECT reason, sum(n) AS n FROM {counts} GROUP BY reason ORDER BY n DESC, reason"  # noqa: S608  (our own query)
    )
    return {row["reason"]: int(row["n"]) for row in rows}


def _maturity(database: AnalyticsDatabase, counts: str) -> tuple[int, int]:
    """How many decisions were made in a variant, and how many of them are mature."""
    row = database.row(
        f"""SELECT coalesce(sum(n), 0) AS own, coalesce(sum(mature), 0) AS mature
        FROM {counts} WHERE variant IS NOT NULL"""  # noqa: S608  (our own query)
    )
    return int(row["own"]), int(row["mature"])


def _latency(database: AnalyticsDatabase, latencies: str) -> dict[str, float]:
    """Quantiles of the engine's time in ms; none where nothing was served."""
    rows = database.rows(
        f"SELECT latency_us, sum(n) AS n FROM {latencies} GROUP BY latency_us ORDER BY latency_us"  # noqa: S608  (our own query)
    )
    if not rows:
        return {}
    # The least time that so large a share of decisions did not exceed.
    upto = np.cumsum([int(row["n"]) for row in rows])
    latency_ms = {}
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
        place = int(np.searchsorted(upto, share * upto[-1] * (1.0 - 1e-15)))
        latency_ms[name] = rows[min(place, len(rows) - 1)]["latency_us"] / 1000.0
    return latency_ms


def _events(database: AnalyticsDatabase, events: str) -> list[dict[str, Any]]:
    """Of each event how many came (`n`), and how many of them in its window (`joined`)."""
    return database.rows(
        f"""SELECT event, sum(n)::BIGINT AS n, sum(joined)::BIGINT AS joined
        FROM {events} GROUP BY event ORDER BY event"""  # noqa: S608  (our own query)
    )


class _EventCounts(NamedTuple):
    """How many reward events came, how many some metric reads, how many of those in its window."""

    events: int
    read: int
    joined: int
    join_rates: dict[str, float]
    unread: dict[str, int]


def _count_events(rows: Sequence[Mapping[str, Any]], windows: Mapping[str, float]) -> _EventCounts:
    events = read = joined = 0
    join_rates: dict[str, float] = {}
    unread: dict[str, int] = {}
    # The most frequent first, so that of many misspelt names those are told that matter.
    for row in sorted(rows, key=lambda row: (-row["n"], row["event"])):
        events += row["n"]
        if row["event"] in windows:
            read += row["n"]
            joined += row["joined"]
            join_rates[row["event"]] = row["joined"] / row["n"]
        elif len(unread) < _UNREAD:
            unread[row["event"]] = row["n"]
    return _EventCounts(events, read, joined, join_rates, unread)


def propensity_lines(
    database: AnalyticsDatabase, key: str, counts: str, decisions: int
) -> tuple[list[PropensityLine], float]:
    """A line for each variant and action, and the share of decisions looked at.

    If p is what the draw used, then drawn − Σp and Σ(1(drawn)/p − 1) have mean 0 and variances
    Σp(1−p) and Σ(1/p − 1), both known exactly; intervals are Bonferroni's over both sums of all
    lines, and hold however often one looks (of more decisions than `SAMPLE`, each look is at its
    own latest ones).
    """
    share = min(1.0, SAMPLE / decisions)
    rows = database.rows(
        """SELECT variant, action, count(*) AS decisions, count(*) FILTER (drawn) AS drawn,
            sum(p) AS expected, sum(p * (1 - p)) AS variance,
            sum(CASE WHEN drawn THEN 1 / p ELSE 0 END) AS weights, sum(1 / p - 1) AS excess,
            sum(abs((1 - p) * (1 - 2 * p)) / (p * p)) AS cubes
        FROM (
            SELECT variant, action, p, action = first AS drawn
            FROM (
                SELECT variant, slate[1] AS first, unnest(eligible) AS action,
                    unnest(probabilities[1]) AS p
                FROM decisions
                WHERE experiment = $key AND len(probabilities) > 0 AND variant IS NOT NULL
                    AND seq > $after
            )
        )
        WHERE p > 0 GROUP BY variant, action ORDER BY variant, action""",
        key=key,
        after=_before_latest(database, counts, share),
    )
    return [propensity_line(row, tests=2 * len(rows)) for row in rows], share


def _before_latest(database: AnalyticsDatabase, counts: str, share: float) -> int:
    """The log position after which about that share of an experiment's decisions lies, the latest
    ones; -1 for all. By `seq`, whose range DuckDB knows for each part of a file: the rest is never
    read.
    """
    if share >= 1.0:
        return -1
    span = database.row(
        f"SELECT min(first_seq) AS first, max(last_seq) AS last FROM {counts}"  # noqa: S608  (our own query)
    )
    return int(span["last"] - round((span["last"] - span["first"]) * share))


def propensity_line(row: Mapping[str, Any], tests: int) -> PropensityLine:
    """The test of one action in one variant, from its sums; one of so many tests."""
    decisions, drawn, expected = row["decisions"], row["drawn"], row["expected"]
    mean_weight = row["weights"] / decisions
    line = PropensityLine(
        variant=row["variant"],
        action=row["action"],
        decisions=decisions,
        drawn=drawn,
        expected=expected,
        mean_weight=mean_weight,
    )
    # Every p was 0 or 1, but for rounding: nothing was drawn, and nothing may differ.
    if row["variance"] < 1e-9:
        return replace(line, ok=abs(drawn - expected) < 1e-6, reason="certain")
    # Both tests are of normal sums: too few draws, or too few others, are not near one.
    fewest = min(expected, decisions - expected, 2.0 * row["variance"])
    if fewest < _ENOUGH:
        return replace(line, ok=None, reason="too_few_draws")
    # A report is read every day, and what it says here takes the log from whoever believes it.
    z = float(multiplier(decisions, ALPHA, tests=tests))
    ok = abs(drawn - expected) <= z * float(np.sqrt(row["variance"]))
    # Third moments against the spread: a few rare draws would carry the mean of the weights.
    if row["cubes"] > _SKEW * row["excess"] ** 1.5:
        return replace(line, ok=ok, reason="skewed_weights")
    half = z * float(np.sqrt(max(row["excess"], 0.0))) / decisions
    # Weights are never below 0, and neither is their mean.
    low, high = max(0.0, mean_weight - half), mean_weight + half
    return replace(line, ok=ok and low <= 1.0 <= high, low=low, high=high)


def choice_ratios(
    database: AnalyticsDatabase, key: str, counts: str, decisions: int, actions: int
) -> list[ChoiceRatio]:
    """Sample-ratio mismatch inside a bandit: its choices against the sums of the probabilities that
    it logged; a line for each variant that left something to chance, at the first position.

    Sums and covariances Σ (diag p − p pᵀ) are exact, so actions may come and go and probabilities
    may move. Decisions with a certain choice carry no information and are left out. Looking often
    is allowed for while all decisions are looked at; of more than `PAIRS` allows, each look is at
    its own latest ones.

    Args:
        database: the analytics database.
        key: the experiment's key.
        counts: the answer of `counts_part`.
        decisions: how many it has.
        actions: the most that a variant has.
    """
    rows = database.rows(
        """SELECT variant, a, b, sum(p * q) AS together, sum(p) FILTER (a = b) AS expected,
            count(*) FILTER (a = b AND drawn AND p > 0) AS drawn
        FROM (
            SELECT variant, a, p, a = first AS drawn, unnest(eligible) AS b, unnest(ps) AS q
            FROM (
                SELECT variant, slate[1] AS first, eligible, ps, unnest(eligible) AS a,
                    unnest(ps) AS p
                FROM (
                    SELECT variant, slate, eligible, probabilities[1] AS ps FROM decisions
                    WHERE experiment = $key AND len(probabilities) > 0 AND variant IS NOT NULL
                        AND seq > $after
                )
                WHERE list_max(ps) < 1 OR coalesce(ps[list_position(eligible, slate[1])], 0) = 0
            )
        ) GROUP BY ALL ORDER BY ALL""",
        key=key,
        after=_before_latest(database, counts, min(1.0, PAIRS / max(1, decisions * actions**2))),
    )
    # A variant's matrix of actions comes as rows, because actions may come and go in the log.
    pairs: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        pairs.setdefault(str(row["variant"]), []).append(row)
    return [_choice_ratio(variant, own, ALPHA / len(pairs)) for variant, own in pairs.items()]


def _choice_ratio(variant: str, pairs: Sequence[Mapping[str, Any]], alpha: float) -> ChoiceRatio:
    """The test of one variant, from its rows for each pair of actions (a, b)."""
    # The pairs of an action with itself hold its draws and Σp; all pairs hold Σ p pᵀ.
    own = [row for row in pairs if row["a"] == row["b"]]
    table = pd.DataFrame(own)
    actions = table["a"].tolist()
    expected = np.asarray(table["expected"].astype(float).fillna(0.0), dtype=np.float64)
    drawn = table["drawn"].to_numpy(dtype=np.float64)
    covariance = np.diag(expected)
    for row in pairs:
        covariance[actions.index(row["a"]), actions.index(row["b"])] -= row["together"]
    decisions = round(float(expected.sum()))
    # Draws of probability 0 were not counted above, so they are what is missing to all decisions.
    impossible = decisions - int(drawn.sum())
    # A draw that could not happen proves by itself that the log lies.
    p_value = p_sequential = 0.0
    if not impossible:
        pool = _pooling(expected)
        pooled_covariance = pool @ covariance @ pool.T
        p_value = srm_of_sums(pool @ drawn, pool @ expected, pooled_covariance)
        p_sequential = sequential_srm_of_sums(drawn, expected, covariance)
    drawn_by_action, expected_by_action = {}, {}
    for row in own:
        # An action that never had a probability is no degree of freedom, so it is not told.
        if row["expected"]:
            drawn_by_action[row["a"]] = row["drawn"]
            expected_by_action[row["a"]] = row["expected"]
    return ChoiceRatio(
        variant=variant,
        decisions=decisions,
        drawn=drawn_by_action,
        expected=expected_by_action,
        p_value=p_value,
        p_sequential=p_sequential,
        impossible=impossible,
        alarm=p_sequential <= alpha,
    )


def _pooling(expected: Floats) -> Floats:
    """(groups × actions) 0/1: each action with enough expected draws alone, the others together if
    they have enough. The chi-square test believes in no group of fewer.
    """
    alone = np.eye(expected.size)[expected >= _ENOUGH]
    rest = (expected < _ENOUGH).astype(np.float64)
    return np.vstack([alone, rest]) if rest @ expected >= _ENOUGH else alone
