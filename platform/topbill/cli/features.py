"""Tables of features by id: versions, drift, and what would be taken over."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.box import SIMPLE
from rich.table import Table

from topbill.cli.output import TEXT, Output
from topbill.cli.shell import (
    DATA,
    Data,
    LakeUrl,
    app,
    out,
    say,
    use_lake,
)
from topbill.domain.errors import BadData

if TYPE_CHECKING:
    from topbill.domain.entity import EntitySource
    from topbill.entities import HistoryLine
    from topbill.entities.drift import Drift, FeatureSummary
    from topbill.reporting.queries.features import TableReport, TableVersion


@app.command
def features(
    *files: Path, data: Data = DATA, lake_url: LakeUrl = "", output: Output = TEXT
) -> None:
    """Show the tables of features by id: the version in force, its columns, how they moved since
    the one before, how often ids were unknown, and what was refused.

    A column is marked where a mean moved by more than 0.2 standard deviations (SMD), a category's
    stability index (PSI) is above 0.2, the mean cosine of the same ids' embeddings below 0.9, or
    5 percentage points more or less are unknown.

    Args:
        files: Experiment files: read their tables now instead, and say what is wrong with them or
            would be taken over; exit 1 where anything is wrong.
    """
    use_lake(lake_url)
    if files:
        checks = list(_checks(files, data))
        output.show(checks, lambda: _say_checks(checks))
        sys.exit(0 if all(check.fits for check in checks) else 1)
    from topbill.reporting.queries.features import tables

    reports = tables(data)
    output.show(reports, lambda: _say_reports(reports, data), lambda: _rows(reports))


def _rows(reports: Iterable[TableReport]) -> Iterator[dict[str, Any]]:
    """A row a column of each version in force."""
    for report in reports:
        if report.current is not None:
            for name, own in report.current.line.columns.items():
                version = report.current.line.version
                beside = {"table": report.table, "version": version, "column": name}
                yield {**beside, **msgspec.to_builtins(own)}


def _say_reports(reports: Sequence[TableReport], data: Path) -> None:
    if not reports:
        say(f"{data}: no table was taken over yet; name some under entities: in an experiment")
    for report in reports:
        _show(report)


class TableCheck(msgspec.Struct, frozen=True):
    """Whether a table of a file could be taken over; without a table, that the file names none."""

    file: str
    table: str
    fits: bool
    message: str


def _checks(files: tuple[Path, ...], data: Path) -> Iterator[TableCheck]:
    """Read each table as a service would."""
    from topbill import spec

    for file in files:
        experiment = spec.load(file)
        for source in experiment.entities:
            try:
                yield TableCheck(file.name, source.name, True, _fits(source, data))
            except BadData as error:
                yield TableCheck(file.name, source.name, False, str(error))
        if not experiment.entities:
            yield TableCheck(file.name, "", True, "names no entities")


def _say_checks(checks: Iterable[TableCheck]) -> None:
    for check in checks:
        place = f"{check.file}: {check.table}" if check.table else check.file
        say(f"{place}: {check.message}", None if check.fits else "red")


def _fits(source: EntitySource, data: Path) -> str:
    from topbill.domain.entity import UNIT
    from topbill.entities import KeptTables, read_table
    from topbill.entities.table import version_of
    from topbill.log.unit_ids import known_unit_ids

    stored = known_unit_ids(data).stored if source.of == UNIT else None
    rows = read_table(source, data, stored)
    version = version_of(rows.ids, rows.texts)
    current = KeptTables(data).state(source.declaration).current
    is_new = current is None or current.version != version
    return f"{source.described} fits: {len(rows.ids):,} rows, version {version}, " + (
        "not taken over yet" if is_new else "in force"
    )


def _show(report: TableReport) -> None:
    say(f"{report.table}: {report.file}, by {report.of}", "bold")
    if report.refused is not None:
        say(f"  refused {_when(report.refused)}: {report.refused.refused}", "red")
    current = report.current
    if current is None:
        say("  no version yet: every id is unknown")
        return
    table = Table(box=SIMPLE, show_edge=False)
    for name in ("version", "since (UTC)", "rows", "looked up", "unknown", "moved"):
        table.add_column(name, justify="left" if name in ("version", "moved") else "right")
    for version in report.versions:
        if version.line.version:
            table.add_row(*_row(version))
    out.print(table)
    columns = Table(box=SIMPLE, show_edge=False)
    for name in ("column", "unknown", "values", "since the version before"):
        columns.add_column(name)
    for name, own in current.line.columns.items():
        moved = current.line.drift.get(name)
        told = "yellow" if moved is not None and moved.told else None
        columns.add_row(
            name,
            f"{own.missing:.1%}",
            _values(own),
            "" if moved is None else _moved(moved),
            style=told,
        )
    out.print(columns)


def _row(version: TableVersion) -> Iterator[str]:
    line = version.line
    yield line.version
    yield _when(line)
    yield f"{line.rows:,}"
    yield f"{version.asked:,}"
    yield "" if version.unknown_share is None else f"{version.unknown_share:.1%}"
    yield ", ".join(name for name, moved in line.drift.items() if moved.told)


def _when(line: HistoryLine) -> str:
    return f"{datetime.fromtimestamp(line.at, UTC):%Y-%m-%d %H:%M}"


def _values(summary: FeatureSummary) -> str:
    if summary.shares:
        most = sorted(summary.shares.items(), key=lambda pair: -pair[1])[:3]
        return ", ".join(f"{value or '(other)'} {share:.0%}" for value, share in most)
    if len(summary.means) == 1:
        return f"mean {summary.means[0]:.3g}, sd {summary.deviations[0]:.3g}"
    return f"{len(summary.means)} numbers" if summary.means else ""


def _moved(drift: Drift) -> str:
    parts = []
    if drift.smd is not None:
        parts.append(f"SMD {drift.smd:.2f}")
    if drift.psi is not None:
        parts.append(f"PSI {drift.psi:.2f}")
    if drift.cosine is not None:
        parts.append(f"cosine {drift.cosine:.2f}")
    if drift.missing:
        parts.append(f"unknown {drift.missing:+.1%}")
    return ", ".join(parts)
