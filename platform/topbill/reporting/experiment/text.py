"""The report as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from topbill.ab import Analysis, Comparison, Phase, SampleRatio
from topbill.domain import formatting
from topbill.domain.margin import amount
from topbill.reporting.experiment import wording
from topbill.reporting.experiment.conclusion import conclusion_sentence
from topbill.reporting.experiment.model import (
    Health,
    HoldoutReadout,
    MetricLine,
    Report,
    ShareLine,
    VariantLine,
)

_SHOWN_ACTIONS = 12
_WIDE = 105
"""Columns of a terminal from which on every number has its place."""
_WIDEST = 130
"""From where on those of the effects have it, whose intervals would be broken before."""


def render_report(report: Report, console: Console) -> None:
    """Print the report: what it is about, the verdict, what must be known, effects, variants,
    shares, health.
    """
    title = escape(report.title or report.experiment)
    console.print(f"[bold]{title}[/] ({report.experiment}, {report.status})")
    if report.conclusion is not None:
        console.print(f"[bold]{escape(conclusion_sentence(report.conclusion))}[/]", highlight=False)
        since = wording.since_conclusion_sentence(report)
        if since:
            console.print(escape(since), highlight=False)
    if report.hypothesis:
        console.print(escape(report.hypothesis), style="italic")
    span = wording.span_of(report)
    others = wording.outside(report.health)
    console.print(
        f"{report.units:,} units, {report.decisions:,} decisions{others and f' ({others})'}, "
        f"{span}; lake as of {wording.minute_of(report.published_at)}",
        highlight=False,
    )
    if report.ab is not None:
        where = wording.standing(report)
        sentence = escape(f"{where.word}. {report.ab.verdict.sentence}")
        console.print(f"[bold {wording.COLOURS[where.tone]}]{sentence}[/]", highlight=False)
    for note in report.notes:
        console.print(f"[yellow]![/] {escape(note.sentence)}", highlight=False)
    if report.ab is not None and report.ab.comparisons:
        render_analysis(report.ab, console)
    _print_changes(report, console)
    if report.holdout is not None:
        _print_holdout(report.holdout, console)
    if len(report.phases) > 1:
        console.print(_phases(report.phases))
    if report.excluded:
        console.print(wording.excluded_sentence(report.excluded), highlight=False)
    console.print(_variants(report.variants, console), _metrics(report.metrics))
    if report.shares:
        console.print(_shares(report.shares))
    console.print(_health(report.health))


def render_analysis(analysis: Analysis, console: Console) -> None:
    """Print the effects, what is to be remarked, guardrails and the split."""
    console.print(_effects(analysis, console))
    for note in analysis.notes:
        console.print(escape(note), highlight=False)
    for guardrail in analysis.guardrails:
        verdict = wording.guardrail_result(guardrail, analysis.sample_ratio)
        if guardrail.status == "worse":
            verdict = f"[red]{verdict}[/]"
        change, bounds = wording.worsening(guardrail)
        change = f"; {change}, interval {bounds}" if bounds else ""
        console.print(
            f"guardrail {escape(guardrail.metric)}, {escape(guardrail.variant)}: {verdict}{change}"
            f"; {amount(guardrail.margin, guardrail.margin_unit)} allowed",
            highlight=False,
        )
    split = escape(wording.split_sentence(analysis))
    if analysis.sample_ratio.alarm:
        split = f"[red]{split}[/]"
    console.print(f"sample ratio (SRM check): {split}", highlight=False)
    denominators = wording.denominators_sentence(analysis)
    if denominators:
        console.print(f"decisions per unit: {escape(denominators)}", highlight=False)
    # Segments are many: only those that differ are told here.
    for h in analysis.heterogeneity:
        if h.p_adjusted is not None and h.p_adjusted <= analysis.alpha:
            console.print(
                f"[yellow]![/] the effect of {escape(h.variant)} differs by {escape(h.segment)} "
                f"(adjusted p = {h.p_adjusted:.3g}); see the segments in --json or --html",
                highlight=False,
            )


def _effects(analysis: Analysis, console: Console) -> Table:
    looks: str = analysis.method
    if analysis.method == "sequential":
        looks = "valid however often one looks"
    table = _titled(f"Against {analysis.control}, {1 - analysis.alpha:.0%} intervals ({looks})")
    headings = (
        *("value", "control", "difference", "lift", wording.PROBABILITY, "adjusted p"),
        wording.RESULT,
    )
    # What can be had from the rest is left out of a narrow terminal, rather than cut.
    hidden: list[str] = []
    if console.width < _WIDEST:
        hidden += (wording.PROBABILITY, "adjusted p")
    if console.width < _WIDE:
        hidden += ("value", "control")
    columns = [heading for heading in headings if heading not in hidden]
    _add_columns(table, ("metric", "variant", *columns), left=("metric", "variant", wording.RESULT))
    rows = wording.rows_of(analysis)
    for metric, group in groupby(rows, key=lambda c: wording.metric_name(c.metric, c.per)):
        # A metric's name stands once, above its variants.
        for i, comparison in enumerate(group):
            cells = dict(zip(headings, _effect(comparison, analysis.sample_ratio), strict=True))
            first = "" if i else escape(metric)
            table.add_row(first, escape(str(comparison.variant)), *(cells[h] for h in columns))
        table.add_section()
    return table


def _print_changes(report: Report, console: Console) -> None:
    """Effects that change with the days since the first exposure; those that do not are in JSON."""
    for found in report.novelty:
        if report.ab is not None and wording.changes(found, report.ab.alpha):
            sentence = wording.novelty_sentence(found)
            console.print(f"[yellow]![/] {escape(sentence)}", highlight=False)


def _print_holdout(holdout: HoldoutReadout, console: Console) -> None:
    table = _titled(
        f"Against the holdout: {holdout.units:,} units ({holdout.share:.1%} intended) that get the "
        f"control's order, {1 - holdout.alpha:.0%} intervals"
    )
    headings = ("value", "holdout", "difference", "lift", wording.RESULT)
    hidden = () if console.width >= _WIDE else ("value", "holdout")
    columns = [heading for heading in headings if heading not in hidden]
    _add_columns(table, ("metric", "variant", *columns), left=("metric", "variant", wording.RESULT))
    rows = wording.against_holdout(holdout)
    for metric, group in groupby(rows, key=lambda c: wording.metric_name(c.metric, c.per)):
        for i, comparison in enumerate(group):
            first = "" if i else escape(metric)
            values, effect = wording.value_cells(comparison), _effect_lines(comparison)
            texts = (*values, *effect, wording.call_of(comparison, holdout.sample_ratio))
            cells = dict(zip(headings, texts, strict=True))
            side = escape(wording.side(comparison))
            table.add_row(first, side, *(cells[h] for h in columns))
        table.add_section()
    console.print(table)
    for sentence in wording.holdout_sentences(holdout):
        console.print(escape(sentence), highlight=False)


def _effect(c: Comparison, ratio: SampleRatio) -> tuple[str, ...]:
    call = wording.call_of(c, ratio)
    chance = formatting.chance(c.chance_to_win)
    p = formatting.MISSING if c.p_adjusted is None else f"{c.p_adjusted:.3g}"
    # Rich ends a colour with the cell.
    colour = {"better": "[green]", "worse": "[red]"}.get(call, "")
    return *wording.value_cells(c), *_effect_lines(c), chance, p, colour + call


def _effect_lines(c: Comparison) -> tuple[str, str]:
    """The difference and the lift, each above its interval."""
    cells = wording.effect_cells(c, c.is_proportion)
    lift = f"{cells.lift}\n{cells.lift_interval}"
    # Where no lift can be said, one dash is enough.
    if cells.lift == cells.lift_interval:
        lift = cells.lift
    # The interval is in the unit of the difference above it.
    return f"{cells.difference}\n{cells.interval.removesuffix(' pp')}", lift


def _phases(phases: Sequence[Phase]) -> Table:
    table = _titled("Phases (UTC), and the units that came first in each")
    _add_columns(table, wording.PHASE_HEADINGS, left=wording.PHASE_HEADINGS)
    for phase in phases:
        table.add_row(*map(escape, wording.phase_cells(phase)))
    return table


def _variants(lines: Sequence[VariantLine], console: Console) -> Table:
    table = _titled("Reward per decision (the objective), 95% interval by unit")
    headings = (
        *("variant", "policy", "planned", "units"),
        *("decisions", "mature", "reward", "interval"),
    )
    hidden = () if console.width >= _WIDE else ("policy", "planned")
    columns = [heading for heading in headings if heading not in hidden]
    _add_columns(table, columns, left=("variant", "policy"))
    for line in lines:
        label = escape(line.variant)
        cells = (
            f"{label} (control)" if line.control else label,
            line.policy,
            "" if line.share is None else f"{line.share:.0%}",
            f"{line.units:,}",
            f"{line.decisions:,}",
            f"{line.reward.decisions:,}",
            *wording.mean_cells(line.reward),
        )
        by_heading = dict(zip(headings, cells, strict=True))
        table.add_row(*(by_heading[heading] for heading in columns))
    return table


def _metrics(metric_lines: Sequence[MetricLine]) -> Table:
    table = _titled("Metrics, 95% interval by unit")
    headings = ("metric", "variant", "per", "window", "mature", "value", "interval")
    _add_columns(table, headings, left=("metric", "variant", "per"))
    for metric, lines in groupby(metric_lines, key=lambda line: line.metric):
        for i, line in enumerate(lines):
            label = escape(metric) + (" (guardrail)" if line.guardrail else "")
            table.add_row(
                "" if i else label,
                escape(line.variant),
                escape(line.per),
                formatting.window(line.window_seconds),
                f"{line.estimate.decisions:,}",
                *wording.metric_cells(line),
            )
        table.add_section()
    return table


def _shares(share_lines: Sequence[ShareLine]) -> Table:
    table = _titled("What was shown (what an action is worth takes off-policy evaluation)")
    _add_columns(table, ("variant", "action", "shown", "share"), left=("variant", "action"))
    for variant, group in groupby(share_lines, key=lambda line: line.variant):
        lines = list(group)
        for i, line in enumerate(lines[:_SHOWN_ACTIONS]):
            first = "" if i else escape(variant)
            table.add_row(first, escape(line.action), f"{line.shown:,}", f"{line.share:.1%}")
        rest = lines[_SHOWN_ACTIONS:]
        if rest:
            times, share = 0, 0.0
            for line in rest:
                times += line.shown
                share += line.share
            table.add_row("", f"{len(rest)} others", f"{times:,}", f"{share:.1%}")
        table.add_section()
    return table


def _health(health: Health) -> Table:
    table = _titled("Health")
    _add_columns(table, ("check", "result"), left=("check", "result"))
    # The first check is explained, line by line, where it fails.
    cells = wording.health_cells(health)
    (drawn, verdict), rest = cells[0], cells[1:]
    off = wording.off_lines(health)
    table.add_row(drawn, f"[red]{verdict}[/]" if off else verdict)
    for line in off:
        interval = ""
        if line.low is not None and line.high is not None and line.mean_weight is not None:
            bounds = f"[{line.low:.3f}, {line.high:.3f}]"
            interval = escape(f", mean of 1/p {line.mean_weight:.3f} {bounds}, must be 1")
        table.add_row(
            f"  {escape(line.variant)}: {escape(line.action)}",
            f"drawn {line.drawn:,}, expected {line.expected:,.1f}{interval}",
        )
    for check, result in rest:
        table.add_row(check, escape(result))
    return table


def _titled(title: str) -> Table:
    return Table(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=SIMPLE
    )


def _add_columns(table: Table, headings: Iterable[str], left: Sequence[str]) -> None:
    """Columns of words begin at the left, those of numbers end at the right."""
    for heading in headings:
        table.add_column(heading, justify="left" if heading in left else "right")
