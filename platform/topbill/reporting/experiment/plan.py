"""How long an experiment must run, from its own traffic in the lake: `ab.plan` on its rows, and as
text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import ceil, floor, log10
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from topbill import ab
from topbill.ab import DAYS, LIFTS, Method
from topbill.domain import formatting
from topbill.domain.errors import BadData, BadRequest, NotFound, SpecError
from topbill.domain.margin import Margin, MarginUnit
from topbill.reporting.experiment.analysis_rows import AnalysisRows, ExperimentTables
from topbill.reporting.experiment.decision_rule import decision_rule
from topbill.reporting.experiment.exclusion import counted_decisions
from topbill.reporting.experiment.planned import reading_asked
from topbill.reporting.queries.database import load_experiment, open_database
from topbill.spec import Experiment
from topbill.spec.renames import modern

_TEN_YEARS = 3_650.0
_FAR = 3.0
"""A guardrail that takes as many times longer as the smallest lift planned for is out of reach."""


def plan(
    key: str,
    data: Path | str,
    *,
    metric: str | None = None,
    lifts: Sequence[float] = LIFTS,
    days: Sequence[int] = DAYS,
    method: Method | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
    looks: Sequence[float] | None = None,
    as_if: Experiment | None = None,
) -> ab.Plan:
    """How many units and days an experiment needs to show a lift, and the minimum detectable effect
    (MDE) in a time.

    Args:
        key: the experiment's key.
        data: the data folder.
        metric: what is to be lifted; None is what the verdict is about.
        lifts: relative changes to plan for (0.05 is +5%).
        days: whole days from now for which the MDE is told.
        method: how the result will be read; None takes the file's.
        alpha: intervals are read at level 1 − alpha.
        power: the chance to find a lift that is there.
        looks: of method "group-sequential", the fractions of the planned units at which one looks;
            None takes the file's.
        as_if: plan as if this were its file: by its guardrails, those of metrics that the record
            has, and, of the same variants, by its shares. Traffic stays that of the record.

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
        counted = counted_decisions(database, key, tables.experiment["spec"])
        rows = AnalysisRows(database, tables, counted=counted)
        if rows.weighted:
            raise BadData(
                "row_weight",
                f"experiment {key!r} is a sub-sampled log ({rows.weighted:,} decisions stand for "
                "several); expected whole traffic to plan from",
            )
        reading = reading_asked(tables.spec, method, looks)
        result = rows.plan(
            metric=metric,
            lifts=lifts,
            days=days,
            method=reading.method,
            alpha=alpha,
            power=power,
            looks=reading.looks,
            as_if=as_if,
        )
    try:
        experiment = load_experiment(data, key)
    except SpecError:  # of another version of Topbill
        return result
    rule = decision_rule(experiment, reading.method, reading.looks, alpha)
    return msgspec.structs.replace(result, rule=rule)


def plan_of_file(
    experiment: Experiment,
    baseline: float,
    *,
    units_a_day: float | None = None,
    guardrails: Mapping[str, float] = MappingProxyType({}),
    metric: str | None = None,
    method: Method | None = None,
    looks: Sequence[float] | None = None,
    alpha: float = 0.05,
    **settings: Any,
) -> ab.Plan:
    """How many units and days an experiment needs by its file, before it has any traffic: its
    variants' shares, its traffic, its method and looks, and the margins of its guardrails.

    Args:
        experiment: as its file says.
        baseline: the control's value of what is to be lifted.
        units_a_day: new units a day that ask, before its traffic and holdout take their share.
        guardrails: what guardrails are today, rates by their metric; others are not planned for.
        metric: what the baseline is of; None is the objective.
        method, looks: None takes the file's.
        alpha: as for `plan`.
        settings: the others of `ab.plan_ahead`.

    Raises:
        BadRequest: for numbers that cannot be meant, and a guardrail that the file does not have.
        NotFound: it has one variant only.
    """
    if len(experiment.variants) < 2:
        raise NotFound(f"experiment {experiment.key!r} has one variant only; expected two")
    reading = reading_asked(modern(experiment.raw), method, looks)
    control = experiment.control
    variants = [control, *(v for v in experiment.variants if v is not control)]
    if units_a_day is not None:
        units_a_day *= experiment.traffic * (1.0 - experiment.holdout)
    result = ab.plan_ahead(
        baseline,
        units_a_day=units_a_day,
        shares=[variant.share for variant in variants],
        names=[variant.name for variant in variants],
        guardrails=_guardrails_ahead(experiment, guardrails),
        metric=metric or "objective",
        method=reading.method,
        looks=reading.looks,
        alpha=alpha,
        **settings,
    )
    rule = decision_rule(experiment, reading.method, reading.looks, alpha)
    for guardrail in experiment.guardrails:
        name = guardrail.metric
        if name not in guardrails:
            rule.append(
                f"{name} is not planned for: say what it is today, such as --guardrail {name}=8%."
            )
    return msgspec.structs.replace(result, rule=rule)


def _guardrails_ahead(
    experiment: Experiment, values: Mapping[str, float]
) -> list[ab.GuardrailAhead]:
    """The guardrails of which it is known what they are today."""
    own = {guardrail.metric: guardrail for guardrail in experiment.guardrails}
    better = {m.name: m.better for m in (*experiment.metrics, *experiment.unit_metrics)}
    ahead = []
    for name, value in values.items():
        if name not in own:
            expected = ", ".join(own) or "none: the file has no guardrail"
            raise BadRequest("guardrail", f"got {name!r}; expected one of {expected}")
        margin = Margin(own[name].margin, own[name].margin_unit)
        ahead.append(ab.GuardrailAhead(name, margin, better[name], value))
    return ahead


def render_plan(plan: ab.Plan, console: Console) -> None:
    """Print a plan: what it was made from, the units and days that lifts and guardrails need, and
    the lifts that units show.
    """
    is_ahead = not plan.experiment
    subject = "Before launch" if is_ahead else f"[bold]{escape(plan.experiment)}[/]"
    console.print(f"{subject}: how long must it run?")
    traffic = _traffic(plan, is_ahead)
    if plan.reason or plan.baseline is None or plan.sd is None:
        reason = ab.REASONS.get(plan.reason, plan.reason)
        console.print(f"{traffic}\nNothing can be planned yet: {reason}.")
        return
    console.print(
        f"{traffic}\n{escape(plan.metric)} of the control: {plan.baseline:.4f}, "
        f"standard deviation {plan.sd:.4f} by unit",
        highlight=False,
    )
    console.print(
        f"to be found with {plan.power:.0%} power at {1 - plan.alpha:.0%}"
        f"{_looking(plan)}{_holm(plan)}",
        highlight=False,
    )
    console.print(_needs(plan.runtimes, is_ahead))
    if plan.guardrails:
        console.print(_guards(plan.guardrails, is_ahead))
    if plan.detectable:
        console.print(_shows(plan.detectable))
    console.print(
        "Units are the variant's and the control's. Half the lift takes some four times more."
    )
    for sentence in _out_of_reach(plan):
        console.print(sentence)
    if plan.rule:
        console.print("[bold]By what rule it is decided[/]")
        for sentence in plan.rule:
            console.print(f"- {escape(sentence)}", highlight=False)


def _traffic(plan: ab.Plan, is_ahead: bool) -> str:
    if is_ahead:
        several = formatting.several(plan.treatments + 1, "variant")
        a_day = "" if plan.units_a_day is None else f", {plan.units_a_day:,.0f} units a day"
        return f"{several}{a_day}"
    a_day = "too early to say how many a day"
    if plan.units_a_day is not None:
        a_day = f"{plan.units_a_day:,.0f} a day"
    return f"{plan.units:,} units so far, {a_day}"


def _looking(plan: ab.Plan) -> str:
    """When one looks."""
    if plan.method == "group-sequential":
        shares = ", ".join(f"{100 * look:.4g}%" for look in plan.looks)
        return f", looking at {shares} of the planned units"
    looking = {"sequential": ", looking as often as one likes", "fixed": ", looking once"}
    return looking.get(plan.method, "")


def _holm(plan: ab.Plan) -> str:
    """What several treatments cost."""
    if plan.treatments < 2:
        return ""
    first = f"p ≤ {plan.alpha:g}/{plan.treatments}"
    return f";\nthe first of {plan.treatments} treatments is called at {first} (Holm)"


def _needs(runtimes: Sequence[ab.PlannedRun], is_ahead: bool) -> Table:
    # Where guardrails take longer than the call, both are told.
    ships = any(run.ship_units != run.units for run in runtimes if run.ship_units is not None)
    to_ship = ("to ship", "days") if ships else ()
    # Before launch nothing is there yet: all days are still to go.
    to_go = () if is_ahead else ("to go",)
    table = _table(
        "Required sample size of a lift", ("variant", "lift", "units", "days", *to_ship, *to_go)
    )
    for variant, runs in groupby(runtimes, key=lambda run: run.variant):
        # A variant's name stands once, above its lifts.
        for i, run in enumerate(runs):
            row = [
                "" if i else escape(variant),
                f"{100 * run.relative:+.4g}%",
                _units(run.units),
                _days(run.days),
            ]
            if ships:
                row += [_units(run.ship_units), _days(run.ship_days)]
            if not is_ahead:
                row.append(_days_left(run.ship_days_left if ships else run.days_left))
            table.add_row(*row)
        table.add_section()
    return table


def _guards(guardrails: Sequence[ab.PlannedGuardrail], is_ahead: bool) -> Table:
    to_go = () if is_ahead else ("to go",)
    table = _table(
        "Required sample size until guardrails pass (non-inferiority)",
        ("variant", "guardrail", "margin", "units", "days", *to_go),
    )
    for variant, lines in groupby(guardrails, key=lambda line: line.variant):
        for i, line in enumerate(lines):
            row = [
                "" if i else escape(variant),
                escape(line.metric),
                str(Margin(line.margin, line.margin_unit)),
                _units(line.units),
                _days(line.days),
            ]
            if not is_ahead:
                row.append(_days_left(line.days_left))
            table.add_row(*row)
        table.add_section()
    return table


def _out_of_reach(plan: ab.Plan) -> list[str]:
    """A sentence for each guardrail that takes far longer than the lifts do: with its margin, no
    winner would ever be safe to ship."""
    longest: dict[str, int] = {}
    for run in plan.runtimes:
        longest[run.variant] = max(longest.get(run.variant, 0), run.units or 0)
    sentences: dict[str, str] = {}
    for line in plan.guardrails:
        lifts = longest.get(line.variant, 0)
        if line.units is None or not lifts or line.units <= _FAR * lifts:
            continue
        margin = Margin(line.margin, line.margin_unit)
        wider = ""
        if line.reachable is not None:
            rounded = _rounded(line.reachable, line.margin_unit)
            wider = f"; with a margin of {rounded} as many units as the smallest of the lifts"
        sentences.setdefault(
            f"{line.metric} {margin}",
            f"To know that {escape(line.metric)} is not worse by {margin} takes {line.units:,} "
            f"units, far more than the lifts{wider}.",
        )
    return list(sentences.values())


def _rounded(value: float, unit: MarginUnit) -> Margin:
    """A margin in two digits, upward."""
    scale = 10.0 ** (floor(log10(value)) - 1)
    return Margin(ceil(value / scale) * scale, unit)


def _shows(detectable: Sequence[ab.Detectable]) -> Table:
    table = _table("Minimum detectable effect (MDE)", ("variant", "when", "units", "lift"))
    for variant, lines in groupby(detectable, key=lambda line: line.variant):
        for i, line in enumerate(lines):
            when = f"in {formatting.several(line.days, 'day')}" if line.days else "now"
            lift = formatting.percent(line.relative, signed=True)
            table.add_row("" if i else escape(variant), when, f"{line.units:,}", lift)
        table.add_section()
    return table


def _units(units: int | None) -> str:
    return "too many" if units is None else f"{units:,}"


def _days(days: float | None) -> str:
    if days is None:
        return formatting.MISSING
    if days > _TEN_YEARS:
        return "over 10 years"
    return f"{days:,.0f}" if days >= 1.0 else "less than 1"


def _days_left(days: float | None) -> str:
    return "0" if days == 0.0 else _days(days)


def _table(title: str, headings: tuple[str, ...]) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=SIMPLE
    )
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left")
    return table
