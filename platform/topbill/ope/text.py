"""An evaluation as text for people: each target's estimates beside what the log earned, or why
there is none.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from topbill.ope.diagnostics import REASONS, Diagnostics
from topbill.ope.evaluate import Evaluation
from topbill.ope.result import Estimate


def render(found: Evaluation, console: Console) -> None:
    """Print the evaluation."""
    left = ", ".join(f"{count:,} {cause}" for cause, count in found.left_out.items())
    console.print(
        f"[bold]{found.experiment}[/]: {found.decisions:,} decisions of {found.units:,} units "
        f"by {', '.join(found.variants)}" + (f"; left out: {left}" if left else "")
    )
    for name, estimates in found.targets.items():
        table = Table(title=name, title_justify="left", show_edge=False)
        for heading in ("estimator", "value", "interval", "against the log"):
            table.add_column(heading, justify="left" if heading == "estimator" else "right")
        table.add_row("[dim]the log itself[/]", *_numbers(found.logged), "")
        for e in estimates.values():
            shown = e.estimator if e.lam is None else f"{e.estimator} λ={e.lam:g}"
            table.add_row(shown, *_numbers(e), _against(e, found.logged))
        console.print(table)
        first = next(iter(estimates.values()))
        _explain(estimates.values(), first.diagnostics, console)


def _numbers(e: Estimate) -> tuple[str, str]:
    if e.value is None or e.low is None or e.high is None:
        return "–", str(e.reason)
    return f"{e.value:.5g}", f"{e.low:.5g} to {e.high:.5g}"


def _against(e: Estimate, logged: Estimate) -> str:
    return f"{e.value / logged.value - 1:+.1%}" if e.value is not None and logged.value else ""


def _explain(estimates: Iterable[Estimate], d: Diagnostics, console: Console) -> None:
    codes = dict.fromkeys(e.reason for e in estimates if e.reason)
    for code in codes:
        console.print(f"  [yellow]{code}[/]: {REASONS[code]}", highlight=False)
    if not d.rows:
        return
    console.print(
        f"  effective sample {d.ess:,.0f} of {d.rows:,}; mean weight {d.mean_weight:.3f}; "
        f"largest weight {d.largest_weight:.3g} ({d.largest_share:.2%} of all)",
        style="dim",
        highlight=False,
    )
    for warning in d.warnings:
        console.print(f"  [yellow]note[/]: {warning}", highlight=False)
