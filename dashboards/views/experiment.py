"""Experiment: did a variant win, by how much, how sure, and what next."""

from __future__ import annotations

import json

import pandas as pd
import streamlit as st
import yaml

from board import charts, data, frame, words
from topbill.ab import REASONS as AB_REASONS
from topbill.ab import Analysis, Comparison
from topbill.report import Report

CALLS = {"better": "✔ better", "worse": "✖ worse", "no_call": "… no call yet"}
KEPT = {"not_worse": "✔ kept", "worse": "✖ broken", "undecided": "… undecided", "unknown": "? unknown"}


def headline(found: Report) -> None:
    line = data.one(found.experiment)
    frame.metrics(
        ("Running for", words.span(line.first_at, line.last_at), ""),
        ("Units", words.count(found.units), words.TERMS["units"]),
        ("Decisions", words.count(found.decisions), words.TERMS["decisions"]),
        ("Mature", words.percent(found.health.mature_share, digits=0), words.TERMS["mature"]),
    )


def lifts(analysis: Analysis) -> None:
    """The primary metric: each variant's lift with its interval; the plain difference where no lift can be said."""
    primary = [c for c in analysis.comparisons if c.metric == analysis.primary]
    label = words.label(analysis.primary)
    frame.section(f"Lift of {label}", words.TERMS["lift"] + " " + words.TERMS["interval"])
    unsaid: dict[str, list[str]] = {AB_REASONS.get(c.reason, c.reason): [] for c in primary if c.relative is None}
    for c in primary:
        if c.relative is None:
            unsaid[AB_REASONS.get(c.reason, c.reason)].append(words.label(str(c.variant)))
    for reason, who in unsaid.items():
        st.caption(f"{frame.plain(', '.join(who))}: {reason}.")
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
    charts.draw(charts.lifts(shown, names(analysis), analysis.control, title, lift=relative), 46 * len(lines) + 46)
    st.caption(
        f"Dashed line: no difference from {frame.plain(analysis.control)}. Thick bar: 95% interval, valid at any look."
    )


def names(analysis: Analysis) -> list[str]:
    """All variants in the file's order, the control included: colours stay the same on every chart."""
    return list(analysis.units)


def text(c: Comparison) -> str:
    return f"{change(c)[0]} ({change(c)[1]})"


def change(c: Comparison) -> tuple[str, str]:
    """The lift and its interval, or the difference and its interval where no lift can be said."""
    if c.relative is not None:
        return words.percent(c.relative, signed=True), words.interval(c.relative_low, c.relative_high, lift=True)
    return words.signed(c.difference), words.interval(c.difference_low, c.difference_high)


def over_time(key: str, analysis: Analysis) -> None:
    progress = data.ask("progress", key).rename(columns={"variant": "name"})
    left, right = st.columns(2)
    funnel = progress.dropna(subset=["relative", "relative_low", "relative_high"])
    with left:
        frame.section("The lift as it became certain", words.TERMS["interval"])
        if funnel.empty:
            st.caption("Not enough rewards yet to tell a lift from chance.")
        else:
            others = [n for n in names(analysis) if n != analysis.control]
            charts.draw(charts.funnel(funnel, others, analysis.control), 280)
            frame.download(funnel, f"{key}-lift")
    with right:
        frame.section("Units so far", words.TERMS["units"])
        units = data.ask("units", key).rename(columns={"variant": "name"})
        charts.draw(charts.lines(units, names(analysis), analysis.control, "units", "units"), 280)
        frame.download(units, f"{key}-units")


def table(found: Report, analysis: Analysis) -> None:
    frame.section("Every metric", "Each variant beside the control; intervals of 95%, valid at any look.")
    lines = [
        {
            "metric": words.label(c.metric),
            "variant": str(c.variant),
            "value": words.value(c.value),
            "control": words.value(c.control_value),
            "lift": change(c)[0],
            "95% interval": change(c)[1],
            "chance better": words.chance(c.chance_to_win),
            "reading": CALLS[c.call] if c.difference_low is not None else AB_REASONS.get(c.reason, c.reason),
        }
        for c in analysis.comparisons
    ]
    shown = pd.DataFrame(lines)
    st.dataframe(
        shown,
        hide_index=True,
        width="stretch",
        height="content",
        column_config={
            "lift": st.column_config.TextColumn(
                help=words.TERMS["lift"] + " Where that cannot be told from zero: the difference, in the metric's unit."
            ),
            "95% interval": st.column_config.TextColumn(help=words.TERMS["interval"]),
            "chance better": st.column_config.TextColumn(help=words.TERMS["chance"]),
        },
    )
    frame.download(shown, f"{found.experiment}-metrics")


def guardrails(analysis: Analysis) -> None:
    if not analysis.guardrails:
        return
    frame.section("Guardrails", words.TERMS["guardrail"])
    shown = pd.DataFrame(
        [
            {
                "metric": words.label(g.metric),
                "variant": g.variant,
                "may worsen by": words.percent(g.worse_by_at_most),
                "worse by": words.percent(g.worse_by, signed=True),
                "95% interval": words.interval(g.worse_by_low, g.worse_by_high, lift=True),
                "reading": KEPT[g.status],
            }
            for g in analysis.guardrails
        ]
    )
    st.dataframe(shown, hide_index=True, width="stretch")
    if any(g.status == "undecided" for g in analysis.guardrails):
        st.caption("Undecided: the interval still holds values beyond the margin. More units make it narrower.")


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
    frame.section("Does it work for everybody?", words.TERMS["segment"] + " " + words.TERMS["shrunken"])
    differing = [h for h in analysis.heterogeneity if h.p_adjusted is not None and h.p_adjusted < 0.05]
    if differing:
        which = ", ".join(sorted({f"{h.variant} by {h.segment}" for h in differing}))
        st.markdown(f"The effect **differs** between groups: {frame.plain(which)}.")
    else:
        st.markdown("No sign that the effect differs between these groups.")
    columns = ["segment", "name", "value", "low", "high", "n"]
    found = pd.DataFrame(lines, columns=columns)
    rows = found["segment"].nunique() * found["name"].nunique()
    charts.draw(charts.segments(found, names(analysis), analysis.control), 20 * rows + 90)
    frame.download(found, f"{analysis.experiment}-segments")


def split(analysis: Analysis) -> None:
    ratio = analysis.sample_ratio
    total, weight = max(sum(ratio.counts.values()), 1), sum(ratio.shares.values())
    with st.expander("Were units split as intended?", icon=":material/call_split:", expanded=ratio.alarm):
        shown = pd.DataFrame(
            [
                {
                    "variant": name,
                    "units": words.count(n),
                    "share": words.percent(n / total),
                    "intended": words.percent(ratio.shares[name] / weight),
                }
                for name, n in ratio.counts.items()
            ]
        )
        st.dataframe(shown, hide_index=True, width="stretch")
        p = ratio.p_value if ratio.p_sequential is None else ratio.p_sequential
        verdict = "**No.** The alarm is on." if ratio.alarm else "Yes, as far as can be told."
        st.markdown(f"{verdict} p = {p:.3g}; the alarm goes off at {ratio.alpha:g}.", help=words.TERMS["srm"])


def about(found: Report) -> None:
    with st.expander("The experiment file, and what changed when", icon=":material/description:"):
        audit = data.ask("revisions", found.experiment)
        for row in audit.itertuples():
            st.caption(f"Revision `{row.revision}` since {words.moment(row.at)}, by {frame.plain(row.who)}")
        if len(audit):
            st.code(yaml.safe_dump(json.loads(audit["spec"].iloc[0]), sort_keys=False, allow_unicode=True), "yaml")


def body() -> None:
    key = frame.chosen()
    found = data.loaded(key)
    frame.header("Experiment", key, f"revision {found.revision}")
    if found.hypothesis:
        st.markdown(f"*{frame.plain(found.hypothesis)}*")
    if not found.decisions:
        frame.no_decisions(key)
        about(found)
        return
    frame.verdict(found)
    headline(found)
    if found.ab is not None and len(found.ab.units) > 1:
        lifts(found.ab)
        over_time(key, found.ab)
        table(found, found.ab)
        guardrails(found.ab)
        segments(found.ab)
        split(found.ab)
    about(found)


frame.show(body)
