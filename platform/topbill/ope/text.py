"""An evaluation as text for people: all candidates in one table beside what the log earned, then
each by every estimator, or why there is no number and what to do.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from topbill.domain.reasons import REMEDIES
from topbill.ope.comparison import THE_LOG
from topbill.ope.diagnostics import REASONS
from topbill.ope.evaluation import THE_OBJECTIVE, Evaluation
from topbill.ope.result import Estimate, Estimates


def render(result: Evaluation, console: Console) -> None:
    """Print the evaluation."""
    console.print(_headline(result))
    if len(result.targets) > 1:
        console.print(_all_candidates(result))
    for name, estimates in result.targets.items():
        console.print(_table(name, estimates, result))
        _explain(estimates, console)
        _tell_sample(estimates, result, console)
    pairs = [pair for pair in result.differences if pair.baseline != THE_LOG]
    if pairs:
        console.print(_pairs(result))


def _headline(result: Evaluation) -> str:
    headline = (
        f"[bold]{result.experiment}[/]: {result.decisions:,} decisions of {result.units:,} units "
        f"by {', '.join(result.variants)}"
    )
    if result.selection:
        parts = [*result.selection.get("where", ())]
        for name in ("since", "until"):
            if name in result.selection:
                parts.append(f"{name} {result.selection[name]}")
        objective = result.selection.get("objective", {})
        if objective:
            weights = ", ".join(f"{name}={weight:g}" for name, weight in objective.items())
            parts.append(f"judged by {weights}")
        headline += f"; only {', '.join(parts)}" if parts else ""
    if result.measured_in != THE_OBJECTIVE:
        headline += f"; values are of {result.measured_in}, in its own units"
    if result.left_out:
        causes = ", ".join(f"{count:,} {cause}" for cause, count in result.left_out.items())
        headline += f"; left out: {causes}"
    return headline


def _all_candidates(result: Evaluation) -> Table:
    """A row per candidate, by the estimator that assumes least of those that gave a number."""
    table = _with_headings(
        "all candidates",
        "policy",
        "estimator",
        "value",
        "interval",
        "more than the log",
        "interval",
    )
    table.add_row("[dim]the log itself[/]", "mean", *_numbers(result.logged), "", "")
    for name, estimates in result.targets.items():
        e = estimates.recommended
        if e is None:
            refusal = next(iter(estimates.values()))
            table.add_row(name, "–", *_numbers(refusal), "", "")
            continue
        difference = _difference(result, name, e.estimator)
        table.add_row(name, e.estimator, *_numbers(e), *_signed(difference))
    return table


def _table(name: str, estimates: Estimates, result: Evaluation) -> Table:
    table = _with_headings(
        name, "estimator", "value", "interval", "more than the log", "interval", "relative"
    )
    logged = result.logged
    table.add_row("[dim]the log itself[/]", *_numbers(logged), "", "", "")
    for e in estimates.values():
        label = e.estimator if e.lam is None else f"{e.estimator} λ={e.lam:g}"
        difference = _difference(result, name, e.estimator)
        table.add_row(label, *_numbers(e), *_signed(difference), _against(e, logged))
    return table


def _pairs(result: Evaluation) -> Table:
    """How much more one candidate earns than another, by its recommended estimator."""
    table = _with_headings(
        "candidate against candidate, on the same decisions",
        "policy",
        "more than",
        "estimator",
        "difference",
        "interval",
    )
    for pair in result.differences:
        if pair.baseline == THE_LOG:
            continue
        e = pair.estimates.recommended or next(iter(pair.estimates.values()))
        table.add_row(pair.target, pair.baseline, e.estimator, *_signed(e))
    return table


def _with_headings(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", show_edge=False)
    for heading in headings:
        # Names stay whole; in a narrow window intervals are what is folded.
        is_name = heading in ("estimator", "policy")
        # A number is folded too, never cut: what is left of -9.6e-05 would be another number.
        table.add_column(
            heading, justify="left" if is_name else "right", no_wrap=is_name, overflow="fold"
        )
    return table


def _numbers(e: Estimate) -> tuple[str, str]:
    if e.value is None or e.low is None or e.high is None:
        return "–", str(e.reason)
    return f"{e.value:.5g}", f"{e.low:.5g} to {e.high:.5g}"


def _signed(e: Estimate | None) -> tuple[str, str]:
    if e is None:
        return "", ""
    if e.value is None or e.low is None or e.high is None:
        return "–", str(e.reason)
    return f"{e.value:+.5g}", f"{e.low:+.5g} to {e.high:+.5g}"


def _difference(result: Evaluation, target: str, estimator: str) -> Estimate | None:
    for pair in result.differences:
        if (pair.target, pair.baseline) == (target, THE_LOG):
            return pair.estimates.get(estimator)
    return None


def _against(e: Estimate, logged: Estimate) -> str:
    # A part of what is 0 or less says nothing.
    if e.value is None or logged.value is None or logged.value <= 0.0:
        return ""
    return f"{e.value / logged.value - 1:+.1%}"


def _tell_sample(estimates: Estimates, result: Evaluation, console: Console) -> None:
    """How well a sample knows it, and what all units would add."""
    e = estimates.recommended
    if result.sampled >= 1.0 or e is None or e.half_width is None:
        return
    console.print(
        f"  a sample: {result.sampled:.2g} of all units were read; {e.estimator} is known to "
        f"±{e.half_width:.2g}, and with all units it would be to about "
        f"±{result.half_width_of_all(e):.2g}",
        style="dim",
        highlight=False,
    )


def _explain(estimates: Estimates, console: Console) -> None:
    """Why numbers are missing and what to do, and what is known of the log that they came from."""
    for code in dict.fromkeys(e.reason for e in estimates.values() if e.reason):
        console.print(f"  [yellow]{code}[/]: {REASONS[code]}", highlight=False)
        console.print(f"  [green]what to do[/]: {REMEDIES[code]}", highlight=False)
    # The log and the target are the same for all estimators, and so are their weights.
    d = next(iter(estimates.values())).diagnostics
    if not d.rows:
        return
    console.print(
        f"  effective sample {d.ess:,.0f} of {d.rows:,}; mean weight {d.mean_weight:.3f}; "
        f"largest weight {d.largest_weight:.3g} ({d.largest_share:.2%} of all)",
        style="dim",
        highlight=False,
    )
    warnings: dict[str, None] = {}
    for e in estimates.values():
        warnings |= dict.fromkeys(e.diagnostics.warnings)
    for warning in warnings:
        console.print(f"  [yellow]note[/]: {warning}", highlight=False)
