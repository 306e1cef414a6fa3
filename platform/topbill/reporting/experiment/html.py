"""The report as one HTML file that needs nothing else: styles and charts are inside, there is no
script.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby, pairwise

from topbill.ab import Analysis, GuardrailResult, Novelty, SampleRatio
from topbill.domain import formatting
from topbill.domain.margin import amount
from topbill.domain.terms import load_terms
from topbill.reporting.experiment import svg, wording
from topbill.reporting.experiment.conclusion import conclusion_sentence
from topbill.reporting.experiment.model import (
    REASONS,
    Health,
    HoldoutReadout,
    MetricLine,
    PropensityLine,
    Report,
    ShareLine,
    VariantLine,
)

_COLOURS = """
:root { color-scheme: light dark; --ink: #1c1c1e; --dim: #6b6b70; --line: #d9d9de; --page: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf0; --dim: #a0a0a8; --line: #3a3a40; --page: #161618; }
}
"""

_PAGE = """
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
"""

_PARTS = """
p { max-width: 60rem; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
.dim, caption { color: var(--dim); } .note { border-left: 4px solid #e69f00; padding-left: .8rem; }
.verdict { border-left: 6px solid; padding: .7rem 1rem; font-size: 1.15rem; margin: 1.2rem 0; }
.green { border-color: #009e73; } .blue { border-color: #0072b2; }
.yellow { border-color: #e69f00; } .red { border-color: #d55e00; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { caption-side: bottom; text-align: left; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th { color: var(--dim); font-weight: 500; } th.l, td.l { text-align: left; }
td.l, td.w { white-space: normal; } td.w { min-width: 14rem; }
svg { width: 100%; min-width: 34rem; height: auto; font-size: 12px; fill: var(--ink); }
dt { font-weight: 600; margin-top: .6rem; } dd { margin: 0; max-width: 60rem; }
th a { color: inherit; text-decoration: underline dotted; text-underline-offset: .2em; }
svg .grid { stroke: var(--line); } svg .zero { stroke: var(--ink); }
"""

# A notebook has a page and colours of its own; what is styled is this part of it alone.
_IN_NOTEBOOK = (
    ".topbill { --ink: currentColor; --dim: color-mix(in srgb, currentColor 65%, transparent); "
    f"--line: color-mix(in srgb, currentColor 20%, transparent); {_PARTS} }}"
)

_LONG = 30
"""Characters beyond which a cell of numbers is words."""


def to_html(report: Report) -> str:
    """The report as a page of HTML: no script, no font, no image from elsewhere."""
    title = report.title or report.experiment
    # The verdict first, then what makes it doubtful, then the numbers it was made from.
    body = [_head(report, title)]
    if report.ab is not None:
        body.append(_verdict(report))
    body += [f"<p class=note>{escape(note.sentence)}</p>" for note in report.notes]
    if report.ab is not None:
        body += [_effects(report.ab), _guardrails(report.ab), _segments(report.ab)]
    body.append(_novelty(report.novelty))
    if report.holdout is not None:
        body.append(_holdout(report.holdout))
    body += [
        _phases(report),
        _variants(report.variants),
        _metrics(report.metrics),
        _shares(report.shares),
        _health(report.health),
    ]
    return page(title, "".join(body))


def summary(report: Report) -> str:
    """The verdict, what makes it doubtful, the lifts with their chart, and the guardrails, as a
    part of a notebook.
    """
    body = [_head(report, report.title or report.experiment)]
    if report.ab is not None:
        body.append(_verdict(report))
    body += [f"<p class=note>{escape(note.sentence)}</p>" for note in report.notes]
    if report.ab is not None:
        body += [_effects(report.ab), _guardrails(report.ab)]
    return part("".join(body))


def part(body: str) -> str:
    """What a notebook shows of a report, with the reports' style."""
    glossary = _glossary(body)
    if glossary:
        glossary = f"<details><summary>Glossary</summary>{glossary}</details>"
    return f"<div class=topbill><style>{_IN_NOTEBOOK}</style>{body}{glossary}</div>"


def page(title: str, body: str) -> str:
    """A whole page of HTML around `body`, with the reports' style."""
    glossary = _glossary(body)
    if glossary:
        glossary = f"<h2>Glossary</h2>{glossary}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title>"
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_COLOURS}{_PAGE}{_PARTS}</style></head><body>{body}{glossary}</body></html>\n"
    )


def _glossary(body: str) -> str:
    """What the headings mean that lead here. A file that may be sent to anybody leads nowhere
    else.
    """
    meanings = load_terms().columns
    words = [word for word in meanings if _link_to(word) in body]
    if not words:
        return ""
    entries = [
        f'<dt id="{_anchor(word)}">{escape(word)}</dt><dd>{escape(meanings[word])}</dd>'
        for word in words
    ]
    return f"<dl>{''.join(entries)}</dl>"


def _anchor(word: str) -> str:
    return "word-" + re.sub("[^a-z0-9]+", "-", word)


def _link_to(word: str) -> str:
    return f'<a href="#{_anchor(word)}">{escape(word)}</a>'


def _head(report: Report, title: str) -> str:
    span = wording.span_of(report)
    others = wording.outside(report.health)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=dim>{escape(report.experiment)} · {escape(report.status)} · "
        f"revision {escape(report.revision)}<br>",
        f"{report.units:,} units, {report.decisions:,} decisions"
        f"{others and f' ({others})'}, {span}; "
        f"lake as of {wording.minute_of(report.published_at)}</p>",
    ]
    if report.conclusion is not None:
        since = wording.since_conclusion_sentence(report)
        sentences = f"{conclusion_sentence(report.conclusion)} {since}"
        parts.append(f"<p class=note>{escape(sentences.strip())}</p>")
    if report.hypothesis:
        parts.append(f"<p><em>{escape(report.hypothesis)}</em></p>")
    return "".join(parts)


def _verdict(report: Report) -> str:
    where = wording.standing(report)
    return (
        f"<div class='verdict {wording.COLOURS[where.tone]}'>"
        f"<strong>{escape(where.word)}.</strong> {escape(where.sentence)}"
        f"<br><span class=dim>{escape(where.next)}</span></div>"
    )


def _effects(analysis: Analysis) -> str:
    if not analysis.comparisons:
        return ""
    bars, rows = [], []
    # The chart has lifts alone, on one axis; the table has everything.
    for c in wording.rows_of(analysis):
        name = wording.metric_name(c.metric, c.per)
        if c.relative is not None and c.relative_low is not None and c.relative_high is not None:
            label = f"{name} · {c.variant}"
            bars.append(svg.Bar(label, c.relative, c.relative_low, c.relative_high, c.call))
        chance = formatting.chance(c.chance_to_win)
        cells = (*wording.value_cells(c), *wording.effect_cells(c, c.is_proportion))
        p = formatting.MISSING if c.p_adjusted is None else f"{c.p_adjusted:.3g}"
        rows.append(
            (name, str(c.variant), *cells, chance, p, wording.call_of(c, analysis.sample_ratio))
        )
    heads = (
        *("metric", "variant", "value", analysis.control),
        *wording.EFFECT_HEADINGS,
        *(wording.PROBABILITY, "adjusted p", wording.RESULT),
    )
    caption = (
        f"{1 - analysis.alpha:.0%} intervals by unit, as policies over the units assigned to them."
    )
    caption += f" Intervals are {wording.validity(analysis)}."
    notes = "".join(f"<p>{escape(note)}.</p>" for note in analysis.notes)
    return (
        f"<h2>Against {escape(analysis.control)}</h2><div class=wide>{svg.forest(bars)}</div>"
        f"{table(heads, rows, 2, caption)}{notes}"
    )


def _guardrails(analysis: Analysis) -> str:
    margin = "non-inferiority margin"
    heads = ("guardrail", "variant", wording.RESULT, "change", "interval", margin)
    rows = [_guardrail(guardrail, analysis.sample_ratio) for guardrail in analysis.guardrails]
    guardrails = table(heads, rows, 2) if rows else ""
    split = escape(wording.split_sentence(analysis))
    if analysis.sample_ratio.alarm:
        split = f"<strong>{split}</strong>"
    denominators = wording.denominators_sentence(analysis)
    if denominators:
        denominators = f"<p>Decisions per unit: {escape(denominators)}.</p>"
    return (
        f"<h2>Guardrails and sample ratio</h2>{guardrails}"
        f"<p>Sample ratio mismatch (SRM) check: {split}.</p>{denominators}"
    )


def _guardrail(guardrail: GuardrailResult, ratio: SampleRatio) -> tuple[str, ...]:
    return (
        guardrail.metric,
        guardrail.variant,
        wording.guardrail_result(guardrail, ratio),
        *wording.worsening(guardrail),
        amount(guardrail.margin, guardrail.margin_unit),
    )


def _novelty(readouts: Sequence[Novelty]) -> str:
    """The effect by days since the first exposure."""
    rows, sentences = [], []
    for found in readouts:
        sentences.append(f"<p>{escape(wording.novelty_sentence(found))}</p>")
        for span in found.spans if wording.spans_told(found) else []:
            cells = wording.effect_cells(span, found.is_proportion)
            rows.append((found.variant, wording.span_of_days(span), f"{span.n:,}", *cells))
    if not sentences:
        return ""
    heads = ("variant", "since first exposure", "units", *wording.EFFECT_HEADINGS)
    spans = table(heads, rows, 2) if rows else ""
    return f"<h2>Novelty effect</h2>{''.join(sentences)}{spans}"


def _holdout(holdout: HoldoutReadout) -> str:
    rows = []
    for c in wording.against_holdout(holdout):
        cells = (*wording.value_cells(c), *wording.effect_cells(c, c.is_proportion))
        name = wording.metric_name(c.metric, c.per)
        rows.append((name, wording.side(c), *cells, wording.call_of(c, holdout.sample_ratio)))
    heads = ("metric", "variant", "value", "holdout", *wording.EFFECT_HEADINGS, wording.RESULT)
    caption = (
        f"{holdout.units:,} units were held out ({holdout.share:.1%} intended) and got the "
        f"control's order; {1 - holdout.alpha:.0%} intervals by unit."
    )
    sentences = "".join(f"<p>{escape(s)}</p>" for s in wording.holdout_sentences(holdout))
    return f"<h2>Against the holdout</h2>{sentences}{table(heads, rows, 2, caption)}"


def _segments(analysis: Analysis) -> str:
    # Of groups that cannot be compared their parts cannot be either.
    if analysis.sample_ratio.alarm:
        return ""
    parts = []
    scales = wording.segment_scales(analysis)
    for h in analysis.heterogeneity:
        rows = []
        for effect in h.effects:
            cells = wording.segment_cells(effect, scales.get(h.variant), h.is_proportion)
            rows.append((effect.value, f"{effect.n:,}", *cells))
        p = "" if h.p_adjusted is None else f" (does it differ? adjusted p = {h.p_adjusted:.3g})"
        heads = (h.segment, "units", "difference", "interval")
        parts.append(f"<h3>{escape(h.variant)} by {escape(h.segment)}{p}</h3>")
        parts.append(table(heads, rows, 1))
    if not parts:
        return ""
    return (
        "<h2>Segments (heterogeneous effects)</h2><p class=dim>Differences are shrunk towards the "
        f"common effect by as much as segments agree{_of_what(scales)}.</p>{''.join(parts)}"
    )


def _of_what(scales: Mapping[str, float]) -> str:
    return ", and told in per cent of the control's mean over all of them" if scales else ""


def _phases(report: Report) -> str:
    excluded = wording.excluded_sentence(report.excluded)
    below = f"<p class=dim>{escape(excluded)}</p>" if excluded else ""
    if len(report.phases) < 2:
        return below
    rows = [wording.phase_cells(phase) for phase in report.phases]
    heads = wording.PHASE_HEADINGS
    caption = "Times are UTC; units by the phase in which they came first."
    return f"<h2>Phases</h2>{table(heads, rows, len(heads), caption)}{below}"


def _variants(lines: Sequence[VariantLine]) -> str:
    heads = ("variant", "policy", "planned", "units", "decisions", "mature", "reward", "interval")
    caption = "The objective, from 0 to 1; 95% intervals by unit."
    return f"<h2>Reward per decision</h2>{table(heads, map(_variant, lines), 2, caption)}"


def _variant(line: VariantLine) -> tuple[str, ...]:
    return (
        line.variant + (" (control)" if line.control else ""),
        line.policy,
        "" if line.share is None else f"{line.share:.0%}",
        f"{line.units:,}",
        f"{line.decisions:,}",
        f"{line.reward.decisions:,}",
        *wording.mean_cells(line.reward),
    )


def _metrics(lines: Sequence[MetricLine]) -> str:
    heads = ("metric", "variant", "per", "window", "mature", "value", "interval")
    return f"<h2>Metrics</h2>{table(heads, map(_metric, lines), 3)}"


def _metric(line: MetricLine) -> tuple[str, ...]:
    return (
        line.metric + (" (guardrail)" if line.guardrail else ""),
        line.variant,
        line.per,
        formatting.window(line.window_seconds),
        f"{line.estimate.decisions:,}",
        *wording.metric_cells(line),
    )


def _shares(lines: Sequence[ShareLine]) -> str:
    by_variant = []
    for variant, group in groupby(lines, key=lambda line: line.variant):
        by_variant.append((variant, [(line.action, line.share) for line in group]))
    if not by_variant:
        return ""
    return (
        f"<h2>Shares of actions</h2><div class=wide>{svg.shares(by_variant)}</div>"
        "<p class=dim>What was shown; what an action is worth takes off-policy evaluation.</p>"
    )


def _health(health: Health) -> str:
    checks = table(("check", "result"), wording.health_cells(health), 2)
    # Nothing was left to chance: there is no line to show.
    if not health.propensity:
        return f"<h2>Health</h2>{checks}"
    heads = (
        *("variant", "action", "drawn", "expected"),
        *("mean of 1/p of the drawn", "interval", "verdict"),
    )
    lines = table(heads, map(_propensity, health.propensity), 2)
    details = f"<details><summary>Propensity check, line by line</summary>{lines}</details>"
    return f"<h2>Health</h2>{checks}{details}"


def _propensity(line: PropensityLine) -> tuple[str, ...]:
    interval = REASONS[line.reason]
    if line.low is not None and line.high is not None:
        interval = wording.fixed_interval(line.low, line.high, 3)
    return (
        line.variant,
        line.action,
        f"{line.drawn:,}",
        f"{line.expected:,.1f}",
        formatting.fixed(line.mean_weight),
        interval,
        {True: "as logged", False: "off", None: "not tested"}[line.ok],
    )


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], labels: int, caption: str = ""
) -> str:
    """A table in HTML. The first `labels` columns are text, the rest numbers; a first cell like the
    one above it stays empty.
    """
    sides = [" class=l"] * labels + [""] * (len(heads) - labels)
    lines = [list(row) for row in rows]
    # From below, so that each first cell is compared with the one above before that is emptied.
    for above, row in reversed(list(pairwise(lines))):
        if row[0] == above[0]:
            row[0] = ""
    known = load_terms().columns
    linked = [_link_to(head) if head in known else escape(head) for head in heads]
    head = "".join(f"<th{side}>{cell}</th>" for cell, side in zip(linked, sides, strict=True))
    body = "".join(f"<tr>{_cells(row, sides)}</tr>" for row in lines)
    below = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f"<div class=wide><table>{below}<thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _cells(cells: Sequence[str], sides: Sequence[str]) -> str:
    parts = []
    for cell, side in zip(cells, sides, strict=True):
        # A reason in the place of an interval takes several lines, not the whole width.
        wraps = " class=w" if not side and len(cell) > _LONG else side
        parts.append(f"<td{wraps}>{escape(cell)}</td>")
    return "".join(parts)
