"""The report of an experiment, as of the last publication."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace as replace_dataclass
from datetime import date
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from topbill.ab import OBJECTIVE, Analysis, Method
from topbill.domain.engine_url import engine_url
from topbill.domain.errors import BadRequest, LogError
from topbill.domain.formatting import minute
from topbill.domain.sql import quoted
from topbill.domain.suggestion import nearest
from topbill.lake import lake_place, metric_of
from topbill.lake.kept import DamagedSumsError, forget
from topbill.lake.kept_tables import forget_tables
from topbill.reporting.experiment.analysis_rows import (
    AnalysisRows,
    ExperimentTables,
    VariantCounts,
)
from topbill.reporting.experiment.conclusion import StandingConclusion, standing_conclusion
from topbill.reporting.experiment.exclusion import counted_decisions
from topbill.reporting.experiment.exploration import PolicyShares, policy_shares_by_variant
from topbill.reporting.experiment.health import health
from topbill.reporting.experiment.holdout import holdout_readout
from topbill.reporting.experiment.model import (
    HoldoutReadout,
    MeanEstimate,
    MetricLine,
    Note,
    Report,
    ShareLine,
    VariantLine,
)
from topbill.reporting.experiment.phases import Excerpt
from topbill.reporting.experiment.planned import (
    ReadingPlan,
    change_notes,
    changes_since_exposure,
    reading_asked,
)
from topbill.reporting.experiment.wording import notes
from topbill.reporting.queries.action_versions import LABELS, make_action_labels
from topbill.reporting.queries.database import (
    LARGE,
    AnalyticsDatabase,
    DayPart,
    decisions_of,
    may_be_concluded,
    open_database,
    retained_of,
)

_logger = logging.getLogger("topbill")
Means = Mapping[tuple[str, str], MeanEstimate]
"""By metric (or `objective`) and variant."""


def load_experiment_report(
    key: str,
    data: Path | str,
    *,
    segments: Sequence[str] | None = None,
    method: Method | None = None,
    looks: Sequence[float] | None = None,
    control: str | None = None,
    since: str | date | None = None,
    until: str | date | None = None,
    revision: str | None = None,
    first_exposure: bool = False,
    anew: bool = False,
) -> Report:
    """The report of one experiment, or of a part of its record.

    Of one that was concluded it is the report as it stood then; where anything else is asked, it is
    worked out anew from what was decided before.

    Args:
        key: the experiment's key.
        data: the data folder.
        segments: context features to look into; None takes all of type category.
        method: how intervals of differences are made (see `ab.compare`); None takes the file's.
        looks: when was looked, with "group-sequential" (see `ab.compare`); None takes the file's,
            as at the last of them.
        control: the variant that others are compared with; None takes the file's control.
        since: only decisions from then on: a date or a time, ISO 8601, UTC where it has no zone.
        until: only decisions before then.
        revision: only decisions of that revision of the file (or the first digits of it).
        first_exposure: units that were seen in several variants count for their first, also where
            no change of shares explains it (see `ab.analyse`).
        anew: of a concluded one: work it out from the record as it is now.

    Raises:
        BadRequest: for a time that cannot be read, an empty span, or a revision that there never
            was.
        NotFound: there is no lake yet, or no such experiment in it.
        BadRequest: `control` is no variant of the experiment.
        LogError: the lake cannot be read.

    Weak data never raises: numbers are missing then, and say why.
    """
    read = partial(
        _read,
        key,
        data,
        Excerpt.of(since, until, revision),
        segments=segments,
        method=method,
        looks=looks,
        control=control,
        first_exposure=first_exposure,
        anew=anew,
    )
    try:
        return read(keep=Path(data))
    except DamagedSumsError as error:
        _logger.warning("%s", error)
        forget(Path(data), key)
    except (OSError, LogError) as error:
        # The folder may be another user's, or full: what would be kept there only saves time. Of a
        # cluster it saves memory, too.
        level = logging.WARNING if engine_url() else logging.INFO
        _logger.log(level, "%s; all of the record is read instead of what was kept of it", error)
        report = read(keep=None)
        # The record can be read; tables of sums that could not would be in the way each time.
        if engine_url():
            with suppress(LogError):
                forget_tables(lake_place(Path(data)), key)
        return report
    return read(keep=None)


def _read(
    key: str,
    data: Path | str,
    excerpt: Excerpt,
    *,
    segments: Sequence[str] | None,
    method: Method | None,
    looks: Sequence[float] | None,
    control: str | None,
    first_exposure: bool,
    anew: bool,
    keep: Path | None,
) -> Report:
    """The report, with what days add up to kept in a data folder, if there is one to `keep` in."""
    is_plain = excerpt.is_whole and not (first_exposure or anew)
    is_plain = is_plain and (segments, method, looks, control) == (None, None, None, None)
    with open_database(data) as database:
        concluded = None
        if may_be_concluded(database, key):
            concluded = standing_conclusion(database, key)
        if concluded is not None:
            later = _since_conclusion(data, key, concluded)
            if is_plain and concluded.frozen is not None:
                return replace(concluded.frozen, since_conclusion=later)
            last = concluded.until
            excerpt = replace_dataclass(excerpt, until=min(excerpt.until or last, last))
        tables = ExperimentTables.read(database, key)
        if segments is None:
            segments = tables.category_features()
        method, looks = reading = reading_asked(tables.spec, method, looks)
        counted = counted_decisions(database, key, tables.experiment["spec"])
        if decisions_of(database, key) < LARGE:
            keep = None
        rows = AnalysisRows(database, tables, segments, excerpt, counted, keep)
        reference = _checked_control(tables, rows, control)
        analysis = None
        # Its tests take each row for one decision.
        if not rows.weighted:
            analysis = rows.analysis(method, looks, reference, first_exposure=first_exposure)
        report = _report(database, tables, rows, analysis, reference, reading)
        if analysis is not None:
            report = replace(report, novelty=rows.novelty(analysis, looks))
    if concluded is not None:
        report = replace(
            report, status="concluded", conclusion=concluded.reading, since_conclusion=later
        )
    if not excerpt.is_whole:
        report = replace(report, notes=_notes_of_part(report, excerpt))
    if rows.weighted or not report.health.reasons.get("holdout"):
        return report
    # A connection of its own, in which decisions are those of the holdout's readout.
    with open_database(data) as database:
        readout = holdout_readout(
            database, tables, method, looks, excerpt=excerpt, first_exposure=first_exposure
        )
        return replace(report, holdout=readout)


def _since_conclusion(
    data: Path | str, key: str, concluded: StandingConclusion
) -> HoldoutReadout | None:
    """What the winner is worth over the units held out, in what was decided since: read at any
    look, as nobody planned this one."""
    with open_database(data) as database:
        if not database.rows("FROM experiments WHERE key = $key", key=key):
            return None
        tables = ExperimentTables.read(database, key)
        readout = holdout_readout(database, tables, excerpt=Excerpt(since=concluded.until))
    # There is one variant, so that each of them is all of them.
    return None if readout is None else replace(readout, each=[])


def _notes_of_part(report: Report, excerpt: Excerpt) -> list[Note]:
    """An empty part says nothing of the service: whether it is asked is of the whole record."""
    sentence = f"This is a part of the record: {excerpt.described()}."
    if not report.decisions:
        sentence = f"No decision is in this part of the record: {excerpt.described()}."
    others = [note for note in report.notes if note.code != "no_traffic"]
    return [Note(code="part", sentence=sentence), *others]


def _checked_control(
    tables: ExperimentTables, rows: AnalysisRows, control: str | None
) -> str | None:
    """The variant to compare with where it is not the file's control.

    Raises:
        BadRequest: it is none of the experiment's, now or before.
    """
    names = dict.fromkeys(str(v["variant"]) for v in tables.variants)
    for phase in rows.timeline.phases:
        names.update(dict.fromkeys(phase.shares))
    if control is None:
        return None
    if control not in names:
        hint = nearest(control, names)
        raise BadRequest(
            "control",
            f"got {control!r}; expected a variant of {tables.key}: {', '.join(names)}"
            f"{hint and f'; {hint}'}",
        )
    return control


def _report(
    database: AnalyticsDatabase,
    tables: ExperimentTables,
    rows: AnalysisRows,
    analysis: Analysis | None,
    control: str | None,
    reading: ReadingPlan,
) -> Report:
    # Means and analysis read the same temporary table, so that they speak of the same decisions.
    counts, means = rows.means()
    explored = policy_shares_by_variant(database, tables)
    variants = _variant_lines(tables, counts, means, explored)
    windows = tables.longest_windows()
    window = tables.objective().window
    checked = health(database, tables.key, rows.parts, rows.counts, windows, window)
    shares, changed_actions = _share_lines(
        database, tables.key, rows.parts.relation(_shown_part(tables.key))
    )
    # As ISO 8601, because the report is read by other programs too.
    times = database.row(
        f"""SELECT replace(min(first_at)::VARCHAR, ' ', 'T') || 'Z' AS first_at,
            replace(max(last_at)::VARCHAR, ' ', 'T') || 'Z' AS last_at,
            (SELECT replace(published_at::VARCHAR, ' ', 'T') || 'Z' FROM published) AS published_at
        FROM {rows.counts} WHERE variant IS NOT NULL"""  # noqa: S608  (our own query)
    )
    about = tables.experiment
    return Report(
        experiment=tables.key,
        title=about["title"],
        hypothesis=about["hypothesis"],
        revision=about["revision"],
        status=about["status"],
        published_at=times["published_at"],
        first_at=times["first_at"],
        last_at=times["last_at"],
        # Not their sum: who changed variant stands in two lines.
        units=rows.units(),
        # Those of its own units: what it was asked for others is in `health.reasons`.
        decisions=sum(v.decisions for v in variants),
        variants=variants,
        ab=analysis,
        metrics=_metric_lines(tables, variants, means),
        shares=shares,
        health=checked,
        notes=[
            *change_notes(
                changes_since_exposure(database, tables.key, rows.counts, tables.spec),
                tables.spec,
                *reading,
            ),
            *_other_control(tables, control),
            *notes(variants, checked, window, windows),
            *_little_left(explored),
            *_warm_starts(tables),
            *changed_actions,
            *_sub_sampled(rows.weighted),
            *rows.outside.notes,
            *_removed_by_age(database, tables.key),
        ],
        phases=list(rows.timeline.phases) if analysis is None else analysis.phases,
        excluded={**rows.excluded(), **({} if analysis is None else analysis.excluded)},
    )


def _variant_lines(
    tables: ExperimentTables,
    counts: Mapping[str, VariantCounts],
    means: Means,
    explored: Mapping[str, PolicyShares],
) -> list[VariantLine]:
    """Those of the file, in its order, and those that only the record knows (an earlier revision
    had them).
    """
    lines: dict[str, VariantLine] = {}
    for row in tables.variants:
        lines[row["variant"]] = VariantLine(
            variant=row["variant"],
            policy=row["policy"],
            control=row["control"],
            share=row["share"],
        )
    # Their units saw something, so that leaving them out would make decisions disappear.
    for name in sorted(counts.keys() - lines.keys()):
        lines[name] = VariantLine(variant=name)
    return [
        replace(
            line,
            units=counts.get(name, VariantCounts()).units,
            decisions=counts.get(name, VariantCounts()).decisions,
            reward=means.get((OBJECTIVE, name), MeanEstimate(reason="no_decisions")),
            policy_shares=explored.get(name, PolicyShares()).shares,
        )
        for name, line in lines.items()
    ]


def _other_control(tables: ExperimentTables, control: str | None) -> list[Note]:
    """A note where the table compares with another variant than the file's control."""
    usual = tables.design().control
    if control is None or control == usual:
        return []
    sentence = (
        f"Compared with {control}, not with the control {usual}. Calls are corrected among these "
        "comparisons alone (Holm): whoever tries several variants to compare with has as many more "
        f"chances to be fooled. Whether to ship is told against {usual}."
    )
    return [Note(code="other_control", sentence=sentence)]


def _removed_by_age(database: AnalyticsDatabase, key: str) -> list[Note]:
    """A note where rows of the experiment's first days are gone."""
    retained = retained_of(database)
    if retained is None:
        return []
    row = database.row(
        "SELECT min(revised_at) AS began_at FROM revisions WHERE experiment = $key", key=key
    )
    if row["began_at"] is None or row["began_at"] >= retained.kept_since:
        return []
    sentence = (
        f"Rows from before {retained.kept_since:%Y-%m-%d} were removed because of their age "
        f"(last at {minute(retained.retained_at)}): all numbers are of what came since. "
        "A unit that was first shown something before then counts from its first decision that is "
        "left, with that one's variant and phase, as if it were new: also where effects are told "
        "by days since the first exposure."
    )
    return [Note(code="removed_by_age", sentence=sentence)]


def _little_left(explored: Mapping[str, PolicyShares]) -> list[Note]:
    """A note for each variant whose `min_probability` leaves little to its policy."""
    noted = []
    for variant in explored.values():
        if variant.sentence:
            noted.append(Note(code="little_left_to_policy", sentence=f"{variant.sentence}."))
    return noted


def _warm_starts(tables: ExperimentTables) -> list[Note]:
    """A note for each variant that knew something before its first decision."""
    noted = []
    variants = msgspec.json.decode(tables.experiment["spec"]).get("variants") or {}
    for name, parts in variants.items():
        prior = parts.get("prior") if isinstance(parts, dict) else None
        if prior:
            count, named = len(prior["from"]), ", ".join(prior["from"])
            sentence = (
                f"{name} starts from {count} earlier experiment{'s' * (count > 1)} ({named}): what "
                "they told of how much actions differ, and of their features, no unit of this "
                "experiment paid for."
            )
            noted.append(Note(code="starts_from", sentence=sentence))
        start = parts.get("start_from") if isinstance(parts, dict) else None
        if not start:
            continue
        if "snapshot" in start:
            what = f"{start['snapshot']}, a trained policy (SHA-256 {start['sha256'][:12]}…)"
        else:
            what = f"the log of {start.get('log')} before {start.get('until')}"
        sentence = (
            f"{name} starts from {what}: what it knew then no unit of this experiment paid for."
        )
        noted.append(Note(code="starts_from", sentence=sentence))
    return noted


def _sub_sampled(weighted: int) -> list[Note]:
    """The note of a log some of whose decisions stand for several."""
    if not weighted:
        return []
    sentence = (
        f"This log was sub-sampled: {weighted:,} of its decisions stand for several (row_weight). "
        "The means count them so; decisions, mature ones too, and units are counted as rows, and "
        "variants are not compared: topbill evaluate takes the weights into account."
    )
    return [Note(code="sub_sampled", sentence=sentence)]


def _metric_lines(
    tables: ExperimentTables, variants: Sequence[VariantLine], means: Means
) -> list[MetricLine]:
    lines = []
    for metric in tables.metrics:
        definition = metric_of(metric)
        for line in variants:
            name = metric["metric"]
            mean = means.get((name, line.variant), MeanEstimate(reason="no_decisions"))
            lines.append(
                MetricLine(
                    metric=name,
                    variant=line.variant,
                    better=metric["better"],
                    window_seconds=metric["window_seconds"],
                    guardrail=metric["margin"] is not None,
                    estimate=mean,
                    per=definition.read_per,
                    is_proportion=definition.definition.is_proportion,
                )
            )
    return lines


def _shown_part(key: str) -> DayPart:
    """How often (`n`) each variant of each revision showed each action."""
    query = (
        "SELECT variant, revision, action, count(*) AS n FROM ("  # noqa: S608  (quoted)
        "SELECT variant, revision, unnest(slate) AS action FROM decisions "
        f"WHERE experiment = {quoted(key)} AND variant IS NOT NULL"
        ") GROUP BY ALL"
    )
    return DayPart("report_shown", lambda _now: query)


def _share_lines(
    database: AnalyticsDatabase, key: str, placed: str
) -> tuple[list[ShareLine], list[Note]]:
    """What was shown (`placed`, the answer of `_shown_part`), and a note for each action that
    stands for something else than it did."""
    changes = make_action_labels(database, key)
    rows = database.rows(
        f"""SELECT variant, action, sum(n)::BIGINT AS shown,
            sum(n) / sum(sum(n)) OVER (PARTITION BY variant) AS share
        FROM (
            SELECT variant, coalesce(label, p.action) AS action, n FROM {placed} p
                LEFT JOIN {LABELS} l ON p.revision = l.revision AND p.action = l.action
        ) GROUP BY variant, action ORDER BY variant, shown DESC, action"""  # noqa: S608  (our own query)
    )
    noted = []
    for change in changes:
        # What nobody saw before it changed is nothing that a number could mix.
        if any(str(row["action"]).startswith(f"{change.action} (until ") for row in rows):
            noted.append(Note(code="action_changed", sentence=change.sentence))
    return [ShareLine(**row) for row in rows], noted
