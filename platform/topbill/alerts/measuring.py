"""The sums of one hour of an experiment, from the record.

Each look reads the rows that came since the one before, by `seq`; of more than `SAMPLE` decisions
those of a share of the units. So its work is bounded, however long the record is. Only who came for
the first time is looked up further back, among the ids of these units.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec

from topbill.alerts.rules.drifting import GROUPS, OTHERS
from topbill.alerts.sums import HOUR, ActionSums, HourSums, VariantSums
from topbill.domain.errors import SpecError
from topbill.reporting.experiment.segments import context_struct, groupings
from topbill.reporting.queries.action_versions import revisions_of
from topbill.reporting.queries.database import AnalyticsDatabase
from topbill.spec import Experiment, from_audit

SAMPLE = 200_000
"""Decisions of an hour above which a share of the units is looked at."""
_EVENTS = 50
"""Most names of events that are told apart, the most frequent ones."""
_ACTIONS = 300
"""Most actions of a variant that are tested, those with the most probability."""
_OWN = "hour_decisions"
_UNIT = "coalesce(unit, decision_id)"


def measure(
    database: AnalyticsDatabase, experiment: Experiment, at: int, seqs: Mapping[str, int]
) -> tuple[HourSums, dict[str, int]]:
    """The sums of the hour that begins at `at`, and up to which `seq` of `decisions` and `rewards`
    the record was read. `seqs` is that of the hour before; nothing for the first.

    The hour has to be published whole. Raises LogError where the record cannot be read.
    """
    key = experiment.key
    start, end = _moment(at), _moment(at + HOUR)
    size = database.row(
        """SELECT count(*) AS n, max(seq) AS last FROM decisions
        WHERE experiment = $key AND seq > $after AND decided_at >= $start AND decided_at < $end""",
        key=key,
        after=seqs.get("decisions", -1),
        start=start,
        end=end,
    )
    one_in = max(1, -(-size["n"] // SAMPLE))
    after = seqs.get("decisions", -1)
    database.execute(
        f"""CREATE OR REPLACE TEMP TABLE {_OWN} AS
        SELECT seq, {_UNIT} AS unit, variant, revision, reason, eligible, slate[1] AS first,
            probabilities[1] AS ps, context
        FROM decisions
        WHERE experiment = $key AND seq > $after AND decided_at >= $start AND decided_at < $end
            AND variant IS NOT NULL AND reason IN ('policy', 'fallback')
            AND hash({_UNIT}) % $one_in = 0""",  # noqa: S608  (our own names)
        key=key,
        after=after,
        start=start,
        end=end,
        one_in=one_in,
    )
    variants = _variants(database)
    _add_actions(database, variants)
    _add_units(database, experiment, variants)
    fresh, rewards_seq = _rewards(database, key, at, seqs.get("rewards", -1), one_in)
    revisions = database.rows(f"SELECT DISTINCT revision FROM {_OWN} ORDER BY revision")  # noqa: S608  (our own name)
    hour = HourSums(
        at=at,
        variants=variants,
        fresh=fresh,
        features=_features(database, experiment),
        revisions=[row["revision"] for row in revisions],
    )
    last = {"decisions": size["last"], "rewards": rewards_seq}
    return hour, {**seqs, **{name: seq for name, seq in last.items() if seq is not None}}


def _moment(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1e6, UTC).replace(tzinfo=None)


def _variants(database: AnalyticsDatabase) -> dict[str, VariantSums]:
    """Decisions and entropies. Where the probabilities are not on record, as of a page's layers,
    nothing is known of how open a draw was."""
    rows = database.rows(
        f"""SELECT variant, count(*) AS decisions,
            count(*) FILTER (reason = 'fallback') AS fallbacks,
            count(*) FILTER (reason = 'policy' AND len(eligible) = 1) AS single,
            coalesce(sum(entropy), 0) AS entropy,
            coalesce(sum(entropy * entropy), 0) AS entropy_squares
        FROM (
            SELECT variant, reason, eligible,
                CASE WHEN reason = 'policy' AND len(ps) > 1 THEN
                    list_sum([CASE WHEN p > 0 THEN -p * ln(p) ELSE 0 END FOR p IN ps]) / ln(len(ps))
                ELSE 0 END AS entropy
            FROM {_OWN}
        ) GROUP BY variant ORDER BY variant"""  # noqa: S608  (our own name)
    )
    return {row.pop("variant"): VariantSums(**row) for row in rows}


def _add_actions(database: AnalyticsDatabase, variants: Mapping[str, VariantSums]) -> None:
    rows = database.rows(
        f"""SELECT variant, action, count(*) FILTER (drawn) AS drawn, sum(p) AS expected,
            sum(p * (1 - p)) AS variance, count(*) FILTER (drawn AND p <= 0) AS impossible
        FROM (
            SELECT variant, action, p, action = first AS drawn FROM (
                SELECT variant, first, unnest(eligible) AS action, unnest(ps) AS p
                FROM {_OWN} WHERE reason = 'policy' AND len(ps) > 0
            )
            UNION ALL
            SELECT variant, first, 0.0, true FROM {_OWN}
            WHERE reason = 'policy' AND len(ps) > 0 AND NOT list_contains(eligible, first)
        )
        GROUP BY variant, action
        QUALIFY row_number() OVER (PARTITION BY variant ORDER BY impossible DESC, expected DESC)
            <= $most""",  # noqa: S608  (our own name)
        most=_ACTIONS,
    )
    for row in rows:
        variant, action = row.pop("variant"), row.pop("action")
        variants[variant].actions[action] = ActionSums(**row)


def _add_units(
    database: AnalyticsDatabase, experiment: Experiment, variants: Mapping[str, VariantSums]
) -> None:
    """Units whose first decision of all is of this hour, by the shares that were in force then."""
    rows = database.rows(
        f"""WITH firsts AS (
            SELECT unit, arg_min(variant, seq) AS variant, arg_min(revision, seq) AS revision
            FROM {_OWN} GROUP BY unit
        )
        SELECT variant, revision, count(*) AS units FROM firsts
        WHERE unit NOT IN (
            SELECT {_UNIT} FROM decisions
            WHERE experiment = $key AND seq < (SELECT min(seq) FROM {_OWN}) AND variant IS NOT NULL
                AND {_UNIT} IN (SELECT unit FROM firsts)
        )
        GROUP BY variant, revision ORDER BY variant, revision""",  # noqa: S608  (our own names)
        key=experiment.key,
    )
    shares = _shares(database, experiment)
    for row in rows:
        text = shares.get(row["revision"])
        # Of a revision that the audit does not have nobody knows what was meant.
        if text is not None:
            units = variants[row["variant"]].units
            units[text] = units.get(text, 0) + row["units"]


def _shares(database: AnalyticsDatabase, experiment: Experiment) -> dict[str, str]:
    """The shares of each revision, as JSON."""
    revisions = {experiment.fingerprint: experiment}
    for line in revisions_of(database, experiment.key):
        # What this version cannot read has no shares to be compared with.
        with suppress(SpecError):
            revisions[line["revision"]] = from_audit(line["spec"], experiment.key)
    texts = {}
    for revision, made in revisions.items():
        shares = {variant.name: variant.share for variant in made.variants}
        texts[revision] = msgspec.json.encode(shares, order="sorted").decode()
    return texts


def _rewards(
    database: AnalyticsDatabase, key: str, at: int, after: int, one_in: int
) -> tuple[dict[str, int], int | None]:
    """Fresh events by name, and the last `seq` read."""
    rows = database.rows(
        """SELECT event, max(seq) AS last, count(*) FILTER (
            received_at >= $start AND decided_at >= $fresh AND variant IS NOT NULL
            AND hash(coalesce(unit, decision_id)) % $one_in = 0) AS n
        FROM rewards WHERE experiment = $key AND seq > $after AND received_at < $end
        GROUP BY event ORDER BY n DESC, event""",
        key=key,
        after=after,
        start=_moment(at),
        end=_moment(at + HOUR),
        fresh=_moment(at - HOUR),
        one_in=one_in,
    )
    fresh = {row["event"]: row["n"] for row in rows[:_EVENTS] if row["n"]}
    return fresh, max((row["last"] for row in rows), default=None)


def _features(database: AnalyticsDatabase, experiment: Experiment) -> dict[str, dict[str, int]]:
    """Units by group of each context feature that makes groups; the largest groups."""
    groups = groupings(experiment)
    if not groups:
        return {}
    parameters: dict[str, Any] = {}
    for grouping in groups.values():
        parameters.update(grouping.parameters)
    columns = ", ".join(f"{g.expression} AS g{i}" for i, g in enumerate(groups.values()))
    names = ", ".join(f"g{i}" for i in range(len(groups)))
    rows = database.rows(
        f"""SELECT feature, value, count(DISTINCT unit) AS units FROM (
            UNPIVOT (
                SELECT unit, {columns} FROM (
                    SELECT unit, from_json(context, $shape) AS c FROM {_OWN}
                )
            ) ON {names} INTO NAME feature VALUE value
        ) GROUP BY feature, value ORDER BY units DESC, value""",  # noqa: S608  (expressions of `groupings`)
        shape=context_struct(experiment),
        **parameters,
    )
    features: dict[str, dict[str, int]] = {name: {} for name in groups}
    for row in rows:
        own = features[list(groups)[int(row["feature"].removeprefix("g"))]]
        value = row["value"] if len(own) < 3 * GROUPS else OTHERS
        own[value] = own.get(value, 0) + row["units"]
    return features
