"""What an experiment planned before its first exposure, and what was changed after it: whoever
chooses objective, margin or method when results are in has as many more chances to be fooled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from topbill.domain.formatting import listing, minute
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

_STOPPING = ("hold", "advance_if", "on_harm")
"""What of a launch says when it goes on and when it stops."""


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


class PlanChange(NamedTuple):
    """What was changed of a plan, a clause each: when (UTC; None for what no audit holds yet) and
    by whom."""

    at: datetime | None
    who: str
    clauses: list[str]

    def __str__(self) -> str:
        when = "" if self.at is None else f"on {minute(self.at)}"
        who = f"by {self.who}" if self.who else ""
        return f"{' '.join(filter(None, (when, who)))}: {', '.join(self.clauses)}"


def changes_since_exposure(
    database: AnalyticsDatabase, key: str, counts: str, today: Spec
) -> list[PlanChange]:
    """How the plan was changed since the first unit was assigned to a variant, step by step, also
    where a later step took an earlier one back. Empty where the audit does not hold what was in
    force then, as of an imported log. `counts` is the answer of `counts_part`."""
    audit = database.rows(
        """SELECT revision, revised_at, who, spec FROM revisions WHERE experiment = $key
        ORDER BY revised_at""",
        key=key,
    )
    exposed = database.row(
        f"""SELECT arg_min(revision, first_at) AS revision, min(first_at) AS at
        FROM {counts} WHERE variant IS NOT NULL"""  # noqa: S608  (our own query)
    )
    start = _in_force(audit, exposed)
    if start is None:
        return []
    specs = [spec_of(line) for line in audit]
    before = specs[start]
    launch: Spec = {}
    for spec in specs[: start + 1]:
        launch = spec.get("launch", launch)
    found = []
    steps: list[tuple[datetime | None, str, Spec]] = []
    for line, spec in zip(audit[start + 1 :], specs[start + 1 :], strict=True):
        if "metrics" in spec:
            steps.append((line["revised_at"], line["who"], spec))
    for at, who, after in [*steps, (None, "", today)]:
        # What an order made of a file with a launch says nothing of it: it is still its plan.
        launched, launch = launch, after.get("launch", launch)
        clauses = plan_differences({**before, "launch": launched}, {**after, "launch": launch})
        if clauses:
            found.append(PlanChange(at, who, clauses))
        before = after
    return found


def _in_force(audit: Sequence[Mapping[str, Any]], exposed: Mapping[str, Any]) -> int | None:
    """Which line of an audit was in force at the first exposure."""
    own = [i for i, line in enumerate(audit) if line["revision"] == exposed["revision"]]
    # An imported log may have lines of an audit that are no files.
    own = [i for i in own if "metrics" in spec_of(audit[i])]
    # Decisions may be a moment older than the line of their revision.
    earlier = [i for i in own if audit[i]["revised_at"] <= exposed["at"]]
    if earlier:
        return earlier[-1]
    return own[0] if own else None


def plan_differences(first: Spec, today: Spec) -> list[str]:
    """What of all that is planned differs between two contents of a file, a clause each: the
    hypothesis, what is judged and how (`changes`), and when a launch stops."""
    clauses = []
    hypotheses = [str(spec.get("hypothesis", "")) for spec in (first, today)]
    if hypotheses[0] != hypotheses[1]:
        clauses.append("hypothesis: {!r} → {!r}".format(*hypotheses))
    clauses += changes(first, today)
    rules = []
    for spec in (first, today):
        launch = spec.get("launch") or {}
        rules.append({name: launch[name] for name in _STOPPING if name in launch})
    return [*clauses, *section_differences("launch", *rules)]


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
    found: Sequence[PlanChange], today: Spec, method: Method, looks: Sequence[float]
) -> list[Note]:
    """Notes of what is not as it was planned: changed after the first exposure, or read otherwise
    than the file says."""
    noted = []
    if found:
        sentence = (
            f"Changed after the first exposure: {'; '.join(str(change) for change in found)}. The "
            "numbers are by today's file, for all of history; a call that a change brought about "
            "is a new question, to be answered by a new experiment."
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
