"""Sample-ratio mismatch inside a bandit: its choices against the sums of the probabilities that it
logged.
"""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted`)

from __future__ import annotations

from itertools import groupby

import numpy as np

from topbill.ab import sequential_srm_of_sums, srm_of_sums
from topbill.domain.records import Floats
from topbill.lake import Connection, quoted
from topbill.reporting.experiment.model import ChoiceRatio

ALPHA = 0.01
"""The chance that an honest log raises the alarm of any variant."""
PAIRS = 20_000_000
"""Where decisions times actions² are more than this, about so many of the latest are looked at."""
_ENOUGH = 10.0
"""Actions with fewer draws to be expected than this are one action to the chi-square test."""


def latest(connection: Connection, key: str, share: float) -> str:
    """A condition that keeps about that share of an experiment's decisions, the latest ones.

    By `seq`, whose range DuckDB knows for each part of a file: the rest is never read."""
    if share >= 1.0:
        return ""
    bounds = f"SELECT min(seq), max(seq) FROM decisions WHERE experiment = {quoted(key)}"
    first, last = connection.sql(bounds).fetchall()[0]
    return f" AND seq > {last - round((last - first) * share)}"


def choices(connection: Connection, key: str, decisions: int, actions: int) -> list[ChoiceRatio]:
    """A line for each variant that left something to chance, at the first position; one pass over
    the log.

    `decisions` are the experiment's, `actions` the most that a variant has.

    Sums and covariances Σ (diag p − p pᵀ) are exact, so actions may come and go and probabilities
    may move. Decisions with a certain choice carry no information and are left out. Looking often
    is allowed for while all decisions are looked at; of more than `PAIRS` allows, each look is at
    its own latest ones.
    """
    where = f"FROM decisions WHERE experiment = {quoted(key)} AND len(probabilities) > 0 AND variant IS NOT NULL"
    recent = latest(connection, key, min(1.0, PAIRS / max(1, decisions * actions**2)))
    pairs = connection.sql(
        "SELECT variant, a, b, sum(p * q), sum(p) FILTER (a = b), count(*) FILTER (a = b AND drawn AND p > 0) FROM "
        "(SELECT variant, a, p, a = first AS drawn, unnest(eligible) AS b, unnest(ps) AS q FROM "
        "(SELECT variant, slate[1] AS first, eligible, ps, unnest(eligible) AS a, unnest(ps) AS p FROM "
        f"(SELECT variant, slate, eligible, probabilities[1] AS ps {where}{recent}) "
        "WHERE list_max(ps) < 1 OR coalesce(ps[list_position(eligible, slate[1])], 0) = 0)) "
        "GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    by_variant = [
        (variant, list(rows)) for variant, rows in groupby(pairs, key=lambda row: str(row[0]))
    ]
    return [_ratio(variant, rows, ALPHA / len(by_variant)) for variant, rows in by_variant]


def _ratio(
    variant: str, pairs: list[tuple[str, str, str, float, float | None, int]], alpha: float
) -> ChoiceRatio:
    expected = {a: float(p or 0.0) for _, a, b, _, p, _ in pairs if a == b}
    drawn = {a: int(n) for _, a, b, _, _, n in pairs if a == b}
    place = {a: i for i, a in enumerate(expected)}
    observed, sums = (
        np.array(list(drawn.values()), dtype=np.float64),
        np.array(list(expected.values())),
    )
    covariance = np.diag(sums)
    for _, a, b, together, _, _ in pairs:
        covariance[place[a], place[b]] -= together
    decisions = round(float(sums.sum()))
    impossible = decisions - sum(drawn.values())
    p_sequential = 0.0 if impossible else sequential_srm_of_sums(observed, sums, covariance)
    common = _pooled(sums)
    return ChoiceRatio(
        variant=variant,
        decisions=decisions,
        drawn={a: n for a, n in drawn.items() if expected[a] > 0.0},
        expected={a: e for a, e in expected.items() if e > 0.0},
        p_value=0.0
        if impossible
        else srm_of_sums(common @ observed, common @ sums, common @ covariance @ common.T),
        p_sequential=p_sequential,
        impossible=impossible,
        alarm=p_sequential <= alpha,
    )


def _pooled(expected: Floats) -> Floats:
    """(groups × actions) 0/1: each action with enough expected draws alone, the others together if
    they have enough.
    """
    alone = np.eye(expected.size)[expected >= _ENOUGH]
    rest = (expected < _ENOUGH).astype(np.float64)
    return np.vstack([alone, rest]) if rest @ expected >= _ENOUGH else alone
