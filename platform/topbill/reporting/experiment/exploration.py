"""How much of the draws each variant's `min_probability` left to its policy."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from topbill.reporting.experiment.analysis_rows import ExperimentTables
from topbill.reporting.queries.database import AnalyticsDatabase
from topbill.spec.exploration import little_is_left, policy_shares

_SAMPLE = 1_000
"""Decisions that tell how many candidates there usually are, where requests bring them: enough for
a median, where all of a long record would be much to read.
"""


class PolicyShares(NamedTuple):
    """Of one variant: the policy's share of the draws at each position, and a sentence where that
    is little.
    """

    shares: tuple[float, ...] = ()
    sentence: str | None = None


def policy_shares_by_variant(
    database: AnalyticsDatabase, tables: ExperimentTables
) -> dict[str, PolicyShares]:
    """By variant, for those whose file asks for a least probability and that have decided."""
    result = {}
    actions = msgspec.json.decode(tables.experiment["spec"]).get("actions") or []
    for row in tables.variants:
        name, least = row["variant"], row["min_probability"]
        if not least:
            continue
        size = database.row(
            """SELECT median(len(eligible)) AS candidates, median(len(slate)) AS slots
            FROM (SELECT eligible, slate FROM decisions
                WHERE experiment = $key AND variant = $variant LIMIT $most)""",
            key=tables.key,
            variant=name,
            most=_SAMPLE,
        )
        if size["slots"] is None:
            continue
        candidates = len(actions) or round(size["candidates"])
        slots = round(size["slots"])
        result[name] = PolicyShares(
            policy_shares(least, candidates, slots),
            little_is_left(name, least, candidates, slots),
        )
    return result
