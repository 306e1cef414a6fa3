"""How long an experiment must run, from its own traffic in the lake: `ab.plan` on its rows, and as
text.
"""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted`)

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
from topbill.domain.errors import NotFound
from topbill.lake import quoted
from topbill.reporting.experiment.analysis_rows import DAY, UNIT, VARIANT, gather
from topbill.reporting.experiment.effects import design, prepared
from topbill.reporting.queries.database import moment, opened, rows


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
    """Units and days that experiment `key` needs for each of `lifts` on `metric` (None: what its
    verdict is about), and the least lifts that show in `days` from now, read by `method` at level 1
    − alpha, found with that `power`.

    Raises NotFound when there is no lake yet, no such experiment, or only one variant in it;
    BadRequest for an unknown metric and for numbers that cannot be meant. Weak data never raises:
    there are no runtimes then, and `reason` says why.
    """
    with opened(data) as connection:
        declared = rows(connection, f"SELECT * FROM variants WHERE experiment = {quoted(key)}")
        if not declared:
            known = ", ".join(
                row["key"] for row in rows(connection, "SELECT key FROM experiments ORDER BY key")
            )
            raise NotFound(
                f"no experiment {key!r} in the lake; expected one of: {known or 'none was published yet'}"
            )
        if len(declared) < 2:
            raise NotFound(f"experiment {key!r} has one variant only; expected two to compare")
        metrics = rows(connection, f"SELECT * FROM metrics WHERE experiment = {quoted(key)}")
        past = gather(connection, key, metrics, [], moment(connection))
        return ab.plan(
            prepared(connection),
            design(key, declared, metrics),
            unit=UNIT,
            variant=VARIANT,
            day=DAY,
            metric=metric,
            relative=lifts,
            days=days,
            covariates=past,
            method=method,
            alpha=alpha,
            power=power,
        )


def render_plan(found: ab.Plan, console: Console) -> None:
    """Print a plan: what it was made from, the units and days that lifts need, and the lifts that
    units show.
    """
    console.print(f"[bold]{escape(found.experiment)}[/]: how long must it run?")
    traffic = f"{found.units:,} units so far, {found.units_a_day:,.0f} a day"
    if found.reason or found.baseline is None or found.sd is None:
        console.print(
            f"{traffic}\nNothing can be planned yet: {ab.REASONS.get(found.reason, found.reason)}."
        )
        return
    peeking = {"sequential": ", looking as often as one likes", "fixed": ", looking once"}.get(
        found.method, ""
    )
    about = f"{escape(found.metric)} of the control: {found.baseline:.4f}, standard deviation {found.sd:.4f} by unit"
    console.print(f"{traffic}\n{about}", highlight=False)
    console.print(
        f"to be found with {found.power:.0%} power at {1 - found.alpha:.0%}{peeking}",
        highlight=False,
    )
    needs = _table("What a lift needs", ("variant", "lift", "units", "days"))
    for name, runs in groupby(found.runtimes, key=lambda run: run.variant):
        for i, run in enumerate(runs):
            units = "too many" if run.units is None else f"{run.units:,}"
            needs.add_row(
                "" if i else escape(name), f"{100 * run.relative:+.4g}%", units, _days(run.days)
            )
        needs.add_section()
    shows = _table("The least lift that will show", ("variant", "when", "units", "lift"))
    for name, seen in groupby(found.detectable, key=lambda one: one.variant):
        for i, one in enumerate(seen):
            when = f"in {one.days:,} {'day' if one.days == 1 else 'days'}" if one.days else "now"
            lift = "-" if one.relative is None else f"{one.relative:+,.1%}"
            shows.add_row("" if i else escape(name), when, f"{one.units:,}", lift)
        shows.add_section()
    console.print(needs, shows)
    console.print(
        "Units are the variant's and the control's. Half the lift takes some four times more."
    )


def _days(days: float | None) -> str:
    if days is None:
        return "-"
    if days > 3_650.0:
        return "over 10 years"
    return f"{days:,.0f}" if days >= 1.0 else "less than 1"


def _table(title: str, headings: tuple[str, ...]) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=SIMPLE
    )
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left")
    return table
