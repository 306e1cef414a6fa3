"""An evaluation as text for people: each target's estimates beside what the log earned, or why
there is none.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from topbill.ope.diagnostics import REASONS
from topbill.ope.evaluation import Evaluation
from topbill.ope.result import Estimate, Estimates


def render(result: Evaluation, console: Console) -> None:
    """Print the evaluation."""
    headline = (
        f"[bold]{result.experiment}[/]: {result.decisions:,} decisions of {result.units:,} units "
        f"by {', '.join(result.variants)}"
    )
    if result.left_out:
        causes = ", ".join(f"{count:,} {cause}" for cause, count in result.left_out.items())
        headline += f"; left out: {causes}"
    console.print(headline)
    for name, estimates in result.targets.items():
        console.print(_table(name, estimates, result.logged))
        _explain(estimates, console)


def _table(name: str, estimates: Estimates, logged: Estimate) -> Table:
    table = Table(title=name, title_justify="left", show_edge=False)
    for heading in ("estimator", "value", "interval", "against the log"):
        table.add_column(heading, justify="left" if heading == "estimator" else "right")
    table.add_row("[dim]the log itself[/]", *_numbers(logged), "")
    for e in estimates.values():
        label = e.estimator if e.lam is None else f"{e.estimator} λ={e.lam:g}"
        table.add_row(label, *_numbers(e), _against(e, logged))
    return table


def _numbers(e: Estimate) -> tuple[str, str]:
    if e.value is None or e.low is None or e.high is None:
        return "–", str(e.reason)
    return f"{e.value:.5g}", f"{e.low:.5g} to {e.high:.5g}"


def _against(e: Estimate, logged: Estimate) -> str:
    return f"{e.value / logged.value - 1:+.1%}" if e.value is not None and logged.value else ""


def _explain(estimates: Estimates, console: Console) -> None:
    """Why numbers are missing, and what is known of the log that they came from."""
    for code in dict.fromkeys(e.reason for e in estimates.values() if e.reason):
        console.print(f"  [yellow]{code}[/]: {REASONS[code]}", highlight=False)
    # The log and the target are the same for all estimators, and so are their diagnostics.
    d = next(iter(estimates.values())).diagnostics
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
