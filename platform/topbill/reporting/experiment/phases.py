"""Phases of an experiment, from the audit of its file; and the part of the record that a report is
of.

Every decision carries the revision of the file that made it. A revision that came back counts from
each of its times anew, so a decision belongs to the last time before it that its revision came in
force. Revisions one after the other whose variants, shares and traffic are the same are one phase.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

import msgspec

from topbill.ab import Phase
from topbill.domain.assignment import assignment_changes
from topbill.domain.errors import BadRequest, SpecError
from topbill.domain.instants import instant
from topbill.domain.metric import window_over_sql
from topbill.domain.sql import identifier, quoted
from topbill.domain.suggestion import nearest
from topbill.reporting.experiment.exclusion import Counted
from topbill.reporting.queries.action_versions import revisions_of
from topbill.reporting.queries.database import AnalyticsDatabase, DayPart
from topbill.spec import from_audit

PHASE = "@phase"
"""A column that no metric and no feature has."""
_OCCURRENCES = "report_occurrences"
OCCURRENCE_NUMBER = "coalesce(own.number, timely.number, 0)"
"""SQL for the occurrence of a decision joined by `with_occurrences`. A revision that the audit does
not know, as that of an imported log, is what was in force then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpt:
    """A part of an experiment's record: the decisions from `since` up to but not including `until`
    (UTC), and those of one `revision`, or of all `but` one; all where nothing is said."""

    since: datetime | None = None
    until: datetime | None = None
    revision: str | None = None
    but: str | None = None

    @classmethod
    def of(
        cls,
        since: str | date | None = None,
        until: str | date | None = None,
        revision: str | None = None,
    ) -> Excerpt:
        """From ISO 8601 dates or times, those without a zone being UTC.

        Raises:
            BadRequest: naming the argument that cannot be read, or a span without any time in it.
        """
        first, last = _moment("since", since), _moment("until", until)
        if first is not None and last is not None and first >= last:
            raise BadRequest(
                "until",
                f"got {_iso(last)}, which is not after since, {_iso(first)}; expected a later time",
            )
        return cls(since=first, until=last, revision=revision)

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the record."""
        return self == Excerpt()

    def described(self) -> str:
        """since 2026-03-02T10:00:00Z, revision 0123456789ab"""
        parts = []
        if self.since is not None:
            parts.append(f"since {_iso(self.since)}")
        if self.until is not None:
            parts.append(f"until {_iso(self.until)}")
        if self.revision is not None:
            parts.append(f"revision {self.revision}")
        if self.but is not None:
            parts.append(f"without revision {self.but}")
        return ", ".join(parts)

    def condition(self, database: AnalyticsDatabase, key: str) -> str:
        """SQL that is true of the decisions in this part.

        Raises:
            BadRequest: for a revision that the experiment never had.
        """
        conditions = []
        if self.since is not None:
            conditions.append(f"decided_at >= {_literal(self.since)}")
        if self.until is not None:
            conditions.append(f"decided_at < {_literal(self.until)}")
        if self.revision is not None:
            revision = _known_revision(database, key, self.revision)
            conditions.append(f"revision = {quoted(revision)}")
        if self.but is not None:
            conditions.append(f"revision <> {quoted(self.but)}")
        return " AND ".join(conditions) or "true"

    def apply(self, database: AnalyticsDatabase, key: str, counted: Counted | None = None) -> None:
        """Let all questions that follow see this part of the experiment alone; of what is `counted`
        where that is not the record as it is.

        Raises:
            BadRequest: for a revision that the experiment never had.
        """
        counted = counted or Counted()
        if self.is_whole:
            counted.make_views(database)
            return
        condition = self.condition(database, key)
        other = f"experiment <> {quoted(key)}"
        home = identifier(str(database.row("SELECT current_database() AS name")["name"]))
        decisions = counted.decisions or f"SELECT * FROM {home}.main.decisions"  # noqa: S608  (quoted)
        rewards = counted.rewards or f"SELECT * FROM {home}.main.rewards"  # noqa: S608  (quoted)
        # Views of the connection's own hide those of the file: so whatever a report asks speaks of
        # the same part. A view has no parameters, but every value is quoted.
        own = f"SELECT decision_id FROM decisions WHERE experiment = {quoted(key)}"  # noqa: S608  (quoted)
        Counted(
            f"SELECT * FROM ({decisions}) WHERE {other} OR ({condition})",  # noqa: S608  (quoted)
            f"SELECT * FROM ({rewards}) WHERE {other} OR decision_id IN ({own})",  # noqa: S608  (quoted)
        ).make_views(database)


EVERYTHING = Excerpt()
"""All of the record."""


def _moment(name: str, given: str | date | None) -> datetime | None:
    """A time without a zone, in UTC, as the record has them."""
    if given is None:
        return None
    return instant(name, given).astimezone(UTC).replace(tzinfo=None)


def _known_revision(database: AnalyticsDatabase, key: str, given: str) -> str:
    """The revision that `given` is, or begins."""
    rows = database.rows(
        """SELECT DISTINCT revision FROM (
            SELECT revision FROM revisions WHERE experiment = $key
            UNION ALL SELECT DISTINCT revision FROM decisions WHERE experiment = $key
        ) ORDER BY revision""",
        key=key,
    )
    names = [str(row["revision"]) for row in rows]
    matching = [name for name in names if given and name.startswith(given)]
    if given in names:
        return given
    if len(matching) == 1:
        return matching[0]
    hint = nearest(given, names)
    listing = ", ".join(names[-10:]) or "none, as nothing was decided yet"
    raise BadRequest(
        "revision", f"got {given!r}; expected one of {listing}" + (f"; {hint}" if hint else "")
    )


def _literal(moment: datetime) -> str:
    return f"TIMESTAMP {quoted(moment.isoformat(sep=' '))}"


def _iso(moment: datetime) -> str:
    return f"{moment.isoformat()}Z"


@dataclass(frozen=True, kw_only=True, slots=True)
class Occurrence:
    """A revision from one of the times on that it came in force, as a phase of its own."""

    revision: str
    since: datetime
    phase: Phase


class Timeline:
    """The phases of an experiment that have decisions, and the newest; `phases` is empty where the
    record holds no audit.

    Attributes:
        phases: The oldest first.
    """

    def __init__(self, occurrences: list[Occurrence], numbers: dict[int, int], end: str | None):
        self._occurrences = occurrences
        self._numbers = numbers
        """The phase of each occurrence that has decisions."""
        self.phases = _phases(occurrences, numbers, end)

    @classmethod
    def read(cls, database: AnalyticsDatabase, key: str, excerpt: Excerpt) -> Timeline:
        """From the audit, and the revisions that decisions carry."""
        occurrences = read_occurrences(database, key)
        if not occurrences:
            return cls([], {}, None)
        rows = database.rows(
            f"""SELECT o AS occurrence FROM (
                SELECT {OCCURRENCE_NUMBER} AS o FROM {with_occurrences("decisions d")}
                WHERE d.experiment = $key
            ) GROUP BY o ORDER BY o""",  # noqa: S608  (our own query)
            key=key,
        )
        return cls.of(occurrences, [int(row["occurrence"]) for row in rows], excerpt)

    @classmethod
    def of(cls, occurrences: list[Occurrence], present: list[int], excerpt: Excerpt) -> Timeline:
        """From all occurrences and, in their order, the numbers of those that have decisions."""
        if not occurrences:
            return cls([], {}, None)
        # What is in force is a phase although nobody came yet, unless only a part is read.
        if excerpt.is_whole or not present:
            present = sorted({*present, len(occurrences) - 1})
        end = None
        if present[-1] + 1 < len(occurrences):
            end = _iso(occurrences[present[-1] + 1].since)
        if excerpt.until is not None:
            end = min(_iso(excerpt.until), end or _iso(excerpt.until))
        return cls(occurrences, _numbers(occurrences, present), end).clipped(excerpt)

    def clipped(self, excerpt: Excerpt) -> Timeline:
        """The same, its first phase not beginning before the part that is read."""
        if self.phases and excerpt.since is not None:
            first = self.phases[0]
            since = max(first.since or "", _iso(excerpt.since))
            self.phases = (msgspec.structs.replace(first, since=since), *self.phases[1:])
        return self

    @property
    def is_several(self) -> bool:
        """Whether there is more than one phase."""
        return len(self.phases) > 1

    def number_sql(self, occurrence: str = OCCURRENCE_NUMBER) -> str:
        """SQL for the number of a decision's phase, from that of its occurrence: by default of a
        table joined by `with_occurrences`."""
        by_occurrence = [self._numbers.get(i, 0) for i in range(len(self._occurrences))]
        return f"list_extract({by_occurrence}, {occurrence} + 1)::INTEGER"


def with_occurrences(decisions: str) -> str:
    """SQL of a table of decisions (with its alias, `d`), joined to the revision in force."""
    return (
        f"{decisions} ASOF LEFT JOIN {_OCCURRENCES} own "
        "ON d.revision = own.revision AND d.decided_at >= own.since "
        f"ASOF LEFT JOIN {_OCCURRENCES}_by_time timely ON d.decided_at >= timely.since"
    )


def read_occurrences(database: AnalyticsDatabase, key: str) -> list[Occurrence]:
    """The audit, the oldest first; makes the tables that `with_occurrences` joins, if there is
    one."""
    rows = revisions_of(database, key)
    by_spec: dict[str, Phase] = {}
    occurrences = []
    for row in rows:
        spec = str(row["spec"])
        if spec not in by_spec:
            by_spec[spec] = _phase(spec, key)
        phase = msgspec.structs.replace(by_spec[spec], since=_iso(row["revised_at"]))
        occurrences.append(
            Occurrence(revision=row["revision"], since=row["revised_at"], phase=phase)
        )
    if occurrences:
        _make_table(database, occurrences)
    return occurrences


def _phase(spec: str, key: str) -> Phase:
    """What a revision's file says; without shares where this version cannot read it."""
    try:
        experiment = from_audit(spec, f"{key} (as it was)")
    except SpecError:
        return Phase()
    return Phase(
        shares=experiment.shares_in_force,
        control=experiment.control.name,
        traffic=experiment.traffic_in_force,
    )


def _make_table(database: AnalyticsDatabase, occurrences: list[Occurrence]) -> None:
    """Tables `report_occurrences` (revision, since, number), in which the first time of a revision
    is before all times, as decisions may be a moment older than the audit's line; and the same by
    time alone."""
    names, times, first = [], [], set()
    for occurrence in occurrences:
        is_first = occurrence.revision not in first
        first.add(occurrence.revision)
        names.append(occurrence.revision)
        times.append(datetime(1, 1, 1) if is_first else occurrence.since)
    columns = "unnest($names::VARCHAR[]) AS revision, unnest($times::TIMESTAMP[]) AS since"
    numbered = "unnest(range(len($names::VARCHAR[])))::INTEGER AS number"
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE {_OCCURRENCES} AS SELECT {columns}, {numbered}",
        names=names,
        times=times,
    )
    since = [occurrence.since for occurrence in occurrences]
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE {_OCCURRENCES}_by_time AS SELECT {columns}, {numbered}",
        names=names,
        times=since,
    )


def _numbers(occurrences: list[Occurrence], present: list[int]) -> dict[int, int]:
    """The phase of each occurrence that is present: a new one where it differs from the one
    before."""
    numbers: dict[int, int] = {}
    number = -1
    before: Occurrence | None = None
    for i in present:
        occurrence = occurrences[i]
        if before is None or not _same(before, occurrence):
            number += 1
        numbers[i] = number
        before = occurrence
    return numbers


def _same(one: Occurrence, other: Occurrence) -> bool:
    if not one.phase.shares or not other.phase.shares:
        # Of files that cannot be read, only a file that is the same is the same.
        return one.revision == other.revision
    return not assignment_changes(one.phase, other.phase)


def _phases(
    occurrences: list[Occurrence], numbers: Mapping[int, int], end: str | None
) -> tuple[Phase, ...]:
    phases: list[Phase] = []
    for i, number in numbers.items():
        occurrence = occurrences[i]
        if number == len(phases):
            changed = assignment_changes(phases[-1], occurrence.phase) if phases else []
            phases.append(msgspec.structs.replace(occurrence.phase, changed=changed))
        revisions = [*phases[number].revisions]
        if occurrence.revision not in revisions:
            revisions.append(occurrence.revision)
        phases[number] = msgspec.structs.replace(phases[number], revisions=revisions)
    ends = [phase.since for phase in phases[1:]]
    for number, until in enumerate([*ends, end][: len(phases)]):
        phases[number] = msgspec.structs.replace(phases[number], until=until)
    return tuple(phases)


def counts_part(key: str, decisions: str, occurrence: str, objective_window: float) -> DayPart:
    """Decisions by variant, reason, revision and its occurrence (see `Timeline`): how many (`n`),
    how many `weighted` and `mature` ones, from when until when, and where in the log. `decisions`
    is SQL of them, with the alias `d`.
    """

    def sql(now: int) -> str:
        mature = window_over_sql("d.decided_at", objective_window, now)
        return (
            "SELECT d.variant AS variant, d.reason AS reason, d.revision AS revision, "  # noqa: S608  (quoted)
            f"{occurrence} AS occurrence, min(d.seq) AS first_seq, max(d.seq) AS last_seq, "
            "count(*) AS n, count(*) FILTER (coalesce(d.row_weight, 1) <> 1) AS weighted, "
            f"count(*) FILTER ({mature}) AS mature, "
            "min(d.decided_at) AS first_at, max(d.decided_at) AS last_at "
            f"FROM {decisions} WHERE d.experiment = {quoted(key)} GROUP BY ALL"
        )

    return DayPart("report_counts", sql)


def excluded_decisions(database: AnalyticsDatabase, counts: str) -> dict[str, int]:
    """Decisions that no number is made of, by reason: those of no variant by their own reason, and
    those whose objective is not final yet. `counts` is the answer of `counts_part`."""
    rows = database.rows(
        f"""SELECT reason, sum(n) AS n FROM {counts}
        WHERE variant IS NULL GROUP BY reason ORDER BY n DESC, reason"""  # noqa: S608  (our own query)
    )
    excluded = {str(row["reason"]): int(row["n"]) for row in rows}
    immature = database.row(
        f"SELECT coalesce(sum(n - mature), 0) AS n FROM {counts} WHERE variant IS NOT NULL"  # noqa: S608  (our own query)
    )["n"]
    if immature:
        excluded["immature"] = int(immature)
    return excluded
