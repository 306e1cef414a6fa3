"""Experiment: did a variant win, by how much, how sure, and what next."""

from __future__ import annotations

import json

import pandas as pd
import streamlit as st
import yaml

from board import charts, data, frame, pieces, words
from board.terms import TERMS
from topbill.ab import REASONS as AB_REASONS
from topbill.ab import Analysis, Comparison
from topbill.reporting import REASONS, Report
from topbill.reporting.experiment.wording import standing
from topbill.reporting.queries import database, series

CALLS = {"better": "✔ better", "worse": "✖ worse", "no_call": "… no call yet"}
KEPT = {
    "not_worse": "✔ kept",
    "worse": "✖ broken",
    "undecided": "… undecided",
    "unknown": "? unknown",
}


def headline(found: Report) -> None:
    line = data.listed(found.experiment)
    pieces.metrics(
        ("Running for", words.span(line.first_at, line.last_at), TERMS["running"]),
        ("Units", words.count(found.units), TERMS["units"]),
        ("Decisions", words.count(found.decisions), TERMS["decisions"]),
        ("Mature", words.share(found.health.mature_share, digits=0), TERMS["mature"]),
    )


def lifts(analysis: Analysis) -> None:
    """The primary metric: each variant's lift with its interval; the plain difference where no lift
    can be said.
    """
    primary = [c for c in analysis.comparisons if c.metric == analysis.primary]
    label = words.label(analysis.primary)
    pieces.section(f"Lift of {label}", TERMS["lift"] + " " + TERMS["interval"])
    unsaid: dict[str, list[str]] = {
        AB_REASONS.get(c.reason, c.reason): [] for c in primary if c.relative is None
    }
    for c in primary:
        if c.relative is None:
            unsaid[AB_REASONS.get(c.reason, c.reason)].append(words.label(str(c.variant)))
    for reason, who in unsaid.items():
        st.caption(f"{words.plain(', '.join(who))}: {reason}.")
    relative = not unsaid
    lines = [
        (str(c.variant), c.relative, c.relative_low, c.relative_high, text(c))
        if relative
        else (str(c.variant), c.difference, c.difference_low, c.difference_high, text(c))
        for c in primary
        if c.difference_low is not None
    ]
    if not lines:
        return
    shown = pd.DataFrame(lines, columns=["name", "relative", "low", "high", "text"])
    title = "lift over the control" if relative else f"{label}: difference from the control"
    drawn = charts.lifts(shown, names(analysis), analysis.control, title, lift=relative)
    st.caption(
        f"Dashed line: no difference from {words.plain(analysis.control)}. Thick bar: 95% interval, valid at any look."
    )
    pieces.chart(drawn, shown, f"{analysis.experiment}-lifts", 46 * len(lines) + 46)


def names(analysis: Analysis) -> list[str]:
    """All variants in the file's order, the control included: colours stay the same on every
    chart.
    """
    return list(analysis.units)


def text(c: Comparison) -> str:
    return f"{change(c)[0]} ({change(c)[1]})"


def change(c: Comparison) -> tuple[str, str]:
    """The lift and its interval, or the difference and its interval where no lift can be said."""
    if c.relative is not None:
        return words.lift(c.relative), words.lift_interval(c.relative_low, c.relative_high)
    return words.signed(c.difference), words.interval(c.difference_low, c.difference_high)


def over_time(key: str, analysis: Analysis) -> None:
    progress = data.ask(series.progress, key).rename(columns={"variant": "name"})
    left, right = st.columns(2)
    funnel = progress.dropna(subset=["relative", "relative_low", "relative_high"])
    with left:
        pieces.section("The lift as it became certain", TERMS["interval"])
        if funnel.empty:
            st.caption("Not enough rewards yet to tell a lift from chance.")
        else:
            others = [n for n in names(analysis) if n != analysis.control]
            pieces.chart(
                charts.funnel(funnel, others, analysis.control),
                funnel,
                f"{key}-lift-over-time",
                280,
            )
    with right:
        pieces.section("Units so far", TERMS["units"])
        units = data.ask(series.units_over_time, key).rename(columns={"variant": "name"})
        drawn = charts.lines(units, names(analysis), analysis.control, "units", "units")
        pieces.chart(drawn, units, f"{key}-units", 280)


def table(found: Report, analysis: Analysis) -> None:
    pieces.section(
        "Every metric", "Each variant beside the control; intervals of 95%, valid at any look."
    )
    lines = [
        {
            "metric": words.label(c.metric),
            "variant": str(c.variant),
            "value": words.value(c.value),
            "control": words.value(c.control_value),
            "lift": change(c)[0],
            "95% interval": change(c)[1],
            "chance better": words.chance(c.chance_to_win),
            "reading": CALLS[c.call]
            if c.difference_low is not None
            else AB_REASONS.get(c.reason, c.reason),
        }
        for c in analysis.comparisons
    ]
    shown = pd.DataFrame(lines)
    pieces.table(shown, f"{found.experiment}-metrics")


def uncompared(found: Report) -> None:
    """What one variant earned, there being nothing to compare it with."""
    pieces.section("Every metric", TERMS["uncompared"])
    lines = [
        (
            words.label(line.metric),
            words.label(line.variant),
            words.value(line.estimate.value),
            words.interval(line.estimate.low, line.estimate.high),
            REASONS.get(line.estimate.reason, line.estimate.reason) if line.estimate.reason else "",
        )
        for line in found.metrics
    ]
    shown = pd.DataFrame(
        lines, columns=["metric", "variant", "value", "95% of this look", "reading"]
    )
    pieces.table(shown, f"{found.experiment}-metrics")


def guardrails(analysis: Analysis) -> None:
    if not analysis.guardrails:
        return
    pieces.section("Guardrails", TERMS["guardrail"])
    shown = pd.DataFrame(
        [
            {
                "metric": words.label(g.metric),
                "variant": g.variant,
                "may worsen by": words.share(g.margin),
                "worse by": words.lift(g.worse_by),
                "95% interval": words.lift_interval(g.worse_by_low, g.worse_by_high),
                "reading": KEPT[g.status],
            }
            for g in analysis.guardrails
        ]
    )
    pieces.table(shown, f"{analysis.experiment}-guardrails")
    if any(g.status == "undecided" for g in analysis.guardrails):
        st.caption(
            "Undecided: the interval still holds values beyond the margin. More units make it narrower."
        )


def segments(analysis: Analysis) -> None:
    """Where the effect differs."""
    lines = [
        (f"{h.segment}: {e.value}", e.variant, e.shrunken, e.shrunken_low, e.shrunken_high, e.n)
        for h in analysis.heterogeneity
        for e in h.effects
        if e.shrunken is not None
    ]
    if not lines:
        return
    pieces.section("Does it work for everybody?", TERMS["segment"] + " " + TERMS["shrunken"])
    differing = [
        h for h in analysis.heterogeneity if h.p_adjusted is not None and h.p_adjusted < 0.05
    ]
    if differing:
        which = ", ".join(sorted({f"{h.variant} by {h.segment}" for h in differing}))
        st.markdown(f"The effect **differs** between groups: {words.plain(which)}.")
    else:
        st.markdown("No sign that the effect differs between these groups.")
    columns = ["segment", "name", "value", "low", "high", "n"]
    found = pd.DataFrame(lines, columns=columns)
    rows = found["segment"].nunique() * found["name"].nunique()
    drawn = charts.segments(found, names(analysis), analysis.control)
    pieces.chart(drawn, found, f"{analysis.experiment}-segments", 20 * rows + 90)


def split(analysis: Analysis) -> None:
    ratio = analysis.sample_ratio
    total, weight = max(sum(ratio.counts.values()), 1), sum(ratio.shares.values())
    with st.expander(
        "Were units split as intended?", icon=":material/call_split:", expanded=ratio.alarm
    ):
        shown = pd.DataFrame(
            [
                {
                    "variant": name,
                    "units": words.count(n),
                    "share": words.share(n / total),
                    "intended": words.share(ratio.shares[name] / weight),
                }
                for name, n in ratio.counts.items()
            ]
        )
        pieces.table(shown, f"{analysis.experiment}-split")
        p = ratio.p_value if ratio.p_sequential is None else ratio.p_sequential
        verdict = "**No.** The alarm is on." if ratio.alarm else "Yes, as far as can be told."
        st.markdown(
            f"{verdict} p = {p:.3g}; the alarm goes off at {ratio.alpha:g}.", help=TERMS["srm"]
        )


def about(found: Report) -> None:
    with st.expander("The experiment file, and what changed when", icon=":material/description:"):
        audit = data.ask(database.revisions, found.experiment)
        for row in audit.to_dict("records"):
            since, who = words.moment(row["revised_at"]), words.plain(row["who"])
            st.caption(f"Revision `{row['revision']}` since {since}, by {who}")
        if len(audit):
            st.code(
                yaml.safe_dump(
                    json.loads(audit["spec"].iloc[0]), sort_keys=False, allow_unicode=True
                ),
                "yaml",
            )


def body() -> None:
    key = frame.chosen()
    found = data.report(key)
    frame.header("Experiment", key, f"revision {found.revision}")
    if found.hypothesis:
        st.markdown(f"*{words.plain(found.hypothesis)}*")
    if not found.decisions:
        frame.no_decisions(key)
        about(found)
        return
    frame.answer(standing(found))
    frame.warn(found)
    headline(found)
    if found.ab is not None and len(found.ab.units) > 1:
        lifts(found.ab)
        over_time(key, found.ab)
        table(found, found.ab)
        guardrails(found.ab)
        segments(found.ab)
        split(found.ab)
    else:
        uncompared(found)
    about(found)


frame.show(body)
