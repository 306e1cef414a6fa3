"""The report as one HTML file that needs nothing else: styles and charts are inside, there is no
script.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby, pairwise

from topbill.ab import Analysis
from topbill.reporting import formatting
from topbill.reporting.experiment import svg
from topbill.reporting.experiment.model import REASONS, Health, Report

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --dim: #6b6b70; --line: #d9d9de; --page: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf0; --dim: #a0a0a8; --line: #3a3a40; --page: #161618; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
.dim, caption { color: var(--dim); } .note { border-left: 4px solid #e69f00; padding-left: .8rem; }
.verdict { border-left: 6px solid; padding: .7rem 1rem; font-size: 1.15rem; margin: 1.2rem 0; }
.green { border-color: #009e73; } .yellow { border-color: #e69f00; } .red { border-color: #d55e00; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--dim); font-weight: 500; } th.l, td.l { text-align: left; }
svg { width: 100%; min-width: 34rem; height: auto; font-size: 12px; fill: var(--ink); }
svg .grid { stroke: var(--line); } svg .zero { stroke: var(--ink); }
"""
_WORDS = {"green": "Ship", "yellow": "Wait", "red": "Stop"}


def to_html(report: Report) -> str:
    """The report as a page of HTML: no script, no font, no image from elsewhere."""
    title = report.title or report.experiment
    span = f"{report.first_at} to {report.last_at}" if report.first_at else "no decisions yet"
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=dim>{escape(report.experiment)} · {escape(report.status)} · revision {escape(report.revision)}<br>"
        f"{report.units:,} units, {report.decisions:,} decisions, {span}; lake as of {report.published_at}</p>",
        f"<p><em>{escape(report.hypothesis)}</em></p>" if report.hypothesis else "",
    ]
    if report.ab is not None:
        colour = formatting.tone(report.ab)
        told = f"<strong>{_WORDS[colour]}.</strong> {escape(report.ab.verdict.sentence)}"
        body.append(f"<div class='verdict {colour}'>{told}</div>")
    body += [f"<p class=note>{escape(note.sentence)}</p>" for note in report.notes]
    if report.ab is not None:
        body += [_effects(report.ab), _guardrails(report.ab), _segments(report.ab)]
    body += [_variants(report), _metrics(report), _shares(report), _health(report.health)]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body>{''.join(body)}</body></html>\n"
    )


def _effects(analysis: Analysis) -> str:
    if not analysis.comparisons:
        return ""
    bars = [
        svg.Bar(f"{c.metric} · {c.variant}", c.relative, c.relative_low, c.relative_high, c.call)
        for c in analysis.comparisons
        if c.relative is not None and c.relative_low is not None and c.relative_high is not None
    ]
    rows = []
    for c in analysis.comparisons:
        *values, call = formatting.comparison(c)
        chance = "" if c.chance_to_win is None else f"{c.chance_to_win:.0%}"
        rows.append((c.metric, str(c.variant), *values, chance, call))
    peeking = (
        " Intervals stay valid however often one looks." if analysis.method == "sequential" else ""
    )
    heads = (
        "metric",
        "variant",
        "value",
        analysis.control,
        "lift",
        "interval",
        "chance to win",
        "call",
    )
    caption = f"{1 - analysis.alpha:.0%} intervals by unit, as policies over the units assigned to them.{peeking}"
    notes = "".join(f"<p>{escape(note)}.</p>" for note in analysis.notes)
    shown = _table(heads, rows, 2, caption)
    return f"<h2>Against {escape(analysis.control)}</h2><div class=wide>{svg.forest(bars)}</div>{shown}{notes}"


def _guardrails(analysis: Analysis) -> str:
    rows = [
        (
            *(g.metric, g.variant, formatting.GUARDRAILS[g.status], formatting.signed(g.worse_by)),
            *(formatting.between(g.worse_by_low, g.worse_by_high), f"{g.margin:.1%}"),
        )
        for g in analysis.guardrails
    ]
    ratio = analysis.sample_ratio
    p = ratio.p_value if ratio.p_sequential is None else ratio.p_sequential
    split = ", ".join(f"{escape(v)} {n:,}" for v, n in ratio.counts.items())
    said = "<strong>not as intended</strong>" if ratio.alarm else "as intended"
    heads = ("guardrail", "variant", "verdict", "worse by", "interval", "allowed")
    shown = _table(heads, rows, 2) if rows else ""
    return (
        f"<h2>Guardrails and split</h2>{shown}<p>Units are split {said}: {split} (p = {p:.3g}).</p>"
    )


def _segments(analysis: Analysis) -> str:
    parts = []
    for h in analysis.heterogeneity:
        rows = [
            [
                e.value,
                f"{e.n:,}",
                formatting.number(e.shrunken),
                formatting.between(e.shrunken_low, e.shrunken_high, "{:+.4f}"),
            ]
            for e in h.effects
        ]
        p = "" if h.p_adjusted is None else f" (does it differ? adjusted p = {h.p_adjusted:.3g})"
        heads = (h.segment, "units", "difference", "interval")
        parts.append(
            f"<h3>{escape(h.variant)} by {escape(h.segment)}{p}</h3>" + _table(heads, rows, 1)
        )
    caption = "<p class=dim>Differences are drawn towards the common effect by as much as segments agree.</p>"
    return f"<h2>Segments</h2>{caption}{''.join(parts)}" if parts else ""


def _variants(report: Report) -> str:
    rows = [
        (
            *(
                v.variant + (" (control)" if v.control else ""),
                v.policy,
                "" if v.share is None else f"{v.share:.0%}",
            ),
            *(
                f"{v.units:,}",
                f"{v.decisions:,}",
                f"{v.reward.decisions:,}",
                *formatting.estimate(v.reward),
            ),
        )
        for v in report.variants
    ]
    heads = ("variant", "policy", "planned", "units", "decisions", "mature", "reward", "interval")
    return "<h2>Reward per decision</h2>" + _table(
        heads, rows, 2, "The objective, from 0 to 1; 95% intervals by unit."
    )


def _metrics(report: Report) -> str:
    rows = [
        (
            *(
                m.metric + (" (guardrail)" if m.guardrail else ""),
                m.variant,
                formatting.duration(m.window_seconds),
            ),
            *(f"{m.estimate.decisions:,}", *formatting.estimate(m.estimate)),
        )
        for m in report.metrics
    ]
    return "<h2>Metrics per decision</h2>" + _table(
        ("metric", "variant", "window", "mature", "value", "interval"), rows, 2
    )


def _shares(report: Report) -> str:
    by_variant = [
        (variant, [(line.action, line.share) for line in lines])
        for variant, lines in groupby(report.shares, key=lambda line: line.variant)
    ]
    if not by_variant:
        return ""
    caption = (
        "<p class=dim>What was shown; what an action is worth takes off-policy evaluation.</p>"
    )
    return f"<h2>Shares of actions</h2><div class=wide>{svg.shares(by_variant)}</div>{caption}"


def _health(health: Health) -> str:
    tested = [line for line in health.propensity if line.ok is not None]
    off = [line for line in tested if not line.ok]
    drawn = "cannot be tested yet"
    if tested:
        drawn = (
            f"{len(off)} of {len(tested)} are off"
            if off
            else f"all {len(tested)} tested are as logged"
        )
    rows = [
        ["actions drawn as often as logged", drawn],
        ["choices against summed probabilities", formatting.choices(health)],
        [
            "decisions by reason",
            ", ".join(f"{k} {n:,}" for k, n in health.reasons.items()) or "none",
        ],
        ["fallbacks", formatting.percent(health.fallback_share)],
        ["mature decisions", formatting.percent(health.mature_share)],
        ["reward events that joined in a window", formatting.percent(health.reward_join_rate)],
        ["mature decisions with a reward event", formatting.percent(health.rewarded_share)],
        [
            "engine time, ms",
            ", ".join(f"{k} {ms:.2f}" for k, ms in health.latency_ms.items()) or "none",
        ],
    ]
    lines = [
        (
            *(
                line.variant,
                line.action,
                f"{line.drawn:,}",
                f"{line.expected:,.1f}",
                formatting.number(line.mean_weight),
            ),
            formatting.between(line.low, line.high, "{:.3f}")
            if line.low is not None
            else REASONS[line.reason],
            {True: "as logged", False: "off", None: "not tested"}[line.ok],
        )
        for line in health.propensity
    ]
    heads = (
        "variant",
        "action",
        "drawn",
        "expected",
        "mean of 1/p of the drawn",
        "interval",
        "verdict",
    )
    detail = (
        f"<details><summary>Propensities, line by line</summary>{_table(heads, lines, 2)}</details>"
        if lines
        else ""
    )
    return "<h2>Health</h2>" + _table(("check", "result"), rows, 2) + detail


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], labels: int, caption: str = ""
) -> str:
    """The first `labels` columns are text, the rest numbers; a first cell like the one above it
    stays empty.
    """
    side = [" class=l" if i < labels else "" for i in range(len(heads))]
    head = "".join(f"<th{s}>{escape(cell)}</th>" for s, cell in zip(side, heads, strict=True))
    shown = [list(row) for row in rows]
    for above, row in reversed(list(pairwise(shown))):
        row[0] = "" if row[0] == above[0] else row[0]
    body = "".join(
        "<tr>"
        + "".join(f"<td{s}>{escape(cell)}</td>" for s, cell in zip(side, row, strict=True))
        + "</tr>"
        for row in shown
    )
    told = (
        f"<caption style='caption-side:bottom;text-align:left'>{escape(caption)}</caption>"
        if caption
        else ""
    )
    return f"<div class=wide><table>{told}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
