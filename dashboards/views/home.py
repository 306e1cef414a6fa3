"""Home: what the morning asks for, and every experiment as a card with its verdict in one
sentence.
"""

from __future__ import annotations

import streamlit as st

from board import answers, charts, data, frame, words
from topbill.ab import Analysis
from topbill.reporting import Report
from topbill.reporting.experiment.wording import alarms, standing
from topbill.reporting.queries import series
from topbill.reporting.queries.database import ListedExperiment


def card(line: ListedExperiment, found: Report) -> None:
    """One experiment: where it stands, since when, on how many, and how the lift went."""
    where = standing(found)
    with st.container(border=True, key=f"card-{line.key}"):
        top = st.container(
            horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"
        )
        with top:
            st.markdown(f"**{words.plain(line.title or line.key)}**")
            frame.badge(where)
        st.caption(
            f"{line.surface} · {line.status} · {words.span(line.first_at, line.last_at)} · "
            f"{words.count(found.units)} {words.units(line.unit)}"
            + (f" · {words.count(line.decisions)} decisions" if line.unit else "")
        )
        st.markdown(words.plain(where.sentence))
        if found.ab is not None and line.decisions:
            spark(line.key, spoken_of(found.ab))
        for alarm in alarms(found):
            st.markdown(f":orange[:material/warning: **{words.plain(alarm.sentence)}**]")
        st.page_link(
            "views/experiment.py",
            label="Open",
            icon=":material/arrow_forward:",
            query_params={"experiment": line.key},
        )


def spoken_of(analysis: Analysis) -> str | None:
    """The variant that the verdict names first."""
    others = [v for v in analysis.units if v != analysis.control and v in analysis.verdict.sentence]
    return min(others, key=analysis.verdict.sentence.index, default=None)


def spark(key: str, variant: str | None) -> None:
    """The lift of that variant, or of the leading one, as its interval narrowed."""
    progress = data.ask(series.progress, key).dropna(subset=["relative", "relative_low"])
    if progress.empty:
        return
    last = progress.groupby("variant").tail(1).sort_values("relative")
    name = variant or str(last["variant"].iloc[-1])
    one = progress[progress["variant"] == name]
    if len(one) < 2:
        return
    low, high = one["relative_low"].iloc[-1], one["relative_high"].iloc[-1]
    st.caption(f"Lift of **{words.plain(name)}** over time, now {words.lift_interval(low, high)}")
    charts.draw(charts.spark(one), 90)


def body() -> None:
    lines = data.experiments()
    frame.header("Experiments")
    frame.problems()
    if not lines:
        frame.chosen()
    reports = {line.key: data.report(line.key) for line in lines}
    frame.answer(answers.morning([(line.title or line.key, reports[line.key]) for line in lines]))
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        text = st.text_input(
            "Search",
            key="search",
            bind="query-params",
            placeholder="title, key or owner",
            icon=":material/search:",
        )
    with right:
        statuses = sorted({line.status for line in lines})
        wanted = st.pills(
            "Status", statuses, key="status", bind="query-params", selection_mode="multi"
        )
    needle = (text or "").lower()
    shown = [
        line
        for line in lines
        if needle in f"{line.key} {line.title} {line.owner}".lower()
        and (not wanted or line.status in wanted)
    ]
    if not shown:
        st.info("No experiment matches; clear the search.", icon=":material/search_off:")
    columns = st.columns(2 if len(shown) > 1 else 1)
    for i, line in enumerate(shown):
        with columns[i % len(columns)]:
            card(line, reports[line.key])


frame.show(body)
