"""How long an experiment must run, from its own traffic in the lake: `ab.plan` on its rows, and as
text.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from topbill import ab
from topbill.ab import DAYS, LIFTS, Method
from topbill.domain import formatting
from topbill.domain.errors import BadData, NotFound
from topbill.reporting.experiment.analysis_rows import AnalysisRows, ExperimentTables
from topbill.reporting.queries.database import open_database

_TEN_YEARS = 3_650.0


def plan(
    key: str,
    data: Path | str,
    *,
    metric: str | None = None,
    lifts: Sequence[float] = LIFTS,
    days: Sequence[int] = DAYS,
    method: Method = "sequential",
    alpha: float = 0.05,
    power: float = 0.8,
) -> ab.Plan:
    """How many units and days an experiment needs to show a lift, and the least lifts that show in
    a time.

    Args:
        key: the experiment's key.
        data: the data folder.
        metric: what is to be lifted; None is what the verdict is about.
        lifts: relative changes to plan for (0.05 is +5%).
        days: whole days from now for which the least lift is told.
        method: how the result will be read.
        alpha: intervals are read at level 1 − alpha.
        power: the chance to find a lift that is there.

    Raises:
        NotFound: there is no lake yet, no such experiment, or only one variant in it.
        BadRequest: an unknown metric, or numbers that cannot be meant.
        BadData: a log that was sub-sampled: its traffic is not what it holds.

    Weak data never raises: there are no runtimes then, and `reason` says why.
    """
    with open_database(data) as database:
        tables = ExperimentTables.read(database, key)
        # A plan is for a difference; one variant has none.
        if len(tables.variants) < 2:
            raise NotFound(f"experiment {key!r} has one variant only; expected two to compare")
        rows = AnalysisRows(database, tables)
        if rows.weighted:
            raise BadData(
                "row_weight",
                f"experiment {key!r} is a sub-sampled log ({rows.weighted:,} decisions stand for "
                "several); expected whole traffic to plan from",
            )
        return rows.plan(
            metric=metric, lifts=lifts, days=days, method=method, alpha=alpha, power=power
        )


def render_plan(plan: ab.Plan, console: Console) -> None:
    """Print a plan: what it was made from, the units and days that lifts need, and the lifts that
    units show.
    """
    console.print(f"[bold]{escape(plan.experiment)}[/]: how long must it run?")
    a_day = "too early to say how many a day"
    if plan.units_a_day is not None:
        a_day = f"{plan.units_a_day:,.0f} a day"
    traffic = f"{plan.units:,} units so far, {a_day}"
    if plan.reason or plan.baseline is None or plan.sd is None:
        reason = ab.REASONS.get(plan.reason, plan.reason)
        console.print(f"{traffic}\nNothing can be planned yet: {reason}.")
        return
    looking = {"sequential": ", looking as often as one likes", "fixed": ", looking once"}
    console.print(
        f"{traffic}\n{escape(plan.metric)} of the control: {plan.baseline:.4f}, "
        f"standard deviation {plan.sd:.4f} by unit",
        highlight=False,
    )
    console.print(
        f"to be found with {plan.power:.0%} power at {1 - plan.alpha:.0%}"
        f"{looking.get(plan.method, '')}",
        highlight=False,
    )
    console.print(_needs(plan.runtimes), _shows(plan.detectable))
    console.print(
        "Units are the variant's and the control's. Half the lift takes some four times more."
    )


def _needs(runtimes: Sequence[ab.PlannedRun]) -> Table:
    table = _table("What a lift needs", ("variant", "lift", "units", "days"))
    for variant, runs in groupby(runtimes, key=lambda run: run.variant):
        # A variant's name stands once, above its lifts.
        for i, run in enumerate(runs):
            units = "too many" if run.units is None else f"{run.units:,}"
            lift = f"{100 * run.relative:+.4g}%"
            table.add_row("" if i else escape(variant), lift, units, _days(run.days))
        table.add_section()
    return table


def _shows(detectable: Sequence[ab.Detectable]) -> Table:
    table = _table("The least lift that will show", ("variant", "when", "units", "lift"))
    for variant, lines in groupby(detectable, key=lambda line: line.variant):
        for i, line in enumerate(lines):
            when = f"in {formatting.several(line.days, 'day')}" if line.days else "now"
            lift = formatting.percent(line.relative, signed=True)
            table.add_row("" if i else escape(variant), when, f"{line.units:,}", lift)
        table.add_section()
    return table


def _days(days: float | None) -> str:
    if days is None:
        return formatting.MISSING
    if days > _TEN_YEARS:
        return "over 10 years"
    return f"{days:,.0f}" if days >= 1.0 else "less than 1"


def _table(title: str, headings: tuple[str, ...]) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=SIMPLE
    )
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left")
    return table
