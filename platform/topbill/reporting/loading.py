"""One way to a report: `load` by the key of an experiment or a page, and the three ways to show
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import msgspec
from rich.console import Console

from topbill.ab import Method
from topbill.domain.errors import BadRequest, NotFound
from topbill.domain.suggestion import nearest
from topbill.reporting.experiment import html, text
from topbill.reporting.experiment.build import load_experiment_report
from topbill.reporting.experiment.model import Report
from topbill.reporting.page import PageReport, load_page_report, page_html, render_page_report
from topbill.reporting.queries import coverage
from topbill.reporting.queries.database import concluded_keys, open_database


def load(
    key: str,
    data: Path | str,
    *,
    segments: Sequence[str] | None = None,
    method: Method | None = None,
    looks: Sequence[float] | None = None,
    control: str | None = None,
    weights: Mapping[str, float] | None = None,
    since: str | date | None = None,
    until: str | date | None = None,
    revision: str | None = None,
    first_exposure: bool = False,
) -> Report | PageReport:
    """The report of an experiment or a page; no page has the key of an experiment.

    Args:
        key: the experiment's or the page's key.
        data: the data folder.
        segments: of an experiment: context features to look into; None takes all of type category.
        method: of an experiment: how intervals of differences are made (see `ab.compare`); None
            takes the file's.
        looks: of an experiment: when was looked, with "group-sequential" (see `ab.compare`); None
            takes the file's.
        control: of an experiment: the variant that others are compared with; None takes the file's
            control.
        since, until, revision, first_exposure: of an experiment: which part of its record, and
            whether all units count for their first variant (see `load_experiment_report`).
        weights: of a page: what each metric weighs; None takes those of the titles' experiment.

    Raises:
        NotFound: there is no lake yet, or nothing of that key in it.
        BadRequest: a weight of an unknown metric, a control that is no variant, or a part that
            cannot be meant.
        LogError: the lake cannot be read.
    """
    if is_page(key, data):
        for name, part in (("since", since), ("until", until), ("revision", revision)):
            if part is not None:
                raise BadRequest(name, f"{key} is a page, of which all is read; leave it out")
        return load_page_report(key, data, weights=weights)
    return load_experiment_report(
        key,
        data,
        segments=segments,
        method=method,
        looks=looks,
        control=control,
        since=since,
        until=until,
        revision=revision,
        first_exposure=first_exposure,
    )


def is_page(key: str, data: Path | str) -> bool:
    """Whether `key` is a page's, or an experiment's.

    Raises:
        NotFound: there is no lake yet, or nothing of that key in it.
    """
    with open_database(data) as database:
        rows = database.rows("SELECT key FROM experiments ORDER BY key")
        # Of what was concluded the report is there when all else is gone.
        kept = concluded_keys(database)
    experiments = sorted({*kept, *(row["key"] for row in rows)})
    # First, since their list is short, where pages are found among all decisions.
    if key in experiments:
        return False
    pages = coverage.pages(data)
    if key in pages:
        return True
    known = [*experiments, *pages]
    hint = nearest(key, known)
    raise NotFound(
        f"no experiment or page {key!r} in the lake; expected one of: "
        f"{', '.join(known) or 'none was published yet'}{hint and f'; {hint}'}"
    )


def render_text(report: Report | PageReport, console: Console) -> None:
    """Print a report on a terminal."""
    # Two kinds of report, two ways to print one; nobody else tells them apart.
    if isinstance(report, PageReport):
        render_page_report(report, console)
    else:
        text.render_report(report, console)


def to_html(report: Report | PageReport) -> str:
    """A report as a page of HTML: no script, no font, no image from elsewhere."""
    return page_html(report) if isinstance(report, PageReport) else html.to_html(report)


def to_json(report: Report | PageReport) -> str:
    """A report as JSON, indented; what is missing is null with a reason beside it."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()
