"""A report's numbers as sections of a page: those of an experiment that runs, and those that were
kept of one that is gone.

`grey` is the control of the experiment's file, which is grey on every chart whoever is compared
with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import pandas as pd
import streamlit as st

from board import charts, data, pieces, words
from board.terms import TERMS
from topbill.ab import REASONS as AB_REASONS
from topbill.ab import Analysis, Comparison, ExposureSpan, GuardrailResult, SampleRatio
from topbill.domain.margin import amount
from topbill.reporting import REASONS, Report
from topbill.reporting.experiment.conclusion import conclusion_sentence
from topbill.reporting.experiment.wording import (
    NOT_TRUSTWORTHY,
    PHASE_HEADINGS,
    PROBABILITY,
    RESULT,
    against_holdout,
    call_of,
    effect_cells,
    effect_in_words,
    excluded_sentence,
    guardrail_result,
    holdout_sentences,
    metric_name,
    novelty_sentence,
    outside,
    phase_cells,
    rows_of,
    segment_cells,
    segment_scales,
    side,
    since_conclusion_sentence,
    span_of_days,
    spans_told,
    validity,
    value_cells,
    worsening,
)
from topbill.reporting.queries import history

SIGNS = {"better": "✔", "worse": "✖", "inconclusive": "○", NOT_TRUSTWORTHY: "?"}
GUARDRAIL_SIGNS = {"not_worse": "✔", "worse": "✖", "undecided": "○", "unknown": "?"}
"""A sign beside the word, so that no colour speaks alone."""
EFFECTS = ["name", "relative", "low", "high", "text"]
NO_EFFECTS = pd.DataFrame(columns=EFFECTS)
SHOWN_REVISIONS, SHOWN_REMARKS = 10, 3
SEE_BELOW = "? see below"
"""Instead of a result, where the reason why there is none takes more words than a cell has room
for."""


def headline(report: Report) -> None:
    first, last = (
        None if at is None else datetime.fromisoformat(at)
        for at in (report.first_at, report.last_at)
    )
    mature = words.share(report.health.mature_share, digits=0)
    pieces.metrics(
        ("Running for", words.span(first, last), TERMS["running"]),
        ("Units", words.count(report.units), TERMS["units"]),
        ("Decisions", words.count(report.decisions), TERMS["decisions"]),
        ("Mature", mature, TERMS["mature"]),
    )
    others = outside(report.health)
    if others:
        st.caption(f"Asked beside them: {others}; they count in no variant.")


def conclusion(report: Report) -> None:
    """How it ended; nothing where it did not."""
    if report.conclusion is not None:
        ended = f"{conclusion_sentence(report.conclusion)} {since_conclusion_sentence(report)}"
        st.info(words.plain(ended.strip()), icon=":material/flag:")


def notes(report: Report) -> None:
    """What was changed, removed or compared otherwise than its file says."""
    for note in report.notes:
        if note.code in ("changed_after_exposure", "not_as_planned"):
            st.warning(words.plain(note.sentence), icon=":material/edit_note:")
        if note.code == "other_control":
            st.info(words.plain(note.sentence), icon=":material/compare_arrows:")
        if note.code == "removed_by_age":
            st.caption(words.plain(note.sentence))


def lifts(analysis: Analysis, grey: str, *, csv: bool = True) -> None:
    """The primary metric: each variant's lift with its interval; the plain difference where no lift
    can be said. Without its `csv` where a table below has the same numbers.
    """
    primary = analysis.comparisons_of(analysis.primary)
    label = words.label(analysis.primary)
    pieces.section(f"Lift of {label}", f"{TERMS['lift']} {TERMS['interval']}")
    if analysis.sample_ratio.alarm:
        st.caption("None is drawn: where units were not split as intended, no lift can be trusted.")
        return
    # One axis for all: differences where a single lift cannot be said.
    is_lift = all(c.relative is not None for c in primary)
    if not is_lift:
        say_why_no_lift(primary)
    numbers = lift_numbers(primary, is_lift)
    if numbers.empty:
        return
    control = words.plain(analysis.control)
    st.caption(
        f"Dashed line: no difference from {control}. Thick bar: 95% interval, {validity(analysis)}."
    )
    title, form = axis_of_effects(analysis, primary[0], is_lift)
    drawing = charts.lifts(numbers, names(analysis), grey, title, form)
    name, height = f"{analysis.experiment}-lifts", 46 * len(numbers) + 46
    if csv:
        pieces.chart(drawing, numbers, name, height)
    else:
        charts.draw(drawing, height, pieces.described(name, numbers))


def axis_of_effects(analysis: Analysis, first: Comparison, is_lift: bool) -> tuple[str, str]:
    """What the axis of lifts (or differences) is called, and how its numbers are written."""
    if is_lift:
        return f"lift over {analysis.control}", charts.LIFT
    label = words.label(analysis.primary)
    form = charts.POINTS if first.is_proportion else charts.NUMBER
    return f"{label}: difference from {analysis.control}", form


def drawn_effects(analysis: Analysis) -> tuple[pd.DataFrame, tuple[str, str]]:
    """What `lifts` draws, with its axis; no line where units were not split as intended."""
    primary = analysis.comparisons_of(analysis.primary)
    if analysis.sample_ratio.alarm or not primary:
        return NO_EFFECTS, ("", "")
    is_lift = all(c.relative is not None for c in primary)
    return lift_numbers(primary, is_lift), axis_of_effects(analysis, primary[0], is_lift)


def say_why_no_lift(comparisons: Sequence[Comparison]) -> None:
    variants: dict[str, list[str]] = {}
    for c in comparisons:
        if c.relative is None:
            reason = AB_REASONS.get(c.reason, c.reason)
            variants.setdefault(reason, []).append(words.label(str(c.variant)))
    say_why(variants)


def say_why(names: Mapping[str, Sequence[str]]) -> None:
    """Each reason once, as several often share it, after the names of what it is the reason for."""
    for reason, having_it in names.items():
        st.caption(f"{words.plain(', '.join(dict.fromkeys(having_it)))}: {reason}.")


def lift_numbers(comparisons: Sequence[Comparison], is_lift: bool) -> pd.DataFrame:
    """Columns name, relative, low, high, text; of differences where no lift can be said."""
    lines = []
    for c in comparisons:
        # Nothing to draw; the caption above says why.
        if c.difference_low is None:
            continue
        text = "{} ({})".format(*effect_in_words(c, c.is_proportion))
        if is_lift:
            line = (str(c.variant), c.relative, c.relative_low, c.relative_high, text)
        else:
            line = (str(c.variant), c.difference, c.difference_low, c.difference_high, text)
        lines.append(line)
    return pd.DataFrame(lines, columns=EFFECTS)


def names(analysis: Analysis) -> list[str]:
    """All variants in the file's order, the control included: colours stay the same on every
    chart.
    """
    return list(analysis.units)


def allowed(guardrail: GuardrailResult) -> str:
    """By how much a guardrail's metric may get worse: `10.0%`."""
    return amount(guardrail.margin, guardrail.margin_unit)


def result(c: Comparison, ratio: SampleRatio) -> str:
    """What a comparison says, with its sign."""
    said = call_of(c, ratio)
    return pieces.result(SIGNS[said], said)


def guardrail_cell(guardrail: GuardrailResult, ratio: SampleRatio) -> str:
    """What a guardrail says, with its sign."""
    said = guardrail_result(guardrail, ratio)
    sign = "?" if said == NOT_TRUSTWORTHY else GUARDRAIL_SIGNS[guardrail.status]
    return pieces.result(sign, said)


def p_value(p: float | None) -> str:
    """0.031; a dash where nothing was tested."""
    return words.MISSING if p is None else f"{p:.3g}"


def effect_columns(
    effect: Comparison | ExposureSpan, is_proportion: bool
) -> tuple[dict[str, str], str]:
    """An effect in a table: the difference and the lift beside each other, each with its interval;
    and why there is none, which is read in a column of words.
    """
    headings = ("difference", "95% interval", "lift", "95% of the lift")
    cells, why = effect_cells(effect, is_proportion), ""
    if effect.difference_low is None:
        cells, why = cells._replace(interval=words.MISSING), cells.interval
    return dict(zip(headings, cells, strict=True)), why


def metrics(report: Report, analysis: Analysis) -> None:
    """Each metric of each variant beside the control."""
    pieces.section(
        "Every metric",
        f"Each variant beside the control; intervals of 95%, {validity(analysis)}.",
    )
    lines = []
    is_uneven = analysis.sample_ratio.alarm
    unsaid: dict[str, list[str]] = {}
    for c in rows_of(analysis):
        effect, why = effect_columns(c, c.is_proportion)
        value, control = value_cells(c)
        name = metric_name(words.label(c.metric), c.per)
        # Of groups that cannot be compared that is said, and nothing of how else to read them.
        if is_uneven:
            called = pieces.result(SIGNS[NOT_TRUSTWORTHY], NOT_TRUSTWORTHY)
        elif why:
            called = SEE_BELOW
            unsaid.setdefault(why, []).append(name)
        else:
            called = result(c, analysis.sample_ratio)
        lines.append(
            {
                "metric": name,
                "variant": str(c.variant),
                "value": value,
                "control": control,
                **effect,
                # Of groups that cannot be compared neither says anything.
                PROBABILITY: words.MISSING if is_uneven else words.chance(c.chance_to_win),
                "adjusted p": words.MISSING if is_uneven else p_value(c.p_adjusted),
                RESULT: called,
            }
        )
    winner = analysis.verdict.winner
    pieces.table(
        pd.DataFrame(lines),
        f"{report.experiment}-metrics",
        phone=("variant", "lift", RESULT),
        group="metric",
        strong={"variant": winner} if winner else {},
    )
    say_why(unsaid)


def uncompared(report: Report) -> None:
    """What one variant earned, there being nothing to compare it with."""
    pieces.section("Every metric", TERMS["uncompared"])
    lines = []
    for line in report.metrics:
        mean = line.estimate
        lines.append(
            {
                "metric": metric_name(words.label(line.metric), line.per),
                "variant": words.label(line.variant),
                "value": words.metric_value(mean.value, line.is_proportion),
                "95% of this look": words.metric_interval(mean.low, mean.high, line.is_proportion),
                RESULT: REASONS[mean.reason] if mean.reason else "",
            }
        )
    means = pd.DataFrame(lines)
    if len(means) and not means[RESULT].any():
        means = means.drop(columns=RESULT)
    phone = ("metric", "value", "95% of this look")
    pieces.table(means, f"{report.experiment}-metrics", phone=phone)


def guardrails(analysis: Analysis) -> None:
    if not analysis.guardrails:
        return
    pieces.section("Guardrails", TERMS["guardrail"])
    lines = []
    for guardrail in analysis.guardrails:
        change, bounds = worsening(guardrail)
        lines.append(
            {
                "metric": words.label(guardrail.metric),
                "variant": guardrail.variant,
                "non-inferiority margin": allowed(guardrail),
                "change": change,
                "95% interval": bounds or "–",
                RESULT: guardrail_cell(guardrail, analysis.sample_ratio),
            }
        )
    pieces.table(
        pd.DataFrame(lines),
        f"{analysis.experiment}-guardrails",
        phone=("variant", "change", RESULT),
        group="metric",
    )
    if analysis.sample_ratio.alarm:
        return
    undecided = [guardrail for guardrail in analysis.guardrails if guardrail.status == "undecided"]
    if any(guardrail.worse_by_low is not None for guardrail in undecided):
        st.caption(
            "Inconclusive: the interval still holds values beyond the margin, so non-inferiority "
            "is not shown. More units make it narrower."
        )
    # Where there is no interval, it is not the interval that leaves it open.
    unsaid: dict[str, list[str]] = {}
    for guardrail in undecided:
        if guardrail.worse_by_low is None and guardrail.reason:
            reason = AB_REASONS.get(guardrail.reason, guardrail.reason)
            unsaid.setdefault(reason, []).append(words.label(guardrail.variant))
    say_why(unsaid)


def segments(analysis: Analysis, grey: str) -> None:
    """Where the effect differs; nothing where groups cannot be compared."""
    numbers = segment_numbers(analysis)
    if numbers.empty or analysis.sample_ratio.alarm:
        return
    pieces.section("Segments (heterogeneous effects)", f"{TERMS['segment']} {TERMS['shrunken']}")
    # After adjustment over all segments: one of twenty would differ by luck.
    differing = set()
    for h in analysis.heterogeneity:
        if h.p_adjusted is not None and h.p_adjusted < analysis.alpha:
            differing.add(f"{h.variant} by {h.segment}")
    if differing:
        listing = words.plain(", ".join(sorted(differing)))
        st.markdown(f"The effect **differs** between groups: {listing}.")
    else:
        st.markdown("No sign that the effect differs between these groups.")
    rows = numbers["segment"].nunique() * numbers["name"].nunique()
    title, form = "difference from the control", charts.NUMBER
    if segment_scales(analysis):
        title, form = "in per cent of the control's mean", charts.LIFT
    elif analysis.heterogeneity[0].is_proportion:
        form = charts.POINTS
    drawing = charts.segments(numbers, names(analysis), grey, title, form)
    pieces.chart(drawing, numbers, f"{analysis.experiment}-segments", 24 * rows + 120)


def segment_numbers(analysis: Analysis) -> pd.DataFrame:
    """Columns segment, name, value, low, high (as lifts are told, where they can be), n, text."""
    lines = []
    scales = segment_scales(analysis)
    for h in analysis.heterogeneity:
        scale = scales.get(h.variant)
        for e in h.effects:
            if e.shrunken is None or e.shrunken_low is None or e.shrunken_high is None:
                continue
            numbers = [x / (scale or 1.0) for x in (e.shrunken, e.shrunken_low, e.shrunken_high)]
            text = "{} ({})".format(*segment_cells(e, scale, h.is_proportion))
            lines.append((f"{h.segment}: {e.value}", e.variant, *numbers, e.n, text))
    columns = ["segment", "name", "value", "low", "high", "n", "text"]
    return pd.DataFrame(lines, columns=columns)


def details(report: Report, analysis: Analysis, grey: str) -> None:
    """All of a comparison but its lifts."""
    metrics(report, analysis)
    guardrails(analysis)
    segments(analysis, grey)
    novelty(report)
    split(analysis)
    remarks = [words.plain(f"{remark[:1].upper()}{remark[1:]}.") for remark in analysis.notes]
    if len(remarks) > SHOWN_REMARKS:
        with st.expander(f"{len(remarks)} remarks on metrics", icon=":material/notes:"):
            st.caption("  \n".join(remarks))
    else:
        for remark in remarks:
            st.caption(remark)


def novelty(report: Report) -> None:
    """Whether the effect changes as units get used to it."""
    if not report.novelty:
        return
    pieces.section("Novelty effect", TERMS["novelty"])
    lines = []
    for found in report.novelty:
        st.markdown(words.plain(novelty_sentence(found)))
        # Where nothing can be told of any day, the sentence has said why.
        for span in found.spans if spans_told(found) else []:
            effect, why = effect_columns(span, found.is_proportion)
            lines.append(
                {
                    "variant": found.variant,
                    "since first exposure": span_of_days(span),
                    "units": words.count(span.n),
                    **effect,
                    RESULT: why,
                }
            )
    if lines:
        spans = pd.DataFrame(lines)
        # Of days nothing is called: the column has only the reasons where there is no number.
        if not spans[RESULT].any():
            spans = spans.drop(columns=RESULT)
        pieces.table(
            spans,
            f"{report.experiment}-novelty",
            phone=("since first exposure", "lift", "95% of the lift"),
            group="variant",
        )


def holdout(report: Report) -> None:
    """What all of the experiment is worth: its variants against the units held out."""
    readout = report.holdout
    if readout is None:
        return
    pieces.section("Against the holdout", TERMS["holdout"])
    for sentence in holdout_sentences(readout):
        st.markdown(words.plain(sentence))
    lines = []
    unsaid: dict[str, list[str]] = {}
    for c in against_holdout(readout):
        value, held = value_cells(c)
        effect, why = effect_columns(c, c.is_proportion)
        name = metric_name(words.label(c.metric), c.per)
        if why:
            unsaid.setdefault(why, []).append(name)
        lines.append(
            {
                "metric": name,
                "variant": side(c),
                "value": value,
                "holdout": held,
                **effect,
                RESULT: SEE_BELOW if why else result(c, readout.sample_ratio),
            }
        )
    pieces.table(
        pd.DataFrame(lines),
        f"{report.experiment}-holdout",
        phone=("variant", "lift", RESULT),
        group="metric",
    )
    say_why(unsaid)
    st.caption(
        f"{words.count(readout.units)} units were held out, {words.share(readout.share)} intended; "
        f"{words.count(readout.units_in_variants)} stand against them."
    )


def split(analysis: Analysis) -> None:
    """Whether the numbers of units are as the file asks for."""
    ratio = analysis.sample_ratio
    total, weight = max(sum(ratio.counts.values()), 1), sum(ratio.shares.values())
    with st.expander(
        "Sample ratio mismatch (SRM) check", icon=":material/call_split:", expanded=ratio.alarm
    ):
        lines = []
        for name, units in ratio.counts.items():
            lines.append(
                {
                    "variant": name,
                    "units": words.count(units),
                    "share": words.share(units / total),
                    "intended": words.share(ratio.shares[name] / weight),
                }
            )
        pieces.table(
            pd.DataFrame(lines),
            f"{analysis.experiment}-split",
            phone=("variant", "share", "intended"),
        )
        # The sequential test's where days are known, since people look every day.
        p = ratio.p_value if ratio.p_sequential is None else ratio.p_sequential
        verdict = (
            "**Mismatch.** Units were not split as intended."
            if ratio.alarm
            else "No mismatch shown."
        )
        st.markdown(
            f"{verdict} p = {p:.3g}; the alarm goes off at {ratio.alpha:g}.", help=TERMS["srm"]
        )


def phases(report: Report) -> None:
    """The spans of one set of variants, shares and traffic, and what is not counted."""
    if len(report.phases) > 1:
        pieces.section("Phases", TERMS["phase"])
        lines = [dict(zip(PHASE_HEADINGS, phase_cells(p), strict=True)) for p in report.phases]
        pieces.table(
            pd.DataFrame(lines),
            f"{report.experiment}-phases",
            phone=("since", "shares", "what changed"),
        )
    if report.excluded:
        st.caption(words.plain(excluded_sentence(report.excluded)))


def revisions(key: str) -> None:
    """What changed when, and the experiment file as it is in force."""
    lines = data.ask(history.revision_lines, key)
    if not lines:
        return
    pieces.section("What changed when", TERMS["history"])
    for line in lines[:SHOWN_REVISIONS]:
        # With its day of the week, as people ask what changed last Tuesday.
        since, who = f"{line.since:%a} {words.minute(line.since)}", words.plain(line.who)
        st.markdown(f"**{since}**, by {who}: {words.plain(' '.join(line.sentences))}")
        if line.diff:
            with st.expander(f"Revision {line.revision}: the diff of the file"):
                st.code(line.diff, "diff", wrap_lines=True)
    if len(lines) > SHOWN_REVISIONS:
        earlier = words.count(len(lines) - SHOWN_REVISIONS)
        st.caption(f"{earlier} earlier revisions stand in the record's table `revisions`.")
    with st.expander("The experiment file", icon=":material/description:"):
        # As YAML, which is what people edit; the record holds JSON.
        st.code(lines[0].file, "yaml", wrap_lines=True)
