"""Verdict: the page for the meeting. One screen, to be printed or sent as a link: where the
experiment stands, the lift, the guardrails, the phases, and what next.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from functools import partial
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from board import answers, choose, data, frame, pieces, ramps, readout, verdict_picture, words
from board.terms import TERMS
from topbill.ab import Analysis, GuardrailResult, SampleRatio
from topbill.reporting import Report
from topbill.reporting.experiment.wording import (
    PROBABILITY,
    RESULT,
    Standing,
    effect_in_words,
    guardrail_result,
    side,
    validity,
    value_cells,
    worsening,
)
from topbill.reporting.queries import database

SHARE = """
<div class="tb-share">
  <button type="button" data-does="print">Print or save as PDF</button>
  <button type="button" data-does="copy">Copy link</button>
</div>
<script>
{
  const link = new URL(%s, location.origin + location.pathname).href;
  const buttons = document.querySelectorAll(".tb-share button");
  for (const button of buttons) button.onclick = async () => {
    if (button.dataset.does === "print") return window.print();
    // Without https there is no clipboard: the link is shown to be copied by hand.
    try { await navigator.clipboard.writeText(link); button.textContent = "Link copied"; }
    catch { window.prompt("Link to this verdict", link); }
  };
}
</script>
"""
"""The browser's own printing, which makes a PDF too, and the address of just this verdict."""


def lifts(analysis: Analysis, grey: str) -> pd.DataFrame:
    """The primary metric of each variant, as a chart and in a line; the lines."""
    readout.lifts(analysis, grey, csv=False)
    primary = analysis.comparisons_of(analysis.primary)
    # What stands there where no lift can be said is called what it is.
    effect = "difference" if all(c.relative_low is None for c in primary) else "lift"
    lines = []
    for shown in primary:
        size, interval = effect_in_words(shown, shown.is_proportion)
        value, control = value_cells(shown)
        lines.append(
            {
                "variant": side(shown),
                effect: size,
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
        phone=("variant", effect, RESULT),
        strong={"variant": winner} if winner else {},
        csv=False,
    )
    return pd.DataFrame(lines).assign(metric=words.label(analysis.primary))


def guardrails(analysis: Analysis) -> pd.DataFrame:
    """Every guardrail of every variant, in a line; the lines."""
    if not analysis.guardrails:
        return pd.DataFrame()
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
                RESULT: readout.guardrail_cell(guardrail, analysis.sample_ratio),
            }
        )
    pieces.table(
        pd.DataFrame(lines),
        f"{analysis.experiment}-verdict-guardrails",
        phone=("variant", "change", RESULT),
        group="metric",
        csv=False,
    )
    return pd.DataFrame(lines)


def guardrail_sentence(guardrail: GuardrailResult, ratio: SampleRatio) -> str:
    """abandon, thompson: passed, 0.7% better (25.2% better to 8.2% worse), margin 10.0%"""
    change, bounds = worsening(guardrail)
    parts = [guardrail_result(guardrail, ratio)]
    if bounds:
        parts.append(f"{change} ({bounds})")
    parts.append(f"margin {readout.allowed(guardrail)}")
    return f"{words.label(guardrail.metric)}, {guardrail.variant}: {', '.join(parts)}"


def picture(key: str, report: Report, where: Standing, grey: str) -> None:
    """A button that saves the verdict as a picture."""
    analysis, sentences = report.ab, []
    effects, axis = readout.NO_EFFECTS, ("", "")
    if analysis is not None and len(analysis.units) > 1:
        effects, axis = readout.drawn_effects(analysis)
        sentences = [
            guardrail_sentence(guardrail, analysis.sample_ratio)
            for guardrail in analysis.guardrails
        ]
    draw = partial(
        verdict_picture.picture,
        report.title or key,
        where,
        effects.assign(grey=effects["name"] == grey),
        axis,
        sentences,
        f"{' '.join(basis(report))} Record as of {words.moment(data.ask(database.published_at))}.",
    )
    st.download_button(
        "PNG",
        partial(verdict_picture.png, draw),
        f"{key}-verdict.png",
        "image/png",
        icon=":material/image:",
        on_click="ignore",
        help="Save the verdict as a picture, for a slide or a chat.",
    )


def basis(report: Report) -> Iterator[str]:
    """On what all of it rests, in sentences."""
    mature = words.share(report.health.mature_share, digits=0)
    yield (
        f"{words.count(report.units)} units with {words.count(report.decisions)} decisions, "
        f"{mature} of them mature."
    )
    if report.ab is not None and len(report.ab.units) > 1:
        # With a mismatch no interval is shown.
        if report.ab.sample_ratio.alarm:
            yield "Sample ratio mismatch (SRM)."
        else:
            yield f"Intervals of 95%, {validity(report.ab)}."
            yield "No sample ratio mismatch (SRM)."
    if len(report.phases) > 1:
        changed = words.listing([", ".join(phase.changed) for phase in report.phases[1:]], 6)
        yield f"{len(report.phases)} phases; changed: {changed}."
    if report.holdout is not None:
        yield f"{words.count(report.holdout.units)} units are held out."


def window_said(first: date | None, last: date | None) -> str:
    """Which days are spoken of; empty where it is all of the record."""
    parts = []
    if first is not None:
        parts.append(f"from {first}")
    if last is not None:
        parts.append(f"up to {last}")
    return " ".join(parts)


def link(key: str, first: date | None, last: date | None) -> str:
    """The query of this verdict's address, whatever the address has now."""
    days = {"first_day": first, "last_day": last}
    chosen = {name: str(day) for name, day in days.items() if day is not None}
    return f"?{urlencode({'experiment': key, **chosen})}"


def body() -> None:
    key = frame.chosen()
    # The window is chosen at the end of the page, which speaks of it from its title on.
    page, below = st.container(), st.container(key="no-print")
    with below, st.expander("Days", icon=":material/date_range:"):
        first, last = choose.window()
    since = None if first is None else str(first)
    until = None if last is None else str(last + timedelta(days=1))
    with page:
        verdict(key, data.report(key, None, since, until), first, last)


def verdict(key: str, report: Report, first: date | None, last: date | None) -> None:
    """The page of a report, of those days."""
    said = window_said(first, last)
    revision = f"revision {report.revision}"
    frame.header("Verdict", key, f"{revision} · {said}" if said else revision)
    if report.hypothesis:
        st.markdown(f"*{words.plain(report.hypothesis)}*")
    if not report.decisions:
        readout.conclusion(report)
        with st.container(key="nothing"):
            frame.no_decisions(key)
        return
    launch = ramps.by_experiment().get(key)
    where = answers.while_still(answers.with_launch(report, launch), data.age())
    frame.answer(where)
    readout.conclusion(report)
    frame.warn(report)
    if launch is not None and launch.stage != "over":
        ramps.on_card(launch)
    grey = data.experiment(key).control.name
    numbers: list[pd.DataFrame] = []
    if report.ab is not None and len(report.ab.units) > 1:
        # Where units were not split as intended, how they were split is what is to be looked at.
        if report.ab.sample_ratio.alarm:
            readout.split(report.ab)
        else:
            numbers.append(lifts(report.ab, grey))
        numbers.append(guardrails(report.ab))
    else:
        readout.uncompared(report)
    st.caption(words.plain(" ".join(basis(report))))
    with st.container(key="share", horizontal=True, vertical_alignment="center"):
        st.page_link(
            "views/experiment.py",
            label="All numbers",
            icon=":material/science:",
            query_params={"experiment": key},
        )
        # Both tables in one file, so that the page stays one screen.
        if any(len(lines) for lines in numbers):
            pieces.download(pd.concat(numbers), f"{key}-verdict")
        if verdict_picture.CAN_DRAW:
            picture(key, report, where, grey)
        st.html(SHARE % json.dumps(link(key, first, last)), unsafe_allow_javascript=True)


frame.show("Verdict", body)
