"""The report as text for a terminal."""

from __future__ import annotations

from itertools import groupby

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from topbill.ab import Analysis, Comparison
from topbill.reporting import formatting
from topbill.reporting.experiment.model import Health, Report

_SHOWN_ACTIONS = 12
_WIDE = 105
"""Columns of a terminal from which on every number has its place."""


def render_text(report: Report, console: Console) -> None:
    """Print the report: what it is about, the verdict, what must be known, effects, variants,
    shares, health.
    """
    console.print(
        f"[bold]{escape(report.title or report.experiment)}[/] ({report.experiment}, {report.status})"
    )
    if report.hypothesis:
        console.print(escape(report.hypothesis), style="italic")
    span = f"{report.first_at} to {report.last_at}" if report.first_at else "no decisions yet"
    console.print(
        f"{report.units:,} units, {report.decisions:,} decisions, {span}; lake as of {report.published_at}",
        highlight=False,
    )
    if report.ab is not None:
        console.print(
            f"[bold {formatting.tone(report.ab)}]{escape(report.ab.verdict.sentence)}[/]",
            highlight=False,
        )
    for note in report.notes:
        console.print(f"[yellow]![/] {escape(note.sentence)}", highlight=False)
    if report.ab is not None and report.ab.comparisons:
        _effects(report.ab, console)
    console.print(_variants(report, console), _metrics(report), *_shares(report))
    _health(report.health, console)


def _effects(analysis: Analysis, console: Console) -> None:
    peeking = (
        "valid however often one looks" if analysis.method == "sequential" else analysis.method
    )
    table = _table(f"Against {analysis.control}, {1 - analysis.alpha:.0%} intervals ({peeking})")
    headings = ("value", "control", "lift", "interval", "chance", "adjusted p", "call")
    shown = [
        h for h in headings if console.width >= _WIDE or h not in ("value", "control", "adjusted p")
    ]
    for heading in ("metric", "variant", *shown):
        table.add_column(
            heading, justify="left" if heading in ("metric", "variant", "call") else "right"
        )
    for metric, group in groupby(analysis.comparisons, key=lambda c: c.metric):
        for i, c in enumerate(group):
            cells = dict(zip(headings, _effect(c), strict=True))
            table.add_row(
                "" if i else escape(metric), escape(str(c.variant)), *(cells[h] for h in shown)
            )
        table.add_section()
    console.print(table)
    for note in analysis.notes:
        console.print(escape(note), highlight=False)
    for g in analysis.guardrails:
        verdict = "[red]broken[/]" if g.status == "worse" else formatting.GUARDRAILS[g.status]
        bounds = formatting.between(g.worse_by_low, g.worse_by_high)
        change = f"; worse by {formatting.signed(g.worse_by)}, interval {bounds}" if bounds else ""
        allowed = f"; {g.margin:.1%} allowed"
        console.print(
            f"guardrail {escape(g.metric)}, {escape(g.variant)}: {verdict}{change}{allowed}",
            highlight=False,
        )
    ratio = analysis.sample_ratio
    split = ", ".join(f"{escape(v)} {n:,}" for v, n in ratio.counts.items())
    p = ratio.p_value if ratio.p_sequential is None else ratio.p_sequential
    alarm = "[red]not as intended[/]" if ratio.alarm else "as intended"
    console.print(f"split of units: {alarm} ({split}; p = {p:.3g})", highlight=False)
    for h in analysis.heterogeneity:
        if h.p_adjusted is not None and h.p_adjusted <= analysis.alpha:
            console.print(
                f"[yellow]![/] the effect of {escape(h.variant)} differs by {escape(h.segment)} "
                f"(adjusted p = {h.p_adjusted:.3g}); see the segments in --json or --html",
                highlight=False,
            )


def _effect(c: Comparison) -> tuple[str, ...]:
    *numbers, call = formatting.comparison(c)
    chance = "-" if c.chance_to_win is None else f"{c.chance_to_win:.0%}"
    p = "-" if c.p_adjusted is None else f"{c.p_adjusted:.3g}"
    colour = {"better": "[green]", "worse": "[red]"}.get(call, "")
    return *numbers, chance, p, colour + call


def _variants(report: Report, console: Console) -> Table:
    table = _table("Reward per decision (the objective), 95% interval by unit")
    headings = (
        "variant",
        "policy",
        "planned",
        "units",
        "decisions",
        "mature",
        "reward",
        "interval",
    )
    shown = [h for h in headings if console.width >= _WIDE or h not in ("policy", "planned")]
    for heading in shown:
        table.add_column(heading, justify="left" if heading in ("variant", "policy") else "right")
    for v in report.variants:
        label = f"{escape(v.variant)} (control)" if v.control else escape(v.variant)
        planned = "" if v.share is None else f"{v.share:.0%}"
        counts = (f"{v.units:,}", f"{v.decisions:,}", f"{v.reward.decisions:,}")
        cells = dict(
            zip(
                headings,
                (label, v.policy, planned, *counts, *formatting.estimate(v.reward)),
                strict=True,
            )
        )
        table.add_row(*(cells[h] for h in shown))
    return table


def _metrics(report: Report) -> Table:
    table = _table("Metrics per decision, 95% interval by unit")
    for heading in ("metric", "variant"):
        table.add_column(heading)
    for heading in ("window", "mature", "value", "interval"):
        table.add_column(heading, justify="right")
    for metric, lines in groupby(report.metrics, key=lambda line: line.metric):
        for i, line in enumerate(lines):
            label = escape(metric) + (" (guardrail)" if line.guardrail else "")
            found = line.estimate
            table.add_row(
                "" if i else label,
                escape(line.variant),
                formatting.duration(line.window_seconds),
                f"{found.decisions:,}",
                *formatting.estimate(found),
            )
        table.add_section()
    return table


def _shares(report: Report) -> list[Table]:
    if not report.shares:
        return []
    table = _table("What was shown (what an action is worth takes off-policy evaluation)")
    for heading in ("variant", "action"):
        table.add_column(heading)
    for heading in ("shown", "share"):
        table.add_column(heading, justify="right")
    for variant, group in groupby(report.shares, key=lambda line: line.variant):
        lines = list(group)
        for i, line in enumerate(lines[:_SHOWN_ACTIONS]):
            table.add_row(
                "" if i else escape(variant),
                escape(line.action),
                f"{line.shown:,}",
                f"{line.share:.1%}",
            )
        if len(lines) > _SHOWN_ACTIONS:
            rest = lines[_SHOWN_ACTIONS:]
            shown, share = sum(line.shown for line in rest), sum(line.share for line in rest)
            table.add_row("", f"{len(rest)} others", f"{shown:,}", f"{share:.1%}")
        table.add_section()
    return [table]


def _health(health: Health, console: Console) -> None:
    table = _table("Health")
    table.add_column("check")
    table.add_column("result")
    tested = [line for line in health.propensity if line.ok is not None]
    if tested:
        off = [line for line in tested if not line.ok]
        verdict = (
            f"[red]{len(off)} of {len(tested)} are off[/]"
            if off
            else f"all {len(tested)} tested are as logged"
        )
        drawn = (
            f"the latest {health.propensity_sampled:.0%} of decisions; "
            if health.propensity_sampled < 1
            else ""
        )
        table.add_row(
            "actions drawn as often as logged",
            f"{verdict} ({drawn}mean of 1/p of the drawn must be 1)",
        )
        for line in off:
            interval = (
                ""
                if line.low is None
                else f", mean weight {line.mean_weight:.3f} [{line.low:.3f}, {line.high:.3f}]"
            )
            where = f"  {escape(line.variant)}: {escape(line.action)}"
            table.add_row(where, f"drawn {line.drawn:,}, expected {line.expected:,.1f}{interval}")
    else:
        table.add_row("actions drawn as often as logged", "cannot be tested yet")
    table.add_row("choices against summed probabilities", escape(formatting.choices(health)))
    table.add_row(
        "decisions by reason", ", ".join(f"{k} {n:,}" for k, n in health.reasons.items()) or "none"
    )
    table.add_row("fallbacks", formatting.percent(health.fallback_share))
    table.add_row("mature decisions", formatting.percent(health.mature_share))
    table.add_row(
        "reward events that joined in a window", formatting.percent(health.reward_join_rate)
    )
    table.add_row("mature decisions with a reward event", formatting.percent(health.rewarded_share))
    latency = ", ".join(f"{name} {ms:.2f}" for name, ms in health.latency_ms.items())
    table.add_row("engine time, ms", latency or "none")
    console.print(table)


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=SIMPLE
    )
