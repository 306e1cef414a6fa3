"""Verdict: the page for the meeting. One screen, to be printed or sent as a link: where the
experiment stands, the lift, the guardrails, the phases, and what next.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import streamlit as st

from board import answers, data, frame, pieces, ramps, readout, words
from board.terms import TERMS
from topbill.ab import Analysis
from topbill.reporting import Report
from topbill.reporting.experiment.wording import (
    GUARDRAILS,
    PROBABILITY,
    RESULT,
    effect_in_words,
    side,
    value_cells,
    worsening,
)

PRINT = """
<div class="tb-share"><button type="button">Print or save as PDF</button></div>
<script>
for (const button of document.querySelectorAll(".tb-share button"))
  button.onclick = () => window.print();
</script>
"""
"""The browser's own printing, which makes a PDF too."""


def lifts(analysis: Analysis, grey: str) -> None:
    """The primary metric of each variant, as a chart and in a line."""
    readout.lifts(analysis, grey, csv=False)
    once = {c.variant: c for c in analysis.per_unit if c.metric == analysis.primary}
    lines = []
    for c in analysis.comparisons:
        if c.metric != analysis.primary:
            continue
        shown = once.get(c.variant, c)
        size, interval = effect_in_words(shown, shown.is_proportion)
        value, control = value_cells(shown)
        lines.append(
            {
                "variant": side(shown),
                "lift": size,
                "95% interval": interval,
                "value": value,
                "control": control,
                PROBABILITY: words.chance(shown.chance_to_win),
                RESULT: readout.result(shown, analysis.sample_ratio)
                if shown.difference_low is not None
                else words.MISSING,
            }
        )
    winner = analysis.verdict.winner
    pieces.table(
        pd.DataFrame(lines),
        f"{analysis.experiment}-verdict-lifts",
        phone=("variant", "lift", RESULT),
        strong={"variant": winner} if winner else {},
    )


def guardrails(analysis: Analysis) -> None:
    """Every guardrail of every variant, in a line."""
    if not analysis.guardrails:
        return
    pieces.section("Guardrails", f"{TERMS['guardrail']} {TERMS['noninferiority']}")
    lines = []
    for guardrail in analysis.guardrails:
        change, bounds = worsening(guardrail)
        lines.append(
            {
                "metric": words.label(guardrail.metric),
                "variant": guardrail.variant,
                "change": change,
                "95% interval": bounds or words.MISSING,
                "non-inferiority margin": readout.allowed(guardrail),
                RESULT: f"{readout.GUARDRAIL_SIGNS[guardrail.status]} "
                f"{GUARDRAILS[guardrail.status]}",
            }
        )
    pieces.table(
        pd.DataFrame(lines),
        f"{analysis.experiment}-verdict-guardrails",
        phone=("variant", "change", RESULT),
        group="metric",
    )


def basis(report: Report) -> Iterator[str]:
    """On what all of it rests, in sentences."""
    mature = words.share(report.health.mature_share, digits=0)
    yield (
        f"{words.count(report.units)} units with {words.count(report.decisions)} decisions, "
        f"{mature} of them mature; intervals of 95% hold at every look."
    )
    if report.ab is not None:
        mismatch = report.ab.sample_ratio.alarm
        yield "Sample ratio mismatch (SRM)." if mismatch else "No sample ratio mismatch (SRM)."
    if len(report.phases) > 1:
        changed = words.listing([", ".join(phase.changed) for phase in report.phases[1:]], 6)
        yield f"{len(report.phases)} phases; changed: {changed}."
    if report.holdout is not None:
        yield f"{words.count(report.holdout.units)} units are held out."


def body() -> None:
    key = frame.chosen()
    report = data.report(key)
    frame.header("Verdict", key, f"revision {report.revision}")
    if report.hypothesis:
        st.markdown(f"*{words.plain(report.hypothesis)}*")
    launch = ramps.by_experiment().get(key)
    where = answers.while_still(answers.with_launch(report, launch), data.age())
    frame.answer(where)
    readout.conclusion(report)
    frame.warn(report)
    if launch is not None and launch.stage != "over":
        ramps.on_card(launch)
    if report.ab is not None and len(report.ab.units) > 1 and report.decisions:
        lifts(report.ab, data.experiment(key).control.name)
        guardrails(report.ab)
    elif report.decisions:
        readout.uncompared(report)
    st.caption(words.plain(" ".join(basis(report))))
    with st.container(key="no-print", horizontal=True):
        st.page_link(
            "views/experiment.py",
            label="All numbers",
            icon=":material/science:",
            query_params={"experiment": key},
        )
        st.html(PRINT, unsafe_allow_javascript=True)


frame.show(body)
