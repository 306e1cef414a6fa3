"""Experiment: did a variant win, by how much, how sure, and what next."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from board import answers, charts, choose, data, frame, pieces, ramps, readout, words
from board.terms import TERMS
from topbill.ab import Analysis
from topbill.domain.errors import TopbillError
from topbill.reporting.queries import series


def over_time(key: str, analysis: Analysis, grey: str) -> None:
    # Without the argument where it is the usual question, which is answered in advance.
    progress = (
        data.ask(series.progress, key)
        if analysis.control == grey
        else data.ask(series.progress, key, control=analysis.control)
    ).rename(columns={"variant": "name"})
    # Early buckets have no lift yet, and the control never has one.
    funnel = progress.dropna(subset=["relative", "relative_low", "relative_high"])
    primary = analysis.comparisons_of(analysis.primary)
    is_told_now = any(c.relative is not None for c in primary)
    left_column, right_column = st.columns(2)
    with left_column:
        pieces.section("Lift over time", TERMS["interval"])
        if analysis.sample_ratio.alarm:
            st.caption("None is drawn: units were not split as intended.")
        elif funnel.empty or not is_told_now:
            st.caption("Not enough rewards yet to tell a lift from chance.")
        elif funnel["till"].nunique() < 2:
            st.caption(
                "No line yet: there has been one moment so far at which a lift could be told. It "
                "stands above; the line begins with the next."
            )
        else:
            others = [name for name in readout.names(analysis) if name != analysis.control]
            drawing = charts.funnel(funnel, others, grey)
            pieces.over_time(key, drawing, funnel, f"{key}-lift-over-time", 280)
    with right_column:
        pieces.section("Units so far", TERMS["units"])
        units = data.ask(series.units_over_time, key).rename(columns={"variant": "name"})
        units = pieces.filled(units, "units", is_running_total=True)
        drawing_of_units = charts.lines(units, readout.names(analysis), grey, "units", "units")
        pieces.over_time(key, drawing_of_units, units, f"{key}-units", 280)


def look_up(key: str) -> None:
    """Which variant a unit is in, since when and why."""
    with st.expander(
        "Variant lookup: which variant is a unit in?", icon=":material/person_search:"
    ):
        left_column, right_column = st.columns(2)
        unit = left_column.text_input(
            "Unit", key="who", placeholder="as services send it", help=TERMS["units"]
        )
        context = right_column.text_input(
            "Context",
            key="who-context",
            placeholder='{"device": "tv"}, where the file asks for it',
            help=TERMS["context"],
        )
        if not unit:
            st.caption("Type an id, and see its variant, since when, and why.")
            return
        try:
            found = data.assignment(key, unit.strip(), context.strip() or "{}")
        except TopbillError as error:
            st.warning(words.plain(str(error)), icon=":material/edit:")
            return
        st.markdown(f"**{words.plain(found.sentence)}**")
        lines = []
        for part in found.seen:
            lines.append(
                {
                    "variant": part.variant or "none",
                    "reason": words.label(part.reason),
                    "decisions": words.count(part.decisions),
                    "since": words.moment(part.first_at),
                    "until": words.moment(part.last_at),
                }
            )
        if lines:
            pieces.table(pd.DataFrame(lines), f"{key}-unit")


def body() -> None:
    key = frame.chosen()
    # The title stands above the choice, but says the revision of what was chosen.
    above = st.container()
    against = choose.control(key)
    report = data.report(key, against)
    with above:
        frame.header("Experiment", key, f"revision {report.revision}")
        if report.hypothesis:
            st.markdown(f"*{words.plain(report.hypothesis)}*")
    # The file can be looked at before anybody was asked.
    if not report.decisions:
        ramps.section(key)
        frame.no_decisions(key)
        readout.revisions(key)
        return
    readout.conclusion(report)
    where = answers.with_launch(report, ramps.by_experiment().get(key))
    if report.conclusion is not None and data.listed(key).status == "removed":
        where = answers.without_file(where)
    frame.answer(answers.while_still(where, data.age()))
    readout.notes(report)
    frame.warn(report)
    readout.headline(report)
    ramps.section(key)
    if report.ab is not None and len(report.ab.units) > 1:
        grey = data.experiment(key).control.name
        readout.lifts(report.ab, grey)
        over_time(key, report.ab, grey)
        readout.details(report, report.ab, grey)
    else:
        readout.uncompared(report)
    readout.holdout(report)
    readout.phases(report)
    look_up(key)
    readout.revisions(key)


frame.show("Experiment", body)
