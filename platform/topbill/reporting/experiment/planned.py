"""What an experiment planned before its first exposure, and what was changed after it: whoever
chooses objective, margin or method when results are in has as many more chances to be fooled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from topbill.domain.formatting import listing
from topbill.domain.reading import ONE_LOOK, Method
from topbill.reporting.experiment.differences import (
    Spec,
    guardrails_by_metric,
    section_differences,
)
from topbill.reporting.experiment.model import Note
from topbill.reporting.queries.database import AnalyticsDatabase
from topbill.spec import renames
from topbill.spec.fields import percent


class ReadingPlan(NamedTuple):
    """How a result is read."""

    method: Method = "sequential"
    looks: tuple[float, ...] = ONE_LOOK

    def __str__(self) -> str:
        if self.method != "group-sequential":
            return self.method
        return (
            f"{self.method} at {listing([percent(look) for look in self.looks], len(self.looks))}"
        )


def planned_reading(spec: Spec) -> ReadingPlan:
    """What the file says in `method` and `looks`; without them sequential."""
    # Published files are valid: percentages are the only way to write a look.
    looks = tuple(float(look.removesuffix("%")) / 100.0 for look in spec.get("looks", ()))
    return ReadingPlan(spec.get("method", "sequential"), looks or ONE_LOOK)


def reading_asked(spec: Spec, method: Method | None, looks: Sequence[float] | None) -> ReadingPlan:
    """How a result is to be read: by the file, unless said otherwise."""
    planned = planned_reading(spec)
    if looks is not None:
        return ReadingPlan(method or planned.method, tuple(looks))
    if method in (None, planned.method):
        return planned
    return ReadingPlan(method or planned.method)


def spec_of(row: Mapping[str, Any]) -> Spec:
    """The file's content with today's keys, from a row that has `spec`."""
    content: Spec = renames.modern(msgspec.json.decode(row["spec"]))
    return content


def spec_at_first_exposure(database: AnalyticsDatabase, key: str) -> Spec | None:
    """The file as it was when the first unit was assigned to a variant; None where the audit does
    not hold it, as of an imported log."""
    rows = database.rows(
        """SELECT r.spec FROM revisions r WHERE r.experiment = $key AND r.revision = (
            SELECT arg_min(revision, decided_at) FROM decisions
            WHERE experiment = $key AND variant IS NOT NULL
        ) ORDER BY r.revised_at LIMIT 1""",
        key=key,
    )
    first = spec_of(rows[0]) if rows else {}
    # An imported log may have lines of an audit that are no files.
    return first if "metrics" in first else None


def changes(first: Spec, today: Spec) -> list[str]:
    """What of the plan differs between two contents of a file, a clause each: objective, metrics,
    guardrails, method and looks. Shares, variants and traffic are what phases tell of.
    """
    clauses = []
    for name in ("objective", "metrics"):
        clauses += section_differences(name, first.get(name, {}), today.get(name, {}))
    before, after = (guardrails_by_metric(spec) for spec in (first, today))
    clauses += section_differences("guardrails", before, after)
    was, is_now = planned_reading(first), planned_reading(today)
    if was != is_now:
        clauses.append(f"method: {was} → {is_now}")
    return clauses


def change_notes(
    first: Spec | None, today: Spec, method: Method, looks: Sequence[float]
) -> list[Note]:
    """Notes of what is not as it was planned: changed after the first exposure, or read otherwise
    than the file says."""
    found = [] if first is None else changes(first, today)
    noted = []
    if found:
        sentence = (
            f"Changed after the first exposure: {'; '.join(found)}. The numbers are by today's "
            "file, for all of history; a call that a change brought about is a new question, to be "
            "answered by a new experiment."
        )
        noted.append(Note(code="changed_after_exposure", sentence=sentence))
    planned, read = planned_reading(today), ReadingPlan(method, tuple(looks))
    if not _as_planned(planned, read):
        sentence = (
            f"Not as planned: read by {read}, where the file plans {planned}. What only one of "
            "several methods calls is not called at the level that it names."
        )
        noted.append(Note(code="not_as_planned", sentence=sentence))
    return noted


def _as_planned(planned: ReadingPlan, read: ReadingPlan) -> bool:
    """Whether it is the planned method, at one of its looks; looks mean nothing to the others."""
    if planned.method != read.method:
        return False
    if planned.method != "group-sequential":
        return True
    return read.looks == planned.looks[: len(read.looks)]
