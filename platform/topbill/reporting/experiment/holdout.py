"""What all of an experiment is worth: its variants, together and each, against the units that it
holds out, which get the control's order.

Two things would make this comparison wrong, and are left out here, by reason: units that came
before they could take part, as where traffic was turned up (nobody was held out of *them* then),
and units that were in the holdout and in a variant at different times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from topbill import ab
from topbill.ab import Method
from topbill.domain.exclusion import Exclusion
from topbill.domain.sql import identifier, quoted
from topbill.reporting.experiment.analysis_rows import AnalysisRows, ExperimentTables
from topbill.reporting.experiment.covariates import UNIT
from topbill.reporting.experiment.day_sums import MOMENT, VARIANT
from topbill.reporting.experiment.exclusion import Counted, exclusion_of
from topbill.reporting.experiment.model import HoldoutReadout
from topbill.reporting.experiment.phases import EVERYTHING, PHASE, Excerpt
from topbill.reporting.experiment.wording import IN_VARIANTS
from topbill.reporting.queries.database import AnalyticsDatabase

HELD_OUT = "(holdout)"
"""What the held-out side is called; no variant of a file has such a name."""
_UNITS, _ROWS = "holdout_units", "report_rows"
_RUNNING = "running"


class _Assignment(NamedTuple):
    """How a revision set units aside: the share held out, and the share of the others that it took
    in.
    """

    holdout: float
    traffic: float

    @property
    def share(self) -> float:
        """Of the units that it took in or held out, the share held out."""
        return self.holdout / (self.holdout + (1.0 - self.holdout) * self.traffic)


def holdout_readout(
    database: AnalyticsDatabase,
    tables: ExperimentTables,
    method: Method = "sequential",
    looks: Sequence[float] = (1.0,),
    *,
    excerpt: Excerpt = EVERYTHING,
    first_exposure: bool = False,
) -> HoldoutReadout | None:
    """The variants against the holdout, by the same method as against each other.

    Args:
        database: the analytics database; its views `decisions` and `rewards` are those of this
            readout from now on.
        tables: the experiment.
        method, looks: how intervals are made (see `ab.compare`).
        excerpt: the part of the record to read; a unit is then on the side that it was on first in
            the part.
        first_exposure: as for `ab.analyse`, of variants beside the holdout.

    Returns:
        None where nothing was held out in that time. Weak data never raises: numbers are missing
        then, and say why.
    """
    condition = excerpt.condition(database, tables.key)
    assignments = _of_part(database, tables, condition)
    if not any(a.holdout > 0.0 for a in assignments.values()):
        return None
    exclusion = exclusion_of(tables.experiment["spec"])
    excluded, counts = _make_units(database, tables.key, assignments, exclusion, condition)
    if not counts.get(HELD_OUT):
        return None
    counted = _compared(database, tables.key, assignments)
    # Covariates look back beyond the part that is read, so that they are made of all.
    counted.make_views(database)
    decided = AnalysisRows(database, tables, excerpt=excerpt, counted=counted)
    share = _last(assignments).share
    rows = f"""SELECT * EXCLUDE ({identifier(VARIANT)}), {{label}} AS {identifier(VARIANT)}
        FROM {_ROWS}"""  # noqa: S608  (names of columns, through `identifier`)
    together = f"""CASE WHEN {identifier(VARIANT)} = {quoted(HELD_OUT)} THEN {quoted(HELD_OUT)}
        ELSE {quoted(IN_VARIANTS)} END"""
    own = {str(v["variant"]): v["share"] * (1.0 - share) for v in tables.variants}
    timeline = decided.timeline
    by_phase = _beside_holdout(timeline.phases, share) if timeline.is_several else ()
    results = []
    for label, shares, phases in (
        # All variants together have the same share throughout.
        (together, {IN_VARIANTS: 1.0 - share}, ()),
        (identifier(VARIANT), own, by_phase),
    ):
        results.append(
            ab.analyse(
                database.connection.sql(rows.format(label=label)),
                _design(tables, {HELD_OUT: share, **shares}, phases),
                phase=PHASE if phases else None,
                first_exposure=first_exposure,
                unit=UNIT,
                variant=VARIANT,
                day=MOMENT,
                covariates=decided.covariates,
                method=method,
                looks=looks,
            )
        )
    whole, each = results
    return HoldoutReadout(
        share=share,
        units=counts.get(HELD_OUT, 0),
        units_in_variants=counts.get(IN_VARIANTS, 0),
        decisions=database.row(
            "SELECT count(*) AS n FROM decisions WHERE variant = $held", held=HELD_OUT
        )["n"],
        excluded=excluded,
        together=whole.comparisons,
        each=each.comparisons,
        sample_ratio=whole.sample_ratio,
        primary=whole.primary,
        method=method,
        alpha=whole.alpha,
    )


def _design(
    tables: ExperimentTables, shares: dict[str, float], phases: Sequence[ab.Phase]
) -> ab.Design:
    return msgspec.structs.replace(
        tables.design(), control=HELD_OUT, shares=shares, guardrails={}, phases=tuple(phases)
    )


def _beside_holdout(phases: Sequence[ab.Phase], share: float) -> list[ab.Phase]:
    """The phases, with the holdout as the control: its share is the same throughout, those of the
    variants may have been changed."""
    results = []
    for phase in phases:
        shares = {name: own * (1.0 - share) for name, own in phase.shares.items()}
        if shares:
            shares = {HELD_OUT: share, **shares}
        results.append(msgspec.structs.replace(phase, shares=shares, control=HELD_OUT))
    return results


def _of_part(
    database: AnalyticsDatabase, tables: ExperimentTables, condition: str
) -> dict[str, _Assignment]:
    """The assignments of the revisions that have decisions in the part; all of them where the audit
    knows none of those."""
    assignments = _assignments(database, tables)
    rows = database.rows(
        f"SELECT DISTINCT revision FROM decisions WHERE experiment = $key AND {condition}",  # noqa: S608  (quoted)
        key=tables.key,
    )
    present = {str(row["revision"]) for row in rows}
    return {r: a for r, a in assignments.items() if r in present} or assignments


def _assignments(database: AnalyticsDatabase, tables: ExperimentTables) -> dict[str, _Assignment]:
    """How each revision of the audit set units aside, oldest first (those that did not run held out
    nobody); of a record without an audit the file in force.
    """
    rows = database.rows(
        "SELECT revision, spec FROM revisions WHERE experiment = $key ORDER BY revised_at",
        key=tables.key,
    )
    assignments: dict[str, _Assignment] = {}
    for row in rows:
        content = msgspec.json.decode(row["spec"])
        # A revision that came back is the newest again.
        assignments.pop(row["revision"], None)
        assignments[row["revision"]] = _Assignment(
            _share(content.get("holdout", 0.0)), _share(content.get("traffic", 1.0))
        )
        if "conclusion" in content:
            assignments[row["revision"]] = _Assignment(_share(content.get("holdout", 0.0)), 1.0)
        # What was asked of a draft, or in a pause, was in nobody's reach.
        if content.get("status", _RUNNING) != _RUNNING:
            assignments[row["revision"]] = _Assignment(0.0, 1.0)
    current = tables.experiment
    if not rows:
        assignments[current["revision"]] = _Assignment(current["holdout"], current["traffic"])
    return assignments


def _share(percentage: Any) -> float:
    """`5%` as files write it, or 0.05."""
    if isinstance(percentage, str):
        return float(percentage.strip().removesuffix("%")) / 100.0
    return float(percentage)


def _last(assignments: Mapping[str, _Assignment]) -> _Assignment:
    """The newest way of setting units aside that held any out."""
    return [a for a in assignments.values() if a.holdout > 0.0][-1]


def _make_units(
    database: AnalyticsDatabase,
    key: str,
    assignments: Mapping[str, _Assignment],
    exclusion: Exclusion,
    condition: str,
) -> tuple[dict[str, int], dict[str, int]]:
    """Make table `holdout_units`: the units to compare, with the side that each is on.

    A unit is on the side that it was put on when it first asked under a revision that held units
    out: so both sides are drawn from the same units of the same time.

    Returns:
        The units left out, by reason; and those on either side.
    """
    # Of both sides alike, held out or not: by what a unit was before.
    why = exclusion.reason_sql("unit", "context")
    database.execute(
        f"""CREATE OR REPLACE TEMP TABLE {_UNITS}_all AS
        SELECT unit, CASE
            WHEN left_out IS NOT NULL THEN left_out
            WHEN was_held AND was_in THEN 'crossover_units'
            WHEN first_held OR first_in THEN
                CASE WHEN is_last THEN NULL ELSE 'earlier_shares' END
            ELSE 'admitted_later' END AS excluded,
            CASE WHEN was_held THEN {quoted(HELD_OUT)} ELSE {quoted(IN_VARIANTS)} END AS side
        FROM (
            SELECT *, {why} AS left_out FROM (
            SELECT unit, arg_min(context, seq) AS context, bool_or(reason = 'holdout') AS was_held,
                bool_or(variant IS NOT NULL) AS was_in,
                arg_min(reason = 'holdout', seq) AS first_held,
                arg_min(variant IS NOT NULL, seq) AS first_in,
                arg_min(revision NOT IN {_listing(_earlier(assignments))}, seq) AS is_last
            FROM decisions
            WHERE experiment = $key AND revision NOT IN {_listing(_without(assignments))}
                AND {condition}
            GROUP BY unit)
        ) WHERE was_held OR was_in""",  # noqa: S608  (quoted)
        key=key,
    )
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE {_UNITS} AS SELECT unit FROM {_UNITS}_all "  # noqa: S608  (our own names)
        "WHERE excluded IS NULL"
    )
    rows = database.rows(
        f"SELECT excluded, side, count(*) AS n FROM {_UNITS}_all GROUP BY ALL ORDER BY ALL"  # noqa: S608  (our own name)
    )
    excluded: dict[str, int] = {}
    counts: dict[str, int] = {}
    for row in rows:
        if row["excluded"] is None:
            counts[row["side"]] = row["n"]
        else:
            excluded[row["excluded"]] = excluded.get(row["excluded"], 0) + row["n"]
    return excluded, counts


def _without(assignments: Mapping[str, _Assignment]) -> list[str]:
    """The revisions that held nobody out. Those that the audit does not know, as of a log from
    elsewhere, are taken for the newest.
    """
    return [revision for revision, a in assignments.items() if a.holdout <= 0.0]


def _earlier(assignments: Mapping[str, _Assignment]) -> list[str]:
    """Those that did it otherwise than the newest: over others the share held out is another one,
    and who came when differs in more than chance.
    """
    last = _last(assignments)
    return [revision for revision, a in assignments.items() if a != last]


def _listing(revisions: Sequence[str]) -> str:
    """An SQL list of texts, with one that is no revision's, as no list may be empty."""
    return f"({', '.join(map(quoted, ['(none)', *revisions]))})"


def _compared(
    database: AnalyticsDatabase, key: str, assignments: Mapping[str, _Assignment]
) -> Counted:
    """The compared units alone, held-out ones in a variant of their own. So every metric is
    computed of them as it is of the others.
    """
    home = identifier(str(database.row("SELECT current_database() AS name")["name"]))
    inside = f"x.experiment = {quoted(key)} AND x.unit IN (SELECT unit FROM {_UNITS})"  # noqa: S608  (quoted)
    revisions = _listing(_without(assignments))
    return Counted(
        f"""SELECT x.* REPLACE (
            CASE WHEN x.reason = 'holdout' THEN {quoted(HELD_OUT)} ELSE x.variant END AS variant
        ) FROM {home}.main.decisions x
        WHERE {inside} AND x.revision NOT IN {revisions}
            AND (x.variant IS NOT NULL OR x.reason = 'holdout')""",  # noqa: S608  (quoted)
        f"""SELECT x.* REPLACE (coalesce(x.variant, {quoted(HELD_OUT)}) AS variant)
        FROM {home}.main.rewards x
        WHERE {inside} AND x.decision_id IN (SELECT decision_id FROM decisions)""",  # noqa: S608  (quoted)
    )
